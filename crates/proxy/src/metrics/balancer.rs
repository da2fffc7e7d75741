//! The balancer family (data plane 6.5): endpoints, the queue in front of them, and the gate that fails fast.
//!
//! Each worker has a balancer of its own; a client of the control plane is one on the admin thread. What all of them see, endpoints and times, is shown once, by the largest of what
//! they see; what each does is added up.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use weft_telemetry::{
    Counter, CounterFamily, Gauge, GaugeFamily, Histogram, HistogramFamily, Labels, Level, LevelFamily, Registry, Shard,
};

/// Seconds.
const QUEUE_LATENCY: &[f64] = &[0.0005, 0.005, 0.05, 0.5, 1.0, 3.0];

/// What kind of connections a balancer hands out: the prefix of its families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Http,
    Tcp,
    Tls,
}

/// Who asks a service of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Identity,
    Destination,
    Policy,
    Opentelemetry,
}

impl Client {
    pub(crate) const ALL: [Self; 4] = [Self::Identity, Self::Destination, Self::Policy, Self::Opentelemetry];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Destination => "destination",
            Self::Policy => "policy",
            Self::Opentelemetry => "opentelemetry",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Families {
    endpoints: LevelFamily,
    p2c_endpoints: LevelFamily,
    p2c_updates: CounterFamily,
    queue_length: GaugeFamily,
    queue_requests: CounterFamily,
    queue_latency: HistogramFamily,
    gate_open: CounterFamily,
    gate_shut: CounterFamily,
    gate_open_time: LevelFamily,
    gate_shut_time: LevelFamily,
    gate_timeout: LevelFamily,
}

/// The series of a balancer as one parent and backend see it.
pub(crate) struct Series {
    labels: Labels,
    ready: Level,
    pending: Level,
    all: Level,
    updates: [Counter; 3],
    length: Gauge,
    requests: Counter,
    latency: Histogram,
    gate_open: Counter,
    gate_shut: Counter,
    open_time: Level,
    shut_time: Level,
    /// Ready and pending endpoints, as shown.
    shown: Cell<(usize, usize)>,
}

/// How a set of endpoints changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Another set.
    Reset,
    Add,
    Remove,
}

/// The names of one kind, in one place.
macro_rules! families {
    ($registry:expr, $prefix:literal) => {
        Families {
            endpoints: $registry.level(concat!($prefix, "_endpoints"), "Endpoints of a balancer by state"),
            p2c_endpoints: $registry.level(concat!($prefix, "_p2c_endpoints"), "Endpoints of a balancer"),
            p2c_updates: $registry
                .counter(concat!($prefix, "_p2c_updates_total"), "Changes of a balancer's endpoints, by each worker"),
            queue_length: $registry.gauge(concat!($prefix, "_queue_length"), "Requests that wait for an endpoint"),
            queue_requests: $registry
                .counter(concat!($prefix, "_queue_requests_total"), "Requests that asked for an endpoint"),
            queue_latency: $registry.histogram(
                concat!($prefix, "_queue_latency_seconds"),
                "How long requests waited for an endpoint",
                QUEUE_LATENCY,
            ),
            gate_open: $registry
                .counter(concat!($prefix, "_queue_gate_open_total"), "How often a balancer began to take requests"),
            gate_shut: $registry
                .counter(concat!($prefix, "_queue_gate_shut_total"), "How often a balancer began to fail fast"),
            gate_open_time: $registry.level(
                concat!($prefix, "_queue_gate_open_time_seconds"),
                "Since when a balancer takes requests, since 1970; 0 if it fails fast",
            ),
            gate_shut_time: $registry.level(
                concat!($prefix, "_queue_gate_shut_time_seconds"),
                "Since when a balancer fails fast, since 1970; 0 if it takes requests",
            ),
            gate_timeout: $registry.level(
                concat!($prefix, "_queue_gate_timeout_seconds"),
                "How long no endpoint may be ready until a balancer fails fast",
            ),
        }
    };
}

impl Families {
    pub(crate) fn new(registry: &Registry, kind: Kind) -> Self {
        match kind {
            Kind::Http => families!(registry, "outbound_http_balancer"),
            Kind::Tcp => families!(registry, "outbound_tcp_balancer"),
            Kind::Tls => families!(registry, "outbound_tls_balancer"),
        }
    }

    /// Those of a client of the control plane.
    pub(crate) fn of_client(registry: &Registry, client: Client) -> Self {
        match client {
            Client::Identity => families!(registry, "control_identity_balancer"),
            Client::Destination => families!(registry, "control_destination_balancer"),
            Client::Policy => families!(registry, "control_policy_balancer"),
            Client::Opentelemetry => families!(registry, "opentelemetry_balancer"),
        }
    }

    /// `labels` name parent and backend. The gate is open to begin with.
    pub(crate) fn series(&self, shard: Shard, labels: Labels, failfast: Duration) -> Series {
        let state = |state| Labels::new().with("endpoint_state", state).join(&labels);
        let op = |op| self.p2c_updates.with(shard, &Labels::new().with("op", op).join(&labels));
        self.gate_timeout.with(shard, &labels).set(failfast.as_secs_f64());
        let series = Series {
            ready: self.endpoints.with(shard, &state("ready")),
            pending: self.endpoints.with(shard, &state("pending")),
            all: self.p2c_endpoints.with(shard, &labels),
            updates: [op("Reset"), op("Add"), op("Remove")],
            length: self.queue_length.with(shard, &labels),
            requests: self.queue_requests.with(shard, &labels),
            latency: self.queue_latency.with(shard, &labels),
            gate_open: self.gate_open.with(shard, &labels),
            gate_shut: self.gate_shut.with(shard, &labels),
            open_time: self.gate_open_time.with(shard, &labels),
            shut_time: self.gate_shut_time.with(shard, &labels),
            shown: Cell::default(),
            labels,
        };
        series.gate(true);
        series
    }
}

impl Series {
    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// How many endpoints there are now. What was shown before is taken back, so that several balancers may share the labels.
    pub(crate) fn endpoints(&self, ready: usize, pending: usize) {
        let (was_ready, was_pending) = self.shown.replace((ready, pending));
        let change = |from: usize, to: usize| to as f64 - from as f64;
        self.ready.add(change(was_ready, ready));
        self.pending.add(change(was_pending, pending));
        self.all.add(change(was_ready + was_pending, ready + pending));
    }

    pub(crate) fn update(&self, update: Update) {
        if let Some(counter) = self.updates.get(update as usize) {
            counter.inc();
        }
    }

    /// A request got its endpoint at once.
    pub(crate) fn passed(&self) {
        self.requests.inc();
        self.latency.observe(0.0);
    }

    /// A request waits.
    pub(crate) fn waits(&self) {
        self.requests.inc();
        self.length.inc();
    }

    /// A request that waited waits no more.
    pub(crate) fn waited(&self, time: Duration) {
        self.length.dec();
        self.latency.observe(time.as_secs_f64());
    }

    /// The gate opened or shut.
    pub(crate) fn gate(&self, open: bool) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (counter, begins, ends) = match open {
            true => (&self.gate_open, &self.open_time, &self.shut_time),
            false => (&self.gate_shut, &self.shut_time, &self.open_time),
        };
        counter.inc();
        begins.set(now);
        ends.set(0.0);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.endpoints(0, 0);
    }
}
