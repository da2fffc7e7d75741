//! Answers in short.

use super::NAMESPACE;
use std::time::Duration;
use weft_cluster::{
    Index,
    index::{Answer, Question, Refusal, Settings},
};
use weft_model::{
    ClientPolicy, Endpoint, Meta, Profile, ProtocolHint, ServerPolicy,
    decide::cidr::Cidr,
    policy::{
        inbound::{Authentication, Authorization, InboundRule, ServerProtocol},
        outbound::{BackendKind, ClientProtocol, Distribution, OutboundRule, RouteBackend, TcpRoute, Timeouts},
        route::{Filter, HttpRoute, Rule},
    },
};

pub(super) fn said(index: &Index, question: &Question) -> String {
    match index.answer(question).answer {
        Err(Refusal::NotFound(_)) => "not found".to_owned(),
        Err(Refusal::Invalid(_)) => "invalid".to_owned(),
        Err(Refusal::Ambiguous(_)) => "ambiguous".to_owned(),
        Err(Refusal::NotCarriedOut(_)) => "not carried out".to_owned(),
        Ok(Answer::Destination(set)) => {
            let all: Vec<String> = set.seen_from(&index.place("n1")).values().map(endpoint).collect();
            all.join(" ")
        }
        Ok(Answer::Profile(told)) => profile(&told),
        Ok(Answer::Inbound(policy)) => inbound(&policy),
        Ok(Answer::Outbound(policy)) => outbound(&policy),
        Ok(Answer::Work { done }) => format!("{done}"),
    }
}

/// Its address, the port of its proxy if that is not the usual one, how it is reached, as whom, and by which name.
fn endpoint(Endpoint { addr, hint, tls, transport_port, authority_override, .. }: &Endpoint) -> String {
    let hint = match hint {
        ProtocolHint::Unknown => "",
        ProtocolHint::H2 => "/h2",
        ProtocolHint::Opaque => "/opaque",
    };
    let proxy = transport_port.filter(|port| *port != 4143).map(|port| format!("^{port}")).unwrap_or_default();
    let tls = tls.iter().map(|tls| format!("={}", short(tls.identity.as_str())));
    let named = authority_override.iter().map(|name| format!("@{name}"));
    format!("{addr}{proxy}{hint}{}", tls.chain(named).collect::<String>())
}

fn profile(Profile { name, opaque, endpoint: at, routes, parent, .. }: &Profile) -> String {
    let name = name.iter().map(ToString::to_string);
    let parent = parent.iter().map(|parent| format!("of {} {}", parent.kind(), parent.name()));
    let opaque = opaque.then(|| "opaque".to_owned());
    let routes = routes.iter().map(|route| format!("route {}", route.labels["route"]));
    let all: Vec<String> = name.chain(parent).chain(opaque).chain(at.as_ref().map(endpoint)).chain(routes).collect();
    all.join(" ")
}

/// By which object, what is spoken, by which routes with whom they let in, and who else may call.
fn inbound(ServerPolicy { meta, protocol, authorizations }: &ServerPolicy) -> String {
    let http = |routes: &[HttpRoute<InboundRule>]| {
        routes.iter().map(|r| served(&r.meta, &r.rules)).collect::<Vec<_>>().join(",")
    };
    let (spoken, routes) = match protocol {
        ServerProtocol::Detect { routes, .. } => ("detect", http(routes)),
        ServerProtocol::Http1 { routes, .. } => ("http1", http(routes)),
        ServerProtocol::Http2 { routes, .. } => ("http2", http(routes)),
        ServerProtocol::Grpc { routes } => {
            ("grpc", routes.iter().map(|r| served(&r.meta, &r.rules)).collect::<Vec<_>>().join(","))
        }
        ServerProtocol::Opaque => ("opaque", String::new()),
        ServerProtocol::Tls => ("tls", String::new()),
    };
    let limited = protocol.rate_limit().map(|limit| format!(" limited({})", limit.meta.name())).unwrap_or_default();
    format!("{} {spoken}({routes}) from({}){limited}", meta.name(), who(authorizations))
}

/// A route of a Server, with whom its rules let in.
fn served<M>(meta: &Meta, rules: &[Rule<M, InboundRule>]) -> String {
    let own: Vec<String> = rules.iter().map(|rule| who(&rule.does.authorizations)).collect();
    if own.iter().all(String::is_empty) { meta.name().to_owned() } else { format!("{}:{}", meta.name(), own.join("|")) }
}

/// By which object, as whom, and from where, if not from everywhere.
fn who(authorizations: &[Authorization]) -> String {
    let each = authorizations.iter().map(|Authorization { meta, networks, authentication }| {
        let proof = match authentication {
            Authentication::Unauthenticated => String::new(),
            Authentication::TlsUnauthenticated => "=tls".to_owned(),
            Authentication::TlsAuthenticated { identities, suffixes } => {
                let identities = identities.iter().map(|identity| short(identity.as_str()).to_owned());
                let suffixes = suffixes.iter().map(|suffix| format!("*{}", suffix.0));
                format!("={}", identities.chain(suffixes).collect::<Vec<_>>().join("+"))
            }
        };
        let networks: Vec<Cidr> = networks.iter().map(|network| network.net).collect();
        let from = if networks == [Cidr::ALL_V4, Cidr::ALL_V6] {
            String::new()
        } else if networks == Settings::default().cluster_networks {
            "@cluster".to_owned()
        } else {
            format!("@{}", networks.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"))
        };
        format!("{}{proof}{from}", meta.name())
    });
    each.collect::<Vec<_>>().join(",")
}

/// The first part of a name; an identity that is an address is whole.
fn short(name: &str) -> &str {
    if name.contains("://") { name } else { name.split('.').next().unwrap_or_default() }
}

/// By which object, what is spoken, and by which routes, each with where it goes.
fn outbound(ClientPolicy { meta, protocol }: &ClientPolicy) -> String {
    let (spoken, routes): (_, Vec<String>) = match protocol {
        ClientProtocol::Detect { http1, .. } => {
            ("detect", http1.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Http1(http) => {
            ("http1", http.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Http2(http) => {
            ("http2", http.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Grpc { routes, .. } => {
            ("grpc", routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Tls(routes) => ("tls", routes.iter().map(|r| of_connections(&r.route)).collect()),
        ClientProtocol::Opaque(route) => ("opaque", route.iter().map(of_connections).collect()),
    };
    format!("{} {spoken} {}", meta.name(), routes.join(" "))
}

fn of_rules<M>(name: &str, rules: &[Rule<M, OutboundRule>]) -> String {
    let rules = rules.iter().map(|rule| {
        let retry = rule.does.retry.as_ref().map_or(String::new(), |retry| format!("+{}", retry.max_retries));
        format!("{}{}{retry}{}", to(&rule.does.backends), ends(&rule.filters), within(&rule.does.timeouts))
    });
    format!("{name}:{}", rules.collect::<Vec<_>>().join(","))
}

fn of_connections(route: &TcpRoute) -> String {
    format!("{}:{}{}", route.meta.name(), to(&route.backends), ends(&route.filters))
}

/// How long what may take.
fn within(Timeouts { request, response, idle }: &Timeouts) -> String {
    let told = |what: &str, time: &Option<Duration>| time.map(|time| format!("{what} {time:?}"));
    let all = [told("request", request), told("response", response), told("idle", idle)];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { String::new() } else { format!("[{}]", all.join(", ")) }
}

/// The backends, with a namespace if it is another one, and the weights that are not 1.
fn to(backends: &Distribution) -> String {
    let backend = |RouteBackend { backend, .. }: &RouteBackend| match &backend.kind {
        BackendKind::Balance { target, .. } => {
            let mut parts = target.name.as_str().split('.');
            let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if namespace == NAMESPACE { name.to_owned() } else { format!("{name}.{namespace}") }
        }
        BackendKind::Forward(_) => "itself".to_owned(),
        BackendKind::Missing => "nobody".to_owned(),
    };
    let each: Vec<String> = match backends {
        Distribution::Empty => vec![],
        Distribution::FirstAvailable(all) => all.iter().map(backend).collect(),
        Distribution::RandomAvailable(all) => {
            let weight = |weight: u32| if weight == 1 { String::new() } else { format!("*{weight}") };
            all.iter().map(|(of, share)| format!("{}{}", backend(of), weight(*share))).collect()
        }
    };
    each.join("|")
}

/// What becomes of requests that go nowhere.
fn ends(filters: &[Filter]) -> &'static str {
    match filters.first() {
        Some(Filter::Forbidden) => "!forbidden",
        Some(Filter::HttpFailure { status: 403, .. }) => "!403",
        Some(Filter::GrpcFailure { code: 7, .. }) => "!7",
        _ => "",
    }
}
