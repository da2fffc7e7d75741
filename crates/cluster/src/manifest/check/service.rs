//! Services: type, addresses, ports, selector.

use super::{
    super::path::Path,
    Reading,
    meta::{self, On},
};
use crate::{annotation::is_port_name, object::is_label};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

pub(super) fn check(service: &Service, reading: &mut Reading<'_>) {
    let top = Path::default();
    meta::name(&service.metadata, meta::SERVICE_LABEL, reading);
    meta::maps(&service.metadata, &top, reading);
    meta::annotations(&service.metadata, &top, On::Service, reading);
    let at = top.key("spec");
    let Some(spec) = &service.spec else {
        return reading.problem(&top, "the Service has no spec", "give spec.selector and spec.ports");
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    self::ports(ports, &at.key("ports"), reading);
    if !reading.is_run() {
        return;
    }
    if let Some(other) = spec.type_.as_deref().filter(|t| !matches!(*t, "" | "ClusterIP")) {
        let message = format!("a Service of type {other} is not supported");
        reading.problem(&at.key("type"), message, "use ClusterIP; --publish opens a port on the host");
    }
    addresses(spec, &at, reading);
    if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        let remedy = "give the labels of the pods; for a server outside the mesh use --host-service";
        reading.problem(&at.key("selector"), "a Service without a selector has no endpoints", remedy);
    }
    if spec.session_affinity.as_deref().is_some_and(|a| !matches!(a, "" | "None")) {
        reading.ignored(&at.key("sessionAffinity"), "each request is balanced by itself");
    }
    if ports.is_empty() && spec.cluster_ip.as_deref() != Some("None") {
        reading.problem(&at.key("ports"), "the Service has no ports", "give at least one port");
    }
}

fn addresses(spec: &ServiceSpec, at: &Path, reading: &mut Reading<'_>) {
    let given = spec
        .cluster_ip
        .iter()
        .map(|ip| (at.key("clusterIP"), ip))
        .chain(spec.cluster_ips.iter().flatten().enumerate().map(|(i, ip)| (at.key("clusterIPs").index(i), ip)));
    for (path, ip) in given {
        if !matches!(ip.as_str(), "" | "None") {
            let message = format!("the address {ip} cannot be asked for");
            reading.problem(&path, message, "remove it: the mesh gives addresses; or use None");
        }
    }
    for (i, family) in spec.ip_families.iter().flatten().enumerate() {
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            let path = at.key("ipFamilies").index(i);
            reading.problem(&path, format!("{family:?} is no address family"), "use IPv4 or IPv6");
        }
    }
    if let Some(policy) = &spec.ip_family_policy
        && !matches!(policy.as_str(), "" | "SingleStack" | "PreferDualStack" | "RequireDualStack")
    {
        let remedy = "use SingleStack, PreferDualStack or RequireDualStack";
        reading.problem(&at.key("ipFamilyPolicy"), format!("{policy:?} is no family policy"), remedy);
    }
}

fn ports(ports: &[ServicePort], at: &Path, reading: &mut Reading<'_>) {
    for (i, declared) in ports.iter().enumerate() {
        let (at, before) = (at.index(i), ports.get(..i).unwrap_or_default());
        if !u16::try_from(declared.port).is_ok_and(|p| p > 0) {
            reading.problem(&at.key("port"), format!("{} is no port", declared.port), "use 1 to 65535");
        }
        let protocol = other_protocol(declared);
        if let Some(protocol) = protocol.filter(|_| reading.is_run()) {
            let message = format!("protocol {protocol} is not carried");
            reading.problem(&at.key("protocol"), message, "remove the port, or use TCP");
        }
        if before.iter().any(|p| p.port == declared.port && (reading.is_run() || other_protocol(p) == protocol)) {
            let message = format!("port clash: {} is already a port of this Service", declared.port);
            reading.problem(&at.key("port"), message, "remove one of them, or use another port");
        }
        match declared.name.as_deref().filter(|n| !n.is_empty()) {
            None if ports.len() > 1 => {
                reading.problem(&at.key("name"), "with several ports each needs a name", "give it a name");
            }
            Some(name) if !is_label(name) => {
                let remedy = "use lower-case letters, digits and '-'";
                reading.problem(&at.key("name"), format!("{name:?} is no name of a port"), remedy);
            }
            Some(name) if before.iter().any(|p| p.name.as_deref() == Some(name)) => {
                let message = format!("port clash: the name {name:?} is already used in this Service");
                reading.problem(&at.key("name"), message, "give it another name");
            }
            _ => {}
        }
        match &declared.target_port {
            Some(IntOrString::Int(n)) if !u16::try_from(*n).is_ok_and(|p| p > 0) => {
                reading.problem(&at.key("targetPort"), format!("{n} is no port"), "use 1 to 65535, or a name");
            }
            Some(IntOrString::String(name)) if !is_port_name(name) => {
                let remedy = "use the name of a container's port";
                reading.problem(&at.key("targetPort"), format!("{name:?} is no name of a port"), remedy);
            }
            _ => {}
        }
    }
}

/// If it is not TCP.
fn other_protocol(port: &ServicePort) -> Option<&str> {
    port.protocol.as_deref().filter(|p| !matches!(*p, "" | "TCP"))
}
