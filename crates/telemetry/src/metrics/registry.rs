//! Families and their series.

use super::{
    Labels, Sample,
    cell::{Cell, Counter, Gauge, Histogram, Level, Value, Writers},
    encode,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Which thread writes: a worker's number, or [`Shard::ADMIN`]. A worker's part is written by its thread alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard(usize);

impl Shard {
    /// The thread of the admin server, control streams and identity; and whoever else is no worker, or writes seldom.
    pub const ADMIN: Self = Self(0);

    pub const fn worker(index: usize) -> Self {
        Self(index + 1)
    }

    fn writers(self) -> Writers {
        if self == Self::ADMIN { Writers::Several } else { Writers::One }
    }
}

/// All metrics of a process.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    shards: usize,
    series_cap: usize,
    series: AtomicUsize,
    /// How many of them have labels of clients' choice.
    chosen: AtomicUsize,
    dropped: AtomicU64,
    families: Mutex<BTreeMap<&'static str, Arc<Family>>>,
    collectors: Mutex<Vec<Box<Collect>>>,
}

/// Reads numbers at scrape time.
type Collect = dyn Fn(&mut Vec<Sample>) + Send + Sync;

pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    series: Mutex<HashMap<Labels, Series>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Level,
    Histogram(&'static [f64]),
}

struct Series {
    /// One per shard that has asked for one.
    cells: Vec<Option<Arc<Cell>>>,
    /// Since when nobody holds it, as far as was looked.
    idle_since: Option<Instant>,
    room: Room,
}

/// What a series counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// Nothing, and it is never evicted: the overflow series and pinned ones.
    Exempt,
    Cap,
    /// The cap, and of it the part that clients may fill.
    Chosen,
}

/// Counters of one name.
#[derive(Clone)]
pub struct CounterFamily(Named);
/// Gauges of one name.
#[derive(Clone)]
pub struct GaugeFamily(Named);
/// Levels of one name.
#[derive(Clone)]
pub struct LevelFamily(Named);
/// Histograms of one name.
#[derive(Clone)]
pub struct HistogramFamily(Named);

#[derive(Clone)]
struct Named {
    registry: Registry,
    family: Arc<Family>,
    room: Room,
}

impl Registry {
    /// `workers` threads besides the admin thread write; at most `series_cap` series are kept apart.
    pub fn new(workers: usize, series_cap: usize) -> Self {
        Self(Arc::new(Inner {
            shards: workers + 1,
            series_cap,
            series: AtomicUsize::new(0),
            chosen: AtomicUsize::new(0),
            dropped: AtomicU64::new(0),
            families: Mutex::default(),
            collectors: Mutex::default(),
        }))
    }

    pub fn counter(&self, name: &'static str, help: &'static str) -> CounterFamily {
        CounterFamily(self.family(name, help, Kind::Counter))
    }

    pub fn gauge(&self, name: &'static str, help: &'static str) -> GaugeFamily {
        GaugeFamily(self.family(name, help, Kind::Gauge))
    }

    /// See [`Level`].
    pub fn level(&self, name: &'static str, help: &'static str) -> LevelFamily {
        LevelFamily(self.family(name, help, Kind::Level))
    }

    /// `bounds` are inclusive, ascending, without +Inf.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> HistogramFamily {
        HistogramFamily(self.family(name, help, Kind::Histogram(bounds)))
    }

    /// Adds numbers that are read when somebody scrapes.
    pub fn collector(&self, collect: impl Fn(&mut Vec<Sample>) + Send + Sync + 'static) {
        self.0.collectors.lock().push(Box::new(collect));
    }

    /// The text of a scrape. Families without series are left out.
    pub fn encode(&self) -> String {
        self.encode_adding("")
    }

    /// The text of a scrape, with what [`Registry::gauges`] of another process said added to this one's gauges.
    pub fn encode_adding(&self, others: &str) -> String {
        let mut others = encode::Gauges::parse(others);
        let mut out = String::with_capacity(4096);
        for family in self.all() {
            let rows = family.rows();
            match family.kind {
                Kind::Gauge => encode::gauges(&mut out, family.name, family.help, others.take(family.name).add(&rows)),
                _ => {
                    // Another version may have had a gauge of this name: a family stands once.
                    others.take(family.name);
                    encode::family(&mut out, &family, &rows);
                }
            }
        }
        encode::samples(&mut out, &self.samples(), &mut others);
        for (name, rows) in others.rest() {
            encode::gauges(&mut out, &name, "Of the process that this one has replaced", rows);
        }
        out.push_str("# EOF\n");
        out
    }

    /// What is read for a scrape, in the order of names: who collects may tell several in turn.
    fn samples(&self) -> Vec<Sample> {
        let dropped = Sample::counter(
            "weft_metrics_series_dropped_total",
            "Lookups of a series that was over the cap and counted into an overflow series",
            self.0.dropped.load(Relaxed) as f64,
        );
        // The cap is each process's own.
        let kept =
            Sample::level("weft_metrics_series", "Series that are kept apart", self.0.series.load(Relaxed) as f64);
        let mut samples = vec![dropped, kept];
        for collect in &*self.0.collectors.lock() {
            collect(&mut samples);
        }
        samples.sort_by_key(|sample| sample.name());
        samples
    }

    /// The names and types of all families, also of those without series, with the bounds of histograms.
    pub fn families(&self) -> Vec<(&'static str, &'static str, &'static [f64])> {
        let families = self.0.families.lock();
        families.values().map(|family| (family.name, family.kind.as_str(), family.kind.bounds())).collect()
    }

    /// What this process counts up and down, one series a line, with another process's added: for the process that takes over.
    pub fn gauges(&self, others: &str) -> String {
        let mut others = encode::Gauges::parse(others);
        let mut out = String::new();
        for family in self.all() {
            if family.kind == Kind::Gauge {
                encode::gauge_rows(&mut out, family.name, &others.take(family.name).add(&family.rows()));
            }
        }
        encode::sample_rows(&mut out, &self.samples(), &mut others);
        for (name, rows) in others.rest() {
            encode::gauge_rows(&mut out, &name, &rows);
        }
        out
    }

    fn all(&self) -> Vec<Arc<Family>> {
        self.0.families.lock().values().cloned().collect()
    }

    /// Forgets series that nobody has held for `retain`.
    pub fn evict_idle(&self, now: Instant, retain: Duration) {
        let families: Vec<_> = self.0.families.lock().values().cloned().collect();
        for family in families {
            family.series.lock().retain(|_, series| {
                if series.room == Room::Exempt || series.cells.iter().flatten().any(|cell| Arc::strong_count(cell) > 1)
                {
                    series.idle_since = None;
                    return true;
                }
                let idle = now.saturating_duration_since(*series.idle_since.get_or_insert(now));
                let keep = idle < retain;
                if !keep {
                    self.0.count(series.room).for_each(|count| {
                        count.fetch_sub(1, Relaxed);
                    });
                }
                keep
            });
        }
    }

    /// A name has one kind: who asks for it as another gets a family of its own that no scrape shows.
    fn family(&self, name: &'static str, help: &'static str, kind: Kind) -> Named {
        let new = || Arc::new(Family { name, help, kind, series: Mutex::default() });
        let family = self.0.families.lock().entry(name).or_insert_with(new).clone();
        debug_assert_eq!(family.kind, kind, "{name} is registered twice with different types");
        let family = if family.kind == kind { family } else { new() };
        Named { registry: self.clone(), family, room: Room::Cap }
    }
}

impl Inner {
    /// What counts the series that count against `room`.
    fn count(&self, room: Room) -> impl Iterator<Item = &AtomicUsize> {
        let all = (room != Room::Exempt).then_some(&self.series);
        all.into_iter().chain((room == Room::Chosen).then_some(&self.chosen))
    }

    fn is_over(&self, room: Room) -> bool {
        let full = |count: &AtomicUsize, cap| count.load(Relaxed) >= cap;
        match room {
            Room::Exempt => false,
            Room::Cap => full(&self.series, self.series_cap),
            Room::Chosen => full(&self.series, self.series_cap) || full(&self.chosen, self.series_cap / 2),
        }
    }
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Level => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }

    fn bounds(self) -> &'static [f64] {
        if let Self::Histogram(bounds) = self { bounds } else { &[] }
    }
}

impl Family {
    fn rows(&self) -> Vec<(Labels, encode::Merged)> {
        let series = self.series.lock();
        let mut rows: Vec<_> =
            series.iter().map(|(labels, s)| (labels.clone(), encode::merge(s.cells.iter().flatten()))).collect();
        drop(series);
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    }
}

impl Named {
    fn cell(&self, shard: Shard, labels: &Labels) -> Arc<Cell> {
        self.cell_in(self.room, shard, labels)
    }

    fn pinned(&self, shard: Shard, labels: &Labels) -> Arc<Cell> {
        self.cell_in(Room::Exempt, shard, labels)
    }

    fn of_clients(&self) -> Self {
        Self { room: Room::Chosen, ..self.clone() }
    }

    fn cell_in(&self, room: Room, shard: Shard, labels: &Labels) -> Arc<Cell> {
        let inner = &self.registry.0;
        let mut series = self.family.series.lock();
        if let Some(found) = series.get_mut(labels) {
            return found.cell(shard, self.family.kind);
        }
        // The check and the addition are two steps: threads that add to different families at once may pass the cap by
        // one each.
        let (labels, room) = if inner.is_over(room) {
            inner.dropped.fetch_add(1, Relaxed);
            (Labels::new().with("overflow", "true"), Room::Exempt)
        } else {
            (labels.clone(), room)
        };
        let new = || {
            inner.count(room).for_each(|count| {
                count.fetch_add(1, Relaxed);
            });
            Series { cells: vec![None; inner.shards], idle_since: None, room }
        };
        series.entry(labels).or_insert_with(new).cell(shard, self.family.kind)
    }
}

impl Series {
    fn cell(&mut self, shard: Shard, kind: Kind) -> Arc<Cell> {
        self.idle_since = None;
        // Of a worker that was not announced nobody knows that it is alone.
        let (at, writers) =
            if shard.0 < self.cells.len() { (shard.0, shard.writers()) } else { (Shard::ADMIN.0, Writers::Several) };
        let new = || {
            let value = match kind {
                Kind::Counter => Value::Counter(AtomicU64::new(0)),
                Kind::Gauge => Value::Gauge(AtomicU64::new(0)),
                Kind::Level => Value::Level(0f64.to_bits().into()),
                Kind::Histogram(bounds) => Value::histogram(bounds),
            };
            Arc::new(Cell::new(value, writers))
        };
        match self.cells.get_mut(at) {
            Some(cell) => cell.get_or_insert_with(new).clone(),
            None => new(),
        }
    }
}

impl CounterFamily {
    /// The same family, for labels in which whoever connects has a say, such as where he connects to: series that are made this way
    /// fill half of the cap at most. What the others count is told apart, whatever strangers come up with.
    #[must_use]
    pub fn of_clients(&self) -> Self {
        Self(self.0.of_clients())
    }

    pub fn with(&self, shard: Shard, labels: &Labels) -> Counter {
        Counter(self.0.cell(shard, labels))
    }

    /// A series that is never evicted and does not count against the cap: for labels that the program itself names.
    pub fn pinned(&self, shard: Shard, labels: &Labels) -> Counter {
        Counter(self.0.pinned(shard, labels))
    }
}

impl GaugeFamily {
    /// See [`CounterFamily::of_clients`].
    #[must_use]
    pub fn of_clients(&self) -> Self {
        Self(self.0.of_clients())
    }

    pub fn with(&self, shard: Shard, labels: &Labels) -> Gauge {
        Gauge(self.0.cell(shard, labels))
    }

    /// See [`CounterFamily::pinned`].
    pub fn pinned(&self, shard: Shard, labels: &Labels) -> Gauge {
        Gauge(self.0.pinned(shard, labels))
    }
}

impl LevelFamily {
    pub fn with(&self, shard: Shard, labels: &Labels) -> Level {
        Level(self.0.cell(shard, labels))
    }

    /// See [`CounterFamily::pinned`].
    pub fn pinned(&self, shard: Shard, labels: &Labels) -> Level {
        Level(self.0.pinned(shard, labels))
    }
}

impl HistogramFamily {
    /// See [`CounterFamily::of_clients`].
    #[must_use]
    pub fn of_clients(&self) -> Self {
        Self(self.0.of_clients())
    }

    pub fn with(&self, shard: Shard, labels: &Labels) -> Histogram {
        Histogram(self.0.cell(shard, labels))
    }

    /// See [`CounterFamily::pinned`].
    pub fn pinned(&self, shard: Shard, labels: &Labels) -> Histogram {
        Histogram(self.0.pinned(shard, labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn l(value: &str) -> Labels {
        Labels::new().with("l", value)
    }

    #[test]
    fn shards_merge_on_scrape() {
        let registry = Registry::new(2, 100);
        let requests = registry.counter("requests_total", "Requests");
        for (worker, n) in [(0, 2), (1, 3)] {
            requests.with(Shard::worker(worker), &l("a")).add(n);
        }
        requests.with(Shard::worker(0), &l("a")).inc();
        let open = registry.gauge("open", "Open");
        open.with(Shard::worker(0), &Labels::new()).add(5);
        open.with(Shard::worker(1), &Labels::new()).add(-2);
        let endpoints = registry.level("endpoints", "Endpoints");
        endpoints.with(Shard::worker(0), &Labels::new()).set(2.0);
        let seen = endpoints.with(Shard::worker(1), &Labels::new());
        seen.set(1.0);
        seen.add(2.5);
        let text = registry.encode();
        assert!(text.contains("requests_total{l=\"a\"} 6\n"), "{text}");
        assert!(text.contains("\nopen 3\n"), "{text}");
        assert!(text.contains("# TYPE endpoints gauge\nendpoints 3.5\n"), "{text}");
        seen.set(0.0);
        assert!(registry.encode().contains("\nendpoints 2\n"));
        let families: Vec<_> = registry.families().iter().map(|(name, kind, _)| (*name, *kind)).collect();
        assert_eq!(families, [("endpoints", "gauge"), ("open", "gauge"), ("requests_total", "counter")]);
    }

    #[test]
    fn over_the_cap_series_share_one() {
        let registry = Registry::new(1, 2);
        let family = registry.counter("c_total", "C");
        for value in ["a", "b", "c", "d", "a"] {
            family.with(Shard::ADMIN, &l(value)).inc();
        }
        let text = registry.encode();
        assert!(text.contains("c_total{l=\"a\"} 2\n"), "{text}");
        assert!(text.contains("c_total{overflow=\"true\"} 2\n"), "{text}");
        assert!(text.contains("weft_metrics_series_dropped_total 2\n"), "{text}");
        assert!(text.contains("weft_metrics_series 2\n"), "{text}");
    }

    #[test]
    fn clients_fill_half_of_the_cap() {
        let registry = Registry::new(1, 4);
        let family = registry.counter("c_total", "C");
        let chosen = family.of_clients();
        for value in ["a", "b", "c", "a"] {
            chosen.with(Shard::ADMIN, &l(value)).inc();
        }
        for value in ["d", "e", "f"] {
            family.with(Shard::ADMIN, &l(value)).inc();
        }
        let text = registry.encode();
        for line in ["{l=\"a\"} 2", "{l=\"b\"} 1", "{l=\"d\"} 1", "{l=\"e\"} 1", "{overflow=\"true\"} 2"] {
            assert!(text.contains(&format!("c_total{line}\n")), "{line} is not in {text}");
        }
        // What goes leaves its room to the next.
        let start = Instant::now();
        for now in [start, start + Duration::from_secs(10)] {
            registry.evict_idle(now, Duration::from_secs(10));
        }
        for value in ["g", "h", "i"] {
            chosen.with(Shard::ADMIN, &l(value)).inc();
        }
        let text = registry.encode();
        assert!(text.contains("{l=\"g\"}") && text.contains("{l=\"h\"}") && !text.contains("{l=\"i\"}"), "{text}");
    }

    #[test]
    fn only_what_nobody_holds_is_evicted() {
        let registry = Registry::new(1, 2);
        let family = registry.counter("c_total", "C");
        let held = family.with(Shard::worker(0), &l("held"));
        family.with(Shard::worker(0), &l("gone")).inc();
        let start = Instant::now();
        let retain = Duration::from_secs(10);
        registry.evict_idle(start, retain);
        registry.evict_idle(start + Duration::from_secs(9), retain);
        assert!(registry.encode().contains("gone"));
        registry.evict_idle(start + Duration::from_secs(10), retain);
        let text = registry.encode();
        assert!(!text.contains("gone") && text.contains("held"), "{text}");
        // There is room again, and the held one still counts where it is seen.
        held.add(4);
        family.with(Shard::worker(0), &l("new")).inc();
        let text = registry.encode();
        assert!(text.contains("{l=\"held\"} 4\n") && text.contains("{l=\"new\"} 1\n"), "{text}");
    }

    #[test]
    fn asking_again_starts_the_idle_time_anew() {
        let registry = Registry::new(1, 2);
        let family = registry.counter("c_total", "C");
        family.with(Shard::worker(0), &l("x")).inc();
        let start = Instant::now();
        let retain = Duration::from_secs(10);
        registry.evict_idle(start, retain);
        family.with(Shard::worker(0), &l("x")).inc();
        registry.evict_idle(start + Duration::from_secs(11), retain);
        assert!(registry.encode().contains("c_total{l=\"x\"} 2\n"));
    }
}
