//! Clients that break the rules or flood, written byte by byte against a served connection.

use super::fake::{Fake, client, get, local, ok, read, server, until, write};
use crate::error::Code;
use bytes::Bytes;
use h2::Reason;
use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, tcp::OwnedReadHalf},
};
use weft_testkit::frames::{PREFACE, frame};

/// `:method GET`, `:scheme http`, `:path /`, `:authority a`.
const REQUEST: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

fn request(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, REQUEST)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

/// The code of the GOAWAY that the server ends the connection with.
async fn goaway(mut from: OwnedReadHalf) -> Option<Reason> {
    let mut code = None;
    let mut head = [0; 9];
    while from.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        if from.read_exact(&mut payload).await.is_err() {
            break;
        }
        if head[3] == 7 {
            code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()).into());
        }
    }
    code
}

/// Sends `bytes` until the server does not take them any more; how it ended the connection.
async fn attack(addr: SocketAddr, bytes: impl IntoIterator<Item = Vec<u8>>) -> Option<Reason> {
    let (from, mut to) = TcpStream::connect(addr).await.unwrap().into_split();
    let code = tokio::task::spawn_local(goaway(from));
    to.write_all(PREFACE).await.unwrap();
    to.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut batch = Vec::new();
    for bytes in bytes {
        batch.extend(bytes);
        if batch.len() > 16_000 {
            if to.write_all(&batch).await.is_err() {
                break;
            }
            batch.clear();
        }
    }
    let _ = to.write_all(&batch).await;
    code.await.unwrap()
}

/// A proxy in front of a server that never answers; the most streams that were open there at once.
async fn target() -> (SocketAddr, Rc<Cell<usize>>, Rc<Fake>) {
    struct Open(Rc<Cell<usize>>);
    impl Drop for Open {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    let most = Rc::new(Cell::new(0_usize));
    let now = Rc::new(Cell::new(0_usize));
    let high = most.clone();
    let server = server(move |_, mut respond| {
        now.set(now.get() + 1);
        high.set(high.get().max(now.get()));
        let open = Open(now.clone());
        async move {
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            drop(open);
        }
    })
    .await;
    let fake = Fake::to_http2(server);
    (fake.serve_http2().await, most, fake)
}

const CALM: Option<Reason> = Some(Reason::ENHANCE_YOUR_CALM);

#[test]
fn rapid_reset_ends_and_the_server_sees_little() {
    local(async {
        let (addr, most, fake) = target().await;
        let flood = (0..1_000_000_u32).map(|n| [request(2 * n + 1), reset(2 * n + 1)].concat());
        assert_eq!(attack(addr, flood).await, CALM);
        until(|| *fake.refused.borrow() == [Code::Http2Violation]).await;
        assert!(most.get() <= 1000, "{} streams", most.get());
    });
}

#[test]
fn made_you_reset_ends() {
    // Each makes the server reset the stream: a window that overflows, one that grows by nothing, data behind the end, a
    // second head, a stream that depends on itself.
    let primitives: [fn(u32) -> Vec<u8>; 4] = [
        |stream| [request(stream), frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff])].concat(),
        |stream| [request(stream), frame(8, 0, stream, &[0, 0, 0, 0])].concat(),
        |stream| [frame(1, 5, stream, REQUEST), frame(0, 0, stream, b"x")].concat(),
        |stream| [frame(1, 5, stream, REQUEST), frame(1, 5, stream, REQUEST)].concat(),
    ];
    for (n, primitive) in primitives.into_iter().enumerate() {
        local(async move {
            let (addr, most, _fake) = target().await;
            let code = attack(addr, (0..100_000_u32).map(|n| primitive(2 * n + 1))).await;
            assert!(code.is_some_and(|code| code != Reason::NO_ERROR), "primitive {n}: {code:?}");
            assert!(most.get() <= 2000, "primitive {n}: {} streams", most.get());
        });
    }
}

#[test]
fn more_streams_than_allowed_end_in_calm() {
    local(async {
        let (addr, most, _fake) = target().await;
        let code = attack(addr, (0..100_000_u32).map(|n| request(2 * n + 1))).await;
        assert_eq!(code, CALM);
        assert!(most.get() <= 1000, "{} streams", most.get());
    });
}

#[test]
fn floods_end_in_calm() {
    let open = || request(1);
    let floods: [(&str, Vec<u8>, Vec<u8>); 7] = [
        ("ping", vec![], frame(6, 0, 0, &[0; 8])),
        ("settings", vec![], frame(4, 0, 0, &[])),
        ("empty data", open(), frame(0, 0, 1, &[])),
        ("priority", vec![], frame(2, 0, 1, &[0, 0, 0, 3, 1])),
        ("window update", open(), frame(8, 0, 1, &[0, 0, 0, 1])),
        ("continuation", frame(1, 0, 1, &[]), frame(9, 0, 1, &[0x90; 100])),
        ("unknown", vec![], frame(99, 0, 0, &[1; 100])),
    ];
    for (name, first, again) in floods {
        local(async move {
            let (addr, _, _fake) = target().await;
            let flood = std::iter::once(first).chain(std::iter::repeat_n(again, 1_000_000));
            assert_eq!(attack(addr, flood).await, CALM, "{name}");
        });
    }
}

#[test]
fn wrong_frames_end_with_their_code() {
    let size = Some(Reason::FRAME_SIZE_ERROR);
    let protocol = Some(Reason::PROTOCOL_ERROR);
    let cases: [(&str, Vec<u8>, Option<Reason>); 8] = [
        ("ping of 7 bytes", frame(6, 0, 0, &[0; 7]), size),
        ("settings of 5 bytes", frame(4, 0, 0, &[0; 5]), size),
        ("ack with content", frame(4, 1, 0, &[0; 6]), size),
        ("window update of 3 bytes", frame(8, 0, 0, &[0; 3]), size),
        ("reset of 5 bytes", frame(3, 0, 1, &[0; 5]), size),
        ("frame above the limit", frame(99, 0, 0, &vec![0; 16_385]), size),
        ("data on stream 0", frame(0, 0, 0, b"x"), protocol),
        ("reset of an idle stream", reset(9), protocol),
    ];
    for (name, bytes, code) in cases {
        local(async move {
            let (addr, _, _fake) = target().await;
            assert_eq!(attack(addr, [bytes]).await, code, "{name}");
        });
    }
}

/// A few bytes that stand for megabytes of headers: one entry of the dynamic table, named again and again.
#[test]
fn a_header_bomb_is_refused() {
    local(async {
        let (addr, most, _fake) = target().await;
        let mut block = REQUEST.to_vec();
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]); // A value of 4000 bytes, kept in the table.
        block.extend(std::iter::repeat_n(b'v', 4000));
        block.extend(std::iter::repeat_n(0x80 | 62, 12_000));
        let (from, mut to) = TcpStream::connect(addr).await.unwrap().into_split();
        let code = tokio::task::spawn_local(goaway(from));
        let bytes = [PREFACE, &frame(4, 0, 0, &[]), &frame(1, 5, 1, &block[..16_384.min(block.len())])].concat();
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
        let _ = code.await.unwrap();
        assert_eq!(most.get(), 0, "the server saw the request");
    });
}

#[test]
fn cancelling_calls_that_run_is_no_abuse() {
    local(async {
        let server = server(|request, mut respond| async move {
            let mut send = respond.send_response(ok(), false).unwrap();
            let _ = read(&mut request.into_body()).await;
            let _ = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
        });
        let fake = Fake::to_http2(server.await);
        let mut client = fake.client().await;
        for _ in 0..5_000 {
            client = client.ready().await.unwrap();
            let (response, mut send) = client.send_request(get("/"), false).unwrap();
            response.await.unwrap();
            send.send_reset(Reason::CANCEL);
        }
        let (response, _send) = client.ready().await.unwrap().send_request(get("/"), false).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

#[test]
fn an_attacked_worker_serves_others() {
    local(async {
        let server = server(|_, mut respond| async move {
            respond.send_response(ok(), true).unwrap();
        });
        let fake = Fake::to_http2(server.await);
        let addr = fake.serve_http2().await;
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        tokio::task::spawn_local(async move {
            attack(addr, (0..1_000_000_u32).map(|n| [request(2 * n + 1), reset(2 * n + 1)].concat())).await;
            told.set(true);
        });
        let mut client = client(addr).await;
        for _ in 0..100 {
            let (response, _send) = client.send_request(get("/"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
            client = client.ready().await.unwrap();
        }
        until(|| done.get()).await;
    });
}

/// They share the connection to the endpoint with everybody, and each leaves a stream's window unread.
#[test]
fn slow_readers_hold_up_nobody_else() {
    local(async {
        let sent = Rc::new(Cell::new(0));
        let counted = sent.clone();
        let server = server(move |request, mut respond| {
            let sent = counted.clone();
            async move {
                let mut send = respond.send_response(ok(), false).unwrap();
                let pieces = if request.uri().path() == "/large" { 100 } else { 1 };
                for n in 1..=pieces {
                    write(&mut send, Bytes::from_static(&[7; 10_000]), n == pieces).await.unwrap();
                    sent.set(sent.get() + 10_000);
                }
            }
        });
        let fake = Fake::to_http2(server.await);
        let addr = fake.serve_http2().await;
        let mut slow = vec![];
        for _ in 0..40 {
            let (response, _send) = client(addr).await.send_request(get("/large"), true).unwrap();
            slow.push(response.await.unwrap());
        }
        let (mut before, mut still) = (0, 0);
        while still < 50 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            still = if sent.get() == before { still + 1 } else { 0 };
            before = sent.get();
        }
        for _ in 0..3 {
            let (response, _send) = client(addr).await.send_request(get("/"), true).unwrap();
            let answer = async { read(response.await.unwrap().body_mut()).await.unwrap() };
            let (body, _) = tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer");
            assert_eq!(body.len(), 10_000);
        }
        assert_eq!(fake.connections.get(), 1, "all share one");
        // Nobody was let off: the slow are read on as far as they like.
        let (rest, _) = read(slow.pop().unwrap().body_mut()).await.unwrap();
        assert_eq!(rest.len(), 1_000_000);
    });
}
