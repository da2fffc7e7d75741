//! Destination: endpoints as steps, profiles as a whole.

use super::{
    ask,
    stream::{ended, whole},
};
use crate::hub::{self, Hub, Subscription};
use futures_util::stream;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Endpoints, Place, Question, Refusal, Target, Versioned};
use weft_model::{EndpointUpdate, Profile};
use weft_wire::{
    Outgoing,
    destination::{Destination, Lookup},
};

pub(crate) struct Destinations(Arc<Hub>);

impl Destinations {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Destination for Destinations {
    async fn get(&self, request: Request<Lookup>) -> Result<Outgoing<EndpointUpdate>, Status> {
        let connection = ask::require_identity(&request)?;
        let Target::Name(target) = ask::target(&request.get_ref().path)? else {
            return Err(Status::invalid_argument("an address has no endpoints: ask for its profile"));
        };
        let node = ask::node(&request.get_ref().context);
        let mut subscription = self.0.subscribe(Question::Destination(target), connection).await?;
        let zones = self.0.zones();
        let mut steps = Steps { hub: self.0.clone(), node, zones, held: None, pending: VecDeque::new(), ended: false };
        let Some(first) = subscription.next().await else { return Err(ended()) };
        if let Err(refusal) = &first.answer {
            return Err(hub::status(refusal));
        }
        steps.towards(first);
        Ok(Box::pin(stream::unfold((subscription, steps), |(mut subscription, mut steps)| async move {
            let next = steps.next(&mut subscription).await?;
            Some((next, (subscription, steps)))
        })))
    }

    async fn get_profile(&self, request: Request<Lookup>) -> Result<Outgoing<Profile>, Status> {
        let connection = ask::require_identity(&request)?;
        let target = ask::target(&request.get_ref().path)?;
        let from = ask::namespace(&request.get_ref().context);
        let subscription = self.0.subscribe(Question::Profile { from, target }, connection).await?;
        whole(subscription, |answer| match answer {
            Answer::Profile(profile) => Some(profile.clone()),
            _ => None,
        })
        .await
    }
}

/// What the client holds, and the steps that it has yet to get.
struct Steps {
    hub: Arc<Hub>,
    /// Where the client runs.
    node: String,
    zones: watch::Receiver<()>,
    /// The newest answer that was planned for, and the place that it was seen from.
    held: Option<(Arc<Versioned>, Place)>,
    pending: VecDeque<EndpointUpdate>,
    ended: bool,
}

impl Steps {
    async fn next(&mut self, subscription: &mut Subscription) -> Option<Result<EndpointUpdate, Status>> {
        loop {
            if let Some(step) = self.pending.pop_front() {
                return Some(Ok(step));
            }
            if self.ended {
                return None;
            }
            // What changed while the steps above were on their way is skipped over: only the newest counts.
            let newest = tokio::select! {
                newest = subscription.next() => newest,
                held = moved(&self.hub, &self.node, &mut self.zones, self.held.as_ref()) => Some(held),
            };
            match newest {
                None => {
                    self.ended = true;
                    return Some(Err(ended()));
                }
                Some(newest) => {
                    if let Some(status) = self.towards(newest) {
                        self.ended = true;
                        return Some(Err(status));
                    }
                }
            }
        }
    }

    /// Plans the way to the newest answer.
    fn towards(&mut self, newest: Arc<Versioned>) -> Option<Status> {
        let place = self.hub.place(&self.node);
        match &newest.answer {
            Ok(Answer::Destination(endpoints)) => {
                let to = endpoints.seen_from(&place);
                match &self.held {
                    Some((held, from)) => {
                        let from = of(held).map(|e| e.seen_from(from)).unwrap_or_default();
                        // Who comes before who goes: while pods are replaced there is always somebody.
                        self.pending.extend(EndpointUpdate::between(&from, &to).into_iter().rev());
                    }
                    // The client waits for a first word even if there is nobody.
                    None if to.is_empty() => self.pending.push_back(EndpointUpdate::NoEndpoints { exists: true }),
                    None => self.pending.push_back(EndpointUpdate::Add(to.into_values().collect())),
                }
            }
            Err(Refusal::NotFound(_)) => self.pending.push_back(EndpointUpdate::NoEndpoints { exists: false }),
            Err(refusal) => return Some(hub::status(refusal)),
            Ok(_) => return Some(Status::internal("the index answered another question")),
        }
        self.held = Some((newest, place));
        None
    }
}

/// What is held, once its client is in another zone than it was planned for.
async fn moved(
    hub: &Hub,
    node: &str,
    zones: &mut watch::Receiver<()>,
    held: Option<&(Arc<Versioned>, Place)>,
) -> Arc<Versioned> {
    while zones.changed().await.is_ok() {
        if let Some((held, _)) = held.filter(|(_, from)| *from != hub.place(node)) {
            return held.clone();
        }
    }
    std::future::pending().await
}

/// Nothing of a target that is gone.
fn of(versioned: &Versioned) -> Option<&Endpoints> {
    match &versioned.answer {
        Ok(Answer::Destination(endpoints)) => Some(endpoints),
        _ => None,
    }
}
