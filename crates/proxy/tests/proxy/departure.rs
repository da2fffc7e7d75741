//! An application that leaves before its proxy: clients without a proxy are told as they would be without the mesh, and lose nothing.

use crate::{
    harness::{eventually, soon},
    mesh::{Mesh, get, peer},
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_testkit::{http1, http2};
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

const GET: &str = "GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbye";
/// So that a test need not wait long for who is away.
const IMPATIENT: (&str, &str) = ("LINKERD2_PROXY_INBOUND_HTTP_FAILFAST_TIMEOUT", "50ms");

/// An application whose connections and listening socket the test holds.
struct App {
    listener: TcpListener,
    addr: SocketAddr,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { addr: listener.local_addr().unwrap(), listener }
    }

    async fn accept(&self) -> TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// Keeps the port from others, and listens no more.
    fn leaves(self) {
        drop(self.listener);
        // Whoever takes a free port of the system gets it elsewhere.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.addr).unwrap();
        std::mem::forget(socket);
    }
}

/// Answers the request that comes next.
async fn answers(server: &mut TcpStream, with: &str) {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        assert!(soon(server.read_buf(&mut head)).await.unwrap() > 0, "the connection ended");
    }
    server.write_all(with.as_bytes()).await.unwrap();
}

/// A client without a proxy that has asked once, and keeps its connection.
async fn kept(mesh: &Mesh, app: &App) -> (http1::Client<TcpStream>, TcpStream) {
    kept_amid(mesh, app, "").await
}

/// The same of one that has begun with its next request.
async fn kept_amid(mesh: &Mesh, app: &App, next: &str) -> (http1::Client<TcpStream>, TcpStream) {
    let mut client = http1::Client::over(mesh.app.connect_inbound(app.addr).await);
    client.send([GET, next].concat()).await.unwrap();
    let mut server = app.accept().await;
    answers(&mut server, ANSWER).await;
    assert_eq!(client.response(false).await.unwrap().status(), Some(200));
    (client, server)
}

#[tokio::test]
async fn kept_connections_close_as_soon_as_the_application_has_left() {
    let mesh = Mesh::with(&[], &[IMPATIENT]).await;
    let app = App::start().await;
    let (mut client, server) = kept(&mesh, &app).await;
    let addr = app.addr;
    app.leaves();
    drop(server);
    assert_eq!(soon(client.rest()).await.unwrap(), b"", "closed in order, and unasked");
    // Who comes now is told.
    let mut late = http1::Client::over(mesh.app.connect_inbound(addr).await);
    let answer = soon(late.call(GET)).await.unwrap();
    assert_eq!((answer.status(), answer.header("connection").as_deref()), (Some(502), Some("close")));
}

#[tokio::test]
async fn an_application_that_only_closes_a_connection_closes_no_client() {
    let mesh = Mesh::start().await;
    let app = App::start().await;
    let (mut client, server) = kept(&mesh, &app).await;
    drop(server);
    // One in its place, before there is a request for it; which may be too early for it all the same.
    let mut next = app.accept().await;
    let serving = tokio::spawn(async move {
        let another = async {
            let mut another = app.accept().await;
            answers(&mut another, ANSWER).await;
            std::future::pending::<()>().await;
        };
        let this = async {
            answers(&mut next, ANSWER).await;
            std::future::pending::<()>().await;
        };
        tokio::join!(this, another);
    });
    client.send(GET).await.unwrap();
    assert_eq!(soon(client.response(false)).await.unwrap().status(), Some(200));
    serving.abort();
}

/// Between proxies connections are kept whatever the application does with its own.
#[tokio::test]
async fn a_clients_proxy_is_not_told_what_the_application_says() {
    let mesh = Mesh::start().await;
    let app = App::start().await;
    let mut meshed = http1::Client::over(peer(&mesh).await);
    let port = app.addr.port();
    let header = TransportHeader { port, name: None, protocol: Some(SessionProtocol::Http1) };
    meshed.send(header.encode()).await.unwrap();
    for _ in 0..2 {
        meshed.send(GET).await.unwrap();
        let mut next = app.accept().await;
        answers(&mut next, LAST).await;
        let answer = soon(meshed.response(false)).await.unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (Some(200), None));
    }
}

#[tokio::test]
async fn a_client_without_a_proxy_is_told_what_the_application_says() {
    let mesh = Mesh::start().await;
    let app = App::start().await;
    let (mut client, mut server) = kept(&mesh, &app).await;
    client.send(GET).await.unwrap();
    answers(&mut server, LAST).await;
    let answer = soon(client.response(false)).await.unwrap();
    assert_eq!((answer.status(), answer.header("connection").as_deref()), (Some(200), Some("close")));
    assert_eq!(soon(client.rest()).await.unwrap(), b"");
}

#[tokio::test]
async fn what_reached_nobody_is_left_to_be_asked_again_if_that_does_no_harm() {
    let mesh = Mesh::with(&[], &[IMPATIENT]).await;
    for (request, is_answered) in [
        (GET, false),
        ("DELETE / HTTP/1.1\r\nHost: app.ns\r\n\r\n", false),
        ("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: 2\r\n\r\nhi", true),
    ] {
        let app = App::start().await;
        // The connection is not idle when the application leaves.
        let (begin, rest) = request.split_at(10);
        let (mut client, server) = kept_amid(&mesh, &app, begin).await;
        app.leaves();
        drop(server);
        client.send(rest).await.unwrap();
        let told = String::from_utf8(soon(client.rest()).await.unwrap()).unwrap();
        if is_answered {
            assert!(told.starts_with("HTTP/1.1 502 ") && told.contains("connection: close"), "{request}: {told}");
        } else {
            assert_eq!(told, "", "{request}");
        }
    }
    mesh.app.reaches("weft_proxy_errors_total{direction=\"inbound\",code=\"CONNECT_FAILED\"}", 3.0).await;
    let metrics = mesh.app.handle().metrics();
    let told = metrics.lines().filter(|line| line.starts_with("response_total{") && line.contains("502"));
    let counts: Vec<_> = told.filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(counts, ["1"], "a status that nobody was sent is not counted: {metrics}");
}

#[tokio::test]
async fn clients_of_http2_are_asked_to_go_elsewhere() {
    let mesh = Mesh::with(&[], &[IMPATIENT]).await;
    for says_goodbye in [true, false] {
        let app = App::start().await;
        let mut client = http2::Client::over(mesh.app.connect_inbound(app.addr).await).await.unwrap();
        let (leave, mut told) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            let mut server = h2::server::handshake(app.accept().await).await.unwrap();
            loop {
                tokio::select! {
                    Some(asked) = server.accept() => {
                        let (_, mut respond) = asked.unwrap();
                        drop(respond.send_response(http::Response::new(()), true).unwrap());
                    }
                    _ = &mut told => break,
                }
            }
            if says_goodbye {
                server.graceful_shutdown();
                while server.accept().await.is_some() {}
                return Some(app);
            }
            app.leaves();
            None
        });
        assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
        leave.send(()).unwrap();
        let stays = soon(serving).await.unwrap();
        eventually("the client is told", || client.is_closed()).await;
        drop(stays);
    }
}
