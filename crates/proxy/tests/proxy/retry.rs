//! Retries that a policy, or the application, asks for: what servers get to see, and what is counted.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, Service, get},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;
use weft_model::{
    ProtocolHint,
    policy::{
        outbound::{Backend, BackendKind, ClientProtocol, Distribution, OutboundRule, Retry, RetryOn, RouteBackend},
        route::{Filter, GrpcRoute, Ratio, Rule},
    },
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, grpc_routes, service},
};

const ROUTE: &str = "parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",parent_name=\"app\",\
                     parent_port=\"80\",parent_section_name=\"\",route_group=\"\",route_kind=\"default\",\
                     route_namespace=\"\",route_name=\"http\"";
const TWO_WORKERS: [(&str, &str); 1] = [("LINKERD2_PROXY_CORES", "2")];

/// Changes the rule that all requests of `service` follow, from the next connection on.
pub(crate) fn ask(mesh: &Mesh, known: &Service, change: impl Fn(&mut OutboundRule)) {
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        for routes in [http1, http2] {
            change(&mut routes.routes[0].rules[0].does);
        }
    }
    mesh.control.set_outbound(known.addr, policy);
}

fn on(statuses: RangeInclusive<u16>, max_retries: u32) -> Retry {
    let on = RetryOn::Statuses(vec![statuses]);
    Retry { max_retries, max_request_bytes: 64 * 1024, on, timeout: None, backoff: None }
}

fn counted(mesh: &Mesh, what: &str) -> f64 {
    mesh.web.metric(&format!("outbound_http_route_retry_{what}_total{{{ROUTE}}}"))
}

fn counted_grpc(mesh: &Mesh, what: &str) -> f64 {
    let route = ROUTE.replace("\"http\"", "\"grpc\"");
    mesh.web.metric(&format!("outbound_grpc_route_retry_{what}_total{{{route}}}"))
}

/// The bodies that are tried: those that are kept, and the first that is not.
fn bodies() -> Vec<(Vec<u8>, bool)> {
    let bytes: Vec<u8> = (0..=64 * 1024_u32).map(|n| (n % 251) as u8).collect();
    [0, 1, 4096, 64 * 1024, 64 * 1024 + 1].map(|length| (bytes[..length].to_vec(), length <= 64 * 1024)).into()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    for chunk in body.chunks(10_000) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nx-sum: 7\r\n\r\n");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_is_sent_again_byte_for_byte_on_both_carriers() {
    let mesh = Mesh::with(&TWO_WORKERS, &TWO_WORKERS).await;
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let answered = AtomicUsize::new(0);
        let origin = http1::Origin::start(move |_| match answered.fetch_add(1, Relaxed) % 2 {
            0 => http1::Reply::status(503, "Busy", "busy"),
            _ => http1::Reply::ok("done"),
        })
        .await
        .unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        ask(&mesh, &service, |rule| rule.retry = Some(on(500..=599, 1)));
        let before = (counted(&mesh, "requests"), counted(&mesh, "successes"));
        let mut kept = 0;
        // One connection per worker.
        let mut clients = vec![];
        for _ in 0..2 {
            clients.push(http1::Client::over(mesh.connect(&service).await));
        }
        for (n, (body, again)) in bodies().iter().enumerate() {
            let length = format!("content-length: {}\r\n\r\n", body.len());
            let (by_length, by_chunks) = (
                [length.as_bytes(), body].concat(),
                [b"transfer-encoding: chunked\r\n\r\n", &chunked(body)[..]].concat(),
            );
            for (framing, rest) in [by_length, by_chunks].into_iter().enumerate() {
                let seen = origin.seen().requests.len();
                let request = [b"PUT /path?q HTTP/1.1\r\nHost: app.ns\r\nX-Case: Kept\r\n", &rest[..]].concat();
                let response = soon(clients[(n + framing) % 2].call(&request)).await.unwrap();
                let what = format!("{hint:?}, {} bytes, framing {framing}", body.len());
                let requests = &origin.seen().requests[seen..];
                assert_eq!(response.status(), Some(if *again { 200 } else { 503 }), "{what}");
                assert_eq!(requests.len(), if *again { 2 } else { 1 }, "{what}");
                for request in requests {
                    assert!(request.body == *body, "{what}: the body differs");
                    assert!(request.head == requests[0].head, "{what}: the heads differ");
                    let trailers = request.raw.ends_with(b"0\r\nx-sum: 7\r\n\r\n");
                    assert_eq!(trailers, framing == 1, "{what}: trailers");
                }
                kept += u32::from(*again);
                if !again {
                    // So that the next is again answered by a failure first.
                    let response = soon(clients[0].call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
                    assert_eq!(response.status(), Some(200));
                }
            }
        }
        assert_eq!(counted(&mesh, "requests") - before.0, f64::from(kept), "{hint:?}");
        assert_eq!(counted(&mesh, "successes") - before.1, f64::from(kept), "{hint:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_sent_again_byte_for_byte() {
    let mesh = Mesh::with(&TWO_WORKERS, &TWO_WORKERS).await;
    let heard = Arc::new(Mutex::new(Vec::<(Bytes, Option<HeaderMap>)>::new()));
    let told = Arc::clone(&heard);
    let origin = http2::Origin::start(move |request| {
        let told = Arc::clone(&told);
        async move {
            let request = http2::complete((), request.into_body()).await?;
            let mut told = told.lock().unwrap();
            told.push((request.body, request.trailers));
            Ok(Response::builder().status(if told.len() == 1 { 503 } else { 200 }).body(http2::full("done"))?)
        }
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &service, |rule| rule.retry = Some(on(503..=503, 1)));
    let mut clients = [mesh.http2(&service).await, mesh.http2(&service).await];
    for (n, (body, again)) in bodies().into_iter().enumerate() {
        for trailers in [None, Some(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]))] {
            let sent = match &trailers {
                None => http2::full(body.clone()),
                Some(trailers) => http2::with_trailers(body.clone(), trailers.clone()),
            };
            let request = Request::put("http://app.ns/").body(sent).unwrap();
            let response = soon(clients[n % 2].call(request)).await.unwrap();
            assert_eq!(response.head.status, if again { 200 } else { 503 });
            let heard = std::mem::take(&mut *heard.lock().unwrap());
            assert!(heard == vec![(Bytes::from(body.clone()), trailers); if again { 2 } else { 1 }], "{n}");
        }
    }
    assert_eq!(counted(&mesh, "requests"), 8.0);
}

#[tokio::test]
async fn a_server_sees_what_the_policy_asks_for_and_no_more() {
    let mesh = Mesh::start().await;
    let status = Arc::new(AtomicUsize::new(503));
    let answer = Arc::clone(&status);
    let reply = move |_: &http1::Message| http1::Reply::status(answer.load(Relaxed) as u16, "So", "so");
    let origin = http1::Origin::start(reply).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &service, |rule| rule.retry = Some(on(502..=503, 3)));
    let mut client = http1::Client::over(mesh.connect(&service).await);
    for (answer, attempts) in [(503, 4), (502, 4), (500, 1), (504, 1), (404, 1), (200, 1)] {
        status.store(answer, Relaxed);
        let before = origin.seen().requests.len();
        let response =
            soon(client.call("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 1\r\n\r\nx")).await.unwrap();
        assert_eq!(response.status(), Some(answer as u16));
        assert_eq!(origin.seen().requests.len() - before, attempts, "{answer}");
    }
    assert_eq!((counted(&mesh, "requests"), counted(&mesh, "limit_exceeded")), (6.0, 2.0));
    assert_eq!((counted(&mesh, "successes"), counted(&mesh, "overflow")), (0.0, 0.0));
    let attempts = || mesh.web.metric("response_total{direction=\"outbound\"");
    // The last one is counted behind its last byte.
    eventually("each attempt is a response of the endpoint", || attempts() == 12.0).await;
}

#[tokio::test]
async fn a_retry_may_go_to_another_backend() {
    let mesh = Mesh::start().await;
    let bad = http1::Origin::start(|_| http1::Reply::status(503, "No", "")).await.unwrap();
    let good = http1::Origin::start(|_| http1::Reply::ok("yes")).await.unwrap();
    let [one, two] = [&bad, &good].map(|origin| mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]));
    ask(&mesh, &one, |rule| {
        let backend = |known: &Service| {
            let backend = balance(service("ns", "app", 80), known.target.parse().unwrap());
            (RouteBackend { backend, filters: vec![] }, 1)
        };
        rule.backends = Distribution::RandomAvailable(vec![backend(&one), backend(&two)]);
        rule.retry = Some(on(503..=503, 100));
    });
    let mut client = http1::Client::over(mesh.connect(&one).await);
    for _ in 0..20 {
        let response = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(response.status(), Some(200));
    }
    assert_eq!(good.seen().requests.len(), 20);
    assert_eq!(counted(&mesh, "requests"), bad.seen().requests.len() as f64);
    assert!(!bad.seen().requests.is_empty());
}

/// Else what is retried would fail more often than by the share of what is no backend.
#[tokio::test]
async fn a_retry_never_goes_to_what_is_no_backend() {
    let mesh = Mesh::start().await;
    let busy = http1::Origin::start(|_| http1::Reply::status(503, "Busy", "")).await.unwrap();
    let known = mesh.service(&[mesh.endpoint(busy.addr(), ProtocolHint::H2)]);
    ask(&mesh, &known, |rule| {
        let backend = balance(service("ns", "app", 80), known.target.parse().unwrap());
        let gone = Backend { kind: BackendKind::Missing, ..backend.clone() };
        let failure = Filter::HttpFailure { status: 500, message: "gone".to_owned(), ratio: Ratio::ALWAYS };
        let there = RouteBackend { backend, filters: vec![] };
        let gone = RouteBackend { backend: gone, filters: vec![failure] };
        rule.backends = Distribution::RandomAvailable(vec![(there, 1), (gone, 1)]);
        rule.retry = Some(on(503..=503, 3));
    });
    let mut client = http1::Client::over(mesh.connect(&known).await);
    let mut tried = 0;
    for _ in 0..60 {
        let response = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        tried += usize::from(response.status() == Some(503));
    }
    assert!((10..=50).contains(&tried), "{tried}");
    assert_eq!(busy.seen().requests.len(), 4 * tried, "all attempts of a request that came there");
}

#[tokio::test]
async fn grpc_is_asked_again_by_its_codes() {
    let mesh = Mesh::start().await;
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let origin = http2::Origin::start(move |request| {
        let count = Arc::clone(&count);
        async move {
            let called = http2::complete((), request.into_body()).await?;
            assert_eq!(called.body, "\0\0\0\0\0");
            let code = |code: &str| HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
            let mut response = Response::builder().header("content-type", "application/grpc");
            Ok(match count.fetch_add(1, Relaxed) {
                // In the head, then in trailers behind nothing, then behind a message.
                0 => {
                    response.headers_mut().unwrap().extend(code("14"));
                    response.body(http2::full(""))?
                }
                1 => response.body(http2::with_trailers("", code("14")))?,
                _ => response.body(http2::with_trailers("\0\0\0\0\0", code("0")))?,
            })
        }
    })
    .await
    .unwrap();
    let service_ = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let meta = service("ns", "app", 80);
    let mut rule = weft_testkit::policy::outbound_rule(balance(meta.clone(), service_.target.parse().unwrap()));
    let on = RetryOn::GrpcCodes(vec![14]);
    rule.retry = Some(Retry { max_retries: 2, max_request_bytes: 64 * 1024, on, timeout: None, backoff: None });
    let rules = vec![Rule { matches: vec![], filters: vec![], does: rule }];
    let routes = vec![GrpcRoute { meta: weft_model::Meta::default_named("grpc"), hosts: vec![], rules }];
    let protocol = ClientProtocol::Grpc { routes, breaker: None };
    mesh.control.set_outbound(service_.addr, weft_model::ClientPolicy { meta, protocol });
    let request = Request::post("http://app.ns/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http2::full("\0\0\0\0\0"));
    let response = soon(mesh.http2(&service_).await.call(request.unwrap())).await.unwrap();
    assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    assert_eq!(answered.load(Relaxed), 3);
    assert_eq!((counted_grpc(&mesh, "requests"), counted_grpc(&mesh, "successes")), (2.0, 1.0));
    assert_eq!((counted_grpc(&mesh, "limit_exceeded"), counted_grpc(&mesh, "overflow")), (0.0, 0.0));
}

/// Each condition that a policy may name is about its own code and about no other.
#[tokio::test]
async fn each_condition_of_grpc_is_about_its_own_code() {
    const CONDITIONS: [u16; 5] = [1, 4, 8, 13, 14];
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        let code: HeaderValue = request.uri().path().rsplit_once('/').map(|(_, code)| code.parse()).unwrap()?;
        http2::complete((), request.into_body()).await?;
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, code)]);
        let response = Response::builder().header("content-type", "application/grpc");
        Ok(response.body(http2::with_trailers("", trailers))?)
    })
    .await
    .unwrap();
    for wanted in CONDITIONS {
        let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        let meta = service("ns", "app", 80);
        let mut routes = grpc_routes(balance(meta.clone(), known.target.parse().unwrap()));
        let on = RetryOn::GrpcCodes(vec![wanted]);
        let retry = Retry { max_retries: 1, max_request_bytes: 64 * 1024, on, timeout: None, backoff: None };
        routes[0].rules[0].does.retry = Some(retry);
        let protocol = ClientProtocol::Grpc { routes, breaker: None };
        mesh.control.set_outbound(known.addr, weft_model::ClientPolicy { meta, protocol });
        let mut client = mesh.http2(&known).await;
        // And one that none is about.
        for code in CONDITIONS.into_iter().chain([2]) {
            let before = origin.seen().requests.len();
            let request = Request::post(format!("http://app.ns/a.B/{code}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(http2::full("\0\0\0\0\0"));
            let response = soon(client.call(request.unwrap())).await.unwrap();
            assert_eq!(response.trailers.unwrap()["grpc-status"], code.to_string());
            let attempts = origin.seen().requests.len() - before;
            assert_eq!(attempts, if code == wanted { 2 } else { 1 }, "on {wanted}: {code}");
        }
    }
    let each = CONDITIONS.len() as f64;
    assert_eq!((counted_grpc(&mesh, "requests"), counted_grpc(&mesh, "limit_exceeded")), (each, each));
}

/// Where nobody is ready to be asked again the application gets the answer that there is.
#[tokio::test]
async fn who_is_gone_by_then_is_not_asked_again() {
    // Who waits for the endpoint at first is not asked again for that.
    let mesh = Mesh::with(&[("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "60s")], &[]).await;
    let gone = Arc::new(Notify::new());
    let wait = Arc::clone(&gone);
    let origin = http2::Origin::start(move |_| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            Ok(Response::builder().status(503).body(http2::full("busy"))?)
        }
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &known, |rule| rule.retry = Some(on(503..=503, 3)));
    let mut client = mesh.http2(&known).await;
    let call = tokio::spawn(async move { client.call(get()).await });
    origin.saw(|seen| seen.requests.len() == 1).await.unwrap();
    let ready = "outbound_http_balancer_p2c_endpoints{";
    mesh.web.reaches(ready, 1.0).await;
    mesh.control.set_endpoints(&known.target, vec![]);
    mesh.web.reaches(ready, 0.0).await;
    gone.notify_one();
    let answer = soon(call).await.unwrap().unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (503, &b"busy"[..]));
    assert_eq!(origin.seen().requests.len(), 1);
    assert_eq!((counted(&mesh, "overflow"), counted(&mesh, "requests")), (1.0, 0.0));
    assert_eq!((counted(&mesh, "successes"), counted(&mesh, "limit_exceeded")), (0.0, 0.0));
}

#[tokio::test]
async fn the_application_asks_by_headers_where_it_may() {
    const ASKED: &str = "l5d-retry-http: 503\r\nl5d-retry-limit: 2\r\nl5d-retry-grpc: internal\r\nl5d-retry-timeout: 10s\r\n\
                         l5d-timeout: 20s\r\nl5d-request-timeout: 20s\r\nl5d-response-timeout: 20s\r\n";
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::status(503, "No", "")).await.unwrap();
    for (allowed, attempts) in [(true, 3), (false, 1)] {
        for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
            let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
            ask(&mesh, &service, |rule| rule.allow_l5d_headers = allowed);
            let before = origin.seen().requests.len();
            let mut client = http1::Client::over(mesh.connect(&service).await);
            let request = format!("GET / HTTP/1.1\r\nHost: app.ns\r\n{ASKED}\r\n");
            let response = soon(client.call(request)).await.unwrap();
            assert_eq!(response.status(), Some(503));
            let requests = origin.seen().requests.split_off(before);
            assert_eq!(requests.len(), attempts, "{allowed} {hint:?}");
            for request in requests {
                for line in ASKED.lines() {
                    let (name, value) = line.split_once(": ").unwrap();
                    assert_eq!(request.header(name).as_deref(), (!allowed).then_some(value), "{hint:?}");
                }
            }
        }
    }
}

/// The same of a call of gRPC: by the names of the codes, once if it says no more.
#[tokio::test]
async fn the_application_asks_by_the_names_of_codes() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        let code: HeaderValue = request.uri().path().rsplit_once('/').map(|(_, code)| code.parse()).unwrap()?;
        http2::complete((), request.into_body()).await?;
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, code)]);
        let response = Response::builder().header("content-type", "application/grpc");
        Ok(response.body(http2::with_trailers("", trailers))?)
    })
    .await
    .unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let meta = service("ns", "app", 80);
    let mut routes = grpc_routes(balance(meta.clone(), known.target.parse().unwrap()));
    routes[0].rules[0].does.allow_l5d_headers = true;
    let protocol = ClientProtocol::Grpc { routes, breaker: None };
    mesh.control.set_outbound(known.addr, weft_model::ClientPolicy { meta, protocol });
    let mut client = mesh.http2(&known).await;
    for (asked, limit, code, attempts) in [
        ("internal", None, "13", 2),
        ("internal", None, "14", 1),
        ("unavailable,internal", Some("2"), "14", 3),
        ("cancelled,deadline-exceeded,resource-exhausted", Some("2"), "8", 3),
        ("what is that", Some("2"), "13", 1),
    ] {
        let before = origin.seen().requests.len();
        let mut request = Request::post(format!("http://app.ns/a.B/{code}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("l5d-retry-grpc", asked);
        if let Some(limit) = limit {
            request = request.header("l5d-retry-limit", limit);
        }
        let response = soon(client.call(request.body(http2::full("\0\0\0\0\0")).unwrap())).await.unwrap();
        assert_eq!(response.trailers.unwrap()["grpc-status"], code, "{asked}");
        let requests = origin.seen().requests.split_off(before);
        assert_eq!(requests.len(), attempts, "{asked}: {code}");
        assert!(requests.iter().all(|seen| !seen.headers.contains_key("l5d-retry-grpc")), "{asked}");
    }
    assert_eq!((counted_grpc(&mesh, "requests"), counted_grpc(&mesh, "limit_exceeded")), (5.0, 3.0));
    assert_eq!(counted_grpc(&mesh, "successes"), 0.0);
}

#[tokio::test]
async fn waits_lie_between_attempts() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::status(503, "No", "")).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let (min, max) = (Duration::from_millis(100), Duration::from_millis(150));
    ask(&mesh, &service, |rule| {
        let backoff = Some(weft_model::policy::outbound::Backoff { min, max, jitter: 0.0 });
        rule.retry = Some(Retry { backoff, ..on(503..=503, 3) });
    });
    let mut client = http1::Client::over(mesh.connect(&service).await);
    let begun = std::time::Instant::now();
    soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400), "100, 150 and 150 ms: {:?}", begun.elapsed());
}
