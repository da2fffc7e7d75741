//! The text that a scrape gets: Prometheus' text format, ended by `# EOF` as Linkerd's proxies do.

use super::{
    Labels,
    cell::{Cell, Value},
    registry::{Family, Kind},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, atomic::Ordering::Relaxed},
};

/// A number that a collector reads at scrape time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    name: &'static str,
    help: &'static str,
    labels: Labels,
    value: Read,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    Counter(f64),
    Gauge(i64),
    Level(f64),
}

impl Sample {
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: Labels::new(), value: Read::Counter(value) }
    }

    /// How many there are of what a process holds: a process that takes over adds the old one's.
    pub fn gauge(name: &'static str, help: &'static str, count: usize) -> Self {
        Self { name, help, labels: Labels::new(), value: Read::Gauge(i64::try_from(count).unwrap_or(i64::MAX)) }
    }

    /// What is true of each process alone: nothing is added to it.
    pub fn level(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: Labels::new(), value: Read::Level(value) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }
}

/// A series with its shards added up.
pub(super) enum Merged {
    Counter(u64),
    Gauge(i64),
    Level(f64),
    Histogram { buckets: Vec<u64>, sum: f64 },
}

pub(super) fn merge<'a>(cells: impl Iterator<Item = &'a Arc<Cell>>) -> Merged {
    let mut merged = Merged::Counter(0);
    for (n, cell) in cells.enumerate() {
        match &cell.value {
            Value::Counter(value) => match &mut merged {
                Merged::Counter(sum) => *sum = sum.wrapping_add(value.load(Relaxed)),
                _ => merged = Merged::Counter(value.load(Relaxed)),
            },
            Value::Gauge(value) => match &mut merged {
                Merged::Gauge(sum) => *sum += value.load(Relaxed).cast_signed(),
                _ => merged = Merged::Gauge(value.load(Relaxed).cast_signed()),
            },
            Value::Level(bits) => {
                let value = f64::from_bits(bits.load(Relaxed));
                match &mut merged {
                    Merged::Level(largest) => *largest = largest.max(value),
                    _ => merged = Merged::Level(value),
                }
            }
            Value::Histogram { buckets: cells, sum: part, .. } => {
                if n == 0 {
                    merged = Merged::Histogram { buckets: vec![0; cells.len()], sum: 0.0 };
                }
                if let Merged::Histogram { buckets, sum } = &mut merged {
                    buckets.iter_mut().zip(cells.iter()).for_each(|(b, c)| *b += c.load(Relaxed));
                    *sum += f64::from_bits(part.load(Relaxed));
                }
            }
        }
    }
    merged
}

pub(super) fn family(out: &mut String, family: &Family, rows: &[(Labels, Merged)]) {
    if rows.is_empty() {
        return;
    }
    let (name, kind) = (family.name, family.kind);
    head(out, name, family.help, kind.as_str());
    for (labels, merged) in rows {
        match (merged, kind) {
            (Merged::Counter(value), _) => row(out, name, "", labels, *value),
            (Merged::Gauge(value), _) => row(out, name, "", labels, *value),
            (Merged::Level(value), _) => row(out, name, "", labels, *value),
            (Merged::Histogram { buckets, sum }, Kind::Histogram(bounds)) => {
                let mut count = 0;
                for (at, bucket) in buckets.iter().enumerate() {
                    count += bucket;
                    let labels = labels.clone();
                    let labels = match bounds.get(at) {
                        Some(bound) => labels.with("le", bound),
                        None => labels.with("le", "+Inf"),
                    };
                    row(out, name, "_bucket", &labels, count);
                }
                row(out, name, "_count", labels, count);
                row(out, name, "_sum", labels, sum);
            }
            (Merged::Histogram { .. }, _) => {}
        }
    }
}

/// Gauges of another process, as it wrote them.
#[derive(Default)]
pub(super) struct Gauges(BTreeMap<String, Rows>);

/// The values of one gauge by their labels.
#[derive(Default)]
pub(super) struct Rows(BTreeMap<String, i64>);

impl Gauges {
    /// Lines that are no series are left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut gauges = Self::default();
        for line in text.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.strip_suffix('}').unwrap_or(labels);
            if let Ok(value) = value.parse() {
                gauges.0.entry(name.to_owned()).or_default().0.insert(labels.to_owned(), value);
            }
        }
        gauges
    }

    /// Those of one name, which nobody else gets then.
    pub(super) fn take(&mut self, name: &str) -> Rows {
        self.0.remove(name).unwrap_or_default()
    }

    pub(super) fn rest(self) -> impl Iterator<Item = (String, Rows)> {
        self.0.into_iter()
    }
}

impl Rows {
    pub(super) fn add(mut self, rows: &[(Labels, Merged)]) -> Self {
        for (labels, merged) in rows {
            if let Merged::Gauge(value) = merged {
                self.count(labels, *value);
            }
        }
        self
    }

    pub(super) fn add_samples(mut self, samples: &[Sample]) -> Self {
        for sample in samples {
            if let Read::Gauge(value) = sample.value {
                self.count(&sample.labels, value);
            }
        }
        self
    }

    /// The other process's numbers may be anything.
    fn count(&mut self, labels: &Labels, value: i64) {
        let row = self.0.entry(labels.as_str().to_owned()).or_default();
        *row = row.saturating_add(value);
    }
}

pub(super) fn gauges(out: &mut String, name: &str, help: &str, rows: Rows) {
    if !rows.0.is_empty() {
        head(out, name, help, "gauge");
        gauge_rows(out, name, &rows);
    }
}

pub(super) fn gauge_rows(out: &mut String, name: &str, rows: &Rows) {
    for (labels, value) in &rows.0 {
        let _ = if labels.is_empty() {
            writeln!(out, "{name} {value}")
        } else {
            writeln!(out, "{name}{{{labels}}} {value}")
        };
    }
}

/// Samples in the order of their names, each name under one head.
pub(super) fn samples(out: &mut String, samples: &[Sample], others: &mut Gauges) {
    for same in samples.chunk_by(|a, b| a.name == b.name) {
        let Some(Sample { name, help, value, .. }) = same.first() else { continue };
        let other = others.take(name);
        match value {
            Read::Gauge(_) => gauges(out, name, help, other.add_samples(same)),
            Read::Counter(_) => head(out, name, help, "counter"),
            Read::Level(_) => head(out, name, help, "gauge"),
        }
        for sample in same {
            if let Read::Counter(value) | Read::Level(value) = sample.value {
                row(out, name, "", &sample.labels, value);
            }
        }
    }
}

/// The lines of the gauges among samples, which are in the order of their names.
pub(super) fn sample_rows(out: &mut String, samples: &[Sample], others: &mut Gauges) {
    for same in samples.chunk_by(|a, b| a.name == b.name) {
        if let Some(Sample { name, value: Read::Gauge(_), .. }) = same.first() {
            gauge_rows(out, name, &others.take(name).add_samples(same));
        }
    }
}

// Writing to a string cannot fail.
fn head(out: &mut String, name: &str, help: &str, type_name: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {type_name}");
}

fn row(out: &mut String, name: &str, suffix: &str, labels: &Labels, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name}{suffix} {value}")
    } else {
        writeln!(out, "{name}{suffix}{{{}}} {value}", labels.as_str())
    };
}

#[cfg(test)]
mod tests {
    use crate::{Labels, Registry, Shard, metrics::Sample};

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let registry = Registry::new(1, 10);
        let latency = registry.histogram("latency_ms", "Latency", &[1.0, 2.5, 10.0]);
        for (worker, values) in [(0, [0.5, 2.5]), (1, [2.6, 11.0])] {
            let handle = latency.with(Shard::worker(worker), &Labels::new().with("d", "in"));
            values.iter().for_each(|v| handle.observe(*v));
        }
        registry.counter("a_total", "A").with(Shard::ADMIN, &Labels::new()).inc();
        registry.gauge("unused", "Has no series");
        assert_eq!(
            registry.encode(),
            r#"# HELP a_total A
# TYPE a_total counter
a_total 1
# HELP latency_ms Latency
# TYPE latency_ms histogram
latency_ms_bucket{d="in",le="1"} 1
latency_ms_bucket{d="in",le="2.5"} 2
latency_ms_bucket{d="in",le="10"} 3
latency_ms_bucket{d="in",le="+Inf"} 4
latency_ms_count{d="in"} 4
latency_ms_sum{d="in"} 16.6
# HELP weft_metrics_series Series that are kept apart
# TYPE weft_metrics_series gauge
weft_metrics_series 2
# HELP weft_metrics_series_dropped_total Lookups of a series that was over the cap and counted into an overflow series
# TYPE weft_metrics_series_dropped_total counter
weft_metrics_series_dropped_total 0
# EOF
"#
        );
    }

    #[test]
    fn another_processs_gauges_are_added() {
        let (old, new) = (Registry::new(1, 10), Registry::new(1, 10));
        let labels = |d: &str| Labels::new().with("d", d).with("text", "a b{}");
        let gauge = |registry: &Registry, name, d: &str, n| {
            let gauge = registry.gauge(name, "Open").with(Shard::worker(0), &labels(d));
            gauge.add(n);
            gauge
        };
        let _held = [gauge(&old, "open", "in", 3), gauge(&old, "open", "out", 4), gauge(&old, "gone", "in", 5)];
        let _held = [gauge(&new, "open", "in", 10), gauge(&new, "own", "in", 1)];
        old.counter("n_total", "Not passed on").with(Shard::ADMIN, &Labels::new()).inc();
        let collect = |registry: &Registry, held: &[(&'static str, usize)]| {
            let held = held.to_vec();
            registry.collector(move |samples| {
                for (d, count) in held.iter().copied() {
                    let labels = Labels::new().with("d", d);
                    samples.push(Sample::gauge("held", "Held", count).labels(labels.clone()));
                    samples.push(Sample::counter("full_total", "Full", 1.0).labels(labels));
                }
                samples.push(Sample::level("expires", "When it expires", 7.5));
            });
        };
        collect(&old, &[("in", 2), ("out", 3)]);
        collect(&new, &[("in", 5), ("mid", 1)]);
        let text = new.encode_adding(&old.gauges(""));
        for line in [
            "expires 7.5",
            "gone{d=\"in\",text=\"a b{}\"} 5",
            "held{d=\"in\"} 7",
            "held{d=\"out\"} 3",
            "open{d=\"in\",text=\"a b{}\"} 13",
            "open{d=\"out\",text=\"a b{}\"} 4",
            "own{d=\"in\",text=\"a b{}\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("n_total"));
        // In whatever order it is told: each under one head, and once.
        for head in [
            "# TYPE held gauge\nheld{d=\"in\"} 7\nheld{d=\"mid\"} 1\nheld{d=\"out\"} 3\n#",
            "# TYPE full_total counter\nfull_total{d=\"in\"} 1\nfull_total{d=\"mid\"} 1\n#",
        ] {
            assert!(text.contains(head), "{text}");
        }
        assert_eq!(text.matches("\nheld{").count(), 3, "{text}");
        // Another version's gauge of a name that is none any more is left out.
        assert!(!new.encode_adding("full_total 5\nexpires 9\n").contains("full_total 5"));
        // A third process gets the sum.
        let third = Registry::new(1, 10).encode_adding(&new.gauges(&old.gauges("")));
        for line in ["open{d=\"in\",text=\"a b{}\"} 13", "held{d=\"in\"} 7", "held{d=\"out\"} 3"] {
            assert!(third.lines().any(|l| l == line), "{line} is not in\n{third}");
        }
        assert!(new.encode_adding("no series\nx{ y\n\n").contains("} 10"));
    }
}
