//! Whether the work of a pod that runs to an end is done, so that its proxy ends too (field notes B, Jobs).
//!
//! A native sidecar is ended by the kubelet; any other proxy is a container that the pod would wait for.

use super::{Index, Refusal};
use crate::inject::PROXY;
use k8s_openapi::api::core::v1::{Container, Pod};

/// The work of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    uid: String,
    done: bool,
}

/// Whether a pod with this policy may end; one whose containers are started again for ever does not.
pub(crate) fn runs_to_an_end(restart_policy: Option<&str>) -> bool {
    matches!(restart_policy, Some("Never" | "OnFailure"))
}

impl Work {
    /// `None` of a pod that does not run to an end.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref());
        let policy = spec.restart_policy.as_deref();
        if !runs_to_an_end(policy) {
            return None;
        }
        let statuses = status.and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
        let ended = |container: &Container| {
            let status = statuses.iter().find(|status| status.name == container.name);
            let Some(end) = status.and_then(|s| s.state.as_ref()?.terminated.as_ref()) else { return false };
            match container.restart_policy.as_deref() {
                None if policy == Some("Never") => true,
                // A policy of its own may have rules by which a failure is tried again.
                None | Some("Never" | "OnFailure") => end.exit_code == 0,
                Some(_) => false,
            }
        };
        let mut others = spec.containers.iter().filter(|c| c.name != PROXY).peekable();
        let done = others.peek().is_some() && others.all(ended);
        Some(Self { uid: pod.metadata.uid.clone().unwrap_or_default(), done })
    }
}

impl Index {
    pub(super) fn work(&self, namespace: &str, name: &str, uid: &str) -> Result<bool, Refusal> {
        let pod = self.store.pod(namespace, name);
        match pod.map(|pod| &pod.work) {
            Some(Some(work)) if work.uid == uid => Ok(work.done),
            Some(None) => Ok(false),
            // An earlier or a later one of that name may be at another point.
            Some(Some(_)) | None => Err(Refusal::NotFound(format!("there is no pod {namespace}/{name} of this uid"))),
        }
    }
}
