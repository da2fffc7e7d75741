//! Values of the parts of the control plane.

use super::Text;
use k8s_openapi::{
    api::core::v1::EnvVar,
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What all three Deployments have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Controller {
    pub pod_disruption_budget: PodDisruptionBudget,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudget {
    pub max_unavailable: IntOrString,
}

/// How long a probe may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTimeout {
    pub timeout_seconds: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationController {
    pub additional_args: Vec<Text>,
    pub additional_env: Vec<EnvVar>,
    pub experimental_env: Vec<EnvVar>,
    pub liveness_probe: ProbeTimeout,
    pub pod_annotations: BTreeMap<String, Text>,
    pub readiness_probe: ProbeTimeout,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyController {
    /// From where HTTP probes are let in.
    pub probe_networks: Vec<Text>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    pub additional_env: Vec<EnvVar>,
    pub experimental_env: Vec<EnvVar>,
    #[serde(rename = "externalCA")]
    pub external_ca: bool,
    pub issuer: Issuer,
    pub liveness_probe: ProbeTimeout,
    pub pod_annotations: BTreeMap<String, Text>,
    pub readiness_probe: ProbeTimeout,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Issuer {
    pub clock_skew_allowance: Text,
    pub issuance_lifetime: Text,
    pub scheme: Text,
    pub tls: KeyPair,
}

/// PEM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyPair {
    #[serde(rename = "crtPEM")]
    pub crt_pem: Text,
    #[serde(rename = "keyPEM")]
    pub key_pem: Text,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyInjector {
    pub additional_env: Vec<EnvVar>,
    pub ca_bundle: Text,
    #[serde(rename = "crtPEM")]
    pub crt_pem: Text,
    pub experimental_env: Vec<EnvVar>,
    pub external_secret: bool,
    pub inject_ca_from: Text,
    pub inject_ca_from_secret: Text,
    #[serde(rename = "keyPEM")]
    pub key_pem: Text,
    pub liveness_probe: ProbeTimeout,
    pub namespace_selector: LabelSelector,
    pub object_selector: LabelSelector,
    pub pod_annotations: BTreeMap<String, Text>,
    pub readiness_probe: ProbeTimeout,
    pub timeout_seconds: i32,
}

/// A validating webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Validator {
    pub ca_bundle: Text,
    #[serde(rename = "crtPEM")]
    pub crt_pem: Text,
    pub external_secret: bool,
    pub inject_ca_from: Text,
    pub inject_ca_from_secret: Text,
    #[serde(rename = "keyPEM")]
    pub key_pem: Text,
    pub namespace_selector: LabelSelector,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodMonitor {
    pub controller: ControllerMonitor,
    pub enabled: bool,
    pub labels: BTreeMap<String, Text>,
    pub proxy: Monitor,
    pub scrape_interval: Text,
    pub scrape_timeout: Text,
    pub service_mirror: Monitor,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitor {
    pub enabled: bool,
    pub honor_timestamps: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ControllerMonitor {
    pub enabled: bool,
    pub honor_timestamps: bool,
    /// YAML of a selector; `{{ .Release.Namespace }}` stands for the control plane's namespace.
    pub namespace_selector: Text,
}

/// A ServiceAccount that may read the ConfigMap `linkerd-config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigReader {
    pub name: Text,
    pub namespace: Text,
}

fn not_in(key: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.to_owned(),
        operator: "NotIn".to_owned(),
        values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
    }
}

fn absent(key: &str) -> LabelSelectorRequirement {
    LabelSelectorRequirement { key: key.to_owned(), operator: "DoesNotExist".to_owned(), values: None }
}

fn selector(requirements: Vec<LabelSelectorRequirement>) -> LabelSelector {
    LabelSelector { match_expressions: Some(requirements), match_labels: None }
}

fn webhooks_enabled() -> LabelSelectorRequirement {
    not_in(crate::label::ADMISSION_WEBHOOKS, &["disabled"])
}

impl Default for PodDisruptionBudget {
    fn default() -> Self {
        Self { max_unavailable: IntOrString::Int(1) }
    }
}

impl Default for ProbeTimeout {
    fn default() -> Self {
        Self { timeout_seconds: 1 }
    }
}

impl Default for PolicyController {
    fn default() -> Self {
        Self { probe_networks: vec!["0.0.0.0/0".into(), "::/0".into()] }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            clock_skew_allowance: "20s".into(),
            issuance_lifetime: "24h0m0s".into(),
            scheme: "linkerd.io/tls".into(),
            tls: KeyPair::default(),
        }
    }
}

impl Default for ProxyInjector {
    fn default() -> Self {
        let foreign = not_in("kubernetes.io/metadata.name", &["kube-system", "cert-manager"]);
        Self {
            additional_env: vec![],
            ca_bundle: Text::default(),
            crt_pem: Text::default(),
            experimental_env: vec![],
            external_secret: false,
            inject_ca_from: Text::default(),
            inject_ca_from_secret: Text::default(),
            key_pem: Text::default(),
            liveness_probe: ProbeTimeout::default(),
            namespace_selector: selector(vec![webhooks_enabled(), foreign]),
            object_selector: selector(vec![absent(crate::label::COMPONENT), absent(crate::label::CNI_RESOURCE)]),
            pod_annotations: BTreeMap::new(),
            readiness_probe: ProbeTimeout::default(),
            timeout_seconds: 10,
        }
    }
}

impl Default for Validator {
    fn default() -> Self {
        Self {
            ca_bundle: Text::default(),
            crt_pem: Text::default(),
            external_secret: false,
            inject_ca_from: Text::default(),
            inject_ca_from_secret: Text::default(),
            key_pem: Text::default(),
            namespace_selector: selector(vec![webhooks_enabled()]),
        }
    }
}

impl Default for PodMonitor {
    fn default() -> Self {
        Self {
            controller: ControllerMonitor::default(),
            enabled: false,
            labels: BTreeMap::new(),
            proxy: Monitor::default(),
            scrape_interval: "10s".into(),
            scrape_timeout: "10s".into(),
            service_mirror: Monitor::default(),
        }
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self { enabled: true, honor_timestamps: false }
    }
}

impl Default for ControllerMonitor {
    fn default() -> Self {
        Self {
            enabled: true,
            honor_timestamps: false,
            namespace_selector: "matchNames:\n  - {{ .Release.Namespace }}\n  - linkerd-viz\n".into(),
        }
    }
}
