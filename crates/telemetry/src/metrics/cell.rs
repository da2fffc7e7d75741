//! The cells that handles write to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Only grows.
#[derive(Clone)]
pub struct Counter(pub(super) Arc<Cell>);

/// Goes up and down. Each shard holds a part, the scrape shows the sum.
#[derive(Clone)]
pub struct Gauge(pub(super) Arc<Cell>);

/// What a shard sees of something that all of them see: the scrape shows the largest.
#[derive(Clone)]
pub struct Level(pub(super) Arc<Cell>);

/// Counts observations per bucket.
#[derive(Clone)]
pub struct Histogram(pub(super) Arc<Cell>);

/// The part of a series that one shard writes. Allocated apart, so that shards share no cache line by layout.
pub(super) struct Cell {
    pub(super) value: Value,
    writers: Writers,
    /// Who has written, for tests to find a second thread that does.
    #[cfg(debug_assertions)]
    writer: std::sync::OnceLock<std::thread::ThreadId>,
}

pub(super) enum Value {
    Counter(AtomicU64),
    /// Two's complement.
    Gauge(AtomicU64),
    /// Bits of a float.
    Level(AtomicU64),
    Histogram {
        bounds: &'static [f64],
        buckets: Box<[AtomicU64]>,
        sum: AtomicU64,
    },
}

/// How many threads write a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    /// A worker: what it adds needs no lock of the cache line, for which every request would wait some twenty times.
    One,
    Several,
}

impl Cell {
    pub(super) fn new(value: Value, writers: Writers) -> Self {
        Self {
            value,
            writers,
            #[cfg(debug_assertions)]
            writer: std::sync::OnceLock::new(),
        }
    }

    fn add(&self, to: &AtomicU64, n: u64) {
        match self.writers {
            Writers::Several => {
                to.fetch_add(n, Relaxed);
            }
            Writers::One => {
                self.check();
                to.store(to.load(Relaxed).wrapping_add(n), Relaxed);
            }
        }
    }

    fn add_float(&self, bits: &AtomicU64, n: f64) {
        let mut seen = bits.load(Relaxed);
        let sum = |seen| (f64::from_bits(seen) + n).to_bits();
        if self.writers == Writers::One {
            self.check();
            return bits.store(sum(seen), Relaxed);
        }
        while let Err(now) = bits.compare_exchange_weak(seen, sum(seen), Relaxed, Relaxed) {
            seen = now;
        }
    }

    fn check(&self) {
        #[cfg(debug_assertions)]
        {
            let me = std::thread::current().id();
            assert_eq!(*self.writer.get_or_init(|| me), me, "a second thread writes a worker's part of a metric");
        }
    }
}

impl Value {
    pub(super) fn histogram(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self::Histogram { bounds, buckets, sum: AtomicU64::new(0f64.to_bits()) }
    }
}

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        if let Value::Counter(value) = &self.0.value {
            self.0.add(value, n);
        }
    }

    /// What this shard has counted.
    pub fn get(&self) -> u64 {
        if let Value::Counter(value) = &self.0.value { value.load(Relaxed) } else { 0 }
    }
}

impl Gauge {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn dec(&self) {
        self.add(-1);
    }

    pub fn add(&self, n: i64) {
        if let Value::Gauge(value) = &self.0.value {
            self.0.add(value, n.cast_unsigned());
        }
    }

    /// Sets this shard's part.
    pub fn set(&self, n: i64) {
        if let Value::Gauge(value) = &self.0.value {
            value.store(n.cast_unsigned(), Relaxed);
        }
    }

    /// This shard's part.
    pub fn get(&self) -> i64 {
        if let Value::Gauge(value) = &self.0.value { value.load(Relaxed).cast_signed() } else { 0 }
    }
}

impl Level {
    pub fn set(&self, value: f64) {
        if let Value::Level(bits) = &self.0.value {
            bits.store(value.to_bits(), Relaxed);
        }
    }

    pub fn add(&self, n: f64) {
        if let Value::Level(bits) = &self.0.value {
            self.0.add_float(bits, n);
        }
    }
}

impl Histogram {
    pub fn observe(&self, value: f64) {
        if let Value::Histogram { bounds, buckets, sum } = &self.0.value {
            // Bounds are inclusive; what is larger than all goes to the last bucket, +Inf.
            let at = bounds.partition_point(|bound| *bound < value);
            if let Some(bucket) = buckets.get(at) {
                self.0.add(bucket, 1);
            }
            if value != 0.0 {
                self.0.add_float(sum, value);
            }
        }
    }

    /// How many values this shard has observed.
    pub fn count(&self) -> u64 {
        match &self.0.value {
            Value::Histogram { buckets, .. } => buckets.iter().map(|b| b.load(Relaxed)).sum(),
            _ => 0,
        }
    }
}
