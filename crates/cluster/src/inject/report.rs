//! Whether an object gets a proxy, and if not, why.

use super::subject::{Pods, Subject, What};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use weft_model::names::annotation as names;

/// What was found and done with one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In lower case; empty if the document has none.
    pub kind: String,
    pub name: String,
    /// Why it gets no proxy; empty if it gets one.
    pub skipped: Vec<Skip>,
    /// Where it is said that it gets one.
    pub at: Option<At>,
    /// Whether annotations were written to an object that has no pods.
    pub annotated: bool,
    /// Whether it is of a kind that annotations can be written to.
    pub annotatable: bool,
    /// Whether containers declare ports of UDP, which the mesh does not carry.
    pub udp: bool,
    /// Whether something of the mesh was taken away.
    pub uninjected: bool,
}

/// Where an annotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Namespace,
    Workload,
}

/// Why an object gets no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    HostNetwork,
    Sidecar,
    Unsupported,
    NotAsked,
    Disabled,
    InvalidAtWorkload,
    InvalidAtNamespace,
}

impl At {
    /// The label of the injector's metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Workload => "workload",
        }
    }
}

impl Skip {
    /// The label of the injector's metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HostNetwork => "host_network_enabled",
            Self::Sidecar => "sidecar_already_exists",
            Self::Unsupported => "unsupported_resource",
            Self::NotAsked => "injection_enable_annotation_absent",
            Self::Disabled => "injection_disable_annotation_present",
            Self::InvalidAtWorkload => "invalid_inject_annotation_at_workload",
            Self::InvalidAtNamespace => "invalid_inject_annotation_at_ns",
        }
    }

    /// For Events and people.
    pub fn explained(self) -> &'static str {
        match self {
            Self::HostNetwork => "hostNetwork is enabled",
            Self::Sidecar => "the pod has a proxy already",
            Self::Unsupported => "the mesh has no proxies for this kind of object",
            Self::NotAsked => "neither the pod nor its namespace has the annotation linkerd.io/inject: enabled",
            Self::Disabled => "the pod has the annotation linkerd.io/inject: disabled",
            Self::InvalidAtWorkload => {
                "the pod's annotation linkerd.io/inject is none of enabled, ingress and disabled"
            }
            Self::InvalidAtNamespace => {
                "the namespace's annotation linkerd.io/inject is none of enabled, ingress and disabled"
            }
        }
    }
}

impl Report {
    /// What is there, before anything is decided.
    pub(super) fn of(subject: &Subject) -> Self {
        let mut report = Self { kind: subject.kind.clone(), name: subject.name.clone(), ..Self::default() };
        match &subject.what {
            What::Pods(pods) => {
                report.annotatable = true;
                report.udp = ports_of_udp(&pods.spec);
                report.skipped.extend(excused(&pods.spec));
            }
            What::Service(_) | What::Namespace => {
                report.annotatable = true;
                report.skipped.push(Skip::Unsupported);
            }
            What::Other => report.skipped.push(Skip::Unsupported),
        }
        report
    }

    /// By the annotations of the pod and its namespace.
    pub(super) fn decide(&mut self, pods: &Pods, namespace: Option<&str>) {
        match asked(namespace, pods.annotations.get(names::INJECT).map(String::as_str)) {
            Ok(at) => self.at = Some(at),
            Err(skip) => self.skipped.push(skip),
        }
    }

    pub fn is_injected(&self) -> bool {
        self.skipped.is_empty()
    }

    /// `deployment/web`.
    pub fn resource(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

/// Why a pod can have no proxy, whoever asks for one.
pub(super) fn excused(spec: &PodSpec) -> impl Iterator<Item = Skip> {
    let host = (spec.host_network == Some(true)).then_some(Skip::HostNetwork);
    host.into_iter().chain(has_proxy(spec).then_some(Skip::Sidecar))
}

/// Where it is said that a pod gets a proxy, if it is: by the annotation of its namespace and by its own.
pub(super) fn asked(namespace: Option<&str>, own: Option<&str>) -> Result<At, Skip> {
    let mode = |value: Option<&str>| match value {
        None | Some("") => Ok(None),
        Some("enabled" | "ingress") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(_) => Err(()),
    };
    match (mode(namespace), mode(own)) {
        (Err(()), _) => Err(Skip::InvalidAtNamespace),
        (_, Err(())) => Err(Skip::InvalidAtWorkload),
        (Ok(Some(true)), Ok(Some(false))) => Err(Skip::Disabled),
        (Ok(Some(true)), Ok(_)) => Ok(At::Namespace),
        (Ok(_), Ok(Some(true))) => Ok(At::Workload),
        (Ok(_), Ok(_)) => Err(Skip::NotAsked),
    }
}

fn ports_of_udp(spec: &PodSpec) -> bool {
    let ports = spec.containers.iter().flat_map(|c| c.ports.iter().flatten());
    ports.into_iter().any(|p| p.protocol.as_deref() == Some("UDP"))
}

/// What images of proxies begin with, whatever their containers are called.
const PROXIES: [&str; 2] = ["cr.l5d.io/linkerd/proxy:", "gcr.io/istio-release/proxyv2:"];
/// The same of what redirects to them.
const INITS: [&str; 2] = ["cr.l5d.io/linkerd/proxy-init:", "gcr.io/istio-release/proxy_init:"];

/// Whether an image says that this or another mesh has been here.
pub(crate) fn is_of_a_mesh(image: &str) -> bool {
    PROXIES.iter().chain(&INITS).any(|begin| image.starts_with(begin))
}

/// Whether this or another mesh has been here.
fn has_proxy(spec: &PodSpec) -> bool {
    let image = |c: &Container, of: &[&str]| {
        c.image.as_deref().is_some_and(|image| of.iter().any(|begin| image.starts_with(begin)))
    };
    let proxy = |c: &Container| matches!(c.name.as_str(), super::PROXY | "istio-proxy") || image(c, &PROXIES);
    let init = |c: &Container| matches!(c.name.as_str(), super::INIT | "istio-init") || image(c, &INITS);
    spec.containers.iter().any(proxy) || spec.init_containers.iter().flatten().any(|c| proxy(c) || init(c))
}
