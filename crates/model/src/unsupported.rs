//! What a policy asks for that this build of the proxy does not carry out.
//!
//! A proxy refuses the traffic of such a policy and names the reason: a policy is never half applied. Whoever teaches the
//! proxy something removes it here.

use crate::{
    ClientPolicy, Profile, ServerPolicy,
    policy::{
        inbound::{InboundRule, ServerProtocol},
        outbound::{Backend, BackendKind, Breaker, ClientProtocol, Distribution, HttpRoutes, OutboundRule, TcpRoute},
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
            ClientProtocol::Tls(routes) => routes.iter().find_map(|route| tcp_route(&route.route)),
        }
    }
}

impl ServerPolicy {
    /// The first thing that this build of the proxy cannot carry out.
    pub fn unsupported(&self) -> Option<String> {
        match &self.protocol {
            ServerProtocol::Detect { timeout: _, routes, rate_limit: _ }
            | ServerProtocol::Http1 { routes, rate_limit: _ }
            | ServerProtocol::Http2 { routes, rate_limit: _ } => {
                routes.iter().find_map(|route| inbound_rules(&route.rules))
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

fn http_routes(routes: &HttpRoutes) -> Option<String> {
    breaker(routes.breaker.as_ref()).or_else(|| routes.routes.iter().find_map(|route| rules(&route.rules)))
}

fn rules<M>(rules: &[Rule<M, OutboundRule>]) -> Option<String> {
    rules.iter().find_map(|rule| {
        let OutboundRule { backends, timeouts: _, retry: _, allow_l5d_headers: _ } = &rule.does;
        rule.filters.first().map(named).or_else(|| distribution(backends))
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Endpoint, Meta,
        policy::{
            outbound::{Backoff, Load, Penalty, Queue, RouteBackend, Timeouts},
            route::{HeaderEdits, HttpMatch, HttpRoute, Ratio},
        },
    };
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn meta() -> Meta {
        Meta::default_named("m")
    }

    fn plain() -> RouteBackend {
        let kind = BackendKind::Forward(Endpoint::plain(([10, 0, 0, 1], 80).into()));
        let queue = Queue { capacity: 1, failfast: SECOND };
        RouteBackend { backend: Backend { meta: meta(), kind, queue }, filters: vec![] }
    }

    /// A plain policy of HTTP, changed.
    fn http(change: impl FnOnce(&mut HttpRoutes)) -> Option<String> {
        let does = OutboundRule {
            backends: Distribution::RandomAvailable(vec![(plain(), 1), (plain(), 2)]),
            timeouts: Timeouts::default(),
            retry: None,
            allow_l5d_headers: true,
        };
        let rule = Rule { matches: vec![HttpMatch::default()], filters: vec![], does };
        let route = HttpRoute { meta: meta(), hosts: vec![], rules: vec![rule] };
        let mut routes = HttpRoutes { routes: vec![route], breaker: None };
        change(&mut routes);
        let protocol = ClientProtocol::Detect {
            timeout: SECOND,
            http1: HttpRoutes { routes: vec![], breaker: None },
            http2: routes,
            opaque: None,
        };
        ClientPolicy { meta: meta(), protocol }.unsupported()
    }

    fn rule(routes: &mut HttpRoutes) -> &mut Rule<HttpMatch, OutboundRule> {
        &mut routes.routes[0].rules[0]
    }

    fn last_backend(routes: &mut HttpRoutes) -> &mut RouteBackend {
        match &mut rule(routes).does.backends {
            Distribution::RandomAvailable(all) => &mut all.last_mut().unwrap().0,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_thing_out_of_reach_is_named() {
        let backoff = Backoff { min: SECOND, max: SECOND, jitter: 0.0 };
        let edits = || Filter::RequestHeaders(HeaderEdits::default());
        assert_eq!(http(|_| {}), None);
        assert_eq!(http(|r| rule(r).filters = vec![edits()]).unwrap(), "filter that edits request headers");
        assert_eq!(http(|r| last_backend(r).filters = vec![edits()]).unwrap(), "filter that edits request headers");
        assert_eq!(http(|r| rule(r).does.timeouts.idle = Some(SECOND)), None);
        let breaker = |max_failures| Some(Breaker::Consecutive { max_failures, backoff });
        assert_eq!(http(|r| r.breaker = breaker(7)).unwrap(), "circuit breaker");
        assert_eq!(http(|r| r.breaker = breaker(0)), None, "it never trips");
        let balance = |penalty| BackendKind::Balance {
            target: "a:80".parse().unwrap(),
            load: Load { default_rtt: SECOND, decay: SECOND, penalty },
        };
        assert_eq!(http(|r| last_backend(r).backend.kind = balance(None)), None);
        let penalty = Some(Penalty { rtt: SECOND, max_retry_after: SECOND });
        let refused = http(|r| last_backend(r).backend.kind = balance(penalty));
        assert_eq!(refused.unwrap(), "load estimate with a penalty for failures");
    }

    #[test]
    fn connections_may_be_forbidden() {
        let opaque = |filter| {
            let route = TcpRoute { meta: meta(), backends: Distribution::Empty, filters: vec![filter] };
            ClientPolicy { meta: meta(), protocol: ClientProtocol::Opaque(Some(route)) }.unsupported()
        };
        assert_eq!(opaque(Filter::Forbidden), None);
        assert_eq!(opaque(Filter::Invalid(String::new())), None);
        assert!(opaque(Filter::Redirect(Default::default())).is_some());
        let redirects = vec![Filter::Redirect(Default::default())];
        let route = TcpRoute { meta: meta(), backends: Distribution::Empty, filters: redirects };
        let routes = vec![crate::policy::outbound::TlsRoute { snis: vec![], route }];
        assert!(ClientPolicy { meta: meta(), protocol: ClientProtocol::Tls(routes) }.unsupported().is_some());
    }

    #[test]
    fn servers_and_profiles() {
        let server = |filters| {
            let rule = Rule { matches: vec![], filters, does: InboundRule::default() };
            let route = HttpRoute { meta: meta(), hosts: vec![], rules: vec![rule] };
            let protocol = ServerProtocol::Http1 { routes: vec![route], rate_limit: None };
            ServerPolicy { meta: meta(), protocol, authorizations: vec![] }.unsupported()
        };
        assert_eq!(server(vec![]), None);
        let ratio = Ratio { numerator: 1, denominator: 1 };
        let failure = Filter::HttpFailure { status: 500, message: String::new(), ratio };
        assert_eq!(server(vec![failure]).unwrap(), "filter that fails HTTP requests");

        assert_eq!(Profile { opaque: true, ..Profile::default() }.unsupported(), None);
        let target = crate::profile::WeightedTarget { target: "a:80".parse().unwrap(), weight: 1 };
        assert!(Profile { targets: vec![target], ..Profile::default() }.unsupported().is_some());
    }
}
