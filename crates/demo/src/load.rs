//! Load: so many requests a second of HTTP/1 and of gRPC, and one open stream. Each is counted, and each failure told with its reason.
//!
//! ```text
//! lanes of HTTP/1 ─► web      lanes of gRPC, one connection ─► emoji      one stream of numbers ◄─ emoji
//! ```
//! Requests are due by the clock: who was held up makes up for it, so that a rate is kept on a machine that is busy for a while. It
//! never asks twice for the same: what is asked again hides what was lost. Only what its library of gRPC knows to have reached nobody
//! is asked again, once, and counted as that.

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
use tonic::Status;

/// Requests of a kind at one moment.
const LANES: u32 = 8;
/// Longest that an answer, or the next number, may take: who is held up for longer is failed.
const PATIENCE: Duration = Duration::from_secs(10);
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
    /// Asked a second time.
    again: AtomicU64,
    failed: AtomicU64,
}

/// What has been counted.
#[derive(Serialize)]
struct Sum {
    asked: u64,
    answered: u64,
    again: u64,
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
        let Self { asked, answered, again, failed } = self;
        let [asked, answered, again, failed] = [asked, answered, again, failed].map(|count| count.load(Relaxed));
        Sum { asked, answered, again, failed }
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
    counting(Arc::default(), web, emoji, rate, leave).await
}

async fn counting(counts: Arc<Counts>, web: &str, emoji: &str, rate: f64, leave: Leave) -> anyhow::Result<()> {
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
                asked("gRPC", &counts.grpc, find(&client, &counts.grpc)).await;
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

/// What a call comes to; one that has reached nobody is made again.
async fn called<T, F: Future<Output = Result<T, Status>>>(count: &Count, call: impl Fn() -> F) -> Result<T, Status> {
    match call().await {
        Err(status) if rpc::reached_nobody(&status) => {
            count.again.fetch_add(1, Relaxed);
            call().await
        }
        done => done,
    }
}

async fn find(client: &rpc::Client, count: &Count) -> Result<(), String> {
    let wanted = FindRequest { shortcode: ":crab:".to_owned() };
    let find = || client.call(format!("{EMOJI_SERVICE}FindByShortcode"), &wanted);
    let found: FindResponse = called(count, find).await.map_err(|status| status.to_string())?;
    found.emoji.map(drop).ok_or_else(|| "the answer is empty".to_owned())
}

/// One stream until it ends, which only its server may do, in order and without a gap.
async fn numbers(client: &rpc::Client, count: &Count) {
    const WHAT: &str = "stream";
    count.asked.fetch_add(1, Relaxed);
    let opened = timeout(PATIENCE, called(count, || client.count())).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{emoji, web};
    use parking_lot::Mutex;
    use std::net::SocketAddr;
    use tokio::{
        io::copy_bidirectional,
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };

    /// What a Service does: each new connection goes to the server of the moment.
    async fn service(target: Arc<Mutex<SocketAddr>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let mut client = listener.accept().await.unwrap().0;
                let target = *target.lock();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        host
    }

    struct Pod {
        tell: crate::serve::Tell,
        serving: JoinHandle<anyhow::Result<()>>,
    }

    /// A server of the role, which is not asked yet.
    async fn pod(is_web: bool) -> (Pod, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, leave) = Leave::new(Duration::from_millis(300));
        let serving = tokio::spawn(async move {
            match is_web {
                // The page alone is asked for, and wants nobody else.
                true => web::serve(listener, "127.0.0.1:1", "127.0.0.1:1", leave).await,
                false => emoji::serve(listener, leave).await,
            }
        });
        (Pod { tell, serving }, addr)
    }

    #[tokio::test]
    async fn servers_are_replaced_without_a_lost_request() {
        let mut pods = vec![];
        let (mut targets, mut hosts) = (vec![], vec![]);
        for is_web in [true, false] {
            let (pod, addr) = pod(is_web).await;
            let target = Arc::new(Mutex::new(addr));
            hosts.push(service(target.clone()).await);
            pods.push(pod);
            targets.push(target);
        }
        let counts = Arc::new(Counts::default());
        let (tell, leave) = Leave::new(Duration::ZERO);
        let (counting_on, hosts) = (counts.clone(), hosts.clone());
        let load = tokio::spawn(async move { counting(counting_on, &hosts[0], &hosts[1], 400.0, leave).await });
        for _ in 0..3 {
            let mut newer = vec![];
            for (is_web, target) in [true, false].into_iter().zip(&targets) {
                let (pod, addr) = pod(is_web).await;
                newer.push((pod, target, addr));
            }
            for (old, (new, target, addr)) in pods.drain(..).zip(newer.drain(..)).collect::<Vec<_>>() {
                // As in a cluster, it is told before who asks it is sent elsewhere.
                old.tell.leave();
                sleep(Duration::from_millis(150)).await;
                *target.lock() = addr;
                timeout(PATIENCE, old.serving).await.expect("it ends though it was asked").unwrap().unwrap();
                pods.push(new);
            }
        }
        tell.leave();
        timeout(PATIENCE, load).await.unwrap().unwrap().unwrap();
        for (what, count) in [("HTTP/1", &counts.http1), ("gRPC", &counts.grpc), ("stream", &counts.stream)] {
            let Sum { asked, answered, failed, .. } = count.sum();
            assert_eq!(failed, 0, "{what}");
            assert!(asked >= 3 && answered > 0, "{what}: {asked} asked, {answered} answered");
        }
    }
}
