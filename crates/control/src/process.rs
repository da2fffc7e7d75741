//! What every process of the control plane has: metrics, readiness, tasks, and an end.

use crate::{Error, admin, serve};
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use weft_telemetry::{Readiness, Registry};

/// Series of the metrics. Most families have few; the injector's have some for each namespace and each annotation of its pods.
const SERIES_CAP: usize = 10_000;
/// Of open calls, where nobody says that they take longer.
const DRAIN: Duration = Duration::from_secs(1);

/// Dropping it ends everything at once.
pub(crate) struct Process {
    pub(crate) registry: Registry,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    /// How long open calls may end by themselves.
    pub(crate) drain: Duration,
    tasks: JoinSet<()>,
}

impl Process {
    pub(crate) fn new() -> Self {
        let registry = Registry::new(0, SERIES_CAP);
        weft_telemetry::build::register(&registry);
        weft_telemetry::process::register(&registry);
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        Self { registry, readiness, stop, drain: DRAIN, tasks: JoinSet::new() }
    }

    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Binds `addr` for `what`.
    pub(crate) fn bind(what: &str, addr: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
        serve::bind(addr).map_err(|error| Error::Io { what: format!("{what} port {addr}"), error })
    }

    /// Serves the admin endpoints.
    pub(crate) fn admin(&mut self, addr: SocketAddr) -> Result<SocketAddr, Error> {
        let (listener, addr) = Self::bind("admin", addr)?;
        self.spawn(admin::serve(listener, self.registry.clone(), self.readiness.clone(), self.stop.clone()));
        Ok(addr)
    }

    /// Goes on for whoever does not know yet that it ends, until they do; then stops.
    pub(crate) async fn leave(self, known: impl Future<Output = ()>) {
        let _unready = self.readiness.task("end");
        known.await;
        self.stop().await;
    }

    /// Ends all streams and waits for the tasks.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, ended).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
    }
}
