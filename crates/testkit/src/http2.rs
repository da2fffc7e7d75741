//! HTTP/2 with prior knowledge, by hyper: an origin that records its requests, and a client.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

pub type Body = BoxBody<Bytes, Infallible>;

/// How long anything here waits.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request or response that is complete.
#[derive(Clone, Debug)]
pub struct Message<H> {
    pub head: H,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

type Handler = dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Result<Response<Body>>> + Send>> + Send + Sync;

/// A server of HTTP/2 without TLS on a port of its own. Dropping it closes everything.
pub struct Origin {
    addr: SocketAddr,
    seen: watch::Receiver<Seen>,
    forgets: Arc<watch::Sender<Seen>>,
    task: JoinHandle<()>,
}

/// What an origin saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Accepted so far.
    pub connections: usize,
    /// In the order in which their heads came.
    pub requests: Vec<Arc<http::request::Parts>>,
}

/// A client's connection, over any transport.
#[derive(Clone)]
pub struct Client(SendRequest<Body>);

/// A body that is all there.
pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A body with trailers, as gRPC responses have.
pub fn with_trailers(body: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    Full::new(body.into()).with_trailers(async move { Some(Ok(trailers)) }).boxed()
}

/// A body that goes on for as long as somebody reads it.
pub fn endless(piece: impl Into<Bytes>) -> Body {
    let piece = piece.into();
    let frames = futures_util::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
    BodyExt::boxed(StreamBody::new(frames))
}

/// Waits for the whole of a body.
pub async fn complete<H, B>(head: H, body: B) -> Result<Message<H>>
where
    B: hyper::body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let collected = timeout(PATIENCE, body.collect()).await.context("the body did not end")??;
    let trailers = collected.trailers().cloned();
    Ok(Message { head, body: collected.to_bytes(), trailers })
}

impl Origin {
    /// Answers each request, body included, with what `reply` says; an error resets the stream.
    pub async fn start<F>(reply: impl Fn(Request<Incoming>) -> F + Send + Sync + 'static) -> Result<Self>
    where
        F: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (seen, watched) = watch::channel(Seen::default());
        let seen = Arc::new(seen);
        let forgets = seen.clone();
        let handler: Arc<Handler> = Arc::new(move |request| Box::pin(reply(request)));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                seen.send_modify(|seen| seen.connections += 1);
                connections.spawn(serve(tcp, handler.clone(), seen.clone()));
            }
        });
        Ok(Self { addr, seen: watched, forgets, task })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Keeps none of the requests so far.
    pub fn forget(&self) {
        self.forgets.send_modify(|seen| seen.requests.clear());
    }

    /// Waits until what was seen is `wanted`.
    pub async fn saw(&self, wanted: impl FnMut(&Seen) -> bool) -> Result<Seen> {
        let mut seen = self.seen.clone();
        let seen = timeout(PATIENCE, seen.wait_for(wanted)).await.context("the origin never saw it")??;
        Ok(seen.clone())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(tcp: TcpStream, handler: Arc<Handler>, seen: Arc<watch::Sender<Seen>>) {
    // Without it small frames wait for acknowledgements: slower, not wrong.
    let _ = tcp.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let (parts, body) = request.into_parts();
        let head = Arc::new(parts.clone());
        seen.send_modify(|seen| seen.requests.push(head));
        handler(Request::from_parts(parts, body))
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    // How a connection ended shows at its client.
    let _ = connection.serve_connection(TokioIo::new(tcp), service).await;
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        let tcp = timeout(PATIENCE, TcpStream::connect(addr)).await??;
        tcp.set_nodelay(true)?;
        Self::over(tcp).await
    }

    pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (client, connection) = timeout(PATIENCE, handshake).await.context("no HTTP/2 handshake")??;
        // Its end shows in the next request.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(client))
    }

    /// Whether the connection takes no further request.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Sends a request and waits for the whole response.
    pub async fn call(&mut self, request: Request<Body>) -> Result<Message<http::response::Parts>> {
        let (head, body) = self.start(request).await?.into_parts();
        complete(head, body).await
    }

    /// Sends a request and waits for the head of the response.
    pub async fn start(&mut self, request: Request<Body>) -> Result<Response<Incoming>> {
        self.0.ready().await?;
        Ok(timeout(PATIENCE, self.0.send_request(request)).await.context("no response")??)
    }
}
