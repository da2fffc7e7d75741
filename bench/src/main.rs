//! Measures the proxies beside their peers and writes `bench/RESULTS.md`; started by `cargo xtask bench`.
//!
//! ```text
//! namespace client (10.77.0.1)                      namespace server (10.77.0.2)
//! load generator ─► client's proxy ──── mTLS ────► server's proxy ─► origin
//! ```
//! Every subject does the same work in the same run, in turns; figures are compared as ratios, since machines are shared.
//! All traffic stays in network namespaces that the program makes and that end with it.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the report goes to the terminal")]

mod client;
mod control;
mod lab;
mod load;
mod messages;
mod origin;
mod process;
mod report;
mod slow;
mod subject;

use anyhow::Context;
use clap::{Parser, Subcommand};
use load::{Load, Work};
use report::{Report, Row};
use std::{net::SocketAddr, os::unix::process::CommandExt, process::Command};
use subject::Subject;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Seconds of load per subject, work and round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Seconds of load before that, which do not count.
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// Connections of the works that wrk loads.
    #[arg(long, default_value_t = 32)]
    connections: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these works.
    #[arg(long)]
    only: Vec<Work>,
    /// Only these: direct, weft, weft2 (two workers), haproxy, envoy.
    #[arg(long)]
    subject: Vec<Subject>,
    /// Leaves the open loops' steady parts out.
    #[arg(long)]
    cold: bool,
    /// Prints the report without writing bench/RESULTS.md; so does a run of some works or subjects alone.
    #[arg(long)]
    dry: bool,
    /// Asks proxies to end instead of killing them: those that are built to be watched write down what they have done.
    #[arg(long)]
    gently: bool,
}

/// What the program runs as in a namespace.
#[derive(Subcommand)]
enum Part {
    /// A server that answers every request with a small body, HTTP/1 and HTTP/2, or gives bytes back.
    #[command(hide = true)]
    Origin {
        #[arg(long)]
        echo: bool,
    },
    /// Measures the control plane below many proxies and writes bench/CONTROL.md.
    Control(control::Options),
    /// A load generator of our own.
    #[command(hide = true)]
    Client {
        target: SocketAddr,
        #[command(subcommand)]
        load: client::Load,
    },
}

/// Set in the copy of this program that has namespaces of its own.
const INSIDE: &str = "WEFT_BENCH_INSIDE";

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.part {
        Some(Part::Origin { echo }) => return origin::serve(echo),
        Some(Part::Client { target, load }) => return load.run(target),
        Some(Part::Control(_)) | None => {}
    }
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe()?;
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        return Err(unshare.arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1").exec())
            .context("starting unshare, of Debian's util-linux");
    }
    match &args.part {
        Some(Part::Control(options)) => control::run(options),
        _ => measure(&args),
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let lab = lab::Lab::new()?;
    let works: Vec<Work> = if args.only.is_empty() { Work::ALL.to_vec() } else { args.only.clone() };
    let wanted = |subject| args.subject.is_empty() || args.subject.contains(&subject);
    let mut report = Report::new(args.seconds, args.rounds)?;
    for work in works {
        let (seconds, warm_up, connections) = (args.seconds, args.warm_up, args.connections);
        let turns = load::turns(work, args.rounds);
        let load = Load { work, seconds, turns, cold: args.cold, warm_up, connections };
        for round in 0..turns {
            // One round says enough of no proxy at all, but each start is compared with one that nothing was put into.
            let again = |subject| round == 0 || subject != Subject::Direct || work.is_open();
            for subject in Subject::ALL.into_iter().filter(|s| wanted(*s) && s.does(work) && again(*s)) {
                // What a run that breaks off has measured so far is printed; a subject that fails is named, and the others go on.
                match one(&lab, subject, &load, args.gently) {
                    Ok(row) => {
                        println!("{work} round {} {row}", round + 1);
                        report.add(work, row);
                    }
                    Err(error) => {
                        println!("{work} round {} {subject} failed: {error:#}", round + 1);
                        report.failed(work, subject, &error);
                    }
                }
            }
        }
    }
    let text = report.render();
    println!("{text}");
    if !args.dry && !args.cold && args.only.is_empty() && args.subject.is_empty() {
        std::fs::write("bench/RESULTS.md", text).context("writing bench/RESULTS.md")?;
    }
    anyhow::ensure!(report.is_whole(), "some works failed: see the report");
    Ok(())
}

/// One subject under one load. Its processes live only as long.
fn one(lab: &lab::Lab, subject: Subject, load: &Load, gently: bool) -> anyhow::Result<Row> {
    let origin = load.origin(lab)?;
    let pair = subject.start(lab, load.work)?;
    let target = pair.target;
    load.warm_up(lab, target).with_context(|| pair.logs())?;
    let rss_before = pair.rss()?;
    let around = || anyhow::Ok(origin.cpu()? + process::ended()?);
    let (before, beside, machine) = (pair.cpu()?, around()?, process::Machine::now()?);
    let (done, _held) = load.run(lab, target).with_context(|| pair.logs())?;
    let (cpu, cores) = (pair.cpu()? - before, machine.busy_since()?);
    // A generator that still holds connections is not counted; where it matters none does.
    let own = (cpu + around()? - beside).as_secs_f64() / machine.elapsed().as_secs_f64();
    let row = Row { subject, done, cpu, cores, own, rss_before, rss: pair.rss()? };
    if gently {
        pair.end()?;
    }
    Ok(row)
}
