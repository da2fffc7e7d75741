//! Handshakes that never come to their end: hellos in the smallest pieces, of endless length, and with every byte wrong once.
//!
//! Budget: the processor time of a few handshakes for each, and memory that a connection may hold.

use crate::{
    harness::soon,
    measure::{Meter, alone, say},
    mesh::{Mesh, get, naming},
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_testkit::http2;

/// The records of a client's first flight to `app`, as its library would send them.
async fn hello(mesh: &Mesh) -> Vec<u8> {
    let (mut server, client) = pair().await;
    let store = mesh.store("web");
    let name = mesh.server();
    let connecting = tokio::spawn(async move { store.connect(client, &name, false).await.map(drop) });
    let mut head = [0; 5];
    soon(server.read_exact(&mut head)).await.unwrap();
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    soon(server.read_exact(&mut rest)).await.unwrap();
    connecting.abort();
    [&head[..], &rest].concat()
}

/// Both ends of a connection.
async fn pair() -> (tokio::net::TcpStream, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// The same handshake message in records of `size` bytes each.
fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
    hello[5..]
        .chunks(size)
        .flat_map(|piece| [&[22, 3, 1][..], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat())
        .collect()
}

/// Writes `bytes` in pieces of `size`, and returns how many bytes came back before the end, or by the time that something did.
async fn answered(mesh: &Mesh, addr: std::net::SocketAddr, bytes: &[u8], size: usize) -> usize {
    let mut tcp = mesh.app.connect_inbound(addr).await;
    tcp.set_nodelay(true).unwrap();
    for piece in bytes.chunks(size) {
        // It may have been refused already.
        if tcp.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut buffer = [0; 4096];
    soon(tcp.read(&mut buffer)).await.unwrap_or(0)
}

#[test]
fn handshakes_that_do_not_end_cost_little() {
    alone(module_path!(), "handshakes_that_do_not_end_cost_little", async || {
        let mesh = Mesh::with(
            &[],
            &[("LINKERD2_PROXY_INBOUND_DETECT_TIMEOUT", "500ms"), ("WEFT_PROXY_INBOUND_SERVER_FIRST_WAIT", "0")],
        )
        .await;
        let origin = naming("app").await;
        let addr = origin.addr();
        mesh.control.set_inbound(
            addr.port(),
            weft_testkit::policy::inbound(weft_model::policy::inbound::DefaultPolicy::AllUnauthenticated),
        );
        let store = mesh.store("web");
        let shake = async || {
            let tcp = mesh.app.connect_inbound(addr).await;
            let (stream, _) = soon(store.connect(tcp, &mesh.server(), false)).await.unwrap();
            let mut client = http2::Client::over(stream).await.unwrap();
            assert_eq!(soon(client.call(get())).await.unwrap().head.status, 200);
        };
        for _ in 0..3 {
            shake().await;
        }
        let meter = Meter::start();
        for _ in 0..10 {
            shake().await;
        }
        let ordinary = meter.stop().cpu / 10;
        let hello = hello(&mesh).await;

        // However it is cut, by the sender or by the network, a server's hello comes back.
        for (records, pieces) in [(1, 1), (1, 64), (7, 3), (100, 1000), (16_000, 1)] {
            let answer = answered(&mesh, addr, &fragmented(&hello, records), pieces).await;
            assert!(answer > 0, "records of {records} bytes in pieces of {pieces} are no hello");
        }
        // A hello of the longest length, in the smallest records, whose end never comes; and one that is longer than any.
        let endless =
            |length: u32, body: usize| [&[1][..], &length.to_be_bytes()[1..], &hello[9..], &vec![0; body]].concat();
        let cases: [(&str, Vec<u8>); 6] = [
            ("records of one byte", fragmented(&[&[0; 5][..], &endless(0xffff, 30_000)].concat(), 1)),
            ("large records", fragmented(&[&[0; 5][..], &endless(0xff_ffff, 200_000)].concat(), 16_000)),
            ("empty records", [22, 3, 1, 0, 0].repeat(10_000)),
            ("alerts that warn", [21, 3, 1, 0, 2, 1, 0].repeat(10_000)),
            ("changes of cipher", [20, 3, 1, 0, 1, 1].repeat(10_000)),
            ("a record that is too large", [&[22, 3, 1, 0xff, 0xff][..], &vec![1; 70_000]].concat()),
        ];
        for (what, bytes) in &cases {
            let meter = Meter::start();
            let answer = answered(&mesh, addr, bytes, 4096).await;
            let spent = meter.stop();
            let handshakes = spent.cpu.as_secs_f64() / ordinary.as_secs_f64();
            say(&format!(
                "{what}: {answer} bytes came back, {handshakes:.1} handshakes, {} KiB",
                spent.resident / 1024
            ));
            assert!(handshakes <= 20.0, "{what}: {handshakes} handshakes");
            assert!(spent.resident <= 4 << 20, "{what}: {} bytes", spent.resident);
        }
        // Every byte is wrong once: nobody is let in, and the next is served.
        let meter = Meter::start();
        let (mut wrong, step) = (0, 7);
        for at in (0..hello.len()).step_by(step) {
            let mut changed = hello.clone();
            changed[at] ^= 0x55;
            let mut tcp = mesh.app.connect_inbound(addr).await;
            tcp.write_all(&changed).await.unwrap();
            tcp.shutdown().await.unwrap();
            let mut rest = vec![];
            // Reset or closed.
            let _ = tokio::time::timeout(Duration::from_secs(60), tcp.read_to_end(&mut rest)).await.unwrap();
            wrong += 1;
        }
        let each = meter.stop().cpu.as_secs_f64() / ordinary.as_secs_f64() / f64::from(wrong);
        say(&format!("{wrong} hellos with one wrong byte: {each:.1} handshakes each"));
        assert!(each <= 3.0, "{each} handshakes for each wrong hello");
        shake().await;
    });
}
