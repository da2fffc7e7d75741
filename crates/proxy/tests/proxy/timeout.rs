//! The four timeouts of a request, on each carrier.

use crate::{
    harness::{LONG, eventually, soon},
    mesh::{Mesh, Service, get},
    retry::ask,
};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};
use weft_model::{
    ProtocolHint,
    policy::outbound::{Retry, RetryOn, Timeouts},
};
use weft_testkit::{http1, http2};

const SHORT: Duration = Duration::from_millis(200);
const GET: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";

fn failures(mesh: &Mesh, code: &str) -> f64 {
    mesh.web.metric(&format!("weft_proxy_errors_total{{direction=\"outbound\",code=\"{code}\"}}"))
}

/// An HTTP/2 server that sends the beginning of a body, for `/head`; else nothing.
async fn stalling() -> http2::Origin {
    http2::Origin::start(|request| async move {
        if request.uri().path() != "/head" {
            std::future::pending::<()>().await;
        }
        let part = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"part")))]);
        let body = BodyExt::boxed(StreamBody::new(part.chain(futures_util::stream::pending())));
        Ok(Response::builder().header("content-type", "application/grpc").body(body)?)
    })
    .await
    .unwrap()
}

fn call(path: &str, content_type: &str) -> Request<http2::Body> {
    Request::post(format!("http://app.ns{path}")).header("content-type", content_type).body(http2::full("x")).unwrap()
}

fn timed(mesh: &Mesh, service: &Service, timeouts: Timeouts) {
    ask(mesh, service, |rule| rule.timeouts = timeouts);
}

#[tokio::test]
async fn before_the_head_it_is_a_504_and_the_connection_goes_on() {
    let mesh = Mesh::start().await;
    let cases = [
        ("REQUEST_TIMEOUT", "request timeout", Timeouts { request: Some(SHORT), ..Timeouts::default() }),
        ("RESPONSE_TIMEOUT", "response timeout", Timeouts { response: Some(SHORT), ..Timeouts::default() }),
        ("IDLE_TIMEOUT", "idle timeout", Timeouts { idle: Some(SHORT), ..Timeouts::default() }),
    ];
    let origin = http1::Origin::start(|_| http1::Reply::Hang).await.unwrap();
    let stalled = stalling().await;
    for (code, text, timeouts) in cases {
        for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
            let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
            timed(&mesh, &service, timeouts);
            let mut client = http1::Client::over(mesh.connect(&service).await);
            for request in [GET, "POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 1\r\n\r\nx", GET] {
                let response = soon(client.call(request)).await.unwrap();
                assert_eq!(
                    response.head_text(),
                    format!(
                        "HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\nl5d-proxy-error: {text} [{code}]\r\n\r\n"
                    ),
                    "{hint:?}"
                );
            }
        }
        assert_eq!(failures(&mesh, code), 6.0);
        let service = mesh.service(&[mesh.endpoint(stalled.addr(), ProtocolHint::H2)]);
        timed(&mesh, &service, timeouts);
        let mut client = mesh.http2(&service).await;
        for _ in 0..2 {
            let response = soon(client.call(get())).await.unwrap();
            assert_eq!(response.head.status, 504);
            assert_eq!(response.head.headers["l5d-proxy-error"], format!("{text} [{code}]"));
            let response = soon(client.call(call("/", "application/grpc"))).await.unwrap();
            assert_eq!(
                (response.head.status.as_u16(), &response.head.headers["grpc-status"]),
                (200, &"4".parse().unwrap())
            );
        }
        assert_eq!(failures(&mesh, code), 10.0);
    }
    mesh.web.reaches("outbound_http_errors_total{error=\"response timeout\"}", 30.0).await;
}

#[tokio::test]
async fn behind_the_head_the_response_is_seen_to_be_incomplete() {
    let mesh = Mesh::start().await;
    let cases = [
        ("REQUEST_TIMEOUT", Timeouts { request: Some(10 * SHORT), ..Timeouts::default() }),
        ("RESPONSE_TIMEOUT", Timeouts { response: Some(10 * SHORT), ..Timeouts::default() }),
        ("IDLE_TIMEOUT", Timeouts { idle: Some(10 * SHORT), ..Timeouts::default() }),
    ];
    for (code, timeouts) in cases {
        let mut calls = vec![];
        let mut origins = vec![];
        for head in ["content-length: 99", "transfer-encoding: chunked", "connection: close"] {
            let part = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n4\r\npart\r\n");
            let origin = http1::Origin::start(move |_| http1::Reply::Bytes(part.clone().into())).await.unwrap();
            let old = "GET / HTTP/1.0\r\n\r\n";
            for (hint, request) in [(ProtocolHint::Unknown, GET), (ProtocolHint::H2, GET), (ProtocolHint::H2, old)] {
                let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
                timed(&mesh, &service, timeouts);
                let mut client = http1::Client::over(mesh.connect(&service).await);
                calls.push(async move {
                    // However the end of this body is framed, the client must not take it for complete.
                    let error = format!("{:#}", soon(client.call(request)).await.unwrap_err());
                    assert!(error.contains("reset"), "{head} {hint:?} {request}: {error}");
                });
            }
            origins.push(origin);
        }
        futures_util::future::join_all(calls).await;
        assert_eq!(failures(&mesh, code), 9.0);
        let origin = stalling().await;
        let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        timed(&mesh, &service, timeouts);
        let mut client = mesh.http2(&service).await;
        assert!(soon(client.call(call("/head", "text/plain"))).await.is_err());
        let response = soon(client.call(call("/head", "application/grpc"))).await.unwrap();
        assert_eq!(
            (&response.body[..], &response.trailers.unwrap()["grpc-status"]),
            (&b"part"[..], &"4".parse().unwrap())
        );
        eventually("both are counted", || failures(&mesh, code) == 11.0).await;
    }
}

#[tokio::test]
async fn an_attempt_has_its_own_timeout() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| match request.first_line().contains("/slow") {
        true => http1::Reply::Hang,
        false => http1::Reply::ok("fast"),
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &service, |rule| {
        let on = RetryOn::Statuses(vec![]);
        rule.retry = Some(Retry { max_retries: 2, max_request_bytes: 2, on, timeout: Some(SHORT), backoff: None });
        rule.timeouts.request = Some(5 * SHORT);
    });
    let mut client = http1::Client::over(mesh.connect(&service).await);
    assert_eq!(soon(client.call(GET)).await.unwrap().body, b"fast");
    // Two attempts that are cut short, and one that is given what time there is.
    let response = soon(client.call("GET /slow HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert!(response.head_text().contains("[REQUEST_TIMEOUT]"), "{}", response.head_text());
    assert_eq!(origin.seen().requests.iter().filter(|r| r.first_line().contains("/slow")).count(), 3);
    // A body that is too long to be kept is sent once.
    let response =
        soon(client.call("POST /slow HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 3\r\n\r\nabc")).await.unwrap();
    assert!(response.head_text().contains("[RESPONSE_HEADERS_TIMEOUT]"), "{}", response.head_text());
    assert_eq!(failures(&mesh, "RESPONSE_HEADERS_TIMEOUT"), 1.0);
}

#[tokio::test]
async fn the_application_sets_its_own_where_it_may() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::Hang).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &service, |rule| {
        rule.allow_l5d_headers = true;
        rule.timeouts.request = Some(Duration::from_secs(3600));
    });
    let mut client = http1::Client::over(mesh.connect(&service).await);
    for (header, code) in [
        ("l5d-timeout: 200ms", "REQUEST_TIMEOUT"),
        ("l5d-timeout: 1h\r\nl5d-request-timeout: 200ms", "REQUEST_TIMEOUT"),
        ("l5d-timeout: soon\r\nl5d-response-timeout: 200ms", "RESPONSE_TIMEOUT"),
    ] {
        let response = soon(client.call(format!("GET / HTTP/1.1\r\nHost: app.ns\r\n{header}\r\n\r\n"))).await.unwrap();
        assert!(response.head_text().contains(code), "{header}: {}", response.head_text());
    }
    for request in origin.seen().requests {
        assert!(!request.head_text().to_lowercase().contains("timeout"), "{}", request.head_text());
    }
}

/// An attempt's own time may be the application's to say, too; without a policy of retries it asks for one by that.
#[tokio::test]
async fn the_application_sets_an_attempts_time_where_it_may() {
    let mesh = Mesh::start().await;
    for (allowed, hint) in [(true, ProtocolHint::Unknown), (true, ProtocolHint::H2), (false, ProtocolHint::H2)] {
        // Two that are not answered, then one that is.
        let asked = AtomicUsize::new(0);
        let origin = http1::Origin::start(move |_| match asked.fetch_add(1, Relaxed) {
            0 | 1 => http1::Reply::Hang,
            _ => http1::Reply::ok("late"),
        })
        .await
        .unwrap();
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        ask(&mesh, &service, |rule| {
            rule.allow_l5d_headers = allowed;
            // Whom it is not allowed waits for this.
            rule.timeouts.request = Some(if allowed { LONG } else { 10 * SHORT });
        });
        let mut client = http1::Client::over(mesh.connect(&service).await);
        let begun = Instant::now();
        let request = "GET / HTTP/1.1\r\nHost: app.ns\r\nl5d-retry-limit: 2\r\nl5d-retry-timeout: 200ms\r\n\r\n";
        let response = soon(client.call(request)).await.unwrap();
        let attempts = origin.seen().requests.len();
        if allowed {
            assert_eq!((response.status(), &response.body[..], attempts), (Some(200), &b"late"[..], 3), "{hint:?}");
            assert!(begun.elapsed() >= 2 * SHORT, "{:?}", begun.elapsed());
        } else {
            assert!(response.head_text().contains("[REQUEST_TIMEOUT]"), "{}", response.head_text());
            assert_eq!(attempts, 1);
        }
        let seen = origin.seen().requests.into_iter();
        let headers: Vec<_> = seen.map(|seen| seen.header("l5d-retry-timeout")).collect();
        assert_eq!(headers, vec![(!allowed).then(|| "200ms".to_owned()); attempts], "{hint:?}");
    }
    assert_eq!(failures(&mesh, "RESPONSE_HEADERS_TIMEOUT"), 0.0, "what is asked again is no failure");
}

/// How an attempt that took too long, and whose request cannot be sent again, stands in the metrics of its route.
#[tokio::test]
async fn an_attempt_that_is_the_only_one_is_told_from_a_request() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::Hang).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    ask(&mesh, &service, |rule| {
        let on = RetryOn::Statuses(vec![]);
        rule.retry = Some(Retry { max_retries: 2, max_request_bytes: 2, on, timeout: Some(SHORT), backoff: None });
    });
    let mut client = http1::Client::over(mesh.connect(&service).await);
    let long = "POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 3\r\n\r\nabc";
    let response = soon(client.call(long)).await.unwrap();
    assert!(response.head_text().contains("[RESPONSE_HEADERS_TIMEOUT]"), "{}", response.head_text());
    let counted = || {
        let text = mesh.web.metrics();
        let of_route = text.lines().filter(|l| l.starts_with("outbound_http_route_request_statuses_total{"));
        of_route.filter_map(|line| Some(line.split_once(",http_status=")?.1.to_owned())).collect::<Vec<_>>()
    };
    eventually("the request has ended", || !counted().is_empty()).await;
    assert_eq!(counted(), ["\"\",error=\"RESPONSE_HEADERS_TIMEOUT\"} 1"]);
}
