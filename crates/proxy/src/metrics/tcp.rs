//! Connections: opened, open, closed, and their bytes while they are open.

use super::{counter, gauge};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering::Relaxed},
    },
};
use weft_telemetry::{Counter, CounterFamily, Gauge, GaugeFamily, Labels, Registry, Shard};
use weft_transport::stream::Meter;

#[derive(Clone)]
pub(crate) struct Families {
    opened: CounterFamily,
    open: GaugeFamily,
    read: CounterFamily,
    written: CounterFamily,
    closed: CounterFamily,
}

/// The series that share a set of labels.
pub(crate) struct Series {
    families: Families,
    shard: Shard,
    labels: Labels,
    opened: Counter,
    open: Gauge,
    read: Counter,
    written: Counter,
    transfer: Option<Transfer>,
}

/// Bytes to and from the endpoints of one zone.
pub(crate) struct Transfer {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

/// A connection is open as long as this lives; streams hold it.
pub(crate) struct Open {
    series: Arc<Series>,
    /// What the connection ended with; 0 is in order.
    errno: AtomicI32,
}

impl Families {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            opened: counter(registry, "tcp_open_total", "Connections opened"),
            open: gauge(registry, "tcp_open_connections", "Connections that are open"),
            read: counter(registry, "tcp_read_bytes_total", "Bytes read"),
            written: counter(registry, "tcp_write_bytes_total", "Bytes written"),
            closed: counter(registry, "tcp_close_total", "Connections closed"),
        }
    }

    /// For connections whose labels strangers have a say in.
    pub(super) fn of_clients(&self) -> Self {
        let Self { opened, open, read, written, closed } = self;
        Self {
            opened: opened.of_clients(),
            open: open.of_clients(),
            read: read.of_clients(),
            written: written.of_clients(),
            closed: closed.of_clients(),
        }
    }

    pub(crate) fn series(&self, shard: Shard, labels: Labels) -> Arc<Series> {
        Arc::new(self.new_series(shard, labels, None))
    }

    /// Bytes count as transferred too.
    pub(crate) fn costing(&self, shard: Shard, labels: Labels, transfer: Transfer) -> Arc<Series> {
        Arc::new(self.new_series(shard, labels, Some(transfer)))
    }

    fn new_series(&self, shard: Shard, labels: Labels, transfer: Option<Transfer>) -> Series {
        Series {
            transfer,
            families: self.clone(),
            shard,
            opened: self.opened.with(shard, &labels),
            open: self.open.with(shard, &labels),
            read: self.read.with(shard, &labels),
            written: self.written.with(shard, &labels),
            labels,
        }
    }
}

impl Series {
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.opened.inc();
        self.open.inc();
        Open { series: Arc::clone(self), errno: AtomicI32::new(0) }
    }
}

impl Meter for Open {
    fn read(&self, bytes: usize) {
        self.series.read.add(bytes as u64);
        if let Some(transfer) = &self.series.transfer {
            transfer.received.add(bytes as u64);
        }
    }

    fn written(&self, bytes: usize) {
        self.series.written.add(bytes as u64);
        if let Some(transfer) = &self.series.transfer {
            transfer.sent.add(bytes as u64);
        }
    }

    fn failed(&self, error: &io::Error) {
        self.errno.store(error.raw_os_error().unwrap_or_default(), Relaxed);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let series = &self.series;
        series.open.dec();
        let errno = match self.errno.load(Relaxed) {
            0 => String::new(),
            errno => errno.to_string(),
        };
        series.families.closed.with(series.shard, &series.labels.clone().with("errno", errno)).inc();
    }
}
