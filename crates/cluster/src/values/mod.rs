//! The values of an installation: Helm's, under Linkerd's names.
//!
//! ```text
//! defaults ◄─ files ◄─ --set (layers) ─► refused by name ─► typed ─► checked ─► Values ─► install | inject
//! ```
//!
//! Every value of Linkerd's charts is wired here, or refused by name with what to use instead: none is accepted and forgotten.
//! Pure; who reads files and the cluster passes what they hold.

mod api_server;
mod carried;
mod check;
mod component;
mod form;
mod highly_available;
mod kind;
mod layer;
mod proxy;
mod quantity;
mod reference;
mod refused;
mod schema;
mod selectors;
mod set;
mod text;
mod variable;

pub(crate) use api_server::VOLUMES;
pub(crate) use carried::OF_LINKERDS_IMAGES;
pub use carried::carried;
pub(crate) use check::clash;
pub use component::{
    ConfigReader, Controller, ControllerMonitor, DestinationController, Identity, Issuer, KeyPair, Monitor,
    PodDisruptionBudget, PodMonitor, PolicyController, ProbeTimeout, ProxyInjector, Validator,
};
pub(crate) use form::Form;
pub use highly_available::highly_available;
pub(crate) use kind::{Kind, kinds, may_be_empty};
pub(crate) use layer::remove;
pub use layer::{Problem, Problems};
pub(crate) use proxy::NOBODY;
pub use proxy::{
    Amounts, Collector, Control, DebugContainer, Http2, Image, MeshIdentity, Metrics, Ports, ProbeTimes, Proxy,
    ProxyInit, Resources, Runtime, Server, Side, StartupTimes, Streams, Tracing, Workers, XtMountPath,
};
pub(crate) use quantity::Quantity;
pub use reference::reference;
pub(crate) use reference::rows;
pub(crate) use refused::{REFUSED, Refused};
pub use schema::schema;
pub use set::{Set, set, set_to};
pub use text::Text;
pub(crate) use variable::{Wrong, variable};

use k8s_openapi::{
    api::{
        apps::v1::{DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{LocalObjectReference, NodeAffinity, Toleration},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft_model::names;

/// The whole tree. The default is what an installation without any values has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Values {
    pub cluster_domain: Text,
    pub cluster_networks: Text,
    pub common_labels: BTreeMap<String, Text>,
    pub config_readers: Vec<ConfigReader>,
    pub controller: Controller,
    #[serde(rename = "controllerGID")]
    pub controller_gid: i64,
    pub controller_image: Text,
    /// Empty is `linkerdVersion`.
    pub controller_image_version: Text,
    pub controller_log_format: Text,
    pub controller_log_level: Text,
    pub controller_replicas: i32,
    #[serde(rename = "controllerUID")]
    pub controller_uid: i64,
    pub debug_container: DebugContainer,
    pub deployment_strategy: DeploymentStrategy,
    pub destination_controller: DestinationController,
    pub destination_proxy_resources: Option<Resources>,
    pub destination_resources: Option<Resources>,
    #[serde(rename = "disableIPv6")]
    pub disable_ipv6: bool,
    pub enable_h2_upgrade: bool,
    /// Whether the Gateway API's definitions of HTTPRoute and GRPCRoute come with the mesh's own; beats `installGatewayAPI`.
    pub enable_http_routes: Option<bool>,
    pub enable_pod_anti_affinity: bool,
    pub enable_pod_disruption_budget: bool,
    pub enable_tcp_routes: Option<bool>,
    pub enable_tls_routes: Option<bool>,
    pub high_availability: bool,
    pub identity: Identity,
    pub identity_proxy_resources: Option<Resources>,
    pub identity_resources: Option<Resources>,
    #[serde(rename = "identityTrustAnchorsPEM")]
    pub identity_trust_anchors_pem: Text,
    /// Empty is `clusterDomain`.
    pub identity_trust_domain: Text,
    pub image_pull_policy: Text,
    pub image_pull_secrets: Vec<LocalObjectReference>,
    #[serde(rename = "installGatewayAPI")]
    pub install_gateway_api: bool,
    pub linkerd_version: Text,
    pub node_affinity: Option<NodeAffinity>,
    pub node_selector: BTreeMap<String, Text>,
    pub pod_annotations: BTreeMap<String, Text>,
    pub pod_labels: BTreeMap<String, Text>,
    pub pod_monitor: PodMonitor,
    pub policy_controller: PolicyController,
    pub policy_validator: Validator,
    pub priority_class_name: Text,
    pub profile_validator: Validator,
    pub proxy: Proxy,
    pub proxy_init: ProxyInit,
    pub proxy_injector: ProxyInjector,
    pub proxy_injector_proxy_resources: Option<Resources>,
    pub proxy_injector_resources: Option<Resources>,
    pub revision_history_limit: i32,
    pub runtime_class_name: Text,
    pub tolerations: Vec<Toleration>,
    pub webhook_failure_policy: Text,
}

impl Default for Values {
    fn default() -> Self {
        let quarter = || Some(IntOrString::String("25%".to_owned()));
        Self {
            cluster_domain: names::CLUSTER_DOMAIN.into(),
            cluster_networks: "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8".into(),
            common_labels: BTreeMap::new(),
            config_readers: vec![],
            controller: Controller::default(),
            controller_gid: -1,
            controller_image: "weft/controller".into(),
            controller_image_version: Text::default(),
            controller_log_format: "plain".into(),
            controller_log_level: "info".into(),
            controller_replicas: 1,
            controller_uid: 2103,
            debug_container: DebugContainer::default(),
            deployment_strategy: DeploymentStrategy {
                rolling_update: Some(RollingUpdateDeployment { max_surge: quarter(), max_unavailable: quarter() }),
                type_: None,
            },
            destination_controller: DestinationController::default(),
            destination_proxy_resources: None,
            destination_resources: None,
            disable_ipv6: true,
            enable_h2_upgrade: true,
            enable_http_routes: None,
            enable_pod_anti_affinity: false,
            enable_pod_disruption_budget: false,
            enable_tcp_routes: None,
            enable_tls_routes: None,
            high_availability: false,
            identity: Identity::default(),
            identity_proxy_resources: None,
            identity_resources: None,
            identity_trust_anchors_pem: Text::default(),
            identity_trust_domain: Text::default(),
            image_pull_policy: "IfNotPresent".into(),
            image_pull_secrets: vec![],
            install_gateway_api: false,
            linkerd_version: env!("CARGO_PKG_VERSION").into(),
            node_affinity: None,
            node_selector: BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".into())]),
            pod_annotations: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            pod_monitor: PodMonitor::default(),
            policy_controller: PolicyController::default(),
            policy_validator: Validator::default(),
            priority_class_name: Text::default(),
            profile_validator: Validator::default(),
            proxy: Proxy::default(),
            proxy_init: ProxyInit::default(),
            proxy_injector: ProxyInjector::default(),
            proxy_injector_proxy_resources: None,
            proxy_injector_resources: None,
            revision_history_limit: 10,
            runtime_class_name: Text::default(),
            tolerations: vec![],
            webhook_failure_policy: "Ignore".into(),
        }
    }
}

impl Values {
    /// The trust domain of identities.
    pub fn trust_domain(&self) -> &str {
        self.identity_trust_domain.or(&self.cluster_domain)
    }

    /// Reads YAML as it stands somewhere already, so that what the API server would refuse is not looked for: one document, such as the key `values` of the ConfigMap `linkerd-config`, laid over the defaults.
    pub fn from_yaml(text: &str) -> Result<Self, Problems> {
        Self::read([layer::from_yaml(text)?], false)
    }

    /// The same of several files, of which the last lies on top.
    pub fn from_yamls(texts: &[&str]) -> Result<Self, Problems> {
        Self::read(texts.iter().map(|text| layer::from_yaml(text)).collect::<Result<Vec<_>, _>>()?, false)
    }

    /// What is given by all layers together, without the defaults: what a later version lays over its own.
    pub fn given(layers: impl IntoIterator<Item = serde_json::Value>) -> serde_json::Value {
        let mut given = serde_json::Value::Object(serde_json::Map::default());
        for above in layers {
            layer::lay(&mut given, above);
        }
        given
    }

    /// One layer from YAML.
    pub fn layer(text: &str) -> Result<serde_json::Value, Problems> {
        layer::from_yaml(text)
    }

    /// Lays the layers over the defaults, the last on top: maps are joined, anything else is replaced, and `null` takes an entry
    /// away, or is the default again, as Helm does. All that is wrong is told at once.
    pub fn from_layers(layers: impl IntoIterator<Item = serde_json::Value>) -> Result<Self, Problems> {
        Self::read(layers, true)
    }

    /// Where they are new, objects are still to be made of them.
    fn read(layers: impl IntoIterator<Item = serde_json::Value>, is_new: bool) -> Result<Self, Problems> {
        let mut given = Self::given(layers);
        let mut problems = refused::take_out(&mut given);
        match layer::typed(given, !is_new) {
            Err(found) => problems.extend(found),
            Ok(values) => {
                problems.extend(check::all(&values));
                if is_new {
                    problems.extend(check::api_server(&values));
                }
                if problems.is_empty() {
                    return Ok(values);
                }
            }
        }
        Err(Problems(problems))
    }
}
