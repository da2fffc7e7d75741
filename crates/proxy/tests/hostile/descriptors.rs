//! At the limit of open files accepting pauses, without spinning; what is open goes on, a reserve of descriptors is left for that,
//! and it is said why. Where nothing is left of it either, requests that need a connection are told so, and no endpoint is blamed.
//!
//! Budget: half a processor, and `EACH` bytes for each connection that there is a descriptor for.
//!
//! The limit is a process's, so the proxies run in a process of their own: this test, started again with a low one.

use crate::{
    harness::{LONG, eventually, soon},
    measure::alone,
    mesh::{Mesh, shouting},
    mixed::reachable,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{ClientPolicy, Endpoint, ProtocolHint, policy::outbound::ClientProtocol};
use weft_testkit::{http1, policy};

/// Set for the process with the low limit.
const INSIDE: &str = "WEFT_TEST_DESCRIPTORS";
/// What the mesh needs, and some more.
const LIMIT: u32 = 150;
/// Bytes; both ends of some are in the process.
const EACH: u64 = 48 * 1024;
const PAGE: u64 = 4096;

#[test]
fn accepting_pauses_at_the_limit() {
    at_the_limit("accepting_pauses_at_the_limit", "inbound");
}

#[test]
fn accepting_what_goes_out_pauses_at_the_limit() {
    at_the_limit("accepting_what_goes_out_pauses_at_the_limit", "outbound");
}

#[test]
fn dialling_at_the_limit_blames_no_endpoint() {
    alone(module_path!(), "dialling_at_the_limit_blames_no_endpoint", async || {
        const GET: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
        // No connection is kept: each request needs one.
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
        let origin = http1::Origin::start(|_| http1::Reply::Last(answer.to_vec())).await.unwrap();
        let mesh = Mesh::start().await;
        let service = mesh.service(&[Endpoint::plain(reachable(origin.addr()))]);
        let mut clients = vec![];
        for _ in 0..4 {
            let mut client = http1::Client::over(mesh.connect(&service).await);
            // From then on it is accepted, and the endpoint is known.
            assert_eq!(soon(client.call(GET)).await.unwrap().status(), Some(200));
            clients.push(client);
        }
        let mut patient = clients.pop().unwrap();
        // What is open stays open.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
        for client in &mut clients {
            let answer = soon(client.call(GET)).await.unwrap();
            let why = answer.header("l5d-proxy-error").unwrap_or_default();
            assert!(answer.status() == Some(503) && why.ends_with(" [DESCRIPTOR_LIMIT]"), "{}", answer.head_text());
        }
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let left_out = "outbound_http_balancer_endpoints{endpoint_state=\"pending\",";
        assert_eq!(mesh.web.metric(left_out), 0.0);
        assert_eq!(soon(patient.call(GET)).await.unwrap().status(), Some(200));
    });
}

/// Fills the listener of one direction; `name` is the test's.
fn at_the_limit(name: &str, direction: &'static str) {
    if std::env::var_os(INSIDE).is_some() {
        return inside(direction);
    }
    let program = std::env::current_exe().unwrap();
    let run = format!("exec \"$0\" --exact descriptors::{name} --nocapture --test-threads=1");
    let mut child = Command::new("sh")
        .args(["-c", &format!("ulimit -n {LIMIT} && {run}")])
        .arg(program)
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut answer = |prefix: &str| loop {
        let line = answers.next().unwrap_or_else(|| panic!("it ended before it said {prefix:?}")).unwrap();
        if let Some((_, rest)) = line.split_once(prefix) {
            return rest.to_owned();
        }
    };
    let listener = answer("listener ");
    // More than there are descriptors; the kernel connects them all.
    let held: Vec<_> = (0..2 * LIMIT).map(|_| TcpStream::connect(&listener).unwrap()).collect();
    writeln!(orders, "full").unwrap();
    let cpu: f64 = answer("cpu ").parse().unwrap();
    assert!(cpu < 0.5, "it spins: {cpu} of a processor");
    let grown: u64 = answer("grown ").parse().unwrap();
    assert!(grown <= EACH * u64::from(LIMIT), "{grown} bytes more for {LIMIT} connections");
    drop(held);
    writeln!(orders, "free").unwrap();
    answer("recovered");
    drop(orders);
    assert!(child.wait().unwrap().success());
}

/// Answers the orders of the process outside.
fn inside(direction: &'static str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::start().await;
        let (addr, _server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
        let service = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
        let mut open = mesh.connect(&service).await;
        let mut hello = [0; 6];
        soon(open.read_exact(&mut hello)).await.unwrap();
        // There will be no descriptor for it later.
        let (mut stat, mut statm) = (File::open("/proc/self/stat").unwrap(), File::open("/proc/self/statm").unwrap());
        let before = resident(&mut statm);
        let (proxy, listener) = match direction {
            "inbound" => (&mesh.app, mesh.app.addrs().inbound),
            _ => {
                // Who comes from outside goes to a port of HTTP: nothing is connected before it asks.
                let held = mesh.service(&[]);
                let meta = policy::service("ns", "app", 80);
                let routes = policy::http_routes(policy::balance(meta.clone(), held.target.parse().unwrap()));
                let protocol = ClientProtocol::Http1(routes);
                mesh.control.set_outbound(held.addr, ClientPolicy { meta, protocol });
                mesh.web.destinations.others.set(held.addr).unwrap();
                (&mesh.web, mesh.web.addrs().outbound[0])
            }
        };
        say(&format!("listener {listener}"));

        order("full").await;
        let full = format!("weft_proxy_errors_total{{direction=\"{direction}\",code=\"DESCRIPTOR_LIMIT\"}}");
        eventually("the limit is counted", || proxy.metric(&full) >= 1.0).await;
        let reserve: Vec<_> = (0..LIMIT / 16).map(|_| File::open("/dev/null")).collect();
        assert!(
            reserve.iter().all(Result::is_ok),
            "what is open goes on with some, and scrapes are answered: {reserve:?}"
        );
        drop(reserve);
        assert_eq!(proxy.admin("GET", "/live").await.0, 200);
        let begun = cpu(&mut stat);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let used = cpu(&mut stat) - begun;
        let failed = format!("weft_proxy_accept_errors_total{{direction=\"{direction}\"}}");
        assert!(proxy.metric(&failed) <= 200.0, "it pauses");
        open.write_all(b"still").await.unwrap();
        let mut answer = [0; 5];
        soon(open.read_exact(&mut answer)).await.unwrap();
        assert_eq!(&answer, b"STILL", "what is open goes on");
        say(&format!("cpu {used}"));
        say(&format!("grown {}", resident(&mut statm).saturating_sub(before)));

        order("free").await;
        // This process is the client too, and both need descriptors.
        let open = || std::fs::read_dir("/proc/self/fd").map_or(usize::MAX, Iterator::count);
        eventually("the others' descriptors are free", || open() < LIMIT as usize / 2).await;
        // Nothing was restarted, and new connections are served.
        let mut new = mesh.connect(&service).await;
        soon(new.read_exact(&mut hello)).await.unwrap();
        assert_eq!(&hello, b"hello\n");
        say("recovered");
    });
}

/// Answers the process outside.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Waits for an order from outside.
async fn order(wanted: &'static str) {
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        assert_eq!(line.trim(), wanted);
    });
    tokio::time::timeout(LONG, read).await.unwrap().unwrap();
}

/// Bytes of memory that this process holds.
fn resident(statm: &mut File) -> u64 {
    statm.rewind().unwrap();
    let statm = std::io::read_to_string(statm).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE
}

/// Seconds of processor time that this process has used.
fn cpu(stat: &mut File) -> f64 {
    stat.rewind().unwrap();
    let stat = std::io::read_to_string(stat).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    // The kernel's clock ticks for user space are hundredths on every machine.
    ticks as f64 / 100.0
}
