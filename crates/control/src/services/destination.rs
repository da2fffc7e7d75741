//! Destination: endpoints as steps, profiles as a whole.

use super::{
    ask,
    stream::{ended, whole},
};
use crate::{
    hub::{self, Hub, Snapshot, Subscription},
    steps::Way,
};
use futures_util::stream;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Place, Question, Refusal, Target};
use weft_model::{EndpointUpdate, Profile};
use weft_wire::{
    Encoded, Outgoing,
    destination::{Destination, Lookup, encode},
};

pub(crate) struct Destinations(Arc<Hub>);

impl Destinations {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Destination for Destinations {
    async fn get(&self, request: Request<Lookup>) -> Result<Outgoing<Encoded>, Status> {
        let asker = ask::require_identity(&request)?;
        let Target::Name(target) = ask::target(&request.get_ref().path)? else {
            return Err(Status::invalid_argument("an address has no endpoints: ask for its profile"));
        };
        let node = ask::node(&request.get_ref().context);
        let mut subscription = self.0.subscribe(Question::Destination(target), asker).await?;
        let mut client = Client::new(self.0.clone(), &node);
        let Some(first) = subscription.next().await else { return Err(ended()) };
        if let Err(refusal) = &first.versioned.answer {
            return Err(hub::status(refusal));
        }
        client.towards(first)?;
        Ok(Box::pin(stream::unfold((subscription, client), |(mut subscription, mut client)| async move {
            let next = client.next(&mut subscription).await?;
            Some((next, (subscription, client)))
        })))
    }

    async fn get_profile(&self, request: Request<Lookup>) -> Result<Outgoing<Profile>, Status> {
        let asker = ask::require_identity(&request)?;
        let target = ask::target(&request.get_ref().path)?;
        let from = ask::namespace(&request.get_ref().context);
        let subscription = self.0.subscribe(Question::Profile { from, target }, asker).await?;
        whole(subscription, |answer| match answer {
            Answer::Profile(profile) => Some(profile.clone()),
            _ => None,
        })
        .await
    }
}

/// What the client holds, and the messages that it has yet to get.
struct Client {
    hub: Arc<Hub>,
    /// Where the client runs.
    node: Box<str>,
    place: Place,
    zones: watch::Receiver<()>,
    /// The newest snapshot that a way was taken to, and the place that it was seen from.
    held: Option<(Arc<Snapshot>, Place)>,
    /// The way there, and how many of its messages are sent.
    way: Option<(Way, usize)>,
    ended: bool,
}

impl Client {
    fn new(hub: Arc<Hub>, node: &str) -> Self {
        let zones = hub.zones();
        let place = hub.place(node);
        Self { hub, node: node.into(), place, zones, held: None, way: None, ended: false }
    }

    async fn next(&mut self, subscription: &mut Subscription) -> Option<Result<Encoded, Status>> {
        loop {
            if let Some((way, sent)) = &mut self.way {
                let message = way.get(*sent).cloned();
                *sent += 1;
                match message {
                    Some(message) => return Some(Ok(message)),
                    None => self.way = None,
                }
            }
            if self.ended {
                return None;
            }
            // What changed while the steps above were on their way is skipped over: only the newest counts.
            let newest = tokio::select! {
                newest = subscription.next() => newest,
                held = moved(&self.hub, &self.node, &mut self.place, &mut self.zones, self.held.as_ref()) => Some(held),
            };
            let Some(newest) = newest else {
                self.ended = true;
                return Some(Err(ended()));
            };
            if let Err(status) = self.towards(newest) {
                self.ended = true;
                return Some(Err(status));
            }
        }
    }

    /// Takes the way to the newest snapshot.
    fn towards(&mut self, newest: Arc<Snapshot>) -> Result<(), Status> {
        let way = match &newest.versioned.answer {
            Ok(Answer::Destination(endpoints)) => {
                let held = self.held.as_ref().map(|(held, was)| (&held.versioned, was));
                newest.steps.to(endpoints, &self.place, held)?
            }
            Err(Refusal::NotFound(_)) => [encode(&EndpointUpdate::NoEndpoints { exists: false })?].into(),
            Err(refusal) => return Err(hub::status(refusal)),
            Ok(_) => return Err(Status::internal("the index answered another question")),
        };
        self.way = Some((way, 0));
        self.held = Some((newest, self.place.clone()));
        Ok(())
    }
}

/// What is held, once its client is in another zone than it was seen from.
async fn moved(
    hub: &Hub,
    node: &str,
    place: &mut Place,
    zones: &mut watch::Receiver<()>,
    held: Option<&(Arc<Snapshot>, Place)>,
) -> Arc<Snapshot> {
    while zones.changed().await.is_ok() {
        *place = hub.place(node);
        if let Some((held, _)) = held.filter(|(_, was)| *was != *place) {
            return held.clone();
        }
    }
    std::future::pending().await
}
