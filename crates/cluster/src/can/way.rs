//! Where a request goes before any pod says something to it: the rule of its client's own proxy that it follows, by the functions that
//! the proxies run, and what comes of it there.

use super::{
    Request, hosts,
    told::{Shown, Verdict},
};
use crate::{
    Index,
    index::{Answer as Known, Question, Refusal, Target},
};
use std::net::SocketAddr;
use weft_model::{
    Meta, NameAddr, Profile,
    decide::{
        filter::{self, Matched},
        host,
        route::{RequestView, call, find, find_grpc, find_tls, matched_prefix},
    },
    policy::{
        outbound::{BackendKind, ClientPolicy, ClientProtocol, Distribution, RouteBackend, TcpRoute},
        route::{Filter, HttpMatch, Rule},
    },
};

/// One of those that a request may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The route, where somebody wrote it or it goes no further.
    pub(super) by: Option<Shown>,
    pub(super) to: To,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// To no pod: what comes of it, and why.
    Nobody(Verdict, String),
    /// To the pods behind a Service's port, as the request is by then; with what is to be known of that, if it is not what one expects.
    Service { id: (String, String), port: u16, request: Request, note: Option<String> },
}

/// Those of a request; where nobody has said its host, beside each host between which they differ.
pub(super) type Ways = Vec<(Request, Vec<Way>)>;

/// The rule that is followed.
struct Followed<'p> {
    route: Shown,
    /// Somebody wrote the route.
    is_written: bool,
    matches: &'p [HttpMatch],
    filters: &'p [Filter],
    backends: &'p Distribution,
}

impl Way {
    fn nobody(by: Option<Shown>, verdict: Verdict, why: impl Into<String>) -> Self {
        Self { by, to: To::Nobody(verdict, why.into()) }
    }

    /// Under which condition it is followed.
    fn note(&mut self, condition: &str) {
        match &mut self.to {
            To::Nobody(_, why) => *why = together(Some(condition), Some(why.as_str())).unwrap_or_default(),
            To::Service { note, .. } => *note = together(Some(condition), note.as_deref()),
        }
    }
}

/// What is to be known besides, before why it is so.
pub(super) fn together(note: Option<&str>, why: Option<&str>) -> Option<String> {
    let both: Vec<&str> = note.into_iter().chain(why).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// Those of a request to a port of a Service by a client whose proxy follows the routes of the namespace `from`.
///
/// # Errors
/// There is no policy of it.
pub(super) fn to_service(
    index: &Index,
    from: &str,
    (namespace, name): &(String, String),
    port: u16,
    request: &Request,
) -> Result<Ways, Refusal> {
    let name = format!("{name}.{namespace}.svc.{}", index.settings().cluster_domain);
    let name = name.parse().map_err(|_| Refusal::Invalid(format!("{name} is no valid DNS name")))?;
    to(index, from, Target::Name(NameAddr { name, port }), port, request)
}

/// The same of an address.
///
/// # Errors
/// There is no policy of it.
pub(super) fn to_address(index: &Index, from: &str, addr: SocketAddr, request: &Request) -> Result<Ways, Refusal> {
    to(index, from, Target::Addr(addr), addr.port(), request)
}

fn to(index: &Index, from: &str, target: Target, port: u16, request: &Request) -> Result<Ways, Refusal> {
    let question = Question::Outbound { from: from.to_owned(), target: target.clone() };
    let policy = match index.answer(&question).answer? {
        Known::Outbound(policy) => policy,
        _ => return Err(Refusal::NotFound("the index has no policy of the target".to_owned())),
    };
    let asked = Question::Profile { from: from.to_owned(), target };
    let profile = match index.answer(&asked).answer {
        Ok(Known::Profile(profile)) => Some(profile),
        _ => None,
    };
    if let Some(why) = hosts::by_pattern(request, &policy.protocol) {
        return Ok(vec![(request.clone(), vec![Way::nobody(None, Verdict::Unknown, why)])]);
    }
    let mut all = Ways::new();
    for asked in hosts::each(request, &policy.protocol) {
        let mut ways = by(index, &policy, profile.as_ref(), port, (request, &asked));
        if let (ClientProtocol::Tls(_), Some(name)) = (&policy.protocol, asked.authority()) {
            let note =
                format!("if it is TLS for {}: what is none, or names no server, is refused", host::split(name).0);
            ways.iter_mut().for_each(|way| way.note(&note));
        }
        if all.iter().all(|(_, others)| *others != ways) {
            all.push((asked, ways));
        }
    }
    Ok(all)
}

/// A profile that is followed comes before the policy, though bytes follow it only where it names targets. Routes see what is asked; what
/// goes on is the request as it was said, whose host its server's routes may look at again.
fn by(
    index: &Index,
    policy: &ClientPolicy,
    profile: Option<&Profile>,
    port: u16,
    (said, request): (&Request, &Request),
) -> Vec<Way> {
    let of_requests = !matches!(policy.protocol, ClientProtocol::Opaque(_) | ClientProtocol::Tls(_));
    let named = profile.and_then(|profile| Some((profile, profile.followed(port)?)));
    let profiled = named.filter(|(profile, _)| {
        of_requests || !profile.targets.is_empty() && matches!(policy.protocol, ClientProtocol::Opaque(_))
    });
    let spread = profiled.as_ref().map(|(profile, name)| (name, profile.distribution(name)));
    let by_policy = rule(policy, request);
    let followed = match (&spread, by_policy) {
        // A profile that leads elsewhere does not let in whom the policy of connections keeps out.
        (Some((name, backends)), by_policy) => {
            let filters = by_policy.ok().filter(|_| !of_requests).map(|followed| followed.filters);
            let (kind, name) = ("ServiceProfile".to_owned(), name.name.to_string());
            let route = Shown { group: "linkerd.io".to_owned(), kind, namespace: String::new(), name };
            Followed { route, is_written: true, matches: &[], filters: filters.unwrap_or_default(), backends }
        }
        (None, Ok(followed)) => followed,
        (None, Err(way)) => return vec![*way],
    };
    let Followed { route, is_written, matches, filters, backends } = followed;
    let refused = |verdict, why: String| {
        let why = if is_written { why } else { format!("{}: {why}", Shown::of(&policy.meta)) };
        Way::nobody(Some(route.clone()), verdict, why)
    };
    let here = Shown::of(&policy.meta);
    let matched = Matched { request, prefix: matched_prefix(matches, request), default_authority: &here };
    if let Some((Some(verdict), why)) = answered(filters, &matched) {
        return vec![refused(verdict, why)];
    }
    let chosen: Vec<&RouteBackend> = match backends {
        Distribution::Empty => vec![],
        Distribution::FirstAvailable(all) => all.iter().take(1).collect(),
        Distribution::RandomAvailable(all) => {
            all.iter().filter(|(_, weight)| *weight > 0).map(|(backend, _)| backend).collect()
        }
    };
    if chosen.is_empty() {
        return vec![refused(Verdict::Denied, "the route has no backend".to_owned())];
    }
    let branch = |RouteBackend { backend, filters: own }: &RouteBackend| {
        if let Some((Some(verdict), why)) = answered(own, &matched) {
            return refused(verdict, why);
        }
        let target = match &backend.kind {
            BackendKind::Balance { target, load: _ } => target,
            BackendKind::Missing => return refused(Verdict::Denied, "the backend is none".to_owned()),
            BackendKind::Forward(endpoint) => {
                let why = format!("it leaves the mesh for {}, where no policy holds", endpoint.addr);
                return refused(Verdict::Allowed, why);
            }
        };
        if let Err(refusal) = index.answer(&Question::Destination(target.clone())).answer {
            return refused(Verdict::Denied, refusal.to_string());
        }
        let Some(id) = index.service_named(&target.name) else {
            return refused(Verdict::Unknown, format!("{target} is no Service of the cluster"));
        };
        match said.changed(filters.iter().chain(own), matched.prefix) {
            Ok(request) => {
                let note = index
                    .service_port(&id, |port, _| port == target.port)
                    .is_err()
                    .then(|| undeclared(&id, target.port));
                let to = To::Service { id, port: target.port, request, note };
                Way { by: is_written.then(|| route.clone()), to }
            }
            Err(why) => refused(Verdict::Denied, why.to_owned()),
        }
    };
    chosen.into_iter().map(branch).collect()
}

/// Why a port that speaks gRPC serves a request not: it is no call, whatever the routes are.
pub(super) fn no_call(request: &Request) -> Option<String> {
    let text = || format!("serves calls of gRPC alone (POST /SERVICE/METHOD), and {} is none", request.line());
    call(request).is_none().then(text)
}

/// Clients' proxies take such a port for one of the pods.
fn undeclared((_, name): &(String, String), port: u16) -> String {
    format!(
        "Service/{name} declares no port {port}, and the client's proxy connects to this port of the pods, whether or not anything listens there"
    )
}

/// # Errors
/// What comes of it where there is none.
fn rule<'p>(policy: &'p ClientPolicy, request: &Request) -> Result<Followed<'p>, Box<Way>> {
    let parent = || Shown::of(&policy.meta);
    let none = || {
        let of_grpc = matches!(policy.protocol, ClientProtocol::Grpc { .. });
        let why = match no_call(request).filter(|_| of_grpc) {
            Some(why) => format!("{} has GRPCRoutes at this port: it {why}", parent()),
            None => {
                format!("the request follows no route of {}, and where there are some no others are served", parent())
            }
        };
        Box::new(Way::nobody(None, Verdict::Denied, why))
    };
    match &policy.protocol {
        // Of a port that is looked at, requests of both versions follow the same.
        ClientProtocol::Detect { http1: routes, .. }
        | ClientProtocol::Http1(routes)
        | ClientProtocol::Http2(routes) => {
            let (route, Rule { matches, filters, does }) = find(&routes.routes, request).ok_or_else(none)?;
            Ok(Followed { matches, filters, ..Followed::new(&route.meta, &does.backends) })
        }
        ClientProtocol::Grpc { routes, .. } => {
            let (route, Rule { matches: _, filters, does }) = find_grpc(routes, request).ok_or_else(none)?;
            Ok(Followed { filters, ..Followed::new(&route.meta, &does.backends) })
        }
        ClientProtocol::Opaque(route) => Ok(Followed::bytes(route.as_ref().ok_or_else(none)?)),
        ClientProtocol::Tls(routes) => match request.authority() {
            Some(authority) => {
                let found = find_tls(routes, host::split(authority).0).ok_or_else(none)?;
                Ok(Followed::bytes(&found.route))
            }
            None => {
                let why = format!(
                    "connections follow the routes of {} by the name in their TLS; say it as the host (--host)",
                    parent()
                );
                Err(Box::new(Way::nobody(None, Verdict::Unknown, why)))
            }
        },
    }
}

impl<'p> Followed<'p> {
    fn new(route: &Meta, backends: &'p Distribution) -> Self {
        let is_written = matches!(route, Meta::Resource(_));
        Self { route: Shown::of(route), is_written, matches: &[], filters: &[], backends }
    }

    fn bytes(TcpRoute { meta, backends, filters }: &'p TcpRoute) -> Self {
        Self { filters, ..Self::new(meta, backends) }
    }
}

/// What filters make of a request instead of sending it on, whoever asks; no verdict where that is so of a part of such requests.
pub(super) fn answered(filters: &[Filter], matched: &Matched<'_>) -> Option<(Option<Verdict>, String)> {
    let told = |answer: filter::Answer<'_>| match answer {
        filter::Answer::Redirect { .. } => (Verdict::Allowed, "the route answers with a redirect".to_owned()),
        filter::Answer::HttpFailure { message, .. } | filter::Answer::GrpcFailure { message, .. } => {
            (Verdict::Denied, message.to_owned())
        }
        filter::Answer::Forbidden => (Verdict::Denied, "the route allows nobody".to_owned()),
        filter::Answer::Invalid(why) => (Verdict::Denied, why.into_owned()),
    };
    // The highest number that can be drawn hits nothing but what fails them all, the lowest everything.
    if let Some(answer) = filter::answer(filters, matched, |below| below.saturating_sub(1)) {
        let (verdict, why) = told(answer);
        return Some((Some(verdict), why));
    }
    let part = filter::answer(filters, matched, |_| 0)?;
    Some((None, format!("a part of such requests fails: {}", told(part).1)))
}
