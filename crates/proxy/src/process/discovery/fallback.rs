//! The policies that hold when the control plane has none, or sends one that cannot be used (data plane 3.11, 4.1). Pure.

use super::{InboundSettings, Settings, TargetKey};
use std::time::Duration;
use weft_model::{
    ClientPolicy, Endpoint, Meta, Profile, ServerPolicy,
    decide::cidr::Cidr,
    policy::{
        inbound::{Authentication, Authorization, InboundRule, NetworkMatch, ServerProtocol},
        outbound::{
            Backend, BackendKind, ClientProtocol, Distribution, HttpRoutes, Load, OutboundRule, Queue, RouteBackend,
            TcpRoute, Timeouts,
        },
        route::{Filter, HttpMatch, HttpRoute, PathMatch, Rule},
    },
};

/// Every queue that is made here; the proxy's own settings win over it.
const QUEUE: Queue = Queue { capacity: 100, failfast: Duration::from_secs(3) };

/// For a target without a policy: to the profile's endpoint if it has one, else to where the application wanted to go. A name
/// is no address: it leads to its endpoints if there is a profile, and nowhere without one.
pub(super) fn client_policy(target: &TargetKey, profile: Option<&Profile>, settings: &Settings) -> ClientPolicy {
    let (name, kind) = match (profile.and_then(|p| p.endpoint.clone()), target, profile) {
        (Some(endpoint), _, _) => ("endpoint", BackendKind::Forward(endpoint)),
        (None, TargetKey::Addr(addr), _) => ("fallback", BackendKind::Forward(Endpoint::plain(*addr))),
        (None, TargetKey::Name(name), Some(_)) => {
            ("fallback", BackendKind::Balance { target: name.clone(), load: Load::LINKERD })
        }
        (None, TargetKey::Name(_), None) => return unknown(settings),
    };
    let meta = Meta::default_named(name);
    let backend = RouteBackend { backend: Backend { meta: meta.clone(), kind, queue: QUEUE }, filters: vec![] };
    detect(meta, Distribution::FirstAvailable(vec![backend]), vec![], vec![], settings.detect_timeout)
}

/// Has no route at all.
fn unknown(settings: &Settings) -> ClientPolicy {
    let none = HttpRoutes { routes: vec![], breaker: None };
    ClientPolicy {
        meta: Meta::default_named("fallback"),
        protocol: ClientProtocol::Detect {
            timeout: settings.detect_timeout,
            http1: none.clone(),
            http2: none,
            opaque: None,
        },
    }
}

/// Answers every request with 500 and fails every other connection.
pub(super) fn invalid_client_policy(reason: &str, settings: &Settings) -> ClientPolicy {
    let message = format!("invalid client policy configuration: {reason}");
    let refuse = || vec![Filter::Invalid(message.clone())];
    detect(Meta::default_named("invalid"), Distribution::Empty, refuse(), refuse(), settings.detect_timeout)
}

fn detect(
    meta: Meta,
    backends: Distribution,
    http_filters: Vec<Filter>,
    tcp_filters: Vec<Filter>,
    timeout: Duration,
) -> ClientPolicy {
    let does = OutboundRule {
        backends: backends.clone(),
        timeouts: Timeouts::default(),
        retry: None,
        allow_l5d_headers: false,
    };
    let route = HttpRoute {
        meta: meta.clone(),
        hosts: vec![],
        rules: vec![Rule { matches: vec![], filters: http_filters, does }],
    };
    let http = HttpRoutes { routes: vec![route], breaker: None };
    let opaque = Some(TcpRoute { meta: meta.clone(), backends, filters: tcp_filters });
    ClientPolicy { meta, protocol: ClientProtocol::Detect { timeout, http1: http.clone(), http2: http, opaque } }
}

/// For a port that the control plane has not spoken of.
pub(super) fn server_policy(port: u16, settings: &InboundSettings) -> ServerPolicy {
    let meta = Meta::default_named(settings.default_policy.as_str());
    let protocol = if settings.opaque_ports.contains(port) {
        ServerProtocol::Opaque
    } else {
        let mut routes = vec![default_route(vec![], vec![])];
        if settings.admin_port == port {
            routes.push(probe_route());
        }
        ServerProtocol::Detect { timeout: settings.detect_timeout, routes, rate_limit: None }
    };
    ServerPolicy { meta, protocol, authorizations: settings.authorizations.clone() }
}

/// Answers every request with 500 and refuses every other connection.
pub(super) fn invalid_server_policy(reason: &str, detect_timeout: Duration) -> ServerPolicy {
    // Requests are let in so that they are answered; connections that are not HTTP are let in by nobody.
    let refused = vec![Filter::Invalid(format!("invalid server configuration: {reason}"))];
    let route = default_route(vec![anybody("invalid")], refused);
    ServerPolicy {
        meta: Meta::default_named("invalid"),
        protocol: ServerProtocol::Detect { timeout: detect_timeout, routes: vec![route], rate_limit: None },
        authorizations: vec![],
    }
}

/// Asking whether a proxy lives is allowed as long as nobody has said otherwise: else a control plane that is away ends pods.
fn probe_route() -> HttpRoute<InboundRule> {
    let get = |path: &str| HttpMatch {
        path: Some(PathMatch::Exact(path.to_owned())),
        method: Some("GET".to_owned()),
        ..HttpMatch::default()
    };
    let does = InboundRule { authorizations: vec![anybody("probe")] };
    let rule = Rule { matches: ["/live", "/ready"].map(get).to_vec(), filters: vec![], does };
    HttpRoute { meta: Meta::default_named("probe"), hosts: vec![], rules: vec![rule] }
}

fn anybody(name: &str) -> Authorization {
    Authorization {
        meta: Meta::default_named(name),
        networks: [Cidr::ALL_V4, Cidr::ALL_V6].map(|net| NetworkMatch { net, except: vec![] }).to_vec(),
        authentication: Authentication::Unauthenticated,
    }
}

fn default_route(authorizations: Vec<Authorization>, filters: Vec<Filter>) -> HttpRoute<InboundRule> {
    let rule = Rule { matches: vec![], filters, does: InboundRule { authorizations } };
    HttpRoute { meta: Meta::default_named("default"), hosts: vec![], rules: vec![rule] }
}
