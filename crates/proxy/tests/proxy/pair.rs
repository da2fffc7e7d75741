//! All four protocols through both proxies: mTLS between them, the transport header, and what the server is told.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, shouting},
};
use http::{HeaderMap, Request, Response};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_model::ProtocolHint;
use weft_testkit::{http1, http2};

#[tokio::test]
async fn http2_end_to_end() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|request| async move {
        let body = http2::complete(request.uri().path().to_owned(), request.into_body()).await?;
        Ok(Response::new(http2::full([b"got ", &body.body[..]].concat())))
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut client = mesh.http2(&service).await;
    for n in 0..3 {
        let request =
            Request::post("http://app.ns/path?q=1").header("l5d-client-id", "forged").body(http2::full(format!("{n}")));
        let response = soon(client.call(request.unwrap())).await.unwrap();
        assert_eq!((response.head.status.as_u16(), &response.body[..]), (200, format!("got {n}").as_bytes()));
    }
    let seen = origin.seen();
    assert_eq!((seen.connections, seen.requests.len()), (1, 3));
    let ids: Vec<_> = seen.requests[0].headers.get_all("l5d-client-id").iter().collect();
    assert_eq!(ids, [mesh.web.identity().as_str()], "the identity of the client, not what it says");
    assert_eq!(seen.requests[0].uri.to_string(), "http://app.ns/path?q=1");
}

#[tokio::test]
async fn grpc_keeps_its_trailers() {
    let mesh = Mesh::start().await;
    let origin = http2::Origin::start(|_| async {
        let trailers = HeaderMap::from_iter([("grpc-status".parse()?, "2".parse()?)]);
        let response = Response::builder().header("content-type", "application/grpc");
        Ok(response.body(http2::with_trailers("\0\0\0\0\x01x", trailers))?)
    })
    .await
    .unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let request = Request::post("http://app.ns/emojivoto.v1.VotingService/VoteDoughnut")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(http2::full("\0\0\0\0\0"));
    let response = soon(mesh.http2(&service).await.call(request.unwrap())).await.unwrap();
    assert_eq!(response.head.status.as_u16(), 200);
    assert_eq!(response.trailers.unwrap()["grpc-status"], "2");
    for proxy in [&mesh.web, &mesh.app] {
        eventually("the failure is counted", || {
            let metrics = proxy.metrics();
            metrics.lines().any(|l| {
                l.starts_with("response_total{")
                    && l.contains("classification=\"failure\"")
                    && l.contains("grpc_status=\"2\"")
                    && l.contains("status_code=\"200\"")
            })
        })
        .await;
    }
}

#[tokio::test]
async fn http1_end_to_end_on_both_carriers() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| http1::Reply::ok(&request.body)).await.unwrap();
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        for n in 0..3 {
            let request = format!(
                "POST /path?q=1 HTTP/1.1\r\nHost: app.ns\r\nL5d-Client-Id: forged\r\nContent-Length: 1\r\n\r\n{n}"
            );
            let response = soon(client.call(request)).await.unwrap();
            assert_eq!((response.status(), &response.body[..]), (Some(200), n.to_string().as_bytes()), "{hint:?}");
            assert_eq!(response.header("l5d-orig-proto"), None);
        }
    }
    let seen = origin.seen();
    assert_eq!(seen.requests.len(), 6);
    for request in &seen.requests {
        assert_eq!(request.first_line(), "POST /path?q=1 HTTP/1.1");
        assert_eq!(request.header("host").as_deref(), Some("app.ns"));
        assert_eq!(request.header("l5d-client-id").as_deref(), Some(mesh.web.identity().as_str()));
        assert_eq!(request.header("l5d-orig-proto"), None);
    }
}

#[tokio::test]
async fn bytes_end_to_end_with_a_server_that_speaks_first() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let service = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let mut tcp = mesh.connect(&service).await;
    let mut greeting = [0; 6];
    soon(tcp.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"hello\n");
    tcp.write_all(b"abc").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut rest = String::new();
    soon(tcp.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "ABCbye\n", "the half-close passes and the answer still comes");
    for proxy in [&mesh.web, &mesh.app] {
        eventually("both connections are closed", || proxy.metric("tcp_close_total{") >= 2.0).await;
        assert_eq!(proxy.metric("tcp_open_connections{"), 0.0);
        proxy.reaches("tcp_read_bytes_total{", 16.0).await;
    }
    server.abort();
}

/// Detection by bytes: neither an HTTP request nor TLS.
#[tokio::test]
async fn bytes_on_a_detected_port() {
    let mesh = Mesh::start().await;
    let (addr, server) = shouting(Ipv4Addr::LOCALHOST.into()).await;
    let service = mesh.service(&[mesh.endpoint(addr, ProtocolHint::Unknown)]);
    let mut tcp = mesh.connect(&service).await;
    tcp.write_all(b"\x01\x02 no request\r\n").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut all = vec![];
    soon(tcp.read_to_end(&mut all)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&all), "hello\n\x01\x02 NO REQUEST\r\nbye\n");
    server.abort();
}

/// A request that leaves HTTP travels on HTTP/1 whatever the endpoint's hint, and its bytes pass both ways.
#[tokio::test]
async fn an_upgraded_connection_passes_bytes() {
    let mesh = Mesh::start().await;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            assert!(head.contains("upgrade: echo") && head.contains("connection: upgrade"), "{head}");
            tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                .await
                .unwrap();
            let (mut read, mut write) = tcp.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        }
    });
    for hint in [ProtocolHint::Unknown, ProtocolHint::H2] {
        let service = mesh.service(&[mesh.endpoint(addr, hint)]);
        let mut tcp = mesh.connect(&service).await;
        tcp.write_all(b"GET / HTTP/1.1\r\nHost: app.ns\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await.unwrap();
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(tcp.read_u8()).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        tcp.write_all(b"\x00\xff bytes").await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = vec![];
        soon(tcp.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"\x00\xff bytes");
    }
    let opened = mesh.web.metric("tcp_open_total{direction=\"outbound\",peer=\"dst\"");
    assert_eq!(
        opened, 2.0,
        "one connection each: what a request that leaves HTTP travels on is known before it is made"
    );
    server.abort();
}
