//! The server that web, emoji and voting have in common: HTTP until the process is told to leave, then an end in order.
//!
//! ```text
//! SIGTERM ─► serves on until nobody has asked for a while ─► accepts no more, streams and connections end in order ─► done
//! ```
//! Whoever is sent away learns of it later than the server: for that while it goes on as if nothing had happened.

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Longest that it goes on after it was told to leave, …
const MAX_QUIET_WAIT: Duration = Duration::from_secs(20);
/// … and that what is open then may take.
const MAX_END: Duration = Duration::from_secs(10);

/// When and how a server leaves.
#[derive(Clone)]
pub(crate) struct Leave {
    /// How long nobody must have asked.
    quiet: Duration,
    told: watch::Receiver<bool>,
    closing: Arc<watch::Sender<bool>>,
}

/// Tells servers to leave. Dropping it tells them, too.
pub(crate) struct Tell(watch::Sender<bool>);

impl Tell {
    pub(crate) fn leave(&self) {
        self.0.send_replace(true);
    }
}

impl Leave {
    pub(crate) fn new(quiet: Duration) -> (Tell, Self) {
        let (sender, told) = watch::channel(false);
        (Tell(sender), Self { quiet, told, closing: Arc::new(watch::Sender::new(false)) })
    }

    /// Waits until the process is told to leave.
    pub(crate) async fn told(&self) {
        reached(&mut self.told.clone()).await;
    }

    /// Waits until it is time for streams and connections to end.
    pub(crate) async fn closing(&self) {
        reached(&mut self.closing.subscribe()).await;
    }

    /// Waits until the server was told, and nobody has asked for a while.
    async fn quiet(&self, asked: &AtomicU64) {
        self.told().await;
        let end = Instant::now() + MAX_QUIET_WAIT;
        loop {
            let before = asked.load(Relaxed);
            sleep(self.quiet).await;
            if asked.load(Relaxed) == before || Instant::now() >= end {
                return;
            }
        }
    }
}

/// Nobody left who could say so counts as said.
async fn reached(said: &mut watch::Receiver<bool>) {
    let _ = said.wait_for(|said| *said).await;
}

/// Serves HTTP/1 and HTTP/2 until `leave`.
pub(crate) async fn serve<S, B>(addr: SocketAddr, service: S, leave: Leave) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let listener = TcpListener::bind(addr).await?;
    tracing::info!(%addr, "serving");
    on(listener, service, leave).await
}

async fn on<S, B>(listener: TcpListener, service: S, leave: Leave) -> anyhow::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let asked = Arc::new(AtomicU64::new(0));
    let mut open = JoinSet::new();
    let mut quiet = pin!(leave.quiet(&asked));
    loop {
        // What is dropped here is only waiting.
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            Some(_) = open.join_next() => continue,
            () = &mut quiet => break,
        };
        stream.set_nodelay(true)?;
        let (service, asked) = (service.clone(), asked.clone());
        let counted = service_fn(move |request| {
            asked.fetch_add(1, Relaxed);
            service.call(request)
        });
        let leave = leave.clone();
        open.spawn(async move { connection(stream, counted, leave.closing()).await });
    }
    drop(listener);
    leave.closing.send_replace(true);
    if timeout(MAX_END, async { while open.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = open.len(), "left before everything had ended");
    }
    Ok(())
}

async fn connection<S, B>(stream: TcpStream, service: S, closing: impl Future<Output = ()>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use http_body_util::Full;

    #[tokio::test]
    async fn who_asks_while_it_leaves_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let service = service_fn(|_: Request<Incoming>| async {
            sleep(Duration::from_millis(20)).await;
            Ok(Response::new(Full::new(Bytes::from_static(b"answer"))))
        });
        let (tell, leave) = Leave::new(Duration::from_millis(500));
        let serving = tokio::spawn(on(listener, service, leave));
        let (mut kept, mut late) = (Client::new(&host), Client::new(&host));
        assert_eq!(kept.get("/").await.unwrap(), 200);
        tell.leave();
        // Over a connection that it has, and over one that is made now.
        for _ in 0..3 {
            assert_eq!(kept.get("/").await.unwrap(), 200);
            assert_eq!(late.get("/").await.unwrap(), 200);
        }
        timeout(MAX_END, serving).await.expect("it ends though connections are kept").unwrap().unwrap();
        assert!(kept.get("/").await.is_err(), "nobody is there any more");
    }
}
