//! Inbound and outbound policy, and what is told beside the latter.

use super::{ask, stream::whole};
use crate::hub::{Hub, Subscription};
use std::sync::Arc;
use tonic::{Request, Status};
use weft_cluster::index::{Answer, Question, Target};
use weft_model::{ClientPolicy, Extensions, ServerPolicy};
use weft_wire::{
    Outgoing,
    extension::{self, PolicyExtensions},
    inbound::{InboundPolicies, PortSpec},
    outbound::{self, OutboundPolicies, TrafficSpec},
};

pub(crate) struct Inbounds(Arc<Hub>);
pub(crate) struct Outbounds(Arc<Hub>);
pub(crate) struct Extended(Arc<Hub>);

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

impl Extended {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self(hub)
    }
}

impl InboundPolicies for Inbounds {
    async fn watch_port(&self, request: Request<PortSpec>) -> Result<Outgoing<ServerPolicy>, Status> {
        let asker = ask::require_identity(&request)?;
        let PortSpec { workload, port } = request.into_inner();
        let ask::Workload { namespace, of, name } = ask::Workload::read(&workload)?;
        let subscription = self.0.subscribe(Question::Inbound { namespace, of, name, port }, asker).await?;
        whole(subscription, |answer| match answer {
            Answer::Inbound(policy) => Some(policy.clone()),
            _ => None,
        })
        .await
    }
}

impl OutboundPolicies for Outbounds {
    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Outgoing<ClientPolicy>, Status> {
        whole(outbound(&self.0, request).await?, |answer| match answer {
            Answer::Outbound(policy) => Some(policy.clone()),
            _ => None,
        })
        .await
    }
}

/// Of the same answers as the policies: what is told beside one is never of another.
impl PolicyExtensions for Extended {
    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Outgoing<Extensions>, Status> {
        whole(outbound(&self.0, request).await?, |answer| match answer {
            Answer::Outbound(policy) => Some(extension::of(policy)),
            _ => None,
        })
        .await
    }
}

/// How traffic to a target behaves.
async fn outbound(hub: &Arc<Hub>, request: Request<TrafficSpec>) -> Result<Subscription, Status> {
    let asker = ask::require_identity(&request)?;
    let TrafficSpec { workload, target } = request.into_inner();
    let from = ask::Workload::read(&workload)?.namespace;
    let target = match target {
        outbound::Target::Addr(addr) => Target::Addr(addr),
        // What is no name of a Service is somebody else's: the proxy sends it where the application wanted.
        outbound::Target::Authority(authority) => match ask::target(&authority) {
            Ok(target @ Target::Name(_)) => target,
            _ => return Err(Status::not_found("the authority is no name of a Service")),
        },
    };
    hub.subscribe(Question::Outbound { from, target }, asker).await
}
