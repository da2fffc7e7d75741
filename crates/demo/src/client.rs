//! A client of HTTP/1 with one kept connection.

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Asks `host`, which is host:port.
pub(crate) struct Client {
    host: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(crate) fn new(host: &str) -> Self {
        Self { host: host.to_owned(), connection: None }
    }

    /// The status of an answer, which is read to its end.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<u16> {
        self.send(Method::GET, path, Bytes::new()).await.map(|answer| answer.status().as_u16())
    }

    /// An answer with all of its body. After a failure the next request has a new connection, also after one that was given up.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Bytes>> {
        let host = &self.host;
        let mut sender = match kept(self.connection.take()).await {
            Some(sender) => sender,
            None => connect(host).await?,
        };
        let request = Request::builder().method(method).uri(path).header("host", host).body(Full::new(body))?;
        let response = sender.send_request(request).await.with_context(|| format!("asking {host} for {path}"))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.with_context(|| format!("reading {path} from {host}"))?.to_bytes();
        self.connection = Some(sender);
        Ok(Response::from_parts(head, body))
    }
}

/// The kept connection, if the server has not closed it since.
async fn kept(connection: Option<SendRequest<Full<Bytes>>>) -> Option<SendRequest<Full<Bytes>>> {
    let mut sender = connection?;
    sender.ready().await.ok().map(|()| sender)
}

async fn connect(host: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(host).await.with_context(|| format!("connecting to {host}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
