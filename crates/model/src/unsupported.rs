//! What a policy asks for that this build of the proxy does not carry out.
//!
//! A proxy refuses the traffic of such a policy and names the reason: a policy is never half applied. Whoever teaches the
//! proxy something removes it here.

use crate::{
    ClientPolicy, ServerPolicy,
    decide::{filter::is_protected, host::host_port},
    policy::{
        inbound::{InboundRule, ServerProtocol},
        outbound::{ClientProtocol, Distribution, HttpRoutes, OutboundRule, TcpRoute},
        route::{Filter, HeaderEdits, PathReplacement, Rewrite, Rule},
    },
};

/// The most edits of headers that one filter may hold; Gateway API allows 16 of each kind.
const MAX_EDITS: usize = 64;

impl ClientPolicy {
    /// The first thing that this build of the proxy cannot carry out.
    pub fn unsupported(&self) -> Option<String> {
        match &self.protocol {
            ClientProtocol::Detect { timeout: _, http1, http2, opaque } => {
                http_routes(http1).or_else(|| http_routes(http2)).or_else(|| opaque.as_ref().and_then(tcp_route))
            }
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => http_routes(routes),
            ClientProtocol::Grpc { routes, breaker: _ } => routes.iter().find_map(|route| rules(&route.rules)),
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

fn inbound_rules<M>(rules: &[Rule<M, InboundRule>]) -> Option<String> {
    rules.iter().find_map(|rule| filters(&rule.filters))
}

fn http_routes(routes: &HttpRoutes) -> Option<String> {
    routes.routes.iter().find_map(|route| rules(&route.rules))
}

fn rules<M>(rules: &[Rule<M, OutboundRule>]) -> Option<String> {
    rules.iter().find_map(|rule| {
        let OutboundRule { backends, timeouts: _, retry: _, allow_l5d_headers: _ } = &rule.does;
        filters(&rule.filters).or_else(|| distribution(backends))
    })
}

fn tcp_route(route: &TcpRoute) -> Option<String> {
    let for_requests = |filter: &&Filter| !matches!(filter, Filter::Forbidden | Filter::Invalid(_));
    let refused = route.filters.iter().chain(route.backends.iter().flat_map(|b| &b.filters)).find(for_requests);
    refused.map(named).or_else(|| distribution(&route.backends))
}

fn distribution(distribution: &Distribution) -> Option<String> {
    distribution.iter().find_map(|b| filters(&b.filters))
}

/// What of filters for requests would break a message, or let a policy speak for a proxy.
fn filters(filters: &[Filter]) -> Option<String> {
    filters.iter().find_map(|filter| match filter {
        Filter::RequestHeaders(edits) | Filter::ResponseHeaders(edits) => {
            edited(edits).map(|what| format!("{} {what}", named(filter)))
        }
        // 304 is about a copy that the client has.
        Filter::Redirect(redirect) => redirect
            .status
            .filter(|status| !(300..400).contains(status) || *status == 304)
            .map(|status| format!("filter that redirects with status {status}")),
        Filter::HttpFailure { status, message: _, ratio: _ } => {
            (*status < 200).then(|| format!("filter that fails HTTP requests with status {status}"))
        }
        Filter::Rewrite(rewrite) => rewritten(rewrite).map(str::to_owned),
        Filter::GrpcFailure { code: _, message: _, ratio: _ }
        | Filter::Mirror(_)
        | Filter::Extension(_)
        | Filter::Forbidden
        | Filter::Invalid(_) => None,
    })
}

/// What is put into a request is a URI's, whoever says it.
fn rewritten(Rewrite { host, path }: &Rewrite) -> Option<&'static str> {
    let is_host = |host: &String| host_port(host.as_bytes()).is_some_and(|(host, _)| !host.is_empty());
    if !host.as_ref().is_none_or(is_host) {
        return Some("filter that rewrites the host to what is none");
    }
    let absolute = |path: &str| {
        path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'))
    };
    let is_path = match path {
        None => true,
        Some(PathReplacement::Full(path)) => absolute(path),
        Some(PathReplacement::Prefix(path)) => path.is_empty() || absolute(path),
    };
    (!is_path).then_some("filter that rewrites the path to what is none")
}

fn edited(edits: &HeaderEdits) -> Option<String> {
    let HeaderEdits { add, set, remove } = edits;
    if add.len() + set.len() + remove.len() > MAX_EDITS {
        return Some(format!("in more than {MAX_EDITS} places"));
    }
    let mut names = add.iter().chain(set).map(|(name, _)| name).chain(remove);
    let refused = names.find(|name| is_protected(name))?;
    Some(format!("of the connection or the mesh: {refused}"))
}

fn named(filter: &Filter) -> String {
    let name = match filter {
        Filter::RequestHeaders(_) => "filter that edits request headers",
        Filter::ResponseHeaders(_) => "filter that edits response headers",
        Filter::Redirect(_) => "filter that redirects",
        Filter::Rewrite(_) => "filter that rewrites",
        Filter::Mirror(_) => "filter that mirrors requests",
        Filter::Extension(_) => "filter that is told beside the policy",
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
            outbound::{Backend, BackendKind, Queue, RouteBackend, Timeouts},
            route::{HttpMatch, HttpRoute, Ratio, Redirect},
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
        assert_eq!(http(|_| {}), None);
        assert_eq!(http(|r| rule(r).does.timeouts.idle = Some(SECOND)), None);
    }

    #[test]
    fn filters_that_would_break_a_message_are_named() {
        let edits = |add: &[&str], remove: &[&str]| HeaderEdits {
            add: add.iter().map(|name| ((*name).to_owned(), vec![])).collect(),
            set: vec![],
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        };
        let asked = |edits| Filter::RequestHeaders(edits);
        let of = |filter: Filter| {
            (http(|r| rule(r).filters = vec![filter.clone()]), http(|r| last_backend(r).filters = vec![filter]))
        };
        assert_eq!(of(asked(edits(&["x-a"], &["cookie"]))), (None, None));
        let named = Some("filter that edits request headers of the connection or the mesh: te".to_owned());
        assert_eq!(of(asked(edits(&["x-a"], &["te"]))), (named.clone(), named));
        assert!(of(asked(edits(&["l5d-client-id"], &[]))).0.is_some());
        assert!(
            of(Filter::ResponseHeaders(edits(&[], &["content-length"]))).0.unwrap().ends_with("mesh: content-length")
        );
        assert_eq!(of(asked(edits(&["x"; MAX_EDITS], &[]))).0, None);
        assert!(of(asked(edits(&["x"; MAX_EDITS], &["x"]))).0.unwrap().ends_with("more than 64 places"));
        let redirect = |status| of(Filter::Redirect(Redirect { status, ..Redirect::default() })).0;
        assert_eq!((redirect(None), redirect(Some(308))), (None, None));
        assert!(redirect(Some(200)).is_some() && redirect(Some(304)).is_some());
        let failure = |status| {
            let ratio = Ratio { numerator: 1, denominator: 1 };
            of(Filter::HttpFailure { status, message: String::new(), ratio }).1
        };
        assert_eq!((failure(200), failure(599)), (None, None));
        let rewrite = |host: Option<&str>, path: Option<PathReplacement>| {
            of(Filter::Rewrite(Rewrite { host: host.map(str::to_owned), path })).1
        };
        let (full, prefix) = (
            |p: &str| Some(PathReplacement::Full(p.to_owned())),
            |p: &str| Some(PathReplacement::Prefix(p.to_owned())),
        );
        for good in
            [rewrite(Some("a.b"), full("/x%20y")), rewrite(None, prefix("")), rewrite(Some("[::1]:80"), prefix("/a/"))]
        {
            assert_eq!(good, None);
        }
        for wrong in [Some("a b"), Some(""), Some(":80"), Some("a\r\nb"), Some("u@h")] {
            assert!(rewrite(wrong, None).unwrap().contains("host"), "{wrong:?}");
        }
        for wrong in
            [full(""), full("a"), full("/a b"), full("/a?b"), full("/a#b"), full("/\r\n"), prefix("a"), prefix("/é")]
        {
            assert!(rewrite(None, wrong.clone()).unwrap().contains("path"), "{wrong:?}");
        }
        assert_eq!(failure(101).unwrap(), "filter that fails HTTP requests with status 101");
        assert_eq!(of(Filter::Invalid(String::new())), (None, None), "it answers by itself");
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
    fn servers() {
        let server = |filters| {
            let rule = Rule { matches: vec![], filters, does: InboundRule::default() };
            let route = HttpRoute { meta: meta(), hosts: vec![], rules: vec![rule] };
            let protocol = ServerProtocol::Http1 { routes: vec![route], rate_limit: None };
            ServerPolicy { meta: meta(), protocol, authorizations: vec![] }.unsupported()
        };
        assert_eq!(server(vec![]), None);
        let edits = HeaderEdits { remove: vec!["host".into()], ..HeaderEdits::default() };
        let named = server(vec![Filter::RequestHeaders(edits)]).unwrap();
        assert_eq!(named, "filter that edits request headers of the connection or the mesh: host");
    }
}
