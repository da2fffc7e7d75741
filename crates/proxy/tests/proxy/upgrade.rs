//! One process takes over from another: real processes, under load, with streams that outlive several of them.

use crate::{
    change::{Keep, Kind, Load, Origin},
    harness::{LONG, Proxy, Setup, eventually, metric, soon},
    mesh::{Mesh, get, shouting},
    mixed,
    tap::{TAP, everything, next, observe_at},
};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    fs::File,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpStream as StdTcp},
    ops::{Deref, DerefMut},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use weft_model::{Endpoint, ProtocolHint, tap::Step};
use weft_testkit::{
    control::{FakeControl, Service},
    exposition,
    folder::Folder,
    http2,
};

/// No old process ends but by itself.
const STAYS: (&str, &str) = ("WEFT_PROXY_UPGRADE_DRAIN", "10m");

/// Processes of which each takes over from the one before.
struct Succession {
    pids: Vec<u32>,
    lines: Lines,
    admin: SocketAddr,
}

/// A proxy that is a process of its own, and those that it starts. All end with this.
struct Process {
    first: Child,
    succession: Succession,
    setup: Setup,
}

/// What all of them have said, in a file.
#[derive(Clone)]
struct Lines(PathBuf);

impl Lines {
    /// Those that are whole.
    fn all(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&std::fs::read(&self.0).unwrap()).into_owned();
        text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    /// The value behind `text` in the `n`th line that has it.
    fn nth(&self, n: usize, text: &str) -> Option<String> {
        let line = self.all().into_iter().filter(|line| line.contains(text)).nth(n)?;
        Some(line.split_once(text)?.1.split_whitespace().next().unwrap_or_default().to_owned())
    }

    async fn saw(&self, n: usize, text: &str) -> String {
        eventually(text, || self.nth(n, text).is_some()).await;
        self.nth(n, text).unwrap()
    }
}

impl Succession {
    /// Of a program of ours in a mixed pair.
    fn of(proxy: &Proxy) -> Self {
        let (process, admin) = (proxy.process(), proxy.addrs().admin);
        Self { pids: vec![process.pid()], lines: Lines(process.log().to_owned()), admin }
    }

    fn pid(&self) -> u32 {
        *self.pids.last().unwrap()
    }

    fn ask(&self) {
        signal("USR2", self.pid());
    }

    /// Asks the present process to hand over, and waits until it has.
    async fn upgrade(&mut self) {
        let handed = |lines: &Lines| lines.all().into_iter().filter(|l| l.contains("Handed over")).collect::<Vec<_>>();
        let before = handed(&self.lines).len();
        self.ask();
        self.lines.saw(before, "Handed over").await;
        let line = handed(&self.lines).swap_remove(before);
        let pid = line.split_once("pid=").unwrap().1.split_whitespace().next().unwrap();
        self.pids.push(pid.trim_start_matches("Some(").trim_end_matches(')').parse().unwrap());
    }

    /// Waits until that metric is `value` at whoever has the admin port.
    async fn reaches(&self, series: &str, value: f64) {
        let start = Instant::now();
        loop {
            let metrics = self.metrics().await;
            let now = metric(&metrics, series);
            if now == value {
                return;
            }
            assert!(start.elapsed() < LONG, "{series}: {now}, not {value}, in\n{metrics}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Asks whoever has the admin port.
    async fn metrics(&self) -> String {
        let admin = self.admin;
        let read = tokio::task::spawn_blocking(move || {
            let mut tcp = StdTcp::connect(admin).unwrap();
            tcp.set_read_timeout(Some(LONG)).unwrap();
            tcp.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut tcp, &mut text).unwrap();
            text.split_once("\r\n\r\n").expect("the head of an answer").1.to_owned()
        });
        read.await.unwrap()
    }
}

impl Process {
    async fn start(setup: Setup) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-proxy"));
        command.env_clear();
        Self::of(command, setup).await
    }

    /// Started by this command, which has the environment that it needs itself.
    async fn of(mut command: Command, setup: Setup) -> Self {
        let setup = setup.env("LINKERD2_PROXY_LOG", "info");
        let log = setup.dir().join("log");
        let out = File::create(&log).unwrap();
        let first = command.envs(setup.vars()).stdin(Stdio::null()).stdout(out).spawn().unwrap();
        let lines = Lines(log);
        lines.saw(0, "Certified identity").await;
        let admin = lines.nth(0, "Admin interface on ").unwrap().parse().unwrap();
        Self { succession: Succession { pids: vec![first.id()], lines, admin }, first, setup }
    }

    fn inbound(&self) -> SocketAddr {
        self.lines.nth(0, "Inbound interface on ").unwrap().parse().unwrap()
    }
}

impl Deref for Process {
    type Target = Succession;

    fn deref(&self) -> &Succession {
        &self.succession
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Succession {
        &mut self.succession
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "says what the processes said where a test fails")]
    fn drop(&mut self) {
        for pid in self.pids.iter().skip(1).filter(|pid| is_proxy(**pid)) {
            signal("KILL", *pid);
        }
        let _ = self.first.kill();
        let _ = self.first.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.lines.all().join("\n"));
        }
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Whether that process lives, and is not another one that has got its number.
fn is_proxy(pid: u32) -> bool {
    // By its file: its name is what the link is called that started it.
    let file = std::fs::read_link(format!("/proc/{pid}/exe"));
    file.is_ok_and(|file| file.to_string_lossy().starts_with(env!("CARGO_BIN_EXE_weft-proxy")))
}

/// The processes that this one has started, whichever of its threads has; also those that nobody has taken note of yet.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|thread| thread.unwrap().path());
    // Who ends meanwhile has none.
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Two proxies of which `app`'s is a process.
async fn mesh(more: &[(&str, &str)]) -> (Mesh, Process) {
    let control = FakeControl::start().unwrap();
    let setup = Setup::new(&control, "app").env("WEFT_PROXY_UPGRADE_DRAIN", "1m");
    let setup = more.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
    let process = Process::start(setup).await;
    // The in-process `app` is not used: the mesh wants one.
    let (web, app) = tokio::join!(Setup::new(&control, "web").ready(), Setup::new(&control, "app").ready());
    (Mesh { control, web, app }, process)
}

/// An endpoint behind the process.
fn behind(process: &Process, mesh: &Mesh, addr: SocketAddr, hint: ProtocolHint) -> Endpoint {
    Endpoint { transport_port: Some(process.inbound().port()), ..mesh.endpoint(addr, hint) }
}

/// Sends a piece of a body again and again.
async fn ticking() -> http2::Origin {
    let tick = |()| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Some((Ok(Frame::data(Bytes::from_static(b"tick"))), ()))
    };
    http2::Origin::start(move |_| async move {
        let body = StreamBody::new(futures_util::stream::unfold((), tick));
        Ok(http::Response::new(BodyExt::boxed(body)))
    })
    .await
    .unwrap()
}

async fn echoes(tcp: &mut TcpStream) {
    tcp.write_all(b"abc").await.unwrap();
    let mut answer = [0; 3];
    soon(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ABC");
}

/// Upgrades `of` five times, which have what is `direction` of the connections. A new stream and a new connection are opened
/// before each, and all are still there behind the last one.
async fn five_upgrades(
    mesh: &Mesh,
    of: &mut Succession,
    direction: &str,
    keep: Keep,
    endpoint: impl Fn(SocketAddr, ProtocolHint) -> Endpoint,
) {
    let mut loads = vec![];
    let mut origins = vec![];
    for kind in [Kind::Http1, Kind::Http1OnHttp2, Kind::Http2] {
        let origin = Origin::start(kind).await;
        let service = mesh.service(&[endpoint(origin.addr(), kind.hint())]);
        loads.push(Load::keeping(keep, mesh.web.outbound(service.addr), kind).await);
        origins.push(origin);
    }
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[endpoint(addr, ProtocolHint::Opaque)]);
    let endless = ticking().await;
    let long = mesh.service(&[endpoint(endless.addr(), ProtocolHint::H2)]);
    let nowhere = mesh.service(&[]);
    let open = format!("tcp_open_connections{{direction=\"{direction}\",peer=\"src\"");
    let queued = "outbound_http_balancer_queue_length{";
    let mut streams = vec![];
    let mut connections = vec![];
    let mut waiting = JoinSet::new();
    for n in 0..=5 {
        streams.push(soon(mesh.http2(&long).await.start(get())).await.unwrap().into_body());
        let mut tcp = mesh.connect(&opaque).await;
        soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
        connections.push(tcp);
        // Endpoints are the client's proxy's to wait for.
        if direction == "outbound" {
            let mut client = mesh.http2(&nowhere).await;
            waiting.spawn(async move { client.call(get()).await.map(drop) });
            of.reaches(queued, f64::from(n + 1)).await;
        }
        if n < 5 {
            of.upgrade().await;
        }
        for load in &loads {
            load.more(20).await;
        }
        for (stream, tcp) in streams.iter_mut().zip(&mut connections) {
            assert!(soon(stream.frame()).await.unwrap().is_ok());
            echoes(tcp).await;
        }
        assert!(of.pids.iter().all(|pid| is_proxy(*pid)), "each has a stream");
        // The newest answers, and counts what all have open: the opaque ones at the very least.
        let metrics = of.metrics().await;
        let open = metric(&metrics, &open);
        assert!(open >= f64::from(n + 1) * 2.0, "after {n}: {open}\n{metrics}");
        assert_eq!(exposition::mistakes(&metrics), [""; 0], "after {n}: {metrics}");
        assert_eq!(metric(&metrics, "proxy_build_info{"), 1.0, "it says which one is running, and is not added up");
    }
    // HTTP/1 and HTTP/2 were moved without a failure, and new connections go to the newest.
    for load in loads {
        load.more(20).await;
        load.stop().await;
    }
    // Once nothing comes and goes any more it is exactly what the six processes hold together.
    assert!(of.pids.iter().all(|pid| is_proxy(*pid)), "each has a stream");
    of.reaches(queued, waiting.len() as f64).await;
    of.reaches(&open, (streams.len() + connections.len() + waiting.len()) as f64).await;
    assert!(waiting.try_join_next().is_none(), "nobody who waits was answered");
    drop((streams, connections, waiting));
    let (last, old) = of.pids.split_last().unwrap();
    eventually("the old processes end with their connections", || !old.iter().any(|pid| is_proxy(*pid))).await;
    assert!(is_proxy(*last));
    // Those of the old ones are not counted any more.
    of.reaches(queued, 0.0).await;
    of.reaches(&open, 0.0).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_upgrades_under_load() {
    let (mesh, mut process) = mesh(&[STAYS]).await;
    let inbound = process.inbound().port();
    let endpoint = |addr, hint| Endpoint { transport_port: Some(inbound), ..mesh.endpoint(addr, hint) };
    five_upgrades(&mesh, &mut process, "inbound", Keep::One, endpoint).await;
}

/// The same of the proxy of the client: what its application has open stays with the process that accepted it, and what it
/// opens anew goes to the newest. Redirection tells where to, which needs namespaces.
#[test]
fn five_upgrades_of_a_clients_proxy_under_load() {
    if !mixed::with_program("upgrade::five_upgrades_of_a_clients_proxy_under_load") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mesh = Mesh::with(&[STAYS, ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "10m")], &[]).await;
        let mut web = Succession::of(&mesh.web);
        let endpoint = |addr, hint| mesh.endpoint(addr, hint);
        five_upgrades(&mesh, &mut web, "outbound", Keep::AsTold, endpoint).await;
        // The last one is nobody's child any more.
        signal("KILL", web.pid());
    });
}

/// Makes a program for the process to start.
fn script(setup: &Setup, text: &str) -> std::path::PathBuf {
    let path = setup.dir().join("program");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn serves(mesh: &Mesh, process: &Process) {
    let origin = Origin::start(Kind::Http2).await;
    let service = mesh.service(&[behind(process, mesh, origin.addr(), ProtocolHint::H2)]);
    let load = Load::on(mesh, &service, Kind::Http2).await;
    load.more(20).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_start_changes_nothing() {
    let folder = Folder::new("upgrade").unwrap();
    let program = folder.join("program");
    let path = program.to_str().unwrap().to_owned();
    let (mesh, mut process) = mesh(&[("WEFT_PROXY_UPGRADE_PROGRAM", &path)]).await;
    process.ask();
    process.lines.saw(0, "The upgrade has failed").await;
    assert!(process.lines.nth(0, &format!("starting {path}: No such file")).is_some());
    serves(&mesh, &process).await;

    // It starts, and ends.
    std::fs::copy(script(&process.setup, "#!/bin/sh\nexit 3\n"), &program).unwrap();
    process.ask();
    process.lines.saw(1, "The upgrade has failed").await;
    assert!(
        process.lines.nth(0, "the new process has ended: exit status: 3").is_some() || {
            process.lines.nth(0, "the new process has closed its end").is_some()
        }
    );
    serves(&mesh, &process).await;

    // What stands there is looked at when it is needed.
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft-proxy"), &program).unwrap();
    process.upgrade().await;
    serves(&mesh, &process).await;
    let metrics = process.metrics().await;
    assert_eq!(metric(&metrics, "weft_proxy_upgrades_total"), 0.0, "that was the old one's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_certified_changes_nothing() {
    let (mesh, mut process) = mesh(&[("WEFT_PROXY_UPGRADE_TIMEOUT", "2s")]).await;
    mesh.control.stall(Service::Certify, true);
    process.ask();
    process.lines.saw(0, "Starting a new process").await;
    let mut begun = vec![];
    eventually("it has a child", || {
        begun = children(process.pid());
        begun.len() == 1
    })
    .await;
    process.ask();
    process.lines.saw(0, "SIGUSR2 is ignored: an upgrade is under way").await;
    serves(&mesh, &process).await;
    process.lines.saw(0, "the new process is not ready after 2s").await;
    eventually("it is gone", || !begun.iter().any(|pid| is_proxy(*pid))).await;
    assert_eq!(children(process.pid()), [] as [u32; 0], "and taken note of");
    mesh.control.stall(Service::Certify, false);
    serves(&mesh, &process).await;
    let metrics = process.metrics().await;
    assert_eq!(metric(&metrics, "weft_proxy_upgrades_total{result=\"failed\"}"), 1.0);
    assert_eq!(metric(&metrics, "weft_proxy_upgrades_total{result=\"refused\"}"), 1.0);

    // Who has handed over does not do so again.
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[behind(&process, &mesh, addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&opaque).await;
    soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
    let old = process.pid();
    process.upgrade().await;
    signal("USR2", old);
    process.lines.saw(0, "SIGUSR2 is ignored: this process has handed over already").await;
    echoes(&mut tcp).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stay_of_the_old_process_ends() {
    let (mesh, mut process) = mesh(&[]).await;
    let old = process.pid();
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[behind(&process, &mesh, addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&opaque).await;
    soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
    process.upgrade().await;
    echoes(&mut tcp).await;
    // A signal to end is the shorter way.
    signal("TERM", old);
    drop(tcp);
    assert!(process.first.wait().unwrap().success());
    serves(&mesh, &process).await;
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_stays_no_longer_than_it_may() {
    let (mesh, mut process) = mesh(&[("WEFT_PROXY_UPGRADE_DRAIN", "500ms")]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[behind(&process, &mesh, addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&opaque).await;
    soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
    process.upgrade().await;
    // It is cut off, which does not look like an end.
    let cut = soon(tcp.read(&mut [0; 1])).await;
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    eventually("the old process ends", || process.first.try_wait().unwrap().is_some()).await;
    assert_eq!(process.lines.nth(0, "are cut off open="), Some("1".to_owned()));
    serves(&mesh, &process).await;
    server.abort();
}

/// What the first of three has open counts with the last one, which hears of it through the one between, although that has
/// nothing open itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_replaced_another_stays_as_long_as_that_one() {
    let (mesh, mut process) = mesh(&[]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let opaque = mesh.opaque(&[behind(&process, &mesh, addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&opaque).await;
    soon(tcp.read_exact(&mut [0; 6])).await.unwrap();
    let open = "tcp_open_connections{direction=\"inbound\",peer=\"src\"";
    process.reaches(open, 1.0).await;
    process.upgrade().await;
    process.upgrade().await;
    process.reaches(open, 1.0).await;
    let [first, middle, last] = process.pids[..] else { unreachable!("three") };
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!([first, middle, last].into_iter().all(is_proxy));
    process.reaches(open, 1.0).await;
    let metrics = process.metrics().await;
    assert_eq!(exposition::mistakes(&metrics), [""; 0], "{metrics}");
    echoes(&mut tcp).await;
    drop(tcp);
    eventually("the old processes end with it", || !is_proxy(first) && !is_proxy(middle)).await;
    process.reaches(open, 0.0).await;
    server.abort();
}

/// Every listening socket is handed over: those of the outbound side, of either family, and that of the tap server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listening_socket_is_handed_over() {
    let outbound = ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", "127.0.0.1:0,[::1]:0");
    let (mesh, mut process) = mesh(&[outbound, TAP[0], TAP[1]]).await;
    let listeners =
        [0, 1].map(|n| process.lines.nth(n, "Outbound interface on ").unwrap().parse::<SocketAddr>().unwrap());
    assert!(listeners[0].is_ipv4() && listeners[1].is_ipv6(), "{listeners:?}");
    let tap = process.lines.nth(0, "Tap interface on ").unwrap().parse().unwrap();
    let old = process.pid();
    process.upgrade().await;
    eventually("the old process ends", || process.first.try_wait().unwrap().is_some()).await;
    assert!(is_proxy(process.pid()) && process.pid() != old);

    // Nobody redirects to it here: whoever comes is told that he has come round in a circle.
    let looped = "weft_proxy_errors_total{direction=\"outbound\",code=\"LOOP\"}";
    for (n, listener) in listeners.into_iter().enumerate() {
        let mut tcp = soon(TcpStream::connect(listener)).await.unwrap();
        assert!(!matches!(soon(tcp.read(&mut [0])).await, Ok(1..)), "{listener}");
        let start = Instant::now();
        while metric(&process.metrics().await, looped) != (n + 1) as f64 {
            assert!(start.elapsed() < LONG, "{listener}: {}", process.metrics().await);
        }
    }
    let mut events = observe_at(tap, 1, everything()).await;
    serves(&mesh, &process).await;
    let event = next(&mut events).await.unwrap();
    assert!(matches!(event.step, Step::Request { .. }) && !event.outbound, "{event:?}");
}

/// In a container the proxy is process 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_1_is_not_upgraded() {
    let control = FakeControl::start().unwrap();
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]).arg(env!("CARGO_BIN_EXE_weft-proxy"));
    outer.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let process = Process::of(outer, Setup::new(&control, "app")).await;
    let [inner] = children(process.pid())[..] else { panic!("it has one child") };
    signal("USR2", inner);
    process.lines.saw(0, "This proxy cannot be upgraded").await;
    assert!(process.lines.nth(0, "process 1").is_some());
    assert!(metric(&process.metrics().await, "weft_proxy_upgrades_total{result=\"refused\"}") == 1.0);
}
