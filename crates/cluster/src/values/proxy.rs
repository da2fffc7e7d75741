//! Values of the proxy, of redirection and of the debug container.

use super::Text;
use k8s_openapi::api::core::v1::EnvVar;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::collections::BTreeMap;
use weft_model::names::port;

/// Who linkerd-init runs as, and in which group.
pub(crate) const NOBODY: i64 = 65534;

/// What every proxy is given unless an annotation says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    pub access_log: Text,
    pub additional_env: Vec<EnvVar>,
    #[serde(rename = "await")]
    pub await_ready: bool,
    pub control: Control,
    pub cores: Option<u32>,
    pub default_inbound_policy: Text,
    pub disable_inbound_protocol_detect_timeout: bool,
    pub disable_outbound_protocol_detect_timeout: bool,
    pub enable_external_profiles: bool,
    pub enable_shutdown_endpoint: bool,
    pub experimental_env: Vec<EnvVar>,
    /// -1 is the image's own.
    pub gid: i64,
    pub image: Image,
    pub inbound: Side,
    pub inbound_connect_timeout: Text,
    pub inbound_discovery_cache_unused_timeout: Text,
    pub is_gateway: bool,
    pub is_ingress: bool,
    pub liveness_probe: ProbeTimes,
    pub log_format: Text,
    #[serde(rename = "logHTTPHeaders")]
    pub log_http_headers: Text,
    pub log_level: Text,
    pub metrics: Metrics,
    pub native_sidecar: bool,
    pub opaque_ports: Text,
    pub outbound: Side,
    pub outbound_connect_timeout: Text,
    pub outbound_discovery_cache_unused_timeout: Text,
    pub ports: Ports,
    pub readiness_probe: ProbeTimes,
    pub require_identity_on_inbound_ports: Text,
    #[serde(rename = "requireTLSOnInboundPorts")]
    pub require_tls_on_inbound_ports: Text,
    pub resources: Resources,
    pub runtime: Runtime,
    /// Laid over what the proxy's container is given anyway.
    pub security_context: BTreeMap<String, serde_json::Value>,
    pub shutdown_grace_period: Text,
    pub startup_probe: StartupTimes,
    pub tracing: Tracing,
    pub uid: i64,
    pub wait_before_exit_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    pub name: Text,
    /// Empty is `imagePullPolicy`.
    pub pull_policy: Text,
    /// Empty is `linkerdVersion`.
    pub version: Text,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    pub admin: u16,
    pub control: u16,
    pub inbound: u16,
    pub outbound: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Runtime {
    pub workers: Workers,
}

/// How many worker threads: also bounded by the requested and allowed CPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workers {
    pub maximum: Option<u32>,
    #[serde(rename = "maximumCPURatio", deserialize_with = "fraction")]
    pub maximum_cpu_ratio: Option<f64>,
    pub minimum: u32,
}

/// A number, or the text that `--set` makes of a fraction, as Helm's does.
fn fraction<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text = Option::<Text>::deserialize(deserializer)?;
    let number = |text: Text| text.parse().map_err(|_| D::Error::custom(format!("{:?} is no number", &*text)));
    text.map(number).transpose()
}

/// Requests and limits of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpu: Amounts,
    #[serde(rename = "ephemeral-storage")]
    pub ephemeral_storage: Amounts,
    pub memory: Amounts,
}

/// Quantities; empty is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    pub limit: Text,
    pub request: Text,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeTimes {
    pub initial_delay_seconds: i32,
    pub timeout_seconds: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartupTimes {
    pub failure_threshold: i32,
    pub initial_delay_seconds: i32,
    pub period_seconds: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Control {
    pub streams: Streams,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Streams {
    pub idle_timeout: Text,
    pub initial_timeout: Text,
    pub lifetime: Text,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    pub hostname_labels: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    pub collector: Collector,
    pub enabled: bool,
    pub labels: BTreeMap<String, Text>,
    pub trace_service_name: Text,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Collector {
    pub endpoint: Text,
    pub mesh_identity: MeshIdentity,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshIdentity {
    pub namespace: Text,
    pub service_account_name: Text,
}

/// One direction of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    pub server: Server,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    pub http2: Http2,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Http2 {
    pub keep_alive_interval: Text,
    pub keep_alive_timeout: Text,
}

/// Redirection in a pod, made by its init container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyInit {
    pub close_wait_timeout_secs: u32,
    pub ignore_inbound_ports: Text,
    pub ignore_outbound_ports: Text,
    pub iptables_mode: Text,
    #[serde(rename = "kubeAPIServerPorts")]
    pub kube_api_server_ports: Text,
    pub log_format: Text,
    pub log_level: Text,
    pub privileged: bool,
    pub run_as_group: i64,
    pub run_as_root: bool,
    pub run_as_user: i64,
    pub skip_subnets: Text,
    pub xt_mount_path: XtMountPath,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct XtMountPath {
    pub mount_path: Text,
    pub name: Text,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DebugContainer {
    pub image: Image,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            access_log: Text::default(),
            additional_env: vec![],
            await_ready: true,
            control: Control::default(),
            cores: None,
            default_inbound_policy: "all-unauthenticated".into(),
            disable_inbound_protocol_detect_timeout: false,
            disable_outbound_protocol_detect_timeout: false,
            enable_external_profiles: false,
            enable_shutdown_endpoint: false,
            experimental_env: vec![],
            gid: -1,
            image: Image { name: "weft/proxy".into(), ..Image::default() },
            inbound: Side::default(),
            inbound_connect_timeout: "100ms".into(),
            inbound_discovery_cache_unused_timeout: "90s".into(),
            is_gateway: false,
            is_ingress: false,
            liveness_probe: ProbeTimes { initial_delay_seconds: 10, timeout_seconds: 1 },
            log_format: "plain".into(),
            log_http_headers: "off".into(),
            log_level: "warn,linkerd=info,hickory=error".into(),
            metrics: Metrics::default(),
            native_sidecar: true,
            opaque_ports: "25,587,3306,4444,5432,6379,9300,11211".into(),
            outbound: Side::default(),
            outbound_connect_timeout: "1000ms".into(),
            outbound_discovery_cache_unused_timeout: "5s".into(),
            ports: Ports::default(),
            readiness_probe: ProbeTimes::default(),
            require_identity_on_inbound_ports: Text::default(),
            require_tls_on_inbound_ports: Text::default(),
            resources: Resources::default(),
            runtime: Runtime::default(),
            security_context: BTreeMap::new(),
            shutdown_grace_period: Text::default(),
            startup_probe: StartupTimes::default(),
            tracing: Tracing::default(),
            uid: 2102,
            wait_before_exit_seconds: 0,
        }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { admin: port::ADMIN, control: port::CONTROL, inbound: port::INBOUND, outbound: port::OUTBOUND }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self { maximum: None, maximum_cpu_ratio: None, minimum: 1 }
    }
}

impl Default for ProbeTimes {
    fn default() -> Self {
        Self { initial_delay_seconds: 2, timeout_seconds: 1 }
    }
}

impl Default for StartupTimes {
    fn default() -> Self {
        Self { failure_threshold: 120, initial_delay_seconds: 0, period_seconds: 1 }
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self { idle_timeout: "5m".into(), initial_timeout: "3s".into(), lifetime: "1h".into() }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        let labels = [
            ("k8s.container.name", "$(_pod_containerName)"),
            ("k8s.pod.ip", "$(_pod_ip)"),
            ("k8s.pod.uid", "$(_pod_uid)"),
        ];
        Self {
            collector: Collector::default(),
            enabled: false,
            labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect(),
            trace_service_name: "linkerd-proxy".into(),
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self { keep_alive_interval: "10s".into(), keep_alive_timeout: "3s".into() }
    }
}

impl Default for ProxyInit {
    fn default() -> Self {
        Self {
            close_wait_timeout_secs: 0,
            ignore_inbound_ports: "4567,4568".into(),
            ignore_outbound_ports: "4567,4568".into(),
            iptables_mode: "nft".into(),
            kube_api_server_ports: "443,6443".into(),
            log_format: Text::default(),
            log_level: Text::default(),
            privileged: false,
            run_as_group: NOBODY,
            run_as_root: false,
            run_as_user: NOBODY,
            skip_subnets: Text::default(),
            xt_mount_path: XtMountPath::default(),
        }
    }
}

impl Default for XtMountPath {
    fn default() -> Self {
        Self { mount_path: "/run".into(), name: "linkerd-proxy-init-xtables-lock".into() }
    }
}

impl Default for DebugContainer {
    fn default() -> Self {
        Self { image: Image { name: "weft/debug".into(), ..Image::default() } }
    }
}
