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
    meta::Resource,
    policy::{
        inbound::{Authentication, Authorization, InboundRule, ServerProtocol},
        outbound::{
            BackendKind, Backoff, Breaker, ClientProtocol, Distribution, Load, OutboundRule, Penalty, Queue, Retry,
            RetryOn, RouteBackend, TcpRoute, Timeouts,
        },
        route::{Filter, HeaderEdits, HttpRoute, PathReplacement, Redirect, Rule},
    },
    profile::{RequestMatch, ResponseMatch},
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

/// Each endpoint of the answer, with its labels.
pub(super) fn labelled(index: &Index, question: &Question) -> String {
    let all: Vec<Endpoint> = match index.answer(question).answer {
        Ok(Answer::Destination(set)) => set.seen_from(&index.place("n1")).into_values().collect(),
        Ok(Answer::Profile(told)) => told.endpoint.into_iter().collect(),
        other => panic!("{other:?}"),
    };
    let each = all.iter().map(|of| {
        let labels: Vec<String> = of.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {{{}}}", endpoint(of), labels.join(" "))
    });
    each.collect::<Vec<_>>().join(" ")
}

/// The objects of a policy: the one that it is of, and its routes.
pub(super) fn named(index: &Index, question: &Question) -> String {
    let metas: Vec<Meta> = match index.answer(question).answer {
        Ok(Answer::Inbound(ServerPolicy { meta, protocol, .. })) => {
            let routes: Vec<Meta> = match protocol {
                ServerProtocol::Detect { routes, .. }
                | ServerProtocol::Http1 { routes, .. }
                | ServerProtocol::Http2 { routes, .. } => routes.into_iter().map(|route| route.meta).collect(),
                ServerProtocol::Grpc { routes } => routes.into_iter().map(|route| route.meta).collect(),
                ServerProtocol::Opaque | ServerProtocol::Tls => vec![],
            };
            [meta].into_iter().chain(routes).collect()
        }
        Ok(Answer::Outbound(ClientPolicy { meta, protocol })) => {
            let routes: Vec<Meta> = match protocol {
                ClientProtocol::Detect { http1: http, .. }
                | ClientProtocol::Http1(http)
                | ClientProtocol::Http2(http) => http.routes.into_iter().map(|route| route.meta).collect(),
                ClientProtocol::Grpc { routes, .. } => routes.into_iter().map(|route| route.meta).collect(),
                ClientProtocol::Tls(routes) => routes.into_iter().map(|route| route.route.meta).collect(),
                ClientProtocol::Opaque(route) => route.into_iter().map(|route| route.meta).collect(),
            };
            [meta].into_iter().chain(routes).collect()
        }
        other => panic!("{other:?}"),
    };
    metas.iter().map(whole_name).collect::<Vec<_>>().join(" ")
}

/// A default's name, or an object's group, kind, namespace and name, with its section and its port if it has them.
fn whole_name(meta: &Meta) -> String {
    match meta {
        Meta::Default(name) => name.clone(),
        Meta::Resource(Resource { group, kind, namespace, name, section, port }) => {
            let section = if section.is_empty() { String::new() } else { format!("#{section}") };
            let port = if *port == 0 { String::new() } else { format!(":{port}") };
            format!("{group}/{kind}/{namespace}/{name}{section}{port}")
        }
    }
}

/// The routes of a profile, each with the requests that it is for, and of which responses what is said.
pub(super) fn conditions(index: &Index, question: &Question) -> String {
    let profile = match index.answer(question).answer {
        Ok(Answer::Profile(profile)) => profile,
        other => panic!("{other:?}"),
    };
    let each = profile.routes.iter().map(|route| {
        let classes = route.response_classes.iter().map(|class| {
            let what = if class.failure { "fails" } else { "succeeds" };
            format!(" {what} if {}", of_response(&class.matches))
        });
        let classes: String = classes.collect();
        format!("{} if {}{classes}", route.labels["route"], of_request(&route.matches))
    });
    each.collect::<Vec<_>>().join("; ")
}

fn of_request(of: &RequestMatch) -> String {
    match of {
        RequestMatch::All(all) => format!("all({})", all.iter().map(of_request).collect::<Vec<_>>().join(", ")),
        RequestMatch::Any(any) => format!("any({})", any.iter().map(of_request).collect::<Vec<_>>().join(", ")),
        RequestMatch::Not(not) => format!("not {}", of_request(not)),
        RequestMatch::Path(path) => path.as_str().to_owned(),
        RequestMatch::Method(method) => method.clone(),
    }
}

fn of_response(of: &ResponseMatch) -> String {
    match of {
        ResponseMatch::All(all) => format!("all({})", all.iter().map(of_response).collect::<Vec<_>>().join(", ")),
        ResponseMatch::Any(any) => format!("any({})", any.iter().map(of_response).collect::<Vec<_>>().join(", ")),
        ResponseMatch::Not(not) => format!("not {}", of_response(not)),
        ResponseMatch::Status(status) => format!("{}-{}", status.start(), status.end()),
    }
}

/// Its address, its weight and the port of its proxy if they are not the usual ones, how it is reached, as whom, and by which name.
fn endpoint(
    Endpoint { addr, weight, hint, tls, transport_port, authority_override, labels: _, http2: _ }: &Endpoint,
) -> String {
    let weight = if *weight == Endpoint::WEIGHT { String::new() } else { format!("*{weight}") };
    let hint = match hint {
        ProtocolHint::Unknown => "",
        ProtocolHint::H2 => "/h2",
        ProtocolHint::Opaque => "/opaque",
    };
    let proxy = match transport_port {
        None if tls.is_some() => "^none".to_owned(),
        None | Some(4143) => String::new(),
        Some(port) => format!("^{port}"),
    };
    let tls = tls.iter().map(|tls| format!("={}", short(tls.identity.as_str())));
    let named = authority_override.iter().map(|name| format!("@{name}"));
    format!("{addr}{weight}{proxy}{hint}{}", tls.chain(named).collect::<String>())
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

/// A route of a Server, with what its rules do and whom they let in.
fn served<M>(meta: &Meta, rules: &[Rule<M, InboundRule>]) -> String {
    let own = rules.iter().map(|rule| format!("{}{}", done(&rule.filters), who(&rule.does.authorizations)));
    let own: Vec<String> = own.collect();
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

/// By which object, what is spoken, when endpoints are left out, and by which routes, each with where it goes.
fn outbound(ClientPolicy { meta, protocol }: &ClientPolicy) -> String {
    let breaker = match protocol {
        ClientProtocol::Detect { http1: http, .. } | ClientProtocol::Http1(http) | ClientProtocol::Http2(http) => {
            http.breaker.as_ref()
        }
        ClientProtocol::Grpc { breaker, .. } => breaker.as_ref(),
        ClientProtocol::Tls(_) | ClientProtocol::Opaque(_) => None,
    };
    let (spoken, routes): (_, Vec<String>) = match protocol {
        ClientProtocol::Detect { http1, http2, .. } => {
            assert_eq!(http1, http2);
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
    format!("{} {spoken}{} {}", meta.name(), breaker.map(left_out).unwrap_or_default(), routes.join(" "))
}

/// After how many failures, or by which share of successes, and for how long.
fn left_out(breaker: &Breaker) -> String {
    let waits = |Backoff { min, max, jitter }: &Backoff| format!("{min:?} to {max:?} ~{jitter}");
    match breaker {
        Breaker::Consecutive { max_failures, backoff } => format!("({max_failures} in a row, {})", waits(backoff)),
        Breaker::Unified {
            success_rate_threshold: share,
            window,
            min_requests,
            max_consecutive_failures,
            backoff,
            honor_retry_after,
        } => {
            let told = if *honor_retry_after { ", or as told" } else { "" };
            let waits = waits(backoff);
            format!("({share} of {min_requests} in {window:?}, {max_consecutive_failures} in a row, {waits}{told})")
        }
    }
}

fn of_rules<M>(name: &str, rules: &[Rule<M, OutboundRule>]) -> String {
    let rules = rules.iter().map(|rule| {
        let OutboundRule { backends, timeouts, retry, allow_l5d_headers: _ } = &rule.does;
        let retry = retry.as_ref().map(again).unwrap_or_default();
        format!("{}{}{retry}{}", to(backends), done(&rule.filters), within(timeouts))
    });
    format!("{name}:{}", rules.collect::<Vec<_>>().join(","))
}

fn of_connections(route: &TcpRoute) -> String {
    format!("{}:{}{}", route.meta.name(), to(&route.backends), done(&route.filters))
}

/// How often, after which answers if those are not all of 5xx, and how long a try may take.
fn again(Retry { max_retries, max_request_bytes, on, timeout, backoff }: &Retry) -> String {
    assert_eq!((*max_request_bytes, *backoff), (Retry::LINKERD.max_request_bytes, Retry::LINKERD.backoff));
    let on = match on {
        RetryOn::Statuses(statuses) if *statuses == [500..=599] => String::new(),
        RetryOn::Statuses(statuses) => {
            let each = statuses.iter().map(|of| format!("{}-{}", of.start(), of.end())).collect::<Vec<_>>();
            format!("({})", each.join(","))
        }
        RetryOn::GrpcCodes(codes) => format!("({})", codes.iter().map(u16::to_string).collect::<Vec<_>>().join(",")),
    };
    format!("+{max_retries}{on}{}", timeout.map(|time| format!("<{time:?}")).unwrap_or_default())
}

/// How long what may take.
fn within(Timeouts { request, response, idle }: &Timeouts) -> String {
    let told = |what: &str, time: &Option<Duration>| time.map(|time| format!("{what} {time:?}"));
    let all = [told("request", request), told("response", response), told("idle", idle)];
    let all: Vec<String> = all.into_iter().flatten().collect();
    if all.is_empty() { String::new() } else { format!("[{}]", all.join(", ")) }
}

/// The backends, with a namespace if it is another one, what a failure counts as if anything, and the weights that are not 1.
fn to(backends: &Distribution) -> String {
    let backend = |RouteBackend { backend, .. }: &RouteBackend| match &backend.kind {
        BackendKind::Balance { target, load } => {
            assert_eq!(backend.queue, Queue { capacity: 100, failfast: Duration::from_secs(3) });
            assert_eq!(Load { penalty: None, ..*load }, Load::LINKERD);
            let mut parts = target.name.as_str().split('.');
            let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let slow = load.penalty.map(|Penalty { rtt, max_retry_after }| format!("~{rtt:?} to {max_retry_after:?}"));
            let of = if namespace == NAMESPACE { String::new() } else { format!(".{namespace}") };
            format!("{name}{of}{}", slow.unwrap_or_default())
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

/// What is done with requests, or why they go nowhere.
fn done(filters: &[Filter]) -> String {
    let each = filters.iter().map(|filter| match filter {
        Filter::Forbidden => "!forbidden".to_owned(),
        Filter::HttpFailure { status, .. } => format!("!{status}"),
        Filter::GrpcFailure { code, .. } => format!("!{code}"),
        Filter::RequestHeaders(edits) => format!("{{{}}}", edited(edits)),
        Filter::ResponseHeaders(edits) => format!("{{answer {}}}", edited(edits)),
        Filter::Redirect(Redirect { scheme, host, path, port, status }) => {
            let of = |part: &Option<String>| part.clone().unwrap_or_default();
            let path = match path {
                Some(PathReplacement::Full(path) | PathReplacement::Prefix(path)) => path.as_str(),
                None => "",
            };
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("{{{} to {}://{}{port}{path}}}", status.unwrap_or_default(), of(scheme), of(host))
        }
        other => format!("{{{other:?}}}"),
    });
    each.collect()
}

fn edited(HeaderEdits { add, set, remove }: &HeaderEdits) -> String {
    let with = |sign: &str, all: &[(String, Vec<u8>)]| -> Vec<String> {
        all.iter().map(|(name, value)| format!("{name}{sign}{}", String::from_utf8_lossy(value))).collect()
    };
    let removed = remove.iter().map(|name| format!("-{name}")).collect();
    [with("+=", add), with("=", set), removed].concat().join(" ")
}
