//! Starts every part in its order, and stops them.

use crate::{
    Config, Error, Ports, authority,
    authority::{Authority, Origin},
    events,
    hub::Hub,
    process::Process,
    serve::{Front, Listener},
    services::{self, Holders, Identities},
};
use std::{future::Future, net::SocketAddr, sync::Arc};
use weft_model::{Identity, names::service_account};

/// Where a started control plane listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub identity: SocketAddr,
    pub destination: SocketAddr,
    pub policy: SocketAddr,
    pub admin: SocketAddr,
}

/// A started control plane. Dropping it ends it at once.
pub struct Running {
    pub addresses: Addresses,
    process: Process,
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
    let mut process = Process::new();
    let (registry, stop) = (process.registry.clone(), process.stop.clone());

    let authority = Arc::new(Authority::open(Origin::Folder(config.state_dir.clone()), config.lifetimes)?);
    let hub = Arc::new(Hub::new(config.settings.clone(), &registry, stop.clone()));
    process.spawn(events::follow(config.events.clone(), hub.clone(), process.readiness.task("events"), stop.clone()));

    process.spawn(hub.clone().watch_readers());

    let Ports { identity, destination, policy, admin } = config.ports;
    let holders = Holders::Known(hub.clone());
    let identities = Identities::new(holders, authority.clone(), config.settings.clone(), &registry);
    let identity_routes = services::identity(identities, &authority, &stop);
    let destination_routes = services::destination(&hub);
    let policy_routes = services::policy(&hub);

    let of = |account: &str| -> Result<Identity, Error> {
        let (namespace, domain) = (&config.settings.control_namespace, &config.settings.trust_domain);
        Identity::of_service_account(account, namespace, namespace, domain)
            .map_err(|e| Error::Identity { what: "identity of the control plane", reason: e.to_string() })
    };
    let identity_store = authority.store(&of(service_account::IDENTITY)?)?;
    let destination_store = authority.store(&of(service_account::DESTINATION)?)?;
    process.spawn(authority::renew(authority, &registry, |_| {}, stop.clone()));

    let listen = |what: &str, port: u16| Process::bind(what, SocketAddr::new(config.listen, port));
    let (identity, identity_addr) = listen("identity", identity)?;
    let (destination, destination_addr) = listen("destination", destination)?;
    let (policy, policy_addr) = listen("policy", policy)?;
    let admin_addr = process.admin(SocketAddr::new(config.listen, admin))?;
    for (name, socket, store, routes) in [
        ("identity", identity, identity_store, identity_routes),
        ("destination", destination, destination_store.clone(), destination_routes),
        ("policy", policy, destination_store, policy_routes),
    ] {
        let listener = Listener::new(name, socket, Front::Mutual(store), routes, &registry);
        process.spawn(listener.serve(stop.clone()));
    }
    let addresses =
        Addresses { identity: identity_addr, destination: destination_addr, policy: policy_addr, admin: admin_addr };
    tracing::info!(?addresses, "control plane listens");
    Ok(Running { addresses, process })
}

impl Running {
    /// Ends all streams and waits for the tasks.
    pub async fn stop(self) {
        self.process.stop().await;
    }
}
