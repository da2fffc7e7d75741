//! Autobahn's cases for RFC 6455, in both roles: its fuzzing client against a server behind the mesh, its fuzzing server behind
//! the mesh with clients of two languages. What passes without the mesh must pass through it.
//!
//! Of compression (its parts 12 and 13) it runs two lengths of message, a thousand messages each, with every content and every way to
//! agree: to the mesh all of that is bytes, and the longer ones take hours.

use crate::{
    door,
    mesh::Mesh,
    program::{self, free_port, tool},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use weft_model::ProtocolHint;

/// Fewer means that it did not run them.
const CASES: usize = 301 + 2 * 5 + 2 * 7;
/// How often a case is run whose words differ, before that counts. What it sends in pieces may arrive as one, with the mesh and without
/// it, and for some cases that is another word.
const ATTEMPTS: usize = 3;
/// One run of all cases.
const PATIENCE: Duration = Duration::from_secs(600);

/// What Autobahn says of each case: how it went, and how the closing handshake went.
type Report = BTreeMap<String, (String, String)>;

/// All, but of compression those whose messages have 16 bytes or 1 KiB.
fn cases() -> Vec<String> {
    let compressed =
        |part: u8, kinds: u8| (1..=kinds).flat_map(move |kind| [1, 4].map(|n| format!("{part}.{kind}.{n}")));
    (1..=11).map(|part| format!("{part}.*")).chain(compressed(12, 5)).chain(compressed(13, 7)).collect()
}

/// A folder for reports, removed with this.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weft-autobahn-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// Autobahn's program in this folder with these settings.
    fn program(&self, mode: &str, settings: &serde_json::Value) -> Option<Command> {
        let tools = tool("autobahn/bin/wstest")?;
        let spec = self.0.join("spec.json");
        std::fs::write(&spec, settings.to_string()).unwrap();
        let mut command = Command::new(&tools);
        command.args(["--mode", mode, "--webport", "0", "--spec"]).arg(spec);
        command.env("PYTHONUSERBASE", tools.parent().and_then(Path::parent).unwrap());
        Some(command)
    }

    /// The report of each agent.
    fn reports(&self) -> BTreeMap<String, Report> {
        let text = std::fs::read_to_string(self.0.join("index.json")).expect("Autobahn has written its report");
        let index: BTreeMap<String, BTreeMap<String, serde_json::Value>> = serde_json::from_str(&text).unwrap();
        let word = |case: &serde_json::Value, name: &str| case[name].as_str().unwrap_or("none").to_owned();
        let of = |cases: BTreeMap<String, serde_json::Value>| {
            cases.iter().map(|(id, case)| (id.clone(), (word(case, "behavior"), word(case, "behaviorClose")))).collect()
        };
        index.into_iter().map(|(agent, cases)| (agent, of(cases))).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Cases to be run: so many, which are those.
struct Cases {
    count: usize,
    named: Vec<String>,
}

/// Runs all cases, and again those that differ. `run` gives the reports of its agents; `ways` are pairs of these, without and with the
/// mesh.
async fn compare(ways: &[(&str, &str)], run: impl AsyncFn(&Cases) -> Option<BTreeMap<String, Report>>) {
    let mut cases = Cases { count: CASES, named: cases() };
    for attempt in 1..=ATTEMPTS {
        let Some(reports) = run(&cases).await else { return };
        let mut worse = BTreeMap::new();
        for (direct, mesh) in ways {
            let (direct, mesh, who) = (&reports[*direct], &reports[*mesh], *mesh);
            assert_eq!((direct.len(), mesh.len()), (cases.count, cases.count), "{who}");
            let failed = direct.values().filter(|(word, _)| !is_good(word)).count();
            let enough = attempt > 1 || failed * 20 < CASES;
            assert!(enough, "{who}: {failed} cases fail without the mesh too: {direct:?}");
            worse.extend(worse_through(direct, mesh).map(|(id, words)| (id, format!("{who}: {words}"))));
        }
        if worse.is_empty() {
            return;
        }
        assert!(attempt < ATTEMPTS, "without and with the mesh: {worse:#?}");
        cases = Cases { count: worse.len(), named: worse.into_keys().collect() };
    }
}

fn is_good(word: &str) -> bool {
    matches!(word, "OK" | "NON-STRICT" | "INFORMATIONAL")
}

/// The cases whose words through the mesh are neither those without it nor the best.
fn worse_through(direct: &Report, mesh: &Report) -> impl Iterator<Item = (String, String)> {
    let as_good = |through: &String, without: &String| through == without || through == "OK";
    mesh.iter().filter_map(move |(id, through)| {
        let without = &direct[id];
        let worse = !as_good(&through.0, &without.0) || !as_good(&through.1, &without.1);
        worse.then(|| (id.clone(), format!("{without:?} {through:?}")))
    })
}

/// Runs to the end with the patience that all cases need.
async fn ran(command: &mut Command) -> String {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, running).await.expect("the program hangs").unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "hundreds of cases on Python 2.7: run by cargo xtask soak"]
async fn the_fuzzing_client_finds_no_difference() {
    let Some(mut node) = program::node("conformance/websocket.js") else { return };
    let (_server, direct) = program::server(node.args(["serve", "compressing"])).await;
    let mesh = Mesh::start().await;
    let mut servers = vec![serde_json::json!({"agent": "direct", "url": format!("ws://{direct}")})];
    for (agent, hint) in [("h2", ProtocolHint::H2), ("h1", ProtocolHint::Unknown)] {
        let service = mesh.service(&[mesh.endpoint(direct, hint)]);
        let through = door::pair(&mesh, &service).await;
        servers.push(serde_json::json!({"agent": agent, "url": format!("ws://{through}")}));
    }
    compare(&[("direct", "h2"), ("direct", "h1")], async |cases| {
        let folder = Folder::new("client");
        let settings = serde_json::json!({
            "outdir": folder.0, "servers": servers, "cases": cases.named, "exclude-cases": [],
            "exclude-agent-cases": {},
        });
        ran(&mut folder.program("fuzzingclient", &settings)?).await;
        Some(folder.reports())
    })
    .await;
}

/// Autobahn's fuzzing server, once it listens.
async fn fuzzing_server(folder: &Folder, cases: &Cases) -> Option<(Child, SocketAddr)> {
    let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = serde_json::json!({
        "outdir": folder.0, "url": format!("ws://{addr}"), "cases": cases.named, "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let mut command = folder.program("fuzzingserver", &settings)?;
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
    let listening = async {
        while TcpStream::connect(addr).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), listening).await.expect("the fuzzing server listens");
    Some((child.unwrap(), addr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "hundreds of cases on Python 2.7: run by cargo xtask soak"]
async fn the_fuzzing_server_finds_no_difference() {
    compare(&[("ws-direct", "ws-mesh"), ("websockets-direct", "websockets-mesh")], async |cases| {
        let folder = Folder::new("server");
        let (_server, direct) = fuzzing_server(&folder, cases).await?;
        let mesh = Mesh::start().await;
        let service = mesh.service(&[mesh.endpoint(direct, ProtocolHint::H2)]);
        let through = door::pair(&mesh, &service).await;
        for (addr, way) in [(direct, "direct"), (through, "mesh")] {
            for (client, command) in [
                ("ws", program::node("conformance/autobahn.js")),
                ("websockets", program::python("conformance/autobahn.py")),
            ] {
                let text = ran(command?.args([addr.to_string(), format!("{client}-{way}"), direct.to_string()])).await;
                assert!(text.contains(&format!("ran {} cases", cases.count)), "{client} {way}: {text}");
            }
        }
        Some(folder.reports())
    })
    .await;
}
