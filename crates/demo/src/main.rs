//! `weft-demo`: a small voting app in one binary, with a built-in failure, for demos, tests and benchmarks.
//!
//! ```text
//! bot ──HTTP/1──► web ──gRPC──► emoji    (which emoji there are)
//!                     └─gRPC──► voting   (counts votes; the doughnut always fails)
//! ```
//! Ports, environment and answers are those of Linkerd's emojivoto (ecosystem 12.1), so that its tutorials can be replayed.

#![forbid(unsafe_code)]

mod bot;
mod catalogue;
mod emoji;
mod rpc;
mod voting;
mod web;

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::{net::SocketAddr, time::Duration};

#[derive(Parser)]
#[command(name = "weft-demo", version, about = "A small voting app: web, emoji, voting and bot")]
struct Args {
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
    let role = Args::parse().role;
    let work = async move {
        match role {
            Role::Web { port, emoji, voting } => web::serve(listen(port), &emoji, &voting).await,
            Role::Emoji { port } => emoji::serve(listen(port)).await,
            Role::Voting { port, failure_rate, delay_ms } => {
                voting::serve(listen(port), failure_rate, Duration::from_millis(delay_ms)).await
            }
            Role::Bot { web, rate } => bot::run(&web, rate).await,
        }
    };
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = term.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
    .context("weft-demo")
}

/// Every address of the machine, both families.
fn listen(port: u16) -> SocketAddr {
    SocketAddr::from(([0u16; 8], port))
}
