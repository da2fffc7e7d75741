//! Retries and timeouts of ServiceProfile routes: what the server sees, what the application gets, and what is counted.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, Service, get},
};
use http::{Request, Response};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use weft_model::{
    Profile, ProtocolHint,
    policy::route::Pattern,
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, RetryBudget},
};
use weft_testkit::{http1, http2};

fn budget(ratio: f32, min_retries_per_second: u32) -> Option<RetryBudget> {
    Some(RetryBudget { ratio, min_retries_per_second, ttl: Duration::from_secs(10) })
}

/// A profile with one route, which is retryable; these statuses are failures (or not) besides what is one anyway.
fn profile(known: &Service, retry_budget: Option<RetryBudget>, classes: &[(u16, bool)]) -> Profile {
    let (name, _) = known.target.split_once(':').unwrap();
    let class = |(status, failure): &(u16, bool)| ResponseClass {
        matches: ResponseMatch::Status(*status..=*status),
        failure: *failure,
    };
    let route = ProfileRoute {
        matches: RequestMatch::Path(Pattern::new("/.*").unwrap()),
        response_classes: classes.iter().map(class).collect(),
        labels: [("route".to_owned(), "all".to_owned())].into(),
        retryable: true,
        timeout: None,
    };
    Profile { name: Some(name.parse().unwrap()), routes: vec![route], retry_budget, ..Profile::default() }
}

/// Answers with these statuses in turn, then with 200, and sends back what it got.
async fn failing(statuses: &'static [u16]) -> http2::Origin {
    let next = Arc::new(AtomicUsize::new(0));
    http2::Origin::start(move |request| {
        let status = statuses.get(next.fetch_add(1, SeqCst)).copied().unwrap_or(200);
        async move {
            let body = http2::complete((), request.into_body()).await?.body;
            Ok(Response::builder().status(status).body(http2::full(body))?)
        }
    })
    .await
    .unwrap()
}

/// What was counted of the route, without what is equal everywhere.
fn counted(mesh: &Mesh, known: &Service, family: &str, rest: &str) -> f64 {
    mesh.web.metric(&format!("{family}{{direction=\"outbound\",dst=\"{}\",rt_route=\"all\"{rest}", known.target))
}

const SUCCESS: &str = ",status_code=\"200\",classification=\"success\"";

#[tokio::test]
async fn a_failure_is_tried_again_with_the_same_body() {
    let mesh = Mesh::start().await;
    let body: Vec<u8> = (0..60_000_u32).flat_map(u32::to_le_bytes).take(64 * 1024).collect();
    let origin = failing(&[503, 500]).await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.2, 10), &[]));
    let request = Request::post("http://app.ns/a").body(http2::full(body.clone())).unwrap();
    let response = soon(mesh.http2(&known).await.call(request)).await.unwrap();
    assert_eq!((response.head.status.as_u16(), response.body.len()), (200, body.len()));
    assert!(response.body == body, "byte for byte");
    assert_eq!(origin.seen().requests.len(), 3);
    eventually("it is over", || counted(&mesh, &known, "route_response_total", SUCCESS) == 1.0).await;
    assert_eq!(counted(&mesh, &known, "route_request_total", "}"), 1.0);
    assert_eq!(counted(&mesh, &known, "route_response_total", ""), 1.0);
    assert_eq!(counted(&mesh, &known, "route_response_latency_ms_count", ""), 1.0);
    assert_eq!(counted(&mesh, &known, "route_actual_request_total", "}"), 3.0);
    assert_eq!(
        counted(&mesh, &known, "route_actual_response_total", ",status_code=\"503\",classification=\"failure\""),
        1.0
    );
    assert_eq!(counted(&mesh, &known, "route_actual_response_total", SUCCESS), 1.0);
    assert_eq!(counted(&mesh, &known, "route_retryable_total", "}"), 2.0);
    assert_eq!(counted(&mesh, &known, "route_retryable_total", ",skipped"), 0.0);

    // One byte more than is kept: the first answer counts.
    let origin = failing(&[503]).await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.2, 10), &[]));
    let request = Request::post("http://app.ns/a").body(http2::full([&body[..], b"x"].concat())).unwrap();
    assert_eq!(soon(mesh.http2(&known).await.call(request)).await.unwrap().head.status, 503);
    assert_eq!(origin.seen().requests.len(), 1);
}

#[tokio::test]
async fn http1_is_tried_again_too() {
    let mesh = Mesh::start().await;
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let count = AtomicUsize::new(0);
        let origin = http1::Origin::start(move |request| match count.fetch_add(1, SeqCst) {
            0 => http1::Reply::status(503, "Service Unavailable", "busy"),
            _ => http1::Reply::ok(&request.body),
        })
        .await
        .unwrap();
        let known = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        mesh.control.set_profile(known.addr, profile(&known, budget(0.2, 10), &[]));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        let response =
            soon(client.call("POST /a HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 3\r\n\r\nabc")).await.unwrap();
        assert_eq!((response.status(), &response.body[..]), (Some(200), &b"abc"[..]), "{hint:?}");
        let bodies: Vec<_> = origin.seen().requests.into_iter().map(|request| request.body).collect();
        assert_eq!(bodies, [b"abc", b"abc"]);
        eventually("it is over", || counted(&mesh, &known, "route_response_total", SUCCESS) == 1.0).await;
    }
}

#[tokio::test]
async fn the_profile_says_what_is_tried_again() {
    let mesh = Mesh::start().await;
    let origin = failing(&[404, 503]).await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.2, 10), &[(404, true), (503, false)]));
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 503);
    assert_eq!(origin.seen().requests.len(), 2);

    // Without a budget nothing is.
    let origin = failing(&[503]).await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, None, &[]));
    assert_eq!(soon(mesh.http2(&known).await.call(get())).await.unwrap().head.status, 503);

    // A call that failed has status 200.
    let first = AtomicUsize::new(0);
    let origin = http2::Origin::start(move |_| {
        let code = if first.fetch_add(1, SeqCst) == 0 { "14" } else { "0" };
        async move {
            let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", code);
            Ok(response.body(http2::full(""))?)
        }
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.2, 10), &[]));
    let call = Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc").body(http2::full("x"));
    let response = soon(mesh.http2(&known).await.call(call.unwrap())).await.unwrap();
    assert_eq!(response.head.headers["grpc-status"], "0");
    assert_eq!(origin.seen().requests.len(), 2);
}

/// The time of the budget stands still.
#[tokio::test]
async fn workers_share_the_budget() {
    let now = Instant::now();
    let clock: weft_proxy::process::rate_limit::Clock = Arc::new(move || now);
    let mesh = Mesh::of(|web| web.clock(clock).env("LINKERD2_PROXY_CORES", 2), |app| app).await;
    let broken =
        http2::Origin::start(|_| async { Ok(Response::builder().status(503).body(http2::full(""))?) }).await.unwrap();
    let known = mesh.service(&[mesh.endpoint(broken.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.0, 2), &[]));
    let (mut first, mut second) = (mesh.http2(&known).await, mesh.http2(&known).await);
    eventually("each worker has one", || {
        (0..2).all(|n| mesh.web.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}")) == 1.0)
    })
    .await;
    // Two per second within ten seconds, however many fail and wherever: one request may use all.
    for n in 0..4 {
        let client = if n % 2 == 0 { &mut first } else { &mut second };
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 503);
    }
    assert_eq!(broken.seen().requests.len(), 4 + 20);
    assert_eq!(counted(&mesh, &known, "route_retryable_total", "}"), 24.0);
    assert_eq!(counted(&mesh, &known, "route_retryable_total", ",skipped=\"no_budget\"}"), 4.0);
    eventually("all are over", || counted(&mesh, &known, "route_response_total", "") == 4.0).await;
    assert_eq!(counted(&mesh, &known, "route_actual_request_total", "}"), 24.0);
}

/// A share of what succeeds.
#[tokio::test]
async fn successes_fill_the_budget() {
    let now = Instant::now();
    let clock: weft_proxy::process::rate_limit::Clock = Arc::new(move || now);
    let mesh = Mesh::of(|web| web.clock(clock), |app| app).await;
    let origin = http2::Origin::start(|request| async move {
        let status = if request.uri().path() == "/bad" { 503 } else { 200 };
        Ok(Response::builder().status(status).body(http2::full(""))?)
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_profile(known.addr, profile(&known, budget(0.5, 0), &[]));
    let mut client = mesh.http2(&known).await;
    let bad = || Request::get("http://app.ns/bad").body(http2::full("")).unwrap();
    for _ in 0..3 {
        soon(client.call(bad())).await.unwrap();
    }
    assert_eq!(origin.seen().requests.len(), 3, "failures fill nothing");
    for _ in 0..8 {
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    }
    soon(client.call(bad())).await.unwrap();
    assert_eq!(origin.seen().requests.len(), 3 + 8 + 1 + 4);
}

#[tokio::test]
async fn a_route_has_a_timeout_that_closes_the_connection() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| match request.first_line().contains("/slow") {
        true => http1::Reply::Hang,
        false => http1::Reply::ok("x"),
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut limited = profile(&known, None, &[]);
    limited.routes[0].timeout = Some(Duration::from_millis(200));
    mesh.control.set_profile(known.addr, limited);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    assert_eq!(soon(client.call("GET /a HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap().status(), Some(200));
    soon(client.send("GET /slow HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    let all = String::from_utf8(soon(client.rest()).await.unwrap()).unwrap();
    assert!(all.starts_with("HTTP/1.1 504 Gateway Timeout\r\n") && all.contains("connection: close\r\n"), "{all}");
    assert!(all.contains("l5d-proxy-error: profile route timeout [PROFILE_TIMEOUT]\r\n"), "{all}");
    let late = ",status_code=\"504\",classification=\"failure\",error=\"PROFILE_TIMEOUT\"} 1";
    eventually("it is counted", || counted(&mesh, &known, "route_response_total", late) == 1.0).await;
    mesh.web.reaches("outbound_http_errors_total{error=\"response timeout\"}", 1.0).await;

    // So it has while no endpoint is there.
    mesh.control.set_endpoints(&known.target, vec![]);
    let mut client = mesh.http2(&known).await;
    let start = Instant::now();
    loop {
        let response = soon(client.call(get())).await.unwrap();
        if response.head.status == 504 {
            assert_eq!(response.head.headers["l5d-proxy-error"], "profile route timeout [PROFILE_TIMEOUT]");
            break;
        }
        assert!(start.elapsed() < crate::harness::LONG);
    }
    let late = ",status_code=\"504\",classification=\"failure\",error=\"PROFILE_TIMEOUT\"} 2";
    eventually("it is counted too", || counted(&mesh, &known, "route_response_total", late) == 2.0).await;
}
