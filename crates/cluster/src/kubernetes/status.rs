//! Writes statuses: one merge patch each, which fails where somebody else has changed the object since.

use super::{Client, client};
use crate::policy::{definition, status};
use kube::{
    Api,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use std::time::Duration;

/// Of one patch.
const ANSWER: Duration = Duration::from_secs(5);

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    Done,
    /// The object is another one by now, or gone: what it should say is decided anew.
    Outdated,
    Failed(String),
}

/// Writes one status.
pub async fn write_status(client: &Client, patch: &status::Patch) -> Written {
    let version = patch.api_version.rsplit('/').next().unwrap_or_default();
    let Some(of) = definition(patch.key.kind) else { return Written::Outdated };
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(of.group, version, of.kind), of.plural);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &patch.key.namespace, &resource);
    let params = PatchParams::default();
    match tokio::time::timeout(ANSWER, api.patch_status(&patch.key.name, &params, &Patch::Merge(&patch.body))).await {
        Ok(Ok(_)) => Written::Done,
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Written::Outdated,
        Ok(Err(error)) => Written::Failed(client::reason(&error)),
        Err(_) => Written::Failed(format!("no answer within {ANSWER:?}")),
    }
}
