//! Endpoints that fail are left out, and let in again by one request (data plane 4.9).

use crate::{
    harness::{Proxy, eventually, soon},
    mesh::{Mesh, Service},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::TcpStream;
use weft_model::{
    ClientPolicy, ProtocolHint,
    policy::outbound::{Backoff, Breaker, ClientProtocol},
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, grpc_routes, http_routes, service},
};

const WEB: &[(&str, &str)] =
    &[("LINKERD2_PROXY_CORES", "2"), ("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "500ms")];

fn backoff(min: Duration) -> Backoff {
    Backoff { min, max: Duration::from_secs(60), jitter: 0.0 }
}

fn consecutive(max_failures: u32, wait: Duration) -> Breaker {
    Breaker::Consecutive { max_failures, backoff: backoff(wait) }
}

/// The service with a breaker.
fn policy(known: &Service, breaker: Breaker) -> ClientPolicy {
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        (http1.breaker, http2.breaker) = (Some(breaker.clone()), Some(breaker));
    }
    policy
}

/// An origin whose status can be changed, counted in its requests.
struct Switch {
    origin: http1::Origin,
    status: Arc<AtomicU16>,
}

impl Switch {
    async fn start(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let told = Arc::clone(&status);
        let origin = http1::Origin::start(move |_| http1::Reply::status(told.load(Relaxed), "So", "")).await.unwrap();
        Self { origin, status }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    fn served(&self) -> usize {
        self.origin.seen().requests.len()
    }
}

/// Calls until the endpoints are known, which is one success.
async fn warm(mesh: &Mesh, known: &Service) {
    while call(mesh, known).await.0 != 200 {}
}

/// One request on a connection of its own.
async fn call(mesh: &Mesh, known: &Service) -> (u16, Option<String>) {
    let mut client = http1::Client::over(mesh.connect(known).await);
    answer(&mut client).await
}

async fn answer(client: &mut http1::Client<TcpStream>) -> (u16, Option<String>) {
    let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    (answer.status().unwrap(), answer.header("l5d-proxy-error"))
}

fn endpoints(proxy: &Proxy) -> (f64, f64) {
    let state = |state: &str| proxy.metric(&format!("outbound_http_balancer_endpoints{{endpoint_state=\"{state}\""));
    (state("ready"), state("pending"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_on_two_workers_trip_one_breaker_and_one_probe_opens_it() {
    let mesh = Mesh::with(WEB, &[]).await;
    let app = Switch::start(200).await;
    let known = mesh.service(&[mesh.endpoint(app.origin.addr(), ProtocolHint::Unknown)]);
    mesh.control.set_outbound(known.addr, policy(&known, consecutive(7, Duration::from_secs(3))));
    warm(&mesh, &known).await;
    app.set(500);
    // Each new connection goes to the worker with the fewest: these two are on two workers.
    let mut clients =
        [http1::Client::over(mesh.connect(&known).await), http1::Client::over(mesh.connect(&known).await)];
    for n in 0..7 {
        assert_eq!(answer(&mut clients[n % 2]).await, (500, None));
    }
    let per_worker = |n: u8| mesh.web.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}"));
    assert!(per_worker(0) >= 1.0 && per_worker(1) >= 1.0, "both workers were in it");
    let refused = (504, "BREAKER_SHUT");
    for client in &mut clients {
        let (status, error) = answer(client).await;
        let error = error.expect("a text");
        assert!((status, error.ends_with("[BREAKER_SHUT]")) == (refused.0, true), "{status} {error}");
    }
    assert_eq!((app.served(), endpoints(&mesh.web)), (8, (0.0, 1.0)));
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"BREAKER_SHUT\"}", 2.0).await;
    mesh.web.at_least("outbound_http_errors_total{error=\"failfast\"}", 2.0).await;
    // It still fails: of many that ask one gets through, and the wait is longer.
    let ask = async |status| {
        let mut probed = 0;
        while probed == 0 {
            let asked = (0..8).map(|_| call(&mesh, &known));
            probed = futures_util::future::join_all(asked).await.iter().filter(|(s, _)| *s == status).count();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        probed
    };
    assert_eq!(soon(ask(500)).await, 1);
    assert_eq!(app.served(), 9);
    app.set(200);
    assert!(soon(ask(200)).await >= 1);
    eventually("it is in use again", || endpoints(&mesh.web) == (1.0, 0.0)).await;
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for _ in 0..20 {
        assert_eq!(answer(&mut client).await.0, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_other_endpoint_serves_while_one_is_left_out() {
    let mesh = Mesh::with(WEB, &[]).await;
    let (bad, good) = (Switch::start(200).await, Switch::start(200).await);
    let addrs = [bad.origin.addr(), good.origin.addr()];
    let known = mesh.service(&addrs.map(|addr| mesh.endpoint(addr, ProtocolHint::H2)));
    mesh.control.set_outbound(known.addr, policy(&known, consecutive(3, Duration::from_secs(60))));
    warm(&mesh, &known).await;
    bad.set(503);
    let mut failed = 0;
    while failed < 3 {
        // Both are used when several ask at once.
        let asked = (0..8).map(|_| call(&mesh, &known));
        failed += futures_util::future::join_all(asked).await.iter().filter(|(status, _)| *status == 503).count();
    }
    let served = bad.served();
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for _ in 0..60 {
        assert_eq!(answer(&mut client).await.0, 200);
    }
    assert_eq!(bad.served(), served);
    eventually("it is shown as left out", || endpoints(&mesh.web) == (1.0, 1.0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_low_success_rate_trips_it_and_rate_limits_count() {
    let mesh = Mesh::with(WEB, &[]).await;
    let app = Switch::start(200).await;
    let known = mesh.service(&[mesh.endpoint(app.origin.addr(), ProtocolHint::Unknown)]);
    let breaker = Breaker::Unified {
        success_rate_threshold: 0.5,
        window: Duration::from_secs(100),
        min_requests: 6,
        max_consecutive_failures: 0,
        backoff: backoff(Duration::from_secs(60)),
        honor_retry_after: false,
    };
    mesh.control.set_outbound(known.addr, policy(&known, breaker));
    warm(&mesh, &known).await;
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for (status, times) in [(200, 2), (429, 2), (500, 1)] {
        app.set(status);
        for _ in 0..times {
            assert_eq!(answer(&mut client).await.0, status);
        }
    }
    // 3 of 6 are not below a half; 3 of 7 are.
    app.set(429);
    assert_eq!(answer(&mut client).await.0, 429);
    assert_eq!((answer(&mut client).await.0, app.served()), (504, 7));
}

/// The rate is the process's: neither worker has seen the least number of requests when both together have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_workers_count_into_one_success_rate() {
    let mesh = Mesh::with(WEB, &[]).await;
    let app = Switch::start(200).await;
    let known = mesh.service(&[mesh.endpoint(app.origin.addr(), ProtocolHint::Unknown)]);
    let breaker = Breaker::Unified {
        success_rate_threshold: 0.5,
        window: Duration::from_secs(100),
        min_requests: 8,
        max_consecutive_failures: 0,
        backoff: backoff(Duration::from_secs(60)),
        honor_retry_after: false,
    };
    mesh.control.set_outbound(known.addr, policy(&known, breaker));
    warm(&mesh, &known).await;
    let mut clients =
        [http1::Client::over(mesh.connect(&known).await), http1::Client::over(mesh.connect(&known).await)];
    // With the first one 4 of 8 are good, which is not below a half: 4 or 5 requests on each worker.
    for (n, status) in [200, 200, 200, 500, 500, 500, 500].into_iter().enumerate() {
        app.set(status);
        assert_eq!(answer(&mut clients[n % 2]).await, (status, None));
    }
    let per_worker = |n: u8| mesh.web.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}"));
    assert!(per_worker(0) >= 1.0 && per_worker(1) >= 1.0, "both workers were in it");
    assert_eq!(answer(&mut clients[1]).await, (500, None));
    // 4 of 9 are, for both.
    for client in &mut clients {
        let (status, error) = answer(client).await;
        let error = error.expect("a text");
        assert!(status == 504 && error.ends_with("[BREAKER_SHUT]"), "{status} {error}");
    }
    assert_eq!(app.served(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_failures_are_told_by_trailers() {
    let mesh = Mesh::with(WEB, &[]).await;
    let code = Arc::new(AtomicU16::new(5));
    let told = Arc::clone(&code);
    let app = http2::Origin::start(move |request| {
        let code = told.load(Relaxed);
        async move {
            http2::complete((), request.into_body()).await?;
            let trailers = [("grpc-status".parse()?, code.into())].into_iter().collect();
            let reply = http::Response::builder().header("content-type", "application/grpc");
            Ok(reply.body(http2::with_trailers("a message", trailers))?)
        }
    });
    let app = app.await.unwrap();
    let known = mesh.service(&[mesh.endpoint(app.addr(), ProtocolHint::H2)]);
    let meta = service("ns", "app", 80);
    let routes = grpc_routes(balance(meta.clone(), known.target.parse().unwrap()));
    let protocol = ClientProtocol::Grpc { routes, breaker: Some(consecutive(4, Duration::from_secs(60))) };
    mesh.control.set_outbound(known.addr, ClientPolicy { meta, protocol });
    let call = async || {
        let request = http::Request::post("http://app.ns/svc/Method").header("content-type", "application/grpc");
        let answer = soon(mesh.http2(&known).await.call(request.body(http2::full("x")).unwrap())).await.unwrap();
        let status = answer.trailers.as_ref().unwrap_or(&answer.head.headers).get("grpc-status").cloned().unwrap();
        status.to_str().unwrap().to_owned()
    };
    while call().await != "5" {}
    // Three failures, what is none, and then four.
    for (status, times) in [(13, 3), (5, 1), (13, 4)] {
        code.store(status, Relaxed);
        for _ in 0..times {
            assert_eq!(call().await, status.to_string());
        }
    }
    assert_eq!((call().await, app.seen().requests.len()), ("4".to_owned(), 9), "deadline exceeded");
    let statuses = |status: &str| {
        let text = mesh.web.handle().metrics();
        let family = "outbound_grpc_route_request_statuses_total{";
        let lines = text.lines().filter(|l| l.starts_with(family) && l.contains(status));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    assert_eq!(statuses(r#"grpc_status="INTERNAL",error="""#), 7.0);
    assert_eq!(statuses(r#"grpc_status="NOT_FOUND",error="""#), 2.0);
    assert!(statuses(r#"grpc_status="UNKNOWN",error="FAIL_FAST""#) >= 1.0);
}

/// Routes of a protocol that the policy names bring their breaker along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_trips_where_the_policy_names_the_protocol() {
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "200ms")], &[]).await;
    let status = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&status);
    let one = http1::Origin::start(move |_| http1::Reply::status(told.load(Relaxed), "So", "")).await.unwrap();
    let told = Arc::clone(&status);
    let two = http2::Origin::start(move |request| {
        let status = told.load(Relaxed);
        async move {
            http2::complete((), request.into_body()).await?;
            Ok(http::Response::builder().status(status).body(http2::full(""))?)
        }
    });
    let two = two.await.unwrap();
    for (addr, http2) in [(one.addr(), false), (two.addr(), true)] {
        let known = mesh.service(&[mesh.endpoint(addr, ProtocolHint::Unknown)]);
        let meta = service("ns", "app", 80);
        let mut routes = http_routes(balance(meta.clone(), known.target.parse().unwrap()));
        routes.breaker = Some(consecutive(3, Duration::from_secs(60)));
        let protocol = if http2 { ClientProtocol::Http2(routes) } else { ClientProtocol::Http1(routes) };
        mesh.control.set_outbound(known.addr, ClientPolicy { meta, protocol });
        let ask = async || {
            if !http2 {
                return call(&mesh, &known).await;
            }
            let head = soon(mesh.http2(&known).await.call(crate::mesh::get())).await.unwrap().head;
            let error = head.headers.get("l5d-proxy-error").map(|text| text.to_str().unwrap().to_owned());
            (head.status.as_u16(), error)
        };
        status.store(200, Relaxed);
        while ask().await.0 != 200 {}
        status.store(500, Relaxed);
        for _ in 0..3 {
            assert_eq!(ask().await, (500, None), "HTTP/2: {http2}");
        }
        let (status, error) = ask().await;
        let error = error.expect("a text");
        assert!(status == 504 && error.ends_with("[BREAKER_SHUT]"), "HTTP/2: {http2}: {status} {error}");
    }
    assert_eq!((one.seen().requests.len(), two.seen().requests.len()), (4, 4));
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"BREAKER_SHUT\"}", 2.0).await;
}

/// Connections that break count as failures, and clients that go away say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_is_a_failure_and_who_leaves_is_none() {
    let mesh = Mesh::with(WEB, &[]).await;
    let hanging = http1::Origin::start(|_| http1::Reply::Hang).await.unwrap();
    let known = mesh.service(&[mesh.endpoint(hanging.addr(), ProtocolHint::Unknown)]);
    mesh.control.set_outbound(known.addr, policy(&known, consecutive(2, Duration::from_secs(60))));
    let mut sent = 0;
    while hanging.seen().requests.len() < 5 {
        let mut client = http1::Client::over(mesh.connect(&known).await);
        client.send("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n").await.unwrap();
        sent += 1;
        // The endpoints may not be known to the first ones.
        eventually("it hangs or is refused", || {
            hanging.seen().requests.len() as f64 + mesh.web.metric("outbound_http_errors_total{") >= f64::from(sent)
        })
        .await;
    }
    assert_eq!(endpoints(&mesh.web), (1.0, 0.0));
    let broken = Arc::new(AtomicU16::new(0));
    let told = Arc::clone(&broken);
    let breaking = http1::Origin::start(move |_| match told.load(Relaxed) {
        0 => http1::Reply::ok("ok"),
        _ => http1::Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx".to_vec()),
    });
    let breaking = breaking.await.unwrap();
    let known = mesh.service(&[mesh.endpoint(breaking.addr(), ProtocolHint::Unknown)]);
    mesh.control.set_outbound(known.addr, policy(&known, consecutive(2, Duration::from_secs(60))));
    warm(&mesh, &known).await;
    broken.store(1, Relaxed);
    for _ in 0..2 {
        let mut client = http1::Client::over(mesh.connect(&known).await);
        let broken = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await;
        assert!(broken.is_err());
    }
    assert_eq!(call(&mesh, &known).await.0, 504);
    assert_eq!(breaking.seen().requests.len(), 3);
}
