//! All objects of some kinds at one time: what a control plane's watches begin with, taken in by the same code.

use super::{Cluster, Error, Resource, watch};
use crate::{Event, Key, Kind, Object, policy};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use weft_telemetry::Registry;

/// How long all lists together may take.
const LISTS: Duration = Duration::from_secs(60);
/// The watches count what they do, which nobody reads here.
const SERIES: usize = 1_000;

impl Cluster {
    /// What can be read of these kinds in all namespaces; the rest counts as not there, as in a control plane.
    ///
    /// # Errors
    /// Whoever asks may not list one of the kinds, or the API server does not answer.
    pub async fn everything(&self, kinds: &[Kind]) -> Result<Vec<Object>, Error> {
        for resource in kinds.iter().filter_map(|kind| resource(*kind)) {
            // A watch tries again what is forbidden; a person would wait.
            if !self.may("list", resource, None).await? {
                let plural = resource.plural;
                return Err(Error::Forbidden(format!("listing {plural} in all namespaces is not allowed to who asks")));
            }
        }
        let (held, whole) = (Arc::new(Mutex::new(BTreeMap::<Key, Object>::new())), CancellationToken::new());
        let sink = {
            let (held, whole) = (held.clone(), whole.clone());
            Arc::new(move |events: Vec<Event>| {
                let mut held = held.lock();
                for event in events {
                    match event {
                        Event::Apply(object) => drop(held.insert(object.key(), object)),
                        Event::Delete(key) => drop(held.remove(&key)),
                        Event::Refused(refused) => drop(held.remove(&refused.key)),
                        Event::Synced => whole.cancel(),
                    }
                }
            })
        };
        let registry = Registry::new(1, SERIES);
        let watching = watch(self.client(), kinds, &registry, sink, whole);
        if tokio::time::timeout(LISTS, watching).await.is_err() {
            return Err(Error::Request(format!("not everything was listed within {LISTS:?}")));
        }
        Ok(std::mem::take(&mut *held.lock()).into_values().collect())
    }
}

fn resource(kind: Kind) -> Option<Resource> {
    Some(match kind {
        Kind::Pod => Resource::new("", "v1", "Pod", "pods"),
        Kind::Service => Resource::new("", "v1", "Service", "services"),
        Kind::EndpointSlice => Resource::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Kind::Node => Resource::new("", "v1", "Node", "nodes"),
        Kind::Namespace => Resource::new("", "v1", "Namespace", "namespaces"),
        other => {
            let policy::Definition { group, kind, plural, versions } = policy::definition(other)?;
            Resource::new(group, versions.first()?, kind, plural)
        }
    })
}
