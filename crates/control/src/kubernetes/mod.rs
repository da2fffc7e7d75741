//! The control plane on Kubernetes: Linkerd's three Deployments, one process each, on Linkerd's ports.
//!
//! ```text
//! destination      watches ─► hub ─► destination and policy, one index for both; validators ─► cluster::policy
//!                          └► statuses, slices, by whoever holds the lease ─► API server
//! identity         files of the issuer, TokenReview ─► certificates
//! proxy-injector   webhook ─► cluster::inject ─► a pod with its proxy
//! ```
//!
//! Each process speaks plaintext behind its pod's own proxy, which proves its identity and lets in whom its policy names. Only
//! webhooks, which the API server asks, speak TLS themselves.

mod destination;
mod holder;
mod identity;
mod injector;
mod missed;
mod slices;
mod statuses;

pub use destination::{Destination, Validator, watched};
pub use identity::Identity;
pub use injector::ProxyInjector;

use crate::Error;
use std::{future::Future, net::SocketAddr, path::PathBuf, time::Duration};

/// A pod is told to end when its addresses are taken back: until nodes and the API server have noticed, they send it reviews and
/// connections.
const NOTICED: Duration = Duration::from_secs(5);
/// How long a review may take, where an installation says nothing else: the API server's own default.
const REVIEW: Duration = Duration::from_secs(10);

/// What all of them are told.
#[derive(Clone, Debug)]
pub struct Common {
    pub admin: SocketAddr,
    pub control_namespace: String,
    pub trust_domain: String,
    pub cluster_domain: String,
    /// Without one this is a pod of the cluster.
    pub kubeconfig: Option<PathBuf>,
    /// The pod's name.
    pub instance: String,
}

/// What a process is.
#[derive(Clone, Debug)]
pub enum Mode {
    Destination(Destination),
    Identity(Identity),
    ProxyInjector(ProxyInjector),
}

/// A started process. Dropping it ends it at once.
pub struct Running {
    /// By their names.
    pub addresses: Vec<(&'static str, SocketAddr)>,
    process: crate::process::Process,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// A port cannot be bound, or nothing says how to reach the API server.
pub async fn run(common: Common, mode: Mode, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let running = start(common, mode).await?;
    shutdown.await;
    running.leave(tokio::time::sleep(NOTICED)).await;
    Ok(())
}

/// Serves in tasks of this runtime.
///
/// # Errors
/// See [`run`].
pub async fn start(common: Common, mode: Mode) -> Result<Running, Error> {
    let running = match mode {
        Mode::Destination(destination) => destination::start(common, destination).await?,
        Mode::Identity(identity) => identity::start(common, identity).await?,
        Mode::ProxyInjector(injector) => injector::start(common, injector).await?,
    };
    tracing::info!(addresses = ?running.addresses, "control plane listens");
    Ok(running)
}

impl Running {
    /// Is not ready any more, and serves until everybody has noticed; then it stops.
    pub async fn leave(self, noticed: impl Future<Output = ()>) {
        self.process.leave(noticed).await;
    }

    /// Ends all streams and waits for the tasks.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}
