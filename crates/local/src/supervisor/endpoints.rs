//! Which pods are behind a Service, for those who reach it without a proxy: DNS, published ports, unmeshed programs.
//!
//! Pure functions on objects. What proxies are told is the control plane's own reading.

use std::net::{IpAddr, SocketAddr};
use weft_cluster::{
    Object,
    k8s::{
        api::core::v1::{Pod, Service, ServicePort},
        apimachinery::pkg::util::intstr::IntOrString,
    },
};

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The Deployment that a pod is of, known by the pod's name beginning with its name.
pub(crate) fn workload(pod: &Pod, objects: &[Object]) -> Option<(String, String)> {
    let namespace = pod.metadata.namespace.as_deref()?;
    let deployments = objects.iter().filter_map(|o| match o {
        Object::Deployment(d) if d.metadata.namespace.as_deref() == Some(namespace) => d.metadata.name.as_deref(),
        _ => None,
    });
    // Pods are named after their Deployment, a hash and a number of their own.
    let own = name(pod).rsplitn(3, '-').last()?;
    deployments.into_iter().find(|d| *d == own).map(|d| (namespace.to_owned(), d.to_owned()))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let all = spec.and_then(|s| s.cluster_ips.clone()).unwrap_or_default();
    let first = spec.and_then(|s| s.cluster_ip.clone()).filter(|ip| !all.contains(ip));
    first.iter().chain(&all).filter_map(|ip| ip.parse().ok()).collect()
}

/// Whether a Service has an address family; v4 alone unless it says otherwise.
pub(crate) fn has_family(service: &Service, v6: bool) -> bool {
    let spec = service.spec.as_ref();
    let wanted = if v6 { "IPv6" } else { "IPv4" };
    if let Some(families) = spec.and_then(|s| s.ip_families.as_ref()).filter(|f| !f.is_empty()) {
        return families.iter().any(|f| f == wanted);
    }
    let policy = spec.and_then(|s| s.ip_family_policy.as_deref());
    !v6 || matches!(policy, Some("PreferDualStack" | "RequireDualStack"))
}

pub(crate) fn pods<'o>(service: &Service, objects: &'o [Object]) -> Vec<&'o Pod> {
    let Some(spec) = &service.spec else { return vec![] };
    let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else { return vec![] };
    let unready_too = spec.publish_not_ready_addresses == Some(true);
    let selected = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        pod.metadata.namespace == service.metadata.namespace
            && selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
            && (unready_too || is_ready(pod))
    };
    objects
        .iter()
        .filter_map(|o| match o {
            Object::Pod(pod) => Some(&**pod),
            _ => None,
        })
        .filter(selected)
        .collect()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|c| c.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

pub(crate) fn ips(pod: &Pod) -> Vec<IpAddr> {
    let ips = pod.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    ips.into_iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect()
}

/// The port of a pod to which a port of a Service leads.
pub(crate) fn target_port(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
            let named = ports.into_iter().find(|p| p.name.as_ref() == Some(name))?;
            u16::try_from(named.container_port).ok()
        }
    }
}

/// Where a port of a Service leads.
pub(crate) fn targets(service: &Service, port: &ServicePort, objects: &[Object]) -> Vec<SocketAddr> {
    pods(service, objects)
        .into_iter()
        .filter_map(|pod| Some((pod, target_port(port, pod)?)))
        .flat_map(|(pod, port)| ips(pod).into_iter().map(move |ip| SocketAddr::new(ip, port)))
        .collect()
}
