//! The definitions of the Gateway API's routes, for who asks for them: its own project's, as `gateway_api.yaml` says, under our labels.
//!
//! In a cluster they may be somebody else's, which ours never replace.

use crate::{inject::CREATED_BY, install::Meta, kubernetes::Definition, values::Values};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// One in each line that is no comment.
const TAKEN: &str = include_str!("gateway_api.yaml");
const CHANNEL: &str = "gateway.networking.k8s.io/channel";
/// Helm leaves alone what says so: with a definition go all objects of its kind, whoever's.
const KEPT: (&str, &str) = ("helm.sh/resource-policy", "keep");

static DEFINITIONS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let lines = TAKEN.lines().filter(|line| line.starts_with('{'));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
});

/// One of them.
pub(crate) struct Route {
    /// The definition's.
    pub(crate) name: &'static str,
    /// The value that beats `installGatewayAPI`.
    pub(crate) value: &'static str,
    given: fn(&Values) -> Option<bool>,
}

/// As Linkerd's chart has it, HTTP's value is gRPC's too.
const HTTP: &str = "enableHttpRoutes";

/// In the order of their names.
pub(crate) const ROUTES: [Route; 4] = [
    Route { name: "grpcroutes.gateway.networking.k8s.io", value: HTTP, given: |values| values.enable_http_routes },
    Route { name: "httproutes.gateway.networking.k8s.io", value: HTTP, given: |values| values.enable_http_routes },
    Route {
        name: "tcproutes.gateway.networking.k8s.io",
        value: "enableTcpRoutes",
        given: |values| values.enable_tcp_routes,
    },
    Route {
        name: "tlsroutes.gateway.networking.k8s.io",
        value: "enableTlsRoutes",
        given: |values| values.enable_tls_routes,
    },
];

impl Route {
    pub(crate) fn is_asked_for(&self, values: &Values) -> bool {
        (self.given)(values).unwrap_or(values.install_gateway_api)
    }
}

/// Whether what stands in a cluster is of our making. Linkerd's, which bear the same annotation, are of another channel: routes may
/// have fields and versions that this one lacks.
pub(crate) fn is_ours(definition: &Definition) -> bool {
    let said = |key: &str| definition.annotations.get(key).map(String::as_str);
    said(CREATED_BY).is_some() && said(CHANNEL) == Some("standard")
}

pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let asked_for = ROUTES.iter().filter(|route| route.is_asked_for(meta.values));
    asked_for.filter_map(|route| definition(route.name, meta)).collect()
}

fn definition(name: &str, meta: &Meta<'_>) -> Option<Value> {
    let mut definition = DEFINITIONS.iter().find(|definition| definition["metadata"]["name"] == name)?.clone();
    definition["metadata"]["labels"] = super::labels(meta);
    definition["metadata"]["annotations"][CREATED_BY] = json!(meta.created_by());
    definition["metadata"]["annotations"][KEPT.0] = json!(KEPT.1);
    Some(definition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_in_the_file() {
        let names: Vec<&Value> = DEFINITIONS.iter().map(|definition| &definition["metadata"]["name"]).collect();
        assert_eq!(names, ROUTES.iter().map(|route| route.name).collect::<Vec<_>>());
    }
}
