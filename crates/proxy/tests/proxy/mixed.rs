//! Mixed pairs: on one side of each pair a program in a process of its own, on the other our proxy in this one
//! (docs/mixed-pairs.md).
//!
//! ```text
//! run ─► this test binary once more, in a network namespace of its own
//!          app ─► 10.96.0.n ═redirect═► program or ours ─► 10.77.0.1 ═to loopback═► ours or program ─► origin
//! ```
//! A program learns the original destination from redirection, which needs the namespace, and may refuse to dial loopback, so
//! endpoints have another address there.

use crate::harness::{LONG, Proxy, Setup};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};
use weft_proxy::process::Addrs;
use weft_transport::tls::Key;

/// Names somebody else's proxy for the mixed pairs; ours otherwise.
pub(crate) const VARIABLE: &str = "WEFT_LINKERD2_PROXY";
/// Inside: which side is the program, and which one it is.
const SIDE: &str = "WEFT_MIXED_SIDE";
const PROGRAM: &str = "WEFT_MIXED_PROGRAM";
/// Where endpoints are.
const ENDPOINTS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The longest run of one side.
const PATIENCE: Duration = Duration::from_secs(900);

/// What stands between the programs: destinations of clients lead to their proxy, endpoints to loopback.
const RULES: &str = "
table ip mixed {
    map services { type ipv4_addr : inet_service; }
    chain output {
        type nat hook output priority -100;
        ip daddr 10.77.0.1 dnat to 127.0.0.1
        ip daddr 10.96.0.0/16 meta l4proto tcp redirect to :ip daddr map @services
    }
}";

/// Which proxy of a pair is the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// A proxy in a process of its own. Dropping it kills it.
pub(crate) struct Program {
    child: Child,
    addrs: Addrs,
    log: PathBuf,
}

/// Runs the tests whose names hold one of `filters` in mixed pairs, both ways round, with the program of [`VARIABLE`] or else
/// our own. `more` is passed to the test binary.
pub(crate) fn run(filters: &[&str], more: &[&str]) {
    assert!(side().is_none(), "mixed pairs are not part of mixed pairs");
    let program = std::env::var_os(VARIABLE).unwrap_or_else(|| env!("CARGO_BIN_EXE_weft-proxy").into());
    let args: Vec<_> = filters.iter().chain(&["--test-threads", "2"]).chain(more).copied().collect();
    for side in ["client", "server"] {
        once_more(side, &program, &args);
    }
}

/// Runs the test of that name where the client's proxy is a program, which is ours. True is said in there, false behind it.
pub(crate) fn with_program(name: &str) -> bool {
    if side().is_none() {
        once_more("client", env!("CARGO_BIN_EXE_weft-proxy").as_ref(), &["--exact", name]);
        return false;
    }
    true
}

/// Runs this test binary in namespaces of its own, with these arguments.
fn once_more(side: &str, program: &OsStr, args: &[&str]) {
    static RUNS: AtomicU16 = AtomicU16::new(0);
    let mut inner = Command::new("unshare");
    // Whatever ends this ends everything inside.
    inner.args(["--user", "--map-root-user", "--net", "--pid", "--mount-proc", "--fork", "--kill-child"]);
    // Tests may listen before the first pair starts.
    inner.args(["sh", "-c", "PATH=$PATH:/usr/sbin ip link set lo up && exec \"$@\"", "sh"]);
    inner.arg(std::env::current_exe().unwrap()).args(args);
    inner.env(SIDE, side).env(PROGRAM, program).stdin(Stdio::null());
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let log = std::env::temp_dir().join(format!("weft-mixed-{}-{run}", std::process::id()));
    let out = File::create(&log).unwrap();
    let mut child = inner.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    let start = Instant::now();
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if start.elapsed() > PATIENCE => break None,
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    let text = std::fs::read_to_string(&log).unwrap();
    let _ = std::fs::remove_file(&log);
    assert!(ended.is_some_and(|status| status.success()), "{program:?} as {side}: {ended:?}\n{text}");
    assert!(!text.contains("test result: ok. 0 passed"), "no test holds {args:?}: {text}");
}

/// Which side of the pairs of this process is a program; outside there is none.
fn side() -> Option<Side> {
    match std::env::var(SIDE).ok()?.as_str() {
        "client" => Some(Side::Client),
        "server" => Some(Side::Server),
        other => panic!("{SIDE} is {other}"),
    }
}

/// Starts one proxy of a pair: the program where this side is it, ours otherwise.
pub(crate) async fn start(setup: Setup, of: Side) -> Proxy {
    if side() == Some(of) {
        prepare();
        // The control plane has a thread of its own: this one may wait.
        let program = Program::start(&setup);
        return setup.program(program);
    }
    setup.ready().await
}

/// Where the other side reaches what listens on loopback.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    if side().is_some() { SocketAddr::from((ENDPOINTS, addr.port())) } else { addr }
}

/// Makes the namespace what the pairs need, once.
fn prepare() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        command("ip", &["addr", "add", "10.77.0.1/32", "dev", "lo"], "");
        command("ip", &["route", "add", "local", "10.96.0.0/16", "dev", "lo"], "");
        command("nft", &["-f", "-"], RULES);
    });
}

/// Leads what connects to this address to that port of loopback.
pub(crate) fn redirect(to: SocketAddr, port: u16) {
    static KNOWN: Mutex<BTreeMap<IpAddr, u16>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    if known.insert(to.ip(), port) != Some(port) {
        command("nft", &["-f", "-"], &format!("add element ip mixed services {{ {} : {port} }}", to.ip()));
    }
}

fn command(program: &str, args: &[&str], input: &str) {
    let path = std::env::join_paths(
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).chain(["/usr/sbin".into()]),
    );
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", path.unwrap())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {args:?} {input}");
}

impl Program {
    fn start(setup: &Setup) -> Self {
        // Nobody else is in the namespace. Ports that the kernel hands out begin higher.
        static NEXT: AtomicU16 = AtomicU16::new(20_000);
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Ordering::Relaxed)));
        let addrs = Addrs { admin: port(), inbound: port(), outbound: vec![port()], tap: None };
        // Linkerd's image has another program make these.
        let key = Key::generate().unwrap();
        std::fs::write(setup.dir().join("key.p8"), &*key.pkcs8().unwrap()).unwrap();
        std::fs::write(setup.dir().join("csr.der"), key.csr(&setup.identity()).unwrap()).unwrap();
        let log = setup.dir().join("log");
        let out = File::create(&log).unwrap();
        let child = Command::new(std::env::var_os(PROGRAM).unwrap())
            .env_clear()
            .envs(setup.vars())
            .env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", addrs.admin.to_string())
            .env("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", addrs.inbound.to_string())
            .env("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", addrs.outbound[0].to_string())
            .env("LINKERD2_PROXY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let mut program = Self { child, addrs, log };
        let start = Instant::now();
        while !program.get("/ready").is_some_and(|answer| answer.contains(" 200 ")) {
            let ended = program.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < LONG, "it is not ready: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        program
    }

    pub(crate) fn addrs(&self) -> &Addrs {
        &self.addrs
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it says what it does.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics").expect("its admin server answers")
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut tcp = TcpStream::connect(self.addrs.admin).ok()?;
        tcp.set_read_timeout(Some(LONG)).ok()?;
        tcp.write_all(format!("GET {path} HTTP/1.0\r\nhost: admin\r\n\r\n").as_bytes()).ok()?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut tcp, &mut text).ok()?;
        Some(text)
    }
}

impl Drop for Program {
    #[expect(clippy::print_stderr, reason = "says what the program said where a test fails")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}
