//! Servers that mean harm: the same floods and bombs, from the side that a client's request opened the way to.
//!
//! Budget: as for clients; the request is answered by the proxy, and the next server is served by it.

use crate::{
    frames::*,
    harness::soon,
    lab::status,
    measure::{Meter, alone, say},
    mesh::{Mesh, get, naming},
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use weft_model::policy::inbound::DefaultPolicy;
use weft_testkit::{http2, policy::inbound};

/// Bytes of memory, of the whole process.
const MEMORY: usize = 12 << 20;
/// Processor time, in ordinary requests.
const REQUESTS: f64 = 1000.0;
/// Bytes that the proxy may take of a server before it leaves.
const TAKEN: usize = 4 << 20;

/// A server that waits for the first request and then says `first`, and `again` for ever. How many bytes it got rid of, of
/// which as many as the kernel holds were never read, is sent once it is left.
async fn server(first: Vec<u8>, again: Vec<u8>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, left) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (first, again, told) = (first.clone(), again.clone(), told.clone());
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.into_split();
                // Until a whole head of a request is there.
                let mut held = vec![];
                let asked =
                    |held: &[u8]| held.windows(4).any(|part| part == [HEADERS, 5, 0, 0] || part == [HEADERS, 4, 0, 0]);
                while !asked(&held) && from.read_buf(&mut held).await.is_ok_and(|n| n > 0) {}
                let reading = tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while from.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
                });
                let batch = again.repeat(1 + 16_000 / again.len().max(1));
                let mut sent = 0;
                let mut next = [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[]), first].concat();
                while sent < 64 << 20 && to.write_all(&next).await.is_ok() {
                    sent += next.len();
                    next.clone_from(&batch);
                }
                reading.abort();
                let _ = told.send(sent);
            });
        }
    });
    (addr, left)
}

#[test]
fn floods_and_bombs_of_servers_end() {
    alone(module_path!(), "floods_and_bombs_of_servers_end", async || {
        let mesh = Mesh::start().await;
        let good = naming("good").await;
        mesh.control.set_inbound(good.addr().port(), inbound(DefaultPolicy::AllUnauthenticated));
        let mut other = http2::Client::over(mesh.app.connect_inbound(good.addr()).await).await.unwrap();
        let mut ordinary = std::time::Duration::ZERO;
        for _ in 0..2 {
            let meter = Meter::start();
            for _ in 0..50 {
                assert_eq!(status(&mut other).await, Some(200));
            }
            ordinary = meter.stop().cpu / 50;
        }
        let kept = [&[0x88, 0x40, 1, b'x'][..], &integer(4000, 7), &[b'v'; 4000], &[0x80 | 62; 12_000]].concat();
        let promise = frame(PUSH_PROMISE, END_HEADERS, 1, &[&2_u32.to_be_bytes()[..], HANGING].concat());
        let head = frame(HEADERS, END_HEADERS, 1, &[0x88]);
        let nothing = Vec::new;
        let servers: [(&str, Vec<u8>, Vec<u8>); 14] = [
            ("pings", nothing(), frame(PING, 0, 0, &[0; 8])),
            ("settings", nothing(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])),
            ("answers to no settings", nothing(), frame(SETTINGS, ACK, 0, &[])),
            ("windows", nothing(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
            ("priorities", nothing(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
            ("resets", nothing(), reset(1)),
            ("goodbyes", nothing(), frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])),
            ("frames of no kind", nothing(), frame(99, 0, 0, &[])),
            ("empty data", head.clone(), frame(DATA, 0, 1, &[])),
            ("promises", nothing(), promise),
            (
                "a head without end",
                frame(HEADERS, 0, 1, &[0x88]),
                frame(CONTINUATION, 0, 1, &field(b"x", &[b'v'; 4000])),
            ),
            ("a head of nothing", frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, 0, 1, &[])),
            ("a bomb", frame(HEADERS, END_HEADERS, 1, &kept), frame(PING, 0, 0, &[0; 8])),
            ("interim heads", nothing(), frame(HEADERS, END_HEADERS, 1, &field(b":status", b"103"))),
        ];
        for (what, first, again) in servers {
            let (addr, mut left) = server(first, again).await;
            mesh.control.set_inbound(addr.port(), inbound(DefaultPolicy::AllUnauthenticated));
            let mut client = http2::Client::over(mesh.app.connect_inbound(addr).await).await.unwrap();
            let meter = Meter::start();
            let answer = soon(client.call(get())).await;
            let told = match &answer {
                Ok(answer) => format!("{}", answer.head.status),
                Err(error) => format!("{error:#}"),
            };
            let sent = soon(left.recv()).await.unwrap();
            let spent = meter.stop();
            let requests = spent.cpu.as_secs_f64() / ordinary.as_secs_f64();
            say(&format!("{what}: {told} after {sent} bytes; {requests:.0} requests, {} KiB", spent.resident / 1024));
            assert!(
                answer.is_err() || answer.is_ok_and(|answer| answer.head.status.is_server_error()),
                "{what}: {told}"
            );
            assert!(sent <= TAKEN + (6 << 20), "{what}: it takes {sent} bytes, the kernel's included");
            assert!(requests <= REQUESTS, "{what}: {requests} requests");
            assert!(spent.resident <= MEMORY, "{what}: {} bytes", spent.resident);
            assert_eq!(status(&mut other).await, Some(200), "{what}: others are served");
        }
    });
}
