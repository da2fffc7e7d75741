//! Messages that are encoded once, however many streams send them.
//!
//! tonic's own streams encode a message each for itself, and each keeps a buffer as large as its largest message. What goes to
//! hundreds of streams at one moment, and to streams that are open for days, is a sequence of shared bytes here.

use crate::{
    Invalid, Outgoing,
    error::here,
    stream::{self, cannot_say},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body::Frame;
use prost::Message;
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{
    Request, Status, Streaming,
    body::Body,
    codegen::{
        BoxFuture, Service,
        tokio_stream::{self, StreamExt},
    },
    metadata::{GRPC_CONTENT_TYPE, MetadataMap},
    server::NamedService,
};
use tonic_prost::ProstDecoder;

/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A message as it goes over the wire. A clone is the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(Bytes);

impl Encoded {
    pub(crate) fn of(message: &impl Message) -> Result<Self, Invalid> {
        let length = message.encoded_len();
        let prefix = u32::try_from(length).map_err(|_| here("the message is longer than 4 GB"))?;
        let mut bytes = BytesMut::with_capacity(PREFIX.saturating_add(length));
        bytes.put_u8(0);
        bytes.put_u32(prefix);
        message.encode(&mut bytes).map_err(here)?;
        Ok(Self(bytes.freeze()))
    }
}

/// A stream of model types, each encoded when it comes. What cannot be expressed ends it.
pub(crate) fn encoded<P: Message + 'static, T: Send + 'static>(
    values: Outgoing<T>,
    encode: fn(&T) -> Result<P, Invalid>,
) -> Outgoing<Encoded> {
    Box::pin(values.map(move |value| {
        let message = encode(&value?).and_then(|message| Encoded::of(&message));
        message.map_err(|invalid| cannot_say(&invalid))
    }))
}

/// The methods of a service.
pub(crate) trait Methods: Send + Sync + 'static {
    /// Its name with its package.
    const NAME: &'static str;

    /// `None` of a method that it does not have.
    fn call(self: Arc<Self>, method: &str, request: http::Request<Body>) -> Option<Answer>;
}

/// What a call comes to.
pub(crate) type Answer = BoxFuture<http::Response<Body>, Infallible>;

/// Serves methods as gRPC.
pub(crate) struct Server<M>(Arc<M>);

impl<M: Methods> Server<M> {
    pub(crate) fn new(methods: M) -> Self {
        Self(Arc::new(methods))
    }
}

impl<M> Clone for Server<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Methods> NamedService for Server<M> {
    const NAME: &'static str = M::NAME;
}

impl<M: Methods> Service<http::Request<Body>> for Server<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        self.0.clone().call(method, request).unwrap_or_else(|| {
            Box::pin(async { Ok(Status::unimplemented("the service has no such method").into_http()) })
        })
    }
}

/// Answers a call that asks by one message, by a stream of them.
pub(crate) fn answer<P, F>(
    request: http::Request<Body>,
    serve: impl FnOnce(Request<P>) -> F + Send + 'static,
) -> Option<Answer>
where
    P: Message + Default + 'static,
    F: Future<Output = Result<Outgoing<Encoded>, Status>> + Send + 'static,
{
    Some(Box::pin(async move {
        let answered = match asked(request).await {
            Ok(asked) => serve(asked).await,
            Err(status) => Err(status),
        };
        Ok(match answered {
            Ok(messages) => {
                let mut response = http::Response::new(Body::new(Sending(Some(messages))));
                response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
                response
            }
            Err(status) => status.into_http(),
        })
    }))
}

/// The first message alone, for the unary form of a watch.
pub(crate) async fn first(mut messages: Outgoing<Encoded>) -> Result<Outgoing<Encoded>, Status> {
    let ended = || Status::unavailable("the watch ended before its first answer");
    let first = messages.next().await.ok_or_else(ended)??;
    Ok(Box::pin(tokio_stream::once(Ok(first))))
}

async fn asked<P: Message + Default + 'static>(request: http::Request<Body>) -> Result<Request<P>, Status> {
    let (parts, body) = request.into_parts();
    let mut messages = Streaming::new_request(ProstDecoder::default(), body, None, None);
    let message = messages.message().await?.ok_or_else(|| Status::internal("the request holds no message"))?;
    // To its end, so that the stream is not reset for what was not read of it.
    messages.trailers().await?;
    Ok(Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, message))
}

/// The body of an answer; nothing is left once its trailers are sent.
struct Sending(Option<Outgoing<Encoded>>);

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(messages) = &mut self.0 else { return Poll::Ready(None) };
        let status = match ready!(messages.as_mut().poll_next(cx)) {
            Some(Ok(Encoded(bytes))) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.0 = None;
        Poll::Ready(Some(Ok(Frame::trailers(stream::trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
