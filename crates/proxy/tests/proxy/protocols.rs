//! What a port speaks by its policy, from strangers and from the mesh (data plane 3.4), and what detection counts.

use crate::{
    harness::{LONG, eventually, soon},
    mesh::{Mesh, get, naming, shouting},
};
use http::Request;
use std::{net::SocketAddr, time::Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::{
    ProtocolHint, ServerPolicy,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        route::{GrpcMatch, GrpcRoute, Rule},
    },
};
use weft_testkit::{
    http1, http2,
    policy::{inbound, service},
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

/// What a stranger gets for these bytes, up to the end or the first pause.
async fn answer(mesh: &Mesh, addr: SocketAddr, bytes: &[u8]) -> String {
    let mut tcp = mesh.app.connect_inbound(addr).await;
    tcp.write_all(bytes).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = vec![];
    let _ = soon(tcp.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
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
    assert_eq!(mesh.app.metric("request_total{direction=\"inbound\""), 0.0);
    server.abort();
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
    // What looks like a request and does not come to its end is bytes after the timeout.
    let mut slow = mesh.app.connect_inbound(addr).await;
    slow.write_all(b"GE").await.unwrap();
    let mut hello = [0; 6];
    soon(slow.read_exact(&mut hello)).await.unwrap();
    let found = |result: &str| {
        let text = mesh.app.handle().metrics();
        let series =
            format!("inbound_tcp_detect_http_results_total{{result=\"{result}\",srv_group=\"\",srv_kind=\"default\"");
        crate::harness::metric(&text, &series)
    };
    for result in ["http/2", "http/1", "not_http", "read_timeout"] {
        eventually(result, || found(result) == 1.0).await;
    }
    mesh.app.reaches("inbound_tcp_detect_http_duration_seconds_count{srv_group=\"\"", 4.0).await;
    server.abort();
}
