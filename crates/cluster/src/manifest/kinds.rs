//! Which kinds of objects there are.

use crate::{Kind, policy, workload::Unrun};

/// What is done with a document of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindDecision {
    Supported(Kind),
    /// A workload that is asked about, and not run.
    Asked(Kind),
    /// `kind: List`: its items are documents.
    List,
    /// Known, and not carried out; with a remedy. It says nothing about who may call whom.
    NotYet(&'static str),
    /// The same, and it says who somebody is.
    Unread(&'static str),
    /// Known under another `apiVersion`.
    OtherVersion(&'static str),
    Unknown,
}

use KindDecision::{Asked, List, NotYet, Supported, Unread};

const POLICY: &str = "remove it: it comes in a later version; policies and the other routes work";
const CONFIG: &str = "remove it, and give its values in env";
/// For who wants to run another workload.
pub(super) const WORKLOAD: &str = "use a Deployment";
const CLUSTER: &str = "remove it: it has no meaning on one machine";
const EXTERNAL: &str = "remove it: nobody outside of this machine is of its mesh; a server there is reached by its name, or by --host-service";

const NEWEST: &str = "policy.linkerd.io/v1beta3 for a Server or an HTTPRoute, v1beta1 for a ServerAuthorization, else v1alpha1; \
                      gateway.networking.k8s.io/v1 for its routes";
const NEWEST_PROFILE: &str = "linkerd.io/v1alpha2";

/// Group (empty for core), version (empty for any), kind, decision.
const KINDS: &[(&str, &str, &str, KindDecision)] = &[
    ("", "v1", "Namespace", Supported(Kind::Namespace)),
    ("", "v1", "ServiceAccount", Supported(Kind::ServiceAccount)),
    ("", "v1", "Service", Supported(Kind::Service)),
    ("apps", "v1", "Deployment", Supported(Kind::Deployment)),
    ("", "v1", "List", List),
    ("", "v1", "ConfigMap", NotYet(CONFIG)),
    ("", "v1", "Secret", NotYet(CONFIG)),
    ("", "v1", "Pod", Asked(Kind::Pod)),
    ("", "v1", "ReplicationController", Asked(Kind::Unrun(Unrun::ReplicationController))),
    ("", "v1", "Endpoints", NotYet("remove it; for a server outside the mesh use --host-service")),
    ("", "v1", "PersistentVolume", NotYet(CLUSTER)),
    ("", "v1", "PersistentVolumeClaim", NotYet(CLUSTER)),
    ("", "v1", "LimitRange", NotYet(CLUSTER)),
    ("", "v1", "ResourceQuota", NotYet(CLUSTER)),
    ("", "v1", "Node", NotYet(CLUSTER)),
    ("apps", "v1", "StatefulSet", Asked(Kind::Unrun(Unrun::StatefulSet))),
    ("apps", "v1", "DaemonSet", Asked(Kind::Unrun(Unrun::DaemonSet))),
    ("apps", "v1", "ReplicaSet", Asked(Kind::Unrun(Unrun::ReplicaSet))),
    ("batch", "v1", "Job", Asked(Kind::Unrun(Unrun::Job))),
    ("batch", "v1", "CronJob", Asked(Kind::Unrun(Unrun::CronJob))),
    ("discovery.k8s.io", "v1", "EndpointSlice", NotYet("remove it; for a server outside the mesh use --host-service")),
    ("networking.k8s.io", "v1", "Ingress", NotYet("remove it; --publish opens a port on the host")),
    ("networking.k8s.io", "v1", "IngressClass", NotYet(CLUSTER)),
    ("networking.k8s.io", "v1", "NetworkPolicy", NotYet("remove it; config.linkerd.io/default-inbound-policy works")),
    ("autoscaling", "", "HorizontalPodAutoscaler", NotYet("remove it, and give replicas")),
    ("policy", "v1", "PodDisruptionBudget", NotYet(CLUSTER)),
    ("rbac.authorization.k8s.io", "v1", "Role", NotYet(CLUSTER)),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", NotYet(CLUSTER)),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", NotYet(CLUSTER)),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", NotYet(CLUSTER)),
    ("storage.k8s.io", "v1", "StorageClass", NotYet(CLUSTER)),
    ("scheduling.k8s.io", "v1", "PriorityClass", NotYet(CLUSTER)),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", NotYet(CLUSTER)),
    ("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", NotYet(CLUSTER)),
    ("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", NotYet(CLUSTER)),
    ("workload.linkerd.io", "", "ExternalWorkload", Unread(EXTERNAL)),
    ("multicluster.linkerd.io", "", "Link", NotYet(CLUSTER)),
    ("gateway.networking.k8s.io", "", "UDPRoute", NotYet(POLICY)),
    ("gateway.networking.k8s.io", "", "ReferenceGrant", NotYet(POLICY)),
    ("gateway.networking.k8s.io", "", "Gateway", NotYet("remove it; --publish opens a port on the host")),
    ("gateway.networking.k8s.io", "", "GatewayClass", NotYet(CLUSTER)),
    ("split.smi-spec.io", "", "TrafficSplit", NotYet(POLICY)),
];

pub(super) fn decide(api_version: &str, kind: &str) -> KindDecision {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let exact = KINDS.iter().find(|(g, v, k, _)| *g == group && (*v == version || v.is_empty()) && *k == kind);
    if let Some((.., decision)) = exact {
        return *decision;
    }
    for of_mesh in policy::KINDS {
        match policy::definition(of_mesh).filter(|defined| defined.group == group && defined.kind == kind) {
            Some(defined) if defined.versions.contains(&version) => return Supported(of_mesh),
            Some(_) if of_mesh == Kind::ServiceProfile => return KindDecision::OtherVersion(NEWEST_PROFILE),
            Some(_) => return KindDecision::OtherVersion(NEWEST),
            None => {}
        }
    }
    // Deployments were served under other groups once: the likeliest mistake is an old apiVersion.
    match KINDS.iter().find(|(.., k, d)| *k == kind && matches!(d, Supported(_) | Asked(_) | List)) {
        Some(("apps", ..)) => KindDecision::OtherVersion("apps/v1"),
        Some(("batch", ..)) => KindDecision::OtherVersion("batch/v1"),
        Some(_) => KindDecision::OtherVersion("v1"),
        None => KindDecision::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        for (api_version, kind, expected) in [
            ("apps/v1", "Deployment", Supported(Kind::Deployment)),
            ("extensions/v1beta1", "Deployment", KindDecision::OtherVersion("apps/v1")),
            ("v2", "Service", KindDecision::OtherVersion("v1")),
            ("policy.linkerd.io/v1beta3", "Server", Supported(Kind::Server)),
            ("policy.linkerd.io/v1alpha1", "Server", Supported(Kind::Server)),
            ("policy.linkerd.io/v1", "Server", KindDecision::OtherVersion(NEWEST)),
            ("policy.linkerd.io/v1alpha1", "MeshTLSAuthentication", Supported(Kind::MeshTlsAuthentication)),
            ("policy.linkerd.io/v1beta3", "HTTPRoute", Supported(Kind::MeshHttpRoute)),
            ("policy.linkerd.io/v1alpha1", "HTTPRoute", Supported(Kind::MeshHttpRoute)),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", Supported(Kind::HttpRoute)),
            ("gateway.networking.k8s.io/v1alpha2", "HTTPRoute", KindDecision::OtherVersion(NEWEST)),
            ("gateway.networking.k8s.io/v1", "GRPCRoute", Supported(Kind::GrpcRoute)),
            ("gateway.networking.k8s.io/v1", "TLSRoute", Supported(Kind::TlsRoute)),
            ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", Supported(Kind::TcpRoute)),
            ("gateway.networking.k8s.io/v1", "UDPRoute", NotYet(POLICY)),
            ("policy.linkerd.io/v1alpha1", "HTTPLocalRateLimitPolicy", Supported(Kind::HttpLocalRateLimitPolicy)),
            ("linkerd.io/v1alpha2", "ServiceProfile", Supported(Kind::ServiceProfile)),
            ("linkerd.io/v1", "ServiceProfile", KindDecision::OtherVersion(NEWEST_PROFILE)),
            ("workload.linkerd.io/v1beta1", "ExternalWorkload", Unread(EXTERNAL)),
            ("apps/v1", "StatefulSet", Asked(Kind::Unrun(Unrun::StatefulSet))),
            ("apps/v1beta2", "StatefulSet", KindDecision::OtherVersion("apps/v1")),
            ("batch/v1beta1", "CronJob", KindDecision::OtherVersion("batch/v1")),
            ("example.com/v1", "Server", KindDecision::Unknown),
            ("v1", "deployment", KindDecision::Unknown),
        ] {
            assert_eq!(decide(api_version, kind), expected, "{api_version} {kind}");
        }
    }
}
