//! Peers that send nonsense, cut handshakes, and bytes changed on the way: an error each time, never a panic or a secret.

use super::test::{Ca, client_hello, expecting, tcp_pair};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const NAME: &str = "server.test";

/// A number that looks random but is the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

#[tokio::test]
async fn changed_client_hellos() {
    let ca = Ca::new("root");
    let store = ca.store(NAME);
    let hello = client_hello(NAME, true);
    let mut lcg = Lcg(1);
    for round in 0..300 {
        let mut bytes = hello.clone();
        for _ in 0..1 + lcg.below(3) {
            let end = if lcg.below(2) == 0 { 120 } else { bytes.len() };
            let at = lcg.below(end);
            bytes[at] = u8::try_from(lcg.below(256)).unwrap();
        }
        bytes.truncate(if lcg.below(3) == 0 { lcg.below(bytes.len()) } else { bytes.len() });
        // Part of it read by detection, the rest from the socket, then the end.
        let rest = bytes.split_off(lcg.below(bytes.len() + 1));
        let (mut a, b) = tcp_pair().await;
        a.write_all(&rest).await.unwrap();
        a.shutdown().await.unwrap();
        let error = store.accept(b, bytes.into(), round % 2 == 0).await.unwrap_err();
        assert!(matches!(error.label(), "io" | "protocol" | "refused"), "{error}");
    }
}

/// Passes bytes on; the one at `at` is changed.
async fn relay(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    at: usize,
    flip: u8,
) {
    let (mut seen, mut buffer) = (0, vec![0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if let Some(byte) = at.checked_sub(seen).and_then(|at| buffer[..n].get_mut(at)) {
            *byte ^= flip;
        }
        seen += n;
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[tokio::test]
async fn bytes_changed_on_the_way() {
    let ca = Ca::new("root");
    let (client, server) = (ca.store("client.test"), ca.store(NAME));
    let mut lcg = Lcg(2);
    let mut completed = 0;
    for round in 0..150 {
        let ((a, mut near), (mut far, b)): ((TcpStream, TcpStream), (TcpStream, TcpStream)) =
            (tcp_pair().await, tcp_pair().await);
        let (up, at, flip) = (lcg.below(2) == 0, lcg.below(2500), u8::try_from(1 + lcg.below(255)).unwrap());
        let never = usize::MAX;
        let relays = tokio::spawn(async move {
            let ((nr, nw), (fr, fw)) = (near.split(), far.split());
            tokio::join!(
                relay(nr, fw, if up { at } else { never }, flip),
                relay(fr, nw, if up { never } else { at }, flip)
            );
        });
        let expect = expecting(NAME);
        let connect = async {
            let (mut stream, _) = client.connect(a, &expect, true).await.ok()?;
            stream.write_all(&[7; 100]).await.ok()?;
            stream.shutdown().await.ok()?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok()?;
            Some(answer)
        };
        let accept = async {
            let (mut stream, _) = server.accept(b, Bytes::new(), true).await.ok()?;
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.ok()?;
            stream.write_all(&request).await.ok()?;
            stream.shutdown().await.ok()?;
            Some(request)
        };
        // A changed length makes a side wait for bytes that never come: that is for the caller's timeout.
        let both = async { tokio::join!(connect, accept) };
        if let Ok((answer, request)) = tokio::time::timeout(Duration::from_millis(500), both).await {
            for bytes in [&answer, &request].into_iter().flatten() {
                assert_eq!(bytes, &[7; 100], "round {round}: what arrives is what was sent");
            }
            completed += usize::from(answer.is_some() && request.is_some());
        }
        relays.abort();
    }
    // The byte lay behind the end of the conversation in some rounds only.
    assert!((1..100).contains(&completed), "{completed}");
}

#[tokio::test]
async fn a_handshake_without_end() {
    let store = Ca::new("root").store(NAME);
    let (mut a, b) = tcp_pair().await;
    // A message of 64 KiB that is said to go on, in records that are whole.
    let writer = async move {
        let mut first = true;
        loop {
            let mut record = vec![22, 3, 1, 0x40, 0];
            record.resize(5 + 0x4000, 0);
            if std::mem::take(&mut first) {
                record[5..9].copy_from_slice(&[1, 0, 0xff, 0xff]);
            }
            if a.write_all(&record).await.is_err() {
                break;
            }
        }
    };
    let (_, accepted) = tokio::join!(writer, store.accept(b, Bytes::new(), false));
    assert_eq!(accepted.unwrap_err().label(), "protocol");
}

#[tokio::test]
async fn the_futures_are_small() {
    let store = Ca::new("root").store(NAME);
    let ((a, b), expect) = (tcp_pair().await, expecting(NAME));
    let sizes = (size_of_val(&store.connect(a, &expect, false)), size_of_val(&store.accept(b, Bytes::new(), false)));
    assert!(sizes.0 <= 2048 && sizes.1 <= 2048, "{sizes:?}");
}
