//! Takes away from an object what injection has written.

use super::{
    INIT, Outcome, PROXY, Refusal, Report,
    patch::Patch,
    sidecar,
    subject::{Subject, What},
};
use crate::object;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::Value;
use std::collections::BTreeSet;
use weft_model::names::annotation as names;

/// `weft uninject`. Annotations that configure the mesh stay, as does the word that a pod gets no proxy.
pub fn uninject(object: &Value) -> Result<Outcome, Vec<Refusal>> {
    without(object, &["disabled"])
}

/// Before a proxy is asked for, or written, anew: in which mode stays as well.
pub(super) fn uninject_for_another(object: &Value) -> Result<Outcome, Vec<Refusal>> {
    without(object, &["disabled", "ingress"])
}

/// `modes` of injection stay.
fn without(object: &Value, modes: &[&str]) -> Result<Outcome, Vec<Refusal>> {
    let subject = Subject::read(object).map_err(|refusal| vec![refusal])?;
    let mut report = Report::of(&subject);
    let mut patch = Patch::new(object.clone());
    match &subject.what {
        // Its proxies are part of it.
        _ if subject.is_of_the_control_plane() => {}
        What::Pods(pods) => {
            let at = pods.at;
            let volumes = volumes(&pods.spec);
            let ours = |name: &str, _: &Value| is_ours(name);
            for list in ["initContainers", "containers"] {
                report.uninjected |= patch.remove_all(&format!("{at}/spec/{list}"), ours);
            }
            patch.remove_all(&format!("{at}/spec/volumes"), |name, _| volumes.contains(name));
            report.uninjected |= metadata(&mut patch, "", modes);
            if !at.is_empty() {
                report.uninjected |= metadata(&mut patch, at, modes);
            }
        }
        What::Service(_) | What::Namespace => report.uninjected = metadata(&mut patch, "", modes),
        What::Other => {}
    }
    Ok(Outcome::new(patch, report, vec![]))
}

fn is_ours(container: &str) -> bool {
    container == PROXY || container == INIT
}

/// Those that come and go with the proxy: installations name one of them, and what else it mounts others do as well.
fn volumes(spec: &PodSpec) -> BTreeSet<&str> {
    let (mut ours, mut others) = (BTreeSet::from(sidecar::VOLUMES), BTreeSet::new());
    for container in object::containers(spec) {
        let mounted = container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str());
        if is_ours(&container.name) { ours.extend(mounted) } else { others.extend(mounted) }
    }
    &ours - &others
}

/// Whether there was anything.
fn metadata(patch: &mut Patch, at: &str, modes: &[&str]) -> bool {
    const PREFIX: &str = "linkerd.io/";
    let ours = |key: &str, value: &Value| {
        let kept = key == names::INJECT && value.as_str().is_some_and(|mode| modes.contains(&mode));
        key.starts_with(PREFIX) && !kept
    };
    let annotations = patch.remove_all(&format!("{at}/metadata/annotations"), ours);
    let labels = patch.remove_all(&format!("{at}/metadata/labels"), |key, _| key.starts_with(PREFIX));
    annotations || labels
}
