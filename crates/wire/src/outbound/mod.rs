//! How traffic to a target behaves: `io.linkerd.proxy.outbound.OutboundPolicies`.

mod backend;
mod breaker;
mod distribution;
pub(crate) mod policy;
mod rule;

use crate::{
    Encoded, Error, GrpcServer, Incoming, Invalid, MAX_MESSAGE_BYTES, Outgoing, Transport,
    encoded::{Answer, Methods, Server, answer, encoded, first},
    error::{Within, require},
    net, shown,
    stream::{incoming, refused},
};
use linkerd2_proxy_api::outbound::{
    self as proto, outbound_policies_client::OutboundPoliciesClient, outbound_policies_server::SERVICE_NAME,
};
use std::{future::Future, net::SocketAddr, sync::Arc};
use tonic::{Request, Status, body::Body};
use weft_model::ClientPolicy;

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSpec {
    /// Who asks, as the injector told the proxy: JSON.
    pub workload: String,
    pub target: Target,
}

/// Where an application connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The original destination.
    Addr(SocketAddr),
    /// `name:port`, of a proxy in ingress mode.
    Authority(String),
}

/// Asks an outbound policy service.
#[derive(Clone, Debug)]
pub struct Client<T>(OutboundPoliciesClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(OutboundPoliciesClient::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The policy of `target`, and each that follows it.
    pub async fn watch(&mut self, workload: &str, target: Target) -> Result<Incoming<ClientPolicy>, Error> {
        let spec = TrafficSpec { workload: workload.to_owned(), target };
        Ok(incoming(self.0.watch(encode_spec(spec)).await?.into_inner(), policy::decode))
    }

    /// The present policy of `target` as JSON.
    pub async fn show(&mut self, workload: &str, target: Target) -> Result<String, Error> {
        let spec = TrafficSpec { workload: workload.to_owned(), target };
        Ok(shown::json(&self.0.get(encode_spec(spec)).await?.into_inner()))
    }
}

/// The message of a policy as JSON.
///
/// # Errors
/// The protocol has no words for it.
pub fn show(policy: &ClientPolicy) -> Result<String, Invalid> {
    Ok(shown::json(&policy::encode(policy)?))
}

/// An outbound policy service. The connection's extensions and the metadata are in the request.
pub trait OutboundPolicies: Send + Sync + 'static {
    fn watch(&self, spec: Request<TrafficSpec>) -> impl Future<Output = Result<Outgoing<ClientPolicy>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl OutboundPolicies) -> impl GrpcServer {
    Server::new(Adapter(service))
}

struct Adapter<S>(S);

impl<S: OutboundPolicies> Methods for Adapter<S> {
    const NAME: &'static str = SERVICE_NAME;

    fn call(self: Arc<Self>, method: &str, request: http::Request<Body>) -> Option<Answer> {
        match method {
            "Get" => answer(request, |spec| async move { first(self.watch(spec).await?).await }),
            "Watch" => answer(request, |spec| async move { self.watch(spec).await }),
            _ => None,
        }
    }
}

impl<S: OutboundPolicies> Adapter<S> {
    async fn watch(&self, spec: Request<proto::TrafficSpec>) -> Result<Outgoing<Encoded>, Status> {
        Ok(encoded(self.0.watch(asked(spec)?).await?, policy::encode))
    }
}

fn asked(request: Request<proto::TrafficSpec>) -> Result<Request<TrafficSpec>, Status> {
    let (metadata, extensions, spec) = request.into_parts();
    Ok(Request::from_parts(metadata, extensions, decode_spec(spec).map_err(|e| refused(&e))?))
}

pub(crate) fn decode_spec(spec: proto::TrafficSpec) -> Result<TrafficSpec, Invalid> {
    let proto::TrafficSpec { source_workload: workload, target } = spec;
    let target = match require("target", target)? {
        proto::traffic_spec::Target::Addr(addr) => Target::Addr(net::decode_addr(addr).within("addr")?),
        proto::traffic_spec::Target::Authority(authority) if authority.is_empty() => {
            return Err(Invalid::missing("authority"));
        }
        proto::traffic_spec::Target::Authority(authority) => Target::Authority(authority),
    };
    Ok(TrafficSpec { workload, target })
}

pub(crate) fn encode_spec(TrafficSpec { workload, target }: TrafficSpec) -> proto::TrafficSpec {
    let target = match target {
        Target::Addr(addr) => proto::traffic_spec::Target::Addr(net::encode_addr(addr)),
        Target::Authority(authority) => proto::traffic_spec::Target::Authority(authority),
    };
    proto::TrafficSpec { source_workload: workload, target: Some(target) }
}
