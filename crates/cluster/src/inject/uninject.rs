//! Takes away from an object what injection has written.

use super::{
    INIT, Outcome, PROXY, Refusal, Report,
    patch::Patch,
    sidecar,
    subject::{Subject, What},
};
use serde_json::Value;
use weft_model::names::annotation as names;

/// `weft uninject`. Annotations that configure the mesh stay, as does the word that a pod gets no proxy.
pub fn uninject(object: &Value) -> Result<Outcome, Vec<Refusal>> {
    let subject = Subject::read(object).map_err(|refusal| vec![refusal])?;
    let mut report = Report::of(&subject);
    let mut patch = Patch::new(object.clone());
    match &subject.what {
        // Its proxies are part of it.
        _ if subject.is_of_the_control_plane() => {}
        What::Pods(pods) => {
            let at = pods.at;
            let ours = |name: &str, _: &Value| name == PROXY || name == INIT;
            for list in ["initContainers", "containers"] {
                report.uninjected |= patch.remove_all(&format!("{at}/spec/{list}"), ours);
            }
            patch.remove_all(&format!("{at}/spec/volumes"), |name, _| sidecar::is_volume(name));
            report.uninjected |= metadata(&mut patch, "");
            if !at.is_empty() {
                report.uninjected |= metadata(&mut patch, at);
            }
        }
        What::Service(_) | What::Namespace => report.uninjected = metadata(&mut patch, ""),
        What::Other => {}
    }
    Ok(Outcome::new(patch, report, vec![]))
}

/// Whether there was anything.
fn metadata(patch: &mut Patch, at: &str) -> bool {
    const PREFIX: &str = "linkerd.io/";
    let ours = |key: &str, value: &Value| {
        let kept = key == names::INJECT && value.as_str() == Some("disabled");
        key.starts_with(PREFIX) && !kept
    };
    let annotations = patch.remove_all(&format!("{at}/metadata/annotations"), ours);
    patch.remove_all(&format!("{at}/metadata/labels"), |key, _| key.starts_with(PREFIX));
    annotations
}
