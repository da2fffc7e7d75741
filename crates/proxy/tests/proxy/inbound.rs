//! Connections that were redirected to the inbound side without the mesh: plaintext, foreign TLS, silence.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, naming, shouting},
};
use http::Request;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_testkit::{http1, http2};

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
    let splits = 1..hello.len();
    for at in splits.clone() {
        let mut tcp = mesh.app.connect_inbound(addr).await;
        tcp.set_nodelay(true).unwrap();
        let (one, two) = hello.split_at(at);
        tcp.write_all(one).await.unwrap();
        tokio::task::yield_now().await;
        tcp.write_all(two).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = vec![];
        soon(tcp.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [b"hello\n", &hello.to_ascii_uppercase()[..], b"bye\n"].concat(), "split at {at}");
    }
    mesh.app.reaches("inbound_tcp_authz_allow_total{", splits.len() as f64).await;
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
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"DETECT_TIMEOUT\"}", 1.0).await;
    server.abort();
}

#[tokio::test]
async fn an_application_that_is_not_there_is_a_502() {
    let mesh = Mesh::start().await;
    let gone = crate::harness::nobody();
    let mut client = http2::Client::over(mesh.app.connect_inbound(gone).await).await.unwrap();
    let answer = soon(client.call(crate::mesh::get())).await.unwrap();
    assert_eq!(answer.head.status, 502);
    mesh.app.reaches("inbound_http_errors_total{error=\"i/o\"}", 1.0).await;
}

/// A client of the mesh whose ClientHello comes in two parts.
#[tokio::test]
async fn mesh_tls_is_ended_however_its_hello_is_split() {
    let mesh = Mesh::start().await;
    let origin = naming("app").await;
    let store = mesh.store("web");
    // A hello with a post-quantum key share has about 1,700 bytes.
    for at in (1..10).chain((10..1400).step_by(131)) {
        let proxy = mesh.app.connect_inbound(origin.addr()).await;
        let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = tokio::net::TcpStream::connect(relay.local_addr().unwrap()).await.unwrap();
        let (client, _) = relay.accept().await.unwrap();
        let relaying = tokio::spawn(async move {
            let (mut from, mut to) = client.into_split();
            let (mut back, mut forth) = proxy.into_split();
            let mut first = vec![0; at];
            let whole = tokio::time::timeout(std::time::Duration::from_secs(5), from.read_exact(&mut first)).await;
            assert!(whole.unwrap().is_ok(), "the hello is shorter than {at}");
            forth.write_all(&first).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            tokio::join!(tokio::io::copy(&mut from, &mut forth), tokio::io::copy(&mut back, &mut to))
        });
        let shaken = soon(store.connect(dialled, &mesh.server(), false)).await;
        let (stream, _) = shaken.unwrap_or_else(|error| panic!("split at {at}: {error}"));
        let answer = soon(http2::Client::over(stream).await.unwrap().call(crate::mesh::get())).await.unwrap();
        assert_eq!(answer.head.status, 200, "split at {at}");
        relaying.abort();
    }
    let seen = origin.seen();
    assert!(seen.requests.iter().all(|r| r.headers["l5d-client-id"] == mesh.web.identity().as_str()));
}

#[tokio::test]
async fn requests_wait_for_an_application_that_is_started_again() {
    let patient = [
        ("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", "15s"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MIN", "20ms"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MAX", "40ms"),
    ];
    let mesh = Mesh::with(&[], &patient).await;
    // Nobody listens yet, and nobody else can.
    let place = tokio::net::TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let away = place.local_addr().unwrap();
    let call = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
    let mut one = http1::Client::over(mesh.app.connect_inbound(away).await);
    one.send(call).await.unwrap();
    let mut two = http2::Client::over(mesh.app.connect_inbound(away).await).await.unwrap();
    let waiting = tokio::spawn(async move { two.call(crate::mesh::get()).await });
    // Some attempts fail meanwhile.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let listener = place.listen(128).unwrap();
    let serving = tokio::spawn(async move {
        // Whoever comes with HTTP/2 is answered so.
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut first = [0; 4];
                while tcp.peek(&mut first).await.unwrap_or_default() < 4 {
                    tokio::task::yield_now().await;
                }
                if &first == b"PRI " {
                    let answer =
                        |_| async { Ok::<_, std::convert::Infallible>(http::Response::new(http2::full("two"))) };
                    let service = hyper::service::service_fn(answer);
                    let io = hyper_util::rt::TokioIo::new(tcp);
                    let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = server.serve_connection(io, service).await;
                } else {
                    let _ = tcp.read(&mut [0; 1024]).await;
                    let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await;
                }
            });
        }
    });
    assert_eq!(&soon(one.response(false)).await.unwrap().body[..], b"one");
    assert_eq!(&soon(waiting).await.unwrap().unwrap().body[..], b"two");
    serving.abort();
}

/// A wait that would outlast the failfast timeout is not begun.
#[tokio::test]
async fn the_backoff_is_what_is_waited_between_attempts() {
    let slow = [
        ("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", "15s"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MIN", "16s"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MAX", "20s"),
    ];
    let mesh = Mesh::with(&[], &slow).await;
    let start = std::time::Instant::now();
    let mut client = http1::Client::over(mesh.app.connect_inbound(crate::harness::nobody()).await);
    let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(502));
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn who_waits_for_the_application_is_bounded() {
    let mesh = Mesh::with(&[], &[("LINKERD2_PROXY_INBOUND_HTTP_QUEUE_CAPACITY", "0")]).await;
    let mut client = http1::Client::over(mesh.app.connect_inbound(crate::harness::nobody()).await);
    let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status(), Some(503));
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"LOAD_SHED\"}", 1.0).await;
}

/// Of the requests of two workers one has the only place to wait, and the other is told at once.
#[tokio::test]
async fn workers_share_the_places_of_who_waits_for_the_application() {
    let patient = [
        ("LINKERD2_PROXY_CORES", "2"),
        ("LINKERD2_PROXY_INBOUND_HTTP_QUEUE_CAPACITY", "1"),
        ("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", "60s"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MIN", "20ms"),
        ("LINKERD2_PROXY_INBOUND_CONNECT_EXP_BACKOFF_MAX", "40ms"),
        // No session is opened ahead of a request.
        ("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "0"),
    ];
    let mesh = Mesh::with(&[], &patient).await;
    // Nobody listens yet, and nobody else can.
    let place = tokio::net::TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let away = place.local_addr().unwrap();
    let mut one = http1::Client::over(mesh.app.connect_inbound(away).await);
    let mut two = http1::Client::over(mesh.app.connect_inbound(away).await);
    let worker = |n: u8| mesh.app.metric(&format!("weft_proxy_worker_connections{{worker=\"{n}\"}}"));
    eventually("each worker has one", || (worker(0), worker(1)) == (1.0, 1.0)).await;
    for client in [&mut one, &mut two] {
        client.send("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n").await.unwrap();
    }
    let (told, waits) = tokio::select! {
        told = soon(one.response(false)) => (told, &mut two),
        told = soon(two.response(false)) => (told, &mut one),
    };
    assert_eq!(told.unwrap().status(), Some(503));
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"LOAD_SHED\"}", 1.0).await;
    let listener = place.listen(128).unwrap();
    let serving = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read(&mut [0; 1024]).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await.unwrap();
        tcp
    });
    assert_eq!(&soon(waits.response(false)).await.unwrap().body[..], b"one");
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"LOAD_SHED\"}", 1.0).await;
    drop(serving);
}
