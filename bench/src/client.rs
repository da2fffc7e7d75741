//! The load generators of our own: what wrk and its like do not measure. Each runs in the client's namespace as a process of
//! its own, is bounded in time and count, and prints one JSON document ([`Report`]).

use crate::{origin::BODY_END, slow};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::LocalSet,
};

/// What is asked of a generator.
#[derive(clap::Subcommand)]
pub(crate) enum Load {
    /// Requests at a fixed rate.
    Open { rate: u32, seconds: u64 },
    /// One request on each of many connections, for so many names.
    Short { connections: u64, hosts: u64 },
    /// Connections of one byte there and back.
    Handshakes { seconds: u64 },
    /// Connections that were used once and then wait.
    Idle {
        count: usize,
        #[arg(long)]
        bytes: bool,
    },
    /// Connections that send or read slowly.
    Slow { count: usize },
}

impl Load {
    pub(crate) fn run(&self, target: SocketAddr) -> Result<()> {
        let report = match *self {
            Self::Open { rate, seconds } => open_loop(target, rate, seconds)?,
            Self::Short { connections, hosts } => short(target, connections, hosts)?,
            Self::Handshakes { seconds } => handshakes(target, seconds)?,
            Self::Idle { count, bytes } => return idle(target, count, bytes),
            Self::Slow { count } => return slow::run(target, count),
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

/// What a generator came to. Times in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    /// Of the first [`COLD`], for the open loop.
    pub(crate) cold: Percentiles,
    /// `None` where the load ended before.
    pub(crate) steady: Option<Percentiles>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Percentiles {
    pub(crate) const NONE: Self = Self { p50: f64::NAN, p99: f64::NAN };
}

/// The start of an open loop, in which connections are opened and reported apart.
pub(crate) const COLD: Duration = Duration::from_secs(5);
/// Connections that an open loop may have.
const OPEN_CONNECTIONS: usize = 32;
/// Short connections under way at once.
const SHORT_AT_ONCE: usize = 16;
/// Connections that are to be held are opened this many at a time.
const OPENED_AT_ONCE: usize = 8;
/// Nothing takes longer, or the measurement has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn block_on<F: Future<Output = Result<Report>>>(work: F) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, work)
}

/// Requests at a fixed rate, whether or not earlier ones were answered. A request's time counts from when it was due.
fn open_loop(target: SocketAddr, rate: u32, seconds: u64) -> Result<Report> {
    block_on(async move {
        let (idle, mut done) = (Rc::new(Idle::new(target)), tokio::task::JoinSet::new());
        let total = u64::from(rate) * seconds;
        let start = Instant::now();
        let mut clock = metronome(start, rate, total);
        while let Some(due) = clock.recv().await {
            let idle = Rc::clone(&idle);
            done.spawn_local(async move {
                tokio::time::timeout(PATIENCE, idle.request()).await.context("a request took too long")??;
                Ok::<_, anyhow::Error>((due - start, due.elapsed()))
            });
        }
        let (mut cold, mut steady) = (vec![], vec![]);
        while let Some(one) = done.join_next().await {
            let (due, took) = one??;
            if due < COLD { &mut cold } else { &mut steady }.push(took);
        }
        Ok(Report {
            count: total,
            seconds: start.elapsed().as_secs_f64(),
            cold: percentiles(cold),
            steady: Some(steady).filter(|steady| !steady.is_empty()).map(percentiles),
        })
    })
}

/// Says when each of `total` requests is due, at that time: tokio's own timers are late by up to a millisecond.
fn metronome(start: Instant, rate: u32, total: u64) -> tokio::sync::mpsc::UnboundedReceiver<Instant> {
    let (tick, ticks) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for n in 0..total {
            let due = start + Duration::from_secs_f64(n as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if tick.send(due).is_err() {
                return;
            }
        }
    });
    ticks
}

/// Connections that are not in use, and places for those that are.
struct Idle {
    target: SocketAddr,
    places: Semaphore,
    idle: std::cell::RefCell<Vec<TcpStream>>,
}

impl Idle {
    fn new(target: SocketAddr) -> Self {
        Self { target, places: Semaphore::new(OPEN_CONNECTIONS), idle: Default::default() }
    }

    async fn request(&self) -> Result<()> {
        let _place = self.places.acquire().await?;
        let pooled = self.idle.borrow_mut().pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(self.target).await?,
        };
        get(&mut connection, "open").await?;
        self.idle.borrow_mut().push(connection);
        Ok(())
    }
}

/// One request on each of many connections, one after the other. `hosts` is how many names are asked for.
fn short(target: SocketAddr, connections: u64, hosts: u64) -> Result<Report> {
    block_on(async move {
        let start = Instant::now();
        let next = Rc::new(std::cell::Cell::new(0));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..SHORT_AT_ONCE {
            let next = Rc::clone(&next);
            clients.spawn_local(async move {
                while next.get() < connections {
                    let n = next.replace(next.get() + 1);
                    let host = format!("host-{}.bench.example", n % hosts.max(1));
                    let one = async { get(&mut connect(target).await?, &host).await };
                    tokio::time::timeout(PATIENCE, one).await.context("a connection took too long")??;
                }
                Ok::<_, anyhow::Error>(())
            });
        }
        while let Some(client) = clients.join_next().await {
            client??;
        }
        Ok(Report { count: connections, seconds: start.elapsed().as_secs_f64(), ..Report::default() })
    })
}

/// Connections of bytes, each used for one byte there and back: what counts is how many there are in a second.
fn handshakes(target: SocketAddr, seconds: u64) -> Result<Report> {
    block_on(async move {
        let (start, end) = (Instant::now(), Duration::from_secs(seconds));
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..SHORT_AT_ONCE {
            clients.spawn_local(async move {
                let mut took = vec![];
                while start.elapsed() < end {
                    let begun = Instant::now();
                    tokio::time::timeout(PATIENCE, echo(target)).await.context("a connection took too long")??;
                    took.push(begun.elapsed());
                }
                Ok::<_, anyhow::Error>(took)
            });
        }
        let mut all = vec![];
        while let Some(client) = clients.join_next().await {
            all.extend(client??);
        }
        Ok(Report {
            count: all.len() as u64,
            seconds: start.elapsed().as_secs_f64(),
            steady: Some(percentiles(all)),
            ..Report::default()
        })
    })
}

/// Opens connections that were used once, prints how many there are, and waits to be killed.
fn idle(target: SocketAddr, count: usize, bytes: bool) -> Result<()> {
    block_on(async move {
        let mut clients = tokio::task::JoinSet::new();
        for share in 0..OPENED_AT_ONCE {
            let count = (count + share) / OPENED_AT_ONCE;
            clients.spawn_local(async move {
                let mut held = Vec::with_capacity(count);
                for _ in 0..count {
                    held.push(
                        tokio::time::timeout(PATIENCE, used(target, bytes))
                            .await
                            .context("a connection took too long")??,
                    );
                }
                Ok::<_, anyhow::Error>(held)
            });
        }
        let mut held = Vec::with_capacity(count);
        while let Some(client) = clients.join_next().await {
            held.extend(client??);
        }
        println!("{}", held.len());
        std::future::pending().await
    })
    .map(drop)
}

/// A connection that was used once.
async fn used(target: SocketAddr, bytes: bool) -> Result<TcpStream> {
    if bytes {
        return echo(target).await;
    }
    let mut connection = connect(target).await?;
    get(&mut connection, "idle").await?;
    Ok(connection)
}

pub(crate) async fn connect(target: SocketAddr) -> Result<TcpStream> {
    let connection = TcpStream::connect(target).await.context("connecting")?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

async fn echo(target: SocketAddr) -> Result<TcpStream> {
    let mut connection = connect(target).await?;
    connection.write_all(b"x").await?;
    ensure!(connection.read_u8().await? == b'x', "the echo is another byte");
    Ok(connection)
}

async fn get(connection: &mut TcpStream, host: &str) -> Result<()> {
    connection.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(BODY_END) {
        ensure!(connection.read_buf(&mut answer).await? > 0, "a connection was closed before the answer's end");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "a request failed: {}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn percentiles(mut all: Vec<Duration>) -> Percentiles {
    all.sort_unstable();
    let at = |share: f64| {
        let index = (all.len() as f64 * share) as usize;
        all.get(index.min(all.len().saturating_sub(1))).map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    Percentiles { p50: at(0.5), p99: at(0.99) }
}
