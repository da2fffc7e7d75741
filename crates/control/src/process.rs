//! What every process of the control plane has: metrics, readiness, tasks, and an end.

use crate::{Error, admin, serve};
use std::{future::Future, net::SocketAddr, time::Duration};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use weft_telemetry::{Readiness, Registry};

/// Series of the metrics: a few families without unbounded labels.
const SERIES_CAP: usize = 1_000;
/// How long open calls may end by themselves.
const DRAIN: Duration = Duration::from_secs(1);

/// Dropping it ends everything at once.
pub(crate) struct Process {
    pub(crate) registry: Registry,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Process {
    pub(crate) fn new() -> Self {
        let registry = Registry::new(0, SERIES_CAP);
        weft_telemetry::build::register(&registry);
        weft_telemetry::process::register(&registry);
        Self { registry, readiness: Readiness::new(), stop: CancellationToken::new(), tasks: JoinSet::new() }
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

    /// Ends all streams and waits for the tasks.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
    }
}
