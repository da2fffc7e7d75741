//! Variables of sockets, seen from outside: keep-alive, user timeout, backlog. Each is seen on the connection it is for, and on no
//! other.

use crate::{
    harness::{LONG, Setup, soon},
    mesh::Mesh,
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use weft_model::{Endpoint, ProtocolHint};
use weft_testkit::control::{FakeControl, Service};

/// The kernel's view of the socket between these addresses: whether a keep-alive timer runs.
fn keeps_alive(local: SocketAddr, remote: SocketAddr) -> Option<bool> {
    let hex = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from(v4).swap_bytes(), addr.port()),
        IpAddr::V6(_) => unreachable!("tests are on 127.0.0.1"),
    };
    let (local, remote) = (hex(local), hex(remote));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let found = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    // The sixth field is the kind of timer: 2 is keep-alive.
    found.filter(|f| f.get(1) == Some(&&*local) && f.get(2) == Some(&&*remote)).map(|f| f[5].starts_with("02:")).next()
}

/// The addresses that a connection to `to` from this process has, for one that a proxy has dialled.
fn dialled_to(to: SocketAddr) -> Vec<SocketAddr> {
    let hex = |port: u16| format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    // State 1 is established.
    rows.filter(|f| f.get(2) == Some(&&*hex(to.port())) && f.get(3) == Some(&"01"))
        .filter_map(|f| u16::from_str_radix(f[1].split_once(':')?.1, 16).ok())
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .collect()
}

/// For each of the four connections of a call through the pair, whether it is kept alive: outbound accept and connect, inbound accept
/// and connect.
async fn kept(web: &[(&str, &str)], app: &[(&str, &str)]) -> [bool; 4] {
    let mesh = Mesh::with(web, app).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = listener.local_addr().unwrap();
    let service = mesh.opaque(&[mesh.endpoint(origin, ProtocolHint::Opaque)]);
    let (client, server) = tokio::join!(mesh.connect(&service), listener.accept());
    let (_server, dialled) = server.unwrap();
    let inbound = mesh.app.addrs().inbound;
    let between = dialled_to(inbound);
    assert_eq!(between.len(), 1, "one connection between the proxies");
    // A timer of data on its way hides that of keep-alive for a moment.
    let mut all = [None; 4];
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(300) || all.contains(&None) {
        let now = [
            keeps_alive(client.peer_addr().unwrap(), client.local_addr().unwrap()),
            keeps_alive(between[0], inbound),
            keeps_alive(inbound, between[0]),
            keeps_alive(dialled, origin),
        ];
        for (known, now) in all.iter_mut().zip(now) {
            *known = Some(known.unwrap_or_default() || now.unwrap_or_default());
        }
        assert!(start.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all.map(Option::unwrap)
}

#[tokio::test]
async fn keep_alive_is_for_the_connection_that_it_names() {
    let all = ["OUTBOUND_ACCEPT", "OUTBOUND_CONNECT", "INBOUND_ACCEPT", "INBOUND_CONNECT"];
    assert_eq!(kept(&[], &[]).await, [false; 4]);
    for (at, name) in all.iter().enumerate() {
        let name = format!("LINKERD2_PROXY_{name}_KEEPALIVE");
        let set = [(name.as_str(), "60s")];
        let kept = kept(&set, &set).await;
        assert_eq!(kept.iter().position(|k| *k), Some(at), "{name}: {kept:?}");
        assert_eq!(kept.iter().filter(|k| **k).count(), 1, "{name}: {kept:?}");
    }
}

/// Sends without end until the connection breaks.
async fn flood(mut tcp: TcpStream) {
    let bytes = vec![0; 64 * 1024];
    while tcp.write_all(&bytes).await.is_ok() {}
}

/// A peer that does not take what is sent to it is given up after the user timeout: seen by who sends through the proxy.
#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up_after_the_user_timeout() {
    for (name, server_sends) in
        [("OUTBOUND_ACCEPT", true), ("OUTBOUND_CONNECT", false), ("INBOUND_ACCEPT", true), ("INBOUND_CONNECT", false)]
    {
        let name = format!("LINKERD2_PROXY_{name}_USER_TIMEOUT");
        let set = [(name.as_str(), "500ms")];
        let mesh = Mesh::with(&set, &set).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = listener.local_addr().unwrap();
        let outbound = name.contains("OUTBOUND");
        let service = mesh.opaque(&[Endpoint::plain(origin)]);
        let connecting = async {
            if outbound {
                return mesh.connect(&service).await;
            }
            mesh.app.connect_inbound(origin).await
        };
        let (client, server) = tokio::join!(connecting, listener.accept());
        let server = server.unwrap().0;
        let (sender, silent) = if server_sends { (server, client) } else { (client, server) };
        soon(flood(sender)).await;
        drop(silent);
    }
}

/// As many as the backlog are connected while nobody accepts, and one more.
#[tokio::test]
async fn the_backlog_bounds_who_waits_to_be_accepted() {
    let control = FakeControl::start().unwrap();
    // Nothing is accepted before the certificate.
    control.stall(Service::Certify, true);
    let proxy = Setup::new(&control, "web")
        .env("LINKERD2_PROXY_OUTBOUND_TCP_LISTEN_BACKLOG", 3)
        .env("LINKERD2_PROXY_INBOUND_TCP_LISTEN_BACKLOG", 5)
        .start();
    for (addr, backlog) in [(proxy.addrs().outbound[0], 3), (proxy.addrs().inbound, 5)] {
        let mut connected = vec![];
        while let Ok(tcp) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(addr)).await {
            connected.push(tcp.unwrap());
            assert!(connected.len() < 100, "there is no bound");
        }
        assert_eq!(connected.len(), backlog + 1);
    }
    control.stall(Service::Certify, false);
    soon(proxy.handle().ready()).await;
    let mut tcp = TcpStream::connect(proxy.addrs().inbound).await.unwrap();
    tcp.write_all(b"\0").await.unwrap();
    // It is no mesh TLS: the direct port refuses it.
    assert!(matches!(soon(tcp.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}
