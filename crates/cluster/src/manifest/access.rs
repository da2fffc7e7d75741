//! Which documents say who may call whom, and what may leave. A mesh that starts without one of them lets through what it keeps from going.

use super::document::{Node, Value};
use crate::{Kind, policy};
use weft_model::names::annotation::DEFAULT_INBOUND_POLICY;

const KINDS: [Kind; 6] = [
    Kind::Server,
    Kind::ServerAuthorization,
    Kind::AuthorizationPolicy,
    Kind::MeshTlsAuthentication,
    Kind::NetworkAuthentication,
    Kind::EgressNetwork,
];
/// If they are of a Server.
const ROUTES: [Kind; 2] = [Kind::HttpRoute, Kind::GrpcRoute];

/// By its name, whatever its `apiVersion`: that may be what is wrong.
pub(super) fn of_kind(kind: &str) -> bool {
    KINDS.iter().any(|k| k.as_str() == kind)
}

pub(super) fn of(node: &Node) -> bool {
    let kind = node.text("kind").unwrap_or_default();
    let is_of_mesh = node.text("apiVersion").is_some_and(|v| v.split('/').next() == Some(policy::GROUP));
    let is_known = policy::KINDS.iter().any(|k| policy::definition(*k).is_some_and(|of| of.kind == kind));
    of_kind(kind)
        || ROUTES.iter().any(|k| k.as_str() == kind) && is_of_a_server(node)
        || kind == Kind::Namespace.as_str() && has_default(node)
        || is_of_mesh && !is_known
}

/// What is no YAML: as far as its words tell.
pub(super) fn of_text(text: &str) -> bool {
    text.contains(policy::GROUP) || text.contains(DEFAULT_INBOUND_POLICY)
}

fn is_of_a_server(route: &Node) -> bool {
    let Some(parents) = route.get("spec").and_then(|spec| spec.get("parentRefs")) else { return false };
    match &parents.value {
        Value::List(parents) => parents.iter().any(|parent| parent.text("kind") == Some(Kind::Server.as_str())),
        _ => true,
    }
}

fn has_default(namespace: &Node) -> bool {
    let annotations = namespace.get("metadata").and_then(|meta| meta.get("annotations"));
    annotations.is_some_and(|annotations| annotations.get(DEFAULT_INBOUND_POLICY).is_some())
}
