//! What requests do that follow a route of the policy (data plane 6.4): as the application sees them, and per backend.

use super::http::held;
use crate::error::{Code, ProxyError, StreamEnd};
use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};
use weft_model::{DnsName, Meta, decide::host::split};
use weft_telemetry::{Counter, CounterFamily, Histogram, HistogramFamily, Labels, Registry, Shard};

/// Seconds.
const REQUEST_DURATION: &[f64] = &[0.05, 0.5, 1.0, 10.0];
const RESPONSE_DURATION: &[f64] = &[0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
/// Bytes.
const FRAME_SIZE: &[f64] = &[128.0, 1024.0, 10240.0];
/// Hosts whose series a rule keeps at hand. Those of others are looked up in the registry, which has a cap of its own.
const MAX_HOSTS: usize = 256;

/// Whether a route is one of gRPC: its policy says so, whatever a request looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Http,
    Grpc,
}

#[derive(Clone)]
pub(crate) struct Families {
    kind: Kind,
    request_duration: HistogramFamily,
    request_statuses: CounterFamily,
    request_frames: HistogramFamily,
    backend_requests: CounterFamily,
    response_duration: HistogramFamily,
    response_statuses: CounterFamily,
    response_frames: HistogramFamily,
}

/// A route as the application sees it, for every host or for one.
pub(crate) struct Route {
    seen: Seen,
}

/// The series of a route by the host that a request names, if that is configured.
pub(crate) struct Hosts {
    families: Families,
    shard: Shard,
    labels: Labels,
    unnamed: Rc<Route>,
    named: Option<RefCell<HashMap<String, Rc<Route>>>>,
}

/// A backend of a route.
pub(crate) struct Backend {
    requests: Counter,
    seen: Seen,
}

/// What is seen at a place that requests or responses pass.
struct Seen {
    kind: Kind,
    shard: Shard,
    labels: Labels,
    duration: Histogram,
    frames: Histogram,
    by_status: CounterFamily,
    statuses: Statuses,
}

type Statuses = RefCell<Vec<(Status, Counter)>>;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Of HTTP, or of gRPC for a route of gRPC; `None` if there was no response.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<&'static str>,
}

macro_rules! families {
    ($registry:expr, $kind:expr, $prefix:literal) => {
        Families {
            kind: $kind,
            request_duration: $registry.histogram(
                concat!($prefix, "_request_duration_seconds"),
                "From the head of a request to the end of its response",
                REQUEST_DURATION,
            ),
            request_statuses: $registry
                .counter(concat!($prefix, "_request_statuses_total"), "Requests that have ended, by status"),
            request_frames: $registry.histogram(
                concat!($prefix, "_request_frame_size_bytes"),
                "Pieces of request bodies",
                FRAME_SIZE,
            ),
            backend_requests: $registry
                .counter(concat!($prefix, "_backend_requests_total"), "Requests sent to a backend"),
            response_duration: $registry.histogram(
                concat!($prefix, "_backend_response_duration_seconds"),
                "From the end of a request to the end of its response",
                RESPONSE_DURATION,
            ),
            response_statuses: $registry.counter(
                concat!($prefix, "_backend_response_statuses_total"),
                "Responses of a backend that have ended, by status",
            ),
            response_frames: $registry.histogram(
                concat!($prefix, "_backend_response_frame_size_bytes"),
                "Pieces of response bodies",
                FRAME_SIZE,
            ),
        }
    };
}

impl Families {
    pub(crate) fn new(registry: &Registry, kind: Kind) -> Self {
        match kind {
            Kind::Http => families!(registry, kind, "outbound_http_route"),
            Kind::Grpc => families!(registry, kind, "outbound_grpc_route"),
        }
    }

    /// The series of a route; with `by_host` each host has its own.
    pub(crate) fn route(&self, shard: Shard, parent: &Meta, route: &Meta, by_host: bool) -> Hosts {
        let labels = super::labels::parent(parent).join(&super::labels::outbound_route(route));
        let unnamed = Rc::new(Route::new(self, shard, labels.clone().with("hostname", "")));
        let named = by_host.then(RefCell::default);
        Hosts { families: self.clone(), shard, labels, unnamed, named }
    }

    pub(crate) fn backend(&self, shard: Shard, parent: &Meta, route: &Meta, backend: &Meta) -> Backend {
        let labels = super::labels::parent(parent)
            .join(&super::labels::outbound_route(route))
            .join(&super::labels::backend(backend));
        let duration = self.response_duration.with(shard, &labels);
        let frames = self.response_frames.with(shard, &labels);
        let requests = self.backend_requests.with(shard, &labels);
        Backend { requests, seen: Seen::new(self.kind, &self.response_statuses, duration, frames, shard, labels) }
    }
}

impl Hosts {
    /// The series for a request to an authority, which is asked only where it matters. What is no name of DNS has no label.
    pub(crate) fn of<'a>(&self, authority: impl FnOnce() -> Option<&'a str>) -> Rc<Route> {
        let Some((named, host)) = self.named.as_ref().and_then(|named| Some((named, host(authority()?)?))) else {
            return Rc::clone(&self.unnamed);
        };
        let mut named = named.borrow_mut();
        if let Some(known) = named.get(&host) {
            return Rc::clone(known);
        }
        let labels = self.labels.clone().with("hostname", &host);
        let route = Rc::new(Route::new(&self.families, self.shard, labels));
        if named.len() < MAX_HOSTS {
            named.insert(host, Rc::clone(&route));
        }
        route
    }
}

impl Route {
    fn new(families: &Families, shard: Shard, labels: Labels) -> Self {
        let duration = families.request_duration.with(shard, &labels);
        let frames = families.request_frames.with(shard, &labels);
        Self { seen: Seen::new(families.kind, &families.request_statuses, duration, frames, shard, labels) }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.seen.kind
    }

    pub(crate) fn data(&self, bytes: usize) {
        self.seen.data(bytes);
    }

    pub(crate) fn ended(&self, status: Status, time: Duration) {
        self.seen.ended(status, time);
    }
}

impl Backend {
    pub(crate) fn request(&self) {
        self.requests.inc();
    }

    pub(crate) fn data(&self, bytes: usize) {
        self.seen.data(bytes);
    }

    pub(crate) fn ended(&self, status: Status, time: Duration) {
        self.seen.ended(status, time);
    }
}

impl Seen {
    fn new(
        kind: Kind,
        by_status: &CounterFamily,
        duration: Histogram,
        frames: Histogram,
        shard: Shard,
        labels: Labels,
    ) -> Self {
        let statuses = Statuses::default();
        Self { kind, shard, labels, duration, frames, by_status: by_status.clone(), statuses }
    }

    fn data(&self, bytes: usize) {
        self.frames.observe(bytes as f64);
    }

    fn ended(&self, status: Status, time: Duration) {
        self.duration.observe(time.as_secs_f64());
        let counter = || self.by_status.with(self.shard, &status.labels(self.kind, &self.labels));
        held(&self.statuses, status, counter, Counter::inc);
    }
}

impl Status {
    /// A failure that the mesh made, without a response.
    pub(crate) fn failed(failure: &ProxyError) -> Self {
        Self { status: None, error: Some(error(failure)) }
    }

    fn labels(self, kind: Kind, base: &Labels) -> Labels {
        let labels = match (kind, self.status) {
            (Kind::Http, Some(status)) => base.clone().with("http_status", status),
            (Kind::Http, None) => base.clone().with("http_status", ""),
            (Kind::Grpc, status) => base.clone().with("grpc_status", grpc_name(status)),
        };
        labels.with("error", self.error.unwrap_or_default())
    }
}

/// The client went away before the end.
pub(crate) const CANCEL: &str = "CANCEL";
/// The endpoint did not look at the request.
pub(crate) const REFUSED: &str = "REFUSED";

/// Linkerd's word for a failure in the metrics of routes.
pub(crate) fn error(failure: &ProxyError) -> &'static str {
    if let Some(ended) = failure.stream_end() {
        return match ended {
            StreamEnd::Reset => "RESET",
            StreamEnd::Cancel => CANCEL,
            StreamEnd::Refused => REFUSED,
            StreamEnd::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
            StreamEnd::GoAway => "GO_AWAY",
            StreamEnd::Io => "IO",
        };
    }
    match failure.code {
        Code::Failfast | Code::BreakerShut => "FAIL_FAST",
        Code::LoadShed | Code::EndpointFull => "LOAD_SHED",
        Code::RequestTimeout => "REQUEST_TIMEOUT",
        Code::ResponseHeadersTimeout => "RESPONSE_HEADERS_TIMEOUT",
        Code::ResponseTimeout => "RESPONSE_STREAM_TIMEOUT",
        Code::IdleTimeout => "IDLE_TIMEOUT",
        Code::ConnectFailed | Code::ConnectTimeout | Code::TlsFailed | Code::UpstreamProtocol => "IO",
        _ => "UNKNOWN",
    }
}

fn grpc_name(code: Option<u16>) -> &'static str {
    match code {
        Some(0) => "OK",
        Some(1) => "CANCELLED",
        Some(3) => "INVALID_ARGUMENT",
        Some(4) => "DEADLINE_EXCEEDED",
        Some(5) => "NOT_FOUND",
        Some(6) => "ALREADY_EXISTS",
        Some(7) => "PERMISSION_DENIED",
        Some(8) => "RESOURCE_EXHAUSTED",
        Some(9) => "FAILED_PRECONDITION",
        Some(10) => "ABORTED",
        Some(11) => "OUT_OF_RANGE",
        Some(12) => "UNIMPLEMENTED",
        Some(13) => "INTERNAL",
        Some(14) => "UNAVAILABLE",
        Some(15) => "DATA_LOSS",
        Some(16) => "UNAUTHENTICATED",
        _ => "UNKNOWN",
    }
}

/// The host of an authority, if it is a name.
fn host(authority: &str) -> Option<String> {
    let (host, _) = split(authority);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    host.parse::<DnsName>().ok().map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(registry: &Registry, family: &str) -> Vec<String> {
        let text = registry.encode();
        text.lines().filter(|l| l.starts_with(family)).map(|l| l.replace(BASE, "…")).collect()
    }

    const BASE: &str = concat!(
        r#"parent_group="",parent_kind="default",parent_namespace="",parent_name="p",parent_port="",parent_section_name="","#,
        r#"route_group="",route_kind="default",route_namespace="",route_name="r""#
    );

    #[test]
    fn statuses_are_numbers_for_http_and_names_for_grpc() {
        let registry = Registry::new(1, 100);
        let (parent, route) = (Meta::default_named("p"), Meta::default_named("r"));
        for kind in [Kind::Http, Kind::Grpc] {
            let hosts = Families::new(&registry, kind).route(Shard::worker(0), &parent, &route, false);
            for (status, error) in [(Some(5), None), (None, Some("FAIL_FAST")), (Some(5), Some(CANCEL))] {
                hosts.of(|| Some("a.b")).ended(Status { status, error }, Duration::from_millis(600));
            }
        }
        assert_eq!(
            lines(&registry, "outbound_http_route_request_statuses_total"),
            [
                r#"outbound_http_route_request_statuses_total{…,hostname="",http_status="",error="FAIL_FAST"} 1"#,
                r#"outbound_http_route_request_statuses_total{…,hostname="",http_status="5",error=""} 1"#,
                r#"outbound_http_route_request_statuses_total{…,hostname="",http_status="5",error="CANCEL"} 1"#,
            ]
        );
        assert_eq!(
            lines(&registry, "outbound_grpc_route_request_statuses_total"),
            [
                r#"outbound_grpc_route_request_statuses_total{…,hostname="",grpc_status="NOT_FOUND",error=""} 1"#,
                r#"outbound_grpc_route_request_statuses_total{…,hostname="",grpc_status="NOT_FOUND",error="CANCEL"} 1"#,
                r#"outbound_grpc_route_request_statuses_total{…,hostname="",grpc_status="UNKNOWN",error="FAIL_FAST"} 1"#,
            ]
        );
    }

    #[test]
    fn hosts_are_labels_only_if_configured_and_a_bounded_number_is_held() {
        let registry = Registry::new(1, 10_000);
        let (parent, route) = (Meta::default_named("p"), Meta::default_named("r"));
        let families = Families::new(&registry, Kind::Http);
        let hosts = families.route(Shard::worker(0), &parent, &route, true);
        let hostname =
            |authority| hosts.of(|| authority).seen.labels.as_str().rsplit_once("hostname=").unwrap().1.to_owned();
        for (authority, label) in [
            (Some("Web.ns:8080"), "\"web.ns\""),
            (Some("web.ns."), "\"web.ns\""),
            (Some("10.0.0.1:80"), "\"\""),
            (Some("[::1]:80"), "\"\""),
            (Some("a b"), "\"\""),
            (None, "\"\""),
        ] {
            assert_eq!(hostname(authority), label, "{authority:?}");
        }
        assert!(Rc::ptr_eq(&hosts.of(|| Some("web.ns")), &hosts.of(|| Some("web.ns:80"))));
        for n in 0..2 * MAX_HOSTS {
            let host = format!("h{n}.ns");
            hosts.of(|| Some(&host));
        }
        assert_eq!(hosts.named.unwrap().borrow().len(), MAX_HOSTS);
    }
}
