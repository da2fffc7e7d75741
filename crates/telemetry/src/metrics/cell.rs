//! The cells that handles write to.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
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
pub(super) enum Cell {
    Counter(AtomicU64),
    Gauge(AtomicI64),
    /// Bits of a float.
    Level(AtomicU64),
    Histogram {
        bounds: &'static [f64],
        buckets: Box<[AtomicU64]>,
        sum: AtomicU64,
    },
}

impl Cell {
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
        if let Cell::Counter(value) = &*self.0 {
            value.fetch_add(n, Relaxed);
        }
    }

    /// What this shard has counted.
    pub fn get(&self) -> u64 {
        if let Cell::Counter(value) = &*self.0 { value.load(Relaxed) } else { 0 }
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
        if let Cell::Gauge(value) = &*self.0 {
            value.fetch_add(n, Relaxed);
        }
    }

    /// Sets this shard's part.
    pub fn set(&self, n: i64) {
        if let Cell::Gauge(value) = &*self.0 {
            value.store(n, Relaxed);
        }
    }

    /// This shard's part.
    pub fn get(&self) -> i64 {
        if let Cell::Gauge(value) = &*self.0 { value.load(Relaxed) } else { 0 }
    }
}

impl Level {
    pub fn set(&self, value: f64) {
        if let Cell::Level(bits) = &*self.0 {
            bits.store(value.to_bits(), Relaxed);
        }
    }

    pub fn add(&self, n: f64) {
        if let Cell::Level(bits) = &*self.0 {
            add(bits, n);
        }
    }
}

/// Only one thread writes to a shard: the loop runs once.
fn add(bits: &AtomicU64, n: f64) {
    let mut seen = bits.load(Relaxed);
    while let Err(now) = bits.compare_exchange_weak(seen, (f64::from_bits(seen) + n).to_bits(), Relaxed, Relaxed) {
        seen = now;
    }
}

impl Histogram {
    pub fn observe(&self, value: f64) {
        if let Cell::Histogram { bounds, buckets, sum } = &*self.0 {
            // Bounds are inclusive; what is larger than all goes to the last bucket, +Inf.
            let at = bounds.partition_point(|bound| *bound < value);
            if let Some(bucket) = buckets.get(at) {
                bucket.fetch_add(1, Relaxed);
            }
            if value != 0.0 {
                add(sum, value);
            }
        }
    }

    /// How many values this shard has observed.
    pub fn count(&self) -> u64 {
        match &*self.0 {
            Cell::Histogram { buckets, .. } => buckets.iter().map(|b| b.load(Relaxed)).sum(),
            _ => 0,
        }
    }
}
