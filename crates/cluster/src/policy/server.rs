//! Servers: a port of some workloads, what it speaks, and who may call it where nothing else says so.

use super::{Mistake, Selector, all_right};
use crate::{Kind, annotation::is_port_name};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_model::policy::inbound::DefaultPolicy;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_workload_selector: Option<LabelSelector>,
    pub port: IntOrString,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_policy: Option<String>,
}

/// What a Server says: a port of the workloads that it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    of: WorkloadKind,
    selector: Selector,
    port: PortRef,
    pub(crate) spoken: Spoken,
    pub(crate) access: DefaultPolicy,
}

/// What has a proxy. A pod and an ExternalWorkload may have one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WorkloadKind {
    Pod,
    ExternalWorkload,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PortRef {
    Number(u16),
    /// Of whatever port of a workload has this name.
    Name(String),
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Unknown,
    Http1,
    Http2,
    Grpc,
    Opaque,
    Tls,
}

impl Spoken {
    const ALL: [(&str, Self); 6] = [
        ("unknown", Self::Unknown),
        ("HTTP/1", Self::Http1),
        ("HTTP/2", Self::Http2),
        ("gRPC", Self::Grpc),
        ("opaque", Self::Opaque),
        ("TLS", Self::Tls),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, spoken)| *spoken == self).map_or("", |(name, _)| name)
    }

    /// Whether routes of a kind are for it.
    pub(crate) fn takes(self, kind: Kind) -> bool {
        match self {
            Self::Unknown | Self::Http1 | Self::Http2 => matches!(kind, Kind::MeshHttpRoute | Kind::HttpRoute),
            Self::Grpc => kind == Kind::GrpcRoute,
            Self::Opaque | Self::Tls => false,
        }
    }
}

impl ServerSpec {
    pub(crate) fn checked(&self) -> Result<Port, Vec<Mistake>> {
        let Self { pod_selector, external_workload_selector, port: spec_port, proxy_protocol, access_policy } = self;
        let mut mistakes = vec![];
        let mut mistake = |field: &str, message: &str, remedy: &str| {
            mistakes.push(Mistake::new(format!("spec.{field}"), message, remedy));
        };
        let selected = match (pod_selector, external_workload_selector) {
            (Some(pods), None) => Some((WorkloadKind::Pod, pods, "spec.podSelector")),
            (None, Some(workloads)) => {
                Some((WorkloadKind::ExternalWorkload, workloads, "spec.externalWorkloadSelector"))
            }
            (Some(_), Some(_)) => {
                let message = "a Server is of pods or of ExternalWorkloads, and not of both";
                mistake("externalWorkloadSelector", message, "remove it, or podSelector");
                None
            }
            (None, None) => {
                let remedy = "give the labels of pods, or {} for all of the namespace; or an externalWorkloadSelector";
                mistake("podSelector", "the Server selects nothing", remedy);
                None
            }
        };
        let port = match spec_port {
            IntOrString::Int(number) => u16::try_from(*number).ok().filter(|n| *n > 0).map(PortRef::Number),
            IntOrString::String(text) => is_port_name(text).then(|| PortRef::Name(text.clone())),
        };
        match spec_port {
            _ if port.is_some() => {}
            // Linkerd takes it, and finds no port of that name.
            IntOrString::String(text) if text.parse::<u16>().is_ok_and(|number| number > 0) => {
                let remedy = format!("write the number without quotes: port: {text}");
                mistake("port", &format!("{text:?} is a name, and no port has one of digits alone"), &remedy);
            }
            _ => mistake("port", "it is no port", "use 1 to 65535, or the name of a container's port"),
        }
        let text = proxy_protocol.as_deref().unwrap_or("unknown");
        let spoken = Spoken::ALL.iter().find(|(name, _)| *name == text).map(|(_, spoken)| *spoken);
        if spoken.is_none() {
            let names = Spoken::ALL.map(|(name, _)| name).join(", ");
            mistake("proxyProtocol", &format!("{text:?} is no protocol"), &format!("use one of {names}"));
        }
        let text = access_policy.as_deref().unwrap_or("deny");
        let access = text.parse::<DefaultPolicy>();
        if access.is_err() {
            let names = DefaultPolicy::ALL.map(DefaultPolicy::as_str).join(", ");
            mistake("accessPolicy", &format!("{text:?} is no policy"), &format!("use one of {names}"));
        }
        let selected = selected.and_then(|(of, selector, at)| match Selector::checked(selector, at) {
            Ok(selector) => Some((of, selector)),
            Err(wrong) => {
                mistakes.extend(wrong);
                None
            }
        });
        let server = (|| {
            let (of, selector) = selected?;
            Some(Port { of, selector, port: port?, spoken: spoken?, access: access.ok()? })
        })();
        all_right(server, mistakes)
    }
}

impl Port {
    pub(crate) fn selects(&self, of: WorkloadKind, labels: &BTreeMap<String, String>) -> bool {
        self.of == of && self.selector.selects(labels)
    }

    /// The label by which it selects a pod or not, where the values of some are not known.
    pub(crate) fn hangs_on(&self, labels: &BTreeMap<String, String>, unknown: &BTreeSet<String>) -> Option<&str> {
        self.selector.hangs_on(labels, unknown).filter(|_| self.of == WorkloadKind::Pod)
    }

    /// Whether it is of this port of a workload with these labels; the port's names are those that the workload gives it.
    pub(crate) fn is_of<'a>(
        &self,
        of: WorkloadKind,
        labels: &BTreeMap<String, String>,
        port: u16,
        names: impl Iterator<Item = &'a str>,
    ) -> bool {
        self.is_port(port, names) && self.selects(of, labels)
    }

    /// Whether it is of this port of those that it selects.
    pub(crate) fn is_port<'a>(&self, port: u16, mut names: impl Iterator<Item = &'a str>) -> bool {
        match &self.port {
            PortRef::Number(number) => *number == port,
            PortRef::Name(name) => names.any(|n| n == name),
        }
    }
}
