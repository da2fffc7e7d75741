//! Policies as a control plane sends them for the plainest objects; a test changes the field it is about.

use std::time::Duration;
use weft_model::{
    ClientPolicy, Endpoint, Meta, NameAddr, ServerPolicy,
    meta::Resource,
    policy::{
        inbound::{DefaultPolicy, InboundRule, ServerProtocol},
        outbound::{
            Backend, BackendKind, ClientProtocol, Distribution, HttpRoutes, Load, OutboundRule, Queue, RouteBackend,
            TcpRoute, Timeouts, TlsRoute,
        },
        route::{GrpcRoute, HostMatch, HttpRoute, Rule},
    },
};

const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };
const DETECT: Duration = Duration::from_secs(10);

/// The metadata of a Service.
pub fn service(namespace: &str, name: &str, port: u16) -> Meta {
    Meta::Resource(Resource {
        group: "core".to_owned(),
        kind: "Service".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        section: String::new(),
        port,
    })
}

/// A backend that balances over what [`set_endpoints`](crate::control::FakeControl::set_endpoints) says of `target`.
pub fn balance(meta: Meta, target: NameAddr) -> Backend {
    Backend { meta, kind: BackendKind::Balance { target, load: Load::LINKERD }, queue: QUEUE }
}

pub fn forward(endpoint: Endpoint) -> Backend {
    Backend { meta: Meta::default_named("forward"), kind: BackendKind::Forward(endpoint), queue: QUEUE }
}

/// Detection, then every request or connection to this one backend.
pub fn detect(meta: Meta, backend: Backend) -> ClientPolicy {
    let protocol = ClientProtocol::Detect {
        timeout: DETECT,
        http1: http_routes(backend.clone()),
        http2: http_routes(backend.clone()),
        opaque: Some(tcp_route(backend)),
    };
    ClientPolicy { meta, protocol }
}

/// Bytes to this one backend.
pub fn opaque(meta: Meta, backend: Backend) -> ClientPolicy {
    ClientPolicy { meta, protocol: ClientProtocol::Opaque(Some(tcp_route(backend))) }
}

/// A route of TLS connections that ask for one of `snis`: `*.` stands before a suffix; none is every name.
pub fn tls_route(name: &str, snis: &[&str], backend: Backend) -> TlsRoute {
    let sni = |text: &&str| match text.strip_prefix("*.") {
        Some(suffix) => HostMatch::Suffix(suffix.rsplit('.').map(str::to_owned).collect()),
        None => HostMatch::Exact((*text).to_owned()),
    };
    let route = TcpRoute { meta: Meta::default_named(name), ..tcp_route(backend) };
    TlsRoute { snis: snis.iter().map(sni).collect(), route }
}

/// One route for every request.
pub fn http_routes(backend: Backend) -> HttpRoutes {
    let rule = Rule { matches: vec![], filters: vec![], does: outbound_rule(backend) };
    let route = HttpRoute { meta: Meta::default_named("http"), hosts: vec![], rules: vec![rule] };
    HttpRoutes { routes: vec![route], breaker: None }
}

/// One route for every call.
pub fn grpc_routes(backend: Backend) -> Vec<GrpcRoute<OutboundRule>> {
    let rule = Rule { matches: vec![], filters: vec![], does: outbound_rule(backend) };
    vec![GrpcRoute { meta: Meta::default_named("grpc"), hosts: vec![], rules: vec![rule] }]
}

pub fn tcp_route(backend: Backend) -> TcpRoute {
    TcpRoute { meta: Meta::default_named("opaque"), backends: only(backend), filters: vec![] }
}

pub fn outbound_rule(backend: Backend) -> OutboundRule {
    OutboundRule { backends: only(backend), timeouts: Timeouts::default(), retry: None, allow_l5d_headers: false }
}

fn only(backend: Backend) -> Distribution {
    Distribution::FirstAvailable(vec![RouteBackend { backend, filters: vec![] }])
}

/// Detection with one route for every request; whom `default` lets in, everywhere being the cluster.
pub fn inbound(default: DefaultPolicy) -> ServerPolicy {
    let everywhere = [weft_model::decide::cidr::Cidr::ALL_V4, weft_model::decide::cidr::Cidr::ALL_V6];
    let rule = Rule { matches: vec![], filters: vec![], does: InboundRule::default() };
    let route = HttpRoute { meta: Meta::default_named("default"), hosts: vec![], rules: vec![rule] };
    ServerPolicy {
        meta: Meta::default_named(default.as_str()),
        protocol: ServerProtocol::Detect { timeout: DETECT, routes: vec![route], rate_limit: None },
        authorizations: default.authorizations(&everywhere),
    }
}
