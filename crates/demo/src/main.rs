//! `weft-demo`: a small voting app in one binary, with a built-in failure, for demos, tests and benchmarks.
//!
//! ```text
//! bot ──HTTP/1──► web ──gRPC──► emoji    (which emoji there are)
//!                     └─gRPC──► voting   (counts votes; the doughnut always fails)
//! ```
//! Ports, environment and answers are those of Linkerd's emojivoto (ecosystem 12.1), so that its tutorials can be replayed. Another
//! demo of Linkerd's has a stand-in in [`books`]; [`load`], [`ask`] and [`echo`] are for tests.

#![forbid(unsafe_code)]

mod ask;
mod books;
mod bot;
mod catalogue;
mod client;
mod echo;
mod emoji;
mod load;
mod rpc;
mod serve;
mod voting;
mod web;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serve::Leave;
use std::{ffi::OsString, net::SocketAddr, path::Path, pin::pin, time::Duration};
use tokio::net::TcpListener;

#[derive(Parser)]
#[command(name = "weft-demo", version, about = "A small voting app: web, emoji, voting and bot")]
struct Args {
    /// How long nobody must have asked a server, in milliseconds, before it ends as it was told to.
    #[arg(long, env = "LEAVE_QUIET_MS", default_value_t = 0, global = true)]
    leave_quiet_ms: u64,
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Serves the voting page and its API over HTTP/1.
    Web {
        #[arg(long, env = "WEB_PORT", default_value_t = 8080)]
        port: u16,
        /// host:port of the emoji service.
        #[arg(long, env = "EMOJISVC_HOST")]
        emoji: String,
        /// host:port of the voting service.
        #[arg(long, env = "VOTINGSVC_HOST")]
        voting: String,
    },
    /// Serves the list of emoji over gRPC.
    Emoji {
        #[arg(long, env = "GRPC_PORT", default_value_t = 8080)]
        port: u16,
    },
    /// Counts votes over gRPC. Votes for the doughnut fail.
    Voting {
        #[arg(long, env = "GRPC_PORT", default_value_t = 8080)]
        port: u16,
        /// The share of doughnut votes that fail, 0 to 1.
        #[arg(long, env = "FAILURE_RATE", default_value_t = 1.0, value_parser = share)]
        failure_rate: f64,
        /// How long each vote waits before it is answered, in milliseconds.
        #[arg(long, env = "ARTIFICIAL_DELAY_MS", default_value_t = 0)]
        delay_ms: u64,
    },
    /// Votes: 15 % for the doughnut, else at random.
    Bot {
        /// host:port of web.
        #[arg(long, env = "WEB_HOST")]
        web: String,
        /// Rounds (one list, one vote) per second.
        #[arg(long, env = "REQUEST_RATE", default_value_t = 1.0, value_parser = rate)]
        rate: f64,
    },
    /// Loads web over HTTP/1 and emoji over gRPC, and counts what is asked, answered and failed.
    Load {
        /// host:port of web.
        #[arg(long, env = "WEB_HOST")]
        web: String,
        /// host:port of the emoji service.
        #[arg(long, env = "EMOJISVC_HOST")]
        emoji: String,
        /// Requests per second, to each of them.
        #[arg(long, env = "REQUEST_RATE", default_value_t = 200.0, value_parser = rate)]
        rate: f64,
    },
    /// Says what it is asked for, and fails or is slow as the request's headers want it.
    Echo {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        /// What it calls itself.
        #[arg(long, env = "HOSTNAME")]
        name: String,
    },
    /// Asks what it is told to ask (POST /ask) and says what it got; what it asks all the time besides is counted (GET /load).
    Ask {
        #[arg(long, default_value_t = 9000)]
        port: u16,
        /// host:port/path to ask all the time.
        #[arg(long)]
        load: Vec<String>,
        /// Requests per second, to each of them.
        #[arg(long, default_value_t = 50.0, value_parser = rate)]
        rate: f64,
    },
    /// Serves one part of another demo, a shop of books, under booksapp's arguments.
    Booksapp {
        /// prod:webapp, prod:authors or prod:books.
        part: String,
        /// The URL of the authors.
        #[arg(long, env = "AUTHORS_SITE", default_value = "http://authors:7001")]
        authors: String,
        /// The URL of the books.
        #[arg(long, env = "BOOKS_SITE", default_value = "http://books:7002")]
        books: String,
        /// The share of questions after an author that fail, 0 to 1.
        #[arg(long, env = "FAILURE_RATE", default_value_t = 0.0, value_parser = share)]
        failure_rate: f64,
    },
    /// Shops for books, under the arguments of booksapp's traffic.
    BooksappTraffic {
        /// -initial-delay=SECONDSs, and host:port of webapp.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(|| "a share is a number from 0 to 1".into())
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|v| (0.01..=1000.0).contains(v))
        .ok_or_else(|| "a rate is a number from 0.01 to 1000".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    weft_telemetry::logs::init("info", weft_telemetry::logs::Format::Plain)?;
    let Args { leave_quiet_ms, role } = Args::parse_from(words(std::env::args_os()));
    let (tell, leave) = Leave::new(Duration::from_millis(leave_quiet_ms));
    let work = async move {
        match role {
            Role::Web { port, emoji, voting } => web::serve(listen(port).await?, &emoji, &voting, leave).await,
            Role::Emoji { port } => emoji::serve(listen(port).await?, leave).await,
            Role::Voting { port, failure_rate, delay_ms } => {
                voting::serve(listen(port).await?, failure_rate, Duration::from_millis(delay_ms), leave).await
            }
            Role::Bot { web, rate } => tokio::select! {
                done = bot::run(&web, rate) => done,
                () = leave.told() => Ok(()),
            },
            Role::Load { web, emoji, rate } => load::run(&web, &emoji, rate, leave).await,
            Role::Echo { port, name } => echo::serve(listen(port).await?, name, leave).await,
            Role::Ask { port, load, rate } => ask::serve(listen(port).await?, &load, rate, leave).await,
            Role::Booksapp { part, authors, books, failure_rate } => {
                books::serve(&part, books::Sites { authors, books, failure_rate }, leave).await
            }
            Role::BooksappTraffic { words } => tokio::select! {
                done = books::traffic(&words) => done,
                () = leave.told() => Ok(()),
            },
        }
    };
    let mut work = pin!(work);
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // The first signal asks for an end in order, the second one for an end.
    for _ in 0..2 {
        tokio::select! {
            done = &mut work => return done.context("weft-demo"),
            _ = term.recv() => tell.leave(),
            interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| tell.leave())?,
        }
    }
    Ok(())
}

/// The command line, where the name of the program may be that of a role.
fn words(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = given.collect();
    if words.first().is_some_and(|program| Path::new(program).ends_with("emojivoto-vote-bot")) {
        words.insert(1, "bot".into());
    }
    words
}

/// Every address of the machine, both families.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from(([0u16; 8], port))).await.with_context(|| format!("listening on port {port}"))
}
