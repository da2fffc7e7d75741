//! Copying between real connections, plain and TLS.

use super::*;
use crate::tls::test::{Ca, expecting, handshake, tcp_pair};
use std::{cell::RefCell, rc::Rc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "server.test";

/// Both ends of a connection: the near one for the test, the far one for the copy.
async fn pair(tls: bool) -> (Stream, Stream) {
    if !tls {
        let (a, b) = tcp_pair().await;
        return (a.into(), b.into());
    }
    let store = Ca::new("root").store(NAME);
    let (connected, accepted) = handshake(&store, &store, &expecting(NAME)).await;
    (connected.unwrap().0, accepted.unwrap().0)
}

/// Runs `test` on the near ends of two connections that are copied into one another.
async fn copied<T>(tls: (bool, bool), test: impl AsyncFnOnce(Stream, Stream) -> T) -> (Outcome, Vec<(Side, usize)>, T) {
    let ((client, mut a), (server, mut b)) = (pair(tls.0).await, pair(tls.1).await);
    let counted = Rc::new(RefCell::new(Vec::new()));
    let copy = async {
        // Dropped at the end, as the proxy does.
        let outcome = duplex(&mut a, &mut b, |side, n| counted.borrow_mut().push((side, n))).await;
        drop((a, b));
        outcome
    };
    let (outcome, result) = tokio::join!(copy, test(client, server));
    let counted = counted.take();
    for (side, bytes) in [(Side::A, outcome.a_to_b), (Side::B, outcome.b_to_a)] {
        let sum: usize = counted.iter().filter(|(s, _)| *s == side).map(|(_, n)| n).sum();
        assert_eq!(sum as u64, bytes);
    }
    (outcome, counted, result)
}

const KINDS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// Small numbers that look random but are the same each time.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect()
}

async fn write_chunks(to: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8], seed: u64) {
    let (mut lcg, mut at) = (Lcg(seed), 0);
    while at < bytes.len() {
        let n = [1, 100, 5_000, 20_000, 300_000][lcg.below(5)].min(bytes.len() - at);
        to.write_all(&bytes[at..at + n]).await.unwrap();
        at += n;
        if lcg.below(4) == 0 {
            to.flush().await.unwrap();
            tokio::task::yield_now().await;
        }
    }
    to.shutdown().await.unwrap();
}

async fn read_chunks(from: &mut (impl tokio::io::AsyncRead + Unpin), seed: u64) -> Vec<u8> {
    let (mut lcg, mut all) = (Lcg(seed), Vec::new());
    loop {
        let mut chunk = vec![0; 1 + lcg.below(100_000)];
        match from.read(&mut chunk).await.unwrap() {
            0 => return all,
            n => all.extend_from_slice(&chunk[..n]),
        }
    }
}

#[tokio::test]
async fn bytes_arrive_whole_under_any_chunking() {
    for (seed, tls) in (0..).zip(KINDS.into_iter().cycle().take(12)) {
        let (up, down) = (pattern(1_000_000 + 37), pattern(700_001));
        let (outcome, _, ()) = copied(tls, async |client, server| {
            let ((mut cr, mut cw), (mut sr, mut sw)) = (tokio::io::split(client), tokio::io::split(server));
            let ((), got_up, (), got_down) = tokio::join!(
                write_chunks(&mut cw, &up, seed),
                read_chunks(&mut sr, seed + 1),
                write_chunks(&mut sw, &down, seed + 2),
                read_chunks(&mut cr, seed + 3),
            );
            assert!(got_up == up, "{tls:?} {seed}");
            assert!(got_down == down, "{tls:?} {seed}");
        })
        .await;
        outcome.result.unwrap();
        assert_eq!((outcome.a_to_b, outcome.b_to_a), (1_000_037, 700_001));
    }
}

#[tokio::test]
async fn a_half_close_leaves_the_other_half() {
    for tls in KINDS {
        let (outcome, _, ()) = copied(tls, async |mut client, mut server| {
            client.write_all(b"request").await.unwrap();
            client.shutdown().await.unwrap();
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.unwrap();
            assert_eq!(request, b"request");
            // Long after the client's half has ended.
            for _ in 0..3 {
                server.write_all(b"answer").await.unwrap();
                server.flush().await.unwrap();
                let mut answer = [0; 6];
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"answer");
            }
            server.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        })
        .await;
        outcome.result.unwrap();
        assert_eq!((outcome.a_to_b, outcome.b_to_a), (7, 18));
    }
}

#[tokio::test]
async fn what_was_put_back_is_copied_first() {
    let ((mut client, mut a), (mut b, mut server)) = (pair(false).await, pair(true).await);
    a.unread(bytes::Bytes::from_static(b"or"));
    a.unread(bytes::Bytes::from_static(b"bef"));
    client.write_all(b"e").await.unwrap();
    client.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    let mut got = Vec::new();
    let (outcome, read) = tokio::join!(
        async {
            let outcome = duplex(&mut a, &mut b, |_, _| {}).await;
            drop((a, b));
            outcome
        },
        server.read_to_end(&mut got)
    );
    read.unwrap();
    assert_eq!((got.as_slice(), outcome.a_to_b), (&b"before"[..], 6));
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for tls in KINDS {
        for from_client in [true, false] {
            let (outcome, _, error) = copied(tls, async |client, server| {
                let (mut near, mut far) = if from_client { (client, server) } else { (server, client) };
                near.write_all(b"x").await.unwrap();
                near.flush().await.unwrap();
                far.read_u8().await.unwrap();
                near.reset_on_close();
                drop(near);
                far.read_u8().await.unwrap_err()
            })
            .await;
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{tls:?} {from_client}");
            let failure = outcome.result.unwrap_err();
            let side = if from_client { Side::A } else { Side::B };
            assert_eq!((failure.side, failure.operation), (side, Operation::Read), "{tls:?}: {failure}");
        }
    }
}

/// The kernel tells of a reset only once: to a read behind a write that was told, it looks like an end.
#[tokio::test]
async fn a_reset_that_a_write_meets_first_is_passed_on_as_well() {
    for tls in KINDS {
        for from_client in [true, false] {
            let (outcome, _, error) = copied(tls, async |client, server| {
                let (mut near, mut far) = if from_client { (client, server) } else { (server, client) };
                near.write_all(b"x").await.unwrap();
                near.flush().await.unwrap();
                far.read_u8().await.unwrap();
                // Together, so that the copy has something to write once it can find the reset.
                near.reset_on_close();
                drop(near);
                far.write_all(b"y").await.unwrap();
                far.flush().await.unwrap();
                far.read_u8().await.unwrap_err()
            })
            .await;
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{tls:?} {from_client}");
            let failure = outcome.result.unwrap_err();
            let side = if from_client { Side::A } else { Side::B };
            assert_eq!((failure.side, failure.operation), (side, Operation::Read), "{tls:?}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_cut_of_tls_is_not_an_end() {
    let (outcome, _, error) = copied((true, false), async |mut client, mut server| {
        client.write_all(b"x").await.unwrap();
        client.flush().await.unwrap();
        server.read_u8().await.unwrap();
        // FIN without close_notify, as somebody in between could send it.
        drop(client);
        server.read_u8().await.unwrap_err()
    })
    .await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(outcome.result.unwrap_err().source.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn what_was_answered_arrives_though_the_request_cannot() {
    for tls in KINDS {
        let (outcome, _, ()) = copied(tls, async |client, mut server| {
            let (mut reader, mut writer) = tokio::io::split(client);
            server.write_all(&pattern(100_000)).await.unwrap();
            server.shutdown().await.unwrap();
            drop(server);
            let refused = async {
                while writer.write_all(&[0; 10_000]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            let (answer, ()) = tokio::join!(read_chunks(&mut reader, 1), refused);
            assert!(answer == pattern(100_000), "{tls:?}");
        })
        .await;
        let failure = outcome.result.unwrap_err();
        assert_eq!(failure.side, Side::B, "{tls:?}: {failure}");
        assert_eq!(outcome.b_to_a, 100_000);
    }
}

#[tokio::test]
async fn an_idle_direction_holds_no_buffer() {
    let (mut near, mut from) = tokio::io::duplex(1 << 20);
    let (mut to, mut far) = tokio::io::duplex(1 << 20);
    let mut direction = direction::Direction::default();
    let mut sizes = Vec::new();
    for n in [0, 1, 1_000_000, 1_000_000, 10, 10, 10, 10] {
        near.write_all(&vec![7; n]).await.unwrap();
        let mut largest = 0;
        let polled =
            poll_fn(|cx| Poll::Ready(direction.poll(cx, &mut from, &mut to, |written| largest = largest.max(written))))
                .await;
        assert!(polled.is_pending());
        assert!(direction.is_idle());
        far.read_exact(&mut vec![0; n]).await.unwrap();
        sizes.push(largest);
    }
    assert_eq!(sizes, [0, 1, 262_144, 262_144, 10, 10, 10, 10]);
}
