//! The server behind the proxies: one thread, HTTP/1 and HTTP/2 by prior knowledge, a small body.

use crate::lab::ORIGIN;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, service::service_fn};
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
                let answer =
                    service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY)))) });
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
