//! Starts every part in its order, and stops them.

use crate::{
    Config, Error, Ports, admin, authority,
    authority::Authority,
    events,
    hub::Hub,
    serve::{self, Listener},
    services::{Destinations, Identities, Inbounds, Outbounds, TrustBundles},
};
use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use weft_model::{Identity, names::service_account};
use weft_telemetry::{Readiness, Registry};

/// Series of the metrics: a few families without unbounded labels.
const SERIES_CAP: usize = 1_000;
/// How long open calls may end by themselves.
const DRAIN: Duration = Duration::from_secs(1);

/// Where a started control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub identity: SocketAddr,
    pub destination: SocketAddr,
    pub policy: SocketAddr,
    pub admin: SocketAddr,
}

/// A started control plane. Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    pub addresses: Addresses,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// The CA cannot be opened or a port cannot be bound.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let running = start(config)?;
    shutdown.await;
    running.stop().await;
    Ok(())
}

/// Opens the CA, binds all ports, and serves in tasks of this runtime.
///
/// # Errors
/// The CA cannot be opened or a port cannot be bound.
pub fn start(config: Config) -> Result<Running, Error> {
    let registry = Registry::new(0, SERIES_CAP);
    weft_telemetry::build::register(&registry);
    weft_telemetry::process::register(&registry);
    let (readiness, stop) = (Readiness::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();

    let authority = Arc::new(Authority::open(&config.state_dir, config.lifetimes)?);
    let hub = Arc::new(Hub::new(config.settings.clone(), &registry, stop.clone()));
    tasks.spawn(events::follow(config.events.clone(), hub.clone(), readiness.task("events"), stop.clone()));

    tasks.spawn(hub.clone().watch_readers());

    let Ports { identity, destination, policy, admin } = config.ports;
    let identities = Identities::new(hub.clone(), authority.clone(), config.settings.clone(), &registry);
    let identity_routes = Routes::new(weft_wire::identity::server(identities))
        .add_service(weft_wire::trust::server(TrustBundles::new(authority.clone(), stop.clone())));
    let destination_routes = Routes::new(weft_wire::destination::server(Destinations::new(hub.clone())));
    let policy_routes = Routes::new(weft_wire::inbound::server(Inbounds::new(hub.clone())))
        .add_service(weft_wire::outbound::server(Outbounds::new(hub)));

    let of = |account: &str| -> Result<Identity, Error> {
        let (namespace, domain) = (&config.settings.control_namespace, &config.settings.trust_domain);
        Identity::of_service_account(account, namespace, namespace, domain)
            .map_err(|e| Error::Identity { what: "identity of the control plane", reason: e.to_string() })
    };
    let identity_store = authority.store(&of(service_account::IDENTITY)?)?;
    let destination_store = authority.store(&of(service_account::DESTINATION)?)?;
    tasks.spawn(authority::renew(authority, &registry, stop.clone()));

    let listen = |what: &str, port: u16| {
        let addr = SocketAddr::new(config.listen, port);
        serve::bind(addr).map_err(|error| Error::Io { what: format!("{what} port {addr}"), error })
    };
    let (identity, identity_addr) = listen("identity", identity)?;
    let (destination, destination_addr) = listen("destination", destination)?;
    let (policy, policy_addr) = listen("policy", policy)?;
    let (admin, admin_addr) = listen("admin", admin)?;
    for (name, socket, store, routes) in [
        ("identity", identity, identity_store, identity_routes),
        ("destination", destination, destination_store.clone(), destination_routes),
        ("policy", policy, destination_store, policy_routes),
    ] {
        let listener = Listener::new(name, socket, store, routes, &registry);
        tasks.spawn(listener.serve(stop.clone()));
    }
    tasks.spawn(admin::serve(admin, registry, readiness, stop.clone()));
    let addresses =
        Addresses { identity: identity_addr, destination: destination_addr, policy: policy_addr, admin: admin_addr };
    tracing::info!(?addresses, "control plane listens");
    Ok(Running { addresses, stop, tasks })
}

impl Running {
    /// Ends all streams and waits for the tasks.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("some calls did not end in time");
        }
    }
}
