//! Deployments: the pod template, its container, ports and probes.

use super::{
    super::path::Path,
    Reading,
    meta::{self, On},
};
use crate::{annotation::is_port_name, object::is_label, policy::Selector};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{Container, PodSpec, PodTemplateSpec, Probe},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use weft_model::{
    Identity,
    names::{self, port},
};

/// Replicas of one Deployment: each costs several processes and namespaces.
const MAX_REPLICAS: i32 = 100;
/// The ports of the proxy, which shares the pod's addresses.
const PROXY_PORTS: [u16; 4] = [port::OUTBOUND, port::INBOUND, port::CONTROL, port::ADMIN];
const DAY_SECONDS: i64 = 24 * 60 * 60;

pub(super) fn check(deployment: &Deployment, reading: &mut Reading<'_>) {
    let top = Path::default();
    meta::name(&deployment.metadata, meta::SUBDOMAIN, reading);
    meta::maps(&deployment.metadata, &top, reading);
    meta::annotations(&deployment.metadata, &top, On::Workload, reading);
    let at = top.key("spec");
    let Some(spec) = &deployment.spec else {
        return reading.problem(&top, "the Deployment has no spec", "give spec.selector and spec.template");
    };
    match spec.replicas {
        Some(replicas) if !(0..=MAX_REPLICAS).contains(&replicas) => reading.problem(
            &at.key("replicas"),
            format!("{replicas} replicas are not possible"),
            format!("use 0 to {MAX_REPLICAS}"),
        ),
        _ => {}
    }
    template(&spec.template, &at.key("template"), deployment.metadata.namespace.as_deref(), reading);
    selector(spec, reading);
}

/// Whether its pods are its own.
pub(super) fn selector(spec: &DeploymentSpec, reading: &mut Reading<'_>) {
    let at = Path::default().key("spec");
    let labels = spec.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    let selector = Selector::checked(&spec.selector, "").ok();
    if selector.as_ref().is_some_and(Selector::is_empty) {
        reading.problem(&at.key("selector"), "the selector is empty", "give matchLabels as in the template's labels");
    } else if !selector.is_some_and(|selector| selector.selects(&labels)) {
        let remedy = "make both the same: Kubernetes refuses it too";
        reading.problem(&at.key("selector"), "the selector does not match the template's labels", remedy);
    }
}

fn template(template: &PodTemplateSpec, at: &Path, namespace: Option<&str>, reading: &mut Reading<'_>) {
    if let Some(metadata) = &template.metadata {
        meta::maps(metadata, at, reading);
        meta::annotations(metadata, at, On::Pod, reading);
    }
    let at = at.key("spec");
    let Some(spec) = &template.spec else {
        return reading.problem(&at, "the template has no spec", "give spec.template.spec.containers");
    };
    pod(spec, &at, namespace.unwrap_or(crate::object::DEFAULT_NAMESPACE), reading);
    let injected = template
        .metadata
        .as_ref()
        .and_then(|m| m.annotations.as_ref()?.get(names::annotation::INJECT))
        .is_none_or(|inject| inject != "disabled");
    match spec.containers.as_slice() {
        [] => reading.problem(&at.key("containers"), "the pod has no container", "give one container with a command"),
        [first, rest @ ..] => {
            container(first, &at.key("containers").index(0), injected, reading);
            for (i, further) in rest.iter().enumerate() {
                let message = format!("a pod has one container, and {:?} is a further one", further.name);
                reading.problem(&at.key("containers").index(i + 1), message, "give it a Deployment of its own");
            }
        }
    }
}

fn pod(spec: &PodSpec, at: &Path, namespace: &str, reading: &mut Reading<'_>) {
    if let Some(policy) = spec.restart_policy.as_deref().filter(|p| !matches!(*p, "" | "Always")) {
        let message = format!("restartPolicy {policy:?} is not possible in a Deployment");
        reading.problem(&at.key("restartPolicy"), message, "remove it, or use Always");
    }
    if let Some(policy) = spec.dns_policy.as_deref().filter(|p| !matches!(*p, "" | "ClusterFirst")) {
        let message = format!("dnsPolicy {policy:?} is not supported");
        reading.problem(&at.key("dnsPolicy"), message, "remove it: programs use the mesh's DNS");
    }
    if spec.termination_grace_period_seconds.is_some_and(|s| !(0..=DAY_SECONDS).contains(&s)) {
        let at = at.key("terminationGracePeriodSeconds");
        reading.problem(&at, "the time to stop is negative or longer than a day", "use 0 to 86400");
    }
    accounts(spec, at, namespace, reading);
}

/// Of what becomes a part of identities.
pub(super) fn accounts(spec: &PodSpec, at: &Path, namespace: &str, reading: &mut Reading<'_>) {
    for (field, account) in
        [("serviceAccountName", &spec.service_account_name), ("serviceAccount", &spec.service_account)]
    {
        let Some(account) = account.as_deref().filter(|a| !a.is_empty()) else { continue };
        let identity =
            Identity::of_service_account(account, namespace, names::CONTROL_NAMESPACE, names::CLUSTER_DOMAIN);
        if !account.split('.').all(is_label) || identity.is_err() {
            let message = format!("{account:?} cannot be part of an identity");
            reading.problem(&at.key(field), message, "use a shorter name of lower-case letters, digits and '-'");
        }
    }
}

fn container(container: &Container, at: &Path, injected: bool, reading: &mut Reading<'_>) {
    if !is_label(&container.name) {
        let message = format!("{:?} is no valid container name", container.name);
        reading.problem(&at.key("name"), message, "use 1 to 63 lower-case letters, digits and '-'");
    }
    let command = container.command.as_deref().unwrap_or_default();
    if command.first().is_none_or(String::is_empty) {
        let remedy = "give the program to run; the image is not used, so its own command is not known";
        reading.problem(&at.key("command"), "the container has no command", remedy);
    }
    for (field, words) in [("command", command), ("args", container.args.as_deref().unwrap_or_default())] {
        for (i, _) in words.iter().enumerate().filter(|(_, w)| w.contains('\0')) {
            reading.problem(&at.key(field).index(i), "the text has a zero byte", "remove it");
        }
    }
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let at = at.key("env").index(i);
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            reading.problem(&at.key("name"), format!("{:?} is no name of a variable", variable.name), "give it a name");
        }
        if variable.value.as_deref().is_some_and(|v| v.contains('\0')) {
            reading.problem(&at.key("value"), "the text has a zero byte", "remove it");
        }
    }
    ports(container, &at.key("ports"), injected, reading);
    if let Some(probe) = &container.readiness_probe {
        self::probe(probe, container, &at.key("readinessProbe"), reading);
    }
}

fn ports(container: &Container, at: &Path, injected: bool, reading: &mut Reading<'_>) {
    let mut seen: Vec<(i32, Option<&str>)> = vec![];
    for (i, declared) in container.ports.iter().flatten().enumerate() {
        let (at, number) = (at.index(i), declared.container_port);
        let name = declared.name.as_deref().filter(|n| !n.is_empty());
        match u16::try_from(number) {
            Ok(port) if port > 0 && injected && PROXY_PORTS.contains(&port) => {
                let message = format!("port clash: {port} is the proxy's own");
                reading.problem(&at.key("containerPort"), message, "use another port, or linkerd.io/inject: disabled");
            }
            Ok(port) if port > 0 => {}
            _ => reading.problem(&at.key("containerPort"), format!("{number} is no port"), "use 1 to 65535"),
        }
        if let Some(protocol) = declared.protocol.as_deref().filter(|p| !matches!(*p, "" | "TCP")) {
            let message = format!("protocol {protocol} is not carried");
            reading.problem(&at.key("protocol"), message, "remove the port, or use TCP");
        }
        if let Some(name) = name.filter(|n| !is_port_name(n)) {
            let remedy = "use at most 15 lower-case letters, digits and '-'";
            reading.problem(&at.key("name"), format!("{name:?} is no name of a port"), remedy);
        }
        if seen.iter().any(|(n, _)| *n == number) {
            let message = format!("port clash: {number} is already declared in this pod");
            reading.problem(&at.key("containerPort"), message, "remove one of them, or use another port");
        }
        if name.is_some() && seen.iter().any(|(_, n)| *n == name) {
            let message = format!("port clash: the name {:?} is already used in this pod", name.unwrap_or_default());
            reading.problem(&at.key("name"), message, "give it another name");
        }
        seen.push((number, name));
    }
}

fn probe(probe: &Probe, container: &Container, at: &Path, reading: &mut Reading<'_>) {
    let actions = [
        ("httpGet", probe.http_get.as_ref().map(|a| &a.port)),
        ("tcpSocket", probe.tcp_socket.as_ref().map(|a| &a.port)),
    ];
    let count = actions.iter().filter(|(_, a)| a.is_some()).count()
        + usize::from(probe.exec.is_some())
        + usize::from(probe.grpc.is_some());
    if count != 1 {
        reading.problem(at, format!("the probe has {count} actions"), "give one of httpGet, tcpSocket, exec and grpc");
    }
    for (action, port) in actions.into_iter().filter_map(|(a, p)| Some((a, p?))) {
        let at = at.key(action).key("port");
        match port {
            IntOrString::Int(n) if u16::try_from(*n).is_ok_and(|p| p > 0) => {}
            IntOrString::Int(n) => reading.problem(&at, format!("{n} is no port"), "use 1 to 65535"),
            IntOrString::String(name) => {
                if !container.ports.iter().flatten().any(|p| p.name.as_ref() == Some(name)) {
                    let message = format!("the container has no port named {name:?}");
                    reading.problem(&at, message, "name it under ports, or give a number");
                }
            }
        }
    }
    if probe.grpc.as_ref().is_some_and(|g| u16::try_from(g.port).is_ok_and(|p| p > 0)) != probe.grpc.is_some() {
        reading.problem(&at.key("grpc").key("port"), "the port is not valid", "use 1 to 65535");
    }
    if probe.exec.as_ref().is_some_and(|e| e.command.as_deref().unwrap_or_default().is_empty()) {
        reading.problem(&at.key("exec").key("command"), "the command is empty", "give a command");
    }
    if let Some(scheme) =
        probe.http_get.as_ref().and_then(|a| a.scheme.as_deref()).filter(|s| !matches!(*s, "" | "HTTP" | "HTTPS"))
    {
        let message = format!("{scheme:?} is no scheme of a probe");
        reading.problem(&at.key("httpGet").key("scheme"), message, "use HTTP or HTTPS");
    }
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("periodSeconds", probe.period_seconds, 1),
        ("timeoutSeconds", probe.timeout_seconds, 1),
        ("successThreshold", probe.success_threshold, 1),
        ("failureThreshold", probe.failure_threshold, 1),
    ];
    for (field, value, least) in numbers {
        // Kubernetes takes 0 for "not given".
        if value.is_some_and(|v| v != 0 && !(least..=86_400).contains(&v)) {
            reading.problem(&at.key(field), "the number is out of range", format!("use {least} to 86400"));
        }
    }
}
