//! What another control plane says and ours cannot, or what nobody can read: messages by hand, field by field as data plane 10.2 numbers
//! them.

use crate::{
    harness::{LONG, Setup, elsewhere, soon},
    mesh::{Mesh, get, naming},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{mpsc, watch},
};
use weft_testkit::{http1, http2};

const WATCH: &str = "/io.linkerd.proxy.outbound.OutboundPolicies/Watch";
const WATCH_PORT: &str = "/io.linkerd.proxy.inbound.InboundServerPolicies/WatchPort";
const GET: &str = "/io.linkerd.proxy.destination.Destination/Get";
const GET_PROFILE: &str = "/io.linkerd.proxy.destination.Destination/GetProfile";
/// The request timeout as it was once said.
const SHORT: Duration = Duration::from_millis(200);
/// Later than that, and soon enough for whoever has more time.
const LATE: Duration = Duration::from_millis(500);

fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

fn number(field: u64, n: u64) -> Vec<u8> {
    [varint(field << 3), varint(n)].concat()
}

/// A text or a message.
fn text(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn message(field: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    text(field, parts.concat())
}

fn duration(field: u64, duration: Duration) -> Vec<u8> {
    message(field, &[number(1, duration.as_secs()), number(2, duration.subsec_nanos().into())])
}

/// `meta.Metadata` {default 1}.
fn named(field: u64, name: &str) -> Vec<u8> {
    message(field, &[text(1, name)])
}

/// `TcpAddress` {ip 1 {ipv4 1}, port 2}.
fn tcp_address(field: u64, addr: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(addr) = addr else { panic!("{addr} is not of version 4") };
    // ipv4 1 is a fixed32, least significant byte first.
    let ip = [vec![1 << 3 | 5], u32::from(*addr.ip()).to_le_bytes().to_vec()].concat();
    message(field, &[message(1, &[ip]), number(2, addr.port().into())])
}

/// `OutboundPolicy` of one rule that sends everything to `addr`; `kind` is the number of the protocol: http2 4, grpc 5.
fn policy(kind: u64, addr: SocketAddr, timeouts: &[Vec<u8>]) -> Vec<u8> {
    let forward = message(2, &[tcp_address(1, addr)]);
    let queue = message(4, &[number(1, 100), duration(2, Duration::from_secs(3))]);
    let backend = message(1, &[named(1, "forward"), forward, queue]);
    // Distribution {first_available 2 {backends 1 {backend 1}}}.
    let backends = message(3, &[message(2, &[message(1, &[backend])])]);
    let rule = message(3, &[&[backends][..], timeouts].concat());
    let route = message(1, &[named(1, "old"), rule]);
    let protocol = message(1, &[message(kind, &[route])]);
    [protocol, named(2, "old")].concat()
}

/// `Server` that lets everybody in and detects what is spoken.
fn server() -> Vec<u8> {
    let anywhere = [vec![1 << 3 | 5], 0_u32.to_le_bytes().to_vec()].concat();
    // Network {net 1 {ip 1, prefix_len 2}}, Authn {unauthenticated 1}.
    let network = message(1, &[message(1, &[message(1, &[anywhere])])]);
    let everybody = message(3, &[network, message(2, &[message(1, &[])]), named(4, "everybody")]);
    let detect = message(1, &[message(1, &[duration(1, LONG)])]);
    [detect, everybody, label("name", "old")].concat()
}

/// An entry of `Server.labels`.
fn label(name: &str, value: &str) -> Vec<u8> {
    message(4, &[text(1, name), text(2, value)])
}

/// Who answers about a port: with the newest message first, then with each that follows.
type Said = watch::Receiver<Vec<u8>>;

/// A policy service that answers each `Watch` and `WatchPort` for one of these ports, and knows nothing else.
async fn control(known: Vec<(u16, Said)>) -> http2::Origin {
    // TcpAddress and PortSpec both have their port there.
    answering(&[WATCH, WATCH_PORT], known.into_iter().map(|(port, said)| (number(2, port.into()), said)).collect())
        .await
}

/// A service that answers each question by one of these methods that has one of these parts, and knows nothing else.
async fn answering(methods: &'static [&'static str], known: Vec<(Vec<u8>, Said)>) -> http2::Origin {
    http2::Origin::start(move |request| {
        let (path, known) = (request.uri().path().to_owned(), known.clone());
        async move {
            let answer = || Response::builder().header("content-type", "application/grpc");
            let missing = || Ok(answer().header("grpc-status", "5").body(http2::full(""))?);
            if !methods.contains(&path.as_str()) {
                return missing();
            }
            // Of a stream of requests there is one; its end need not come.
            let mut body = request.into_body();
            let Some(Ok(frame)) = body.frame().await else { return missing() };
            let asked = frame.into_data().unwrap_or_default();
            let wants = |wanted: &[u8]| asked.windows(wanted.len()).any(|part| part == wanted);
            let Some((_, said)) = known.into_iter().find(|(wanted, _)| wants(wanted)) else { return missing() };
            Ok(answer().body(told(said))?)
        }
    })
    .await
    .unwrap()
}

/// The body of a stream that has no end.
fn told(mut said: Said) -> http2::Body {
    let (tell, mut told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        said.mark_changed();
        while said.changed().await.is_ok() {
            let message = said.borrow_and_update().clone();
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            let framed = [&[0][..], &length, &message].concat();
            if tell.send(Frame::data(Bytes::from(framed))).is_err() {
                return;
            }
        }
        tell.closed().await;
    });
    let frames = stream::poll_fn(move |cx| told.poll_recv(cx).map(|frame| frame.map(Ok::<_, Infallible>)));
    BodyExt::boxed(StreamBody::new(frames))
}

/// Answers late, or for `/s.S/Never` not at all.
async fn late() -> http2::Origin {
    http2::Origin::start(|request| async move {
        if request.uri().path() == "/s.S/Never" {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LATE).await;
        let trailers = [("grpc-status".parse()?, "0".parse()?)].into_iter().collect();
        Ok(Response::new(http2::with_trailers("late", trailers)))
    })
    .await
    .unwrap()
}

/// An address that nobody has asked for.
fn target() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    SocketAddr::from(([10, 97, 0, 1], 1000 + u16::from(NEXT.fetch_add(1, Ordering::Relaxed))))
}

#[tokio::test]
async fn the_old_request_timeout_ends_a_request_where_there_is_no_new_one() {
    let server = late().await;
    let old = duration(4, SHORT);
    // timeouts 5 {request 2}.
    let new = message(5, &[duration(2, LONG)]);
    let mut known = vec![];
    for kind in [4, 5] {
        for (timeouts, ends) in [(vec![old.clone()], true), (vec![old.clone(), new.clone()], false)] {
            known.push((target(), kind, ends, timeouts));
        }
    }
    let answers = known
        .iter()
        .map(|(addr, kind, _, timeouts)| (addr.port(), watch::channel(policy(*kind, server.addr(), timeouts)).1));
    let control = control(answers.collect()).await;
    let elder = |setup: Setup| setup.env("LINKERD2_PROXY_POLICY_SVC_ADDR", control.addr());
    let mesh = Mesh::of(elder, |app| app).await;
    let mut ended = 0.0;
    for (addr, kind, ends, _) in known {
        let mut client = http2::Client::over(mesh.web.connect_outbound(addr).await).await.unwrap();
        let path = if ends { "/s.S/Never" } else { "/s.S/Late" };
        let grpc = kind == 5;
        let content = if grpc { "application/grpc" } else { "text/plain" };
        let request = Request::post(format!("http://old.ns{path}")).header("content-type", content);
        let answer = soon(client.call(request.body(http2::full("")).unwrap())).await.unwrap();
        let status = answer.head.status.as_u16();
        if !ends {
            assert_eq!((status, &answer.body[..]), (200, &b"late"[..]), "{kind}: the new one counts");
            continue;
        }
        ended += 1.0;
        if grpc {
            // DEADLINE_EXCEEDED
            assert_eq!((status, &answer.head.headers["grpc-status"]), (200, &"4".parse().unwrap()));
        } else {
            assert_eq!(status, 504);
        }
        assert_eq!(answer.head.headers["l5d-proxy-error"], "request timeout [REQUEST_TIMEOUT]");
    }
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"REQUEST_TIMEOUT\"}", ended).await;
    let counted = |kind: &str, status: &str| {
        format!(
            "outbound_{kind}_route_request_statuses_total{{parent_group=\"\",parent_kind=\"default\",parent_namespace=\"\",parent_name=\"old\",\
             parent_port=\"\",parent_section_name=\"\",route_group=\"\",route_kind=\"default\",route_namespace=\"\",route_name=\"old\",\
             hostname=\"\",{status}"
        )
    };
    mesh.web.reaches(&counted("http", "http_status=\"200\",error=\"\""), 1.0).await;
    mesh.web.reaches(&counted("grpc", "grpc_status=\"OK\",error=\"\""), 1.0).await;
}

/// Who asks with each framing of HTTP, and what it is told.
async fn refused(connect: impl AsyncFn() -> TcpStream, text: &str) {
    let told = |header: Option<&str>| {
        let told = header.unwrap_or_default();
        assert!(
            told.starts_with(text) && told.contains("protocol") && told.ends_with(" [POLICY_UNSUPPORTED]"),
            "{told:?}"
        );
    };
    let mut old = http1::Client::over(connect().await);
    let answer = soon(old.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(500), "{}", answer.head_text());
    told(answer.header("l5d-proxy-error").as_deref());
    let mut client = http2::Client::over(connect().await).await.unwrap();
    let call = Request::post("http://app.ns/s.S/Call").header("content-type", "application/grpc");
    let head = soon(client.call(call.body(http2::full("x")).unwrap())).await.unwrap().head;
    // INTERNAL
    assert_eq!((head.status.as_u16(), &head.headers["grpc-status"]), (200, &"13".parse().unwrap()));
    told(head.headers["grpc-message"].to_str().ok());
}

/// Asks until the answer has that status, each time over a connection of its own.
async fn until(status: u16, connect: impl AsyncFn() -> TcpStream) {
    let start = Instant::now();
    loop {
        let mut client = http2::Client::over(connect().await).await.unwrap();
        let head = soon(client.call(get())).await.unwrap().head;
        if head.status == status {
            return;
        }
        assert!(start.elapsed() < LONG, "{head:?}");
    }
}

/// What is not HTTP is reset.
async fn bytes_are_cut(connected: std::io::Result<TcpStream>) {
    // Who is refused early is reset before it is seen to be connected, or while it writes.
    let Ok(mut tcp) = connected else { return };
    let _ = tcp.write_all(b"\0\x01\x02\x03").await;
    let end = soon(tcp.read(&mut [0; 1])).await;
    assert!(end.is_err(), "{end:?}");
}

const UNSUPPORTED: &str = "code=\"POLICY_UNSUPPORTED\"}";

/// Neither message says a protocol; the next one does, and the one after that does not again.
#[tokio::test]
async fn a_target_whose_policy_cannot_be_read_is_refused_until_it_can() {
    let server = naming("app").await;
    let target = target();
    let (bad, good) = (named(2, "bad"), policy(4, server.addr(), &[]));
    let (say, said) = watch::channel(bad.clone());
    let control = control(vec![(target.port(), said)]).await;
    let mesh = Mesh::of(|web| web.env("LINKERD2_PROXY_POLICY_SVC_ADDR", control.addr()), |app| app).await;
    let connect = async || mesh.web.connect_outbound(target).await;
    for round in 1..=2 {
        until(500, connect).await;
        let seen = server.seen().requests.len();
        assert_eq!(seen == 0, round == 1, "nothing is guessed before");
        refused(connect, "invalid client policy configuration: ").await;
        bytes_are_cut(mesh.web.try_connect_outbound(target).await).await;
        assert_eq!(server.seen().requests.len(), seen, "round {round}: nobody is asked");
        mesh.web
            .at_least(&format!("weft_proxy_errors_total{{direction=\"outbound\",{UNSUPPORTED}"), 4.0 * f64::from(round))
            .await;
        let closed = "outbound_tcp_route_close_total{parent_group=\"\",parent_kind=\"default\",parent_namespace=\"\",parent_name=\"invalid\"";
        mesh.web.reaches(closed, f64::from(round)).await;
        // What follows is followed.
        say.send_replace(good.clone());
        until(200, connect).await;
        say.send_replace(bad.clone());
    }
    assert!(mesh.web.metric_has("route_name=\"invalid\",error=\"invalid_policy\"}"));
}

/// The same of a port, whose default policy lets everybody in: once a message has come that cannot be read it does not count.
#[tokio::test]
async fn a_port_whose_policy_cannot_be_read_refuses_until_it_can() {
    let origin = naming("app").await;
    let addr = origin.addr();
    let (bad, good) = (label("name", "bad"), server());
    let (say, said) = watch::channel(bad.clone());
    let control = control(vec![(addr.port(), said)]).await;
    let mesh = Mesh::of(|web| web, |app| app.env("LINKERD2_PROXY_POLICY_SVC_ADDR", control.addr())).await;
    let connect = async || mesh.app.connect_inbound(addr).await;
    for round in 1..=2 {
        until(500, connect).await;
        let seen = origin.seen().requests.len();
        // Members are told why, in either framing.
        refused(async || relayed(&mesh, addr).await, "invalid server configuration: ").await;
        bytes_are_cut(mesh.app.connect_inbound_from(elsewhere(), addr).await).await;
        assert_eq!(origin.seen().requests.len(), seen, "round {round}: nobody is asked");
        mesh.app
            .at_least(&format!("weft_proxy_errors_total{{direction=\"inbound\",{UNSUPPORTED}"), 3.0 * f64::from(round))
            .await;
        let denied = format!(
            "inbound_tcp_authz_deny_total{{srv_group=\"\",srv_kind=\"default\",srv_name=\"invalid\",srv_port=\"{}\"",
            addr.port()
        );
        mesh.app.reaches(&denied, f64::from(round)).await;
        say.send_replace(good.clone());
        until(200, connect).await;
        say.send_replace(bad.clone());
    }
    assert!(mesh.app.metric_has("srv_name=\"old\""));
}

/// A connection whose other end is one of the mesh to `addr`.
async fn relayed(mesh: &Mesh, addr: SocketAddr) -> TcpStream {
    let tcp = mesh.app.connect_inbound(addr).await;
    let (mut stream, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut far, &mut stream).await });
    near
}

/// What is wrong with a profile costs what is wrong: the route behind it is followed, and goes to the target that can be read.
#[tokio::test]
async fn a_profile_is_followed_without_what_cannot_be_read_of_it() {
    let server = late().await;
    let target = target();
    let name = format!("old.ns.svc.cluster.local:{}", target.port());
    // Route {condition 1 {path 4 {regex 1}}, timeout 5}.
    let route =
        |regex: &str, ends: Duration| message(1, &[message(1, &[message(4, &[text(1, regex)])]), duration(5, ends)]);
    let profile = [
        message(1, &[duration(5, LONG)]),
        route("(", LONG),
        route("/s.S/Never", SHORT),
        // RetryBudget {ttl 3}, WeightedDst {authority 1, weight 2}.
        message(2, &[duration(3, Duration::from_secs(61))]),
        message(3, &[text(1, "nobody"), number(2, 1)]),
        message(3, &[text(1, &name), number(2, 1)]),
        text(5, "old.ns.svc.cluster.local"),
        // WeightedAddr {addr 1}, which is missing.
        message(6, &[number(3, 1)]),
    ];
    // Update {add 1 {addrs 1 {addr 1}}}.
    let endpoints = message(1, &[message(1, &[tcp_address(1, server.addr())])]);
    let known = [(target.to_string(), profile.concat()), (name, endpoints)];
    let answers = known.map(|(path, said)| (text(2, path), watch::channel(said)));
    let said = answers.each_ref().map(|(path, (_, said))| (path.clone(), said.clone())).to_vec();
    let control = answering(&[GET, GET_PROFILE], said).await;
    let elder = |setup: Setup| setup.env("LINKERD2_PROXY_DESTINATION_SVC_ADDR", control.addr());
    let mesh = Mesh::of(elder, |app| app).await;
    // A profile's timeout ends the connection.
    let ask = async |path: &str| {
        let mut client = http2::Client::over(mesh.web.connect_outbound(target).await).await.unwrap();
        let request = Request::get(format!("http://old.ns{path}")).body(http2::full("")).unwrap();
        soon(client.call(request)).await.unwrap()
    };
    let head = ask("/s.S/Never").await.head;
    assert_eq!(head.status, 504, "{head:?}");
    assert!(head.headers["l5d-proxy-error"].to_str().unwrap().ends_with(" [PROFILE_TIMEOUT]"), "{head:?}");
    let answer = ask("/s.S/Late").await;
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"late"[..]));
}
