//! The program itself: exit status, log lines, signals.

use crate::{
    harness::{LONG, Setup, elsewhere, identity, soon},
    mesh::{self, get, naming},
};
use std::{
    io::{BufRead, BufReader, Lines, Read},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};
use tokio::io::AsyncWriteExt;
use weft_model::endpoint::ServerTls;
use weft_testkit::{control::FakeControl, http2};
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

fn command<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-proxy"));
    command.env_clear().envs(vars).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Kills it if the test fails before it ends.
struct Running(Child);

impl Running {
    fn terminate(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_environment_is_status_64_and_names_everything() {
    let output = command([("LINKERD2_PROXY_CORES", "none")]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).unwrap();
    for name in ["LINKERD2_PROXY_CORES: ", "LINKERD2_PROXY_IDENTITY_DIR: ", "LINKERD2_PROXY_POLICY_WORKLOAD: "] {
        assert!(text.contains(name), "{text}");
    }
}

#[test]
fn it_says_what_it_is_and_takes_no_arguments() {
    let asked = |argument: &str| command([]).arg(argument).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for help in ["--help", "-h"] {
        let output = asked(help);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
        let page = "docs/reference/proxy-env.md";
        assert!(text(&output.stdout).contains(page), "{output:?}");
        assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page).exists());
    }
    let output = asked("--cores");
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).starts_with("weft-proxy: unexpected argument --cores: "), "{output:?}");
}

#[test]
fn what_is_no_directive_of_logs_is_left_out() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_LOG", "a=b=c,info");
    let (mut running, seen, _) = running(&setup);
    assert!(seen.contains("INFO"), "{seen}");
    running.terminate();
    let mut told = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("weft-proxy: LINKERD2_PROXY_LOG: \"a=b=c\" is left out; "), "{told}");
}

#[test]
fn an_address_in_use_is_status_1() {
    let control = FakeControl::start().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", taken.local_addr().unwrap());
    let output = command(setup.vars()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen on"));
}

/// Starts it; what it says until it is certified, the rest of its lines, and where its admin server is.
fn certified(setup: &Setup) -> (Running, String, Lines<BufReader<ChildStdout>>, SocketAddr) {
    let mut running = Running(command(setup.vars()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    while !seen.contains("Certified identity") {
        seen.push_str(&lines.next().expect("it goes on").unwrap());
        seen.push('\n');
    }
    let addr = listens(&seen, "Admin");
    (running, seen, lines, addr)
}

/// The same for whom the rest does not matter.
fn running(setup: &Setup) -> (Running, String, SocketAddr) {
    let (running, seen, lines, addr) = certified(setup);
    // What else it says has somewhere to go.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    (running, seen, addr)
}

/// Where an interface is, as it says itself.
fn listens(seen: &str, interface: &str) -> SocketAddr {
    let (_, rest) = seen.split_once(&format!("{interface} interface on ")).unwrap();
    rest.lines().next().unwrap().parse().unwrap()
}

/// What its admin server answers.
fn ask(admin: SocketAddr, request: &str) -> String {
    let mut admin = TcpStream::connect(admin).unwrap();
    std::io::Write::write_all(&mut admin, request.as_bytes()).unwrap();
    let mut answer = String::new();
    admin.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn it_says_where_it_listens_and_ends_on_a_signal() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_TYPO", "1");
    let (mut running, seen, admin) = running(&setup);
    let name = "web.ns.serviceaccount.identity.linkerd.cluster.local";
    for expected in [
        "WARN",
        "LINKERD2_PROXY_TYPO",
        "Admin interface on 127.0.0.1:",
        "Inbound interface on 127.0.0.1:",
        "Outbound interface on 127.0.0.1:",
        &format!("SNI is {name}"),
        &format!("Local identity is {name}"),
        "Destinations resolved via 127.0.0.1:",
    ] {
        assert!(seen.contains(expected), "{expected:?} is not in\n{seen}");
    }
    let ask = |request: &str| ask(admin, request);
    let answer = ask("GET /ready HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 ") && answer.ends_with("ready\n"), "{answer}");
    // What it logs is changed while it runs.
    let answer = ask("PUT /proxy-log-level HTTP/1.0\r\ncontent-length: 18\r\n\r\nwarn,weft_x=trace9");
    assert!(answer.contains(" 400 "), "{answer}");
    let answer = ask("PUT /proxy-log-level HTTP/1.0\r\ncontent-length: 5\r\n\r\ndebug");
    assert!(answer.contains(" 204 "), "{answer}");
    assert!(ask("GET /proxy-log-level HTTP/1.0\r\n\r\n").ends_with("debug"), "{answer}");

    running.terminate();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < LONG, "it does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn lines_are_json_where_that_is_set() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_LOG_FORMAT", "JSON");
    let mut running = Running(command(setup.vars()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next().expect("it goes on").unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(value["timestamp"].is_string() && value["target"].is_string(), "{line}");
        if value["fields"]["message"].as_str().is_some_and(|said| said.starts_with("Admin interface on 127.0.0.1:")) {
            assert_eq!(value["level"], "INFO");
            break;
        }
    }
}

/// Over the socket, from loopback and from elsewhere.
#[test]
fn its_environment_log_level_and_records_are_for_loopback() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web").env("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:0");
    let (_running, _, admin) = running(&setup);
    let near = SocketAddr::from(([127, 0, 0, 1], admin.port()));
    let far = SocketAddr::new(elsewhere(), admin.port());
    let get = |addr, path: &str, fields: &str| ask(addr, &format!("GET {path} HTTP/1.0\r\n{fields}\r\n"));

    let answer = get(near, "/env.json?LINKERD2_PROXY_INBOUND_LISTEN_ADDR&NOT_SET", "");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 ") && head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, r#"{"LINKERD2_PROXY_INBOUND_LISTEN_ADDR":"127.0.0.1:0","NOT_SET":null}"#);
    let all = get(near, "/env.json", "accept: text/html, application/json;q=0.5\r\n");
    let (_, body) = all.split_once("\r\n\r\n").unwrap();
    let all: std::collections::BTreeMap<String, Option<String>> = serde_json::from_str(body).unwrap();
    let given: std::collections::BTreeMap<String, Option<String>> =
        setup.vars().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))).collect();
    assert_eq!(all, given, "all that it was given, and nothing else");
    assert!(get(near, "/env.json?A=1", "").contains(" 400 "));
    assert!(get(near, "/env.json", "accept: text/html\r\n").contains(" 406 "));
    assert!(ask(near, "POST /env.json HTTP/1.0\r\ncontent-length: 0\r\n\r\n").contains(" 405 "));

    let put = |addr, level: &str| {
        ask(addr, &format!("PUT /proxy-log-level HTTP/1.0\r\ncontent-length: {}\r\n\r\n{level}", level.len()))
    };
    assert!(put(near, "debug").contains(" 204 "));
    let records = get(near, "/explain?kind=request", "");
    assert!(records.contains(" 200 ") && records.contains("\"records\""), "{records}");
    for path in ["/env.json", "/env.json?NOT_SET", "/proxy-log-level", "/explain", "/explain?kind=request"] {
        let answer = get(far, path, "");
        let told = ["LINKERD2", "debug", "records"].iter().any(|secret| answer.contains(secret));
        assert!(answer.contains(" 403 ") && !told, "{path}: {answer}");
    }
    assert!(put(far, "trace").contains(" 403 "));
    assert!(get(near, "/proxy-log-level", "").ends_with("\r\n\r\ndebug"), "nobody else has changed it");
    // Whoever is refused these is still told whether it is ready.
    assert!(get(far, "/ready", "").contains(" 200 "));
}

/// Of each client that `deny` would have refused there is a line: who it was, and what it was let in to.
#[test]
fn the_audit_policy_says_whom_it_lets_in() {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "app").env("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "audit");
    let (running, seen, lines, _) = certified(&setup);
    let inbound = listens(&seen, "Inbound");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let target = runtime.block_on(async {
        let origin = naming("app").await;
        let server = ServerTls { server_name: setup.identity().as_str().parse().unwrap(), identity: setup.identity() };
        let store = mesh::certified(&control, identity("peer"));
        let tcp = tokio::net::TcpStream::connect(inbound).await.unwrap();
        let (mut stream, _) = soon(store.connect(tcp, &server, true)).await.unwrap();
        let protocol = Some(SessionProtocol::Http2);
        let header = TransportHeader { port: origin.addr().port(), name: None, protocol };
        stream.write_all(&header.encode()).await.unwrap();
        let answer = soon(http2::Client::over(stream).await.unwrap().call(get())).await.unwrap();
        assert_eq!(answer.head.status, 200);
        origin.addr()
    });
    running.terminate();
    let told: Vec<_> = lines.map(Result::unwrap).filter(|line| line.contains("Let in by the audit policy")).collect();
    let whole = |line: &String| line.contains(identity("peer").as_str()) && line.contains(&target.to_string());
    assert!(!told.is_empty() && told.iter().all(whole), "{told:?}");
}

#[test]
fn connections_that_fail_again_and_again_are_told_now_and_then() {
    const CONNECTIONS: usize = 300;
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "web");
    let (running, seen, lines, _) = certified(&setup);
    let addr = listens(&seen, "Outbound");
    let start = Instant::now();
    // Nobody has redirected them.
    for _ in 0..CONNECTIONS {
        let mut tcp = TcpStream::connect(addr).unwrap();
        let _ = tcp.read(&mut [0; 1]);
    }
    running.terminate();
    let told = lines.filter(|line| line.as_ref().unwrap().contains("outbound connection failed")).count();
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!((1..=2 + seconds).contains(&told), "{told} lines in {seconds} s");
}
