//! The load generators and what they report.

use crate::{
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
    /// Keep-alive HTTP/1.1 connections that made one request each and then wait.
    Idle,
}

pub(crate) struct Load {
    pub(crate) work: Work,
    pub(crate) seconds: u64,
}

/// What came of a load.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    Requests { count: u64, per_second: f64, p50: Duration, p99: Duration },
    Bytes { gbit_per_second: f64, bytes: u64 },
    Connections { count: u64 },
}

impl Work {
    pub(crate) const ALL: [Self; 5] = [Self::H1, Self::H1OverH2, Self::H2, Self::Tcp, Self::Idle];
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H1 => "h1",
            Self::H1OverH2 => "h1-over-h2",
            Self::H2 => "h2",
            Self::Tcp => "tcp",
            Self::Idle => "idle",
        })
    }
}

impl Load {
    pub(crate) fn origin(&self, lab: &Lab) -> anyhow::Result<Running> {
        let origin = match self.work {
            Work::Tcp => {
                let port = ORIGIN.port().to_string();
                Running::start("origin", lab.command(Side::Server, "iperf3").args(["-s", "-p", &port]))?
            }
            _ => Running::start("origin", lab.command(Side::Server, std::env::current_exe()?).arg("origin"))?,
        };
        wait_for("the origin", || lab.listens(Side::Server, ORIGIN))?;
        Ok(origin)
    }

    pub(crate) fn warm_up(&self, lab: &Lab, target: SocketAddr) -> anyhow::Result<()> {
        match self.work {
            // What a proxy holds before its first connection is what it is compared with.
            Work::Idle => Ok(()),
            _ => self.send(lab, target, 2).map(drop),
        }
    }

    /// What came of it, and what must live while memory is measured.
    pub(crate) fn run(&self, lab: &Lab, target: SocketAddr) -> anyhow::Result<(Done, Option<Running>)> {
        if self.work != Work::Idle {
            return Ok((self.send(lab, target, self.seconds)?, None));
        }
        let client = Running::start(
            "idle",
            lab.command(Side::Client, std::env::current_exe()?).args(["idle", &target.to_string()]),
        )?;
        wait_for("the idle client", || client.log().ends_with('\n'))?;
        let text = client.log();
        let count = text.trim().parse().with_context(|| format!("the idle client failed: {text}"))?;
        std::thread::sleep(Duration::from_secs(self.seconds));
        Ok((Done::Connections { count }, Some(client)))
    }

    fn send(&self, lab: &Lab, target: SocketAddr, seconds: u64) -> anyhow::Result<Done> {
        match self.work {
            Work::H1 | Work::H1OverH2 => {
                let url = format!("http://{target}/");
                let text = output(lab.command(Side::Client, "wrk").args([
                    "-t1",
                    "-c32",
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
            Work::Idle => bail!("idle connections are held, not sent"),
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
        }
    }
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
