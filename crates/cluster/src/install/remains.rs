//! What an installation leaves in a cluster, and who still uses it.

use super::CONFIG;
use crate::{
    inject::PROXY,
    kubernetes::{Cluster, Error, Resource},
    label, object,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

/// What is in no namespace, or outlives the control plane's: Linkerd's list, without what Kubernetes no longer has.
pub(super) const KINDS: [Resource; 10] = [
    Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"),
    Resource::new("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings"),
    Resource::new("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    Resource::new("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    DEFINITION,
    Resource::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
    ),
    Resource::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
    ),
    Resource::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ),
    Resource::new("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    Resource::new("", "v1", "Namespace", "namespaces"),
];

const DEFINITION: Resource =
    Resource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
pub(super) const CONFIG_MAP: Resource = Resource::new("", "v1", "ConfigMap", "configmaps");

/// The namespaces in which a control plane is installed, whoever's.
pub(super) async fn control_planes(cluster: &Cluster) -> Result<Vec<String>, Error> {
    let found = cluster.named(CONFIG_MAP, CONFIG).await?;
    Ok(found.iter().filter_map(|map| map["metadata"]["namespace"].as_str()).map(str::to_owned).collect())
}

/// What goes with a control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// As much of each object as deletes it. The namespace is the last: with it goes everything in it.
    pub objects: Vec<Value>,
    /// Namespaces of other control planes. These have the definitions too, with which all policies would go, so that they stay.
    pub others: Vec<String>,
}

/// What bears the label of this control plane, and none of another.
///
/// # Errors
/// The API server does not tell all.
pub async fn remains(cluster: &Cluster, namespace: &str) -> Result<Remains, Error> {
    let labels = format!("{}={namespace}", label::CONTROL_NAMESPACE);
    let mut others = control_planes(cluster).await?;
    others.retain(|of| of != namespace);
    let mut remains = vec![];
    for kind in KINDS.into_iter().filter(|kind| others.is_empty() || *kind != DEFINITION) {
        for object in cluster.objects(kind, &labels).await? {
            let mut metadata = json!({ "name": object["metadata"]["name"] });
            if let Some(namespace) = object["metadata"].get("namespace") {
                metadata["namespace"] = namespace.clone();
            }
            remains.push(json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata }));
        }
    }
    Ok(Remains { objects: remains, others })
}

/// Who would lose anything: meshed pods of this control plane, where it is the only one whatever they say that they are of, and
/// extensions. Its own pods are not counted.
pub async fn users(cluster: &Cluster, namespace: &str) -> Result<Vec<String>, Error> {
    let extensions: Vec<String> = cluster
        .namespaces("linkerd.io/extension")
        .await?
        .into_iter()
        .filter_map(|extension| extension.metadata.name)
        .collect();
    let mut users: Vec<String> = extensions.iter().map(|name| format!("the extension of namespace {name}")).collect();
    let is_only = control_planes(cluster).await?.iter().all(|of| of == namespace);
    let own = format!("{}={namespace}", label::CONTROL_NAMESPACE);
    for pod in cluster.pods(None, if is_only { label::CONTROL_NAMESPACE } else { &own }).await? {
        let of = pod.metadata.namespace.clone().unwrap_or_default();
        if of != namespace && !extensions.contains(&of) && is_running(&pod) && has_proxy(&pod) {
            users.push(format!("pod {of}/{}", pod.metadata.name.unwrap_or_default()));
        }
    }
    Ok(users)
}

fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn has_proxy(pod: &Pod) -> bool {
    let spec = pod.spec.iter();
    spec.flat_map(object::containers).any(|c| c.name == PROXY)
}
