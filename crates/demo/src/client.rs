//! A client of HTTP/1, or of HTTP/2 as who knows that its server speaks it, with one kept connection.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Asks `host`, which is host:port.
pub(crate) struct Client {
    host: String,
    http2: bool,
    connection: Option<Connection>,
}

enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(crate) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), http2: false, connection: None }
    }

    pub(crate) fn http2(host: &str) -> Self {
        Self { http2: true, ..Self::new(host) }
    }

    /// The status of an answer, which is read to its end.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<u16> {
        self.send(Method::GET, path, Bytes::new()).await.map(|answer| answer.status().as_u16())
    }

    /// An answer with all of its body.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Bytes>> {
        let request = Request::builder().method(method).uri(path).header("host", &self.host).body(Full::new(body))?;
        self.request(request).await
    }

    /// The same of a request that is whole, with its `host`. After a failure the next request has a new connection, also after one
    /// that was given up.
    pub(crate) async fn request(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let host = &self.host;
        let mut connection = match kept(self.connection.take()).await {
            Some(connection) => connection,
            None => connect(host, self.http2).await?,
        };
        let path = request.uri().clone();
        let response = connection.send(request).await.with_context(|| format!("asking {host} for {path}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.with_context(|| format!("reading {path} from {host}"))?.to_bytes();
        self.connection = Some(connection);
        Ok(Response::from_parts(head, body))
    }
}

impl Connection {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        Ok(match self {
            Self::Http1(sender) => sender.send_request(request).await?,
            Self::Http2(sender) => sender.send_request(absolute(request)?).await?,
        })
    }
}

/// HTTP/2 names the host in the URI.
fn absolute(request: Request<Full<Bytes>>) -> anyhow::Result<Request<Full<Bytes>>> {
    let (mut head, body) = request.into_parts();
    let host = head.headers.remove(HOST).context("the request has no host")?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path).build()?;
    Ok(Request::from_parts(head, body))
}

/// The kept connection, if the server has not closed it since.
async fn kept(connection: Option<Connection>) -> Option<Connection> {
    let mut connection = connection?;
    let ready = match &mut connection {
        Connection::Http1(sender) => sender.ready().await,
        Connection::Http2(sender) => sender.ready().await,
    };
    ready.ok().map(|()| connection)
}

async fn connect(host: &str, http2: bool) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
    stream.set_nodelay(true)?;
    if http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        return Ok(Connection::Http2(sender));
    }
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Connection::Http1(sender))
}
