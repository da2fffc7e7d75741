//! Filters of routes and backends in both directions and in every framing: what the other side sees of them, byte for byte
//! where HTTP/1 is spoken.

use crate::{
    harness::{Proxy, eventually, soon},
    mesh::{Mesh, Service, get, naming},
};
use http::{HeaderMap, Request, Response};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};
use weft_model::{
    ClientPolicy, Endpoint, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        outbound::{ClientProtocol, Distribution, OutboundRule, Retry, RetryOn, RouteBackend},
        route::{Filter, GrpcRoute, HeaderEdits, HttpMatch, PathMatch, PathReplacement, Ratio, Redirect, Rule},
    },
};
use weft_testkit::{
    http1, http2,
    policy::{balance, detect, inbound, outbound_rule, service},
};

const ALWAYS: Ratio = Ratio { numerator: 1, denominator: 1 };

fn edits(add: &[(&str, &str)], set: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
    let owned = |all: &[(&str, &str)]| all.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
    HeaderEdits { add: owned(add), set: owned(set), remove: remove.iter().map(|name| (*name).to_owned()).collect() }
}

fn failing(status: u16, ratio: Ratio) -> Filter {
    Filter::HttpFailure { status, message: "on purpose".to_owned(), ratio }
}

/// The policy of a service, with its rule changed for both versions of HTTP.
fn outbound(known: &Service, change: impl Fn(&mut Rule<HttpMatch, OutboundRule>)) -> ClientPolicy {
    let meta = service("ns", "app", 80);
    let mut policy = detect(meta.clone(), balance(meta, known.target.parse().unwrap()));
    if let ClientProtocol::Detect { http1, http2, .. } = &mut policy.protocol {
        for routes in [http1, http2] {
            change(&mut routes.routes[0].rules[0]);
        }
    }
    policy
}

fn inbound_with(change: impl Fn(&mut Rule<HttpMatch, InboundRule>)) -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    if let ServerProtocol::Detect { routes, .. } = &mut policy.protocol {
        change(&mut routes[0].rules[0]);
    }
    policy
}

fn backends(rule: &mut Rule<HttpMatch, OutboundRule>) -> &mut Vec<RouteBackend> {
    match &mut rule.does.backends {
        Distribution::FirstAvailable(all) => all,
        other => panic!("{other:?}"),
    }
}

fn code(proxy: &Proxy, direction: &str, code: &str) -> f64 {
    proxy.metric(&format!("weft_proxy_errors_total{{direction=\"{direction}\",code=\"{code}\"}}"))
}

/// The values of each header, sorted by name.
fn fields(headers: &HeaderMap, names: &[&str]) -> Vec<String> {
    names
        .iter()
        .flat_map(|name| headers.get_all(*name).iter().map(move |v| format!("{name}: {}", v.to_str().unwrap())))
        .collect()
}

fn lines(message: &http1::Message, names: &[&str]) -> Vec<String> {
    names.iter().flat_map(|name| message.headers(name).into_iter().map(move |v| format!("{name}: {v}"))).collect()
}

const EDITED: [&str; 5] = ["x-add", "x-set", "x-gone", "x-own", "cookie"];
const ASKED: [&str; 6] = ["x-add: 1", "x-add: 2", "x-add: 3", "x-set: s", "x-own: o", "cookie: a=1"];
const ANSWERED: [&str; 4] = ["x-add: 1", "x-add: b", "x-set: r", "x-own: o"];

/// The rule edits, then its backend; of a response the backend first.
fn edit(rule: &mut Rule<HttpMatch, OutboundRule>) {
    rule.filters = vec![
        Filter::RequestHeaders(edits(&[("x-add", "2")], &[("x-set", "rule")], &["x-gone"])),
        Filter::ResponseHeaders(edits(&[], &[("x-set", "r")], &["x-gone"])),
    ];
    backends(rule)[0].filters = vec![
        Filter::RequestHeaders(edits(&[("x-add", " 3 ")], &[("x-set", "s")], &[])),
        Filter::ResponseHeaders(edits(&[("x-add", "b"), ("x-gone", "b")], &[("x-set", "backend")], &[])),
    ];
}

const HTTP1: &str = "GET /a HTTP/1.1\r\nHost: app.ns\r\nX-Add: 1\r\nX-Set: 0\r\nX-Set: 00\r\nX-Gone: 1\r\nx-own: o\r\nCookie: a=1\r\n\r\n";

fn http2_request() -> Request<http2::Body> {
    let mut request = Request::get("http://app.ns/a");
    for (name, value) in
        [("x-add", "1"), ("x-set", "0"), ("x-set", "00"), ("x-gone", "1"), ("x-own", "o"), ("cookie", "a=1")]
    {
        request = request.header(name, value);
    }
    request.body(http2::full("")).unwrap()
}

/// Answers with headers that are edited.
async fn http1_origin() -> http1::Origin {
    http1::Origin::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nX-Add: 1\r\nX-Set: 0\r\nX-Gone: 1\r\nX-Own: o\r\nContent-Length: 2\r\n\r\nok";
        http1::Reply::Bytes(head.as_bytes().to_vec())
    })
    .await
    .unwrap()
}

async fn http2_origin() -> http2::Origin {
    http2::Origin::start(|request| async move {
        http2::complete((), request.into_body()).await?;
        let mut response = Response::builder();
        for (name, value) in [("x-add", "1"), ("x-set", "0"), ("x-gone", "1"), ("x-own", "o")] {
            response = response.header(name, value);
        }
        Ok(response.body(http2::full("ok"))?)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn headers_are_edited_on_http1() {
    let mesh = Mesh::start().await;
    let origin = http1_origin().await;
    // Without the mesh, on HTTP/1 between the proxies, and carried on HTTP/2.
    let hops = [
        Endpoint::plain(origin.addr()),
        mesh.endpoint(origin.addr(), ProtocolHint::Unknown),
        mesh.endpoint(origin.addr(), ProtocolHint::H2),
    ];
    for endpoint in hops {
        let known = mesh.service(std::slice::from_ref(&endpoint));
        mesh.control.set_outbound(known.addr, outbound(&known, edit));
        let mut client = http1::Client::over(mesh.connect(&known).await);
        for _ in 0..2 {
            let before = origin.seen().requests.len();
            let response = soon(client.call(HTTP1)).await.unwrap();
            assert_eq!((response.status(), &response.body[..]), (Some(200), &b"ok"[..]));
            assert_eq!(lines(&response, &EDITED), ANSWERED, "{}", response.head_text());
            assert_eq!(response.header("content-length").as_deref(), Some("2"));
            let request = &origin.seen().requests[before];
            assert_eq!(lines(request, &EDITED), ASKED, "{endpoint:?} {}", request.head_text());
            assert_eq!(request.header("host").as_deref(), Some("app.ns"));
        }
    }
}

#[tokio::test]
async fn headers_are_edited_on_http2() {
    let mesh = Mesh::start().await;
    let origin = http2_origin().await;
    for endpoint in [Endpoint::plain(origin.addr()), mesh.endpoint(origin.addr(), ProtocolHint::H2)] {
        let known = mesh.service(std::slice::from_ref(&endpoint));
        mesh.control.set_outbound(known.addr, outbound(&known, edit));
        let response = soon(mesh.http2(&known).await.call(http2_request())).await.unwrap();
        assert_eq!(response.head.status, 200);
        assert_eq!(fields(&response.head.headers, &EDITED), ANSWERED);
        assert_eq!(fields(&origin.seen().requests.last().unwrap().headers, &EDITED), ASKED, "{endpoint:?}");
    }
}

/// The first requests may find the default policy, which edits nothing.
#[tokio::test]
async fn headers_are_edited_on_the_servers_side_and_what_names_the_client_stays() {
    let mesh = Mesh::start().await;
    let (old, new) = (http1_origin().await, http2_origin().await);
    let policy = inbound_with(|rule| {
        rule.filters = vec![
            Filter::RequestHeaders(edits(&[("x-add", "2")], &[("x-set", "s")], &[])),
            Filter::RequestHeaders(edits(&[("x-add", "3")], &[], &["x-gone"])),
        ];
    });
    let first = [
        mesh.service(&[mesh.endpoint(old.addr(), ProtocolHint::Unknown)]),
        mesh.service(&[mesh.endpoint(old.addr(), ProtocolHint::H2)]),
    ];
    mesh.control.set_inbound(old.addr().port(), policy.clone());
    for known in &first {
        let mut client = http1::Client::over(mesh.connect(known).await);
        let request = loop {
            let forging = HTTP1.replace("Cookie:", "l5d-client-id: forged\r\nCookie:");
            soon(client.call(forging)).await.unwrap();
            let request = origin_last(&old);
            if request.header("x-gone").is_none() {
                break request;
            }
        };
        assert_eq!(lines(&request, &EDITED), ASKED, "{}", request.head_text());
        assert_eq!(request.headers("l5d-client-id"), [mesh.web.identity().as_str()]);
    }

    let known = mesh.service(&[mesh.endpoint(new.addr(), ProtocolHint::H2)]);
    mesh.control.set_inbound(new.addr().port(), policy);
    let mut client = mesh.http2(&known).await;
    let seen = loop {
        soon(client.call(http2_request())).await.unwrap();
        let seen = new.seen().requests.last().unwrap().clone();
        if !seen.headers.contains_key("x-gone") {
            break seen;
        }
    };
    assert_eq!(fields(&seen.headers, &EDITED), ASKED);
    assert_eq!(fields(&seen.headers, &["l5d-client-id"]), [format!("l5d-client-id: {}", mesh.web.identity())]);
}

fn origin_last(origin: &http1::Origin) -> http1::Message {
    origin.seen().requests.last().unwrap().clone()
}

fn redirecting(redirect: Redirect) -> impl Fn(&mut Rule<HttpMatch, OutboundRule>) {
    move |rule| {
        let prefix = Some(PathMatch::Prefix("/old".to_owned()));
        rule.matches = vec![HttpMatch { path: prefix, ..HttpMatch::default() }];
        rule.filters = vec![Filter::Redirect(redirect.clone())];
    }
}

#[tokio::test]
async fn redirects_are_answered_on_a_connection_that_goes_on() {
    let mesh = Mesh::start().await;
    let origin = http1_origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let path = Some(PathReplacement::Prefix("/new".to_owned()));
    let redirect = Redirect { path, ..Redirect::default() };
    mesh.control.set_outbound(known.addr, outbound(&known, redirecting(redirect.clone())));

    let mut client = http1::Client::over(mesh.connect(&known).await);
    let response = soon(client.call("GET /old/a?q=1 HTTP/1.1\r\nHost: app.ns:8080\r\n\r\n")).await.unwrap();
    assert_eq!(
        response.head_text(),
        "HTTP/1.1 301 Moved Permanently\r\ncontent-length: 0\r\nlocation: http://app.ns:8080/new/a?q=1\r\n\
         l5d-proxy-error: redirected [REDIRECT]\r\n\r\n"
    );
    let absolute = soon(client.call("GET http://other/old HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(absolute.header("location").as_deref(), Some("http://other/new"));
    // Neither of HTTP/1.0 nor without any name of the server is there an authority.
    let mut old = http1::Client::over(mesh.connect(&known).await);
    let response = soon(old.call("GET /old HTTP/1.0\r\n\r\n")).await.unwrap();
    assert_eq!(response.header("location"), Some(format!("http://{}/new", known.addr)));
    let unmatched = soon(client.call("GET /older HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(unmatched.status(), Some(404), "a prefix is of whole segments");

    let mut client = mesh.http2(&known).await;
    let request = Request::post("http://app.ns/old/a").body(http2::full("body"));
    let response = soon(client.call(request.unwrap())).await.unwrap();
    assert_eq!(
        (response.head.status.as_u16(), &response.head.headers["location"]),
        (301, &"http://app.ns/new/a".parse().unwrap())
    );
    let request = Request::post("http://app.ns/old/a").header("content-type", "application/grpc").body(http2::full(""));
    let response = soon(client.call(request.unwrap())).await.unwrap();
    assert_eq!((response.head.status.as_u16(), &response.head.headers["grpc-status"]), (200, &"5".parse().unwrap()));
    assert!(!response.head.headers.contains_key("location"));

    assert_eq!(origin.seen().requests.len(), 0);
    assert_eq!(code(&mesh.web, "outbound", "REDIRECT"), 5.0);
    mesh.web.reaches("outbound_http_route_request_statuses_total{", 5.0).await;
    assert_eq!(mesh.web.metric("request_total{") + mesh.web.metric("outbound_http_errors_total{"), 0.0);

    // Where it leads to itself, the request goes on.
    let itself = Redirect { path: Some(PathReplacement::Full("/old".to_owned())), ..Redirect::default() };
    mesh.control.set_outbound(known.addr, outbound(&known, redirecting(itself)));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    loop {
        match soon(client.call("GET /old HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap().status() {
            Some(200) => break,
            other => assert_eq!(other, Some(301), "the old policy"),
        }
    }
    assert_eq!(origin_last(&origin).first_line(), "GET /old HTTP/1.1");
    let response = soon(client.call("GET /old/er HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(response.header("location").as_deref(), Some("http://app.ns/old"));
}

#[tokio::test]
async fn a_servers_redirect_reaches_the_client() {
    let mesh = Mesh::start().await;
    let origin = http1_origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let redirect = Redirect { scheme: Some("https".to_owned()), status: Some(308), ..Redirect::default() };
    let policy = inbound_with(move |rule| rule.filters = vec![Filter::Redirect(redirect.clone())]);
    mesh.control.set_inbound(origin.addr().port(), policy);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    let response = loop {
        let response = soon(client.call("GET /a?b HTTP/1.1\r\nHost: app.ns:80\r\n\r\n")).await.unwrap();
        if response.status() != Some(200) {
            break response;
        }
    };
    assert_eq!(response.first_line(), "HTTP/1.1 308 Permanent Redirect");
    assert_eq!(response.header("location").as_deref(), Some("https://app.ns/a?b"));
    assert_eq!(response.header("l5d-proxy-error"), None, "what the server's proxy says is for the client's proxy");
    assert_eq!(code(&mesh.app, "inbound", "REDIRECT"), 1.0);
    assert_eq!(mesh.app.metric("inbound_http_errors_total{"), 0.0);
}

/// However often it is sent: each attempt that is drawn for anew would fail more of the requests than the policy says.
#[tokio::test]
async fn what_fails_a_share_at_a_backend_is_drawn_once_per_request() {
    const REQUESTS: usize = 100;
    let mesh = Mesh::start().await;
    let answered = AtomicUsize::new(0);
    let origin = http1::Origin::start(move |_| match answered.fetch_add(1, Relaxed) % 4 {
        3 => http1::Reply::ok("done"),
        _ => http1::Reply::status(503, "Busy", ""),
    });
    let origin = origin.await.unwrap();
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let policy = outbound(&known, |rule| {
        let half = Ratio { numerator: 1, denominator: 2 };
        backends(rule)[0].filters = vec![failing(418, half)];
        let on = RetryOn::Statuses(vec![503..=503]);
        rule.does.retry = Some(Retry { max_retries: 3, max_request_bytes: 1024, on, timeout: None, backoff: None });
    });
    mesh.control.set_outbound(known.addr, policy);
    let mut client = http1::Client::over(mesh.connect(&known).await);
    let mut passed = 0;
    for _ in 0..REQUESTS {
        let response = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        passed += usize::from(response.status() == Some(200));
    }
    // Half of them; drawn for each of its attempts, one in sixteen would.
    assert!((25..75).contains(&passed), "{passed} of {REQUESTS}");
}

#[tokio::test]
async fn failures_are_injected_and_reach_no_server() {
    let mesh = Mesh::start().await;
    let origin = http2_origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_outbound(known.addr, outbound(&known, |rule| rule.filters = vec![failing(418, ALWAYS)]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for _ in 0..2 {
        let response =
            soon(client.call("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 1\r\n\r\nx")).await.unwrap();
        assert_eq!(
            response.head_text(),
            "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\nl5d-proxy-error: on purpose [FAULT_INJECTED]\r\n\r\n"
        );
    }
    let mut client = mesh.http2(&known).await;
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 418);
    let grpc = Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc").body(http2::full(""));
    let response = soon(client.call(grpc.unwrap())).await.unwrap();
    assert_eq!(
        fields(&response.head.headers, &["grpc-status", "grpc-message"]),
        ["grpc-status: 9", "grpc-message: on purpose [FAULT_INJECTED]"]
    );
    assert_eq!(origin.seen().requests.len(), 0);
    assert_eq!(code(&mesh.web, "outbound", "FAULT_INJECTED"), 4.0);
    mesh.web.reaches("outbound_http_route_request_statuses_total{", 4.0).await;
    assert_eq!(mesh.web.metric("request_total{") + mesh.web.metric("outbound_http_errors_total{"), 0.0);

    // No share, no failure; half of them, both.
    let half = |numerator| failing(503, Ratio { numerator, denominator: 2 });
    mesh.control.set_outbound(known.addr, outbound(&known, |rule| rule.filters = vec![half(0)]));
    while soon(client.call(get())).await.unwrap().head.status != 200 {}
    for _ in 0..20 {
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    }
    mesh.control.set_outbound(known.addr, outbound(&known, |rule| rule.filters = vec![half(1)]));
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        seen.insert(soon(client.call(get())).await.unwrap().head.status.as_u16());
    }
    assert_eq!(seen, BTreeSet::from([200, 503]));
}

/// A status without a body has no length either, and a CONNECT that succeeds leaves HTTP.
#[tokio::test]
async fn injected_statuses_keep_the_framing() {
    let mesh = Mesh::start().await;
    let origin = http1_origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    mesh.control.set_outbound(known.addr, outbound(&known, |rule| rule.filters = vec![failing(204, ALWAYS)]));
    let mut client = http1::Client::over(mesh.connect(&known).await);
    for request in ["HEAD /a HTTP/1.1\r\nHost: app.ns\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: app.ns\r\n\r\n"] {
        let response = soon(client.call(request)).await.unwrap();
        assert_eq!(response.first_line(), "HTTP/1.1 204 No Content");
        assert_eq!(response.headers("content-length"), [] as [&str; 0]);
    }
    soon(client.send("CONNECT app.ns:80 HTTP/1.1\r\nHost: app.ns:80\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"))
        .await
        .unwrap();
    let all = String::from_utf8(soon(client.rest()).await.unwrap()).unwrap();
    assert_eq!(all.matches("HTTP/1.1").count(), 1, "what follows is not answered: {all}");
    assert!(all.contains("connection: close\r\n"), "{all}");
    assert_eq!(origin.seen().requests.len(), 0);
}

#[tokio::test]
async fn a_backend_has_filters_of_its_own() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let policy = outbound(&known, |rule| {
        let good = backends(rule)[0].clone();
        let mut bad = good.clone();
        bad.filters = vec![failing(599, ALWAYS)];
        let mut moved = good.clone();
        moved.filters = vec![Filter::Redirect(Redirect { host: Some("other.ns".to_owned()), ..Redirect::default() })];
        rule.does.backends = Distribution::RandomAvailable(vec![(good, 1), (bad, 1), (moved, 1)]);
    });
    mesh.control.set_outbound(known.addr, policy);
    let mut client = mesh.http2(&known).await;
    let mut seen = BTreeSet::new();
    let mut served = 0;
    while seen.len() < 3 {
        let response = soon(client.call(get())).await.unwrap();
        served += usize::from(response.head.status == 200);
        let location = response.head.headers.get("location").map(|value| value.to_str().unwrap().to_owned());
        seen.insert((response.head.status.as_u16(), location));
    }
    let moved = (301, Some("http://other.ns/".to_owned()));
    assert_eq!(seen, BTreeSet::from([(200, None), (599, None), moved]));
    assert_eq!(origin.seen().requests.len(), served);
}

/// Linkerd's inbound side answers these with 500; ours says what was asked.
#[tokio::test]
async fn a_servers_injected_failure_keeps_its_status() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let policy = inbound_with(|rule| rule.filters = vec![failing(429, ALWAYS)]);
    mesh.control.set_inbound(origin.addr().port(), policy);
    let mut client = mesh.http2(&known).await;
    let mut last = 200;
    while last == 200 {
        last = soon(client.call(get())).await.unwrap().head.status.as_u16();
    }
    assert_eq!(last, 429);
    let before = origin.seen().requests.len();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 429);
    assert_eq!(origin.seen().requests.len(), before);
    assert_eq!(code(&mesh.app, "inbound", "FAULT_INJECTED"), 2.0);
    assert_eq!(mesh.app.metric("inbound_http_errors_total{"), 0.0);
    eventually("the client's side counts it as what it is", || {
        let metrics = mesh.web.handle().metrics();
        metrics
            .lines()
            .any(|l| l.starts_with("response_total{") && l.contains("status_code=\"429\",classification=\"success\""))
    })
    .await;
}

#[tokio::test]
async fn grpc_routes_have_filters_too() {
    let mesh = Mesh::start().await;
    let origin = http2_origin().await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let meta = service("ns", "app", 80);
    let rule = |service: &str, filters| Rule {
        matches: vec![weft_model::policy::route::GrpcMatch { service: service.to_owned(), ..Default::default() }],
        filters,
        does: outbound_rule(balance(meta.clone(), known.target.parse().unwrap())),
    };
    let failure = Filter::GrpcFailure { code: 14, message: "50% of it".to_owned(), ratio: ALWAYS };
    let change = Filter::RequestHeaders(edits(&[("x-add", "2"), ("x-add", "3")], &[("x-set", "s")], &["x-gone"]));
    let rules = vec![rule("a.B", vec![change]), rule("a.Broken", vec![failure])];
    let routes = vec![GrpcRoute { meta: meta.clone(), hosts: vec![], rules }];
    let protocol = ClientProtocol::Grpc { routes, breaker: None };
    mesh.control.set_outbound(known.addr, ClientPolicy { meta: meta.clone(), protocol });
    let mut client = mesh.http2(&known).await;
    let request = |path: &str, content: &str| {
        let (mut head, body) = http2_request().into_parts();
        head.method = http::Method::POST;
        head.uri = format!("http://app.ns{path}").parse().unwrap();
        head.headers.insert("content-type", content.parse().unwrap());
        Request::from_parts(head, body)
    };
    assert_eq!(soon(client.call(request("/a.B/C", "application/grpc"))).await.unwrap().head.status, 200);
    assert_eq!(fields(&origin.seen().requests[0].headers, &EDITED), ASKED);
    let response = soon(client.call(request("/a.Broken/C", "application/grpc+proto"))).await.unwrap();
    assert_eq!(response.head.status, 200);
    let told = fields(&response.head.headers, &["grpc-status", "grpc-message"]);
    assert_eq!(told, ["grpc-status: 14", "grpc-message: 50%25 of it [FAULT_INJECTED]"]);
    // Who does not speak gRPC would take 200 for a success.
    let response = soon(client.call(request("/a.Broken/C", "text/plain"))).await.unwrap();
    assert_eq!(response.head.status, 503);
    assert_eq!(origin.seen().requests.len(), 1);
}

#[tokio::test]
async fn filters_that_would_break_a_message_are_refused_by_name() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let known = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let cases = [
        (
            Filter::RequestHeaders(edits(&[], &[("host", "other")], &[])),
            "request headers of the connection or the mesh: host",
        ),
        (
            Filter::ResponseHeaders(edits(&[("transfer-encoding", "chunked")], &[], &[])),
            "or the mesh: transfer-encoding",
        ),
        (Filter::RequestHeaders(edits(&[], &[("l5d-client-id", "admin")], &[])), "or the mesh: l5d-client-id"),
        (failing(101, ALWAYS), "filter that fails HTTP requests with status 101"),
        (
            Filter::Redirect(Redirect { status: Some(204), ..Redirect::default() }),
            "filter that redirects with status 204",
        ),
    ];
    for (filter, expected) in cases {
        mesh.control.set_outbound(known.addr, outbound(&known, |rule| rule.filters = vec![filter.clone()]));
        let start = std::time::Instant::now();
        loop {
            let mut client = http1::Client::over(mesh.connect(&known).await);
            let response = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
            assert_eq!(response.status(), Some(500));
            let text = response.header("l5d-proxy-error").unwrap();
            if text.ends_with(&format!("{expected} [POLICY_UNSUPPORTED]")) {
                break;
            }
            assert!(start.elapsed() < crate::harness::LONG, "{text}");
        }
    }
    assert_eq!(origin.seen().requests.len(), 0);
}
