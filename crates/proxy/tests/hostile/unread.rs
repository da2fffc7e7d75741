//! Clients that ask for much and read nothing: what is held for them is bounded, and nobody waits behind them.
//!
//! Budget: a window's worth of memory for each stream, and less than that where they share a connection; as much processor time as a
//! few ordinary exchanges. It holds for clients that
//! keep their windows closed, and for those that open them as wide as they go and leave the socket unread (CVE-2019-9517).

use crate::{
    cost::Cost,
    frames::*,
    harness::{eventually, soon},
    lab::status,
    measure::{alone, resident, say},
    mesh::Mesh,
};
use bytes::Bytes;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::io::AsyncWriteExt;
use weft_model::ProtocolHint;
use weft_testkit::http2;

/// Requests that one client makes and whose answers it does not read.
const STREAMS: u32 = 100;
/// Bytes of each answer.
const LARGE: usize = 4 << 20;
/// Bytes that each may hold in this process, origin and both proxies together.
const EACH: usize = 256 * 1024;
/// Ordinary exchanges that each may cost in processor time.
const MOST: f64 = 20.0;
/// Others that are served meanwhile.
const OTHERS: usize = 100;

/// Of every stream, by SETTINGS, and of the connection, behind them.
fn windows(wide: bool) -> Vec<u8> {
    let [a, b, c, d] = if wide { i32::MAX.to_be_bytes() } else { [0; 4] };
    let mut bytes = frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d]);
    if wide {
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(i32::MAX - 65_535).to_be_bytes()));
    }
    bytes
}

#[test]
fn answers_that_nobody_reads_hold_nobody_up() {
    alone(module_path!(), "answers_that_nobody_reads_hold_nobody_up", async || unread(false).await);
}

#[test]
fn answers_that_nobody_reads_off_the_socket_hold_nobody_up() {
    alone(module_path!(), "answers_that_nobody_reads_off_the_socket_hold_nobody_up", async || unread(true).await);
}

async fn unread(wide: bool) {
    let mesh = Mesh::start().await;
    let large = Bytes::from(vec![b'x'; LARGE]);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let origin = http2::Origin::start(move |request| {
        let body = if request.uri().path() == "/" {
            counted.fetch_add(1, Ordering::Relaxed);
            large.clone()
        } else {
            Bytes::from_static(b"fine")
        };
        async move { Ok(http::Response::new(http2::full(body))) }
    });
    let origin = origin.await.unwrap();
    let service = mesh.service(&[mesh.endpoint(origin.addr(), ProtocolHint::H2)]);
    for (way, dialler) in [("inbound", mesh.app.inbound(origin.addr())), ("pair", mesh.web.outbound(service.addr))] {
        let mut other = http2::Client::over(dialler.connect().await).await.unwrap();
        assert_eq!(status(&mut other).await, Some(200));
        let cost = Cost::begin(async || assert_eq!(status(&mut other).await, Some(200))).await;
        let before = (resident(), asked.load(Ordering::Relaxed));
        let mut tcp = dialler.connect().await;
        let mut bytes = [PREFACE, &windows(wide)].concat();
        bytes.extend((0..STREAMS).flat_map(|n| whole(2 * n + 1)));
        soon(tcp.write_all(&bytes)).await.unwrap();
        eventually("they are asked for", || asked.load(Ordering::Relaxed) == before.1 + STREAMS as usize).await;
        for _ in 0..OTHERS {
            assert_eq!(status(&mut other).await, Some(200), "{way}: others are served");
        }
        cost.end_beside(OTHERS, &format!("{way}: answers that nobody reads"), STREAMS as usize, MOST);
        let each = resident().saturating_sub(before.0) / STREAMS as usize;
        say(&format!("{way}: {STREAMS} answers that nobody reads hold {each} bytes each"));
        assert!(each <= EACH, "{way}: {each} bytes for each");
        drop(tcp);
    }
}
