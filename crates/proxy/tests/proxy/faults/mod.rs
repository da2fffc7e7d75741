//! Every failure that the mesh makes, injected: what the client sees, under which code it is counted and remembered, and under
//! which word of Linkerd's.
//!
//! To add one: a row in the table of the file it belongs to. Each row has a mesh of its own.

mod client;
mod connection;
mod policy;
mod server;
mod timeout;

use crate::{
    explain::explained,
    harness::{LONG, Proxy, eventually, nobody},
    mesh::{Mesh, Service},
};
use futures_util::StreamExt;
use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, pin::Pin, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::Endpoint;
use weft_proxy::{direction::Direction, error::Code};
use weft_testkit::{
    http2,
    policy::{detect, forward, service},
};

type Env = &'static [(&'static str, &'static str)];
type Seeing<'m> = Pin<Box<dyn Future<Output = Saw> + 'm>>;

/// One fault.
struct Fault {
    name: &'static str,
    code: Code,
    /// Whose failure it is: `web`'s proxy is outbound, `app`'s is inbound.
    side: Direction,
    sees: Sees,
    web: Env,
    app: Env,
    /// A policy was pushed: until the proxy has it the client sees something else.
    pushed: bool,
    /// It fails before the request has a route.
    early: bool,
    inject: for<'m> fn(&'m Mesh) -> Seeing<'m>,
}

/// What the client is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    /// The code's HTTP status.
    Reply,
    /// Another HTTP status, which Linkerd has for this case, or which was the server's.
    Status(u16),
    /// The code's gRPC status.
    Grpc,
    /// The end of the connection or stream instead of a reply.
    End,
}

/// What it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Saw {
    Reply { status: u16, grpc: Option<u16>, text: Option<String> },
    End,
}

/// Codes without a row: why, and the test that injects them.
const ELSEWHERE: &[(Code, &str, &str)] = &[
    (Code::DescriptorLimit, "in the suite of hostile peers", "hostile::descriptors::accepting_pauses_at_the_limit"),
    (Code::GatewayDomainInvalid, "by a peer that names a target", "multicluster::loops_and_foreign_names_are_refused"),
    (
        Code::ServerFirstRefused,
        "by a peer",
        "server_first::a_port_with_http_routes_refuses_sessions_for_a_server_that_speaks_first",
    ),
    (
        Code::BreakerShut,
        "by failures in a row",
        "breaker::failures_on_two_workers_trip_one_breaker_and_one_probe_opens_it",
    ),
    (Code::Redirect, "asked for by a policy", "filters::redirects_are_answered_on_a_connection_that_goes_on"),
    (Code::FaultInjected, "asked for by a policy", "filters::failures_are_injected_and_reach_no_server"),
    (Code::ProfileTimeout, "of a profile's route", "profile_retry::a_route_has_a_timeout_that_closes_the_connection"),
    (
        Code::ResponseHeadersTimeout,
        "of one attempt among several, and the last has none",
        "timeout::an_attempt_that_is_the_only_one_is_told_from_a_request",
    ),
];

/// Linkerd's word for a failure in `…_http_errors_total` and `…_tcp_errors_total` (data plane 6.3, 6.4); `None` where a family of
/// its own counts it. That of a gateway's loop is in [`crate::multicluster`].
fn word(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Failfast => "failfast",
        Code::LoadShed | Code::EndpointFull => "loadshed",
        Code::ConnectFailed | Code::ConnectTimeout | Code::TlsFailed | Code::UpstreamProtocol => "i/o",
        Code::IdentityMismatch => "identity required",
        Code::DetectTimeout => "tls detection timeout",
        Code::RequestTimeout | Code::ResponseTimeout | Code::IdleTimeout => "response timeout",
        Code::RouteNotFound | Code::Unauthorized | Code::RateLimited => return None,
        _ => "unexpected",
    })
}

/// Linkerd's word in the metrics of the route that the request had (data plane 6.4).
fn word_of_route(code: Code) -> &'static str {
    match code {
        Code::Failfast => "FAIL_FAST",
        Code::LoadShed | Code::EndpointFull => "LOAD_SHED",
        Code::RequestTimeout => "REQUEST_TIMEOUT",
        Code::ResponseTimeout => "RESPONSE_STREAM_TIMEOUT",
        Code::IdleTimeout => "IDLE_TIMEOUT",
        Code::ConnectFailed | Code::ConnectTimeout | Code::TlsFailed => "IO",
        _ => "UNKNOWN",
    }
}

/// How many rows run at once.
const AT_ONCE: usize = 4;

fn fault(
    name: &'static str,
    code: Code,
    side: Direction,
    sees: Sees,
    inject: for<'m> fn(&'m Mesh) -> Seeing<'m>,
) -> Fault {
    Fault { name, code, side, sees, web: &[], app: &[], pushed: false, early: false, inject }
}

impl Fault {
    fn web(self, web: Env) -> Self {
        Self { web, ..self }
    }

    fn app(self, app: Env) -> Self {
        Self { app, ..self }
    }

    fn pushed(self) -> Self {
        Self { pushed: true, ..self }
    }

    fn early(self) -> Self {
        Self { early: true, ..self }
    }

    async fn run(&self) {
        let Self { name, code, side, sees, web, app, pushed, early: _, inject } = self;
        let mesh = Mesh::with(web, app).await;
        let proxy = if *side == Direction::Outbound { &mesh.web } else { &mesh.app };
        let series = format!("weft_proxy_errors_total{{direction=\"{}\",code=\"{}\"}}", side.as_str(), code.as_str());
        let start = Instant::now();
        let saw = loop {
            let saw = tokio::time::timeout(LONG, inject(&mesh)).await;
            let saw = saw.unwrap_or_else(|_| panic!("{name}: the client saw nothing for {LONG:?}"));
            // A policy that comes while a request is under way may end it in another way.
            let settled = self.is_seen(&saw) && proxy.metric(&series) >= 1.0;
            if !pushed || settled || start.elapsed() > LONG {
                break saw;
            }
        };
        assert!(self.is_seen(&saw), "{name}: {code:?} as {sees:?} was expected, and the client saw {saw:?}");
        eventually(&format!("{name}: {series}"), || proxy.metric(&series) >= 1.0).await;
        if !pushed {
            proxy.reaches(&series, 1.0).await;
        }
        // Beside the record of the connection there may be one of a request.
        let query = format!("direction={}&code={}&limit=1", side.as_str(), code.as_str());
        let explained = explained(proxy, &query, 1).await;
        assert_eq!(explained["records"][0]["code"], code.as_str(), "{name}: {explained:#}");
        self.is_counted_in_linkerds_words(proxy, proxy.metric(&series)).await;
    }

    /// As often as by its code, if nothing else fails meanwhile.
    async fn is_counted_in_linkerds_words(&self, proxy: &Proxy, times: f64) {
        let Self { name, code, side, sees, pushed, .. } = self;
        let of = |kind: &str, word: &str| format!("{}_{kind}_errors_total{{error=\"{word}\"}}", side.as_str());
        // A reply is that to a request; a stream ends with a connection or alone.
        let kinds: &[&str] = if *sees == Sees::End { &["http", "tcp"] } else { &["http"] };
        match word(*code) {
            Some(word) => {
                let counted = || kinds.iter().map(|kind| proxy.metric(&of(kind, word))).sum::<f64>();
                eventually(&format!("{name}: {} as {word}", code.as_str()), || counted() >= times).await;
                assert!(*pushed || counted() == times, "{name}: {word} is counted {} times", counted());
            }
            None => {
                let any = ["http", "tcp"].map(|kind| proxy.metric(&format!("{}_{kind}_errors_total{{", side.as_str())));
                assert!(*pushed || any == [0.0; 2], "{name}: a family of its own counts it: {any:?}");
            }
        }
        if *side == Direction::Outbound && *sees != Sees::End && !self.early {
            let word = word_of_route(*code);
            let counted = || {
                let text = proxy.metrics();
                let of_routes = text.lines().filter(|l| l.starts_with("outbound_http_route_request_statuses_total{"));
                // Some rows leave other requests behind.
                let failed = of_routes.filter(|l| !l.contains("error=\"\"}") && !l.contains("error=\"CANCEL\"}"));
                failed.map(str::to_owned).collect::<Vec<_>>()
            };
            let wanted = format!("http_status=\"\",error=\"{word}\"}} 1");
            eventually(&format!("{name}: {wanted}"), || counted().iter().any(|line| line.ends_with(&wanted))).await;
            assert_eq!(counted().len(), 1, "{name}: {:?}", counted());
        }
    }

    fn is_seen(&self, saw: &Saw) -> bool {
        let told = |text: &Option<String>| {
            let known = format!(" [{}]", self.code.as_str());
            match (self.side, text) {
                // The application is told; a stranger is not.
                (Direction::Outbound, Some(text)) => text.ends_with(&known),
                (Direction::Inbound, None) => true,
                _ => false,
            }
        };
        match (self.sees, saw) {
            (Sees::Reply, Saw::Reply { status, grpc: None, text }) => *status == self.code.status() && told(text),
            (Sees::Status(wanted), Saw::Reply { status, grpc: None, text }) => *status == wanted && told(text),
            (Sees::Grpc, Saw::Reply { status: 200, grpc, text }) => {
                *grpc == Some(self.code.grpc_status()) && told(text)
            }
            (Sees::End, Saw::End) => true,
            _ => false,
        }
    }
}

fn table() -> Vec<Fault> {
    [client::faults(), policy::faults(), server::faults(), connection::faults(), timeout::faults()]
        .into_iter()
        .flatten()
        .collect()
}

async fn all(faults: Vec<Fault>) {
    futures_util::stream::iter(&faults).for_each_concurrent(AT_ONCE, Fault::run).await;
}

#[tokio::test]
async fn a_clients_faults_have_their_codes() {
    all(client::faults()).await;
}

#[tokio::test]
async fn what_a_policy_refuses_has_its_code() {
    all(policy::faults()).await;
}

#[tokio::test]
async fn a_servers_faults_have_their_codes() {
    all(server::faults()).await;
}

#[tokio::test]
async fn connections_that_fail_have_their_codes() {
    all(connection::faults()).await;
}

#[tokio::test]
async fn answers_that_are_late_have_their_codes() {
    all(timeout::faults()).await;
}

#[test]
fn every_code_has_a_fault() {
    let table = table();
    assert!(table.len() >= 40, "{}", table.len());
    let names: BTreeSet<_> = table.iter().map(|fault| fault.name).collect();
    assert_eq!(names.len(), table.len(), "each has a name of its own");
    let row = |code| table.iter().any(|fault| fault.code == code);
    let elsewhere = |code| ELSEWHERE.iter().any(|(other, ..)| *other == code);
    let wrong: Vec<_> = Code::ALL.iter().filter(|code| row(**code) == elsewhere(**code)).collect();
    assert!(wrong.is_empty(), "each has a row in tests/proxy/faults, or a reason: {wrong:?}");
}

#[test]
fn what_is_tested_elsewhere_is_tested_there() {
    let missing: Vec<_> = ELSEWHERE.iter().filter(|(.., test)| !is_a_test(test)).collect();
    assert!(missing.is_empty(), "no test has this name: {missing:?}");
    assert!(!is_a_test("retry") && !is_a_test("retry::ask") && !is_a_test("filters::accepting_pauses_at_the_limit"));
}

/// Whether there is a test of this crate by that name, behind as much of its file's path as is said.
pub(crate) fn is_a_test(path: &str) -> bool {
    let (file, test) = path.rsplit_once("::").map_or((None, path), |(file, test)| (Some(file), test));
    let file = file.map(|file| format!("{}.rs", file.replace("::", "/")));
    let mut folders = ["src", "tests"].map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).to_vec();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && file.as_ref().is_none_or(|file| path.ends_with(file))
                && has_test(&fs::read_to_string(path).unwrap(), test)
            {
                return true;
            }
        }
    }
    false
}

fn has_test(text: &str, test: &str) -> bool {
    let function = format!("fn {test}()");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.iter().enumerate().filter(|(_, line)| line.contains(&function)).any(|(at, _)| {
        let mut above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        above.any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
    })
}

/// A service that detects, with one endpoint that is not balanced: whoever fails to reach it is told why.
pub(crate) fn forwarded(mesh: &Mesh, endpoint: Endpoint) -> Service {
    let known = mesh.service(&[]);
    mesh.control.set_outbound(known.addr, detect(service("ns", "app", 80), forward(endpoint)));
    known
}

/// Writes, and reads the head of a reply or the end.
async fn say(mut tcp: TcpStream, bytes: impl AsRef<[u8]>) -> Saw {
    // Who is refused early may be reset while it writes.
    let _ = tcp.write_all(bytes.as_ref()).await;
    let mut heard = vec![];
    while !heard.windows(4).any(|four| four == b"\r\n\r\n") {
        match tcp.read_buf(&mut heard).await {
            Ok(n) if n > 0 => {}
            _ => return Saw::End,
        }
    }
    let text = String::from_utf8_lossy(&heard).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let told = text.lines().find_map(|line| line.strip_prefix("l5d-proxy-error: "));
    status.map_or(Saw::End, |status| Saw::Reply { status, grpc: None, text: told.map(str::to_owned) })
}

/// The same with an HTTP/1 request and nothing special.
async fn get(tcp: TcpStream) -> Saw {
    say(tcp, "GET / HTTP/1.1\r\nhost: app.ns\r\n\r\n").await
}

/// Sends a request of HTTP/2.
async fn call(tcp: TcpStream, request: http::Request<http2::Body>) -> Saw {
    let Ok(mut client) = http2::Client::over(tcp).await else { return Saw::End };
    answer(&mut client, request).await
}

/// What a request of HTTP/2 is answered.
async fn answer(client: &mut http2::Client, request: http::Request<http2::Body>) -> Saw {
    let Ok(answer) = client.call(request).await else { return Saw::End };
    let header = |name: &str| answer.head.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    Saw::Reply {
        status: answer.head.status.as_u16(),
        grpc: header("grpc-status").map(|status| status.parse().unwrap()),
        text: header("l5d-proxy-error"),
    }
}

/// A call of gRPC.
fn grpc() -> http::Request<http2::Body> {
    let request = http::Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc");
    request.body(http2::full("")).unwrap()
}

/// Connects to what may reset the connection before it is seen to stand, and writes.
async fn dial(proxy: &Proxy, destination: SocketAddr, bytes: impl AsRef<[u8]>) -> Saw {
    match proxy.try_connect_outbound(destination).await {
        Ok(tcp) => end(tcp, bytes).await,
        Err(_) => Saw::End,
    }
}

/// Writes, and reads until the end, which is all that is expected.
async fn end(mut tcp: TcpStream, bytes: impl AsRef<[u8]>) -> Saw {
    let _ = tcp.write_all(bytes.as_ref()).await;
    let mut heard = vec![];
    while matches!(tcp.read_buf(&mut heard).await, Ok(n) if n > 0) {}
    Saw::End
}
