//! Inbound and outbound policy.

use super::{ask, destination::ended};
use crate::hub::{self, Hub, Subscription};
use futures_util::stream;
use std::sync::Arc;
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Question, Target};
use weft_model::{ClientPolicy, ServerPolicy};
use weft_wire::{
    Outgoing,
    inbound::{InboundPolicies, PortSpec},
    outbound::{self, OutboundPolicies, TrafficSpec},
};

pub(crate) struct Inbounds(Arc<Hub>);
pub(crate) struct Outbounds(Arc<Hub>);

impl Inbounds {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl Outbounds {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl InboundPolicies for Inbounds {
    async fn watch_port(&self, request: Request<PortSpec>) -> Result<Outgoing<ServerPolicy>, Status> {
        let connection = ask::require_identity(&request)?;
        let PortSpec { workload, port } = request.into_inner();
        let (namespace, pod) = ask::workload(&workload)?;
        let subscription = self.0.subscribe(Question::Inbound { namespace, pod, port }, connection).await?;
        whole(subscription, |answer| match answer {
            Answer::Inbound(policy) => Some(policy.clone()),
            _ => None,
        })
        .await
    }
}

impl OutboundPolicies for Outbounds {
    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Outgoing<ClientPolicy>, Status> {
        let connection = ask::require_identity(&request)?;
        let TrafficSpec { workload, target } = request.into_inner();
        ask::workload(&workload)?;
        let target = match target {
            outbound::Target::Addr(addr) => Target::Addr(addr),
            // What is no name of a Service is somebody else's: the proxy sends it where the application wanted.
            outbound::Target::Authority(authority) => match ask::target(&authority) {
                Ok(target @ Target::Name(_)) => target,
                _ => return Err(Status::not_found("the authority is no name of a Service")),
            },
        };
        let subscription = self.0.subscribe(Question::Outbound(target), connection).await?;
        whole(subscription, |answer| match answer {
            Answer::Outbound(policy) => Some(policy.clone()),
            _ => None,
        })
        .await
    }
}

/// A stream that sends each answer as a whole. A refusal ends it, so that the client looks up again.
pub(super) async fn whole<T: Send + 'static>(
    mut subscription: Subscription,
    extract: fn(&Answer) -> Option<T>,
) -> Result<Outgoing<T>, Status> {
    let first = answer(&mut subscription, extract).await?;
    let first = stream::once(async { Ok(first) });
    let rest = stream::unfold(Some(subscription), move |subscription| async move {
        let mut subscription = subscription?;
        let next = answer(&mut subscription, extract).await;
        let goes_on = next.is_ok().then_some(subscription);
        Some((next, goes_on))
    });
    Ok(Box::pin(stream::StreamExt::chain(first, rest)))
}

async fn answer<T>(subscription: &mut Subscription, extract: fn(&Answer) -> Option<T>) -> Result<T, Status> {
    let newest = subscription.next().await.ok_or_else(ended)?;
    match &newest.answer {
        Ok(answer) => extract(answer).ok_or_else(|| Status::internal("the index answered another question")),
        Err(refusal) => Err(hub::status(refusal)),
    }
}
