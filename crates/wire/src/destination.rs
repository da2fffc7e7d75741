//! What is behind a target: `io.linkerd.proxy.destination.Destination`.

use crate::{
    Error, GrpcServer, Incoming, MAX_MESSAGE_BYTES, Outgoing, Transport, endpoint, profile,
    stream::{incoming, incoming_parts, outgoing},
};
use linkerd2_proxy_api::destination::{
    self as proto, destination_client::DestinationClient, destination_server::DestinationServer,
};
use std::future::Future;
use tonic::{Request, Response, Status, async_trait};
use weft_model::{EndpointUpdate, Profile};

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// `name:port` or `ip:port`.
    pub path: String,
    /// What the injector told the proxy to send along: who asks, as JSON.
    pub context: String,
}

/// Asks a Destination service.
#[derive(Clone, Debug)]
pub struct Client<T>(DestinationClient<T>);

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self(DestinationClient::new(transport).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    /// The endpoints of `path` as steps from the empty set. Addresses that cannot be used are left out of their step; an
    /// [`Error::Invalid`] for each follows it.
    pub async fn get(&mut self, path: &str, context: &str) -> Result<Incoming<EndpointUpdate>, Error> {
        let stream = self.0.get(lookup(path, context)).await?.into_inner();
        Ok(incoming_parts(stream, endpoint::decode_update))
    }

    /// The profile of `path`, and each that follows it.
    pub async fn get_profile(&mut self, path: &str, context: &str) -> Result<Incoming<Profile>, Error> {
        let stream = self.0.get_profile(lookup(path, context)).await?.into_inner();
        Ok(incoming(stream, profile::decode))
    }
}

fn lookup(path: &str, context: &str) -> proto::GetDestination {
    proto::GetDestination { scheme: String::new(), path: path.to_owned(), context_token: context.to_owned() }
}

/// A Destination service. The connection's extensions and the metadata are in the request.
pub trait Destination: Send + Sync + 'static {
    fn get(&self, lookup: Request<Lookup>) -> impl Future<Output = Result<Outgoing<EndpointUpdate>, Status>> + Send;

    fn get_profile(&self, lookup: Request<Lookup>) -> impl Future<Output = Result<Outgoing<Profile>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl Destination) -> impl GrpcServer {
    DestinationServer::new(Adapter(service))
}

struct Adapter<S>(S);

#[async_trait]
impl<S: Destination> proto::destination_server::Destination for Adapter<S> {
    type GetStream = Outgoing<proto::Update>;
    type GetProfileStream = Outgoing<proto::DestinationProfile>;

    async fn get(&self, request: Request<proto::GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let updates = self.0.get(request.map(asked)).await?;
        Ok(Response::new(outgoing(updates, endpoint::encode_update)))
    }

    async fn get_profile(
        &self,
        request: Request<proto::GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        let profiles = self.0.get_profile(request.map(asked)).await?;
        Ok(Response::new(outgoing(profiles, profile::encode)))
    }
}

fn asked(request: proto::GetDestination) -> Lookup {
    let proto::GetDestination { scheme: _, path, context_token } = request;
    Lookup { path, context: context_token }
}
