//! Routes, the mesh's own and the Gateway API's: what they are attached to, which traffic they are for, and what is done with it.
//!
//! ```text
//! JSON ─► ours (nothing of another implementation's) ─► Object ─► checked ─► Route: parents as they are written, rules of the model
//! ```
//!
//! The API's text is read as proxies can carry it out, the same for both directions; what a direction cannot do is its own to say.
//! A route that names no parent of the mesh is somebody else's, and whatever it says is right. Nothing here knows of other objects.

mod backend;
mod defined;
mod filter;
mod matching;
mod parent;
mod spec;

pub(crate) use backend::{BackendOf, BackendRef, Resolved, Unresolved};
pub(crate) use defined::refused;
pub(crate) use filter::{Beyond, Copies};
pub(crate) use matching::is_token;
pub(crate) use parent::{Parent, ParentOf, is_of_others, ours, parent_of};
pub use spec::{
    BackendSpec, ConnectionRuleSpec, FilterSpec, FractionSpec, GrpcMatchSpec, GrpcMethodSpec, GrpcRouteSpec,
    GrpcRuleSpec, HeaderSpec, HttpMatchSpec, HttpRouteSpec, HttpRuleSpec, MirrorSpec, ModifierSpec, NamedSpec,
    ParentSpec, PathModifierSpec, PathSpec, RedirectSpec, RewriteSpec, TcpRouteSpec, TimeoutsSpec, TlsRouteSpec,
};

use super::{Mistake, Note, definition};
use crate::{Kind, Object};
use filter::Filters;
use std::time::Duration;
use weft_model::{
    Meta,
    meta::Resource,
    policy::route::{GrpcMatch, GrpcRoute, HostMatch, HttpMatch, HttpRoute, PathMatch, PatternRoom, Rule},
};

/// The group of the Gateway API.
pub(crate) const GATEWAY_API: &str = "gateway.networking.k8s.io";

// What the definitions of the kinds allow at most; a file on disk has nobody else to say so.
const MAX_PARENTS: usize = 32;
const MAX_HOSTS: usize = 16;
const MAX_TLS_HOSTS: usize = 1024;
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_FILTERS: usize = 16;
const MAX_BACKENDS: usize = 16;

/// A route that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    /// Those of the mesh; none of a route that is somebody else's.
    pub(crate) parents: Vec<Parent>,
    pub(crate) of: RouteOf,
}

/// What a route is of. Its meta is the object itself, with its namespace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RouteOf {
    Http(HttpRoute<Asked>),
    Grpc(GrpcRoute<Asked>),
    Tls(ConnectionRoute),
    /// It has no names.
    Tcp(ConnectionRoute),
}

/// What a rule for requests asks for besides its filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    /// None are those of the parent.
    pub(crate) backends: Vec<BackendRef>,
    pub(crate) timeouts: RuleTimeouts,
    pub(crate) beyond: Beyond,
}

/// No time at all is no timeout, whatever the parent says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuleTimeouts {
    pub(crate) request: Option<Duration>,
    pub(crate) backend_request: Option<Duration>,
}

/// Where whole connections go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConnectionRoute {
    pub(crate) meta: Meta,
    /// Empty is every name, and none.
    pub(crate) names: Vec<HostMatch>,
    pub(crate) backends: Vec<BackendRef>,
}

impl Route {
    /// Whether clients follow it.
    pub(crate) fn is_for_clients(&self) -> bool {
        self.parents.iter().any(|parent| parent.of != ParentOf::Server)
    }

    /// Everything that it sends to, copies included.
    pub(crate) fn backends(&self) -> impl Iterator<Item = &BackendRef> {
        let (http, grpc, connections): (&[_], &[_], &[_]) = match &self.of {
            RouteOf::Http(route) => (&route.rules, &[], &[]),
            RouteOf::Grpc(route) => (&[], &route.rules, &[]),
            RouteOf::Tls(route) | RouteOf::Tcp(route) => (&[], &[], &route.backends),
        };
        let requests = http.iter().map(|rule| &rule.does).chain(grpc.iter().map(|rule| &rule.does));
        let sent = requests.clone().flat_map(|does| &does.backends).chain(connections);
        let of_backends = requests.clone().flat_map(|does| &does.backends).map(|backend| &backend.beyond);
        let beyond = requests.map(|does| &does.beyond).chain(of_backends);
        sent.chain(beyond.flat_map(|beyond| &beyond.mirrors).map(|mirror| &mirror.to))
    }
}

/// A route and what is to be known of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checked {
    pub(crate) route: Route,
    /// What is accepted without effect.
    pub(crate) notes: Vec<Note>,
}

/// `None` for an object that is no route.
pub(crate) fn checked(object: &Object) -> Option<Result<Checked, Vec<Mistake>>> {
    let (key, mut found) = (object.key(), Findings::default());
    let mut origin = Origin {
        kind: key.kind,
        namespace: &key.namespace,
        // There a backend without a namespace is in the one of that name.
        first_version: matches!(object, Object::MeshHttpRoute(o) if o.api_version.ends_with("/v1alpha1")),
        is_ours: false,
        has_servers: false,
        only_servers: false,
    };
    let parent_refs = match object {
        Object::MeshHttpRoute(o) | Object::HttpRoute(o) => &o.spec.parent_refs,
        Object::GrpcRoute(o) => &o.spec.parent_refs,
        Object::TlsRoute(o) => &o.spec.parent_refs,
        Object::TcpRoute(o) => &o.spec.parent_refs,
        _ => return None,
    };
    let parents = parent::all(parent_refs.as_deref(), origin, &mut found);
    origin.is_ours = !parents.is_empty();
    origin.has_servers = parents.iter().any(|parent| parent.of == ParentOf::Server);
    origin.only_servers = !parents.is_empty() && parents.iter().all(|parent| parent.of == ParentOf::Server);
    let meta = Meta::Resource(Resource {
        group: definition(key.kind).map(|d| d.group).unwrap_or_default().to_owned(),
        kind: definition(key.kind).map(|d| d.kind).unwrap_or_default().to_owned(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        ..Resource::default()
    });
    let of = match object {
        Object::MeshHttpRoute(o) | Object::HttpRoute(o) => RouteOf::Http(o.spec.checked(meta, origin, &mut found)),
        Object::GrpcRoute(o) => RouteOf::Grpc(o.spec.checked(meta, origin, &mut found)),
        Object::TlsRoute(o) => {
            let TlsRouteSpec { parent_refs: _, use_default_gateways: _, hostnames, rules } = &o.spec;
            let names = hosts(hostnames.as_deref(), MAX_TLS_HOSTS, &mut found);
            RouteOf::Tls(connection(meta, names, rules.as_deref(), origin, &mut found))
        }
        Object::TcpRoute(o) => {
            let TcpRouteSpec { parent_refs: _, use_default_gateways: _, rules } = &o.spec;
            RouteOf::Tcp(connection(meta, vec![], rules.as_deref(), origin, &mut found))
        }
        _ => return None,
    };
    let Findings { mistakes, notes, patterns: _ } = found;
    Some(if mistakes.is_empty() { Ok(Checked { route: Route { parents, of }, notes }) } else { Err(mistakes) })
}

/// Whose words are read.
#[derive(Clone, Copy)]
struct Origin<'a> {
    kind: Kind,
    namespace: &'a str,
    first_version: bool,
    /// It names a parent of the mesh.
    is_ours: bool,
    /// A server's proxy reads it too.
    has_servers: bool,
    /// Nobody reads what is for a client's side.
    only_servers: bool,
}

#[derive(Default)]
struct Findings {
    mistakes: Vec<Mistake>,
    notes: Vec<Note>,
    patterns: PatternRoom,
}

impl Findings {
    fn mistake(&mut self, field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.mistakes.push(Mistake::new(field, message, remedy));
    }

    fn note(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notes.push(Note { field: field.into(), message: message.into() });
    }

    /// The elements of a list that may have `most`, and where they stand.
    fn each<'l, T>(
        &mut self,
        list: Option<&'l [T]>,
        at: &str,
        most: usize,
    ) -> impl Iterator<Item = (String, &'l T)> + use<'l, T> {
        let (list, at) = (list.unwrap_or_default(), at.to_owned());
        if list.len() > most {
            self.mistake(&at, format!("it has {} elements", list.len()), format!("give at most {most}"));
        }
        list.iter().take(most).enumerate().map(move |(i, element)| (format!("{at}[{i}]"), element))
    }
}

/// A text of somebody's, as far as it is shown to people.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(64).collect::<String>())
}

fn hosts(names: Option<&[String]>, most: usize, found: &mut Findings) -> Vec<HostMatch> {
    let mut hosts = vec![];
    for (at, name) in found.each(names, "spec.hostnames", most) {
        match matching::host(name) {
            Some(host) => hosts.push(host),
            None => found.mistake(at, format!("{} is no host", shown(name)), "use a name, or *. and its end"),
        }
    }
    hosts
}

impl HttpRouteSpec {
    fn checked(&self, meta: Meta, origin: Origin<'_>, found: &mut Findings) -> HttpRoute<Asked> {
        let Self { parent_refs: _, use_default_gateways: _, hostnames, rules } = self;
        let hosts = hosts(hostnames.as_deref(), MAX_HOSTS, found);
        let mut read = vec![];
        for (at, rule) in found.each(rules.as_deref(), "spec.rules", MAX_RULES) {
            read.push(rule.checked(&at, origin, found));
        }
        if read.is_empty() {
            read.push(Rule { matches: vec![every()], filters: vec![], does: Asked::default() });
        }
        HttpRoute { meta, hosts, rules: read }
    }
}

/// Every request.
fn every() -> HttpMatch {
    HttpMatch { path: Some(PathMatch::Prefix("/".to_owned())), ..HttpMatch::default() }
}

impl HttpRuleSpec {
    fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> Rule<HttpMatch, Asked> {
        let Self { name: _, matches, filters, backend_refs, timeouts, retry, session_persistence } = self;
        not_carried_out(
            at,
            &[("retry", retry.is_some()), ("sessionPersistence", session_persistence.is_some())],
            found,
        );
        let mut wanted = vec![];
        for (at, spec) in found.each(matches.as_deref(), &format!("{at}.matches"), MAX_MATCHES) {
            wanted.extend(spec.checked(&at, found));
        }
        if wanted.is_empty() {
            wanted.push(every());
        }
        let Filters { known, beyond } = filter::all(filters.as_deref(), at, origin, found);
        let backends = backend::all(backend_refs.as_deref(), at, origin, found);
        let replaced = known.iter().chain(backends.iter().flat_map(|b| &b.filters)).any(filter::replaces_prefix)
            || beyond.replaces_prefix()
            || backends.iter().any(|b| b.beyond.replaces_prefix());
        let without = |m: &HttpMatch| !matches!(m.path, None | Some(PathMatch::Prefix(_)));
        if let Some(i) = wanted.iter().position(without).filter(|_| replaced) {
            let message = "the rule replaces the prefix of a path, and this match is of none";
            found.mistake(format!("{at}.matches[{i}].path.type"), message, "use PathPrefix");
        }
        let timeouts = timeouts.as_ref().map(|t| t.checked(at, origin, found)).unwrap_or_default();
        Rule { matches: wanted, filters: known, does: Asked { backends, timeouts, beyond } }
    }
}

impl GrpcRouteSpec {
    fn checked(&self, meta: Meta, origin: Origin<'_>, found: &mut Findings) -> GrpcRoute<Asked> {
        let Self { parent_refs: _, use_default_gateways: _, hostnames, rules } = self;
        let hosts = hosts(hostnames.as_deref(), MAX_HOSTS, found);
        let mut read = vec![];
        for (at, rule) in found.each(rules.as_deref(), "spec.rules", MAX_RULES) {
            read.push(rule.checked(&at, origin, found));
        }
        if read.is_empty() {
            read.push(Rule { matches: vec![GrpcMatch::default()], filters: vec![], does: Asked::default() });
        }
        GrpcRoute { meta, hosts, rules: read }
    }
}

impl GrpcRuleSpec {
    fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> Rule<GrpcMatch, Asked> {
        let Self { name: _, matches, filters, backend_refs, session_persistence } = self;
        not_carried_out(at, &[("sessionPersistence", session_persistence.is_some())], found);
        let mut wanted = vec![];
        for (at, spec) in found.each(matches.as_deref(), &format!("{at}.matches"), MAX_MATCHES) {
            wanted.extend(spec.checked(&at, found));
        }
        if wanted.is_empty() {
            wanted.push(GrpcMatch::default());
        }
        let Filters { known, beyond } = filter::all(filters.as_deref(), at, origin, found);
        let backends = backend::all(backend_refs.as_deref(), at, origin, found);
        let does = Asked { backends, timeouts: RuleTimeouts::default(), beyond };
        Rule { matches: wanted, filters: known, does }
    }
}

fn connection(
    meta: Meta,
    names: Vec<HostMatch>,
    rules: Option<&[ConnectionRuleSpec]>,
    origin: Origin<'_>,
    found: &mut Findings,
) -> ConnectionRoute {
    let rules = rules.unwrap_or_default();
    if rules.len() != 1 && origin.is_ours {
        found.mistake("spec.rules", format!("it has {} rules", rules.len()), "give one rule");
    }
    let mut backends = vec![];
    if let Some(ConnectionRuleSpec { name: _, backend_refs }) = rules.first() {
        backends = backend::all(backend_refs.as_deref(), "spec.rules[0]", origin, found);
    }
    ConnectionRoute { meta, names, backends }
}

fn not_carried_out(at: &str, fields: &[(&str, bool)], found: &mut Findings) {
    for (field, _) in fields.iter().filter(|(_, given)| *given) {
        found.note(format!("{at}.{field}"), "no proxy carries it out");
    }
}

#[cfg(test)]
mod tests;
