//! `linkerd2-network-validator`: proves that connections are redirected, by one to nowhere that must arrive here.

use crate::logs;
use anyhow::{Context, bail};
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use weft_model::duration;

#[derive(Parser)]
#[command(name = "linkerd2-network-validator", version, about = "Checks that connections are redirected to a proxy")]
pub(crate) struct Flags {
    #[command(flatten)]
    logs: logs::LogFlags,
    /// How long the connection may take.
    #[arg(long, default_value = "10s", value_parser = parse)]
    timeout: Duration,
    /// Where redirected connections arrive.
    #[arg(long, default_value = "0.0.0.0:4140")]
    listen_addr: SocketAddr,
    /// An address that leads nowhere.
    #[arg(long, default_value = "192.0.2.2:1404")]
    connect_addr: SocketAddr,
}

/// ENOTSUP, which Linkerd's repair controller looks for.
const NOT_REDIRECTED: u8 = 95;
/// As long as Linkerd's, without the line's end.
const TOKEN: usize = 63;

fn parse(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("a duration is a number and one of ms, s, m, h, such as 10s")
}

pub(crate) fn run(flags: &Flags) -> ExitCode {
    match logs::init(&flags.logs).and_then(|()| validate(flags)) {
        Ok(()) => {
            tracing::info!("connections are redirected");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!(
                "{error:#}: connections are not redirected to {}; is the CNI plugin installed on this node?",
                flags.listen_addr
            );
            ExitCode::from(NOT_REDIRECTED)
        }
    }
}

/// Whichever comes first: the check's outcome, a signal, the end of the time.
fn validate(flags: &Flags) -> anyhow::Result<()> {
    let end = Instant::now() + flags.timeout;
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("blocking signals")?; // before there are other threads, which inherit it
    let (tell, told) = mpsc::channel();
    let listener =
        TcpListener::bind(flags.listen_addr).with_context(|| format!("listening on {}", flags.listen_addr))?;
    let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(TOKEN).collect();

    let (told_by_signal, line) = (tell.clone(), format!("{token}\n"));
    thread::spawn(move || {
        if let Ok(signal) = signals.wait() {
            let _ = told_by_signal.send(Err(anyhow::anyhow!("interrupted by {signal}")));
        }
    });
    thread::spawn(move || {
        // Whoever comes gets the token: one that is not ours cannot know what to compare it with.
        while let Ok((mut peer, _)) = listener.accept() {
            let _ = peer.write_all(line.as_bytes());
        }
    });
    let to = flags.connect_addr;
    thread::spawn(move || {
        let _ = tell.send(ask(to, end, &token));
    });
    told.recv_timeout(end.saturating_duration_since(Instant::now())).context("the time is over")?
}

fn ask(to: SocketAddr, end: Instant, token: &str) -> anyhow::Result<()> {
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let stream = TcpStream::connect_timeout(&to, left).with_context(|| format!("connecting to {to}"))?;
    let mut line = String::new();
    BufReader::new(stream.take(TOKEN as u64 + 1)).read_line(&mut line).with_context(|| format!("reading from {to}"))?;
    if line.strip_suffix('\n') != Some(token) {
        bail!("{to} answered by itself");
    }
    Ok(())
}
