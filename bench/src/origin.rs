//! The server behind the proxies: one thread, HTTP/1 and HTTP/2 by prior knowledge, a small body.

use crate::lab::ORIGIN;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::convert::Infallible;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const BODY: &[u8] = &[b'x'; 128];
/// What slow readers ask for.
pub(crate) const LARGE_PATH: &str = "/large";
const LARGE: &[u8] = &[b'x'; 1 << 20];
/// An answer is whole when it ends in this: the body is all of one letter, which no header ends in four of.
pub(crate) const BODY_END: &[u8] = b"xxxx";

/// Bytes of an echo that are read at once.
const ECHO: usize = 1024;

pub(crate) fn serve(echo: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(ORIGIN).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            if echo {
                tokio::spawn(give_back(stream));
                continue;
            }
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| async {
                    let body = if request.uri().path() == LARGE_PATH { LARGE } else { BODY };
                    // A request is read to its end, however long that takes. One that breaks off needs no answer.
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(body))))
                });
                // A client that goes away in the middle is no fault of the origin.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}

/// Ends with the client.
async fn give_back(mut stream: TcpStream) {
    let mut buffer = [0; ECHO];
    while let Ok(n) = stream.read(&mut buffer).await {
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else { return };
        if stream.write_all(read).await.is_err() {
            return;
        }
    }
}
