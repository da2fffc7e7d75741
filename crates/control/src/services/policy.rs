//! Inbound and outbound policy.

use super::{ask, stream::whole};
use crate::hub::Hub;
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
        let (from, _) = ask::workload(&workload)?;
        let target = match target {
            outbound::Target::Addr(addr) => Target::Addr(addr),
            // What is no name of a Service is somebody else's: the proxy sends it where the application wanted.
            outbound::Target::Authority(authority) => match ask::target(&authority) {
                Ok(target @ Target::Name(_)) => target,
                _ => return Err(Status::not_found("the authority is no name of a Service")),
            },
        };
        let subscription = self.0.subscribe(Question::Outbound { from, target }, connection).await?;
        whole(subscription, |answer| match answer {
            Answer::Outbound(policy) => Some(policy.clone()),
            _ => None,
        })
        .await
    }
}
