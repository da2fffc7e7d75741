//! Workloads that nobody runs from their manifest, and the pods that stand for theirs where somebody asks what would be said to them.

use crate::{Object, label, object::namespace_of};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod, PodCondition, PodStatus, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use serde::{Deserialize, Serialize};
use weft_model::names::annotation::INJECT;

/// Their kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Unrun {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

/// One of them, as far as its pods depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    pub kind: Unrun,
    pub metadata: ObjectMeta,
    pub template: PodTemplateSpec,
}

/// The part of a name that a cluster chooses.
const HASH: &str = "x";
/// A time in minutes, by which a CronJob names a Job.
const MINUTES: &str = "00000000";

impl Unrun {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReplicationController => "ReplicationController",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }
}

/// The CronJob that has started a Job, whose name is the CronJob's and the time.
pub(crate) fn cron_job_of(job: &str) -> Option<&str> {
    let (cron_job, time) = job.rsplit_once('-')?;
    (time.len() >= MINUTES.len() && time.bytes().all(|b| b.is_ascii_digit())).then_some(cron_job)
}

/// A pod as the workload's are, which runs and has no address; `None` of an object that has none. Who injects what is applied to the
/// cluster gives each a proxy that may have one.
pub(crate) fn standing(object: &Object, namespace: Option<&Namespace>, control_namespace: &str) -> Option<Pod> {
    let name = object.key().name;
    let owner = |kind: &str, name: String| {
        Some(OwnerReference { kind: kind.to_owned(), name, controller: Some(true), ..OwnerReference::default() })
    };
    let (of, own, owner, template) = match object {
        Object::Pod(pod) => {
            let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec.clone() };
            (&pod.metadata, name, None, template)
        }
        Object::Deployment(deployment) => {
            let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
            let owner = owner(Unrun::ReplicaSet.as_str(), format!("{name}-{HASH}"));
            (&deployment.metadata, name, owner, template)
        }
        Object::Unrun(workload) => {
            let Workload { kind, metadata, template } = &**workload;
            let own = if *kind == Unrun::StatefulSet { format!("{name}-0") } else { name.clone() };
            let owner = match kind {
                Unrun::CronJob => owner(Unrun::Job.as_str(), format!("{name}-{MINUTES}")),
                _ => owner(kind.as_str(), name),
            };
            (metadata, own, owner, template.clone())
        }
        _ => return None,
    };
    let PodTemplateSpec { metadata, spec } = template;
    let (metadata, mut spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    let mut labels = metadata.labels.clone().unwrap_or_default();
    if matches!(object, Object::Deployment(_)) {
        labels.insert(super::template::HASH_LABEL.to_owned(), HASH.to_owned());
    }
    let says = |meta: &ObjectMeta| meta.annotations.as_ref()?.get(INJECT).cloned();
    let said = says(&metadata).or_else(|| says(&namespace?.metadata));
    if said.is_none_or(|said| said != "disabled") && !spec.host_network.unwrap_or(false) {
        labels.entry(label::CONTROL_NAMESPACE.to_owned()).or_insert_with(|| control_namespace.to_owned());
    }
    spec.service_account_name = [spec.service_account_name.take(), spec.service_account.clone()]
        .into_iter()
        .flatten()
        .find(|account| !account.is_empty());
    Some(Pod {
        metadata: ObjectMeta {
            name: Some(own),
            namespace: Some(namespace_of(of).to_owned()),
            labels: Some(labels),
            annotations: metadata.annotations,
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: Some(PodStatus {
            phase: Some("Running".to_owned()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        }),
    })
}
