//! Writes the EndpointSlices of ExternalWorkloads: each of the version that it was planned from.

use super::{Client, Written, client, trim};
use crate::{Event, Key, Kind, Object, external_workload::Change};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api,
    api::{DeleteParams, PostParams, Preconditions},
};
use std::{future::Future, time::Duration};

/// Of one write.
const ANSWER: Duration = Duration::from_secs(5);

/// Makes one change, and says what is known by that before the watch tells it.
pub async fn write_slice(client: &Client, change: &Change) -> (Written, Option<Event>) {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), change.namespace());
    let params = PostParams::default();
    match change {
        Change::Create(slice) => taken(api.create(&params, slice)).await,
        Change::Replace(slice) => {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            taken(api.replace(name, &params, slice)).await
        }
        Change::Delete { namespace, name, uid, version } => {
            let preconditions = Preconditions { uid: uid.clone(), resource_version: version.clone() };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let gone = Event::Delete(Key::new(Kind::EndpointSlice, namespace, name));
            match answered(api.delete(name, &params)).await {
                Ok(_) => (Written::Done, Some(gone)),
                Err(Unanswered { code: 404, .. }) => (Written::Done, Some(gone)),
                Err(unanswered) => (unanswered.into(), None),
            }
        }
    }
}

async fn taken(write: impl Future<Output = kube::Result<EndpointSlice>>) -> (Written, Option<Event>) {
    match answered(write).await {
        Ok(slice) => (Written::Done, Some(there(slice))),
        Err(unanswered) => (unanswered.into(), None),
    }
}

/// What there is of a slice now, without a watch; `None` where nobody says so.
pub async fn find_slice(client: &Client, namespace: &str, name: &str) -> Option<Event> {
    let api: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    match answered(api.get(name)).await {
        Ok(slice) => Some(there(slice)),
        Err(Unanswered { code: 404, .. }) => Some(Event::Delete(Key::new(Kind::EndpointSlice, namespace, name))),
        Err(_) => None,
    }
}

fn there(mut slice: EndpointSlice) -> Event {
    slice.metadata = trim::metadata(slice.metadata);
    Event::Apply(Object::EndpointSlice(Box::new(slice)))
}

/// Why nothing was written, as far as that is known. A status code of 0 is none.
struct Unanswered {
    code: u16,
    reason: String,
}

impl From<Unanswered> for Written {
    fn from(Unanswered { code, reason }: Unanswered) -> Self {
        if matches!(code, 404 | 409) { Self::Outdated } else { Self::Failed(reason) }
    }
}

async fn answered<T>(write: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
    match tokio::time::timeout(ANSWER, write).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
            Err(Unanswered { code, reason: client::reason(&error) })
        }
        Err(_) => Err(Unanswered { code: 0, reason: format!("no answer within {ANSWER:?}") }),
    }
}
