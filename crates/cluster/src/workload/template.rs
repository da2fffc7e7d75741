//! From a Deployment to what all its pods have in common, and the Pod objects that stand for them.

use super::{Desired, Mesh, Probe, Status, expand, mesh};
use crate::{label, object::namespace_of};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{
            Container, ContainerPort, ContainerState, ContainerStateRunning, ContainerStatus, HTTPGetAction, Namespace,
            Pod, PodCondition, PodIP, PodSpec, PodStatus, Probe as PodProbe,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use std::{collections::BTreeMap, time::Duration};

/// The label that holds the hash of a pod's template.
pub(super) const HASH_LABEL: &str = "pod-template-hash";
/// The label that says which control plane a meshed pod belongs to.
pub(crate) const CONTROL_NAMESPACE_LABEL: &str = label::CONTROL_NAMESPACE;
const WORKLOAD_NAMESPACE_LABEL: &str = label::WORKLOAD_NAMESPACE;
const DEPLOYMENT_LABEL: &str = "linkerd.io/proxy-deployment";
/// Kubernetes' default.
const GRACE: Duration = Duration::from_secs(30);

/// The pods of one Deployment: all alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub namespace: String,
    pub deployment: String,
    pub replicas: u32,
    /// Of everything that only a restart can change.
    pub hash: String,
    pub labels: BTreeMap<String, String>,
    /// The pod's own, and those of the mesh that it inherits from its namespace.
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub program: Program,
    pub mesh: Mesh,
}

/// What runs in a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    pub container: String,
    /// Variables are expanded.
    pub argv: Vec<String>,
    /// Variables are expanded; of several with one name the last stands here.
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub ports: Vec<Port>,
    pub readiness: Option<Probe>,
    /// Nothing here asks by it, but who does is let in, as on a cluster.
    pub liveness: Option<Probe>,
    /// The same.
    pub startup: Option<Probe>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub name: Option<String>,
    pub number: u16,
}

/// The pods of `deployment`, with what they inherit from `namespace`; `control_namespace` is where the control plane is.
pub fn template(deployment: &Deployment, namespace: Option<&Namespace>, control_namespace: &str) -> Template {
    let spec = deployment.spec.clone().unwrap_or_default();
    let metadata = spec.template.metadata.clone().unwrap_or_default();
    let pod = spec.template.spec.clone().unwrap_or_default();
    let container = pod.containers.first().cloned().unwrap_or_default();
    let inherited = namespace.and_then(|n| n.metadata.annotations.clone()).unwrap_or_default();
    let annotations = mesh::inherit(&metadata.annotations.unwrap_or_default(), &inherited);
    let mesh = Mesh::from_annotations(&annotations);
    let (namespace, name) = (namespace_of(&deployment.metadata), deployment.metadata.name.clone().unwrap_or_default());

    // Opaque ports and policies reach a running proxy through the control plane; redirection is made once, at the start.
    let text = serde_json::to_string(&spec.template).unwrap_or_default();
    let hash = hash_text(&format!("{text}|{}|{}|{}", mesh.injected, mesh.skip_inbound, mesh.skip_outbound));

    let mut labels = metadata.labels.unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.clone());
    if mesh.injected {
        labels.insert(CONTROL_NAMESPACE_LABEL.to_owned(), control_namespace.to_owned());
        labels.insert(WORKLOAD_NAMESPACE_LABEL.to_owned(), namespace.to_owned());
        labels.insert(DEPLOYMENT_LABEL.to_owned(), name.clone());
    }
    let grace = pod.termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs);
    Template {
        namespace: namespace.to_owned(),
        deployment: name,
        replicas: spec.replicas.map_or(1, |r| u32::try_from(r).unwrap_or(0)),
        hash,
        labels,
        annotations,
        service_account: [pod.service_account_name, pod.service_account]
            .into_iter()
            .flatten()
            .find(|a| !a.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        program: program(&container, grace.unwrap_or(GRACE)),
        mesh,
    }
}

fn program(container: &Container, grace: Duration) -> Program {
    let mut env: Vec<(String, String)> = vec![];
    for variable in container.env.iter().flatten() {
        // A value may use what was defined before it, an earlier definition of itself included.
        let value = expand(variable.value.as_deref().unwrap_or_default(), &env);
        env.retain(|(name, _)| *name != variable.name);
        env.push((variable.name.clone(), value));
    }
    let probe = |spec: &Option<PodProbe>| spec.as_ref().and_then(|spec| Probe::from_spec(spec, container));
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    let ports: Vec<Port> = container
        .ports
        .iter()
        .flatten()
        .filter_map(|p| Some(Port { name: p.name.clone(), number: u16::try_from(p.container_port).ok()? }))
        .collect();
    Program {
        container: container.name.clone(),
        argv: words.map(|word| expand(word, &env)).collect(),
        working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
        readiness: probe(&container.readiness_probe),
        liveness: probe(&container.liveness_probe),
        startup: probe(&container.startup_probe),
        env,
        ports,
        grace,
    }
}

impl Template {
    /// Names are stable: the same template and replica number give the same name.
    pub fn pods(&self) -> Vec<Desired> {
        (0..self.replicas)
            .map(|replica| {
                let suffix = hash_text(&format!("{}|{}|{}|{replica}", self.namespace, self.deployment, self.hash));
                let suffix: String = suffix.chars().take(5).collect();
                // A pod's name is a host name too: 63 bytes, of which the hash and the suffix are 17.
                let name: String = self.deployment.chars().take(46).collect();
                let name = format!("{}-{}-{suffix}", name.trim_end_matches(['-', '.']), self.hash);
                Desired { name, template_hash: self.hash.clone() }
            })
            .collect()
    }

    /// Ports that the proxy should know from the start: those declared, and those of HTTP probes.
    pub fn inbound_ports(&self) -> Vec<u16> {
        let Program { ports, readiness, liveness, startup, .. } = &self.program;
        let probes = [readiness, liveness, startup].into_iter().flatten().filter_map(|p| p.action.http_port());
        let mut ports: Vec<u16> = ports.iter().map(|p| p.number).chain(probes).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The Pod object of one replica, as the index wants it.
    pub fn pod(&self, name: &str, status: &Status) -> Pod {
        let text = |ready: bool| if ready { "True" } else { "False" }.to_owned();
        let ip = status.ips.first().map(ToString::to_string);
        let container = Container {
            name: self.program.container.clone(),
            ports: Some(self.program.ports.iter().map(container_port).collect()),
            readiness_probe: self.program.readiness.as_ref().and_then(http_probe),
            liveness_probe: self.program.liveness.as_ref().and_then(http_probe),
            startup_probe: self.program.startup.as_ref().and_then(http_probe),
            ..Default::default()
        };
        Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(self.labels.clone()),
                annotations: Some(self.annotations.clone()),
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "ReplicaSet".to_owned(),
                    name: format!("{}-{}", self.deployment, self.hash),
                    controller: Some(true),
                    ..Default::default()
                }]),
                deletion_timestamp: status.terminating.then_some(Time(Timestamp::UNIX_EPOCH)),
                ..Default::default()
            },
            spec: Some(PodSpec {
                service_account_name: Some(self.service_account.clone()),
                containers: vec![container],
                ..Default::default()
            }),
            status: Some(PodStatus {
                phase: Some(if status.running { "Running" } else { "Pending" }.to_owned()),
                pod_ip: ip.clone(),
                pod_ips: Some(status.ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".to_owned(),
                    status: text(status.ready),
                    ..Default::default()
                }]),
                container_statuses: Some(vec![ContainerStatus {
                    name: self.program.container.clone(),
                    ready: status.ready,
                    state: status.running.then(|| ContainerState {
                        running: Some(ContainerStateRunning::default()),
                        ..Default::default()
                    }),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
        }
    }
}

fn container_port(port: &Port) -> ContainerPort {
    ContainerPort { container_port: port.number.into(), name: port.name.clone(), ..Default::default() }
}

/// The index lets HTTP probes in; it needs no others.
fn http_probe(probe: &Probe) -> Option<PodProbe> {
    let (port, path) = (probe.action.http_port()?, probe.action.http_path()?);
    let http_get =
        HTTPGetAction { port: IntOrString::Int(port.into()), path: Some(path.to_owned()), ..Default::default() };
    Some(PodProbe { http_get: Some(http_get), ..Default::default() })
}

/// Ten characters in the alphabet that Kubernetes uses: no vowels, so that no words come out.
fn hash_text(text: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = weft_model::fnv::fnv1a(text.as_bytes());
    (0..10)
        .map(|_| {
            let at = usize::try_from(hash % 27).unwrap_or(0);
            hash /= 27;
            char::from(*ALPHABET.get(at).unwrap_or(&b'b'))
        })
        .collect()
}
