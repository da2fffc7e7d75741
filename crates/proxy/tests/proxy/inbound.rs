//! Connections that were redirected to the inbound side without the mesh: plaintext, foreign TLS, silence.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, naming, shouting},
};
use http::Request;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_testkit::http2;

#[tokio::test]
async fn headers_of_the_mesh_are_not_believed_in_plaintext() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let mut client = http2::Client::over(mesh.app.connect_inbound(origin.addr()).await).await.unwrap();
    let request = Request::get("http://app.ns/")
        .header("l5d-client-id", "admin.ns.serviceaccount.identity.linkerd.cluster.local")
        .header("l5d-orig-proto", "HTTP/1.1")
        .header("l5d-dst-canonical", "app.ns.svc.cluster.local:80");
    let answer = soon(client.call(request.body(http2::full("")).unwrap())).await.unwrap();
    assert_eq!(answer.head.status, 200);
    let seen = origin.seen().requests[0].clone();
    assert!(!seen.headers.contains_key("l5d-client-id") && !seen.headers.contains_key("l5d-orig-proto"), "{seen:?}");
    assert!(seen.headers.contains_key("l5d-dst-canonical"), "read by nobody here and passed on");
    eventually("it is counted as plaintext", || {
        let metrics = mesh.app.handle().metrics();
        metrics.lines().any(|l| l.starts_with("response_total{") && l.contains("no_tls_reason=\"no_tls_from_remote\""))
    })
    .await;
}

/// A ClientHello for `name`, as small as one can be.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let server_name = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = sized(&[&[0, 0][..], &sized(&server_name)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &extensions].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let handshake = [&[1][..], &length[1..], &body].concat();
    [&[22, 3, 1][..], &sized(&handshake)].concat()
}

#[tokio::test]
async fn tls_for_somebody_else_passes_untouched_however_it_is_split() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let hello = client_hello("db.example");
    let mut tcp = mesh.app.connect_inbound(addr).await;
    for part in hello.chunks(7) {
        tcp.write_all(part).await.unwrap();
        tcp.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    tcp.shutdown().await.unwrap();
    let mut answer = vec![];
    soon(tcp.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [b"hello\n", &hello.to_ascii_uppercase()[..], b"bye\n"].concat());
    assert_eq!(mesh.app.metric("inbound_tcp_authz_allow_total{"), 1.0);
    let metrics = mesh.app.handle().metrics();
    assert!(metrics.contains("tls=\"opaque\",sni=\"db.example\""), "{metrics}");
    server.abort();
}

#[tokio::test]
async fn silence_on_a_detected_port_is_closed() {
    let timeout = ("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "100ms");
    // The server would speak.
    let mesh = Mesh::with(&[], &[timeout, ("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "0")]).await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let mut tcp = mesh.app.connect_inbound(addr).await;
    let closed = soon(tcp.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    eventually("it is counted", || mesh.app.metric("inbound_tcp_errors_total{error=\"tls detection timeout\"}") == 1.0)
        .await;
    assert_eq!(mesh.app.metric("weft_proxy_errors_total{direction=\"inbound\",code=\"DETECT_TIMEOUT\"}"), 1.0);
    server.abort();
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_502() {
    let mesh = Mesh::start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut client = http2::Client::over(mesh.app.connect_inbound(gone).await).await.unwrap();
    let answer = soon(client.call(crate::mesh::get())).await.unwrap();
    assert_eq!(answer.head.status, 502);
    assert_eq!(mesh.app.metric("inbound_http_errors_total{error=\"i/o\"}"), 1.0, "{}", mesh.app.handle().metrics());
}
