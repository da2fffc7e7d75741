//! Workloads that are asked about: what a cluster would not take, and what the mesh would not understand.

use super::{
    super::path::Path,
    Reading, deployment,
    meta::{self, On},
};
use crate::{
    Object,
    object::namespace_of,
    workload::{Unrun, Workload},
};
use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::apis::meta::v1::ObjectMeta};

pub(super) fn check(object: &Object, reading: &mut Reading<'_>) {
    let top = Path::default();
    let template = top.keys(&["spec", "template"]);
    match object {
        Object::Pod(pod) => {
            meta::name(&pod.metadata, meta::SUBDOMAIN, reading);
            pods(&pod.metadata, Some(&pod.metadata), pod.spec.as_ref(), &top, reading);
        }
        Object::Deployment(deployment) => {
            named(&deployment.metadata, reading);
            let Some(spec) = &deployment.spec else {
                return reading.problem(&top, "the Deployment has no spec", "give spec.selector and spec.template");
            };
            let (of, pod) = (&spec.template, spec.template.spec.as_ref());
            pods(&deployment.metadata, of.metadata.as_ref(), pod, &template, reading);
            deployment::selector(spec, reading);
        }
        Object::Unrun(workload) => {
            let Workload { kind, metadata, template: of, replicas: _, first: _ } = &**workload;
            named(metadata, reading);
            let at =
                if *kind == Unrun::CronJob { top.keys(&["spec", "jobTemplate", "spec", "template"]) } else { template };
            pods(metadata, of.metadata.as_ref(), of.spec.as_ref(), &at, reading);
        }
        _ => {}
    }
}

fn named(of: &ObjectMeta, reading: &mut Reading<'_>) {
    let top = Path::default();
    meta::name(of, meta::SUBDOMAIN, reading);
    meta::maps(of, &top, reading);
    meta::annotations(of, &top, On::Workload, reading);
}

/// What pods have in common, which stands at `at`.
fn pods(of: &ObjectMeta, metadata: Option<&ObjectMeta>, spec: Option<&PodSpec>, at: &Path, reading: &mut Reading<'_>) {
    if let Some(metadata) = metadata {
        meta::maps(metadata, at, reading);
        meta::annotations(metadata, at, On::Pod, reading);
    }
    let at = at.key("spec");
    match spec {
        Some(spec) if !spec.containers.is_empty() => deployment::accounts(spec, &at, namespace_of(of), reading),
        _ => reading.problem(&at.key("containers"), "the pod has no container", "give one"),
    }
}
