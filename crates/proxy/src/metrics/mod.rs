//! What the directions count: Linkerd's families with Linkerd's labels, and our failures by code (data plane 6.1 to 6.3).
//!
//! Handles are looked up once per endpoint, connection or route and then held; a request touches only what it holds.

pub(crate) mod balancer;
pub(crate) mod detect;
pub(crate) mod http;
pub(crate) mod inbound;
pub(crate) mod labels;
pub(crate) mod mirror;
pub(crate) mod outbound;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod server_first;
pub(crate) mod tcp;
pub(crate) mod tcp_route;

use crate::{
    direction::Direction,
    error::{Code, ProxyError},
};
use std::sync::OnceLock;
use weft_model::Meta;
use weft_telemetry::{Counter, CounterFamily, GaugeFamily, HistogramFamily, Labels, Registry, Shard};

/// Upper bounds in milliseconds.
const LATENCY_MS: &[f64] = &[
    1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 100.0, 200.0, 300.0, 400.0, 500.0, 1e3, 2e3, 3e3, 4e3, 5e3,
    1e4, 2e4, 3e4, 4e4, 5e4,
];

const DETECT_SECONDS: &[f64] = &[0.001, 0.1];

/// The families of a direction, as one thread writes to them.
pub(crate) struct Metrics {
    pub(crate) shard: Shard,
    direction: Direction,
    pub(crate) http: http::Families,
    pub(crate) inbound: inbound::Families,
    pub(crate) routes: http::Families,
    pub(crate) routes_actual: http::Families,
    pub(crate) routes_retryable: CounterFamily,
    pub(crate) tcp: tcp::Families,
    /// Of connections that anybody may make: to any port, with any server name.
    pub(crate) tcp_accepted: tcp::Families,
    http_retry: retry::Families,
    grpc_retry: retry::Families,
    pub(crate) http_allow: CounterFamily,
    pub(crate) http_deny: CounterFamily,
    pub(crate) tcp_allow: CounterFamily,
    pub(crate) tcp_deny: CounterFamily,
    pub(crate) tcp_terminate: CounterFamily,
    pub(crate) route_not_found: CounterFamily,
    pub(crate) rate_limited: CounterFamily,
    pub(crate) transport_headers: CounterFamily,
    pub(crate) detected: CounterFamily,
    pub(crate) detect_seconds: HistogramFamily,
    http_errors: CounterFamily,
    tcp_errors: CounterFamily,
    proxy_errors: CounterFamily,
    /// What counts the failures of each kind and code, as soon as there was one: each refused request is one, and a look-up takes a
    /// lock.
    failures: Box<[[OnceLock<Failures>; Code::ALL.len()]; 2]>,
}

/// What counts failures of one code.
struct Failures {
    by_code: Counter,
    /// By Linkerd's word.
    by_label: Option<Counter>,
}

/// What failed: it decides which family counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    Request,
    Connection,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, shard: Shard, direction: Direction) -> Self {
        let (http_errors, tcp_errors) = match direction {
            Direction::Inbound => ("inbound_http_errors_total", "inbound_tcp_errors_total"),
            Direction::Outbound => ("outbound_http_errors_total", "outbound_tcp_errors_total"),
        };
        let tcp = tcp::Families::new(registry);
        // Counted before it is known, or because it is known, that somebody is not let in.
        let of_clients = |name, help| registry.counter(name, help).of_clients();
        Self {
            shard,
            direction,
            http: http::Families::new(registry),
            inbound: inbound::Families::new(registry),
            routes: http::Families::routes(registry),
            routes_actual: http::Families::routes_actual(registry),
            routes_retryable: registry
                .counter("route_retryable_total", "Failures of a ServiceProfile's route that may be tried again"),
            tcp_accepted: tcp.of_clients(),
            tcp,
            http_retry: retry::Families::http(registry),
            grpc_retry: retry::Families::grpc(registry),
            http_allow: registry.counter("inbound_http_authz_allow_total", "Requests that a policy let in"),
            http_deny: of_clients("inbound_http_authz_deny_total", "Requests that no policy let in"),
            tcp_allow: of_clients("inbound_tcp_authz_allow_total", "Connections that a policy let in"),
            tcp_deny: of_clients("inbound_tcp_authz_deny_total", "Connections that no policy let in"),
            tcp_terminate: of_clients(
                "inbound_tcp_authz_terminate_total",
                "Connections ended because a changed policy denies them",
            ),
            route_not_found: of_clients(
                "inbound_http_route_not_found_total",
                "Requests that matched no route of their server",
            ),
            rate_limited: of_clients(
                "inbound_http_local_ratelimit_total",
                "Requests for which a rate limit left no room",
            ),
            transport_headers: of_clients(
                "inbound_tcp_transport_header_connections_total",
                "Direct connections by what their transport headers ask for",
            ),
            detected: of_clients("inbound_tcp_detect_http_results_total", "Connections by what detection found"),
            detect_seconds: registry
                .histogram("inbound_tcp_detect_http_duration_seconds", "How long detection took", DETECT_SECONDS)
                .of_clients(),
            http_errors: registry.counter(http_errors, "Requests that the proxy failed"),
            tcp_errors: registry.counter(tcp_errors, "Connections that the proxy failed"),
            proxy_errors: proxy_errors(registry),
            failures: Box::new(std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new()))),
        }
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, what: Failed, error: &ProxyError) {
        let held = self.failures.get(what as usize).and_then(|of_kind| of_kind.get(error.code as usize));
        let Some(held) = held else { return };
        let Failures { by_code, by_label } = held.get_or_init(|| self.failures(what, error.code));
        by_code.inc();
        if let Some(by_label) = by_label {
            by_label.inc();
        }
    }

    fn failures(&self, what: Failed, code: Code) -> Failures {
        let family = if what == Failed::Request { &self.http_errors } else { &self.tcp_errors };
        let labelled = |label| family.pinned(self.shard, &Labels::new().with("error", label));
        Failures {
            by_code: self.proxy_errors.pinned(self.shard, &labels::code(self.direction, code)),
            by_label: error_label(what, code).map(labelled),
        }
    }

    /// What is counted of the retries of an outbound route.
    pub(crate) fn retry(&self, grpc: bool, parent: &Meta, route: &Meta) -> retry::Counters {
        let families = if grpc { &self.grpc_retry } else { &self.http_retry };
        families.counters(self.shard, labels::parent(parent).join(&labels::outbound_route(route)))
    }

    /// A handle that is held.
    pub(crate) fn counter(&self, family: &CounterFamily, labels: &Labels) -> Counter {
        family.with(self.shard, labels)
    }
}

/// Every failure by its code.
pub(crate) fn proxy_errors(registry: &Registry) -> CounterFamily {
    registry.counter("weft_proxy_errors_total", "Failures that the proxy made itself, by code")
}

/// Linkerd's word for a failure; `None` where a family of its own counts it.
fn error_label(what: Failed, code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Failfast | Code::BreakerShut => "failfast",
        Code::LoadShed | Code::EndpointFull => "loadshed",
        Code::ConnectFailed
        | Code::ConnectTimeout
        | Code::DescriptorLimit
        | Code::TlsFailed
        | Code::UpstreamProtocol => "i/o",
        Code::IdentityMismatch => "identity required",
        Code::DetectTimeout => "tls detection timeout",
        Code::GatewayDomainInvalid => "gateway domain invalid",
        Code::Loop if what == Failed::Request => "gateway loop",
        Code::RequestTimeout
        | Code::ResponseTimeout
        | Code::ResponseHeadersTimeout
        | Code::IdleTimeout
        | Code::ProfileTimeout => "response timeout",
        Code::RouteNotFound | Code::Unauthorized | Code::RateLimited | Code::ServerFirstRefused => return None,
        // Nothing failed that was not meant to.
        Code::Redirect | Code::FaultInjected => return None,
        _ => "unexpected",
    })
}

fn counter(registry: &Registry, name: &'static str, help: &'static str) -> CounterFamily {
    registry.counter(name, help)
}

fn gauge(registry: &Registry, name: &'static str, help: &'static str) -> GaugeFamily {
    registry.gauge(name, help)
}

pub(crate) fn latency(registry: &Registry, name: &'static str, help: &'static str) -> HistogramFamily {
    registry.histogram(name, help, LATENCY_MS)
}
