//! What a route is attached to.

use super::{super::GROUP, Findings, GATEWAY_API, MAX_PARENTS, Origin, ParentSpec, shown};
use crate::Kind;
use serde_json::{Value, json};

/// A parent of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) of: ParentOf,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `None` is every port.
    pub(crate) port: Option<u16>,
    /// As statuses repeat it.
    pub(crate) written: ParentSpec,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ParentOf {
    Server,
    Service,
    EgressNetwork,
}

/// A route of the Gateway API without what is not ours to read: one that names no parent of the mesh may say what it likes.
pub(crate) fn ours(kind: Kind, mut object: Value) -> Value {
    let of_others = kind != Kind::MeshHttpRoute && !names_ours(kind, &object);
    if let Some(fields) = object.as_object_mut().filter(|_| of_others) {
        fields.insert("spec".to_owned(), json!({}));
    }
    object
}

/// Whether it is a route of the Gateway API all of whose parents are somebody else's.
pub(crate) fn is_of_others(kind: Kind, object: impl FnOnce() -> Value) -> bool {
    if !matches!(kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute) {
        return false;
    }
    let route = object();
    route["spec"]["parentRefs"].is_array() && !names_ours(kind, &route)
}

fn names_ours(kind: Kind, route: &Value) -> bool {
    let parents = route["spec"]["parentRefs"].as_array().into_iter().flatten();
    parents.into_iter().any(|parent| {
        parent_of(kind, parent).is_some()
            || parent["group"].as_str().is_some_and(|group| group.eq_ignore_ascii_case(GROUP))
    })
}

/// What a parent of a route is, as far as it can be read.
pub(crate) fn parent_of(kind: Kind, parent: &Value) -> Option<ParentOf> {
    let text = |field: &str| parent[field].as_str();
    of(text("group").unwrap_or(default_group(kind)), text("kind").unwrap_or(GATEWAY))
}

/// The kind of a parent that names none.
const GATEWAY: &str = "Gateway";

fn of(group: &str, kind: &str) -> Option<ParentOf> {
    let is = |of_group: &str, of_kind: &str| group.eq_ignore_ascii_case(of_group) && kind.eq_ignore_ascii_case(of_kind);
    match () {
        () if is(GROUP, "Server") => Some(ParentOf::Server),
        () if is(GROUP, "EgressNetwork") => Some(ParentOf::EgressNetwork),
        () if is("", "Service") || is("core", "Service") => Some(ParentOf::Service),
        () => None,
    }
}

fn default_group(kind: Kind) -> &'static str {
    if kind == Kind::MeshHttpRoute { GROUP } else { GATEWAY_API }
}

/// Those of the mesh; others are somebody else's.
pub(super) fn all(specs: Option<&[ParentSpec]>, origin: Origin<'_>, found: &mut Findings) -> Vec<Parent> {
    let mut parents = vec![];
    for (at, spec) in found.each(specs, "spec.parentRefs", MAX_PARENTS) {
        parents.extend(spec.checked(&at, origin, found));
    }
    if parents.is_empty() && origin.kind == Kind::MeshHttpRoute && found.mistakes.is_empty() {
        let message = "without a Server, a Service or an EgressNetwork among them the route has no effect";
        found.note("spec.parentRefs", message);
    }
    parents
}

impl ParentSpec {
    fn checked(&self, at: &str, origin: Origin<'_>, found: &mut Findings) -> Option<Parent> {
        let Self { group, kind, namespace, name, section_name, port } = self;
        let (group, kind) =
            (group.as_deref().unwrap_or(default_group(origin.kind)), kind.as_deref().unwrap_or(GATEWAY));
        let Some(of) = of(group, kind) else {
            if group.eq_ignore_ascii_case(GROUP) && !kind.eq_ignore_ascii_case(GATEWAY) {
                let message = format!("{} of {GROUP} is no parent of a route", shown(kind));
                found.mistake(
                    format!("{at}.kind"),
                    message,
                    "use Server or EgressNetwork, or Service with an empty group",
                );
            }
            return None;
        };
        let own = namespace.as_deref().is_none_or(|n| n.is_empty() || n == origin.namespace);
        let requests = matches!(origin.kind, Kind::MeshHttpRoute | Kind::HttpRoute | Kind::GrpcRoute);
        let is_server = of == ParentOf::Server;
        for (field, is_wrong, message, remedy) in [
            ("name", name.is_empty(), "the parent has no name", "give it"),
            ("port", *port == Some(0), "0 is no port", "use 1 to 65535, or none for every port"),
            (
                "kind",
                is_server && !requests,
                "a Server takes routes of requests alone",
                "use an HTTPRoute or a GRPCRoute",
            ),
            ("namespace", is_server && !own, "a route's Server is in its own namespace", "remove it"),
            ("port", is_server && port.is_some(), "a Server is one port", "remove it"),
            ("sectionName", is_server && section_name.is_some(), "a Server has no sections", "remove it"),
            (
                "port",
                of == ParentOf::EgressNetwork && port.is_none(),
                "a route of an EgressNetwork is for one port",
                "give it",
            ),
        ] {
            if is_wrong {
                found.mistake(format!("{at}.{field}"), message, remedy);
            }
        }
        if !is_server && section_name.is_some() {
            found.note(
                format!("{at}.sectionName"),
                "it is not looked at: the route is for every port, or for that of `port`",
            );
        }
        let namespace = namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| origin.namespace.to_owned());
        Some(Parent { of, namespace, name: name.clone(), port: *port, written: self.clone() })
    }
}
