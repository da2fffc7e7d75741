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
use tokio::net::TcpListener;

const BODY: &[u8] = &[b'x'; 128];

pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(ORIGIN).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let answer =
                    service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(BODY)))) });
                // A client that goes away in the middle is no fault of the origin.
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    })
}
