//! Opaque ports of pods and Services that do not name any: their namespace's, or those of the installation that they have.

use super::{Annotations, has, serving, subject::Pods};
use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::util::intstr::IntOrString};
use weft_model::names::annotation::OPAQUE_PORTS;

pub(super) fn of_pod(pods: &Pods, namespace: &Annotations, default: &str) -> Option<(String, String)> {
    let declared = serving(&pods.spec).flat_map(|c| c.ports.iter().flatten());
    annotation(&pods.annotations, namespace, declared.map(|p| p.container_port).filter(|p| has(default, *p)))
}

/// A Service's port is opaque if the port of the pods behind it is.
pub(super) fn of_service(
    own: &Annotations,
    spec: &ServiceSpec,
    namespace: &Annotations,
    default: &str,
) -> Option<(String, String)> {
    let opaque = spec.ports.iter().flatten().filter(|p| match &p.target_port {
        None => has(default, p.port),
        Some(IntOrString::Int(target)) => has(default, *target),
        Some(IntOrString::String(_)) => false,
    });
    annotation(own, namespace, opaque.map(|p| p.port))
}

fn annotation(
    own: &Annotations,
    namespace: &Annotations,
    ports: impl Iterator<Item = i32>,
) -> Option<(String, String)> {
    if own.contains_key(OPAQUE_PORTS) {
        return None;
    }
    let value = match namespace.get(OPAQUE_PORTS) {
        Some(value) => value.clone(),
        None => {
            let mut texts: Vec<String> = vec![];
            for port in ports.map(|p| p.to_string()) {
                if !texts.contains(&port) {
                    texts.push(port);
                }
            }
            texts.join(",")
        }
    };
    (!value.is_empty()).then(|| (OPAQUE_PORTS.to_owned(), value))
}
