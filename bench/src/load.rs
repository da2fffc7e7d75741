//! The load generators and what they report.

use crate::{
    client::{COLD, Percentiles, Report},
    lab::{Lab, ORIGIN, Side},
    process::{Running, wait_for},
};
use anyhow::{Context, bail};
use clap::ValueEnum;
use std::{fmt, net::SocketAddr, time::Duration};

/// What is sent, and how the two proxies carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Work {
    /// HTTP/1.1, pooled HTTP/1.1 between the proxies, 32 connections.
    H1,
    /// HTTP/1.1, carried on HTTP/2 between the proxies, 32 connections.
    H1OverH2,
    /// HTTP/2, 4 connections with 16 streams each.
    H2,
    /// One TCP stream, opaque.
    Tcp,
    /// HTTP/1.1 at 600 requests a second, whatever the answers, carried on HTTP/2; the first 5 s of each start apart.
    Open600,
    /// The same at 2,000.
    Open2000,
    /// Keep-alive HTTP/1.1 connections that made one request each and then wait.
    Idle,
    /// Opaque connections that carried one byte each and then wait.
    IdleTcp,
    /// Opaque connections of one byte, 16 at once: each is a full handshake with certificates of both sides.
    Handshakes,
    /// The same with the key exchange that all peers know.
    HandshakesX25519,
    /// As `h1`, with one and with two workers in each proxy.
    TwoWorkers,
    /// A million connections of one request each, for a hundred thousand hosts.
    Short,
    /// 500 requests a second beside 5,000 clients that send or read slowly; pooled HTTP/1.1 between the proxies.
    Slow,
    /// The same, carried on HTTP/2.
    SlowOverH2,
}

/// How the two sides of a handshake agree on keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    X25519,
    X25519MlKem768,
}

impl Exchange {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X25519 => "X25519",
            Self::X25519MlKem768 => "X25519MLKEM768",
        }
    }
}

pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) seconds: u64,
    /// How often the work is done.
    pub(crate) turns: usize,
    /// An open loop ends with its cold part.
    pub(crate) cold: bool,
    pub(crate) warm_up: u64,
    pub(crate) connections: u64,
}

/// What came of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    Requests {
        count: u64,
        per_second: f64,
        p50: Duration,
        p99: Duration,
    },
    Bytes {
        gbit_per_second: f64,
        bytes: u64,
    },
    Connections {
        count: u64,
        per_second: f64,
    },
    Open {
        count: u64,
        cold: Percentiles,
        steady: Option<Percentiles>,
    },
    /// What requests took without slow clients and beside them.
    Slow {
        count: u64,
        alone: Percentiles,
        beside: Percentiles,
    },
}

/// Connections that are held at once; this many need twice as many descriptors.
const IDLE: usize = 8000;
const SHORT: u64 = 1_000_000;
const HOSTS: u64 = 100_000;
/// How long the steady parts of an open loop last together, at least: a share in each turn, since a minute at one go says more of what
/// else the machine did then.
pub(crate) const OPEN_SECONDS: u64 = 60;
/// How often an open loop is started for each round that is asked for beyond the first: a start is over in moments.
const STARTS: usize = 2;
/// How long idle connections are left alone before memory is read.
const SETTLE: Duration = Duration::from_secs(5);
const SLOW: usize = 5000;
/// What others ask for meanwhile, a second, and for how long.
const BESIDE: u32 = 500;
const BESIDE_SECONDS: u64 = 10;

impl Work {
    pub(crate) const ALL: [Self; 14] = [
        Self::H1,
        Self::H1OverH2,
        Self::H2,
        Self::Tcp,
        Self::TwoWorkers,
        Self::Open600,
        Self::Open2000,
        Self::Idle,
        Self::IdleTcp,
        Self::Handshakes,
        Self::HandshakesX25519,
        Self::Slow,
        Self::SlowOverH2,
        Self::Short,
    ];

    /// Bytes are carried, not requests.
    pub(crate) fn is_bytes(self) -> bool {
        matches!(self, Self::Tcp | Self::IdleTcp) || self.exchange().is_some()
    }

    /// Requests come whether or not earlier ones were answered.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Open600 | Self::Open2000)
    }

    /// The proxies speak HTTP/2 between them.
    pub(crate) fn hop_is_h2(self) -> bool {
        matches!(self, Self::H1OverH2 | Self::H2 | Self::Open600 | Self::Open2000 | Self::SlowOverH2)
    }

    /// Where handshakes are what is measured: how keys are agreed on. Elsewhere each proxy does what it does by default.
    pub(crate) fn exchange(self) -> Option<Exchange> {
        match self {
            Self::Handshakes => Some(Exchange::X25519MlKem768),
            Self::HandshakesX25519 => Some(Exchange::X25519),
            _ => None,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "h1",
            Self::H1OverH2 => "h1-over-h2",
            Self::H2 => "h2",
            Self::Tcp => "tcp",
            Self::Open600 => "open600",
            Self::Open2000 => "open2000",
            Self::Idle => "idle",
            Self::IdleTcp => "idle-tcp",
            Self::Handshakes => "handshakes",
            Self::HandshakesX25519 => "handshakes-x25519",
            Self::TwoWorkers => "two-workers",
            Self::Short => "short",
            Self::Slow => "slow",
            Self::SlowOverH2 => "slow-over-h2",
        })
    }
}

impl Work {
    /// What is measured, for readers of the report.
    pub(crate) fn meaning(self) -> String {
        let meant = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        meant.unwrap_or_default()
    }
}

/// How often a work is done of which so many rounds are asked for: what takes minutes once.
pub(crate) fn turns(work: Work, rounds: usize) -> usize {
    match work {
        Work::Open600 | Work::Open2000 => rounds.min(1) + STARTS * rounds.saturating_sub(1),
        Work::Idle | Work::IdleTcp | Work::Short | Work::Slow | Work::SlowOverH2 => rounds.min(1),
        _ => rounds,
    }
}

impl Load {
    pub(crate) fn origin(&self, lab: &Lab) -> anyhow::Result<Running> {
        let own = |args: &[&str]| -> anyhow::Result<Running> {
            Running::start("origin", lab.command(Side::Server, std::env::current_exe()?).arg("origin").args(args))
        };
        let origin = match self.work {
            Work::Tcp => {
                let port = ORIGIN.port().to_string();
                Running::start("origin", lab.command(Side::Server, "iperf3").args(["-s", "-p", &port]))?
            }
            work if work.is_bytes() => own(&["--echo"])?,
            _ => own(&[])?,
        };
        wait_for("the origin", || lab.listens(Side::Server, ORIGIN))?;
        Ok(origin)
    }

    pub(crate) fn warm_up(&self, lab: &Lab, target: SocketAddr) -> anyhow::Result<()> {
        match self.work {
            // What a proxy holds before its first connection is what it is compared with; a cold start is part of the open loop.
            Work::Idle | Work::IdleTcp | Work::Open600 | Work::Open2000 => Ok(()),
            Work::Slow | Work::SlowOverH2 => own_client(lab, target, &["open", &BESIDE.to_string(), "2"]).map(drop),
            // What names and connections may hold is held by then.
            Work::Short => own_client(lab, target, &["short", "50000", "50000"]).map(drop),
            _ => self.send(lab, target, self.warm_up).map(drop),
        }
    }

    /// What came of it, and what must live while memory is measured.
    pub(crate) fn run(&self, lab: &Lab, target: SocketAddr) -> anyhow::Result<(Done, Option<Running>)> {
        match self.work {
            Work::Idle | Work::IdleTcp => {
                let bytes: &[&str] = if self.work.is_bytes() { &["--bytes"] } else { &[] };
                let (count, client) = held(lab, target, &["idle", &IDLE.to_string()], bytes)?;
                std::thread::sleep(SETTLE);
                Ok((Done::Connections { count, per_second: 0.0 }, Some(client)))
            }
            Work::Slow | Work::SlowOverH2 => {
                let (rate, seconds) = (BESIDE.to_string(), BESIDE_SECONDS.to_string());
                let others = || own_client(lab, target, &["open", &rate, &seconds]);
                let alone = others()?.steady.context("the load ended cold")?;
                let (count, client) = held(lab, target, &["slow", &SLOW.to_string()], &[])?;
                let beside = others()?.steady.context("the load ended cold")?;
                Ok((Done::Slow { count, alone, beside }, Some(client)))
            }
            _ => Ok((self.send(lab, target, self.seconds)?, None)),
        }
    }

    fn send(&self, lab: &Lab, target: SocketAddr, seconds: u64) -> anyhow::Result<Done> {
        match self.work {
            Work::H1 | Work::H1OverH2 | Work::TwoWorkers => {
                let url = format!("http://{target}/");
                let text = output(lab.command(Side::Client, "wrk").args([
                    "-t1",
                    &format!("-c{}", self.connections),
                    "--latency",
                    &format!("-d{seconds}s"),
                    &url,
                ]))?;
                wrk(&text)
            }
            Work::H2 => {
                let log = "/run/h2load.log";
                let url = format!("http://{target}/");
                let text = output(lab.command(Side::Client, "h2load").args([
                    "-t1",
                    "-c4",
                    "-m16",
                    &format!("-D{seconds}"),
                    &format!("--log-file={log}"),
                    &url,
                ]))?;
                let requests = std::fs::read_to_string(log).context("reading h2load's log")?;
                std::fs::remove_file(log)?;
                h2load(&text, &requests)
            }
            Work::Idle | Work::IdleTcp | Work::Slow | Work::SlowOverH2 => bail!("connections are held, not sent"),
            Work::Tcp => {
                let (host, port) = (target.ip().to_string(), target.port().to_string());
                let text = output(lab.command(Side::Client, "iperf3").args([
                    "-c",
                    &host,
                    "-p",
                    &port,
                    "-J",
                    "-t",
                    &seconds.to_string(),
                ]))?;
                iperf(&text)
            }
            Work::Open600 | Work::Open2000 => {
                let rate = if self.work == Work::Open600 { "600" } else { "2000" };
                let steady = if self.cold { 0 } else { seconds.max(OPEN_SECONDS).div_ceil(self.turns as u64) };
                let seconds = (COLD.as_secs() + steady).to_string();
                let Report { count, cold, steady, .. } = own_client(lab, target, &["open", rate, &seconds])?;
                Ok(Done::Open { count, cold, steady })
            }
            Work::Handshakes | Work::HandshakesX25519 => {
                let Report { count, seconds, steady, .. } =
                    own_client(lab, target, &["handshakes", &seconds.to_string()])?;
                let micros = |us: f64| Duration::from_secs_f64(us / 1e6);
                let steady = steady.context("no handshake was made")?;
                let (p50, p99) = (micros(steady.p50), micros(steady.p99));
                Ok(Done::Requests { count, per_second: count as f64 / seconds, p50, p99 })
            }
            Work::Short => {
                let Report { count, seconds, .. } =
                    own_client(lab, target, &["short", &SHORT.to_string(), &HOSTS.to_string()])?;
                Ok(Done::Connections { count, per_second: count as f64 / seconds })
            }
        }
    }
}

/// Starts a generator that holds connections, and says how many once they are open.
fn held(lab: &Lab, target: SocketAddr, load: &[&str], more: &[&str]) -> anyhow::Result<(u64, Running)> {
    let mut command = lab.command(Side::Client, std::env::current_exe()?);
    let client = Running::start("held", command.args(["client", &target.to_string()]).args(load).args(more))?;
    wait_for("the client that holds connections", || client.log().ends_with('\n'))?;
    let text = client.log();
    let count = text.trim().parse().with_context(|| format!("the client that holds connections failed: {text}"))?;
    Ok((count, client))
}

/// Runs a generator of ours to its end.
fn own_client(lab: &Lab, target: SocketAddr, load: &[&str]) -> anyhow::Result<Report> {
    let mut command = lab.command(Side::Client, std::env::current_exe()?);
    let text = output(command.args(["client", &target.to_string()]).args(load))?;
    serde_json::from_str(&text).with_context(|| format!("reading what our generator printed: {text}"))
}

fn output(command: &mut std::process::Command) -> anyhow::Result<String> {
    let output = command.output().context("starting the load generator")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("the load generator failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

fn wrk(text: &str) -> anyhow::Result<Done> {
    if let Some(bad) = text.lines().find(|l| l.contains("Non-2xx") || l.contains("Socket errors")) {
        bail!("requests failed: {bad}");
    }
    let line = |key: &str| text.lines().find_map(|l| l.trim().strip_prefix(key)).map(str::trim);
    let count = text
        .lines()
        .find_map(|l| l.trim().split_once(" requests in "))
        .and_then(|(n, _)| n.parse().ok())
        .filter(|n| *n > 0)
        .with_context(|| format!("wrk counted nothing: {text}"))?;
    let per_second = line("Requests/sec:").and_then(|v| v.parse().ok()).context("wrk gave no rate")?;
    let latency = |key| line(key).and_then(wrk_time).with_context(|| format!("wrk gave no {key}"));
    Ok(Done::Requests { count, per_second, p50: latency("50%")?, p99: latency("99%")? })
}

/// A time as wrk writes it: `431.00us`, `1.20ms`, `1.02s`.
fn wrk_time(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at_checked(unit)?;
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * scale))
}

fn h2load(text: &str, requests: &str) -> anyhow::Result<Done> {
    let line =
        |key: &str| text.lines().find(|l| l.starts_with(key)).with_context(|| format!("h2load printed no {key}"));
    let per_second = line("finished in")?
        .split(", ")
        .find_map(|p| p.strip_suffix(" req/s")?.parse().ok())
        .context("h2load gave no rate")?;
    let bad = requests.lines().filter(|l| l.split('\t').nth(1) != Some("200")).count();
    if bad > 0 {
        bail!("{bad} requests failed: {text}");
    }
    let mut micros: Vec<u64> = requests.lines().filter_map(|l| l.split('\t').nth(2)?.parse().ok()).collect();
    micros.sort_unstable();
    let at = |share: f64| {
        let index = (micros.len() as f64 * share) as usize;
        micros.get(index.min(micros.len().saturating_sub(1))).copied().map(Duration::from_micros)
    };
    let none = "h2load made no request";
    Ok(Done::Requests {
        count: micros.len() as u64,
        per_second,
        p50: at(0.5).context(none)?,
        p99: at(0.99).context(none)?,
    })
}

fn iperf(text: &str) -> anyhow::Result<Done> {
    let json: serde_json::Value = serde_json::from_str(text).context("reading iperf3's report")?;
    let sum = &json["end"]["sum_received"];
    let bits = sum["bits_per_second"].as_f64().with_context(|| format!("iperf3 measured nothing: {text}"))?;
    Ok(Done::Bytes { gbit_per_second: bits / 1e9, bytes: sum["bytes"].as_u64().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_prints() {
        let text = "Running 1s test\n  Latency Distribution\n     50%  431.00us\n     75%  1.00ms\n     90%  2.00ms\n     99%  1.20ms\n  49000 requests in 1.00s, 12.00MB read\nRequests/sec:  48999.50\n";
        let Done::Requests { count, per_second, p50, p99 } = wrk(text).unwrap() else { panic!("no requests") };
        assert_eq!((count, per_second), (49000, 48999.5));
        assert_eq!((p50, p99), (Duration::from_micros(431), Duration::from_micros(1200)));
        assert!(wrk("  Non-2xx or 3xx responses: 5\n").is_err());
    }
}
