//! The gRPC of the app: messages of `emojivoto.v1`, one generic unary server and a client.
//!
//! Voting has one method per emoji, so that metrics by route show the one that fails; methods are looked up by name
//! rather than generated.

use crate::serve::{self, Leave};
use bytes::{Buf, BufMut, Bytes};
use futures_util::{Stream, StreamExt, stream};
use http::uri::PathAndQuery;
use hyper::{body::Incoming, service::service_fn};
use prost::Message;
use std::{convert::Infallible, error::Error, future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

pub(crate) const EMOJI_SERVICE: &str = "/emojivoto.v1.EmojiService/";
pub(crate) const VOTING_SERVICE: &str = "/emojivoto.v1.VotingService/";

/// Sends a number after the other until the server leaves, to whoever wants an open stream.
pub(crate) const COUNT: &str = "/weft.demo.v1.Numbers/Count";
/// Between two of them.
const PACE: Duration = Duration::from_millis(100);

/// The health check of every gRPC server (`grpc.health.v1`).
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Emoji {
    #[prost(string, tag = "1")]
    pub(crate) unicode: String,
    #[prost(string, tag = "2")]
    pub(crate) shortcode: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListAllResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) list: Vec<Emoji>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FindRequest {
    #[prost(string, tag = "1")]
    pub(crate) shortcode: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FindResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) emoji: Option<Emoji>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VotingResult {
    #[prost(string, tag = "1")]
    pub(crate) shortcode: String,
    #[prost(int32, tag = "2")]
    pub(crate) votes: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResultsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) results: Vec<VotingResult>,
}

pub(crate) type Reply = Pin<Box<dyn Future<Output = Result<Bytes, Status>> + Send>>;

/// Answers a unary method, `/package.Service/Method`, by its path: request bytes to response bytes.
pub(crate) type Handler = Arc<dyn Fn(String, Bytes) -> Reply + Send + Sync>;

/// Messages stay bytes: each method encodes and decodes its own.
#[derive(Clone, Copy, Default)]
struct Raw;

/// A client of all services behind one address; reconnects by itself.
#[derive(Clone)]
pub(crate) struct Client(Grpc<Channel>);

/// Encodes an answer.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// Decodes a request.
pub(crate) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Serves `service`, `/package.Service/`, and the health check of it, until the process ends.
pub(crate) async fn serve(
    listener: TcpListener,
    service: &'static str,
    handler: Handler,
    leave: Leave,
) -> anyhow::Result<()> {
    let handler: Handler = Arc::new(move |path, body| match path.as_str() {
        HEALTH => Box::pin(std::future::ready(health(service, body))),
        _ => handler(path, body),
    });
    let closing = leave.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let path = request.uri().path().to_owned();
        let (handler, closing) = (handler.clone(), closing.clone());
        async move {
            let mut grpc = tonic::server::Grpc::new(Raw);
            if path == COUNT {
                let method = tower::service_fn(move |_: tonic::Request<Bytes>| {
                    std::future::ready(Ok(tonic::Response::new(count(closing.clone()))))
                });
                return Ok::<_, Infallible>(grpc.server_streaming(method, request).await);
            }
            let method = tower::service_fn(move |request: tonic::Request<Bytes>| {
                let reply = handler(path.clone(), request.into_inner());
                async move { reply.await.map(tonic::Response::new) }
            });
            Ok(grpc.unary(method, request).await)
        }
    });
    serve::serve(listener, service, leave).await
}

/// 0, 1, 2 … until the server leaves, which ends the stream in order.
fn count(leave: Leave) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    let numbers = stream::unfold(0, |number| async move {
        tokio::time::sleep(PACE).await;
        Some((Ok(encode(&Number { number })), number.saturating_add(1)))
    });
    numbers.take_until(async move { leave.closing().await })
}

/// The empty name asks for the server as a whole.
fn health(service: &str, body: Bytes) -> Result<Bytes, Status> {
    let asked: HealthCheckRequest = decode(body)?;
    if asked.service.is_empty() || asked.service == service.trim_matches('/') {
        Ok(encode(&HealthCheckResponse { status: SERVING }))
    } else {
        Err(Status::not_found(format!("there is no service {}", asked.service)))
    }
}

/// Whether a call has certainly reached no server: it stayed here as its connection was told to go, or the server refused it unseen.
/// Libraries of gRPC ask again then, once (gRFC A6); this one leaves it to its user.
pub(crate) fn reached_nobody(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let goes = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (goes || refused);
        }
        cause = error.source();
    }
    false
}

impl Client {
    /// `host` is host:port; nothing is connected yet.
    pub(crate) fn new(host: &str) -> anyhow::Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{host}"))?.connect_timeout(Duration::from_secs(2));
        Ok(Self(Grpc::new(endpoint.connect_lazy())))
    }

    /// Calls `/package.Service/Method`.
    pub(crate) async fn call<M: Message + Default>(&self, path: String, request: &impl Message) -> Result<M, Status> {
        let path = PathAndQuery::try_from(path).map_err(|e| Status::internal(e.to_string()))?;
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        decode(grpc.unary(tonic::Request::new(encode(request)), path, Raw).await?.into_inner())
    }

    /// The numbers of [`COUNT`].
    pub(crate) async fn count(&self) -> Result<impl Stream<Item = Result<Number, Status>>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = tonic::Request::new(encode(&Empty {}));
        let stream = grpc.server_streaming(request, PathAndQuery::from_static(COUNT), Raw).await?.into_inner();
        Ok(stream.map(|message| decode(message?)))
    }
}

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_asked_by_name() {
        let ask = |service: &str| health(EMOJI_SERVICE, encode(&HealthCheckRequest { service: service.into() }));
        for service in ["", "emojivoto.v1.EmojiService"] {
            assert_eq!(ask(service).unwrap().as_ref(), [0x08, 0x01], "{service:?}");
        }
        assert_eq!(ask("emojivoto.v1.VotingService").unwrap_err().code(), tonic::Code::NotFound);
    }
}
