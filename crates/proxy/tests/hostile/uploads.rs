//! Servers that read nothing of what is uploaded to them: what is held of each upload is bounded, and nobody waits behind them.
//!
//! Budget: at each proxy, what was read of a body that cannot be passed on (`http1::buffer`, a stream's window), and what waits for
//! the socket (`http2::settings`). As many uploads as this times their limit (`…_MAX_IN_FLIGHT`) is what a proxy may hold. As much
//! processor time as `MOST` ordinary exchanges.

use crate::{
    cost::Cost,
    frames::*,
    harness::{Dialler, Proxy, soon},
    measure::{alone, resident, say},
    mesh::Mesh,
};
use bytes::Bytes;
use http::Request;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use weft_model::{ProtocolHint, policy::inbound::DefaultPolicy};
use weft_testkit::{http1, http2, policy::inbound};

/// Uploads at once.
const UPLOADS: usize = 1000;
/// Bytes of each, more than kernel and proxies take of it where many share a connection.
const BODY: usize = 512 * 1024;
/// Uploads that have a connection each to the server, for which the kernel takes more, and their bytes.
const ALONE: usize = 40;
const LARGE: usize = 8 << 20;
/// Ordinary exchanges, each on a connection of its own, that an upload may cost in processor time. One has as little body as can be,
/// and of an upload up to 4 MiB are read.
const MOST: f64 = 40.0;
/// Bytes that a proxy may hold of each upload of HTTP/1 and of HTTP/2.
const HELD_HTTP1: usize = 128 * 1024;
const HELD_HTTP2: usize = 256 * 1024;
/// Bytes of each stream that are read in any case, whoever waits for a server.
const WINDOW: usize = 64 * 1024 - 1;
/// Bytes that a socket of the test holds: a kernel whose memory for TCP runs out would let nobody read on.
const SOCKET: u32 = 16 * 1024;

/// A server that says `first`, and reads nothing.
async fn deaf(first: Vec<u8>) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = vec![];
        while let Ok((mut tcp, _)) = listener.accept().await {
            tcp.write_all(&first).await.unwrap();
            held.push(tcp);
        }
    });
    addr
}

/// One of HTTP/2 that lets everybody send as much as he likes.
async fn deaf_http2() -> SocketAddr {
    let [a, b, c, d] = i32::MAX.to_be_bytes();
    let windows = frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d]);
    deaf([windows, frame(WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes())].concat()).await
}

/// An upload on a connection of its own.
async fn upload(mut tcp: TcpStream, body: Bytes) {
    let head = format!("POST / HTTP/1.1\r\nHost: app.ns\r\nContent-Length: {}\r\n\r\n", body.len());
    socket2::SockRef::from(&tcp).set_send_buffer_size(SOCKET as usize).unwrap();
    // Until the test has ended.
    let _ = tcp.write_all(head.as_bytes()).await;
    let _ = tcp.write_all(&body).await;
    std::future::pending().await
}

/// Begins once it is known what an exchange costs that is answered; how much memory there is then.
async fn begin(dialler: &Dialler) -> (Cost, usize) {
    let cost = Cost::begin(async || {
        let mut client = http1::Client::over(dialler.connect().await);
        let answer = soon(client.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(answer.status(), Some(200));
    });
    (cost.await, resident())
}

/// What so many uploads cost each that come to `proxy`, which reads at least `read` bytes of all.
async fn held(
    way: &str,
    proxy: &Proxy,
    direction: &str,
    (uploads, read): (usize, usize),
    (cost, before): (Cost, usize),
    each: usize,
) {
    let series = format!("tcp_read_bytes_total{{direction=\"{direction}\",peer=\"src\"");
    proxy.at_least(&series, read as f64).await;
    // Until nothing more is read.
    let mut last = 0.0;
    while last != proxy.metric(&series) {
        last = proxy.metric(&series);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cost.end_beside(0, way, uploads, MOST);
    let (held, read) = (resident().saturating_sub(before) / uploads, last / uploads as f64);
    say(&format!("{way}: {uploads} uploads that nobody reads hold {held} bytes each, of {read:.0} read"));
    assert!(held <= each, "{way}: {held} bytes for each");
}

/// A connection of somebody else's that is served, before and while nobody else is.
async fn served(other: &mut http1::Client<TcpStream>) {
    for _ in 0..20 {
        let answer = soon(other.call("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n")).await.unwrap();
        assert_eq!(answer.status(), Some(200), "others are served");
    }
}

#[test]
fn uploads_of_http1_that_nobody_reads_hold_little() {
    alone(module_path!(), "uploads_of_http1_that_nobody_reads_hold_little", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let mut other = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
        served(&mut other).await;
        let body = Bytes::from(vec![b'x'; LARGE]);
        let dialler = mesh.app.inbound(deaf(vec![]).await);
        let before = begin(&mesh.app.inbound(origin.addr())).await;
        let mut uploads = JoinSet::new();
        for _ in 0..ALONE {
            uploads.spawn(upload(dialler.connect().await, body.clone()));
        }
        held("HTTP/1", &mesh.app, "inbound", (ALONE, ALONE * BODY), before, HELD_HTTP1).await;
        served(&mut other).await;
    });
}

/// Requests behind one that is not answered are left to the kernel.
#[test]
fn what_comes_behind_a_request_that_waits_holds_little() {
    alone(module_path!(), "what_comes_behind_a_request_that_waits_holds_little", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let mut other = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
        served(&mut other).await;
        let many = Bytes::from("GET / HTTP/1.1\r\nHost: app.ns\r\n\r\n".repeat(BODY / 32));
        let dialler = mesh.app.inbound(deaf(vec![]).await);
        let before = begin(&mesh.app.inbound(origin.addr())).await;
        let mut clients = JoinSet::new();
        for _ in 0..UPLOADS {
            let (mut tcp, many) = (dialler.connect().await, many.clone());
            socket2::SockRef::from(&tcp).set_send_buffer_size(SOCKET as usize).unwrap();
            clients.spawn(async move {
                let _ = tcp.write_all(&many).await;
                std::future::pending::<()>().await;
            });
        }
        held("pipelined", &mesh.app, "inbound", (UPLOADS, UPLOADS * 4096), before, 32 * 1024).await;
        served(&mut other).await;
    });
}

#[test]
fn uploads_of_http2_that_nobody_reads_hold_little() {
    alone(module_path!(), "uploads_of_http2_that_nobody_reads_hold_little", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let mut other = http1::Client::over(mesh.app.connect_inbound(origin.addr()).await);
        served(&mut other).await;
        let addr = deaf_http2().await;
        mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
        let body = Bytes::from(vec![b'x'; BODY]);
        let before = begin(&mesh.app.inbound(origin.addr())).await;
        let client = http2::Client::over(mesh.app.connect_inbound(addr).await).await.unwrap();
        let mut uploads = JoinSet::new();
        for _ in 0..UPLOADS {
            let mut client = client.clone();
            let request = Request::post("http://app.ns/").body(http2::full(body.clone())).unwrap();
            uploads.spawn(async move { client.start(request).await.map(drop) });
        }
        held("HTTP/2", &mesh.app, "inbound", (UPLOADS, UPLOADS * WINDOW), before, HELD_HTTP2).await;
        served(&mut other).await;
    });
}

#[test]
fn uploads_through_a_pair_that_nobody_reads_hold_little() {
    alone(module_path!(), "uploads_through_a_pair_that_nobody_reads_hold_little", async || {
        let mesh = Mesh::start().await;
        let origin = http1::Origin::start(|_| http1::Reply::ok(b"fine")).await.unwrap();
        let honest = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
        let mut other = http1::Client::over(mesh.connect(&honest).await);
        served(&mut other).await;
        let service = mesh.service(&[mesh.endpoint(deaf(vec![]).await, ProtocolHint::H2)]);
        let body = Bytes::from(vec![b'x'; LARGE]);
        let dialler = mesh.web.outbound(service.addr);
        let before = begin(&mesh.web.outbound(honest.addr)).await;
        let mut uploads = JoinSet::new();
        for _ in 0..ALONE {
            uploads.spawn(upload(dialler.connect().await, body.clone()));
        }
        held("pair", &mesh.web, "outbound", (ALONE, ALONE * BODY), before, HELD_HTTP1 + HELD_HTTP2).await;
        served(&mut other).await;
    });
}
