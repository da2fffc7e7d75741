//! Local rate limits: of all clients and of each, shared by the workers, on a clock that the test moves.

use crate::{
    faults::forwarded,
    harness::{LONG, Proxy, elsewhere, eventually, http1 as ask, identity, soon},
    mesh::{Mesh, get, naming},
    repeated::leaving,
};
use http::Request;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};
use weft_model::{
    Endpoint, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, RateLimit, ServerProtocol},
        route::{GrpcMatch, GrpcRoute, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};
use weft_proxy::process::rate_limit::Clock;
use weft_testkit::{
    http1, http2,
    policy::{inbound, service},
};
use weft_transport::Stream;

/// Milliseconds that stand still.
#[derive(Clone, Default)]
struct Time(Arc<AtomicU64>);

impl Time {
    fn clock(&self) -> Clock {
        let (start, passed) = (Instant::now(), self.0.clone());
        Arc::new(move || start + Duration::from_millis(passed.load(SeqCst)))
    }

    fn pass(&self, millis: u64) {
        self.0.fetch_add(millis, SeqCst);
    }
}

fn limited(limit: RateLimit) -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    let ServerProtocol::Detect { rate_limit, .. } = &mut policy.protocol else { unreachable!() };
    *rate_limit = Some(limit);
    policy
}

fn limit(total: Option<u32>, identity: Option<u32>) -> RateLimit {
    RateLimit { meta: service("ns", "limit", 0), total, identity, overrides: vec![] }
}

/// A mesh on a clock of its own whose servers' proxy has two workers.
async fn mesh() -> (Mesh, Time) {
    let time = Time::default();
    let clock = time.clock();
    let mesh = Mesh::of(|web| web, |app| app.clock(clock).env("LINKERD2_PROXY_CORES", 2)).await;
    (mesh, time)
}

/// Publishes the policy and waits until `app`'s proxy has it: its server's name shows in the metrics of a request.
pub(crate) async fn known(mesh: &Mesh, port: u16, mut policy: ServerPolicy, name: &str) {
    policy.meta = service("ns", name, 0);
    mesh.control.set_inbound(port, policy);
    let start = Instant::now();
    let addr = ([127, 0, 0, 1], port).into();
    while !mesh.app.handle().metrics().contains(&format!("srv_name=\"{name}\"")) {
        assert!(start.elapsed() < crate::harness::LONG);
        // The accepted connection is labelled by the policy that holds then; it asks for nothing.
        let mut tcp = mesh.app.connect_inbound(addr).await;
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eventually("they are closed", || mesh.app.handle().open_connections() == 0).await;
}

async fn statuses(client: &mut http2::Client, requests: usize) -> Vec<u16> {
    let mut all = vec![];
    for _ in 0..requests {
        all.push(soon(client.call(get())).await.unwrap().head.status.as_u16());
    }
    all
}

/// Whether each of the two workers has a connection.
async fn each_worker_has_one(proxy: &Proxy) {
    eventually("each worker has one", || {
        (0..2).all(|n| proxy.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}")) == 1.0)
    })
    .await;
}

/// The application answers nobody.
#[tokio::test]
async fn workers_share_what_may_be_in_flight() {
    let two = |limit| [("LINKERD2_PROXY_CORES", "2"), (limit, "2")];
    let (web, app) = (two("LINKERD2_PROXY_OUTBOUND_MAX_IN_FLIGHT"), two("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT"));
    let mesh = Mesh::with(&web, &app).await;
    for (proxy, direction) in [(&mesh.web, "outbound"), (&mesh.app, "inbound")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let known = forwarded(&mesh, Endpoint::plain(addr));
        let mut clients = vec![];
        for _ in 0..2 {
            let tcp = match direction {
                "outbound" => mesh.connect(&known).await,
                _ => mesh.app.connect_inbound(addr).await,
            };
            clients.push(http2::Client::over(tcp).await.unwrap());
        }
        each_worker_has_one(proxy).await;
        let mut late = clients.clone();
        let _waiting: Vec<_> =
            clients.into_iter().map(|mut client| tokio::spawn(async move { client.call(get()).await })).collect();
        let _held = [soon(listener.accept()).await.unwrap(), soon(listener.accept()).await.unwrap()];
        for client in &mut late {
            assert_eq!(soon(client.call(get())).await.unwrap().head.status, 503, "{direction}");
        }
        let code = format!("weft_proxy_errors_total{{direction=\"{direction}\",code=\"LOAD_SHED\"}}");
        proxy.reaches(&code, 2.0).await;
    }
}

#[tokio::test]
async fn workers_share_a_limit() {
    let (mesh, time) = mesh().await;
    let origin = naming("app").await;
    known(&mesh, origin.addr().port(), limited(limit(Some(10), None)), "limited").await;
    let mut first = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let mut second = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    each_worker_has_one(&mesh.app).await;
    assert_eq!(statuses(&mut first, 6).await, [200; 6]);
    assert_eq!(statuses(&mut second, 6).await, [200, 200, 200, 200, 429, 429]);
    assert_eq!(statuses(&mut first, 1).await, [429]);
    time.pass(200);
    assert_eq!(statuses(&mut first, 3).await, [200, 200, 429]);
    assert_eq!(origin.seen().requests.len(), 12);

    let text = mesh.app.handle().metrics();
    let counted = "srv_name=\"limited\",srv_port=\"PORT\",ratelimit_group=\"core\",ratelimit_kind=\"Service\",\
                   ratelimit_name=\"limit\",ratelimit_scope=\"total\"} 4"
        .replace("PORT", &origin.addr().port().to_string());
    let line = text.lines().find(|l| l.starts_with("inbound_http_local_ratelimit_total{")).expect("it is counted");
    assert!(line.ends_with(&counted), "{line}");
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"RATE_LIMITED\"}", 4.0).await;
    assert_eq!(mesh.app.metric("inbound_http_errors_total{"), 0.0, "a family of its own counts it");
}

/// What counts refusals is looked up once per connection, since that takes a lock that all workers share. With all series over the cap
/// each look-up shows.
#[tokio::test]
async fn no_refused_request_looks_up_what_counts_it() {
    const ROUNDS: usize = 20;
    let clock = Time::default().clock();
    let mesh = Mesh::of(|web| web, |app| app.clock(clock).env("WEFT_PROXY_METRICS_SERIES_CAP", 1)).await;
    let origin = naming("app").await;
    let mut policy = limited(limit(Some(1), None));
    let anybody = std::mem::take(&mut policy.authorizations);
    let route = |path: &str, authorizations| {
        let matches = vec![HttpMatch { path: Some(PathMatch::Exact(path.into())), ..HttpMatch::default() }];
        let rule = Rule { matches, filters: vec![], does: InboundRule { authorizations } };
        HttpRoute { meta: service("ns", path, 0), hosts: vec![], rules: vec![rule] }
    };
    let ServerProtocol::Detect { routes, .. } = &mut policy.protocol else { unreachable!() };
    *routes = vec![route("/limited", anybody), route("/denied", vec![])];
    mesh.control.set_inbound(origin.addr().port(), policy);
    let connect = async || mesh.app.connect_inbound_from(elsewhere(), origin.addr()).await.unwrap();
    let get = |path: &str| format!("GET /{path} HTTP/1.1\r\nHost: app\r\n\r\n");
    let refused =
        async || http1::Client::over(connect().await).call(&get("nowhere")).await.unwrap().status() == Some(404);
    soon(async { while !refused().await {} }).await;
    // The one that is let in.
    soon(http1::Client::over(connect().await).call(&get("limited"))).await.unwrap();
    let mut client = http1::Client::over(connect().await);
    let mut looked_up = vec![];
    for round in 0..=ROUNDS {
        for (path, status) in [("limited", 429), ("denied", 403), ("nowhere", 404)] {
            assert_eq!(soon(client.call(&get(path))).await.unwrap().status(), Some(status), "{path}, round {round}");
        }
        looked_up.push(mesh.app.metric("weft_metrics_series_dropped_total"));
    }
    // The process looks up others now and then.
    assert!(looked_up[ROUNDS] - looked_up[0] < ROUNDS as f64, "{looked_up:?}");
}

#[tokio::test]
async fn clients_are_limited_apart_and_told_in_their_framing() {
    let (mesh, _time) = mesh().await;
    let origin = naming("app").await;
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    known(&mesh, origin.addr().port(), limited(limit(None, Some(2))), "limited").await;
    // Whoever has no identity shares one bucket.
    let mut first = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let mut second = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(statuses(&mut first, 2).await, [200, 200]);
    let stranger = soon(second.call(get())).await.unwrap();
    assert_eq!(stranger.head.status, 429);
    assert!(stranger.head.headers.get("l5d-proxy-error").is_none(), "strangers are told nothing");
    assert_eq!(stranger.head.headers["content-length"], "0");
    // The mesh's client has its own, however many connections it makes.
    assert_eq!(statuses(&mut mesh.http2(&service).await, 1).await, [200]);
    let mut client = mesh.http2(&service).await;
    assert_eq!(statuses(&mut client, 2).await, [200, 429]);
    let grpc = Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc").body(http2::full(""));
    let answer = soon(client.call(grpc.unwrap())).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), answer.head.headers["grpc-status"].as_bytes()), (200, &b"8"[..]));
    assert_eq!(answer.head.headers["grpc-message"], "identity rate limit exceeded: 2rps [RATE_LIMITED]");
    // HTTP/1 goes on after the refusal.
    let mut old = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
    for _ in 0..2 {
        let answer = soon(old.call("GET / HTTP/1.1\r\nHost: app\r\n\r\n")).await.unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (Some(429), None));
    }
    let scope = |scope: &str| {
        let text = mesh.app.handle().metrics();
        text.lines().any(|l| l.starts_with("inbound_http_local_ratelimit_total{") && l.contains(scope))
    };
    assert!(scope("ratelimit_scope=\"identity\"") && !scope("ratelimit_scope=\"total\""));
}

/// A client that has proven a name, or nothing.
enum Client {
    Http1(http1::Client<Stream>),
    Http2(http2::Client),
}

impl Client {
    async fn over(mesh: &Mesh, port: u16, name: Option<&str>, http2: bool) -> Self {
        let tcp = mesh.app.connect_inbound(([127, 0, 0, 1], port).into()).await;
        let stream = match name {
            None => Stream::tcp(tcp),
            Some(name) => soon(mesh.store(name).connect(tcp, &mesh.server(), false)).await.unwrap().0,
        };
        if http2 {
            Self::Http2(http2::Client::over(stream).await.unwrap())
        } else {
            Self::Http1(http1::Client::over(stream))
        }
    }

    /// The status, and what the proxy says of it.
    async fn ask(&mut self) -> (u16, Option<String>) {
        match self {
            Self::Http1(client) => {
                let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app\r\n\r\n")).await.unwrap();
                (answer.status().unwrap(), answer.header("l5d-proxy-error"))
            }
            Self::Http2(client) => {
                let head = soon(client.call(get())).await.unwrap().head;
                let text = head.headers.get("l5d-proxy-error").map(|text| text.to_str().unwrap().to_owned());
                (head.status.as_u16(), text)
            }
        }
    }
}

/// One client with a limit of its own, each of the others with the common one, and all of them together.
#[tokio::test]
async fn overrides_and_both_limits_hold_where_the_policy_names_the_protocol() {
    let (mesh, time) = mesh().await;
    let one = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
    let two = naming("two").await;
    let limit = RateLimit {
        meta: service("ns", "limit", 0),
        total: Some(9),
        identity: Some(2),
        overrides: vec![(5, vec![identity("web"), identity("other")])],
    };
    for (name, port, http2) in [("one", one.addr().port(), false), ("two", two.addr().port(), true)] {
        let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
        let ServerProtocol::Detect { routes, .. } = policy.protocol else { unreachable!() };
        let rate_limit = Some(limit.clone());
        policy.protocol = if http2 {
            ServerProtocol::Http2 { routes, rate_limit }
        } else {
            ServerProtocol::Http1 { routes, rate_limit }
        };
        known(&mesh, port, policy, name).await;
        let mut web = Client::over(&mesh, port, Some("web"), http2).await;
        let mut peer = Client::over(&mesh, port, Some("peer"), http2).await;
        let mut stranger = Client::over(&mesh, port, None, http2).await;
        let over = |scope: &str, rps: u8| (429, Some(format!("{scope} rate limit exceeded: {rps}rps [RATE_LIMITED]")));
        let counted = async |total: f64, identity: f64| {
            for (scope, refused) in [("total", total), ("identity", identity)] {
                eventually(scope, || {
                    let text = mesh.app.metrics();
                    let of = |l: &&str| {
                        l.starts_with("inbound_http_local_ratelimit_total{")
                            && l.contains(&format!("srv_name=\"{name}\""))
                            && l.contains(&format!("ratelimit_name=\"limit\",ratelimit_scope=\"{scope}\""))
                    };
                    let values = text.lines().filter(of).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
                    values.sum::<f64>() == refused
                })
                .await;
            }
        };
        for _ in 0..5 {
            assert_eq!(web.ask().await, (200, None), "{name}");
        }
        assert_eq!(web.ask().await, over("identity", 5), "{name}");
        let mut again = Client::over(&mesh, port, Some("other"), http2).await;
        assert_eq!(again.ask().await, over("identity", 5), "{name}: clients of one override share it");
        for _ in 0..2 {
            assert_eq!(peer.ask().await, (200, None), "{name}");
        }
        assert_eq!(peer.ask().await, over("identity", 2), "{name}");
        for _ in 0..2 {
            assert_eq!(stranger.ask().await, (200, None), "{name}");
        }
        counted(0.0, 3.0).await;
        // Nine were let in: the total is looked at first, and for whom nothing is left of his own it says so as well.
        let mut fresh = Client::over(&mesh, port, Some("fresh"), http2).await;
        assert_eq!(fresh.ask().await, over("total", 9), "{name}");
        assert_eq!(web.ask().await, over("total", 9), "{name}");
        assert_eq!(stranger.ask().await, (429, None), "{name}: strangers are told nothing");
        counted(3.0, 3.0).await;
        time.pass(1000);
        assert_eq!(fresh.ask().await, (200, None), "{name}");
        assert_eq!(web.ask().await, (200, None), "{name}");
    }
    assert_eq!((one.seen().requests.len(), two.seen().requests.len()), (11, 11));
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"RATE_LIMITED\"}", 12.0).await;
}

#[tokio::test]
async fn a_limit_that_stays_is_not_filled_anew_by_other_changes() {
    let (mesh, _time) = mesh().await;
    let origin = naming("app").await;
    let port = origin.addr().port();
    known(&mesh, port, limited(limit(Some(3), None)), "first").await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(statuses(&mut client, 4).await, [200, 200, 200, 429]);
    drop(client);
    known(&mesh, port, limited(limit(Some(3), None)), "second").await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(statuses(&mut client, 1).await, [429], "the limit is the same");
    drop(client);
    known(&mesh, port, limited(limit(Some(2), None)), "third").await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(statuses(&mut client, 3).await, [200, 200, 429], "another limit begins anew");
    // gRPC servers have none.
    let rule = Rule { matches: vec![GrpcMatch::default()], filters: vec![], does: Default::default() };
    let route = GrpcRoute { meta: service("ns", "grpc", 0), hosts: vec![], rules: vec![rule] };
    let mut grpc = inbound(DefaultPolicy::AllUnauthenticated);
    grpc.protocol = ServerProtocol::Grpc { routes: vec![route] };
    drop(client);
    known(&mesh, port, grpc, "fourth").await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    for _ in 0..5 {
        let request = Request::post("http://app.ns/a.B/C").body(http2::full("")).unwrap();
        assert_eq!(soon(client.call(request)).await.unwrap().head.status, 200);
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_counted_and_measured_once() {
    let (mesh, _time) = mesh().await;
    let (addr, app) = leaving().await;
    known(&mesh, addr.port(), limited(limit(Some(2), None)), "limited").await;
    let mut client = http1::Client::over(mesh.app.connect_inbound(addr).await);
    let mut statuses = vec![];
    for _ in 0..3 {
        let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app\r\n\r\n")).await.unwrap();
        statuses.push(answer.status().unwrap());
    }
    assert_eq!(statuses, [200, 201, 429], "two are let in, however often they are sent");
    mesh.app.reaches("inbound_http_authz_allow_total{", 3.0).await;
    for family in ["request_total{direction=\"inbound\"", "inbound_http_requests_total{"] {
        mesh.app.reaches(family, 2.0).await;
    }
    drop(soon(app).await.unwrap());
}

#[tokio::test]
async fn the_admin_server_measures_by_the_same_clock() {
    let (mesh, time) = mesh().await;
    let port = mesh.app.addrs().admin.port();
    mesh.control.set_inbound(port, limited(limit(Some(1), None)));
    let status = async || {
        let tcp = TcpStream::connect(mesh.app.addrs().admin).await.unwrap();
        ask(tcp, "GET /live HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await.0
    };
    let start = Instant::now();
    while status().await != 429 {
        assert!(start.elapsed() < LONG, "the limit is never met");
    }
    time.pass(1000);
    assert_eq!([status().await, status().await], [200, 429]);
}

/// Nor by a client of the mesh that says nothing of what it speaks.
#[tokio::test]
async fn a_session_that_names_no_protocol_does_not_go_around_limits() {
    let (mesh, _time) = mesh().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"http")).await.unwrap();
    let port = origin.addr().port();
    known(&mesh, port, limited(limit(Some(1), None)), "limited-bytes").await;
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let mut statuses = vec![];
    for _ in 0..3 {
        let mut session = crate::mesh::peer(&mesh).await;
        let header = weft_wire::transport_header::TransportHeader { port, name: None, protocol: None };
        let bytes = [header.encode().as_ref(), call.as_bytes()].concat();
        tokio::io::AsyncWriteExt::write_all(&mut session, &bytes).await.unwrap();
        let answer = soon(http1::Client::over(session).response(false)).await.unwrap();
        statuses.push(answer.status());
    }
    assert_eq!(statuses, [Some(200), Some(429), Some(429)]);
    assert_eq!(origin.seen().requests.len(), 1);
}
