//! Who may call the control plane: what its ports speak, and whom they let in. What is not named here is denied by the pods'
//! annotation.
//!
//! A proxy obeys this from its first answer on; until then it has the default that it was started with, without which nobody would
//! ever be certified.

use super::Meta;
use crate::{
    label,
    policy::GROUP,
    ports::{ADMIN_DESTINATION, ADMIN_IDENTITY, ADMIN_INJECTOR, POLICY_WEBHOOK, WEBHOOK},
};
use serde_json::{Value, json};
use weft_model::names::port;

/// What pods say of the ports that no Server is for.
pub(super) const REST: &str = "deny";

const IDENTITY: &str = "linkerd-identity-grpc";

/// One port of one part.
struct Port {
    name: &'static str,
    component: &'static str,
    number: u16,
    protocol: &'static str,
    access: &'static str,
}

const fn port(
    name: &'static str,
    component: &'static str,
    number: u16,
    protocol: &'static str,
    access: &'static str,
) -> Port {
    Port { name, component, number, protocol, access }
}

/// Whoever has no certificate yet proves nothing; the connection must be the mesh's own TLS all the same.
const CERTIFYING: &str = "deny";
const MESH: &str = "all-authenticated";
/// The API server, scrapers and the kubelet have no identity.
const OPEN: &str = "all-unauthenticated";

const PORTS: [Port; 9] = [
    port(IDENTITY, "identity", port::IDENTITY, "gRPC", CERTIFYING),
    port("linkerd-destination-grpc", "destination", port::DESTINATION, "gRPC", MESH),
    port("linkerd-policy-grpc", "destination", port::POLICY, "gRPC", MESH),
    port("linkerd-sp-validator", "destination", WEBHOOK, "opaque", OPEN),
    port("linkerd-policy-validator", "destination", POLICY_WEBHOOK, "opaque", OPEN),
    port("linkerd-proxy-injector", "proxy-injector", WEBHOOK, "opaque", OPEN),
    port("linkerd-identity-admin", "identity", ADMIN_IDENTITY, "HTTP/1", OPEN),
    port("linkerd-destination-admin", "destination", ADMIN_DESTINATION, "HTTP/1", OPEN),
    port("linkerd-proxy-injector-admin", "proxy-injector", ADMIN_INJECTOR, "HTTP/1", OPEN),
];

/// Whom ports let in stands before what closes them: between the two nobody is denied.
pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": format!("{GROUP}/v1beta1"),
        "kind": "ServerAuthorization",
        "metadata": meta.named(IDENTITY, Some("identity")),
        "spec": {
            "server": { "name": IDENTITY },
            "client": {
                "networks": [{ "cidr": "0.0.0.0/0" }, { "cidr": "::/0" }],
                "meshTLS": { "unauthenticatedTLS": true },
            },
        },
    })];
    objects.extend(PORTS.iter().map(|port| of_part(port, meta)));
    // The proxies of all parts.
    let pods = json!({ label::CONTROL_NAMESPACE: meta.namespace });
    let has_component = json!({ "key": label::COMPONENT, "operator": "Exists" });
    let selector = json!({ "matchLabels": pods, "matchExpressions": [has_component] });
    let admin = meta.values.proxy.ports.admin;
    objects.push(server("linkerd-proxy-admin", None, selector, json!(admin), "HTTP/1", OPEN, meta));
    objects
}

fn of_part(port: &Port, meta: &Meta<'_>) -> Value {
    let Port { name, component, number, protocol, access } = port;
    let pods = json!({ label::COMPONENT: component, label::CONTROL_NAMESPACE: meta.namespace });
    let selector = json!({ "matchLabels": pods });
    server(name, Some(component), selector, json!(number), protocol, access, meta)
}

fn server(
    name: &str,
    component: Option<&str>,
    pods: Value,
    port: Value,
    protocol: &str,
    access: &str,
    meta: &Meta<'_>,
) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta3"),
        "kind": "Server",
        "metadata": meta.named(name, component),
        "spec": { "podSelector": pods, "port": port, "proxyProtocol": protocol, "accessPolicy": access },
    })
}
