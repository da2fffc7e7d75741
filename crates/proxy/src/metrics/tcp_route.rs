//! Connections per route of bytes and of TLS (data plane 6.4): opened, and closed with the reason.

use super::{counter, labels};
use std::{cell::Cell, rc::Rc};
use weft_model::Meta;
use weft_telemetry::{Counter, CounterFamily, Labels, Registry, Shard};

/// The families of both kinds of routes.
pub(crate) struct Families {
    pub(crate) tcp: Family,
    pub(crate) tls: Family,
}

#[derive(Clone)]
pub(crate) struct Family {
    opened: CounterFamily,
    closed: CounterFamily,
}

/// The series of one route of one target.
pub(crate) struct Series {
    family: Family,
    shard: Shard,
    labels: Labels,
    opened: Counter,
}

/// A connection follows the route as long as this lives. Without a word it ended in order.
pub(crate) struct Open {
    series: Rc<Series>,
    ended: Cell<Ended>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    InOrder,
    /// The route forbids it.
    Forbidden,
    /// The route's configuration is wrong.
    InvalidPolicy,
    /// The backend's configuration is wrong.
    InvalidBackend,
    Unexpected,
}

impl Ended {
    /// Linkerd's word for it.
    fn label(self) -> &'static str {
        match self {
            Self::InOrder => "",
            Self::Forbidden => "forbidden",
            Self::InvalidPolicy => "invalid_policy",
            Self::InvalidBackend => "invalid_backend",
            Self::Unexpected => "unexpected",
        }
    }
}

impl Families {
    pub(crate) fn new(registry: &Registry) -> Self {
        let tcp_opened = counter(registry, "outbound_tcp_route_open_total", "Connections that follow a route of bytes");
        let tcp_closed =
            counter(registry, "outbound_tcp_route_close_total", "Connections of a route of bytes that ended");
        let tls_opened = counter(registry, "outbound_tls_route_open_total", "Connections that follow a route of TLS");
        let tls_closed =
            counter(registry, "outbound_tls_route_close_total", "Connections of a route of TLS that ended");
        Self {
            tcp: Family { opened: tcp_opened, closed: tcp_closed },
            tls: Family { opened: tls_opened, closed: tls_closed },
        }
    }
}

impl Family {
    pub(crate) fn series(&self, shard: Shard, parent: &Meta, route: &Meta) -> Rc<Series> {
        let labels = labels::parent(parent).join(&labels::outbound_route(route));
        let opened = self.opened.with(shard, &labels);
        Rc::new(Series { family: self.clone(), shard, labels, opened })
    }
}

impl Series {
    pub(crate) fn open(self: &Rc<Self>) -> Open {
        self.opened.inc();
        Open { series: Rc::clone(self), ended: Cell::new(Ended::InOrder) }
    }
}

impl Open {
    pub(crate) fn ended(&self, how: Ended) {
        self.ended.set(how);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Series { family, shard, labels, .. } = &*self.series;
        family.closed.with(*shard, &labels.clone().with("error", self.ended.get().label())).inc();
    }
}
