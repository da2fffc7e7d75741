//! Opaque ports of pods and Services that do not name any: their namespace's, or those of the installation that they have.

use super::{
    Annotations, Refusal, has, serving,
    settings::{Namespace, On, Warning, refusal},
    subject::Pods,
};
use crate::annotation::{PortList, read};
use k8s_openapi::{api::core::v1::ServiceSpec, apimachinery::pkg::util::intstr::IntOrString};
use weft_model::names::annotation::OPAQUE_PORTS;

pub(super) fn of_pod(pods: &Pods, namespace: &Annotations, default: &str) -> Option<(String, String)> {
    let declared = serving(&pods.spec).flat_map(|c| c.ports.iter().flatten());
    annotation(&pods.annotations, namespace, declared.map(|p| p.container_port).filter(|p| has(default, *p)))
}

/// What a Service says, or else its namespace, must be readable: a text that says nothing would have its clients wait for the
/// first bytes of servers that speak first.
pub(super) fn check(own: &Annotations, namespace: Option<Namespace<'_>>) -> Result<(), Vec<Refusal>> {
    let inherited = || namespace.and_then(|n| Some((On::Namespace(n.name), n.annotations.get(OPAQUE_PORTS)?)));
    match own.get(OPAQUE_PORTS).map(|value| (On::Own, value)).or_else(inherited) {
        Some((on, value)) => match read::<PortList>(value) {
            Ok(_) => Ok(()),
            Err(error) => Err(vec![refusal(OPAQUE_PORTS, on, value, &error.to_string())]),
        },
        None => Ok(()),
    }
}

/// What an object's own list names and none of its ports is called: another is meant.
pub(super) fn unnamed(own: &Annotations, names: impl Iterator<Item = String>) -> Option<Warning> {
    let list: PortList = own.get(OPAQUE_PORTS).and_then(|value| read(value).ok())?;
    let names: Vec<String> = names.collect();
    let unknown: Vec<&str> =
        list.names.iter().map(String::as_str).filter(|n| !names.iter().any(|name| name == n)).collect();
    let message = format!("no port is called {}: write it as its port is called, or the number", unknown.join(" or "));
    (!unknown.is_empty()).then(|| Warning { key: OPAQUE_PORTS.to_owned(), message })
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
