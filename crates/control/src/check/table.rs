//! Every line of `weft check`: what it says, what a failure means, and what mends it.

use super::remedy::{Remedy, Renewal, UPGRADE, set, text};

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
    /// What mends it, unless the failure knows better.
    pub remedy: Remedy,
}

const fn check(
    category: &'static str,
    description: &'static str,
    anchor: &'static str,
    severity: Severity,
    remedy: Remedy,
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

const LOGS: Remedy = text("kubectl -n {namespace} describe pods");
const NEW_ISSUER: Remedy = Remedy::Renew(Renewal::Issuer);
const NEW_ROOT: Remedy = Remedy::Renew(Renewal::Root);
const RESTART: Remedy = text("kubectl -n NAMESPACE rollout restart KIND/NAME, of the pods' workload");

pub const CLIENT: Check = check(
    API,
    "can initialize the client",
    "k8s-api",
    Fatal,
    text(
        "kubectl config get-contexts, and name one by --context NAME, or another file by --kubeconfig FILE or $KUBECONFIG",
    ),
);
pub const ANSWERS: Check = check(API, "can query the Kubernetes API", "k8s-api", Fatal, text("kubectl cluster-info"));
pub const MINIMUM: Check = check(
    "kubernetes-version",
    "is running the minimum Kubernetes API version",
    "k8s-version",
    Error,
    text("kubeadm upgrade plan, or what the cluster's provider has for it: to Kubernetes 1.31 or later"),
);
pub const GATEWAY_API: Check = check(
    "gateway-api-crd",
    "the Gateway API's definitions are installed",
    "gateway-api-crd",
    Fatal,
    text(
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/download/v1.4.1/standard-install.yaml",
    ),
);
/// Asked first: where a mesh is, the namespace is its own.
pub const NO_MESH: Check = check(
    PRE,
    "no control plane is installed already",
    "pre-mesh",
    Error,
    text(
        "weft upgrade --crds | kubectl apply -f - && weft upgrade | kubectl apply -f -, which carries on what is there, weft's or Linkerd's",
    ),
);
pub const FREE: Check = check(
    PRE,
    "control plane namespace does not already exist",
    "pre-ns",
    Error,
    text(
        "weft check --pre --linkerd-namespace NAME, of another; or, if {namespace} is meant for the mesh, go on: weft install leaves what \
         is in it",
    ),
);
const PRE: &str = "pre-kubernetes-setup";
const RIGHTS: Remedy = text(
    "kubectl create clusterrolebinding weft-install --clusterrole=cluster-admin --user=NAME, typed by a cluster's administrator",
);
pub const CLUSTER_OBJECTS: Check =
    check(PRE, "can create non-namespaced resources", "pre-k8s-cluster-k8s", Error, RIGHTS);
pub const CREATE_ACCOUNTS: Check = check(PRE, "can create ServiceAccounts", "pre-k8s", Error, RIGHTS);
pub const CREATE_SERVICES: Check = check(PRE, "can create Services", "pre-k8s", Error, RIGHTS);
pub const CREATE_DEPLOYMENTS: Check = check(PRE, "can create Deployments", "pre-k8s", Error, RIGHTS);
pub const CREATE_CONFIG_MAPS: Check = check(PRE, "can create ConfigMaps", "pre-k8s", Error, RIGHTS);
pub const CREATE_SECRETS: Check = check(PRE, "can create Secrets", "pre-k8s", Error, RIGHTS);
pub const READ_SECRETS: Check = check(PRE, "can read Secrets", "pre-k8s", Error, RIGHTS);
pub const CLOCK: Check = check(
    PRE,
    "no clock skew detected",
    "pre-k8s-clock-skew",
    Warning,
    text(
        "sudo timedatectl set-ntp true, on this machine and on the nodes that are named: certificates hold from a moment on",
    ),
);
pub const DEFINED: Check = check(
    "linkerd-crd",
    "the mesh's own kinds are defined",
    "l5d-existence-crd",
    Fatal,
    text("weft install --crds -L {namespace} | kubectl apply -f -"),
)
.retried();

pub const NAMESPACE: Check = check(CONFIG, "control plane Namespace exists", "l5d-existence-ns", Fatal, UPGRADE);
pub const ROLES: Check = check(CONFIG, "control plane ClusterRoles exist", "l5d-existence-cr", Fatal, UPGRADE);
pub const BINDINGS: Check =
    check(CONFIG, "control plane ClusterRoleBindings exist", "l5d-existence-crb", Fatal, UPGRADE);
pub const ACCOUNTS: Check = check(
    CONFIG,
    "control plane ServiceAccounts exist",
    "l5d-existence-sa",
    Fatal,
    // A token is of the very object that was there.
    Remedy::UpgradeAndRestart,
);
pub const DEFINITIONS: Check =
    check(CONFIG, "control plane CustomResourceDefinitions exist", "l5d-existence-crd", Fatal, Remedy::UpgradeCrds);
pub const SERVICES: Check = check(CONFIG, "control plane Services exist", "l5d-existence-svc", Fatal, UPGRADE);
pub const MUTATING: Check =
    check(CONFIG, "control plane MutatingWebhookConfigurations exist", "l5d-existence-mwc", Fatal, UPGRADE);
pub const VALIDATING: Check =
    check(CONFIG, "control plane ValidatingWebhookConfigurations exist", "l5d-existence-vwc", Fatal, UPGRADE);
pub const CONFIGURED: Check =
    check(CONFIG, "control plane webhooks are asked as installed", "l5d-webhooks-asked", Error, UPGRADE);

pub const SERVERS: Check = check(CONFIG, "control plane Servers exist", "l5d-existence-servers", Fatal, UPGRADE);
pub const SERVER_AUTHORIZATIONS: Check =
    check(CONFIG, "control plane ServerAuthorizations exist", "l5d-existence-server-authorizations", Fatal, UPGRADE);

pub const RUN_AS_ROOT: Check = check(
    CONFIG,
    "proxy-init container runs as root user if docker container runtime is used",
    "l5d-proxy-init-run-as-root",
    Error,
    set("--set proxyInit.runAsRoot=true"),
);

pub const VALUES: Check = check(
    EXISTENCE,
    "'linkerd-config' config map exists",
    "l5d-existence-linkerd-config",
    Fatal,
    text("weft install -L {namespace} --crds | kubectl apply -f - && weft install -L {namespace} | kubectl apply -f -"),
);
pub const REPLICAS: Check =
    check(EXISTENCE, "control plane replica sets are ready", "l5d-existence-replicasets", Fatal, LOGS).retried();
pub const SCHEDULABLE: Check =
    check(EXISTENCE, "no unschedulable pods", "l5d-existence-unschedulable-pods", Warning, LOGS).retried();
pub const READY: Check =
    check(EXISTENCE, "control plane pods are ready", "l5d-api-control-ready", Fatal, LOGS).retried();
const NETWORKS: Remedy = set("--set 'clusterNetworks=NETWORK\\,NETWORK'");
pub const NODE_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all node podCIDRs", "l5d-cluster-networks-cidr", Error, NETWORKS);
pub const POD_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all pods", "l5d-cluster-networks-pods", Error, NETWORKS);
pub const SERVICE_NETWORKS: Check =
    check(EXISTENCE, "cluster networks contains all services", "l5d-cluster-networks-pods", Error, NETWORKS);

pub const ANCHORS: Check =
    check(IDENTITY, "certificate config is valid", "l5d-identity-cert-config-valid", Fatal, NEW_ISSUER);
pub const ANCHORS_ALGORITHM: Check = check(
    IDENTITY,
    "trust anchors are using supported crypto algorithm",
    "l5d-identity-trustAnchors-use-supported-crypto",
    Fatal,
    NEW_ROOT,
);
pub const ANCHORS_NOW: Check = check(
    IDENTITY,
    "trust anchors are within their validity period",
    "l5d-identity-trustAnchors-are-time-valid",
    Fatal,
    Remedy::Renew(Renewal::RootAndIssuer),
);
pub const ANCHORS_SOON: Check = check(
    IDENTITY,
    "trust anchors are valid for at least 60 days",
    "l5d-identity-trustAnchors-not-expiring-soon",
    Warning,
    NEW_ROOT,
);
pub const ISSUER_ALGORITHM: Check = check(
    IDENTITY,
    "issuer cert is using supported crypto algorithm",
    "l5d-identity-issuer-cert-uses-supported-crypto",
    Fatal,
    NEW_ISSUER,
);
pub const ISSUER_NOW: Check = check(
    IDENTITY,
    "issuer cert is within its validity period",
    "l5d-identity-issuer-cert-is-time-valid",
    Fatal,
    Remedy::Renew(Renewal::EndedIssuer),
);
pub const ISSUER_SOON: Check = check(
    IDENTITY,
    "issuer cert is valid for at least 60 days",
    "l5d-identity-issuer-cert-not-expiring-soon",
    Warning,
    NEW_ISSUER,
);
pub const ISSUED: Check = check(
    IDENTITY,
    "issuer cert is issued by the trust anchor",
    "l5d-identity-issuer-cert-issued-by-trust-anchor",
    Error,
    Remedy::Renew(Renewal::EndedIssuer),
);

pub const INJECTOR: Check =
    check(WEBHOOKS, "proxy-injector webhook has valid cert", "l5d-proxy-injector-webhook-cert-valid", Fatal, UPGRADE);
pub const INJECTOR_SOON: Check = check(
    WEBHOOKS,
    "proxy-injector cert is valid for at least 60 days",
    "l5d-proxy-injector-webhook-cert-not-expiring-soon",
    Warning,
    UPGRADE,
);

pub const TRUSTED: Check = check(
    "linkerd-identity-data-plane",
    "data plane proxies certificate match CA",
    "l5d-identity-data-plane-proxies-certs-match-ca",
    Warning,
    RESTART,
);

pub const SAME_VERSION: Check =
    check(VERSION, "control plane and cli versions match", "l5d-version-control", Warning, Remedy::UpgradeAll);
pub const PROXIES: Check =
    check(PROXY, "control plane proxies are healthy", "l5d-cp-proxy-healthy", Fatal, LOGS).retried();

pub const PROXIES_VERSION: Check =
    check(PROXY, "control plane proxies and cli versions match", "l5d-cp-proxy-cli-version", Warning, UPGRADE);

pub const QUARANTINED: Check = check(
    "linkerd-policy",
    "policies can be carried out",
    "l5d-policy-quarantined",
    Error,
    text("kubectl -n NAMESPACE edit KIND/NAME, or delete: it has no effect at all"),
);

pub const DATA_NAMESPACE: Check = check(
    DATA_PLANE,
    "data plane namespace exists",
    "l5d-data-plane-exists",
    Fatal,
    text("kubectl get namespaces, and name one by --namespace"),
);
pub const DATA_PROXIES: Check = check(
    DATA_PLANE,
    "data plane proxies are ready",
    "l5d-data-plane-ready",
    Fatal,
    text("kubectl -n NAMESPACE describe pod NAME"),
)
.retried();
pub const UNMESHED: Check =
    check(DATA_PLANE, "pods that ask for a proxy have one", "l5d-data-plane-injected", Warning, RESTART);

pub const PROFILES: Check =
    check(WEBHOOKS, "sp-validator webhook has valid cert", "l5d-sp-validator-webhook-cert-valid", Fatal, UPGRADE);
pub const PROFILES_SOON: Check = check(
    WEBHOOKS,
    "sp-validator cert is valid for at least 60 days",
    "l5d-sp-validator-webhook-cert-not-expiring-soon",
    Warning,
    UPGRADE,
);
pub const POLICIES: Check = check(
    WEBHOOKS,
    "policy-validator webhook has valid cert",
    "l5d-policy-validator-webhook-cert-valid",
    Fatal,
    UPGRADE,
);
pub const POLICIES_SOON: Check = check(
    WEBHOOKS,
    "policy-validator cert is valid for at least 60 days",
    "l5d-policy-validator-webhook-cert-not-expiring-soon",
    Warning,
    UPGRADE,
);

pub const DATA_VERSION: Check =
    check(DATA_PLANE, "data plane and cli versions match", "l5d-data-plane-cli-version", Warning, RESTART);
const ANNOTATE: Remedy =
    text("kubectl -n NAMESPACE edit KIND/NAME, and write it as an annotation: as a label it has no effect");
pub const POD_LABELS: Check =
    check(DATA_PLANE, "data plane pod labels are configured correctly", "l5d-data-plane-pod-labels", Warning, ANNOTATE);
pub const SERVICE_LABELS: Check = check(
    DATA_PLANE,
    "data plane service labels are configured correctly",
    "l5d-data-plane-services-labels",
    Warning,
    ANNOTATE,
);
pub const SERVICE_ANNOTATIONS: Check = check(
    DATA_PLANE,
    "data plane service annotations are configured correctly",
    "l5d-data-plane-services-annotations",
    Warning,
    text(
        "kubectl -n NAMESPACE annotate service NAME KEY- && kubectl -n NAMESPACE label --overwrite service NAME KEY=VALUE",
    ),
);
pub const OPAQUE_PORTS: Check = check(
    DATA_PLANE,
    "opaque ports are properly annotated",
    "linkerd-opaque-ports-definition",
    Warning,
    text(
        "kubectl -n NAMESPACE annotate --overwrite service NAME config.linkerd.io/opaque-ports=VALUE, as its pods have it",
    ),
);

pub const PROBES: Check = check(
    DATA_PLANE,
    "HTTP probes of pods are let in",
    "l5d-data-plane-probes",
    Warning,
    text(
        "echo 'LIST' | kubectl apply -f -, of a route of their own and who may take it: with its first route a Server lets in none by itself \
         (docs/authorization.md)",
    ),
);

pub const SEVERAL: Check = check(
    "linkerd-ha-checks",
    "multiple replicas of control plane pods",
    "l5d-control-plane-replicas",
    Warning,
    set("--set controllerReplicas=3"),
)
.retried();
pub const EXTENSIONS: Check = check(
    "linkerd-extension-checks",
    "namespace configuration for extensions",
    "l5d-extension-namespaces",
    Warning,
    text("kubectl label namespace NAME linkerd.io/extension-, of all but one of the namespaces"),
);

/// Those of a mesh on one machine, which `weft-local` asks.
pub mod local {
    use super::{
        Check,
        Severity::{Error, Fatal, Warning},
        check, text,
    };

    const MESH: &str = "local-mesh";

    pub const ANSWERS: Check = check(MESH, "the mesh answers", "local-answers", Fatal, text("weft up -f DIR"));
    pub const SAME_VERSION: Check = check(
        MESH,
        "mesh and cli versions match",
        "local-version",
        Warning,
        text("weft down && weft up -f DIR, or use the weft of the mesh's version"),
    );
    pub const CONTROL_PLANE: Check = check(
        MESH,
        "the control plane is ready",
        "local-control-plane",
        Fatal,
        text("weft logs linkerd/control-plane"),
    )
    .retried();
    pub const ROOT_SOON: Check = check(
        MESH,
        "the root certificate is valid for at least 60 days",
        "local-root",
        Warning,
        text("weft down, remove the folder ca of the state folder, weft up -f DIR: everybody gets a new certificate"),
    );
    pub const ISSUER_NOW: Check = check(
        MESH,
        "the issuer's certificate is within its validity period",
        "local-issuer",
        Error,
        text("weft logs linkerd/control-plane, which says why it was not renewed"),
    );
    pub const MANIFESTS: Check = check(
        MESH,
        "all manifests are carried out",
        "local-manifests",
        Error,
        text("correct the manifests: changes on disk are applied"),
    );
    pub const PUBLISHED: Check = check(
        MESH,
        "published ports are open",
        "local-published",
        Error,
        text("weft down && weft up --publish another port"),
    );
    pub const NAMESPACE: Check =
        check(MESH, "data plane namespace exists", "local-namespace", Fatal, text("name another by --namespace"));
    pub const PODS: Check =
        check(MESH, "the pods are ready", "local-pods", Error, text("weft logs NAMESPACE/NAME")).retried();
}

/// All of [`local`], in the order in which they are shown.
pub const LOCAL: &[&Check] = &[
    &local::ANSWERS,
    &local::SAME_VERSION,
    &local::CONTROL_PLANE,
    &local::ROOT_SOON,
    &local::ISSUER_NOW,
    &local::MANIFESTS,
    &local::PUBLISHED,
    &local::NAMESPACE,
    &local::PODS,
];

/// All of a cluster's, in the order in which they are shown.
pub const ALL: &[&Check] = &[
    &CLIENT,
    &ANSWERS,
    &MINIMUM,
    &GATEWAY_API,
    &NO_MESH,
    &FREE,
    &CLUSTER_OBJECTS,
    &CREATE_ACCOUNTS,
    &CREATE_SERVICES,
    &CREATE_DEPLOYMENTS,
    &CREATE_CONFIG_MAPS,
    &CREATE_SECRETS,
    &READ_SECRETS,
    &CLOCK,
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
    &SERVICES,
    &MUTATING,
    &VALIDATING,
    &CONFIGURED,
    &SERVERS,
    &SERVER_AUTHORIZATIONS,
    &RUN_AS_ROOT,
    &ANCHORS,
    &ANCHORS_ALGORITHM,
    &ANCHORS_NOW,
    &ANCHORS_SOON,
    &ISSUER_ALGORITHM,
    &ISSUER_NOW,
    &ISSUER_SOON,
    &ISSUED,
    &INJECTOR,
    &INJECTOR_SOON,
    &PROFILES,
    &PROFILES_SOON,
    &POLICIES,
    &POLICIES_SOON,
    &TRUSTED,
    &SAME_VERSION,
    &PROXIES,
    &PROXIES_VERSION,
    &QUARANTINED,
    &DATA_NAMESPACE,
    &DATA_PROXIES,
    &UNMESHED,
    &DATA_VERSION,
    &POD_LABELS,
    &SERVICE_LABELS,
    &SERVICE_ANNOTATIONS,
    &OPAQUE_PORTS,
    &PROBES,
    &SEVERAL,
    &EXTENSIONS,
];
