//! The pods that stand for those of a workload which nobody runs yet, where somebody asks what would be said to them: as a cluster would
//! make them, and as its injector would change them.

use super::{
    template::HASH_LABEL,
    unrun::{MINUTES, Unrun, Workload},
};
use crate::{
    Object,
    inject::{Foretold, Owner, Skip, foretell},
    object::namespace_of,
    values::Values,
};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod, PodCondition, PodStatus, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use std::collections::BTreeSet;

/// Such a pod, which runs and has no address.
pub(crate) struct Standing {
    pub(crate) pod: Pod,
    pub(crate) unsure: Unsure,
}

/// What nobody knows of a pod before it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unsure {
    /// Labels whose values the cluster chooses; one that the pod does not have it may have.
    pub(crate) labels: BTreeSet<String>,
    /// Why it is not known whether it has a proxy; it stands there with one.
    pub(crate) proxy: Option<String>,
    /// It has its node's addresses.
    pub(crate) on_node: bool,
    pub(crate) others: Others,
}

/// Whether it stands for other pods too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Others {
    #[default]
    None,
    Some,
    Unknown,
}

/// What a cluster chooses.
const CHOSEN: &str = "x";
/// Pods of a StatefulSet; more than anybody may ask about.
const MAX_PODS: i32 = 501;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const REVISION: &str = "controller-revision-hash";
const GENERATION: &str = "pod-template-generation";
const JOB_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const JOB_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// Of some Jobs.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What an object's pods have from their controller.
#[derive(Default)]
struct Made {
    /// Its kind and name, which become their owner.
    by: Option<(Unrun, String)>,
    labels: Vec<(&'static str, String)>,
    chosen: Vec<&'static str>,
    others: Others,
}

/// The pods that stand for an object's; none of one that has none, or whose pods the injector would refuse.
pub(crate) fn standing(
    object: &Object,
    namespace: Option<&Namespace>,
    values: &Values,
    control_namespace: &str,
) -> Vec<Standing> {
    let name = object.key().name;
    let (of, template, made) = match object {
        Object::Pod(pod) => {
            let template = PodTemplateSpec { metadata: Some(pod.metadata.clone()), spec: pod.spec.clone() };
            (&pod.metadata, template, Made::default())
        }
        Object::Deployment(deployment) => {
            let spec = deployment.spec.clone().unwrap_or_default();
            let made = Made {
                by: Some((Unrun::ReplicaSet, format!("{name}-{CHOSEN}"))),
                chosen: vec![HASH_LABEL],
                others: others(spec.replicas),
                ..Made::default()
            };
            (&deployment.metadata, spec.template, made)
        }
        Object::Unrun(workload) => (&workload.metadata, workload.template.clone(), Made::of(workload, &name)),
        _ => return vec![],
    };
    let PodTemplateSpec { metadata, spec } = template;
    let (metadata, mut spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    spec.service_account_name = [spec.service_account_name.take(), spec.service_account.clone()]
        .into_iter()
        .flatten()
        .find(|account| !account.is_empty());
    let Made { by, labels, chosen, others } = made;
    let mut unsure = Unsure {
        labels: chosen.iter().map(|label| (*label).to_owned()).collect(),
        proxy: None,
        on_node: spec.host_network == Some(true),
        others,
    };
    let mut all = metadata.labels.unwrap_or_default();
    let placed = chosen.into_iter().filter(|label| *label != COMPLETION_INDEX).map(|label| (label, CHOSEN.to_owned()));
    all.extend(labels.into_iter().chain(placed).map(|(label, value)| (label.to_owned(), value)));
    let owner = by.map(|(kind, name)| OwnerReference {
        kind: kind.as_str().to_owned(),
        name,
        controller: Some(true),
        ..OwnerReference::default()
    });
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace_of(of).to_owned()),
            labels: Some(all),
            annotations: metadata.annotations,
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    };
    let kind = object.kind().as_str().to_lowercase();
    match foretell(&pod, namespace, Some(Owner { kind: &kind, name: &name }), values, control_namespace) {
        Foretold::Injected(injected) => pod = *injected,
        Foretold::Unsaid(injected) => {
            let bare = pod.metadata.labels.take().unwrap_or_default();
            pod = *injected;
            unsure.proxy = Some(Skip::NotAsked.explained().to_owned());
            let given = pod.metadata.labels.iter().flatten().filter(|(label, value)| bare.get(*label) != Some(*value));
            unsure.labels.extend(given.map(|(label, _)| label.clone()));
        }
        Foretold::Left => {}
        Foretold::Refused => return vec![],
    }
    pod.metadata.owner_references = owner.map(|owner| vec![owner]);
    pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        conditions: Some(vec![PodCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
    match object {
        Object::Unrun(workload) if workload.kind == Unrun::StatefulSet => numbered(workload, &name, &pod, &unsure),
        _ => vec![Standing { pod, unsure }],
    }
}

impl Made {
    fn of(workload: &Workload, name: &str) -> Self {
        let Workload { kind, metadata: _, template: _, replicas, first: _ } = workload;
        let named = |name: &str| JOB_NAME.map(|label| (label, name.to_owned())).to_vec();
        let by = Some((*kind, name.to_owned()));
        match kind {
            Unrun::ReplicationController | Unrun::ReplicaSet => {
                Self { by, others: others(*replicas), ..Self::default() }
            }
            Unrun::StatefulSet => Self { by, chosen: vec![REVISION], ..Self::default() },
            Unrun::DaemonSet => {
                Self { by, chosen: vec![REVISION, GENERATION], others: Others::Unknown, ..Self::default() }
            }
            Unrun::Job => {
                let chosen = JOB_UID.into_iter().chain([COMPLETION_INDEX]).collect();
                Self { by, labels: named(name), chosen, others: Others::Unknown }
            }
            Unrun::CronJob => {
                let job = format!("{name}-{MINUTES}");
                let chosen = JOB_NAME.into_iter().chain(JOB_UID).chain([COMPLETION_INDEX]).collect();
                Self { by: Some((Unrun::Job, job)), labels: vec![], chosen, others: Others::Unknown }
            }
        }
    }
}

/// One that says how many runs alone until it is made anew, or scaled.
fn others(replicas: Option<i32>) -> Others {
    if replicas.is_some_and(|replicas| replicas > 1) { Others::Some } else { Others::Unknown }
}

/// Each of them is one of its own.
fn numbered(workload: &Workload, name: &str, pod: &Pod, unsure: &Unsure) -> Vec<Standing> {
    let count = workload.replicas.unwrap_or(1).clamp(1, MAX_PODS);
    let one = |index: i32| {
        let mut pod = pod.clone();
        let own = format!("{name}-{index}");
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(POD_NAME.to_owned(), own.clone());
        labels.insert(POD_INDEX.to_owned(), index.to_string());
        pod.metadata.name = Some(own);
        Standing { pod, unsure: unsure.clone() }
    };
    (0..count).map(|of| one(workload.first.saturating_add(of))).collect()
}
