//! The Services of the control plane, and how many of its pods may be away at once.

use super::Meta;
use crate::label;
use serde_json::{Value, json};
use weft_model::names::{annotation::OPAQUE_PORTS, port};

pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let grpc = |port: u16| json!([{ "name": "grpc", "port": port, "targetPort": port }]);
    let https = |name: &str| json!([{ "name": name, "port": 443, "targetPort": name }]);
    let mut services = vec![
        service(meta, "linkerd-dst", "destination", false, grpc(port::DESTINATION)),
        service(meta, "linkerd-dst-headless", "destination", true, grpc(port::DESTINATION)),
        service(meta, "linkerd-policy", "destination", true, grpc(port::POLICY)),
        opaque(service(meta, "linkerd-sp-validator", "destination", false, https("sp-validator"))),
        opaque(service(meta, "linkerd-policy-validator", "destination", false, https("policy-https"))),
        service(meta, "linkerd-identity", "identity", false, grpc(port::IDENTITY)),
        service(meta, "linkerd-identity-headless", "identity", true, grpc(port::IDENTITY)),
        opaque(service(meta, "linkerd-proxy-injector", "proxy-injector", false, https("proxy-injector"))),
    ];
    if meta.values.enable_pod_disruption_budget {
        for (name, component) in [
            ("linkerd-dst", "destination"),
            ("linkerd-identity", "identity"),
            ("linkerd-proxy-injector", "proxy-injector"),
        ] {
            services.push(budget(meta, name, component));
        }
    }
    services
}

fn service(meta: &Meta<'_>, name: &str, component: &str, headless: bool, ports: Value) -> Value {
    let mut spec = json!({ "selector": { label::COMPONENT: component }, "ports": ports });
    if headless {
        spec["clusterIP"] = json!("None");
    } else {
        spec["type"] = json!("ClusterIP");
    }
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta.named(name, Some(component)), "spec": spec })
}

/// The API server speaks TLS itself, which a meshed client forwards as bytes.
fn opaque(mut service: Value) -> Value {
    service["metadata"]["annotations"][OPAQUE_PORTS] = json!("443");
    service
}

fn budget(meta: &Meta<'_>, name: &str, component: &str) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta.named(name, Some(component)),
        "spec": {
            "maxUnavailable": meta.values.controller.pod_disruption_budget.max_unavailable,
            "selector": { "matchLabels": { label::COMPONENT: component } },
        },
    })
}
