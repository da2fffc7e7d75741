//! Events: what people see with `kubectl describe`. They are news, not state: one that is lost is only counted.

use super::{Client, client};
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(5);
/// Of an object's name in an event's, which has the time as well.
const MAX_NAME: usize = 220;
/// Kubernetes' bound.
const MAX_MESSAGE_BYTES: usize = 1024;

/// What an event is about.
#[derive(Clone, Debug)]
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
}

impl Recorder {
    pub fn new(client: Client, component: &'static str, instance: String) -> Self {
        Self { client, component, instance }
    }

    /// Writes one event; `warning` tells what needs somebody from what is only to be known.
    pub async fn record(&self, about: &About, warning: bool, reason: &str, message: &str) {
        let event = self.event(about, warning, reason, message, Timestamp::now());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &about.namespace);
        let written = tokio::time::timeout(ANSWER, api.create(&PostParams::default(), &event)).await;
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(reason, error = client::reason(&error), "event not recorded"),
            Err(_) => tracing::debug!(reason, "event not recorded in time"),
        }
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
