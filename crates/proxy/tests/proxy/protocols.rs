//! What a port or a target speaks by its policy (data plane 3.4, 4.2), from strangers and from the mesh, and what detection counts.

use crate::{
    harness::{LONG, eventually, soon},
    inbound::client_hello,
    mesh::{Mesh, Service, get, naming, shouting},
};
use http::{HeaderMap, Request, Response};
use std::{net::SocketAddr, time::Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_model::{
    ClientPolicy, Endpoint, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::{Backend, ClientProtocol},
        route::{GrpcMatch, GrpcRoute, Rule},
    },
};
use weft_testkit::{
    frames::PREFACE,
    http1, http2,
    policy::{balance, grpc_routes, http_routes, inbound, service},
};

fn speaking(protocol: ServerProtocol, name: &str) -> ServerPolicy {
    let mut policy = inbound(DefaultPolicy::AllUnauthenticated);
    policy.meta = service("ns", name, 0);
    policy.protocol = protocol;
    policy
}

/// Publishes a policy under a name of its own and waits until the proxy serves by it.
async fn known(mesh: &Mesh, addr: SocketAddr, protocol: ServerProtocol, name: &str) {
    mesh.control.set_inbound(addr.port(), speaking(protocol, name));
    let start = Instant::now();
    while !mesh.app.handle().metrics().contains(&format!("srv_name=\"{name}\"")) {
        assert!(start.elapsed() < LONG);
        let mut tcp = mesh.app.connect_inbound(addr).await;
        // A part of a preface: it is neither bytes nor a request, and ends.
        let _ = tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn http1() -> ServerProtocol {
    ServerProtocol::Http1 { routes: vec![], rate_limit: None }
}

fn http2() -> ServerProtocol {
    ServerProtocol::Http2 { routes: vec![], rate_limit: None }
}

fn grpc() -> ServerProtocol {
    let rule = Rule { matches: vec![GrpcMatch::default()], filters: vec![], does: Default::default() };
    ServerProtocol::Grpc { routes: vec![GrpcRoute { meta: service("ns", "rpc", 0), hosts: vec![], rules: vec![rule] }] }
}

/// What a stranger gets for these bytes, up to the end.
async fn answer(mesh: &Mesh, addr: SocketAddr, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&said(mesh.app.connect_inbound(addr).await, bytes).await).into_owned()
}

/// The same over any connection. Who is refused may be reset while it writes.
async fn said(mut tcp: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let _ = tcp.write_all(bytes).await;
    let _ = tcp.shutdown().await;
    let mut answer = vec![];
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    answer
}

/// A target of this name whose policy says what it speaks, with one endpoint.
fn target(mesh: &Mesh, name: &str, endpoint: Endpoint, speaks: impl FnOnce(Backend) -> ClientProtocol) -> Service {
    let known = mesh.service(&[endpoint]);
    let meta = service("ns", name, 80);
    let protocol = speaks(balance(meta.clone(), known.target.parse().unwrap()));
    mesh.control.set_outbound(known.addr, ClientPolicy { meta, protocol });
    known
}

/// Waits until so many connections to the target of this name are counted under `protocol`; there are no others, and nothing was
/// looked for.
async fn declared(mesh: &Mesh, name: &str, protocol: &str, connections: f64) {
    let parent =
        format!("parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",parent_name=\"{name}\"");
    let family = "outbound_tcp_protocol_connections_total{";
    mesh.web.reaches(&format!("{family}protocol=\"{protocol}\",{parent}"), connections).await;
    let text = mesh.web.metrics();
    let lines = |family: &str| text.lines().filter(|l| l.starts_with(family) && l.contains(&parent)).count();
    assert_eq!((lines(family), lines("outbound_tcp_detect_http_results_total{")), (1, 0), "{name}: {text}");
}

#[tokio::test]
async fn declared_http1_is_not_looked_for_but_from_the_mesh() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    known(&mesh, origin.addr(), http1(), "declared").await;
    let ask = async |bytes: &str| {
        let mut client = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
        soon(client.call(bytes)).await.unwrap()
    };
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.body, b"one");
    assert_eq!(ask("\0\u{1}\r\n\r\n").await.status(), Some(400), "it is HTTP all the same");
    // A client's proxy may carry HTTP/1 on HTTP/2.
    let mut client = http1::Client::over(mesh.connect(&service).await);
    let carried = soon(client.call("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    assert_eq!(carried.status(), Some(200));
    let detected = "inbound_tcp_detect_http_results_total{";
    let text = mesh.app.handle().metrics();
    assert!(
        !text.lines().any(|l| l.starts_with(detected) && l.contains("\"declared\"")),
        "direct: the session is named"
    );
}

#[tokio::test]
async fn declared_http2_and_grpc_take_nothing_else() {
    let mesh = Mesh::start().await;
    let origin = naming("two").await;
    for (protocol, name, statuses) in [(http2(), "declared", [200, 200]), (grpc(), "rpcs", [404, 200])] {
        known(&mesh, origin.addr(), protocol, name).await;
        let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
        let call = Request::post("http://app.ns/a.B/C").body(http2::full("")).unwrap();
        for (request, status) in [get(), call].into_iter().zip(statuses) {
            assert_eq!(soon(client.call(request)).await.unwrap().head.status.as_u16(), status, "{name}");
        }
        let before = origin.seen().requests.len();
        let old = answer(&mesh, origin.addr(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(!old.starts_with("HTTP/1.1 2"), "{name}: {old}");
        assert_eq!(origin.seen().requests.len(), before);
    }
}

#[tokio::test]
async fn opaque_and_tls_pass_bytes_under_the_policy() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(std::net::Ipv4Addr::LOCALHOST.into()).await;
    for (protocol, name, reason) in
        [(ServerProtocol::Opaque, "opaque", "port_skipped"), (ServerProtocol::Tls, "tls", "no_tls_from_remote")]
    {
        known(&mesh, addr, protocol, name).await;
        assert_eq!(
            answer(&mesh, addr, b"get / http/1.1\r\n\r\n").await,
            "hello\nGET / HTTP/1.1\r\n\r\nbye\n",
            "{name}"
        );
        let counted = |l: &str| {
            l.starts_with("inbound_tcp_authz_allow_total{")
                && l.contains(&format!("srv_name=\"{name}\""))
                && l.contains(&format!("no_tls_reason=\"{reason}\""))
        };
        eventually("it is counted", || mesh.app.handle().metrics().lines().any(counted)).await;
    }
    // Of a port declared to speak TLS that is not the mesh's, the hello says to whom; it goes on as it came.
    let hello = client_hello("db.example");
    let told = said(mesh.app.connect_inbound(addr).await, &hello).await;
    assert_eq!(told, [b"hello\n", &hello.to_ascii_uppercase()[..], b"bye\n"].concat());
    let series = format!(
        "inbound_tcp_authz_allow_total{{srv_group=\"core\",srv_kind=\"Service\",srv_name=\"tls\",srv_port=\"{port}\",\
         authz_group=\"\",authz_kind=\"default\",authz_name=\"all-unauthenticated\",target_addr=\"{addr}\",\
         target_ip=\"127.0.0.1\",target_port=\"{port}\",tls=\"opaque\",sni=\"db.example\"}}",
        port = addr.port()
    );
    mesh.app.reaches(&series, 1.0).await;
    assert_eq!(mesh.app.metric("request_total{direction=\"inbound\""), 0.0);
    server.abort();
}

#[tokio::test]
async fn a_target_declared_http1_is_taken_at_its_word() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok("one")).await.unwrap();
    // Between the proxies on HTTP/1, and carried on HTTP/2.
    for (name, hint) in [("one", ProtocolHint::Unknown), ("carried", ProtocolHint::H2)] {
        let http1 = |to| ClientProtocol::Http1(http_routes(to));
        let known = target(&mesh, name, mesh.endpoint(origin.addr(), hint), http1);
        let before = origin.seen().requests.len();
        let mut client = http1::Client::over(mesh.connect(&known).await);
        for path in ["/a?b=%20c", "/d"] {
            let answered =
                soon(client.call(format!("POST {path} HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 3\r\n\r\nask")))
                    .await;
            let answered = answered.unwrap();
            assert_eq!(
                (answered.first_line().as_str(), &answered.body[..]),
                ("HTTP/1.1 200 OK", &b"one"[..]),
                "{name}"
            );
            let seen = origin.seen().requests.pop().unwrap();
            assert_eq!((seen.first_line(), &seen.body[..]), (format!("POST {path} HTTP/1.1"), &b"ask"[..]), "{name}");
            assert_eq!(seen.header("host").as_deref(), Some("app.ns"), "{name}");
        }
        for wrong in [PREFACE, b"\0\x01\r\n\r\n"] {
            let told = String::from_utf8(said(mesh.connect(&known).await, wrong).await).unwrap();
            assert!(told.starts_with("HTTP/1.1 400 "), "{name}: {told}");
        }
        assert_eq!(origin.seen().requests.len(), before + 2, "{name}");
        declared(&mesh, name, "http/1", 3.0).await;
    }
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"BAD_REQUEST\"}", 4.0).await;
}

#[tokio::test]
async fn targets_declared_http2_and_grpc_take_nothing_else() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        let asked = http2::complete((), request.into_body()).await?;
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, "0".parse()?)]);
        Ok(Response::new(http2::with_trailers(asked.body, trailers)))
    });
    let origin = origin.await.unwrap();
    let http2 = |to| ClientProtocol::Http2(http_routes(to));
    let grpc = |to| {
        let mut routes = grpc_routes(to);
        routes[0].rules[0].matches = vec![GrpcMatch { service: "a.B".to_owned(), ..GrpcMatch::default() }];
        ClientProtocol::Grpc { routes, breaker: None }
    };
    let endpoint = || mesh.endpoint(origin.addr(), ProtocolHint::H2);
    for (name, known, statuses) in [
        ("two", target(&mesh, "two", endpoint(), http2), [200, 200]),
        ("rpc", target(&mesh, "rpc", endpoint(), grpc), [404, 200]),
    ] {
        let mut client = mesh.http2(&known).await;
        let call = Request::post("http://app.ns/a.B/C").header("content-type", "application/grpc");
        for (request, status) in [get(), call.body(http2::full("ask")).unwrap()].into_iter().zip(statuses) {
            let calls = request.method() == http::Method::POST;
            let answered = soon(client.call(request)).await.unwrap();
            assert_eq!(answered.head.status, status, "{name}");
            if calls {
                assert_eq!(
                    (&answered.body[..], &answered.trailers.unwrap()["grpc-status"]),
                    (&b"ask"[..], &"0".parse().unwrap()),
                    "{name}"
                );
            }
        }
        let seen =
            || (origin.seen().requests.len(), mesh.web.metric("tcp_open_total{direction=\"outbound\",peer=\"dst\""));
        let before = seen();
        for wrong in [&b"GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n"[..], b"\0\x01bytes that are no HTTP at all"] {
            let told = said(mesh.connect(&known).await, wrong).await;
            // It is told in frames, if at all.
            assert!(told.is_empty() || told.starts_with(&[0, 0]), "{name}: {told:?}");
        }
        assert_eq!(seen(), before, "{name}: nobody is dialled");
        declared(&mesh, name, "http/2", 3.0).await;
    }
    let route = |kind: &str, name: &str, status: &str| {
        format!(
            "outbound_{kind}_route_request_statuses_total{{parent_group=\"core\",parent_kind=\"Service\",parent_namespace=\"ns\",\
             parent_name=\"{name}\",parent_port=\"80\",parent_section_name=\"\",route_group=\"\",route_kind=\"default\",\
             route_namespace=\"\",route_name=\"{kind}\",hostname=\"\",{status},error=\"\"}}"
        )
    };
    mesh.web.reaches(&route("http", "two", "http_status=\"200\""), 2.0).await;
    mesh.web.reaches(&route("grpc", "rpc", "grpc_status=\"OK\""), 1.0).await;
    let code = |code: &str| format!("weft_proxy_errors_total{{direction=\"outbound\",code=\"{code}\"}}");
    mesh.web.reaches(&code("ROUTE_NOT_FOUND"), 1.0).await;
    mesh.web.reaches(&code("HTTP2_VIOLATION"), 4.0).await;
}

#[tokio::test]
async fn detection_counts_what_it_finds() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "300ms")]).await;
    let origin = naming("app").await;
    let (addr, server) = shouting(std::net::Ipv4Addr::LOCALHOST.into()).await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
    assert!(answer(&mesh, addr, b"EHLO a\r\n").await.starts_with("hello\n"));
    let mut old = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
    soon(old.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")).await.unwrap();
    // What could still become a request when the timeout is over is held to what holds for requests.
    let forged = |request: &http1::Message| request.header("l5d-client-id").is_some();
    let other =
        http1::Origin::start(move |r| http1::Reply::ok(if forged(r) { "forged" } else { "held" })).await.unwrap();
    let mut slow = mesh.app.connect_inbound(other.addr()).await;
    slow.write_all(b"GE").await.unwrap();
    let found = |result: &str| {
        let text = mesh.app.handle().metrics();
        let series =
            format!("inbound_tcp_detect_http_results_total{{result=\"{result}\",srv_group=\"\",srv_kind=\"default\"");
        crate::harness::metric(&text, &series)
    };
    for result in ["http/2", "http/1", "not_http", "read_timeout"] {
        eventually(result, || found(result) == 1.0).await;
    }
    let rest =
        b"T / HTTP/1.1\r\nHost: a\r\nl5d-client-id: admin.ns.serviceaccount.identity.linkerd.cluster.local\r\n\r\n";
    slow.write_all(rest).await.unwrap();
    let mut slow = http1::Client::over(slow);
    let answer = soon(slow.response(false)).await.unwrap();
    assert_eq!((answer.status(), &answer.body[..]), (Some(200), &b"held"[..]));
    mesh.app.reaches("inbound_tcp_detect_http_duration_seconds_count{srv_group=\"\"", 4.0).await;
    server.abort();
}
