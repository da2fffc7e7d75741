//! What is behind a target: `io.linkerd.proxy.destination.Destination`.

use crate::{
    Encoded, Error, GrpcServer, Incoming, Invalid, MAX_MESSAGE_BYTES, Outgoing, Transport,
    encoded::{Answer, Methods, Server, answer, encoded},
    endpoint, net, profile, shown,
    stream::{cannot_say, incoming, incoming_parts},
};
use linkerd2_proxy_api::destination::{
    self as proto, destination_client::DestinationClient, destination_server::SERVICE_NAME,
};
use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc};
use tonic::{Request, Status, body::Body};
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
        let stream = self.0.get(encode_lookup(lookup(path, context))).await?.into_inner();
        Ok(incoming_parts(stream, endpoint::decode_update))
    }

    /// The profile of `path`, and each that follows it. Parts that cannot be used are left out of theirs; an
    /// [`Error::Invalid`] for each follows it.
    pub async fn get_profile(&mut self, path: &str, context: &str) -> Result<Incoming<Profile>, Error> {
        let stream = self.0.get_profile(encode_lookup(lookup(path, context))).await?.into_inner();
        Ok(incoming_parts(stream, |message| {
            let (profile, invalid) = profile::decode(message);
            (Some(profile), invalid)
        }))
    }
}

/// What people are shown of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownEndpoint {
    pub addr: SocketAddr,
    pub weight: u32,
    pub labels: BTreeMap<String, String>,
    /// JSON.
    pub http2: Option<String>,
}

/// A step from one set of endpoints to another, as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownStep {
    Add(Vec<ShownEndpoint>),
    Remove(Vec<SocketAddr>),
    None,
}

impl<T: Transport> Client<T> {
    /// The endpoints of `path`, to be shown.
    pub async fn show(&mut self, path: &str, context: &str) -> Result<Incoming<ShownStep>, Error> {
        let asked = proto::GetDestination { scheme: "http:".to_owned(), ..encode_lookup(lookup(path, context)) };
        Ok(incoming(self.0.get(asked).await?.into_inner(), shown_step))
    }

    /// The first profile of `path` as JSON.
    pub async fn show_profile(&mut self, path: &str, context: &str) -> Result<String, Error> {
        let mut stream = self.0.get_profile(encode_lookup(lookup(path, context))).await?.into_inner();
        let first = stream.message().await?;
        first.map(|profile| shown::json(&profile)).ok_or_else(|| ended().into())
    }
}

fn ended() -> Status {
    Status::unavailable("the stream ended before its first message")
}

/// The step to a set from none, as [`Client::show`] gives it.
///
/// # Errors
/// The protocol has no words for one of them.
pub fn show(update: &EndpointUpdate) -> Result<ShownStep, Invalid> {
    shown_step(endpoint::encode_update(update)?)
}

/// The message of a profile as JSON.
///
/// # Errors
/// As [`show`].
pub fn show_profile(profile: &Profile) -> Result<String, Invalid> {
    Ok(shown::json(&profile::encode(profile)?))
}

fn shown_step(update: proto::Update) -> Result<ShownStep, Invalid> {
    let Some(update) = update.update else { return Err(Invalid::missing("update")) };
    Ok(match update {
        proto::update::Update::Add(proto::WeightedAddrSet { addrs, metric_labels }) => {
            let mut endpoints = vec![];
            for addr in addrs {
                let proto::WeightedAddr { addr, weight, metric_labels: own, http2, .. } = addr;
                let addr = addr.ok_or_else(|| Invalid::missing("addr"))?;
                let labels = metric_labels.iter().map(|(k, v)| (k.clone(), v.clone())).chain(own).collect();
                let http2 = http2.map(|params| shown::json(&params));
                endpoints.push(ShownEndpoint { addr: net::decode_addr(addr)?, weight, labels, http2 });
            }
            ShownStep::Add(endpoints)
        }
        proto::update::Update::Remove(proto::AddrSet { addrs }) => {
            ShownStep::Remove(addrs.into_iter().map(net::decode_addr).collect::<Result<_, _>>()?)
        }
        proto::update::Update::NoEndpoints(_) => ShownStep::None,
    })
}

fn lookup(path: &str, context: &str) -> Lookup {
    Lookup { path: path.to_owned(), context: context.to_owned() }
}

pub(crate) fn encode_lookup(Lookup { path, context }: Lookup) -> proto::GetDestination {
    proto::GetDestination { scheme: String::new(), path, context_token: context }
}

/// A step to be sent, by any number of streams.
///
/// # Errors
/// The protocol has no words for it.
pub fn encode(update: &EndpointUpdate) -> Result<Encoded, Status> {
    let message = endpoint::encode_update(update).and_then(|message| Encoded::of(&message));
    message.map_err(|invalid| cannot_say(&invalid))
}

/// A Destination service. The connection's extensions and the metadata are in the request.
pub trait Destination: Send + Sync + 'static {
    /// Steps, as [`encode`] has them.
    fn get(&self, lookup: Request<Lookup>) -> impl Future<Output = Result<Outgoing<Encoded>, Status>> + Send;

    fn get_profile(&self, lookup: Request<Lookup>) -> impl Future<Output = Result<Outgoing<Profile>, Status>> + Send;
}

/// Serves `service` as gRPC.
pub fn server(service: impl Destination) -> impl GrpcServer {
    Server::new(Adapter(service))
}

struct Adapter<S>(S);

type Asked = Request<proto::GetDestination>;

impl<S: Destination> Methods for Adapter<S> {
    const NAME: &'static str = SERVICE_NAME;

    fn call(self: Arc<Self>, method: &str, request: http::Request<Body>) -> Option<Answer> {
        match method {
            "Get" => answer(request, |asked: Asked| async move { self.0.get(asked.map(decode_lookup)).await }),
            "GetProfile" => answer(request, |asked: Asked| async move {
                Ok(encoded(self.0.get_profile(asked.map(decode_lookup)).await?, profile::encode))
            }),
            _ => None,
        }
    }
}

pub(crate) fn decode_lookup(request: proto::GetDestination) -> Lookup {
    let proto::GetDestination { scheme: _, path, context_token } = request;
    Lookup { path, context: context_token }
}
