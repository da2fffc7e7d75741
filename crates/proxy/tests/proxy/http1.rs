//! HTTP/1 as old and odd clients speak it, through both proxies and on both carriers.

use crate::{
    harness::{self, soon},
    mesh::{Mesh, Service},
};
use http::{Request, Response};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::ProtocolHint;
use weft_testkit::{
    http1, http2,
    policy::{detect, forward, service},
};

const CARRIERS: [ProtocolHint; 2] = [ProtocolHint::Unknown, ProtocolHint::H2];
const GET: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";

/// A server that gives each connection to `handle`.
async fn serving<F: Future<Output = ()> + Send>(handle: impl Fn(TcpStream) -> F + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move { handle(tcp).await });
        }
    });
    addr
}

async fn until(tcp: &mut TcpStream, end: &str) -> String {
    let mut text = vec![];
    while !text.ends_with(end.as_bytes()) {
        let byte = soon(tcp.read_u8()).await;
        text.push(byte.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&text))));
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_before_its_body_goes() {
    let mesh = Mesh::start().await;
    let addr = serving(async |mut tcp| {
        loop {
            let head = until(&mut tcp, "\r\n\r\n").await.to_ascii_lowercase();
            // Between the proxies HTTP/2 needs no such wait; what is left is for the application to say.
            if head.contains("expect: 100-continue") {
                tcp.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            }
            let mut body = [0; 4];
            tcp.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"body");
            tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(addr, hint)]);
        let mut tcp = mesh.connect(&service).await;
        for _ in 0..2 {
            let head = "PUT / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
            tcp.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(until(&mut tcp, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n", "{hint:?}");
            tcp.write_all(b"body").await.unwrap();
            assert!(until(&mut tcp, "\r\n\r\nok").await.starts_with("HTTP/1.1 200 OK\r\n"), "{hint:?}");
        }
    }
}

#[tokio::test]
async fn requests_that_come_together_are_answered_in_order() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| http1::Reply::ok(request.first_line())).await.unwrap();
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        let requests = (0..20).map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nGET"),
            _ => format!("PUT /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"),
        });
        client.send(requests.collect::<String>()).await.unwrap();
        for n in 0..20 {
            let method = ["GET", "POST", "PUT"][n % 3];
            let response = soon(client.response(false)).await.unwrap();
            assert_eq!(String::from_utf8(response.body).unwrap(), format!("{method} /{n} HTTP/1.1"), "{hint:?}");
        }
    }
}

#[tokio::test]
async fn targets_and_versions_stay_what_they_were() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| http1::Reply::ok(request.first_line())).await.unwrap();
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        for (line, host) in [
            ("GET http://app.ns/a?b=%20c HTTP/1.1", "Host: app.ns\r\n"),
            ("GET http://app.ns:80 HTTP/1.1", "Host: app.ns:80\r\n"),
            ("OPTIONS * HTTP/1.1", "Host: app.ns\r\n"),
            ("PURGE //x/../y;z=1?? HTTP/1.1", "Host: app.ns\r\n"),
            ("GET /old HTTP/1.0", "Host: app.ns\r\nConnection: keep-alive\r\n"),
            ("GET /older HTTP/1.0", ""),
        ] {
            let mut client = http1::Client::over(mesh.connect(&service).await);
            let response = soon(client.call(format!("{line}\r\n{host}\r\n"))).await.unwrap();
            // An empty path is written out.
            let seen = if line.contains(":80 ") && hint == ProtocolHint::H2 {
                line.replace(":80 ", ":80/ ")
            } else {
                line.to_owned()
            };
            assert_eq!(String::from_utf8(response.body.clone()).unwrap(), seen, "{hint:?}");
            let version = response.first_line()[..8].to_owned();
            if line.ends_with("1.0") {
                let kept = host.contains("keep-alive");
                assert_eq!(response.header("connection").as_deref(), Some(if kept { "keep-alive" } else { "close" }));
                if kept {
                    let again = soon(client.call(format!("{line}\r\n{host}\r\n"))).await.unwrap();
                    assert_eq!(again.status(), Some(200));
                }
            } else {
                assert_eq!((version.as_str(), response.header("connection")), ("HTTP/1.1", None), "{hint:?}");
            }
        }
    }
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| {
        let path = request.first_line().split(' ').nth(1).unwrap_or_default().to_owned();
        http1::Reply::Bytes(match path.as_str() {
            "/204" => b"HTTP/1.1 204 No Content\r\nx: 1\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n".to_vec(),
            "/empty" => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
            "/chunks" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
            _ => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec(),
        })
    })
    .await
    .unwrap();
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        // What one of them would leave behind would be taken for the head of the next.
        for (method, path, status, length) in [
            ("HEAD", "/five", 200, Some("5")),
            ("GET", "/204", 204, None),
            ("HEAD", "/chunks", 200, None),
            ("GET", "/304", 304, None),
            ("GET", "/empty", 200, Some("0")),
            ("HEAD", "/five", 200, Some("5")),
        ] {
            let response = soon(client.call(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"))).await.unwrap();
            assert_eq!((response.status(), response.body.len()), (Some(status), 0), "{hint:?} {method} {path}");
            if path != "/304" {
                assert_eq!(response.header("content-length").as_deref(), length, "{hint:?} {method} {path}");
            }
        }
    }
}

/// The server echoes what comes behind its answer.
#[tokio::test]
async fn connect_becomes_a_tunnel() {
    let mesh = Mesh::start().await;
    let addr = serving(async |mut tcp| {
        let head = until(&mut tcp, "\r\n\r\n").await;
        assert!(head.starts_with("CONNECT db.ns:5432 HTTP/1.1\r\n"), "{head}");
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let (mut read, mut write) = tcp.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    })
    .await;
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(addr, hint)]);
        let mut tcp = mesh.connect(&service).await;
        tcp.write_all(b"CONNECT db.ns:5432 HTTP/1.1\r\nHost: db.ns:5432\r\n\r\n").await.unwrap();
        assert!(until(&mut tcp, "\r\n\r\n").await.starts_with("HTTP/1.1 200 "), "{hint:?}");
        tcp.write_all(b"\x00\xff bytes").await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut rest = vec![];
        soon(tcp.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"\x00\xff bytes", "{hint:?}");
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| {
        assert!(request.raw.ends_with(b"0\r\nx-sum: 7\r\n\r\n"), "{}", String::from_utf8_lossy(&request.raw));
        let response =
            "HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 9\r\n\r\n";
        http1::Reply::Bytes(response.into())
    })
    .await
    .unwrap();
    for hint in CARRIERS {
        let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
        let mut client = http1::Client::over(mesh.connect(&service).await);
        for _ in 0..2 {
            let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-sum: 7\r\n\r\n";
            let response = soon(client.call(request)).await.unwrap();
            assert_eq!(response.body, b"ok");
            assert!(response.raw.ends_with(b"0\r\nx-end: 9\r\n\r\n"), "{}", String::from_utf8_lossy(&response.raw));
        }
    }
}

/// `l5d-proxy-connection: close` of the server's proxy: heeded where there is no other endpoint.
#[tokio::test]
async fn a_servers_proxy_may_close_the_clients_connection() {
    let mesh = Mesh::start().await;
    let told = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nl5d-proxy-connection: close\r\n\r\nok";
    let origin = http1::Origin::start(|_| http1::Reply::Bytes(told.into())).await.unwrap();
    let second = http2::Origin::start(|_| async {
        Ok(Response::builder().header("l5d-proxy-connection", "close").body(http2::full("ok"))?)
    })
    .await
    .unwrap();
    let fixed = |service_: &Service, addr, hint| {
        let policy = detect(service("ns", "app", 80), forward(mesh.endpoint(addr, hint)));
        mesh.control.set_outbound(service_.addr, policy);
    };
    for hint in CARRIERS {
        for heeded in [false, true] {
            let service = mesh.service(&[mesh.endpoint(origin.addr(), hint)]);
            if heeded {
                fixed(&service, origin.addr(), hint);
            }
            let mut client = http1::Client::over(mesh.connect(&service).await);
            let response = soon(client.call(GET)).await.unwrap();
            assert_eq!(response.header("l5d-proxy-connection"), None);
            assert_eq!(response.header("connection").as_deref(), heeded.then_some("close"), "{hint:?}");
            assert_eq!(soon(client.call(GET)).await.is_ok(), !heeded, "{hint:?}");
        }
    }
    for heeded in [false, true] {
        let service = mesh.service(&[mesh.endpoint(second.addr(), ProtocolHint::H2)]);
        if heeded {
            fixed(&service, second.addr(), ProtocolHint::H2);
        }
        let mut client = mesh.http2(&service).await;
        let request = || Request::get("http://app.ns/").body(http2::full("")).unwrap();
        let response = soon(client.call(request())).await.unwrap();
        assert_eq!((&response.body[..], response.head.headers.get("l5d-proxy-connection")), (&b"ok"[..], None));
        if heeded {
            soon(async { while client.call(request()).await.is_ok() {} }).await;
        } else {
            assert!(soon(client.call(request())).await.is_ok());
        }
    }
}

/// What detection has looked at is read again by whoever serves the connection.
#[tokio::test]
async fn bytes_that_are_looked_at_count_once() {
    const CALL: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\nConnection: close\r\n\r\n";
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::Unknown)]);
    let read = |direction: &str| format!("tcp_read_bytes_total{{direction=\"{direction}\",peer=\"src\"");
    harness::http1(mesh.connect(&service).await, CALL).await;
    mesh.web.reaches("tcp_close_total{direction=\"outbound\",peer=\"src\"", 1.0).await;
    mesh.web.reaches(&read("outbound"), CALL.len() as f64).await;
    let before = mesh.app.metric(&read("inbound"));
    harness::http1(mesh.app.connect_inbound(origin.addr()).await, CALL).await;
    mesh.app.reaches(&read("inbound"), before + CALL.len() as f64).await;
}

/// A target that HTTP/2 has no room for goes on as HTTP/1, as it would without a mesh.
#[tokio::test]
async fn odd_targets_arrive_as_they_were_sent() {
    let mesh = Mesh::start().await;
    let origin = http1::Origin::start(|request| http1::Reply::ok(request.first_line().as_bytes())).await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    let mut client = http1::Client::over(mesh.connect(&service).await);
    for target in ["/plain", "/q?filter={\"a\":1}", "/a^b`c<d>\\|", "/plain", "/q?<x>"] {
        let response = soon(client.call(format!("GET {target} HTTP/1.1\r\nHost: app.ns\r\n\r\n"))).await.unwrap();
        let line = format!("GET {target} HTTP/1.1");
        assert_eq!((response.status(), &response.body[..]), (Some(200), line.as_bytes()));
    }
    let response =
        soon(client.call("POST /?\"= HTTP/1.1\r\nHost: a%20b\r\nContent-Length: 3\r\n\r\nabc")).await.unwrap();
    assert_eq!((response.status(), &response.body[..]), (Some(200), &b"POST /?\"= HTTP/1.1"[..]));
    assert_eq!(origin.seen().requests.last().unwrap().body, b"abc");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_told_both_bounds() {
    let mesh = Mesh::start().await;
    let service = mesh.service(&[]);
    let lines = "x: y\r\n".repeat(200);
    let mut client = http1::Client::over(mesh.connect(&service).await);
    let response = soon(client.call(format!("GET / HTTP/1.1\r\nHost: app.ns\r\n{lines}\r\n"))).await.unwrap();
    let told = "the head of the request exceeds 65536 bytes or 128 lines [HEAD_TOO_LARGE]";
    assert_eq!((response.status(), response.header("l5d-proxy-error").as_deref()), (Some(431), Some(told)));
}
