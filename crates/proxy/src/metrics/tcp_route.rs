//! Connections per route of bytes and of TLS (data plane 6.4): opened, and closed with the reason.

use super::{counter, labels};
use std::{cell::Cell, rc::Rc};
use weft_model::{DnsName, Meta};
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
    hostname: Hostname,
}

/// What the label `hostname` of a family says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hostname {
    /// It has none: bytes name no host.
    Absent,
    Empty,
    /// The server name that the client asks for.
    Sni,
}

/// The series of one route of one target.
pub(crate) struct Series {
    family: Family,
    shard: Shard,
    /// Parent and route.
    base: Labels,
    /// With the hostname of who is not counted by it.
    labels: Labels,
    opened: Counter,
}

/// A connection follows the route as long as this lives. Without a word it ended in order.
pub(crate) struct Open {
    series: Rc<Series>,
    /// Where the series are one host's.
    named: Option<Box<Labels>>,
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
    /// With `by_host` what is routed by server name is counted by it.
    pub(crate) fn new(registry: &Registry, by_host: bool) -> Self {
        let tcp_opened = counter(registry, "outbound_tcp_route_open_total", "Connections that follow a route of bytes");
        let tcp_closed =
            counter(registry, "outbound_tcp_route_close_total", "Connections of a route of bytes that ended");
        let tls_opened = counter(registry, "outbound_tls_route_open_total", "Connections that follow a route of TLS");
        let tls_closed =
            counter(registry, "outbound_tls_route_close_total", "Connections of a route of TLS that ended");
        Self {
            tcp: Family { opened: tcp_opened, closed: tcp_closed, hostname: Hostname::Absent },
            tls: Family {
                opened: tls_opened,
                closed: tls_closed,
                hostname: if by_host { Hostname::Sni } else { Hostname::Empty },
            },
        }
    }
}

impl Family {
    pub(crate) fn series(&self, shard: Shard, parent: &Meta, route: &Meta) -> Rc<Series> {
        let base = labels::parent(parent).join(&labels::outbound_route(route));
        let labels = if self.hostname == Hostname::Absent { base.clone() } else { base.clone().with("hostname", "") };
        let opened = self.opened.with(shard, &labels);
        Rc::new(Series { family: self.clone(), shard, base, labels, opened })
    }
}

impl Series {
    /// A connection, by the server name that it asks for.
    pub(crate) fn open(self: &Rc<Self>, sni: Option<&DnsName>) -> Open {
        let named = sni.filter(|_| self.family.hostname == Hostname::Sni).map(|sni| Box::new(self.named(sni)));
        match &named {
            // The registry has a cap of its own.
            Some(labels) => self.family.opened.with(self.shard, labels).inc(),
            None => self.opened.inc(),
        }
        Open { series: Rc::clone(self), named, ended: Cell::new(Ended::InOrder) }
    }

    fn named(&self, sni: &DnsName) -> Labels {
        self.base.clone().with("hostname", sni)
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
        let labels = self.named.as_deref().unwrap_or(labels);
        family.closed.with(*shard, &labels.clone().with("error", self.ended.get().label())).inc();
    }
}
