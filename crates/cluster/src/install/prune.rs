//! What an upgrade has left: objects with the mesh's label that this version renders no more.

use super::{ISSUER, Webhook, monitor::PODMONITOR};
use crate::{
    inject::TRUST_ROOTS,
    kubernetes::{Cluster, Error, Resource},
    label,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const RBAC: &str = "rbac.authorization.k8s.io";
const WEBHOOKS: &str = "admissionregistration.k8s.io";
const POLICY: &str = "policy.linkerd.io";

/// Linkerd's list, without what Kubernetes no longer has, and PodMonitors.
const KINDS: [Resource; 28] = [
    Resource::new(WEBHOOKS, "v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
    Resource::new(WEBHOOKS, "v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    Resource::new(WEBHOOKS, "v1", "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    Resource::new(WEBHOOKS, "v1", "ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
    Resource::new("apiregistration.k8s.io", "v1", "APIService", "apiservices"),
    Resource::new(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings"),
    Resource::new(RBAC, "v1", "ClusterRole", "clusterroles"),
    Resource::new(RBAC, "v1", "RoleBinding", "rolebindings"),
    Resource::new(RBAC, "v1", "Role", "roles"),
    Resource::new("batch", "v1", "CronJob", "cronjobs"),
    Resource::new("batch", "v1", "Job", "jobs"),
    Resource::new("apps", "v1", "DaemonSet", "daemonsets"),
    Resource::new("apps", "v1", "Deployment", "deployments"),
    Resource::new("apps", "v1", "StatefulSet", "statefulsets"),
    Resource::new("", "v1", "ReplicationController", "replicationcontrollers"),
    Resource::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource::new(POLICY, "v1alpha1", "AuthorizationPolicy", "authorizationpolicies"),
    Resource::new(POLICY, "v1alpha1", "MeshTLSAuthentication", "meshtlsauthentications"),
    Resource::new(POLICY, "v1alpha1", "NetworkAuthentication", "networkauthentications"),
    Resource::new(POLICY, "v1beta1", "ServerAuthorization", "serverauthorizations"),
    Resource::new(POLICY, "v1beta3", "Server", "servers"),
    Resource::new(POLICY, "v1beta3", "HTTPRoute", "httproutes"),
    Resource::new("linkerd.io", "v1alpha2", "ServiceProfile", "serviceprofiles"),
    PODMONITOR,
    Resource::new("", "v1", "Service", "services"),
    Resource::new("", "v1", "Secret", "secrets"),
    Resource::new("", "v1", "ConfigMap", "configmaps"),
    Resource::new("", "v1", "ServiceAccount", "serviceaccounts"),
];
const DEFINITION: Resource =
    Resource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");

/// What the mesh lives by, whoever brings it by now.
const KEPT: [&str; 5] = [
    ISSUER,
    TRUST_ROOTS,
    Webhook::ProxyInjector.secret(),
    Webhook::ProfileValidator.secret(),
    Webhook::PolicyValidator.secret(),
];

/// What is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// As much of each object as deletes it.
    pub objects: Vec<Value>,
    /// Names of definitions. They are nothing to be deleted in passing: with each go all objects of its kind.
    pub definitions: Vec<String>,
}

/// Compares a cluster with everything that is rendered for it. Of namespaced objects those in the control plane's namespace count,
/// and roles, which are elsewhere too; what another object owns is its owner's.
///
/// # Errors
/// The API server does not tell all.
pub async fn left(cluster: &Cluster, namespace: &str, rendered: &[Value]) -> Result<Left, Error> {
    let labels = format!("{}={namespace}", label::CONTROL_NAMESPACE);
    let wanted: BTreeSet<_> = rendered.iter().map(|object| id(&object["kind"], &object["metadata"])).collect();
    let mut left = Left::default();
    for kind in KINDS {
        for object in cluster.objects(kind, &labels).await? {
            let metadata = &object["metadata"];
            let is_elsewhere = metadata["namespace"].as_str().is_some_and(|of| of != namespace) && kind.group != RBAC;
            let is_kept = metadata["name"].as_str().is_some_and(|name| KEPT.contains(&name))
                || metadata["ownerReferences"].as_array().is_some_and(|owners| !owners.is_empty());
            if is_elsewhere || is_kept || wanted.contains(&id(&json!(kind.kind), metadata)) {
                continue;
            }
            let mut named = json!({ "name": metadata["name"] });
            if let Some(of) = metadata.get("namespace") {
                named["namespace"] = of.clone();
            }
            left.objects.push(json!({ "apiVersion": kind.api_version(), "kind": kind.kind, "metadata": named }));
        }
    }
    for definition in cluster.objects(DEFINITION, &labels).await? {
        if !wanted.contains(&id(&json!(DEFINITION.kind), &definition["metadata"])) {
            left.definitions.extend(definition["metadata"]["name"].as_str().map(str::to_owned));
        }
    }
    Ok(left)
}

fn id(kind: &Value, metadata: &Value) -> (String, String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(kind), text(&metadata["namespace"]), text(&metadata["name"]))
}
