//! The report: medians, and ratios to each peer in the same run.

use crate::{
    client::Percentiles,
    load::{Done, OPEN_SECONDS, Work, turns},
    subject::Subject,
};
use std::{collections::BTreeMap, fmt, fmt::Write, time::Duration};

/// One subject, once.
pub(crate) struct Row {
    pub(crate) subject: Subject,
    pub(crate) done: Done,
    /// Of both proxies.
    pub(crate) cpu: Duration,
    /// Of the machine that were busy meanwhile, with whatever.
    pub(crate) cores: f64,
    /// Of those: by the proxies, the origin and the load.
    pub(crate) own: f64,
    /// Bytes, of the client's and the server's proxy: before the load, and at its end.
    pub(crate) rss_before: (u64, u64),
    pub(crate) rss: (u64, u64),
}

pub(crate) struct Report {
    seconds: u64,
    rounds: usize,
    machine: String,
    /// Of the machine.
    cores: usize,
    date: String,
    /// Of which weft is measured.
    commit: String,
    rows: BTreeMap<(Work, Subject), Vec<Row>>,
    failures: Vec<String>,
}

impl Row {
    /// Microseconds of both proxies per request, or per MiB.
    fn cost(&self) -> f64 {
        let units = match self.done {
            Done::Requests { count, .. } => count as f64,
            Done::Bytes { bytes, .. } => bytes as f64 / f64::from(1 << 20),
            Done::Connections { count, .. } | Done::Open { count, .. } | Done::Slow { count, .. } => count as f64,
        };
        self.cpu.as_secs_f64() * 1e6 / units.max(1.0)
    }

    /// Requests or gigabits per second.
    fn rate(&self) -> f64 {
        match self.done {
            Done::Requests { per_second, .. } => per_second,
            Done::Bytes { gbit_per_second, .. } => gbit_per_second,
            Done::Connections { per_second, .. } => per_second,
            Done::Open { count, .. } | Done::Slow { count, .. } => count as f64,
        }
    }

    /// What requests took at the p99 without slow clients and beside them, in microseconds.
    fn beside(&self) -> (f64, f64) {
        match self.done {
            Done::Slow { alone, beside, .. } => (alone.p99, beside.p99),
            _ => (f64::NAN, f64::NAN),
        }
    }

    /// What requests took in the cold part and, where there was one, in the steady part, in microseconds.
    fn open(&self) -> (Percentiles, Percentiles) {
        match self.done {
            Done::Open { cold, steady, .. } => (cold, steady.unwrap_or(Percentiles::NONE)),
            _ => (Percentiles::NONE, Percentiles::NONE),
        }
    }

    /// KB that each connection costs the client's and the server's proxy.
    fn per_connection(&self) -> (f64, f64) {
        let Done::Connections { count, .. } = self.done else { return (f64::NAN, f64::NAN) };
        let each = |before: u64, after: u64| (after as f64 - before as f64) / 1e3 / count.max(1) as f64;
        (each(self.rss_before.0, self.rss.0), each(self.rss_before.1, self.rss.1))
    }
}

/// The machine, and how many cores it has.
pub(crate) fn machine() -> anyhow::Result<(String, usize)> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("unknown", |m| m.1);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?.get();
    Ok((format!("{cores} ×{model}, Linux {}", kernel.trim()), cores))
}

/// Of which weft is measured.
pub(crate) fn commit() -> String {
    std::env::var("WEFT_BENCH_COMMIT").unwrap_or_else(|_| "an unnamed commit".to_owned())
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:.2}/s, {:.1} µs", self.subject, self.rate(), self.cost())
    }
}

impl Report {
    pub(crate) fn new(seconds: u64, rounds: usize) -> anyhow::Result<Self> {
        let (machine, cores) = machine()?;
        Ok(Self {
            seconds,
            rounds,
            machine,
            cores,
            date: jiff::Zoned::now().date().to_string(),
            commit: commit(),
            rows: BTreeMap::new(),
            failures: vec![],
        })
    }

    pub(crate) fn add(&mut self, work: Work, row: Row) {
        self.rows.entry((work, row.subject)).or_default().push(row);
    }

    pub(crate) fn failed(&mut self, work: Work, subject: Subject, error: &anyhow::Error) {
        let cause = error.root_cause().to_string();
        self.failures.push(format!("{subject} doing {work}: {}", cause.lines().next().unwrap_or_default()));
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.failures.is_empty()
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "# Results\n\nWritten by `cargo xtask bench` on {} of {}. Machine: {}. {} s of load per subject and work,\n\
             median of {} rounds. An open loop is started {} times and runs {OPEN_SECONDS} s in all besides the first 5 s of each start, by turns with the others; its\n\
             figures are lower quartiles: what else a machine does makes a tail longer, never shorter.\n\
             Two proxies in network namespaces, mTLS (TLS 1.3, P-256, client certificates) between them, one worker each, and behind the same redirection\n\
             rules: what the kernel does for those costs every subject alike. weft has policies, metrics, balancing, records and an idle tap server on. CPU is user and\n\
             system time of both proxies per request (per MiB for tcp). Machines are shared: compare within one run.\n\nVersions: {}.\n",
            self.date,
            self.commit,
            self.machine,
            self.seconds,
            self.rounds,
            turns(Work::Open600, self.rounds),
            Subject::versions()
        );
        self.targets(&mut text);
        for work in Work::ALL {
            self.section(work, &mut text);
        }
        if !self.failures.is_empty() {
            let _ = write!(text, "\n## Failed\n\n- {}\n", self.failures.join("\n- "));
        }
        text
    }

    /// What is promised, and what this run says of it.
    fn targets(&self, text: &mut String) {
        let measured: Vec<_> = TARGETS.iter().map(|t| (t, (t.value)(self))).filter(|(_, v)| v.is_finite()).collect();
        if measured.is_empty() {
            return;
        }
        text.push_str("\n## Targets\n\n| work | what | target | measured | |\n|---|---|--:|--:|---|\n");
        for (Target { work, what, bound, value: _ }, value) in measured {
            let (sign, limit, held) = match bound {
                Bound::Most(limit) => ("≤", limit, value <= *limit),
                Bound::Least(limit) => ("≥", limit, value >= *limit),
            };
            let outcome = match self.no_cores(*work, *limit) {
                _ if held => "held".to_owned(),
                Some(why) => format!("not measurable here: {why}"),
                None => "**missed**".to_owned(),
            };
            let _ = writeln!(text, "| {work} | {what} | {sign} {limit} | {value:.2} | {outcome} |");
        }
    }

    /// Why a second worker cannot do `limit` times the work of one on this machine: what is left idle beside one worker and its load is
    /// too little for as much more of both.
    fn no_cores(&self, work: Work, limit: f64) -> Option<String> {
        if work != Work::TwoWorkers {
            return None;
        }
        let one = |what: Figure| self.median(work, Subject::Weft, what);
        let (own, busy, cores) = (one(|r| r.own), one(|r| r.cores), self.cores as f64);
        let others = (busy - own).max(0.0);
        let most = (cores - others) / own;
        (most < limit).then(|| {
            format!(
                "of {cores} cores one worker and its load use {own:.2} and others {others:.2}, which leaves room for {most:.2} × as much"
            )
        })
    }

    fn section(&self, work: Work, text: &mut String) {
        let present: Vec<_> = Subject::ALL.into_iter().filter(|s| self.rows.contains_key(&(work, *s))).collect();
        if present.is_empty() {
            return;
        }
        let _ = write!(text, "\n## {work}\n\n{}.\n\n", work.meaning());
        let (columns, cells): (&[&str], Cells) = match work {
            Work::Open600 | Work::Open2000 => (OPEN, Self::open_cells),
            Work::Idle | Work::IdleTcp => (IDLE, Self::idle_cells),
            Work::Short => (SHORT, Self::short_cells),
            Work::TwoWorkers => (WORKERS, Self::worker_cells),
            Work::Slow | Work::SlowOverH2 => (SLOW, Self::slow_cells),
            _ => (LOAD, Self::load_cells),
        };
        let _ = writeln!(text, "| | {} |\n|---|{}", columns.join(" | "), "--:|".repeat(columns.len()));
        for subject in present {
            let _ = writeln!(text, "| {subject} | {} |", cells(self, work, subject).join(" | "));
        }
    }

    fn load_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        let of = |subject, of: fn(&Row) -> f64| self.median(work, subject, of);
        let against = |peer, what: fn(&Row) -> f64| ratio(of(subject, what), of(peer, what));
        let proxied = |text: String| if subject == Subject::Direct { "–".to_owned() } else { text };
        let latency = |pick: fn(&Row) -> f64| match work {
            Work::Tcp => "–".to_owned(),
            _ => number(of(subject, pick), 2),
        };
        vec![
            number(of(subject, Row::rate), if work == Work::Tcp { 2 } else { 0 }),
            proxied(number(of(subject, Row::cost), 1)),
            proxied(against(Subject::Envoy, Row::cost)),
            proxied(against(Subject::Haproxy, Row::cost)),
            against(Subject::Envoy, Row::rate),
            latency(|r| millis(r, |p50, _| p50)),
            latency(|r| millis(r, |_, p99| p99)),
            proxied(self.rss(work, subject)),
        ]
    }

    fn open_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        let of = |subject, of: fn(&Row) -> f64| self.quiet(work, subject, of) / 1e3;
        let (cold, steady): (Figure, Figure) = (|r| r.open().0.p99, |r| r.open().1.p99);
        let against = |what| match subject {
            Subject::Direct => "–".to_owned(),
            _ => number(self.added(work, subject, what), 2),
        };
        vec![
            number(of(subject, |r| r.open().1.p50), 2),
            number(of(subject, steady), 2),
            against(steady),
            number(of(subject, |r| r.open().0.p50), 2),
            number(of(subject, cold), 2),
            against(cold),
        ]
    }

    /// What a subject adds to the time without proxies, by what Envoy adds.
    fn added(&self, work: Work, subject: Subject, what: Figure) -> f64 {
        let added = |subject| self.quiet(work, subject, what) - self.quiet(work, Subject::Direct, what);
        added(subject) / added(Subject::Envoy)
    }

    /// A figure of weft by the same of a peer.
    fn against(&self, work: Work, peer: Subject, what: Figure) -> f64 {
        self.median(work, Subject::Weft, what) / self.median(work, peer, what)
    }

    fn worker_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        let of = |what: Figure| self.median(work, subject, what);
        let by_one = |what: Figure| number(of(what) / self.median(work, Subject::Weft, what), 2);
        vec![
            number(of(Row::rate), 0),
            by_one(Row::rate),
            number(of(Row::cost), 1),
            by_one(Row::cost),
            number(of(|r| r.own), 2),
            number(of(|r| r.cores), 2),
        ]
    }

    fn slow_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        let of = |what: Figure| self.median(work, subject, what);
        vec![
            number(of(|r| r.beside().0) / 1e3, 2),
            number(of(|r| r.beside().1) / 1e3, 2),
            number(of(|r| r.beside().1) / of(|r| r.beside().0), 2),
            self.rss(work, subject),
        ]
    }

    fn idle_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        vec![
            number(self.median(work, subject, |r| r.per_connection().0), 1),
            number(self.median(work, subject, |r| r.per_connection().1), 1),
            self.rss(work, subject),
        ]
    }

    fn short_cells(&self, work: Work, subject: Subject) -> Vec<String> {
        vec![
            number(self.median(work, subject, Row::rate), 0),
            number(self.median(work, subject, Row::cost), 1),
            self.rss(work, subject),
        ]
    }

    /// MB, of the client's proxy and of the server's.
    fn rss(&self, work: Work, subject: Subject) -> String {
        let of = |of: fn(&Row) -> u64| number(self.median(work, subject, |r| of(r) as f64 / 1e6), 1);
        format!("{}, {} → {}, {}", of(|r| r.rss_before.0), of(|r| r.rss_before.1), of(|r| r.rss.0), of(|r| r.rss.1))
    }

    fn median(&self, work: Work, subject: Subject, of: impl Fn(&Row) -> f64) -> f64 {
        self.quantile(work, subject, 2, of)
    }

    /// The lower quartile, of a tail: what else a machine does makes it longer, never shorter.
    fn quiet(&self, work: Work, subject: Subject, of: impl Fn(&Row) -> f64) -> f64 {
        self.quantile(work, subject, 4, of)
    }

    /// What one of so many parts of the rounds is below.
    fn quantile(&self, work: Work, subject: Subject, parts: usize, of: impl Fn(&Row) -> f64) -> f64 {
        let mut values: Vec<f64> = self.rows.get(&(work, subject)).into_iter().flatten().map(of).collect();
        // Some rounds have no such part.
        values.retain(|value| !value.is_nan());
        values.sort_by(f64::total_cmp);
        values.get(values.len() / parts).copied().unwrap_or(f64::NAN)
    }
}

/// What stands in a row of a work's table, behind the subject.
type Cells = fn(&Report, Work, Subject) -> Vec<String>;
/// What is taken from each round, for the median.
type Figure = fn(&Row) -> f64;

/// What the project promises of a run.
struct Target {
    work: Work,
    what: &'static str,
    bound: Bound,
    value: fn(&Report) -> f64,
}

enum Bound {
    Most(f64),
    Least(f64),
}

const fn target(work: Work, what: &'static str, bound: Bound, value: fn(&Report) -> f64) -> Target {
    Target { work, what, bound, value }
}

/// The p99 of an open loop, steady and cold.
const STEADY: Figure = |r| r.open().1.p99;
const COLD: Figure = |r| r.open().0.p99;

#[rustfmt::skip]
const TARGETS: &[Target] = &[
    target(Work::H1, "CPU ÷ Envoy's", Bound::Most(0.30), |r| r.against(Work::H1, Subject::Envoy, Row::cost)),
    target(Work::H1, "CPU ÷ HAProxy's", Bound::Most(0.75), |r| r.against(Work::H1, Subject::Haproxy, Row::cost)),
    target(Work::H1OverH2, "CPU ÷ Envoy's", Bound::Most(0.38), |r| r.against(Work::H1OverH2, Subject::Envoy, Row::cost)),
    target(Work::H2, "CPU ÷ Envoy's", Bound::Most(0.33), |r| r.against(Work::H2, Subject::Envoy, Row::cost)),
    target(Work::Tcp, "rate ÷ Envoy's", Bound::Least(1.0), |r| r.against(Work::Tcp, Subject::Envoy, Row::rate)),
    target(Work::TwoWorkers, "rate ÷ one worker's, where cores allow", Bound::Least(1.7), |r| {
        r.median(Work::TwoWorkers, Subject::Weft2, Row::rate) / r.median(Work::TwoWorkers, Subject::Weft, Row::rate)
    }),
    target(Work::Open600, "p99 added ÷ Envoy's, steady", Bound::Most(0.5), |r| r.added(Work::Open600, Subject::Weft, STEADY)),
    target(Work::Open600, "p99 added ÷ Envoy's, first 5 s", Bound::Most(1.0), |r| r.added(Work::Open600, Subject::Weft, COLD)),
    target(Work::Open2000, "p99 added ÷ Envoy's, steady", Bound::Most(0.5), |r| r.added(Work::Open2000, Subject::Weft, STEADY)),
    target(Work::Open2000, "p99 added ÷ Envoy's, first 5 s", Bound::Most(1.0), |r| r.added(Work::Open2000, Subject::Weft, COLD)),
    target(Work::Idle, "KB each, client's proxy", Bound::Most(3.0), |r| r.median(Work::Idle, Subject::Weft, |r| r.per_connection().0)),
    target(Work::IdleTcp, "KB each, client's proxy", Bound::Most(12.0), |r| r.median(Work::IdleTcp, Subject::Weft, |r| r.per_connection().0)),
    target(Work::IdleTcp, "KB each, server's proxy", Bound::Most(12.0), |r| r.median(Work::IdleTcp, Subject::Weft, |r| r.per_connection().1)),
    target(Work::Handshakes, "rate ÷ Envoy's", Bound::Least(1.0), |r| r.against(Work::Handshakes, Subject::Envoy, Row::rate)),
    target(Work::HandshakesX25519, "rate ÷ Envoy's", Bound::Least(1.0), |r| r.against(Work::HandshakesX25519, Subject::Envoy, Row::rate)),
    target(Work::Short, "RSS after all ÷ after the first 50,000, client's proxy", Bound::Most(1.05), |r| {
        r.median(Work::Short, Subject::Weft, |r| r.rss.0 as f64 / r.rss_before.0 as f64)
    }),

    target(Work::Short, "RSS after all ÷ after the first 50,000, server's proxy", Bound::Most(1.05), |r| {
        r.median(Work::Short, Subject::Weft, |r| r.rss.1 as f64 / r.rss_before.1 as f64)
    }),
];

const LOAD: &[&str] = &[
    "per second (Gbit for tcp)",
    "CPU µs",
    "CPU ÷ Envoy's",
    "CPU ÷ HAProxy's",
    "rate ÷ Envoy's",
    "p50 ms",
    "p99 ms",
    "RSS MB client, server",
];
const OPEN: &[&str] = &[
    "p50 ms steady",
    "p99 ms steady",
    "p99 added ÷ Envoy's",
    "p50 ms first 5 s",
    "p99 ms first 5 s",
    "p99 added ÷ Envoy's first 5 s",
];
const WORKERS: &[&str] = &[
    "per second",
    "÷ one worker's",
    "CPU µs",
    "÷ one worker's",
    "cores used by proxies and load",
    "cores of the machine that were busy",
];
const SLOW: &[&str] = &["p99 ms alone", "p99 ms beside 5,000 slow clients", "ratio", "RSS MB client, server"];
const IDLE: &[&str] = &["KB each at the client's proxy", "KB each at the server's proxy", "RSS MB client, server"];
const SHORT: &[&str] = &["connections/s", "CPU µs", "RSS MB client, server, after the first 50,000 → after all"];

fn number(value: f64, digits: usize) -> String {
    if value.is_finite() { format!("{value:.digits$}") } else { "–".to_owned() }
}

fn ratio(value: f64, to: f64) -> String {
    number(value / to, 2)
}

fn millis(row: &Row, pick: fn(Duration, Duration) -> Duration) -> f64 {
    match row.done {
        Done::Requests { p50, p99, .. } => pick(p50, p99).as_secs_f64() * 1e3,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: Subject, per_second: f64, own: f64, cores: f64) -> Row {
        let time = Duration::from_millis(1);
        let done = Done::Requests { count: 1, per_second, p50: time, p99: time };
        Row { subject, done, cpu: time, cores, own, rss_before: (0, 0), rss: (0, 0) }
    }

    #[test]
    fn a_second_worker_is_missed_only_where_there_are_cores_for_it() {
        let verdict = |machine: usize, own: f64, busy: f64, second: f64| {
            let mut report = Report::new(1, 1).unwrap();
            report.cores = machine;
            report.add(Work::TwoWorkers, row(Subject::Weft, 100.0, own, busy));
            report.add(Work::TwoWorkers, row(Subject::Weft2, second, own, busy));
            let mut text = String::new();
            report.targets(&mut text);
            let line = text.lines().last().unwrap().trim_end_matches(" |");
            line.rsplit("| ").next().unwrap().to_owned()
        };
        assert_eq!(verdict(4, 2.0, 2.1, 150.0), "**missed**");
        assert_eq!(verdict(4, 2.0, 2.1, 171.0), "held");
        assert_eq!(verdict(2, 1.9, 2.0, 171.0), "held");
        assert_eq!(
            verdict(2, 1.9, 2.0, 150.0),
            "not measurable here: of 2 cores one worker and its load use 1.90 and others 0.10, which leaves room for 1.00 × as much"
        );
    }
}
