//! Clients that hold what they can with as little as possible, as slowhttptest makes them: slow heads (`-H`), slow bodies
//! (`-B`), heads full of ranges (`-R`), and slow readers of a large response (`-X`), a quarter of each.

use crate::{
    client::{PATIENCE, block_on, connect},
    origin::LARGE_PATH,
};
use anyhow::{Context, Result, ensure};
use std::{fmt::Write, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

/// How often each client does something.
const PAUSE: Duration = Duration::from_secs(5);
/// What a body promises to be.
const BODY: usize = 8192;
/// Ranges in one head.
const RANGES: usize = 500;
/// How much a slow reader's kernel takes, and how much it reads at once.
const WINDOW: u32 = 4096;
const SIP: usize = 32;
/// How many clients connect at the same time.
const AT_ONCE: usize = 64;

#[derive(Clone, Copy)]
enum Kind {
    Head,
    Body,
    Ranges,
    Reader,
}

const KINDS: [Kind; 4] = [Kind::Head, Kind::Body, Kind::Ranges, Kind::Reader];

/// Opens `count` clients, prints how many have begun, and goes on until it is killed. That a proxy ends some is its right.
pub(crate) fn run(target: SocketAddr, count: usize) -> Result<()> {
    block_on(async move {
        let (began, mut begun) = mpsc::unbounded_channel();
        let places = std::rc::Rc::new(tokio::sync::Semaphore::new(AT_ONCE));
        let mut clients = JoinSet::new();
        for kind in KINDS.into_iter().cycle().take(count) {
            let (began, places) = (began.clone(), std::rc::Rc::clone(&places));
            clients.spawn_local(async move {
                let opened = {
                    let _place = places.acquire().await;
                    tokio::time::timeout(PATIENCE, open(target, kind)).await.context("a client was not served")
                };
                let opened = opened.and_then(|opened| opened);
                let failed = opened.as_ref().err().map(ToString::to_string);
                let _ = began.send(failed);
                if let Ok(stream) = opened {
                    let _ = go_on(stream, kind).await;
                }
            });
        }
        for _ in 0..count {
            let failed = begun.recv().await.flatten();
            ensure!(failed.is_none(), "{}", failed.unwrap_or_default());
        }
        println!("{count}");
        while clients.join_next().await.is_some() {}
        std::future::pending().await
    })
    .map(drop)
}

/// The first part of what it says; a reader has begun to read.
async fn open(target: SocketAddr, kind: Kind) -> Result<TcpStream> {
    let mut stream = match kind {
        Kind::Reader => {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(WINDOW)?;
            socket.connect(target).await?
        }
        _ => connect(target).await?,
    };
    let head = match kind {
        Kind::Head => "GET / HTTP/1.1\r\nhost: slow\r\n".to_owned(),
        Kind::Body => format!("POST / HTTP/1.1\r\nhost: slow\r\ncontent-length: {BODY}\r\n\r\n"),
        Kind::Ranges => ranges(),
        Kind::Reader => format!("GET {LARGE_PATH} HTTP/1.1\r\nhost: slow\r\n\r\n"),
    };
    stream.write_all(head.as_bytes()).await?;
    if matches!(kind, Kind::Reader) {
        let mut sip = [0; SIP];
        ensure!(stream.read(&mut sip).await? > 0, "a slow reader was closed");
    }
    Ok(stream)
}

fn ranges() -> String {
    let mut head = "GET / HTTP/1.1\r\nhost: slow\r\nrange: bytes=0-".to_owned();
    for n in 0..RANGES {
        // Writing to a string does not fail.
        let _ = write!(head, ",5-{n}");
    }
    head.push_str("\r\n\r\n");
    head
}

async fn go_on(mut stream: TcpStream, kind: Kind) -> Result<()> {
    let mut buffer = [0; 1024];
    loop {
        tokio::time::sleep(PAUSE).await;
        match kind {
            Kind::Head => stream.write_all(b"x-slow: a\r\n").await?,
            Kind::Body => stream.write_all(b"slow").await?,
            Kind::Ranges => {
                ensure!(stream.read(&mut buffer).await? > 0, "closed");
                stream.write_all(ranges().as_bytes()).await?;
            }
            Kind::Reader => {
                let sip = buffer.get_mut(..SIP).unwrap_or_default();
                ensure!(stream.read(sip).await? > 0, "closed");
            }
        }
    }
}
