//! Child processes that end with their value, and what they cost.

use anyhow::Context;
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A process that is killed when the value is dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) name: String,
}

impl Running {
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let log = std::fs::File::create(format!("/run/{name}.log")).context("creating a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// User and system time so far. The children of `ip netns exec` replace it, so the id is the program's.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .with_context(|| format!("{} has ended; its log: {}", self.name, self.log()))?;
        times(&stat, [11, 12])
    }

    /// Resident memory in bytes.
    pub(crate) fn rss(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.context("reading VmRSS")? * 1024)
    }

    /// Asks it to end and waits until it has, so that it can write down what it has seen.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .with_context(|| format!("asking {} to end", self.name))?;
        wait_for(&format!("the end of {}", self.name), || self.child.try_wait().is_ok_and(|status| status.is_some()))
    }

    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(format!("/run/{}.log", self.name)).unwrap_or_default();
        log.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect()
    }
}

/// User and system time of the children that have ended, load generators above all.
pub(crate) fn ended() -> anyhow::Result<Duration> {
    times(&std::fs::read_to_string("/proc/self/stat")?, [13, 14])
}

/// The sum of times in a `stat`, by where they stand behind the program's name.
fn times(stat: &str, at: [usize; 2]) -> anyhow::Result<Duration> {
    let after_name = stat.rsplit_once(')').context("reading /proc/PID/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = at.into_iter().filter_map(|at| fields.get(at)?.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// What all cores of the machine have done up to a moment.
pub(crate) struct Machine {
    at: Instant,
    busy: Duration,
}

impl Machine {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("reading /proc/stat")?;
        let ticks: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // The fourth and the fifth are idle and waiting for disks; guests' time (from the ninth) is counted already.
        let busy: u64 = ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, n)| n).sum();
        let busy = Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64);
        Ok(Self { at: Instant::now(), busy })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// How many cores were busy since then, in the mean.
    pub(crate) fn busy_since(&self) -> anyhow::Result<f64> {
        let now = Self::now()?;
        Ok((now.busy - self.busy).as_secs_f64() / (now.at - self.at).as_secs_f64())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For a proxy to start, or 8,000 connections to be opened through it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until a probe run by `check` succeeds.
pub(crate) fn wait_for(what: &str, mut check: impl FnMut() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !check() {
        if start.elapsed() > PATIENCE {
            anyhow::bail!("{what} was not ready in {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
