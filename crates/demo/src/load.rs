//! Load: so many requests a second of HTTP/1 and of gRPC, and one open stream. Each is counted, and each failure told with its reason.
//!
//! ```text
//! lanes of HTTP/1 ─► web      lanes of gRPC, one connection ─► emoji      one stream of numbers ◄─ emoji
//! ```
//! Requests are due by the clock: who was held up makes up for it, so that a rate is kept on a machine that is busy for a while. It
//! never asks twice for the same: what is asked again hides what was lost.

use crate::{
    client,
    rpc::{self, EMOJI_SERVICE, FindRequest, FindResponse},
    serve::Leave,
};
use futures_util::StreamExt;
use serde::Serialize;
use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, interval_at, sleep, timeout},
};

/// Requests of a kind at one moment.
const LANES: u32 = 8;
/// Longest that an answer, or the next number, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Failures that are told; more are only counted.
const TOLD: u64 = 100;
/// Between two lines of what has been counted.
const TELL: Duration = Duration::from_millis(500);
/// Before a stream is opened again.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Default)]
struct Count {
    asked: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// What has been counted.
#[derive(Serialize)]
struct Sum {
    asked: u64,
    answered: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Sums {
    http1: Sum,
    grpc: Sum,
    /// Streams, and the numbers that came over them.
    stream: Sum,
}

#[derive(Default)]
struct Counts {
    http1: Count,
    grpc: Count,
    stream: Count,
}

impl Count {
    fn failed(&self, what: &str, reason: &str) {
        if self.failed.fetch_add(1, Relaxed) < TOLD {
            tracing::warn!(what, reason, "failed");
        }
    }

    fn sum(&self) -> Sum {
        let Self { asked, answered, failed } = self;
        Sum { asked: asked.load(Relaxed), answered: answered.load(Relaxed), failed: failed.load(Relaxed) }
    }
}

impl Counts {
    fn tell(&self) {
        let Self { http1, grpc, stream } = self;
        let sums = Sums { http1: http1.sum(), grpc: grpc.sum(), stream: stream.sum() };
        // Keys of this are fixed words.
        tracing::info!(sums = serde_json::to_string(&sums).unwrap_or_default(), "load");
    }
}

/// Loads `web` and `emoji` with `rate` requests a second each until `leave`; what is under way then is waited for.
pub(crate) async fn run(web: &str, emoji: &str, rate: f64, leave: Leave) -> anyhow::Result<()> {
    let counts = Arc::new(Counts::default());
    let (pace, start) = (Duration::from_secs_f64(f64::from(LANES) / rate), Instant::now());
    let emoji = rpc::Client::new(emoji)?;
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let first = start + pace * lane / LANES;
        let (counts, leave, mut client) = (counts.clone(), leave.clone(), client::Client::new(web));
        lanes.spawn(async move {
            let mut ticks = interval_at(first, pace);
            while due(ticks.tick(), &leave).await {
                asked("HTTP/1", &counts.http1, page(&mut client)).await;
            }
        });
    }
    for lane in 0..LANES {
        let first = start + pace * lane / LANES;
        let (counts, leave, client) = (counts.clone(), leave.clone(), emoji.clone());
        lanes.spawn(async move {
            let mut ticks = interval_at(first, pace);
            while due(ticks.tick(), &leave).await {
                asked("gRPC", &counts.grpc, find(&client)).await;
            }
        });
    }
    let (of_stream, leaving) = (counts.clone(), leave.clone());
    lanes.spawn(async move {
        let streams = async {
            loop {
                numbers(&emoji, &of_stream.stream).await;
                sleep(AGAIN).await;
            }
        };
        // A stream that its client gives up is no failure.
        due(streams, &leaving).await;
    });
    let mut tells = interval(TELL);
    loop {
        // What is dropped here is only waiting.
        tokio::select! {
            ended = lanes.join_next() => if ended.is_none() { break },
            _ = tells.tick() => counts.tell(),
        }
    }
    counts.tell();
    tracing::info!("left");
    Ok(())
}

/// Waits until it is `time`; false if it is time to leave before.
async fn due<T>(time: impl Future<Output = T>, leave: &Leave) -> bool {
    tokio::select! {
        biased;
        () = leave.told() => false,
        _ = time => true,
    }
}

async fn asked(what: &str, count: &Count, ask: impl Future<Output = Result<(), String>>) {
    count.asked.fetch_add(1, Relaxed);
    match timeout(PATIENCE, ask).await {
        Ok(Ok(())) => drop(count.answered.fetch_add(1, Relaxed)),
        Ok(Err(reason)) => count.failed(what, &reason),
        Err(_) => count.failed(what, &format!("no answer within {PATIENCE:?}")),
    }
}

async fn page(client: &mut client::Client) -> Result<(), String> {
    match client.get("/").await {
        Ok(200) => Ok(()),
        Ok(status) => Err(format!("status {status}")),
        Err(error) => Err(format!("{error:#}")),
    }
}

async fn find(client: &rpc::Client) -> Result<(), String> {
    let wanted = FindRequest { shortcode: ":crab:".to_owned() };
    let found: FindResponse =
        client.call(format!("{EMOJI_SERVICE}FindByShortcode"), &wanted).await.map_err(|status| status.to_string())?;
    found.emoji.map(drop).ok_or_else(|| "the answer is empty".to_owned())
}

/// One stream until it ends, which only its server may do, in order and without a gap.
async fn numbers(client: &rpc::Client, count: &Count) {
    const WHAT: &str = "stream";
    count.asked.fetch_add(1, Relaxed);
    let opened = timeout(PATIENCE, client.count()).await;
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(status)) => return count.failed(WHAT, &status.to_string()),
        Err(_) => return count.failed(WHAT, &format!("not opened within {PATIENCE:?}")),
    };
    let mut stream = pin!(stream);
    for expected in 0.. {
        match timeout(PATIENCE, stream.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(message))) if message.number == expected => drop(count.answered.fetch_add(1, Relaxed)),
            Ok(Some(Ok(message))) => return count.failed(WHAT, &format!("{} instead of {expected}", message.number)),
            Ok(Some(Err(status))) => return count.failed(WHAT, &status.to_string()),
            Err(_) => return count.failed(WHAT, &format!("no number within {PATIENCE:?}")),
        }
    }
}
