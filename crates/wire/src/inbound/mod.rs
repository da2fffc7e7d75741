//! How a workload's ports are served: `io.linkerd.proxy.inbound.InboundServerPolicies`.

mod authorization;
pub(crate) mod policy;

use crate::{
    Encoded, Error, GrpcServer, Incoming, Invalid, MAX_MESSAGE_BYTES, Outgoing, Transport,
    encoded::{Answer, Methods, Server, answer, encoded, first},
    net, shown,
    stream::{incoming, refused},
};
use linkerd2_proxy_api::inbound::{
    self as proto, inbound_server_policies_client::InboundServerPoliciesClient,
    inbound_server_policies_server::SERVICE_NAME,
};
use std::{future::Future, sync::Arc};
use tonic::{Request, Status, body::Body};
use weft_model::ServerPolicy;

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortSpec {
    /// Who asks, as the injector told the proxy: JSON.
    pub workload: String,
    pub port: u16,
}

/// Asks an inbound policy service.
#[derive(Clone, Debug)]
pub struct Client<T>(InboundServerPoliciesClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(InboundServerPoliciesClient::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The policy of `port`, and each that follows it.
    pub async fn watch_port(&mut self, workload: &str, port: u16) -> Result<Incoming<ServerPolicy>, Error> {
        let spec = PortSpec { workload: workload.to_owned(), port };
        Ok(incoming(self.0.watch_port(encode_spec(spec)).await?.into_inner(), policy::decode))
    }

    /// The present policy of `port` as JSON.
    pub async fn show(&mut self, workload: &str, port: u16) -> Result<String, Error> {
        let spec = PortSpec { workload: workload.to_owned(), port };
        Ok(shown::json(&self.0.get_port(encode_spec(spec)).await?.into_inner()))
    }
}

/// The message of a policy as JSON.
///
/// # Errors
/// The protocol has no words for it.
pub fn show(policy: &ServerPolicy) -> Result<String, Invalid> {
    Ok(shown::json(&policy::encode(policy)?))
}

/// An inbound policy service. The connection's extensions and the metadata are in the request.
pub trait InboundPolicies: Send + Sync + 'static {
    fn watch_port(
        &self,
        spec: Request<PortSpec>,
    ) -> impl Future<Output = Result<Outgoing<ServerPolicy>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl InboundPolicies) -> impl GrpcServer {
    Server::new(Adapter(service))
}

struct Adapter<S>(S);

impl<S: InboundPolicies> Methods for Adapter<S> {
    const NAME: &'static str = SERVICE_NAME;

    fn call(self: Arc<Self>, method: &str, request: http::Request<Body>) -> Option<Answer> {
        match method {
            "GetPort" => answer(request, |spec| async move { first(self.watch(spec).await?).await }),
            "WatchPort" => answer(request, |spec| async move { self.watch(spec).await }),
            _ => None,
        }
    }
}

impl<S: InboundPolicies> Adapter<S> {
    async fn watch(&self, spec: Request<proto::PortSpec>) -> Result<Outgoing<Encoded>, Status> {
        Ok(encoded(self.0.watch_port(asked(spec)?).await?, policy::encode))
    }
}

fn asked(request: Request<proto::PortSpec>) -> Result<Request<PortSpec>, Status> {
    let (metadata, extensions, spec) = request.into_parts();
    Ok(Request::from_parts(metadata, extensions, decode_spec(spec).map_err(|e| refused(&e))?))
}

pub(crate) fn decode_spec(proto::PortSpec { workload, port }: proto::PortSpec) -> Result<PortSpec, Invalid> {
    Ok(PortSpec { workload, port: net::decode_port("port", port)? })
}

pub(crate) fn encode_spec(PortSpec { workload, port }: PortSpec) -> proto::PortSpec {
    proto::PortSpec { workload, port: port.into() }
}
