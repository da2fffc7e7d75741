//! Starts proxies and connects through them as redirected applications would.

use crate::mixed::{self, Program};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use weft_model::Identity;
use weft_proxy::{
    Handle, Options,
    config::{self, Checked},
    direction::Direction,
    process::{Addrs, ProcessError, rate_limit::Clock, worker::WallClock},
};
use weft_testkit::control::FakeControl;

/// Asking for the original destination of a connection to here never ends.
const HANG: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 1);
/// Nothing in a test takes longer.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A proxy that is not started yet: its environment.
pub(crate) struct Setup {
    env: Vec<(String, String)>,
    dir: Dir,
    name: String,
    ask: Duration,
    clock: Option<Clock>,
    access_log: Option<Box<dyn io::Write + Send>>,
    wall_clock: Option<WallClock>,
}

/// What was written to an access log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// A running proxy. Dropping it ends it without waiting for connections.
pub(crate) struct Proxy {
    running: Running,
    name: String,
    pub(crate) destinations: Destinations,
    _dir: Dir,
}

enum Running {
    /// In this process; redirection is what the test says.
    Here(Option<Handle>),
    /// In a process of its own, in a mixed pair.
    Program(Program),
}

/// Where the connections from each local address of a client are going to, as redirection would know.
#[derive(Clone, Default)]
pub(crate) struct Destinations {
    known: Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>,
    /// Where everybody else is going to, if that is said: programs that know nothing of redirection.
    pub(crate) others: Arc<OnceLock<SocketAddr>>,
}

/// Connects through one listener of a proxy.
#[derive(Clone)]
pub(crate) struct Dialler {
    /// How the proxy learns where the connection goes; `None` where the kernel redirects.
    told: Option<(Destinations, SocketAddr)>,
    destination: SocketAddr,
}

/// A folder that is removed with its owner.
struct Dir(PathBuf);

/// The identity of the service account `name` in the namespace `ns`.
pub(crate) fn identity(name: &str) -> Identity {
    Identity::of_service_account(name, "ns", "linkerd", "cluster.local").unwrap()
}

/// Waits for `future`, at most [`LONG`].
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it takes too long")
}

/// An address of this machine other than loopback, whose clients are let in whatever the policy says. The documentation range
/// is never dialled: connecting a UDP socket sends nothing.
pub(crate) fn elsewhere() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr())
        .expect("this test needs a route besides loopback")
        .ip()
}

/// An address of this machine at which nobody listens, nor will: the port stays taken as long as the tests run.
pub(crate) fn nobody() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    std::mem::forget(socket);
    addr
}

/// Asks `condition` again and again until it holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}: not after {LONG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Setup {
    /// A workload `name` whose control plane is `control`, all in plaintext on loopback.
    pub(crate) fn new(control: &FakeControl, name: &str) -> Self {
        let dir = Dir::new();
        let token = dir.0.join("token");
        std::fs::write(&token, "a token").unwrap();
        let control_addr = control.addr().to_string();
        let workload = format!(r#"{{"ns":"ns","pod":"{name}"}}"#);
        let vars = [
            ("INBOUND_LISTEN_ADDR", "127.0.0.1:0"),
            ("OUTBOUND_LISTEN_ADDR", "127.0.0.1:0"),
            ("ADMIN_LISTEN_ADDR", "127.0.0.1:0"),
            ("IDENTITY_TRUST_ANCHORS", control.ca().anchors_pem()),
            ("IDENTITY_DIR", dir.0.to_str().unwrap()),
            ("IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("IDENTITY_SVC_ADDR", &control_addr),
            ("IDENTITY_LOCAL_NAME", identity(name).as_str()),
            ("DESTINATION_SVC_ADDR", &control_addr),
            ("DESTINATION_CONTEXT", &workload),
            ("DESTINATION_PROFILE_NETWORKS", "127.0.0.0/8,10.0.0.0/8"),
            ("POLICY_SVC_ADDR", &control_addr),
            ("POLICY_WORKLOAD", &workload),
            ("POLICY_CLUSTER_NETWORKS", "127.0.0.0/8,10.0.0.0/8"),
        ]
        .map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value.to_owned()));
        Self {
            env: vars.to_vec(),
            dir,
            name: name.to_owned(),
            ask: Duration::from_secs(1),
            clock: None,
            wall_clock: None,
            access_log: None,
        }
    }

    /// Sets a variable by its whole name.
    pub(crate) fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_string()));
        self
    }

    /// Ten asks in a row without a sign of life of a worker end the process.
    pub(crate) fn ask(mut self, interval: Duration) -> Self {
        self.ask = interval;
        self
    }

    /// By which connections end with their certificates.
    pub(crate) fn wall_clock(mut self, clock: WallClock) -> Self {
        self.wall_clock = Some(clock);
        self
    }

    /// What rate limits are measured by.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Where its access log goes.
    pub(crate) fn access_log(mut self, out: impl io::Write + Send + 'static) -> Self {
        self.access_log = Some(Box::new(out));
        self
    }

    /// The folder of key, request and token.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.0.clone()
    }

    pub(crate) fn identity(&self) -> Identity {
        identity(&self.name)
    }

    /// The environment for a process of its own. The folder lives as long as this.
    pub(crate) fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Starts the proxy. It may not be certified yet.
    pub(crate) fn start(self) -> Proxy {
        let Checked { config, unknown, .. } = config::check(self.env, 8).expect("the configuration is valid");
        assert_eq!(unknown, Vec::<String>::new());
        let destinations = Destinations::default();
        let defaults = Options::default();
        let options = Options {
            clock: self.clock.unwrap_or(defaults.clock),
            wall_clock: self.wall_clock.unwrap_or(defaults.wall_clock),
            original_dst: {
                let destinations = destinations.clone();
                Arc::new(move |direction, tcp: &TcpStream| destinations.of(direction, tcp))
            },
            ask: self.ask,
            access_log: self.access_log.unwrap_or_else(|| Box::new(io::stderr())),
            ..Options::default()
        };
        let handle = weft_proxy::start(config, options).expect("the proxy starts");
        Proxy { running: Running::Here(Some(handle)), name: self.name, destinations, _dir: self.dir }
    }

    /// What this set-up is once a program runs it.
    pub(crate) fn program(self, program: Program) -> Proxy {
        let destinations = Destinations::default();
        Proxy { running: Running::Program(program), name: self.name, destinations, _dir: self.dir }
    }

    /// Starts the proxy and waits until it is ready.
    pub(crate) async fn ready(self) -> Proxy {
        let proxy = self.start();
        soon(proxy.handle().ready()).await;
        proxy
    }
}

impl Proxy {
    /// Of a proxy in this process.
    pub(crate) fn handle(&self) -> &Handle {
        match &self.running {
            Running::Here(handle) => handle.as_ref().unwrap(),
            Running::Program(_) => panic!("this test is not one for mixed pairs"),
        }
    }

    /// Of a proxy in a process of its own.
    pub(crate) fn process(&self) -> &Program {
        match &self.running {
            Running::Program(program) => program,
            Running::Here(_) => panic!("this test is one for programs"),
        }
    }

    pub(crate) fn addrs(&self) -> &Addrs {
        match &self.running {
            Running::Here(_) => self.handle().addrs(),
            Running::Program(program) => program.addrs(),
        }
    }

    /// What a scrape shows.
    pub(crate) fn metrics(&self) -> String {
        match &self.running {
            Running::Here(_) => self.handle().metrics(),
            Running::Program(program) => program.metrics(),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        identity(&self.name)
    }

    /// What connects as its application would, also in tasks of their own.
    pub(crate) fn outbound(&self, destination: SocketAddr) -> Dialler {
        let listeners = &self.addrs().outbound;
        let same_family = listeners.iter().find(|l| l.is_ipv4() == destination.is_ipv4());
        self.dialler(*same_family.unwrap_or(&listeners[0]), destination)
    }

    /// What connects as somebody would to `destination` at its application.
    pub(crate) fn inbound(&self, destination: SocketAddr) -> Dialler {
        self.dialler(self.addrs().inbound, destination)
    }

    fn dialler(&self, listener: SocketAddr, destination: SocketAddr) -> Dialler {
        let told = match &self.running {
            Running::Here(_) => Some((self.destinations.clone(), listener)),
            Running::Program(program) => {
                assert_ne!(listener, program.addrs().inbound, "this test is not one for mixed pairs");
                mixed::redirect(destination, listener.port());
                None
            }
        };
        Dialler { told, destination }
    }

    /// Connects as this proxy's application would to `destination`.
    pub(crate) async fn connect_outbound(&self, destination: SocketAddr) -> TcpStream {
        self.outbound(destination).connect().await
    }

    /// The same where the connection may be reset before it is seen to stand.
    pub(crate) async fn try_connect_outbound(&self, destination: SocketAddr) -> io::Result<TcpStream> {
        self.outbound(destination).try_connect().await
    }

    /// Connects as somebody would to `destination` at this proxy's application.
    pub(crate) async fn connect_inbound(&self, destination: SocketAddr) -> TcpStream {
        self.inbound(destination).connect().await
    }

    /// The same from another address of this machine. A connection that is refused may be reset before it is seen to stand.
    pub(crate) async fn connect_inbound_from(&self, source: IpAddr, destination: SocketAddr) -> io::Result<TcpStream> {
        let (destinations, listener) = self.inbound(destination).told.expect("redirection is what the test says");
        destinations.connect(source, listener, destination).await
    }

    /// Asks the admin server, and returns status and body.
    pub(crate) async fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let tcp = TcpStream::connect(self.addrs().admin).await.unwrap();
        http1(tcp, &format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await
    }

    /// The value of a metric whose line begins with `series`; 0 if there is none.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        metric(&self.metrics(), series)
    }

    /// Waits until that metric is `value`: a proxy counts behind the last byte that a peer sees, so a test that looks once loses
    /// the race on a busy machine.
    pub(crate) async fn reaches(&self, series: &str, value: f64) {
        self.is_seen(series, &format!("{value}"), |now| now == value).await;
    }

    /// Waits until that metric is at least `least`.
    pub(crate) async fn at_least(&self, series: &str, least: f64) {
        self.is_seen(series, &format!("{least} or more"), |now| now >= least).await;
    }

    async fn is_seen(&self, series: &str, wanted: &str, holds: impl Fn(f64) -> bool) {
        let start = std::time::Instant::now();
        loop {
            let now = self.metric(series);
            if holds(now) {
                return;
            }
            assert!(start.elapsed() < LONG, "{series}: {now}, not {wanted}, in\n{}", self.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether a series has that label.
    pub(crate) fn metric_has(&self, label: &str) -> bool {
        self.metrics().contains(label)
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(mut self) -> Result<weft_transport::drain::Drained, ProcessError> {
        let Running::Here(handle) = &mut self.running else { panic!("this test is not one for mixed pairs") };
        let handle = handle.take().unwrap();
        soon(tokio::task::spawn_blocking(|| handle.wait())).await.unwrap()
    }

    /// Makes the worker that accepts this connection stand still for good.
    pub(crate) async fn hang_worker(&self) -> TcpStream {
        self.connect_outbound(HANG).await
    }

    /// Ends it in order and returns how the drain went.
    pub(crate) async fn shutdown(mut self) -> weft_transport::drain::Drained {
        let Running::Here(handle) = &mut self.running else { panic!("this test is not one for mixed pairs") };
        let handle = handle.take().unwrap();
        handle.shutdown();
        soon(tokio::task::spawn_blocking(|| handle.wait())).await.unwrap().expect("it ends in order")
    }
}

/// The sum of the series of `text` whose lines begin with `series`.
pub(crate) fn metric(text: &str, series: &str) -> f64 {
    let values =
        text.lines().filter(|l| l.starts_with(series)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// Writes a request, reads until the end, and returns status and body.
pub(crate) async fn http1(mut tcp: TcpStream, request: &str) -> (u16, String) {
    soon(async {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("the head of an answer");
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        (status, body.to_owned())
    })
    .await
}

impl Dialler {
    pub(crate) async fn connect(&self) -> TcpStream {
        self.try_connect().await.unwrap()
    }

    /// Fails where the connection is reset before anything was asked of it.
    pub(crate) async fn try_connect(&self) -> io::Result<TcpStream> {
        match &self.told {
            Some((destinations, listener)) => destinations.connect(listener.ip(), *listener, self.destination).await,
            None => soon(TcpStream::connect(self.destination)).await,
        }
    }
}

impl Log {
    /// The log, and where it is written.
    pub(crate) fn new() -> (Self, Self) {
        let log = Self::default();
        (log.clone(), log)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Destinations {
    /// The address of the client is known before the proxy sees the connection.
    async fn connect(&self, source: IpAddr, listener: SocketAddr, destination: SocketAddr) -> io::Result<TcpStream> {
        let socket = if source.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
        socket.bind((source, 0).into()).unwrap();
        self.known.lock().unwrap().insert(socket.local_addr().unwrap(), destination);
        soon(socket.connect(listener)).await
    }

    /// Who is not known connects to the inbound port itself, as another proxy does.
    fn of(&self, direction: Direction, tcp: &TcpStream) -> io::Result<SocketAddr> {
        match (self.known.lock().unwrap().remove(&tcp.peer_addr()?).or(self.others.get().copied()), direction) {
            (Some(HANG), _) => loop {
                std::thread::park();
            },
            (Some(destination), _) => Ok(destination),
            (None, Direction::Inbound) => tcp.local_addr(),
            (None, Direction::Outbound) => Err(io::Error::other("the test has named no destination")),
        }
    }
}

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("weft-proxy-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
