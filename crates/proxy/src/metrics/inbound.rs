//! Requests of the inbound routes: Linkerd's `inbound_http_*` and `inbound_grpc_*` (data plane 6.3).

use super::labels;
use crate::{error::ProxyError, exchange::Observe, turn};
use std::{cell::RefCell, rc::Rc, time::Instant};
use weft_model::{Meta, ServerPolicy, policy::inbound::ServerProtocol};
use weft_telemetry::{Counter, CounterFamily, Histogram, HistogramFamily, Labels, Registry, Shard};

const REQUEST_SECONDS: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
const RESPONSE_SECONDS: &[f64] = &[0.05, 0.5, 1.0, 10.0];
const FRAME_BYTES: &[f64] = &[128.0, 1024.0, 10240.0];
/// Statuses whose handles a series keeps; of more, each is looked up in the registry each time.
const MAX_HELD: usize = 64;
/// What gRPC calls a response without a status.
const GRPC_UNKNOWN: u16 = 2;

#[derive(Clone)]
pub(crate) struct Families {
    http: Kind,
    grpc: Kind,
}

/// The families of one kind of route.
#[derive(Clone)]
struct Kind {
    grpc: bool,
    requests: CounterFamily,
    statuses: CounterFamily,
    request_seconds: HistogramFamily,
    response_seconds: HistogramFamily,
    request_frames: HistogramFamily,
    response_frames: HistogramFamily,
}

/// The series of one route of one server.
pub(crate) struct Series {
    kind: Kind,
    shard: Shard,
    labels: Labels,
    requests: Counter,
    request_seconds: Histogram,
    response_seconds: Histogram,
    request_frames: Histogram,
    response_frames: Histogram,
    statuses: RefCell<Vec<(u16, Counter)>>,
}

/// Follows one request.
pub(crate) struct Recorder {
    series: Rc<Series>,
    start: Instant,
    /// When the request's last byte went on, as far as it has.
    requested: Instant,
    status: Option<u16>,
    ended: bool,
}

macro_rules! kind {
    ($registry:expr, $grpc:expr, $prefix:literal, $what:literal) => {
        Kind {
            grpc: $grpc,
            requests: $registry.counter(concat!($prefix, "_requests_total"), concat!($what, " requests by route")),
            statuses: $registry
                .counter(concat!($prefix, "_statuses_total"), concat!($what, " responses by route and status")),
            request_seconds: $registry.histogram(
                concat!($prefix, "_request_duration_seconds"),
                "From the head of a request to the end of its response",
                REQUEST_SECONDS,
            ),
            response_seconds: $registry.histogram(
                concat!($prefix, "_response_duration_seconds"),
                "From the end of a request to the end of its response",
                RESPONSE_SECONDS,
            ),
            request_frames: $registry.histogram(
                concat!($prefix, "_request_frame_size_bytes"),
                "Bytes of requests' bodies, by the pieces in which they were passed on",
                FRAME_BYTES,
            ),
            response_frames: $registry.histogram(
                concat!($prefix, "_response_frame_size_bytes"),
                "Bytes of responses' bodies, by the pieces in which they were passed on",
                FRAME_BYTES,
            ),
        }
    };
}

impl Families {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            http: kind!(registry, false, "inbound_http", "HTTP"),
            grpc: kind!(registry, true, "inbound_grpc", "gRPC"),
        }
    }

    pub(crate) fn series(&self, shard: Shard, policy: &ServerPolicy, port: u16, route: &Meta) -> Rc<Series> {
        let kind = if matches!(policy.protocol, ServerProtocol::Grpc { .. }) { &self.grpc } else { &self.http };
        let labels = labels::inbound_parent(&policy.meta, port).join(&labels::route(route));
        Rc::new(Series {
            shard,
            requests: kind.requests.with(shard, &labels),
            request_seconds: kind.request_seconds.with(shard, &labels),
            response_seconds: kind.response_seconds.with(shard, &labels),
            request_frames: kind.request_frames.with(shard, &labels),
            response_frames: kind.response_frames.with(shard, &labels),
            statuses: RefCell::default(),
            labels,
            kind: kind.clone(),
        })
    }
}

impl Series {
    /// `counted` says that this stands in for an attempt that was counted.
    pub(crate) fn begin(self: &Rc<Self>, start: Instant, counted: bool) -> Recorder {
        if !counted {
            self.requests.inc();
        }
        Recorder { series: Rc::clone(self), start, requested: start, status: None, ended: false }
    }

    fn ended(&self, status: u16) {
        let mut held = self.statuses.borrow_mut();
        if let Some((_, counter)) = held.iter().find(|(s, _)| *s == status) {
            return counter.inc();
        }
        let counter = self.kind.statuses.with(self.shard, &self.labels.clone().with("status", status));
        counter.inc();
        if held.len() < MAX_HELD {
            held.push((status, counter));
        }
    }
}

impl Observe for Recorder {
    fn request_body(&mut self, bytes: usize) {
        self.requested = turn::now();
        self.series.request_frames.observe(bytes as f64);
    }

    fn response_head(&mut self, status: u16) {
        self.status = Some(status);
    }

    fn first_byte(&mut self) {}

    fn response_body(&mut self, bytes: usize) {
        self.series.response_frames.observe(bytes as f64);
    }

    fn end(&mut self, grpc_status: Option<u16>, _: Option<&ProxyError>) {
        let Some(status) = self.status.filter(|_| !self.ended) else { return };
        self.ended = true;
        let now = turn::now();
        self.series.request_seconds.observe(now.duration_since(self.start).as_secs_f64());
        self.series.response_seconds.observe(now.duration_since(self.requested).as_secs_f64());
        self.series.ended(if self.series.kind.grpc { grpc_status.unwrap_or(GRPC_UNKNOWN) } else { status });
    }
}
