//! The admin server: probes, metrics, log level, shutdown (data plane 1.7). Runs on the admin thread.
//!
//! It answers HTTP/1 and HTTP/2 in plaintext. It decides nothing about traffic.

mod answer;

use super::shutdown::Trigger;
use answer::answer;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{convert::Infallible, io, net::TcpListener, sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use weft_telemetry::{LogHandle, Readiness, Registry};
use weft_transport::socket::{self, AcceptOptions};

/// The most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// How long the head of a request may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the answers are made from.
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) readiness: Readiness,
    pub(super) logs: LogHandle,
    pub(super) shutdown: Trigger,
    /// Whether POST /shutdown is allowed.
    pub(super) shutdown_enabled: bool,
}

/// Serves until the runtime ends.
pub(super) async fn serve(listener: TcpListener, state: State) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (state, room) = (Arc::new(state), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return Ok(()) };
        let (tcp, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the client is gone: neither is helped by asking again at once.
                tracing::debug!(%error, "The admin server cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let state = state.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if socket::accepted(&tcp, &AcceptOptions::default()).is_err() {
                return;
            }
            let service = service_fn(|request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(answer(&state, client, request).await) }
            });
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            server.http2().timer(TokioTimer::new()).keep_alive_interval(HEAD_TIMEOUT).max_concurrent_streams(64);
            if let Err(error) = server.serve_connection(TokioIo::new(tcp), service).await {
                tracing::debug!(%client, error, "An admin connection failed");
            }
        });
    }
}
