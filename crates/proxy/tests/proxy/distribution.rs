//! Which backend and endpoint of a rule a request goes to, and how it waits for one (data plane 4.5, 4.6).

use crate::{
    harness::{Proxy, eventually, soon},
    inbound::client_hello,
    mesh::{Mesh, Service, shouting},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{
    ClientPolicy, Endpoint, ProtocolHint,
    endpoint::Http2Params,
    policy::{
        outbound::{Backend, BackendKind, ClientProtocol, Distribution, RouteBackend},
        route::{Filter, Ratio},
    },
};
use weft_testkit::{
    http1,
    policy::{balance, detect, forward, service, tls_route},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";

async fn origin() -> http1::Origin {
    http1::Origin::start(|_| http1::Reply::ok("ok")).await.unwrap()
}

fn served(origin: &http1::Origin) -> usize {
    origin.seen().requests.len()
}

/// What each rule of the service spreads over, in place of its own backend.
fn spread(mesh: &Mesh, known: &Service, backends: Distribution) {
    let meta = service("ns", "app", 80);
    let mut policy: ClientPolicy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        for routes in [http1, http2] {
            routes.routes[0].rules[0].does.backends = backends.clone();
        }
    }
    mesh.control.set_outbound(known.addr, policy);
}

fn backend(known: &Service, n: u16) -> RouteBackend {
    plain(balance(service("ns", "app", n), known.target.parse().unwrap()))
}

fn plain(backend: Backend) -> RouteBackend {
    RouteBackend { backend, filters: vec![] }
}

fn client(tcp: TcpStream) -> http1::Client<TcpStream> {
    http1::Client::over(tcp)
}

async fn status(client: &mut http1::Client<TcpStream>) -> Option<u16> {
    soon(client.call(GET)).await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_that_is_available_is_used() {
    let mesh = Mesh::start().await;
    let (first, second) = (origin().await, origin().await);
    let known = mesh.service(&[mesh.endpoint(first.addr(), ProtocolHint::Unknown)]);
    let other = mesh.service(&[mesh.endpoint(second.addr(), ProtocolHint::Unknown)]);
    spread(&mesh, &known, Distribution::FirstAvailable(vec![backend(&known, 1), backend(&other, 2)]));
    let mut client = client(mesh.connect(&known).await);
    for _ in 0..10 {
        assert_eq!(status(&mut client).await, Some(200));
    }
    assert_eq!((served(&first), served(&second)), (10, 0), "the endpoints of the first are awaited");
    mesh.control.set_endpoints(&known.target, vec![]);
    eventually("the proxy knows", || mesh.web.metric(&format!("{P2C}{BACKEND}1\"")) == 0.0).await;
    for _ in 0..10 {
        assert_eq!(status(&mut client).await, Some(200));
    }
    assert_eq!((served(&first), served(&second)), (10, 10));
    mesh.control.set_endpoints(&known.target, vec![mesh.endpoint(first.addr(), ProtocolHint::Unknown)]);
    eventually("the proxy knows", || mesh.web.metric(&format!("{P2C}{BACKEND}1\"")) == 1.0).await;
    assert_eq!((status(&mut client).await, served(&first)), (Some(200), 11));
}

const P2C: &str = "outbound_http_balancer_p2c_endpoints{parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",\
                   parent_name=\"app\",parent_port=\"80\",parent_section_name=\"\",";
const BACKEND: &str =
    "backend_group=\"core\",backend_kind=\"Service\",backend_namespace=\"ns\",backend_name=\"app\",backend_port=\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_shares_of_those_that_are_available() {
    let mesh = Mesh::start().await;
    let origins = [origin().await, origin().await, origin().await];
    let services = origins.each_ref().map(|o| mesh.service(&[mesh.endpoint(o.addr(), ProtocolHint::Unknown)]));
    let [often, seldom, never] = &services;
    let weighted = vec![(backend(often, 1), 3), (backend(seldom, 2), 1), (backend(never, 3), 0)];
    spread(&mesh, often, Distribution::RandomAvailable(weighted));
    let mut client = client(mesh.connect(often).await);
    for _ in 0..200 {
        assert_eq!(status(&mut client).await, Some(200));
    }
    let counts = || origins.each_ref().map(served);
    let [first, second, third] = counts();
    assert_eq!((first + second, third), (200, 0));
    assert!((25..=80).contains(&second), "{second}");
    // One that is not available is passed over, and who is never drawn is not drawn for want of others.
    mesh.control.set_endpoints(&often.target, vec![]);
    eventually("the proxy knows", || mesh.web.metric(&format!("{P2C}{BACKEND}1\"")) == 0.0).await;
    for _ in 0..20 {
        assert_eq!(status(&mut client).await, Some(200));
    }
    assert_eq!(counts(), [first, second + 20, 0]);
    let requests =
        |n: u8| mesh.web.metric(&format!("outbound_http_balancer_queue_requests_total{{{}{BACKEND}{n}\"", parent()));
    assert_eq!((requests(1) as usize, requests(2) as usize), (first, second + 20));
}

/// Else a split with a mistake in it would send others more than they are meant to get.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_backend_keeps_its_share_and_fails() {
    let mesh = Mesh::start().await;
    let origins = [origin().await, origin().await];
    let services = origins.each_ref().map(|o| mesh.service(&[mesh.endpoint(o.addr(), ProtocolHint::Unknown)]));
    let [often, seldom] = &services;
    let mut gone = backend(often, 9);
    gone.backend.kind = BackendKind::Missing;
    let message = "there is no Service ns/gone".to_owned();
    gone.filters = vec![Filter::HttpFailure { status: 500, message, ratio: Ratio::ALWAYS }];
    let weighted = |often: RouteBackend, seldom: RouteBackend| vec![(often, 6), (gone.clone(), 2), (seldom, 2)];
    spread(&mesh, often, Distribution::RandomAvailable(weighted(backend(often, 1), backend(seldom, 2))));
    let mut client = client(mesh.connect(often).await);
    let mut ask = async |times: usize| {
        let mut failed = 0;
        for _ in 0..times {
            let answer = soon(client.call(GET)).await.unwrap();
            if answer.status() == Some(500) {
                let told = answer.header("l5d-proxy-error");
                assert_eq!(told.as_deref(), Some("there is no Service ns/gone [BACKEND_INVALID]"));
                failed += 1;
            } else {
                assert_eq!(answer.status(), Some(200));
            }
        }
        failed
    };
    let failed = ask(300).await;
    assert!((30..=95).contains(&failed), "{failed} of 300, of which 60 are its own");
    let [first, second] = origins.each_ref().map(served);
    assert_eq!(first + second + failed, 300);
    assert!((30..=95).contains(&second), "{second}");
    // Nor does it get the share of one that is not available.
    mesh.control.set_endpoints(&often.target, vec![]);
    eventually("the proxy knows", || mesh.web.metric(&format!("{P2C}{BACKEND}1\"")) == 0.0).await;
    let failed = ask(300).await;
    assert!((30..=95).contains(&failed), "{failed} of 300, of which 60 are its own");
    assert_eq!(origins.each_ref().map(served), [first, second + 300 - failed]);
}

fn parent() -> &'static str {
    P2C.split_once('{').unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fixed_endpoint_that_cannot_be_reached_is_left_for_another_backend() {
    let mesh = Mesh::start().await;
    let app = origin().await;
    let known = mesh.service(&[mesh.endpoint(app.addr(), ProtocolHint::Unknown)]);
    // Bound, so that nobody else gets the port, and closed for everybody.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let nobody = forward(Endpoint::plain(closed.local_addr().unwrap()));
    spread(&mesh, &known, Distribution::FirstAvailable(vec![plain(nobody.clone()), backend(&known, 1)]));
    let mut client = client(mesh.connect(&known).await);
    for _ in 0..10 {
        assert_eq!(status(&mut client).await, Some(200));
    }
    assert_eq!(served(&app), 10);
    // Without another one it is the client's to know.
    spread(&mesh, &known, Distribution::FirstAvailable(vec![plain(nobody)]));
    let mut failed = None;
    while failed != Some(502) {
        failed = status(&mut self::client(mesh.connect(&known).await)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_without_backends_sheds() {
    let mesh = Mesh::start().await;
    let known = mesh.service(&[]);
    spread(&mesh, &known, Distribution::Empty);
    let answer = soon(client(mesh.connect(&known).await).call(GET)).await.unwrap();
    assert_eq!(answer.status(), Some(503));
    assert!(answer.header("l5d-proxy-error").unwrap().ends_with("[LOAD_SHED]"));
    mesh.web.reaches("outbound_http_errors_total{error=\"loadshed\"}", 1.0).await;
}

/// Waits until so many requests wait.
async fn waiting(proxy: &Proxy, n: f64) {
    eventually("a request waits", || proxy.metric("outbound_http_balancer_queue_length{") == n).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_is_bounded_for_the_process_and_ends_with_failfast() {
    let web = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_OUTBOUND_HTTP_QUEUE_CAPACITY", "1"),
        ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "2s"),
    ];
    let mesh = Mesh::with(&web, &[]).await;
    let app = origin().await;
    let endpoint = mesh.endpoint(app.addr(), ProtocolHint::Unknown);
    let known = mesh.service(std::slice::from_ref(&endpoint));
    mesh.control.set_endpoints(&known.target, vec![]);
    let (mut one, mut two) = (client(mesh.connect(&known).await), client(mesh.connect(&known).await));
    let start = Instant::now();
    one.send(GET).await.unwrap();
    waiting(&mesh.web, 1.0).await;
    // The other worker has nobody waiting, but the process has.
    let shed = soon(two.call(GET)).await.unwrap();
    assert_eq!(shed.status(), Some(503));
    assert!(shed.header("l5d-proxy-error").unwrap().ends_with("[LOAD_SHED]"));
    let failed = soon(one.response(false)).await.unwrap();
    assert_eq!(failed.status(), Some(504));
    assert!(failed.header("l5d-proxy-error").unwrap().ends_with("[FAILFAST]"));
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(mesh.web.metric("outbound_http_balancer_queue_length{"), 0.0);
    mesh.web.at_least("outbound_http_balancer_queue_gate_shut_total{", 1.0).await;
    // An endpoint ends it for good, and who waits meanwhile is served.
    mesh.control.set_endpoints(&known.target, vec![endpoint]);
    eventually("the endpoint is known", || {
        mesh.web.metric("outbound_http_balancer_endpoints{endpoint_state=\"ready\"") == 1.0
    })
    .await;
    assert_eq!(status(&mut client(mesh.connect(&known).await)).await, Some(200));
}

/// The same of connections, whose bytes nobody looks at or which are routed by their server name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_are_bounded_for_the_process() {
    let web = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_OUTBOUND_TCP_QUEUE_CAPACITY", "1"),
        ("LINKERD2_PROXY_OUTBOUND_TCP_FAILFAST_TIMEOUT", "60s"),
    ];
    let mesh = Mesh::with(&web, &[]).await;
    let (addr, server) = shouting(std::net::Ipv4Addr::LOCALHOST.into()).await;
    let hello = client_hello("db.example");
    for (kind, shed) in [("tcp", 1.0), ("tls", 2.0)] {
        let known = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
        if kind == "tls" {
            let meta = service("ns", "app", 80);
            let to = balance(meta.clone(), known.target.parse().unwrap());
            let protocol = ClientProtocol::Tls(vec![tls_route("tls", &["db.example"], to)]);
            mesh.control.set_outbound(known.addr, ClientPolicy { meta, protocol });
        }
        mesh.control.set_endpoints(&known.target, vec![]);
        eventually("both workers are idle", || mesh.web.handle().open_connections() == 0).await;
        let mut one = mesh.connect(&known).await;
        one.write_all(&hello).await.unwrap();
        let length = format!("outbound_{kind}_balancer_queue_length{{");
        mesh.web.reaches(&length, 1.0).await;
        // The other worker has nobody waiting, but the process has.
        if let Ok(mut two) = mesh.web.try_connect_outbound(known.addr).await {
            let _ = two.write_all(&hello).await;
            let end = soon(two.read(&mut [0; 1])).await;
            assert!(end.is_err(), "{kind}: reset: {end:?}");
        }
        mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"LOAD_SHED\"}", shed).await;
        mesh.web.reaches("outbound_tcp_errors_total{error=\"loadshed\"}", shed).await;
        mesh.web.reaches(&length, 1.0).await;
        mesh.control.set_endpoints(&known.target, vec![mesh.endpoint(addr, ProtocolHint::Opaque)]);
        one.shutdown().await.unwrap();
        let mut all = vec![];
        soon(one.read_to_end(&mut all)).await.unwrap();
        assert_eq!(all, [b"hello\n", &hello.to_ascii_uppercase()[..], b"bye\n"].concat(), "{kind}");
        mesh.web.reaches(&length, 0.0).await;
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_served_by_the_first_endpoint() {
    let mesh = Mesh::start().await;
    let app = origin().await;
    let endpoint = mesh.endpoint(app.addr(), ProtocolHint::Unknown);
    let known = mesh.service(std::slice::from_ref(&endpoint));
    mesh.control.set_endpoints(&known.target, vec![]);
    let mut client = client(mesh.connect(&known).await);
    client.send(GET).await.unwrap();
    waiting(&mesh.web, 1.0).await;
    mesh.control.set_endpoints(&known.target, vec![endpoint]);
    assert_eq!(soon(client.response(false)).await.unwrap().status(), Some(200));
    assert!(mesh.web.metric("outbound_http_balancer_queue_latency_seconds_sum{") > 0.0);
}

/// Settings of a connection of HTTP/2: the values of SETTINGS, and the window of the whole connection.
async fn settings(listener: TcpListener) -> (Vec<(u16, u32)>, u32) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut preface = [0; 24];
    tcp.read_exact(&mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    tcp.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut values, mut window) = (vec![], 65_535);
    loop {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        tcp.read_exact(&mut payload).await.unwrap();
        let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
        match (head[3], head[4]) {
            (4, 0) => values.extend(payload.chunks(6).map(|c| (number(&c[..2]) as u16, number(&c[2..])))),
            (8, _) if number(&head[5..]) == 0 => window += number(&payload),
            // The request: everything is announced.
            (1, _) => return (values, window),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_has_parameters_of_its_own_over_the_proxys() {
    let env = [
        ("LINKERD2_PROXY_HTTP2_INITIAL_STREAM_WINDOW_SIZE", "70000"),
        ("LINKERD2_PROXY_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE", "200000"),
    ];
    let mesh = Mesh::with(&env, &[]).await;
    let params = Http2Params { stream_window: Some(80_000), max_frame_size: Some(20_000), ..Http2Params::default() };
    for (params, stream, frame) in [(Http2Params::default(), 70_000, None), (params, 80_000, Some(20_000))] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let known = mesh.service(&[]);
        mesh.control.set_endpoints(&known.target, vec![Endpoint { http2: params, ..Endpoint::plain(addr) }]);
        let mut client = mesh.http2(&known).await;
        let request = tokio::spawn(async move { client.call(crate::mesh::get()).await.map(drop) });
        let (values, window) = soon(settings(listener)).await;
        let value = |wanted: u16| values.iter().find(|(id, _)| *id == wanted).map(|(_, value)| *value);
        assert_eq!((value(4), window), (Some(stream), 200_000), "initial windows");
        assert_eq!(value(5).filter(|size| *size != 16_384), frame, "frame size");
        request.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_count_by_zone() {
    let mesh = Mesh::start().await;
    for (zone, counted) in
        [(Some("local"), "local"), (Some("remote"), "remote"), (None, "unknown"), (Some("x"), "unknown")]
    {
        let before = cost(&mesh.web, counted);
        let app = origin().await;
        let mut endpoint = mesh.endpoint(app.addr(), ProtocolHint::Unknown);
        endpoint.labels = zone.map(|zone| ("zone_locality".to_owned(), zone.to_owned())).into_iter().collect();
        let known = mesh.service(&[endpoint]);
        assert_eq!(status(&mut client(mesh.connect(&known).await)).await, Some(200));
        let after = cost(&mesh.web, counted);
        assert!(after.0 - before.0 >= GET.len() as f64 && after.1 > before.1, "{zone:?}: {before:?} {after:?}");
    }
}

/// Bytes sent to and received from a zone.
fn cost(proxy: &Proxy, zone: &str) -> (f64, f64) {
    let of = |op: &str| {
        proxy.metric(&format!("outbound_tcp_transfer_cost_bytes_total{{op=\"{op}\",zone_locality=\"{zone}\"}}"))
    };
    (of("Send"), of("Recv"))
}
