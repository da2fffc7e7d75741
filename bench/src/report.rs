//! The report: medians, and ratios to each peer in the same run.

use crate::{
    load::{Done, Work},
    subject::Subject,
};
use std::{collections::BTreeMap, fmt, fmt::Write, time::Duration};

/// One subject, once.
pub(crate) struct Row {
    pub(crate) subject: Subject,
    pub(crate) done: Done,
    /// Of both proxies.
    pub(crate) cpu: Duration,
    /// Bytes, of the client's and the server's proxy: before the load, and at its end.
    pub(crate) rss_before: (u64, u64),
    pub(crate) rss: (u64, u64),
}

pub(crate) struct Report {
    seconds: u64,
    rounds: usize,
    machine: String,
    date: String,
    rows: BTreeMap<(Work, Subject), Vec<Row>>,
}

impl Row {
    /// Microseconds of both proxies per request, or per MiB.
    fn cost(&self) -> f64 {
        let units = match self.done {
            Done::Requests { count, .. } => count as f64,
            Done::Bytes { bytes, .. } => bytes as f64 / f64::from(1 << 20),
            Done::Connections { count } => count as f64,
        };
        self.cpu.as_secs_f64() * 1e6 / units.max(1.0)
    }

    /// Requests or gigabits per second.
    fn rate(&self) -> f64 {
        match self.done {
            Done::Requests { per_second, .. } => per_second,
            Done::Bytes { gbit_per_second, .. } => gbit_per_second,
            Done::Connections { count } => count as f64,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2}/s, {:.1} µs", self.subject, self.rate(), self.cost())
    }
}

impl Report {
    pub(crate) fn new(seconds: u64, rounds: usize) -> anyhow::Result<Self> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("unknown", |m| m.1);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cores = std::thread::available_parallelism()?;
        Ok(Self {
            seconds,
            rounds,
            machine: format!("{cores} ×{model}, Linux {}", kernel.trim()),
            date: jiff::Zoned::now().date().to_string(),
            rows: BTreeMap::new(),
        })
    }

    pub(crate) fn add(&mut self, work: Work, row: Row) {
        self.rows.entry((work, row.subject)).or_default().push(row);
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "# Results\n\nWritten by `cargo xtask bench` on {}. Machine: {}. {} s of load per subject and work, median of {} rounds.\n\
             Two proxies in network namespaces, mTLS (TLS 1.3, P-256, client certificates) between them, one worker each. CPU is user and system time of both\n\
             proxies per request (per MiB for tcp). Machines are shared: compare within one run.\n\nVersions: {}.\n",
            self.date,
            self.machine,
            self.seconds,
            self.rounds,
            Subject::versions()
        );
        for work in Work::ALL {
            self.section(work, &mut text);
        }
        text
    }

    fn section(&self, work: Work, text: &mut String) {
        let present: Vec<_> = Subject::ALL.into_iter().filter(|s| self.rows.contains_key(&(work, *s))).collect();
        if present.is_empty() {
            return;
        }
        let rate = match work {
            Work::Tcp => "Gbit/s",
            Work::Idle => "connections",
            _ => "requests/s",
        };
        let _ = write!(
            text,
            "\n## {work}\n\n| | {rate} | CPU µs | CPU ÷ Envoy's | rate ÷ Envoy's | p50 ms | p99 ms | RSS MB client, server | before the load |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        );
        let envoy = (self.median(work, Subject::Envoy, Row::cost), self.median(work, Subject::Envoy, Row::rate));
        for subject in present {
            let (cost, rate) = (self.median(work, subject, Row::cost), self.median(work, subject, Row::rate));
            let latency = |pick: fn(&Row) -> f64| {
                if matches!(work, Work::Tcp | Work::Idle) {
                    "–".to_owned()
                } else {
                    format!("{:.2}", self.median(work, subject, pick))
                }
            };
            let (cost_text, ratio) = match subject {
                Subject::Direct => ("–".to_owned(), "–".to_owned()),
                _ => (format!("{cost:.1}"), format!("{:.2}", cost / envoy.0)),
            };
            let rss = match subject {
                Subject::Direct => "– | –".to_owned(),
                _ => format!(
                    "{:.1}, {:.1} | {:.1}, {:.1}",
                    self.median(work, subject, |r| r.rss.0 as f64 / 1e6),
                    self.median(work, subject, |r| r.rss.1 as f64 / 1e6),
                    self.median(work, subject, |r| r.rss_before.0 as f64 / 1e6),
                    self.median(work, subject, |r| r.rss_before.1 as f64 / 1e6)
                ),
            };
            let _ = writeln!(
                text,
                "| {subject} | {rate:.2} | {cost_text} | {ratio} | {:.2} | {} | {} | {rss} |",
                rate / envoy.1,
                latency(|r| millis(r, |p50, _| p50)),
                latency(|r| millis(r, |_, p99| p99)),
            );
        }
    }

    fn median(&self, work: Work, subject: Subject, of: impl Fn(&Row) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rows.get(&(work, subject)).into_iter().flatten().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

fn millis(row: &Row, pick: fn(Duration, Duration) -> Duration) -> f64 {
    match row.done {
        Done::Requests { p50, p99, .. } => pick(p50, p99).as_secs_f64() * 1e3,
        Done::Bytes { .. } | Done::Connections { .. } => f64::NAN,
    }
}
