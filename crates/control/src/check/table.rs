//! Every line of `weft check`: what it says, what a failure means, and what mends it.

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing behind it can be looked at.
    Fatal,
    Error,
    Warning,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    pub category: &'static str,
    pub description: &'static str,
    /// Linkerd's name for the hint.
    pub anchor: &'static str,
    pub severity: Severity,
    /// Whether it may come true by itself, so that it is waited for.
    pub retried: bool,
    /// A command, or what to do.
    pub remedy: &'static str,
}

const fn check(
    category: &'static str,
    description: &'static str,
    anchor: &'static str,
    severity: Severity,
    remedy: &'static str,
) -> Check {
    Check { category, description, anchor, severity, retried: false, remedy }
}

impl Check {
    const fn retried(mut self) -> Self {
        self.retried = true;
        self
    }
}

use Severity::{Error, Fatal, Warning};

const API: &str = "kubernetes-api";
const EXISTENCE: &str = "linkerd-existence";
const CONFIG: &str = "linkerd-config";
const IDENTITY: &str = "linkerd-identity";
const WEBHOOKS: &str = "linkerd-webhooks-and-apisvc-tls";
const VERSION: &str = "control-plane-version";
const PROXY: &str = "linkerd-control-plane-proxy";
const DATA_PLANE: &str = "linkerd-data-plane";

const UPGRADE: &str = "weft upgrade | kubectl apply -f -";
const INSTALL_CRDS: &str = "weft install --crds | kubectl apply -f -";
const UPGRADE_CRDS: &str = "weft upgrade --crds | kubectl apply -f -";
const LOGS: &str = "kubectl -n NAMESPACE describe pods";
const ROTATE: &str = "docs/certificates.md says how an issuer and a root are replaced without cutting anybody off";

pub(super) const CLIENT: Check = check(
    API,
    "can initialize the client",
    "k8s-api",
    Fatal,
    "name a cluster by --kubeconfig FILE, --context NAME or $KUBECONFIG",
);
pub(super) const ANSWERS: Check = check(API, "can query the Kubernetes API", "k8s-api", Fatal, "kubectl cluster-info");
pub(super) const MINIMUM: Check = check(
    "kubernetes-version",
    "is running the minimum Kubernetes API version",
    "k8s-version",
    Error,
    "upgrade the cluster to Kubernetes 1.31 or later",
);
pub(super) const GATEWAY_API: Check = check(
    "gateway-api-crd",
    "the Gateway API's definitions are installed",
    "gateway-api-crd",
    Fatal,
    "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml",
);
pub(super) const FREE: Check = check(
    "pre-kubernetes-setup",
    "control plane namespace does not already exist",
    "pre-ns",
    Error,
    "weft uninstall | kubectl delete -f -",
);
pub(super) const DEFINED: Check =
    check("linkerd-crd", "the mesh's own kinds are defined", "l5d-existence-crd", Fatal, INSTALL_CRDS).retried();

pub(super) const NAMESPACE: Check = check(CONFIG, "control plane Namespace exists", "l5d-existence-ns", Fatal, UPGRADE);
pub(super) const ROLES: Check = check(CONFIG, "control plane ClusterRoles exist", "l5d-existence-cr", Fatal, UPGRADE);
pub(super) const BINDINGS: Check =
    check(CONFIG, "control plane ClusterRoleBindings exist", "l5d-existence-crb", Fatal, UPGRADE);
pub(super) const ACCOUNTS: Check =
    check(CONFIG, "control plane ServiceAccounts exist", "l5d-existence-sa", Fatal, UPGRADE);
pub(super) const DEFINITIONS: Check =
    check(CONFIG, "control plane CustomResourceDefinitions exist", "l5d-existence-crd", Fatal, UPGRADE_CRDS);
pub(super) const MUTATING: Check =
    check(CONFIG, "control plane MutatingWebhookConfigurations exist", "l5d-existence-mwc", Fatal, UPGRADE);

pub(super) const VALUES: Check = check(
    EXISTENCE,
    "'linkerd-config' config map exists",
    "l5d-existence-linkerd-config",
    Fatal,
    "weft install --crds | kubectl apply -f - && weft install | kubectl apply -f -",
);
pub(super) const REPLICAS: Check =
    check(EXISTENCE, "control plane replica sets are ready", "l5d-existence-replicasets", Fatal, LOGS).retried();
pub(super) const SCHEDULABLE: Check =
    check(EXISTENCE, "no unschedulable pods", "l5d-existence-unschedulable-pods", Warning, LOGS).retried();
pub(super) const READY: Check =
    check(EXISTENCE, "control plane pods are ready", "l5d-api-control-ready", Fatal, LOGS).retried();
const NETWORKS: &str =
    "weft upgrade --set clusterNetworks=… | kubectl apply -f -, with all networks of nodes, pods and Services";
pub(super) const NODE_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all node podCIDRs", "l5d-cluster-networks-cidr", Error, NETWORKS);
pub(super) const POD_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all pods", "l5d-cluster-networks-pods", Error, NETWORKS);
pub(super) const SERVICE_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all services", "l5d-cluster-networks-pods", Error, NETWORKS);

pub(super) const ANCHORS: Check = check(
    IDENTITY,
    "certificate config is valid",
    "l5d-identity-cert-config-valid",
    Fatal,
    "bring the ConfigMap linkerd-identity-trust-roots and the Secret linkerd-identity-issuer in order",
);
pub(super) const ANCHORS_NOW: Check = check(
    IDENTITY,
    "trust anchors are within their validity period",
    "l5d-identity-trustAnchors-are-time-valid",
    Fatal,
    ROTATE,
);
pub(super) const ANCHORS_SOON: Check = check(
    IDENTITY,
    "trust anchors are valid for at least 60 days",
    "l5d-identity-trustAnchors-not-expiring-soon",
    Warning,
    ROTATE,
);
pub(super) const ISSUER_NOW: Check = check(
    IDENTITY,
    "issuer cert is within its validity period",
    "l5d-identity-issuer-cert-is-time-valid",
    Fatal,
    ROTATE,
);
pub(super) const ISSUER_SOON: Check = check(
    IDENTITY,
    "issuer cert is valid for at least 60 days",
    "l5d-identity-issuer-cert-not-expiring-soon",
    Warning,
    ROTATE,
);
pub(super) const ISSUED: Check = check(
    IDENTITY,
    "issuer cert is issued by the trust anchor",
    "l5d-identity-issuer-cert-issued-by-trust-anchor",
    Error,
    ROTATE,
);

pub(super) const INJECTOR: Check =
    check(WEBHOOKS, "proxy-injector webhook has valid cert", "l5d-proxy-injector-webhook-cert-valid", Fatal, UPGRADE);
pub(super) const INJECTOR_SOON: Check = check(
    WEBHOOKS,
    "proxy-injector cert is valid for at least 60 days",
    "l5d-proxy-injector-webhook-cert-not-expiring-soon",
    Warning,
    UPGRADE,
);

pub(super) const SAME_VERSION: Check = check(
    VERSION,
    "control plane and cli versions match",
    "l5d-version-control",
    Warning,
    "weft upgrade --crds | kubectl apply -f - && weft upgrade | kubectl apply -f -, or use the weft of the control plane's version",
);
pub(super) const PROXIES: Check =
    check(PROXY, "control plane proxies are healthy", "l5d-cp-proxy-healthy", Fatal, LOGS).retried();

pub(super) const DATA_NAMESPACE: Check =
    check(DATA_PLANE, "data plane namespace exists", "l5d-data-plane-exists", Fatal, "name another by --namespace");
pub(super) const DATA_PROXIES: Check =
    check(DATA_PLANE, "data plane proxies are ready", "l5d-data-plane-ready", Fatal, "kubectl describe the pod")
        .retried();
pub(super) const UNMESHED: Check = check(
    DATA_PLANE,
    "pods that ask for a proxy have one",
    "l5d-data-plane-injected",
    Warning,
    "kubectl rollout restart their workload: they were made while the injector was away, or before they asked",
);

/// All of them, in the order in which they are shown.
pub const ALL: &[&Check] = &[
    &CLIENT,
    &ANSWERS,
    &MINIMUM,
    &GATEWAY_API,
    &FREE,
    &DEFINED,
    &VALUES,
    &REPLICAS,
    &SCHEDULABLE,
    &READY,
    &NODE_NETWORKS,
    &POD_NETWORKS,
    &SERVICE_NETWORKS,
    &NAMESPACE,
    &ROLES,
    &BINDINGS,
    &ACCOUNTS,
    &DEFINITIONS,
    &MUTATING,
    &ANCHORS,
    &ANCHORS_NOW,
    &ANCHORS_SOON,
    &ISSUER_NOW,
    &ISSUER_SOON,
    &ISSUED,
    &INJECTOR,
    &INJECTOR_SOON,
    &SAME_VERSION,
    &PROXIES,
    &DATA_NAMESPACE,
    &DATA_PROXIES,
    &UNMESHED,
];
