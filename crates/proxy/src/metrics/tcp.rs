//! Connections: opened, open, closed, and their bytes while they are open.

use super::{counter, gauge};
use std::{io, rc::Rc};
use weft_telemetry::{Counter, CounterFamily, Gauge, GaugeFamily, Labels, Registry, Shard};

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
    pub(crate) read: Counter,
    pub(crate) written: Counter,
}

/// A connection is open as long as this lives.
pub(crate) struct Open {
    series: Rc<Series>,
    errno: Option<i32>,
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

    pub(crate) fn series(&self, shard: Shard, labels: Labels) -> Rc<Series> {
        Rc::new(Series {
            families: self.clone(),
            shard,
            opened: self.opened.with(shard, &labels),
            open: self.open.with(shard, &labels),
            read: self.read.with(shard, &labels),
            written: self.written.with(shard, &labels),
            labels,
        })
    }
}

impl Series {
    pub(crate) fn open(self: &Rc<Self>) -> Open {
        self.opened.inc();
        self.open.inc();
        Open { series: Rc::clone(self), errno: None }
    }
}

impl Open {
    /// What the connection ends with, unless it ends in order.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        self.errno = error.raw_os_error();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let series = &self.series;
        series.open.dec();
        let errno = self.errno.map(|n| n.to_string()).unwrap_or_default();
        series.families.closed.with(series.shard, &series.labels.clone().with("errno", errno)).inc();
    }
}
