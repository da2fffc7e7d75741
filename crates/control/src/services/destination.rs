//! Destination: endpoints as steps, profiles as a whole.

use super::{
    ask,
    stream::{ended, whole},
};
use crate::hub::{self, Hub, Subscription};
use futures_util::stream;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
};
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Question, Refusal, Target};
use weft_model::{Endpoint, EndpointUpdate, Profile};
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
        let mut subscription = self.0.subscribe(Question::Destination(target), connection).await?;
        let mut steps = Steps::default();
        let Some(first) = subscription.next().await else { return Err(ended()) };
        if let Err(refusal) = &first.answer {
            return Err(hub::status(refusal));
        }
        steps.towards(&first.answer);
        Ok(Box::pin(stream::unfold((subscription, steps), |(mut subscription, mut steps)| async move {
            let next = steps.next(&mut subscription).await?;
            Some((next, (subscription, steps)))
        })))
    }

    async fn get_profile(&self, request: Request<Lookup>) -> Result<Outgoing<Profile>, Status> {
        let connection = ask::require_identity(&request)?;
        let target = ask::target(&request.get_ref().path)?;
        let subscription = self.0.subscribe(Question::Profile(target), connection).await?;
        whole(subscription, |answer| match answer {
            Answer::Profile(profile) => Some(profile.clone()),
            _ => None,
        })
        .await
    }
}

/// The set that the client holds, and the steps that it has yet to get.
#[derive(Default)]
struct Steps {
    held: Option<BTreeMap<SocketAddr, Endpoint>>,
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
            match subscription.next().await {
                None => {
                    self.ended = true;
                    return Some(Err(ended()));
                }
                Some(newest) => {
                    if let Some(status) = self.towards(&newest.answer) {
                        self.ended = true;
                        return Some(Err(status));
                    }
                }
            }
        }
    }

    /// Plans the way to the newest answer.
    fn towards(&mut self, answer: &Result<Answer, Refusal>) -> Option<Status> {
        match answer {
            Ok(Answer::Destination(newest)) => {
                match &self.held {
                    // Who comes before who goes: while pods are replaced there is always somebody.
                    Some(held) => self.pending.extend(EndpointUpdate::between(held, newest).into_iter().rev()),
                    // The client waits for a first word even if there is nobody.
                    None if newest.is_empty() => self.pending.push_back(EndpointUpdate::NoEndpoints { exists: true }),
                    None => self.pending.push_back(EndpointUpdate::Add(newest.values().cloned().collect())),
                }
                self.held = Some(newest.clone());
                None
            }
            Err(Refusal::NotFound(_)) => {
                self.pending.push_back(EndpointUpdate::NoEndpoints { exists: false });
                self.held = Some(BTreeMap::new());
                None
            }
            Err(refusal) => Some(hub::status(refusal)),
            Ok(_) => Some(Status::internal("the index answered another question")),
        }
    }
}
