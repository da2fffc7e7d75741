//! Single look-ups, for what is needed of one object at once.

use super::{Client, Error, events::About};
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1::Namespace},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Api;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    time::Duration,
};

/// Shorter than the API server waits for a webhook.
const ANSWER: Duration = Duration::from_secs(4);
/// ReplicaSets and Jobs whose owner is remembered.
const MAX_OWNERS: usize = 10_000;

/// Asks for objects by name.
pub struct Lookup {
    client: Client,
    /// The workloads of ReplicaSets and Jobs, by the uid of these: no object changes to whom it belongs.
    owners: Mutex<HashMap<String, About>>,
}

impl Lookup {
    pub fn new(client: Client) -> Self {
        Self { client, owners: Mutex::default() }
    }

    /// The annotations of a namespace; `None` if there is no such namespace.
    ///
    /// # Errors
    /// The API server did not answer.
    pub async fn annotations_of_namespace(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let found = self.metadata::<Namespace>(Api::all(self.client.clone()), name).await?;
        Ok(found.map(|m| m.annotations.unwrap_or_default()))
    }

    /// The workload at the top of a pod: its Deployment rather than its ReplicaSet, its CronJob rather than its Job. `None` if it
    /// belongs to nobody, or to several. Where the API server does not answer it is the pod's direct owner.
    pub async fn owner(&self, namespace: &str, pod: &ObjectMeta) -> Option<About> {
        let direct = only(pod)?;
        let about = |owner: &OwnerReference| About {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            namespace: namespace.to_owned(),
            name: owner.name.clone(),
        };
        let client = self.client.clone();
        let above = match direct.kind.as_str() {
            "ReplicaSet" | "Job" => {
                if let Some(known) = self.owners.lock().get(&direct.uid) {
                    return Some(known.clone());
                }
                match direct.kind.as_str() {
                    "Job" => self.metadata::<Job>(Api::namespaced(client, namespace), &direct.name).await,
                    _ => self.metadata::<ReplicaSet>(Api::namespaced(client, namespace), &direct.name).await,
                }
            }
            _ => return Some(about(direct)),
        };
        match above {
            // An object of that name that is another's uid is another one.
            Ok(found) => {
                let above = found.filter(|found| found.uid.as_ref() == Some(&direct.uid));
                let top = above.as_ref().and_then(only).filter(|top| direct.kind != "Job" || top.kind == "CronJob");
                let owner = about(top.unwrap_or(direct));
                if above.is_some() {
                    let mut owners = self.owners.lock();
                    if owners.len() >= MAX_OWNERS {
                        owners.clear();
                    }
                    owners.insert(direct.uid.clone(), owner.clone());
                }
                Some(owner)
            }
            Err(error) => {
                tracing::warn!(%error, kind = direct.kind, name = direct.name, "owner not found");
                Some(about(direct))
            }
        }
    }

    async fn metadata<K>(&self, api: Api<K>, name: &str) -> Result<Option<ObjectMeta>, Error>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        match tokio::time::timeout(ANSWER, api.get_metadata_opt(name)).await {
            Ok(Ok(found)) => Ok(found.map(|object| object.metadata)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Error::Request(format!("no answer within {ANSWER:?}"))),
        }
    }
}

fn only(object: &ObjectMeta) -> Option<&OwnerReference> {
    match object.owner_references.as_deref() {
        Some([owner]) => Some(owner),
        _ => None,
    }
}
