//! How traffic to one target behaves, on the client's side.

use super::route::{Filter, GrpcRoute, HttpRoute};
use crate::{Endpoint, Meta, NameAddr};
use std::{
    hash::{Hash, Hasher},
    ops::RangeInclusive,
    time::Duration,
};

/// The policy of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientPolicy {
    /// The target itself: the `parent_*` labels.
    pub meta: Meta,
    pub protocol: ClientProtocol,
}

#[expect(clippy::large_enum_variant, reason = "there is one of a target, and most are the large one")]
#[derive(Clone, Debug, PartialEq)]
pub enum ClientProtocol {
    /// The proxy looks at the first bytes the application sends.
    Detect {
        timeout: Duration,
        http1: HttpRoutes,
        http2: HttpRoutes,
        opaque: Option<TcpRoute>,
    },
    Http1(HttpRoutes),
    Http2(HttpRoutes),
    Grpc {
        routes: Vec<GrpcRoute<OutboundRule>>,
        breaker: Option<Breaker>,
    },
    Opaque(Option<TcpRoute>),
    Tls(Vec<TlsRoute>),
}

impl ClientProtocol {
    /// Each rule of a route of requests: its route, its place there, and where it sends to.
    pub fn rules(&self) -> impl Iterator<Item = (&Meta, usize, &Distribution)> {
        let (http1, http2, grpc): (&[_], &[_], &[_]) = match self {
            Self::Detect { http1, http2, .. } => (&http1.routes, &http2.routes, &[]),
            Self::Http1(routes) | Self::Http2(routes) => (&routes.routes, &[], &[]),
            Self::Grpc { routes, .. } => (&[], &[], routes),
            Self::Opaque(_) | Self::Tls(_) => (&[], &[], &[]),
        };
        let http = http1.iter().chain(http2);
        let http =
            http.flat_map(|route| route.rules.iter().map(|rule| &rule.does).enumerate().map(|of| (&route.meta, of)));
        let grpc = grpc.iter();
        let grpc =
            grpc.flat_map(|route| route.rules.iter().map(|rule| &rule.does).enumerate().map(|of| (&route.meta, of)));
        http.chain(grpc).map(|(route, (place, does))| (route, place, &does.backends))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoutes {
    pub routes: Vec<HttpRoute<OutboundRule>>,
    pub breaker: Option<Breaker>,
}

/// What a matched outbound rule asks for besides its filters.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundRule {
    pub backends: Distribution,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    /// The application may set timeouts and retries by `l5d-*` headers.
    pub allow_l5d_headers: bool,
}

/// Bytes of one connection are forwarded by one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    pub meta: Meta,
    pub backends: Distribution,
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    pub snis: Vec<super::route::HostMatch>,
    pub route: TcpRoute,
}

/// How requests spread over backends.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// Never available.
    Empty,
    /// The first that is available.
    FirstAvailable(Vec<RouteBackend>),
    /// By weight.
    RandomAvailable(Vec<(RouteBackend, u32)>),
}

impl Distribution {
    /// Every backend, in order.
    pub fn iter(&self) -> impl Iterator<Item = &RouteBackend> {
        let (first, random): (&[_], &[_]) = match self {
            Self::Empty => (&[], &[]),
            Self::FirstAvailable(all) => (all, &[]),
            Self::RandomAvailable(all) => (&[], all),
        };
        first.iter().chain(random.iter().map(|(backend, _)| backend))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RouteBackend {
    pub backend: Backend,
    pub filters: Vec<Filter>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub meta: Meta,
    pub kind: BackendKind,
    pub queue: Queue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum BackendKind {
    /// One fixed endpoint.
    Forward(Endpoint),
    /// Endpoints that the Destination service lists for this name.
    Balance { target: NameAddr, load: Load },
    /// Sent without a kind: requests fail.
    Missing,
}

/// How the load of an endpoint is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    pub default_rtt: Duration,
    pub decay: Duration,
    /// Failing answers count as this slow.
    pub penalty: Option<Penalty>,
}

impl Load {
    /// What Linkerd's control plane sends (data plane 4.6).
    pub const LINKERD: Self =
        Self { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Penalty {
    pub rtt: Duration,
    pub max_retry_after: Duration,
}

/// How many requests wait for an endpoint, and how long until they fail at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub capacity: u32,
    pub failfast: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub response: Option<Duration>,
    pub request: Option<Duration>,
    pub idle: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub max_retries: u32,
    /// Bytes of request body that may be kept for another try.
    pub max_request_bytes: u32,
    pub on: RetryOn,
    pub timeout: Option<Duration>,
    pub backoff: Option<Backoff>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RetryOn {
    Statuses(Vec<RangeInclusive<u16>>),
    GrpcCodes(Vec<u16>),
}

impl Retry {
    /// What Linkerd's control plane sends, and what its proxies take where only headers ask (data plane 4.10).
    pub const LINKERD: Self = Self {
        max_retries: 1,
        max_request_bytes: 64 * 1024,
        on: RetryOn::Statuses(Vec::new()),
        timeout: None,
        backoff: Some(Backoff { min: Duration::from_millis(25), max: Duration::from_millis(250), jitter: 1.0 }),
    };
}

/// Growing waits between attempts. Equal when they are written the same, so that balancers may be told apart by them.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub min: Duration,
    pub max: Duration,
    /// 0 to 1: the part of a wait that is random.
    pub jitter: f32,
}

impl Backoff {
    fn parts(&self) -> (Duration, Duration, u32) {
        let Self { min, max, jitter } = *self;
        (min, max, jitter.to_bits())
    }
}

impl PartialEq for Backoff {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Backoff {}

impl Hash for Backoff {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// When an endpoint is left out because it fails.
#[derive(Clone, Debug, PartialEq)]
pub enum Breaker {
    Consecutive {
        max_failures: u32,
        backoff: Backoff,
    },
    Unified {
        success_rate_threshold: f64,
        window: Duration,
        min_requests: u32,
        max_consecutive_failures: u32,
        backoff: Backoff,
        /// The waits should be as long as the server says; no proxy does that yet.
        honor_retry_after: bool,
    },
}
