//! The `process_*` metrics, read from `/proc` when somebody scrapes.

use crate::{Registry, metrics::Sample};
use std::{
    fs,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// Adds the `process_*` metrics. The process counts as started now.
pub fn register(registry: &Registry) {
    let (started, wall) = (Instant::now(), unix_seconds());
    registry.collector(move |out| {
        let now = unix_seconds();
        out.push(Sample::level("process_start_time_seconds", "Time the process started, since the epoch", wall));
        out.push(Sample::level("process_clock_time_seconds", "Present time by the wall clock, since the epoch", now));
        let uptime = started.elapsed().as_secs_f64();
        out.push(Sample::counter("process_uptime_seconds_total", "Time since the process started", uptime));
        out.extend(read_proc());
    });
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// What `/proc` tells; what cannot be read is left out.
fn read_proc() -> Vec<Sample> {
    let mut out = vec![];
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(parse_stat) {
        out.push(Sample::counter(
            "process_cpu_seconds_total",
            "Processor time used, user and system",
            stat.cpu_ticks as f64 / TICKS_PER_SECOND,
        ));
        out.push(Sample::level("process_virtual_memory_bytes", "Virtual memory", stat.virtual_bytes as f64));
        out.push(Sample::level("process_threads", "Threads", stat.threads as f64));
    }
    if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(parse_rss) {
        out.push(Sample::level("process_resident_memory_bytes", "Resident memory", bytes as f64));
    }
    if let Ok(dir) = fs::read_dir("/proc/self/fd") {
        // One is the directory itself.
        out.push(Sample::level("process_open_fds", "Open file descriptors", dir.count().saturating_sub(1) as f64));
    }
    if let Some(max) = fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(parse_max_fds) {
        out.push(Sample::level("process_max_fds", "The most file descriptors that may be open", max as f64));
    }
    if let Some((rx, tx)) = fs::read_to_string("/proc/self/net/dev").ok().as_deref().map(parse_net_dev) {
        out.push(Sample::counter("process_network_receive_bytes_total", "Bytes received in this network", rx as f64));
        out.push(Sample::counter("process_network_transmit_bytes_total", "Bytes sent in this network", tx as f64));
    }
    out
}

/// The kernel shows times to users in units of 1/100 s on every architecture that Rust's Linux targets know.
const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    cpu_ticks: u64,
    threads: u64,
    virtual_bytes: u64,
}

/// Fields are counted behind the command's closing bracket: the command itself may hold blanks and brackets.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { cpu_ticks: number(11)? + number(12)?, threads: number(17)?, virtual_bytes: number(20)? })
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn parse_max_fds(limits: &str) -> Option<u64> {
    limits.lines().find_map(|l| l.strip_prefix("Max open files"))?.split_ascii_whitespace().next()?.parse().ok()
}

/// Received and sent bytes of all interfaces but loopback.
fn parse_net_dev(text: &str) -> (u64, u64) {
    let mut total = (0, 0);
    for line in text.lines() {
        let Some((name, counts)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let mut counts = counts.split_ascii_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        total.0 += counts.next().unwrap_or(0);
        total.1 += counts.nth(7).unwrap_or(0);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_right() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 9 0 12345 1048576 300 0";
        let stat = parse_stat(stat).unwrap();
        assert_eq!((stat.cpu_ticks, stat.threads, stat.virtual_bytes), (200, 9, 1_048_576));
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 * 1024));
        let limits = "Limit    Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(parse_max_fds(limits), Some(1024));
        let dev = "Inter-| Receive\n face |bytes\n lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";
        assert_eq!(parse_net_dev(dev), (10, 20));
    }

    #[test]
    fn every_process_metric_is_there() {
        let registry = Registry::new(1, 1);
        register(&registry);
        let text = registry.encode();
        for name in [
            "start_time_seconds",
            "clock_time_seconds",
            "uptime_seconds_total",
            "cpu_seconds_total",
            "virtual_memory_bytes",
            "resident_memory_bytes",
            "open_fds",
            "max_fds",
            "network_receive_bytes_total",
            "network_transmit_bytes_total",
            "threads",
        ] {
            assert!(text.contains(&format!("\nprocess_{name} ")), "{name} is not in\n{text}");
        }
    }
}
