//! How connections of bytes end, through both proxies: an end is passed on as an end, a cut as a cut, in either direction and
//! in any order.

use crate::{
    harness::{eventually, soon},
    mesh::Mesh,
};
use std::io::ErrorKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};
use weft_model::{Endpoint, ProtocolHint};

/// What one side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Say(&'static [u8]),
    /// Ends its sending half.
    End,
    /// Resets.
    Cut,
}

/// What the other side then reads.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    Bytes(Vec<u8>),
    End,
    Cut,
}

async fn act(tcp: &mut Option<TcpStream>, act: Act) {
    match (act, tcp.as_mut()) {
        (Act::Say(bytes), Some(tcp)) => tcp.write_all(bytes).await.unwrap(),
        (Act::End, Some(tcp)) => tcp.shutdown().await.unwrap(),
        (Act::Cut, Some(open)) => {
            open.set_zero_linger().unwrap();
            *tcp = None;
        }
        (_, None) => panic!("it is cut already"),
    }
}

async fn see(tcp: &mut Option<TcpStream>, wanted: usize) -> Saw {
    let mut bytes = vec![0; wanted.max(1)];
    match soon(tcp.as_mut().unwrap().read_exact(&mut bytes)).await {
        Ok(_) => Saw::Bytes(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Saw::End,
        Err(_) => Saw::Cut,
    }
}

/// Client and server, connected through the pair.
async fn connected(mesh: &Mesh) -> [Option<TcpStream>; 2] {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let service = mesh.opaque(&[mesh.endpoint(listener.local_addr().unwrap(), ProtocolHint::Opaque)]);
    let (client, server) = tokio::join!(mesh.connect(&service), listener.accept());
    [Some(client), Some(server.unwrap().0)]
}

#[tokio::test]
async fn every_order_of_ends_and_cuts_passes() {
    let mesh = Mesh::start().await;
    // Side 0 is the client. Each step is seen on the other side before the next one.
    let orders: &[&[(usize, Act)]] = &[
        &[(0, Act::End), (1, Act::End)],
        &[(1, Act::End), (0, Act::End)],
        &[(0, Act::Cut)],
        &[(1, Act::Cut)],
        &[(0, Act::End), (1, Act::Say(b"late")), (1, Act::End)],
        &[(1, Act::End), (0, Act::Say(b"late")), (0, Act::End)],
        &[(0, Act::End), (1, Act::Cut)],
        &[(1, Act::End), (0, Act::Cut)],
        &[(0, Act::Say(b"a")), (0, Act::Cut)],
        &[(1, Act::Say(b"a")), (1, Act::Cut)],
        &[(0, Act::Say(b"a")), (1, Act::Say(b"b")), (0, Act::End), (1, Act::End)],
        &[(0, Act::Say(b"a")), (1, Act::Say(b"b")), (1, Act::End), (0, Act::Say(b"c")), (0, Act::End)],
        &[(0, Act::Say(b"a")), (0, Act::End), (1, Act::Say(b"b")), (1, Act::Cut)],
        &[(1, Act::Say(b"a")), (1, Act::End), (0, Act::Say(b"b")), (0, Act::Cut)],
        &[(0, Act::Say(b"a")), (1, Act::Cut)],
        &[(1, Act::Say(b"a")), (0, Act::Cut)],
    ];
    for order in orders {
        let mut sides = connected(&mesh).await;
        for (side, does) in *order {
            act(&mut sides[*side], *does).await;
            let expected = match does {
                Act::Say(bytes) => Saw::Bytes(bytes.to_vec()),
                Act::End => Saw::End,
                Act::Cut => Saw::Cut,
            };
            let wanted = if let Act::Say(bytes) = does { bytes.len() } else { 0 };
            assert_eq!(see(&mut sides[1 - side], wanted).await, expected, "{does:?} of side {side} in {order:?}");
        }
    }
    for proxy in [&mesh.web, &mesh.app] {
        eventually("nothing stays open", || proxy.metric("tcp_open_connections{") == 0.0).await;
    }
}

/// Writes all along, and says how the other side's cut looks: the kernel tells it either to a write or to a read.
async fn writes_until_it_is_over(tcp: TcpStream) -> Saw {
    let (mut reader, mut writer) = tcp.into_split();
    let writing = async {
        loop {
            if let Err(error) = writer.write_all(&[7; 10_000]).await {
                return error.kind();
            }
        }
    };
    let (read, wrote) = soon(async { tokio::join!(reader.read_u8(), writing) }).await;
    let read = read.unwrap_err().kind();
    if [read, wrote].contains(&ErrorKind::ConnectionReset) { Saw::Cut } else { Saw::End }
}

/// Where a proxy's write meets a reset, the kernel tells no read of it: it is a cut all the same.
#[tokio::test]
async fn a_cut_under_writes_is_no_end() {
    let mesh = Mesh::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let pair = mesh.opaque(&[mesh.endpoint(addr, ProtocolHint::Opaque)]);
    let alone = mesh.opaque(&[Endpoint::plain(addr)]);
    for (service, what) in [(&pair, "both proxies"), (&alone, "one proxy")] {
        for round in 0..40 {
            let (client, server) = tokio::join!(mesh.connect(service), listener.accept());
            let (client, server) = (client, server.unwrap().0);
            let server_cuts = round % 2 == 0;
            let (writes, mut cuts) = if server_cuts { (client, server) } else { (server, client) };
            let cut = async {
                soon(cuts.read_exact(&mut vec![0; 100_000])).await.unwrap();
                act(&mut Some(cuts), Act::Cut).await;
            };
            let (saw, ()) = tokio::join!(writes_until_it_is_over(writes), cut);
            assert_eq!(saw, Saw::Cut, "{what}, round {round}, by the server: {server_cuts}");
        }
    }
    for proxy in [&mesh.web, &mesh.app] {
        eventually("nothing stays open", || proxy.metric("tcp_open_connections{") == 0.0).await;
    }
}

/// What was sent before a side ends is all delivered, however much it is.
#[tokio::test]
async fn an_end_waits_for_what_was_sent_before_it() {
    let mesh = Mesh::start().await;
    let [mut client, server] = connected(&mesh).await;
    let sent = vec![7; 4 << 20];
    let mut server = server.unwrap();
    let (all, ()) = tokio::join!(
        async {
            let mut all = vec![];
            soon(server.read_to_end(&mut all)).await.unwrap();
            all
        },
        async {
            client.as_mut().unwrap().write_all(&sent).await.unwrap();
            client.as_mut().unwrap().shutdown().await.unwrap();
        }
    );
    assert_eq!(all.len(), sent.len());
    server.write_all(b"and back").await.unwrap();
    drop(server);
    assert_eq!(see(&mut client, 8).await, Saw::Bytes(b"and back".to_vec()));
    assert_eq!(see(&mut client, 0).await, Saw::End);
}

/// Nothing but the next connection finds out that a server is back, however long it was away.
#[tokio::test]
async fn bytes_reach_a_server_that_is_back_at_once() {
    let patient = [
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MIN", "600s"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_EXP_BACKOFF_MAX", "600s"),
    ];
    let mesh = Mesh::with(&patient, &[]).await;
    let place = TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Another one never comes: each connection tries both, once.
    let service =
        mesh.opaque(&[Endpoint::plain(place.local_addr().unwrap()), Endpoint::plain(crate::harness::nobody())]);
    for _ in 0..3 {
        match mesh.web.outbound(service.addr).try_connect().await {
            Ok(client) => assert_eq!(see(&mut Some(client), 0).await, Saw::Cut),
            Err(early) => assert_eq!(early.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    mesh.web.reaches("weft_proxy_errors_total{direction=\"outbound\",code=\"CONNECT_FAILED\"}", 3.0).await;
    let listener = place.listen(8).unwrap();
    for _ in 0..3 {
        let (mut client, server) = tokio::join!(mesh.connect(&service), soon(listener.accept()));
        server.unwrap().0.write_all(b"back").await.unwrap();
        let mut said = [0; 4];
        soon(client.read_exact(&mut said)).await.unwrap();
        assert_eq!(&said, b"back");
    }
}
