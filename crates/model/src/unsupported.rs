//! What a policy asks for that this build of the proxy does not carry out.
//!
//! A proxy refuses the traffic of such a policy and names the reason: a policy is never half applied. Whoever teaches the
//! proxy something removes it here.

use crate::{
    ClientPolicy, Profile, ServerPolicy,
    policy::{
        inbound::{InboundRule, RateLimit, ServerProtocol},
        outbound::{
            Backend, BackendKind, Breaker, ClientProtocol, Distribution, HttpRoutes, OutboundRule, TcpRoute, Timeouts,
        },
        route::{Filter, Rule},
    },
};

impl ClientPolicy {
    /// The first thing that this build of the proxy cannot carry out.
    pub fn unsupported(&self) -> Option<String> {
        match &self.protocol {
            ClientProtocol::Detect { timeout: _, http1, http2, opaque } => {
                http_routes(http1).or_else(|| http_routes(http2)).or_else(|| opaque.as_ref().and_then(tcp_route))
            }
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => http_routes(routes),
            ClientProtocol::Grpc { routes, breaker: b } => {
                breaker(b.as_ref()).or_else(|| routes.iter().find_map(|route| rules(&route.rules)))
            }
            ClientProtocol::Opaque(route) => route.as_ref().and_then(tcp_route),
            ClientProtocol::Tls(_) => Some("routes by TLS server name".to_owned()),
        }
    }
}

impl ServerPolicy {
    /// The first thing that this build of the proxy cannot carry out.
    pub fn unsupported(&self) -> Option<String> {
        match &self.protocol {
            ServerProtocol::Detect { timeout: _, routes, rate_limit: limit }
            | ServerProtocol::Http1 { routes, rate_limit: limit }
            | ServerProtocol::Http2 { routes, rate_limit: limit } => {
                rate_limit(limit.as_ref()).or_else(|| routes.iter().find_map(|route| inbound_rules(&route.rules)))
            }
            ServerProtocol::Grpc { routes } => routes.iter().find_map(|route| inbound_rules(&route.rules)),
            ServerProtocol::Opaque | ServerProtocol::Tls => None,
        }
    }
}

impl Profile {
    /// The first thing that this build of the proxy cannot carry out.
    pub fn unsupported(&self) -> Option<String> {
        if !self.routes.is_empty() {
            return Some("routes of a ServiceProfile".to_owned());
        }
        (!self.targets.is_empty()).then(|| "traffic split of a ServiceProfile".to_owned())
    }
}

fn inbound_rules<M>(rules: &[Rule<M, InboundRule>]) -> Option<String> {
    rules.iter().find_map(|rule| rule.filters.first()).map(named)
}

fn rate_limit(limit: Option<&RateLimit>) -> Option<String> {
    limit.map(|_| "rate limit".to_owned())
}

fn http_routes(routes: &HttpRoutes) -> Option<String> {
    breaker(routes.breaker.as_ref()).or_else(|| routes.routes.iter().find_map(|route| rules(&route.rules)))
}

fn rules<M>(rules: &[Rule<M, OutboundRule>]) -> Option<String> {
    rules.iter().find_map(|rule| {
        // That an application may set timeouts by headers asks for nothing until a request carries one.
        let OutboundRule { backends, timeouts: t, retry, allow_l5d_headers: _ } = &rule.does;
        rule.filters
            .first()
            .map(named)
            .or_else(|| timeouts(t))
            .or_else(|| retry.as_ref().map(|_| "retry".to_owned()))
            .or_else(|| distribution(backends))
    })
}

fn timeouts(timeouts: &Timeouts) -> Option<String> {
    let Timeouts { response, request, idle } = timeouts;
    (response.is_some() || request.is_some() || idle.is_some()).then(|| "timeout".to_owned())
}

fn tcp_route(route: &TcpRoute) -> Option<String> {
    let refused = route.filters.iter().find(|filter| !matches!(filter, Filter::Forbidden | Filter::Invalid(_)));
    refused.map(named).or_else(|| distribution(&route.backends))
}

fn distribution(backends: &Distribution) -> Option<String> {
    match backends {
        Distribution::Empty => None,
        Distribution::FirstAvailable(all) => {
            all.iter().find_map(|b| b.filters.first().map(named).or_else(|| backend(&b.backend)))
        }
        Distribution::RandomAvailable(all) => {
            all.iter().find_map(|(b, _)| b.filters.first().map(named).or_else(|| backend(&b.backend)))
        }
    }
}

fn backend(backend: &Backend) -> Option<String> {
    match &backend.kind {
        BackendKind::Forward(_) | BackendKind::Missing => None,
        BackendKind::Balance { target: _, load } => {
            load.penalty.map(|_| "load estimate with a penalty for failures".to_owned())
        }
    }
}

fn breaker(breaker: Option<&Breaker>) -> Option<String> {
    match breaker? {
        // Never trips.
        Breaker::Consecutive { max_failures: 0, backoff: _ } => None,
        Breaker::Consecutive { .. } | Breaker::Unified { .. } => Some("circuit breaker".to_owned()),
    }
}

fn named(filter: &Filter) -> String {
    let name = match filter {
        Filter::RequestHeaders(_) => "filter that edits request headers",
        Filter::ResponseHeaders(_) => "filter that edits response headers",
        Filter::Redirect(_) => "filter that redirects",
        Filter::HttpFailure { .. } => "filter that fails HTTP requests",
        Filter::GrpcFailure { .. } => "filter that fails gRPC requests",
        Filter::Forbidden => "filter that forbids",
        Filter::Invalid(_) => "filter that marks a route invalid",
    };
    name.to_owned()
}
