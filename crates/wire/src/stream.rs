//! The shapes of calls: what a client needs of its connection, what a server is, and streams of model types.

use crate::{Error, Invalid};
use std::{convert::Infallible, future::Future, pin::Pin};
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, Service, StdError, tokio_stream::Stream, tokio_stream::StreamExt},
    server::NamedService,
};

/// How many errors in one message are told.
const REPORTED: usize = 4;

/// What a client receives. After [`Error::Rpc`] nothing follows; after [`Error::Invalid`] the next message may.
pub type Incoming<T> = Pin<Box<dyn Stream<Item = Result<T, Error>> + Send>>;

/// What a server sends. After an error nothing follows.
pub type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A connection to a gRPC server, such as `tonic::transport::Channel`.
pub trait Transport:
    GrpcService<
        Body,
        Error: Into<StdError>,
        ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    >
{
}

impl<T> Transport for T where
    T: GrpcService<
            Body,
            Error: Into<StdError>,
            ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        >
{
}

/// One gRPC service, to be added to a `tonic::service::Routes`.
pub trait GrpcServer:
    Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Future + Send + 'static>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcServer for S where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future: Future + Send + 'static,
        > + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A stream of messages as a stream of model types.
pub(crate) fn incoming<P: Send + 'static, T: Send + 'static>(
    messages: tonic::Streaming<P>,
    decode: fn(P) -> Result<T, Invalid>,
) -> Incoming<T> {
    Box::pin(messages.map(move |message| Ok(decode(message?)?)))
}

/// The same where a message may be usable in part: first what can be used of it, then what cannot.
pub(crate) fn incoming_parts<P: Send + 'static, T: Send + 'static>(
    messages: tonic::Streaming<P>,
    decode: fn(P) -> (Option<T>, Vec<Invalid>),
) -> Incoming<T> {
    // Reported are the first few alone, so that one message does not fill a log.
    Box::pin(futures_util::StreamExt::flat_map(messages, move |message| {
        let (usable, invalid) = match message {
            Ok(message) => {
                let (value, invalid) = decode(message);
                (value.map(Ok), invalid)
            }
            Err(status) => (Some(Err(status.into())), vec![]),
        };
        let invalid = invalid.into_iter().take(REPORTED).map(|invalid| Err(invalid.into()));
        futures_util::stream::iter(usable.into_iter().chain(invalid))
    }))
}

/// A stream of model types as a stream of messages. What cannot be expressed ends it.
pub(crate) fn outgoing<P: Send + 'static, T: Send + 'static>(
    values: Outgoing<T>,
    encode: fn(&T) -> Result<P, Invalid>,
) -> Outgoing<P> {
    Box::pin(values.map(move |value| encode(&value?).map_err(|invalid| cannot_say(&invalid))))
}

/// The control plane holds something that the protocol has no words for.
pub(crate) fn cannot_say(invalid: &Invalid) -> Status {
    Status::internal(format!("the answer cannot be encoded: {invalid}"))
}

/// How a call ended, behind its last message.
pub(crate) fn trailers(status: &Status) -> http::HeaderMap {
    let mut trailers = http::HeaderMap::new();
    if let Err(inexpressible) = status.add_header(&mut trailers) {
        // The code alone has always a form as a header.
        let _ = Status::new(inexpressible.code(), "").add_header(&mut trailers);
    }
    trailers
}

/// The caller sent something that cannot be used.
pub(crate) fn refused(invalid: &Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}
