//! Events: what people see with `kubectl describe`. They are news, not state: one that is lost is only logged. What is said again of the
//! same object, behind the answer to the first, is counted in that event: a thousand pods of one owner are few lines.

use super::{Client, client};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

const ANSWER: Duration = Duration::from_secs(5);
/// Of an object's name in an event's, which has the time as well.
const MAX_NAME: usize = 220;
/// Kubernetes' bound.
const MAX_MESSAGE_BYTES: usize = 1024;

/// How long what is said again is counted in the same event.
const TOGETHER: Duration = Duration::from_mins(10);
/// Events that are remembered for it; beyond them each is one of its own.
const MAX_REMEMBERED: usize = 1024;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct About {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// Writes events in the name of one component.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    component: &'static str,
    /// The pod that writes.
    instance: String,
    said: Arc<Mutex<HashMap<News, Said>>>,
}

/// What is said of an object: reason and message.
type News = (About, String, String);

/// An event that was written.
struct Said {
    name: String,
    count: i32,
    since: Instant,
}

impl Recorder {
    pub fn new(client: Client, component: &'static str, instance: String) -> Self {
        Self { client, component, instance, said: Arc::default() }
    }

    /// Writes one event; `warning` tells what needs somebody from what is only to be known.
    pub async fn record(&self, about: &About, warning: bool, reason: &str, message: &str) {
        match tokio::time::timeout(ANSWER, self.write(about, warning, reason, message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(reason, error = client::reason(&error), "event not recorded"),
            Err(_) => tracing::debug!(reason, "event not recorded in time"),
        }
    }

    async fn write(&self, about: &About, warning: bool, reason: &str, message: &str) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.namespace);
        let (key, now) = ((about.clone(), reason.to_owned(), message.to_owned()), Timestamp::now());
        let again = {
            let mut said = self.said.lock();
            said.retain(|_, said| said.since.elapsed() < TOGETHER);
            said.get_mut(&key).map(|said| {
                said.count = said.count.saturating_add(1);
                (said.name.clone(), said.count)
            })
        };
        if let Some((name, count)) = again {
            let patch = json!({"count": count, "lastTimestamp": Time(now)});
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                // Events are taken away after a while.
                Err(kube::Error::Api(error)) if error.code == 404 => drop(self.said.lock().remove(&key)),
                done => return done.map(drop),
            }
        }
        let event = self.event(about, warning, reason, message, now);
        api.create(&PostParams::default(), &event).await?;
        let mut said = self.said.lock();
        if let (Some(name), true) = (event.metadata.name, said.len() < MAX_REMEMBERED) {
            said.insert(key, Said { name, count: 1, since: Instant::now() });
        }
        Ok(())
    }

    fn event(&self, about: &About, warning: bool, reason: &str, message: &str, now: Timestamp) -> Event {
        let mut message = message.to_owned();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        Event {
            metadata: ObjectMeta {
                // Kubernetes' own recorder names them by object and time, too.
                name: Some(format!(
                    "{}.{:x}",
                    about.name.chars().take(MAX_NAME).collect::<String>(),
                    now.as_nanosecond()
                )),
                namespace: Some(about.namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some(about.api_version.clone()),
                kind: Some(about.kind.clone()),
                namespace: Some(about.namespace.clone()),
                name: Some(about.name.clone()),
                ..ObjectReference::default()
            },
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: None }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        }
    }
}
