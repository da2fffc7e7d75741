//! The object that is looked at: its kind, and where its pods are described.

use super::{Annotations, Refusal};
use crate::{label, manifest::of_another_type};
use k8s_openapi::{
    api::core::v1::{PodSpec, ServiceSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) struct Subject {
    /// In lower case, as reports name it; empty if there is none.
    pub(super) kind: String,
    pub(super) name: String,
    /// Empty if the object names none.
    pub(super) namespace: String,
    pub(super) labels: Annotations,
    pub(super) annotations: Annotations,
    pub(super) what: What,
}

/// What the mesh can do with it.
pub(super) enum What {
    Pods(Box<Pods>),
    Service(Box<ServiceSpec>),
    Namespace,
    Other,
}

/// A pod, or what all pods of a workload have in common.
pub(super) struct Pods {
    /// Where it stands in the object, as a JSON pointer; empty for a pod.
    pub(super) at: &'static str,
    /// The label that says which workload the pods belong to; a pod does not say it itself.
    pub(super) owner_label: Option<String>,
    pub(super) labels: Annotations,
    pub(super) annotations: Annotations,
    pub(super) spec: PodSpec,
}

/// Group, kind, where its pods are described.
const WORKLOADS: [(&str, &str, &str); 8] = [
    ("", "Pod", ""),
    ("", "ReplicationController", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
];

/// Whether objects of this kind may be changed, whatever their group is.
pub(super) fn is_ours(kind: &str) -> bool {
    ["List", "Namespace", "Service"].contains(&kind) || WORKLOADS.iter().any(|(_, k, _)| *k == kind)
}

impl Subject {
    pub(super) fn read(object: &Value) -> Result<Self, Refusal> {
        let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let workload = WORKLOADS.iter().find(|(g, k, _)| *k == kind && *g == group);
        let what = match (workload, group, kind) {
            (Some((.., at)), ..) => pods(object, kind, at)?,
            (None, "", "Service") => What::Service(Box::new(typed(object, "/spec")?)),
            (None, "", "Namespace") => What::Namespace,
            _ => What::Other,
        };
        let meta: ObjectMeta = match what {
            // Of others only what reports name is read.
            What::Other => meta_of_others(object),
            _ => typed(object, "/metadata")?,
        };
        Ok(Self {
            kind: kind.to_lowercase(),
            // The pods of a workload are named by the API server, behind this.
            name: meta.name.or(meta.generate_name).unwrap_or_default(),
            namespace: meta.namespace.unwrap_or_default(),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            what,
        })
    }

    /// Whether it belongs to the control plane, whose pods are made with their proxies.
    pub(super) fn is_of_the_control_plane(&self) -> bool {
        let of_pods = match &self.what {
            What::Pods(pods) => pods.labels.contains_key(label::COMPONENT),
            _ => false,
        };
        of_pods || self.labels.contains_key(label::COMPONENT)
    }
}

fn pods(object: &Value, kind: &str, at: &'static str) -> Result<What, Refusal> {
    // A workload without a template is one that only its API server could explain.
    if object.pointer(&format!("{at}/spec")).is_none_or(Value::is_null) {
        return Ok(What::Other);
    }
    let meta: ObjectMeta = typed(object, &format!("{at}/metadata"))?;
    let owner_label = (!at.is_empty()).then(|| format!("{}{}", label::PROXY_PREFIX, kind.to_lowercase()));
    Ok(What::Pods(Box::new(Pods {
        at,
        owner_label,
        labels: meta.labels.unwrap_or_default(),
        annotations: meta.annotations.unwrap_or_default(),
        spec: typed(object, &format!("{at}/spec"))?,
    })))
}

/// Reads a part of the object; what is not there is empty.
fn typed<T: DeserializeOwned + Default>(object: &Value, pointer: &str) -> Result<T, Refusal> {
    match object.pointer(pointer) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(part) => serde_path_to_error::deserialize(given(part)).map_err(|error| {
            let (within, around) = (error.path().to_string(), pointer.trim_start_matches('/').replace('/', "."));
            let field = if within == "." { around } else { format!("{around}.{within}") };
            let error = error.into_inner();
            let message = match of_another_type(&error) {
                Some((wrong, remedy)) => format!("{wrong}: {remedy}"),
                None => error.to_string(),
            };
            Refusal { field, message }
        }),
    }
}

/// Without what is `null`, which Kubernetes takes for nothing, the values of annotations and labels among it.
fn given(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(_, value)| !value.is_null());
            fields.map(|(name, value)| (name.clone(), given(value))).collect()
        }
        Value::Array(items) => items.iter().map(given).collect(),
        other => other.clone(),
    }
}

fn meta_of_others(object: &Value) -> ObjectMeta {
    let text = |key: &str| object.get("metadata")?.get(key)?.as_str().map(str::to_owned);
    ObjectMeta { name: text("name"), namespace: text("namespace"), ..ObjectMeta::default() }
}
