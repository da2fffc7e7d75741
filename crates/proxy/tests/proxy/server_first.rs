//! Servers that speak first, on ports of which nobody has said so; and HTTP, which no silence makes into something else.

use crate::{
    harness::{elsewhere, eventually, nobody, soon},
    mesh::{Mesh, Service, get, naming, peer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use weft_model::{
    Meta, ProtocolHint,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::ClientProtocol,
    },
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, inbound, service},
};
use weft_transport::Stream;
use weft_wire::transport_header::TransportHeader;

/// A connection is silent for long in little time.
const SOON: (&str, &str) = ("WEFT_PROXY_OUTBOUND_SERVER_FIRST_WAIT", "20ms");

/// The beginning of what MySQL says to whoever connects.
const MYSQL: &[u8] = b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00";
const SMTP: &[u8] = b"220 mail.ns ESMTP\r\n";

/// Says something to whoever connects, then sends back what it gets, and counts.
struct Greeting {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Connections that ended without a byte.
    unused: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Greeting {
    async fn start(greeting: &'static [u8]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), greeting).await
    }

    async fn start_at(addr: SocketAddr, greeting: &'static [u8]) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, unused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, idle) = (accepted.clone(), unused.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                count.fetch_add(1, SeqCst);
                let idle = idle.clone();
                tokio::spawn(async move {
                    tcp.write_all(greeting).await?;
                    let (mut read, mut write) = tcp.split();
                    if tokio::io::copy(&mut read, &mut write).await.unwrap_or_default() == 0 {
                        idle.fetch_add(1, SeqCst);
                    }
                    std::io::Result::Ok(())
                });
            }
        });
        Self { addr, accepted, unused, task: task.abort_handle() }
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn outcome(direction: &str, outcome: &str) -> String {
    format!("weft_proxy_server_first_total{{direction=\"{direction}\",outcome=\"{outcome}\"}}")
}

fn learned(direction: &str, protocol: &str) -> String {
    format!("weft_proxy_learned_ports{{direction=\"{direction}\",protocol=\"{protocol}\"}}")
}

async fn read(tcp: &mut TcpStream, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    soon(tcp.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, wanted);
}

/// Both proxies detect, and nothing is configured: the default wait.
#[tokio::test]
async fn the_greeting_comes_without_configuration() {
    let mesh = Mesh::start().await;
    for greeting in [MYSQL, SMTP] {
        let server = Greeting::start(greeting).await;
        for endpoint in [mesh.endpoint(server.addr, ProtocolHint::Unknown), weft_model::Endpoint::plain(server.addr)] {
            let service = mesh.service(&[endpoint]);
            for _ in 0..2 {
                let mut tcp = mesh.connect(&service).await;
                read(&mut tcp, greeting).await;
                tcp.write_all(b"and on").await.unwrap();
                read(&mut tcp, b"and on").await;
                tcp.shutdown().await.unwrap();
                assert_eq!(soon(tcp.read(&mut [0; 1])).await.unwrap(), 0);
            }
        }
    }
    mesh.web.reaches(&outcome("outbound", "server"), 8.0).await;
    mesh.web.reaches(&learned("outbound", "server_first"), 4.0).await;
}

/// A connection of HTTP that begins late, as a client's pool opens it, costs one session and never becomes bytes.
#[tokio::test]
async fn a_slow_client_of_http_closes_the_session_unused() {
    let mesh = Mesh::with(&[SOON], &[]).await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let tcp = mesh.connect(&service).await;
    soon(origin.saw(|seen| seen.connections.len() == 1)).await.unwrap();
    let mut client = http1::Client::over(tcp);
    client.send("GET / HT").await.unwrap();
    let answer = soon(client.call("TP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"http"[..]));
    let seen = soon(origin.saw(|seen| seen.closed == 1)).await.unwrap();
    assert_eq!(seen.connections[0], b"", "no byte went out over the session");
    eventually("the session is counted", || mesh.web.metric(&outcome("outbound", "http")) == 1.0).await;
    eventually("it was seen to be a request", || mesh.web.metric("request_total{") == 1.0).await;
    eventually("the port is learned", || mesh.web.metric(&learned("outbound", "http")) == 1.0).await;

    // From now on no silence opens one, nor does an end.
    let mut ended = mesh.connect(&service).await;
    ended.shutdown().await.unwrap();
    assert_eq!(soon(ended.read(&mut [0])).await.unwrap(), 0);
    let tcp = mesh.connect(&service).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        soon(http1::Client::over(tcp).call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap().status(),
        Some(200)
    );
    let sessions = mesh.web.metric("outbound_tcp_route_open_total{");
    assert_eq!(sessions, 1.0);
}

/// On a port that was seen to speak HTTP a client may be silent for longer than detection lasts.
#[tokio::test]
async fn a_port_learned_to_be_http_is_never_bytes() {
    let mesh = Mesh::with(&[SOON, ("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "100ms")], &[]).await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let first = soon(http1::Client::over(mesh.connect(&service).await).call(call)).await.unwrap();
    assert_eq!(first.status(), Some(200));
    let mut silent = vec![];
    for _ in 0..50 {
        silent.push(mesh.connect(&service).await);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (n, tcp) in silent.into_iter().enumerate() {
        let mut client = http1::Client::over(tcp);
        // Some stop within the first line, too.
        if n % 2 == 0 {
            client.send("GET /").await.unwrap();
            if n == 0 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            client.send(" HTTP/1.1\r\nHost: app.ns\r\n\r\n").await.unwrap();
        } else {
            client.send(call).await.unwrap();
        }
        assert_eq!(soon(client.response(false)).await.unwrap().status(), Some(200), "client {n}");
    }
    eventually("all are requests", || mesh.web.metric("response_total{") == 51.0).await;
    assert_eq!(mesh.web.metric("outbound_tcp_route_open_total{"), 0.0);
}

/// HTTP/2 servers may send their settings, and HTTP/1 servers an error, before a client has said anything.
#[tokio::test]
async fn a_server_that_speaks_http_unasked_is_one_of_http() {
    let mesh = Mesh::with(&[SOON], &[]).await;
    let origin = naming("grpc").await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let tcp = mesh.connect(&service).await;
    eventually("the server speaks", || mesh.web.metric(&outcome("outbound", "http_server")) == 1.0).await;
    mesh.web.reaches(&learned("outbound", "http"), 1.0).await;
    let answer = soon(http2::Client::over(tcp).await.unwrap().call(get())).await.unwrap();
    assert_eq!(&answer.body[..], b"grpc");

    let server = Greeting::start(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n").await;
    let service = mesh.service(&[mesh.endpoint(server.addr, ProtocolHint::Unknown)]);
    let mut tcp = mesh.connect(&service).await;
    eventually("the server speaks", || mesh.web.metric(&outcome("outbound", "http_server")) == 2.0).await;
    eventually("its session is closed", || server.unused.load(SeqCst) == 1).await;
    // The answer was to nobody's request.
    assert!(tokio::time::timeout(Duration::from_millis(50), tcp.read(&mut [0; 1])).await.is_err());
}

/// A client that is slow and does not speak HTTP goes on over the session.
#[tokio::test]
async fn a_slow_client_that_speaks_first_uses_the_session() {
    let mesh = Mesh::with(&[SOON], &[]).await;
    let server = Greeting::start(b"").await;
    let service = mesh.service(&[mesh.endpoint(server.addr, ProtocolHint::Unknown)]);
    let mut tcp = mesh.connect(&service).await;
    eventually("a session is open", || server.accepted.load(SeqCst) == 1).await;
    tcp.write_all(b"PING\r\n").await.unwrap();
    read(&mut tcp, b"PING\r\n").await;
    assert_eq!(server.accepted.load(SeqCst), 1);
    mesh.web.reaches(&outcome("outbound", "client"), 1.0).await;
    mesh.web.reaches(&learned("outbound", "client_first"), 1.0).await;
    // One that only listens ends its half: that is passed on, too.
    let mut listener = mesh.connect(&service).await;
    eventually("a session is open", || server.accepted.load(SeqCst) == 2).await;
    listener.shutdown().await.unwrap();
    assert_eq!(soon(listener.read(&mut [0; 1])).await.unwrap(), 0);
    eventually("the server saw the end", || server.unused.load(SeqCst) == 1).await;
}

/// A client that begins while its session is being opened, and is slow to say what it speaks, uses up its own time and not the
/// endpoint's.
#[tokio::test]
async fn a_slow_client_does_not_make_connecting_fail() {
    let connect = Duration::from_secs(3);
    let timeout = format!("{}s", connect.as_secs());
    let mesh = Mesh::with(&[SOON, ("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", &timeout)], &[]).await;
    let server = Greeting::start(b"").await;
    // Before the server's proxy is something that takes its time to be reached.
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = weft_model::Endpoint {
        transport_port: Some(front.local_addr().unwrap().port()),
        ..mesh.endpoint(server.addr, ProtocolHint::Unknown)
    };
    let service = mesh.service(&[slow]);
    let mut tcp = mesh.connect(&service).await;
    let (mut dialled, _) = soon(front.accept()).await.unwrap();
    // It may become HTTP, or not.
    tcp.write_all(b"GE").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let app = mesh.app.addrs().inbound;
    let front = tokio::spawn(async move {
        let mut app = TcpStream::connect(app).await?;
        tokio::io::copy_bidirectional(&mut dialled, &mut app).await
    });
    tokio::time::sleep(connect + Duration::from_millis(500)).await;
    tcp.write_all(b"\0 no HTTP").await.unwrap();
    read(&mut tcp, b"GE\0 no HTTP").await;
    mesh.web.reaches(&outcome("outbound", "client"), 1.0).await;
    assert_eq!(mesh.web.metric("weft_proxy_errors_total{direction=\"outbound\",code=\"CONNECT_TIMEOUT\"}"), 0.0);
    front.abort();
}

/// A session that cannot be opened costs nobody a request, and a silent client its connection only after detection's time.
#[tokio::test]
async fn a_session_that_fails_is_no_answer_to_a_request() {
    let env = [SOON, ("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "400ms")];
    let mesh = Mesh::with(&env, &[]).await;
    let origin = naming("app").await;
    let meta = service("ns", "app", 80);
    let known: Service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    // Requests have an endpoint and bytes have none.
    let nowhere = "nowhere.ns.svc.cluster.local:80";
    mesh.control.set_endpoints(nowhere, vec![weft_model::Endpoint::plain(nobody())]);
    let mut policy = detect(meta.clone(), balance(meta.clone(), known.target.parse().unwrap()));
    if let ClientProtocol::Detect { opaque, .. } = &mut policy.protocol {
        *opaque = Some(weft_testkit::policy::tcp_route(balance(meta, nowhere.parse().unwrap())));
    }
    mesh.control.set_outbound(known.addr, policy);
    let slow = mesh.connect(&known).await;
    let mut silent = mesh.connect(&known).await;
    eventually("both sessions failed", || mesh.web.metric(&outcome("outbound", "failed")) == 2.0).await;
    let answer = soon(http2::Client::over(slow).await.unwrap().call(get())).await.unwrap();
    assert_eq!(&answer.body[..], b"app");
    assert!(soon(silent.read(&mut [0; 1])).await.is_err(), "reset, as the session was");
    eventually("it is told why", || {
        mesh.web.metric("weft_proxy_errors_total{direction=\"outbound\",code=\"CONNECT_FAILED\"}") == 1.0
    })
    .await;
}

#[tokio::test]
async fn silence_does_not_hold_up_the_end() {
    let mesh = Mesh::with(&[SOON], &[]).await;
    let server = Greeting::start(b"").await;
    let service = mesh.service(&[mesh.endpoint(server.addr, ProtocolHint::Unknown)]);
    let mut tcp = mesh.connect(&service).await;
    eventually("a session is open", || server.accepted.load(SeqCst) == 1).await;
    let Mesh { control: _control, web, app: _app } = mesh;
    assert_eq!(web.shutdown().await, weft_transport::drain::Drained::Done);
    assert_eq!(soon(tcp.read(&mut [0; 1])).await.unwrap_or(0), 0);
}

/// The same on the side of the server, for clients that come without the mesh, and for those inside its TLS.
#[tokio::test]
async fn the_application_may_greet_who_comes_without_a_header() {
    let mesh = Mesh::start().await;
    let server = Greeting::start(SMTP).await;
    for n in 1..=2 {
        let mut tcp = mesh.app.connect_inbound(server.addr).await;
        read(&mut tcp, SMTP).await;
        tcp.write_all(b"QUIT\r\n").await.unwrap();
        read(&mut tcp, b"QUIT\r\n").await;
        mesh.app.reaches(&outcome("inbound", "server"), f64::from(n)).await;
    }
    mesh.app.reaches(&learned("inbound", "server_first"), 1.0).await;

    // Mesh TLS without a transport header, to another such port.
    let server = Greeting::start(MYSQL).await;
    let tcp = mesh.app.connect_inbound(server.addr).await;
    let (mut stream, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
    let mut got = vec![0; MYSQL.len()];
    soon(stream.read_exact(&mut got)).await.unwrap();
    assert_eq!(got, MYSQL);
    mesh.app.reaches(&outcome("inbound", "server"), 3.0).await;
    let metrics = mesh.app.handle().metrics();
    assert!(
        metrics.lines().any(|l| l.starts_with("inbound_tcp_authz_allow_total{") && l.contains("tls=\"true\"")),
        "{metrics}"
    );
}

const SOON_INBOUND: (&str, &str) = ("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "20ms");

#[tokio::test]
async fn a_slow_client_of_http_closes_the_session_to_the_application_unused() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND]).await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let tcp = mesh.app.connect_inbound(origin.addr()).await;
    soon(origin.saw(|seen| seen.connections.len() == 1)).await.unwrap();
    let answer = soon(http1::Client::over(tcp).call(call)).await.unwrap();
    assert_eq!(answer.status(), Some(200));
    let seen = soon(origin.saw(|seen| seen.closed >= 1)).await.unwrap();
    assert_eq!(seen.connections[0], b"", "no byte went out over the session");
    mesh.app.reaches(&outcome("inbound", "http"), 1.0).await;
    let mut ended = mesh.app.connect_inbound(origin.addr()).await;
    ended.shutdown().await.unwrap();
    assert_eq!(soon(ended.read(&mut [0])).await.unwrap(), 0);
    let tcp = mesh.app.connect_inbound(origin.addr()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(soon(http1::Client::over(tcp).call(call)).await.unwrap().status(), Some(200));
    assert_eq!(origin.seen().connections.len(), 2, "no further session");
    mesh.app.reaches(&learned("inbound", "http"), 1.0).await;
}

#[tokio::test]
async fn a_session_whose_client_breaks_off_without_a_word_is_counted() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = mesh.app.connect_inbound(listener.local_addr().unwrap()).await;
    let (mut session, _) = soon(listener.accept()).await.unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(soon(session.read_to_end(&mut vec![])).await.unwrap(), 0);
    mesh.app.reaches(&outcome("inbound", "idle"), 1.0).await;
}

/// Whoever sends nothing may still want to hear: its end is passed on, and what the server says after it.
#[tokio::test]
async fn who_has_ended_without_a_word_still_hears_the_server() {
    let mesh = Mesh::with(&[SOON], &[SOON_INBOUND]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = mesh.service(&[mesh.endpoint(addr, ProtocolHint::Unknown)]);
    for before in [true, false] {
        for way in ["client's proxy", "no mesh", "mesh's TLS"] {
            let tcp = match way {
                "client's proxy" => mesh.connect(&service).await,
                _ => mesh.app.connect_inbound(addr).await,
            };
            let mut client = match way {
                "mesh's TLS" => soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap().0,
                _ => Stream::tcp(tcp),
            };
            let mut session = None;
            if !before {
                session = Some(soon(listener.accept()).await.unwrap().0);
            }
            client.shutdown().await.unwrap();
            let mut server = match session {
                Some(session) => session,
                None => soon(listener.accept()).await.unwrap().0,
            };
            assert_eq!(soon(server.read(&mut [0])).await.unwrap(), 0, "{way}, {before}");
            server.write_all(SMTP).await.unwrap();
            drop(server);
            let mut got = vec![];
            soon(client.read_to_end(&mut got)).await.unwrap();
            assert_eq!(got, SMTP, "{way}, ended before a session was opened: {before}");
        }
    }
}

/// A policy with routes that somebody wrote for HTTP is not gone around.
#[tokio::test]
async fn a_port_with_http_routes_refuses_sessions_for_a_server_that_speaks_first() {
    let mesh = Mesh::with(&[SOON], &[SOON_INBOUND]).await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let mut written = inbound(DefaultPolicy::AllUnauthenticated);
    if let ServerProtocol::Detect { routes, .. } = &mut written.protocol {
        routes[0].meta = service("ns", "route", 0);
        assert!(matches!(routes[0].meta, Meta::Resource(_)));
    }
    mesh.control.set_inbound(origin.addr().port(), written);
    // So that the policy is known.
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let warm = mesh.app.connect_inbound(origin.addr()).await;
    assert_eq!(soon(http1::Client::over(warm).call(call)).await.unwrap().status(), Some(200));
    let port = origin.addr().port();
    eventually("the policy is known", || {
        mesh.app.handle().metrics().contains(&format!("srv_name=\"all-unauthenticated\",srv_port=\"{port}\""))
    })
    .await;
    let before = origin.seen().connections.len();
    let slow = mesh.connect(&known).await;
    let refused = "weft_proxy_errors_total{direction=\"inbound\",code=\"SERVER_FIRST_REFUSED\"}";
    eventually("it is refused", || mesh.app.metric(refused) == 1.0).await;
    mesh.app.reaches(&outcome("inbound", "refused"), 1.0).await;
    eventually("the client's proxy saw it", || mesh.web.metric(&outcome("outbound", "ended")) == 1.0).await;
    assert_eq!(origin.seen().connections.len(), before, "the application saw nothing");
    let answer = soon(http1::Client::over(slow).call(call)).await.unwrap();
    assert_eq!(answer.status(), Some(200), "the client was only slow");

    // Nor does the application's proxy itself open one for who comes without the mesh.
    let silent = mesh.app.connect_inbound(origin.addr()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(mesh.app.metric(&outcome("inbound", "http")) + mesh.app.metric(&outcome("inbound", "idle")), 0.0);
    drop(silent);
}

/// Nor by a client that begins and then waits longer than detection does: what it says next is HTTP, held to the routes.
#[tokio::test]
async fn a_port_with_http_routes_is_never_bytes_for_a_slow_client() {
    let quick = [SOON_INBOUND, ("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "100ms")];
    let mesh = Mesh::with(&[], &quick).await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let port = origin.addr().port();
    let mut written = inbound(DefaultPolicy::AllUnauthenticated);
    if let ServerProtocol::Detect { timeout, routes, .. } = &mut written.protocol {
        *timeout = Duration::from_millis(100);
        routes[0].meta = service("ns", "route", 0);
        routes[0].rules[0].matches =
            vec![weft_model::policy::route::HttpMatch { method: Some("PUT".to_owned()), ..Default::default() }];
    }
    mesh.control.set_inbound(port, written);
    // So that the policy is known: only PUT has a route.
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let start = std::time::Instant::now();
    loop {
        let client = mesh.app.connect_inbound(origin.addr()).await;
        if soon(http1::Client::over(client).call(call)).await.unwrap().status() == Some(404) {
            break;
        }
        assert!(start.elapsed() < crate::harness::LONG);
    }
    let before = origin.seen().requests.len();
    let mut slow = mesh.app.connect_inbound(origin.addr()).await;
    slow.write_all(b"G").await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    slow.write_all(&call.as_bytes()[1..]).await.unwrap();
    let mut answer = vec![0; 12];
    soon(slow.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 404");
    assert_eq!(origin.seen().requests.len(), before, "no route let it through");
    // Some servers take a line for a request though it ends with the connection.
    let stranger = Stream::tcp(mesh.app.connect_inbound(origin.addr()).await);
    let mut of_mesh = peer(&mesh).await;
    of_mesh.write_all(&TransportHeader { port, name: None, protocol: None }.encode()).await.unwrap();
    for mut client in [stranger, of_mesh] {
        client.write_all(b"GET /cut-off").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = vec![];
        let _ = soon(client.read_to_end(&mut answer)).await;
        assert_eq!(answer, b"");
    }
    let seen = origin.seen().connections;
    assert!(!seen.iter().any(|bytes| bytes.starts_with(b"GET /cut")), "no route let it through");
}

/// Nobody's silence opens a connection to an application that he could not reach with bytes.
#[tokio::test]
async fn who_is_not_let_in_opens_no_session() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND, ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "all-authenticated")]).await;
    let server = Greeting::start(SMTP).await;
    let mut tcp = mesh.app.connect_inbound_from(elsewhere(), server.addr).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), tcp.read(&mut [0; 1])).await.is_err(), "it waits");
    assert_eq!(server.accepted.load(SeqCst), 0);
}

/// A request may be sent to a server of anything: what it teaches, the server's answer says.
#[tokio::test]
async fn requests_to_a_server_that_speaks_first_teach_nobody_that_it_is_http() {
    let mesh = Mesh::with(&[SOON], &[SOON_INBOUND]).await;
    let call = "GET / HTTP/1.0\r\n\r\n";
    for greeting in [MYSQL, SMTP] {
        let server = Greeting::start(greeting).await;
        for _ in 0..2 {
            let client = mesh.app.connect_inbound(server.addr).await;
            assert_eq!(soon(http1::Client::over(client).call(call)).await.unwrap().status(), Some(502));
        }
        read(&mut mesh.app.connect_inbound(server.addr).await, greeting).await;
        for endpoint in [mesh.endpoint(server.addr, ProtocolHint::Unknown), weft_model::Endpoint::plain(server.addr)] {
            let service = mesh.service(&[endpoint]);
            let client = mesh.connect(&service).await;
            let answer = soon(http1::Client::over(client).call(call)).await.unwrap();
            assert_eq!(answer.status(), Some(502));
            read(&mut mesh.connect(&service).await, greeting).await;
        }
    }
    assert_eq!(mesh.app.metric(&learned("inbound", "http")), 0.0);
    assert_eq!(mesh.web.metric(&learned("outbound", "http")), 0.0);
}

/// Nor does one that is not let in, whatever the server is.
#[tokio::test]
async fn who_is_not_let_in_teaches_nothing() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND, ("LINKERD2_PROXY_INBOUND_DEFAULT_POLICY", "all-authenticated")]).await;
    let server = Greeting::start(SMTP).await;
    let stranger = mesh.app.connect_inbound_from(elsewhere(), server.addr).await.unwrap();
    let answer = soon(http1::Client::over(stranger).call("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(403));
    assert_eq!(mesh.app.metric(&learned("inbound", "http")), 0.0);
    assert_eq!(server.accepted.load(SeqCst), 0);
}

/// A port that has spoken HTTP is not held to it once its server answers otherwise.
#[tokio::test]
async fn a_port_that_answers_with_something_else_is_forgotten_to_be_http() {
    let mesh = Mesh::with(&[SOON], &[SOON_INBOUND]).await;
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let addr = origin.addr();
    let meshed = mesh.service(&[mesh.endpoint(addr, ProtocolHint::Unknown)]);
    let plain = mesh.service(&[weft_model::Endpoint::plain(addr)]);
    let clients =
        async || [mesh.app.connect_inbound(addr).await, mesh.connect(&meshed).await, mesh.connect(&plain).await];
    for client in clients().await {
        assert_eq!(soon(http1::Client::over(client).call(call)).await.unwrap().status(), Some(200));
    }
    mesh.web.reaches(&learned("outbound", "http"), 2.0).await;
    let http = mesh.app.metric(&learned("inbound", "http"));
    assert!(http >= 1.0);
    drop(origin);
    let server = loop {
        // What was accepted may not have ended yet.
        match TcpListener::bind(addr).await {
            Ok(listener) => drop(listener),
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        }
        break Greeting::start_at(addr, SMTP).await;
    };
    for client in clients().await {
        assert_eq!(soon(http1::Client::over(client).call(call)).await.unwrap().status(), Some(502));
    }
    mesh.web.reaches(&learned("outbound", "http"), 0.0).await;
    assert!(mesh.app.metric(&learned("inbound", "http")) < http);
    for mut client in clients().await {
        read(&mut client, SMTP).await;
    }
    drop(server);
}

/// A port that is detected, whose policy waits as little as the proxy itself.
async fn detected_quickly(mesh: &Mesh, port: u16) {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    if let ServerProtocol::Detect { timeout, .. } = &mut policy.protocol {
        *timeout = QUICK;
    }
    crate::rate_limit::known(mesh, port, policy, &format!("quick-{port}")).await;
}

const QUICK: Duration = Duration::from_millis(100);

/// Silence for longer than detection makes nothing of a client: what it says then is held to what holds for requests.
#[tokio::test]
async fn who_is_silent_inside_tls_for_longer_than_detection_still_speaks_http() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND, ("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "100ms")]).await;
    let tls = async |addr| {
        let tcp = mesh.app.connect_inbound(addr).await;
        soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap().0
    };
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    detected_quickly(&mesh, origin.addr().port()).await;
    let before = origin.seen().connections.len();
    let silent = tls(origin.addr()).await;
    eventually("a session is open", || origin.seen().connections.len() > before).await;
    tokio::time::sleep(QUICK * 5).await;
    let call = "GET /late HTTP/1.1\r\nHost: app.ns\r\nl5d-client-id: forged\r\n\r\n";
    assert_eq!(soon(http1::Client::over(silent).call(call)).await.unwrap().status(), Some(200));
    let seen = origin.seen();
    let late = seen.requests.iter().find(|request| request.first_line().starts_with("GET /late ")).unwrap();
    assert_eq!(late.headers("l5d-client-id"), [mesh.web.identity().as_str()]);
    mesh.app.reaches(&outcome("inbound", "http"), 1.0).await;

    // What is not HTTP goes over the session that was opened meanwhile.
    let server = Greeting::start(b"").await;
    detected_quickly(&mesh, server.addr.port()).await;
    let before = server.accepted.load(SeqCst);
    let mut silent = tls(server.addr).await;
    tokio::time::sleep(QUICK * 5).await;
    silent.write_all(b"\0binary").await.unwrap();
    let mut got = [0; 7];
    soon(silent.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"\0binary");
    assert_eq!(server.accepted.load(SeqCst), before + 1, "one session");
    drop(silent);

    // Nor do bytes pass where the application has ended the session meanwhile.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let ending = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    detected_quickly(&mesh, addr.port()).await;
    let mut silent = tls(addr).await;
    let ended = soon(silent.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    ending.abort();
}

#[tokio::test]
async fn silence_inside_tls_does_not_hold_up_the_end() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND]).await;
    let server = Greeting::start(b"").await;
    let tcp = mesh.app.connect_inbound(server.addr).await;
    let (mut silent, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
    eventually("the session is opened", || server.accepted.load(SeqCst) == 1).await;
    let Mesh { control: _control, web: _web, app } = mesh;
    assert_eq!(app.shutdown().await, weft_transport::drain::Drained::Done);
    let ended = soon(silent.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

/// Neither a client that begins a request and waits, nor one that is silent where no session is opened for it.
#[tokio::test]
async fn no_time_makes_bytes_of_http_at_the_clients_proxy() {
    let call = b"GET /late HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    for (wait, first) in [("20ms", 2), ("0", 2), ("0", 0)] {
        let quick =
            [("WEFT_PROXY_OUTBOUND_SERVER_FIRST_WAIT", wait), ("LINKERD2_PROXY_OUTBOUND_DETECT_TIMEOUT", "100ms")];
        let mesh = Mesh::with(&quick, &[]).await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
        let service = mesh.service(&[weft_model::Endpoint::plain(origin.addr())]);
        let mut slow = mesh.connect(&service).await;
        slow.write_all(&call[..first]).await.unwrap();
        tokio::time::sleep(QUICK * 5).await;
        slow.write_all(&call[first..]).await.unwrap();
        let mut answer = vec![0; 12];
        soon(slow.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200");
        mesh.web.reaches("request_total{direction=\"outbound\"", 1.0).await;
    }
}

/// The session that was opened for a client's silence does not outlive what let it be opened.
#[tokio::test]
async fn who_is_not_let_in_any_more_keeps_no_session_by_silence() {
    let mesh = Mesh::with(&[], &[SOON_INBOUND, ("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "100ms")]).await;
    let server = Greeting::start(b"").await;
    detected_quickly(&mesh, server.addr.port()).await;
    let (accepted, unused) = (server.accepted.load(SeqCst), server.unused.load(SeqCst));
    let tcp = mesh.app.connect_inbound_from(elsewhere(), server.addr).await.unwrap();
    let (mut silent, _) = soon(mesh.store("web").connect(tcp, &mesh.server(), false)).await.unwrap();
    eventually("the session is opened", || server.accepted.load(SeqCst) > accepted).await;
    let mut nobody = inbound(DefaultPolicy::AllUnauthenticated);
    nobody.authorizations.clear();
    if let ServerProtocol::Detect { timeout, .. } = &mut nobody.protocol {
        *timeout = QUICK;
    }
    mesh.control.set_inbound(server.addr.port(), nobody);
    eventually("the session ends unused", || server.unused.load(SeqCst) > unused).await;
    let ended = soon(silent.read(&mut [0; 1])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
