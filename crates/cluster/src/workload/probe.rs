//! Probes: how to ask a program whether it is ready.

use crate::object::{probed_path, probed_port};
use k8s_openapi::api::core::v1::{Container, Probe as ProbeSpec};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub action: ProbeAction,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// Ready if the status is 200 to 399. With `tls` no certificate is checked, as the kubelet checks none.
    HttpGet { port: u16, tls: bool, path: String, host: Option<String>, headers: Vec<(String, String)> },
    /// Ready if it can be connected.
    Tcp { port: u16, host: Option<String> },
    /// Ready if it ends with status 0.
    Exec { command: Vec<String> },
    /// Ready if the gRPC health service says so.
    Grpc { port: u16, service: String },
}

impl Probe {
    /// `None` if it has no action that can be carried out, which manifests with such a probe never reach.
    pub(super) fn from_spec(spec: &ProbeSpec, of: &Container) -> Option<Self> {
        let action = if let Some(get) = &spec.http_get {
            ProbeAction::HttpGet {
                port: probed_port(&get.port, of)?,
                tls: get.scheme.as_deref() == Some("HTTPS"),
                path: probed_path(get),
                host: get.host.clone().filter(|h| !h.is_empty()),
                headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
            }
        } else if let Some(tcp) = &spec.tcp_socket {
            ProbeAction::Tcp { port: probed_port(&tcp.port, of)?, host: tcp.host.clone().filter(|h| !h.is_empty()) }
        } else if let Some(exec) = &spec.exec {
            ProbeAction::Exec { command: exec.command.clone().unwrap_or_default() }
        } else {
            let grpc = spec.grpc.as_ref()?;
            let service = grpc.service.clone().unwrap_or_default();
            ProbeAction::Grpc { port: u16::try_from(grpc.port).ok()?, service }
        };
        // Kubernetes' defaults; it takes 0 for "not given".
        let given = |value: Option<i32>, default: u32| match value.map(u32::try_from) {
            Some(Ok(value)) if value > 0 => value,
            _ => default,
        };
        Some(Self {
            action,
            initial_delay: Duration::from_secs(given(spec.initial_delay_seconds, 0).into()),
            period: Duration::from_secs(given(spec.period_seconds, 10).into()),
            timeout: Duration::from_secs(given(spec.timeout_seconds, 1).into()),
            success_threshold: given(spec.success_threshold, 1),
            failure_threshold: given(spec.failure_threshold, 3),
        })
    }
}

impl ProbeAction {
    pub(super) fn http_port(&self) -> Option<u16> {
        match self {
            Self::HttpGet { port, tls: false, .. } => Some(*port),
            // What is in TLS no proxy can tell from other traffic.
            Self::HttpGet { tls: true, .. } | Self::Tcp { .. } | Self::Exec { .. } | Self::Grpc { .. } => None,
        }
    }

    pub(super) fn http_path(&self) -> Option<&str> {
        match self {
            Self::HttpGet { path, tls: false, .. } => Some(path),
            Self::HttpGet { tls: true, .. } | Self::Tcp { .. } | Self::Exec { .. } | Self::Grpc { .. } => None,
        }
    }
}
