//! The gRPC services, each a thin layer between `wire` and the hub or the CA.

pub(crate) mod ask;
mod certify;
mod destination;
mod holders;
mod limit;
mod policy;
mod reviews;
mod stream;
mod trust;
mod work;

pub(crate) use certify::Identities;
pub(crate) use holders::{Holders, Reviewed};

use crate::{authority::Authority, hub::Hub};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// What is served on the identity port.
pub(crate) fn identity(identities: Identities, authority: &Arc<Authority>, stop: &CancellationToken) -> Routes {
    Routes::new(weft_wire::identity::server(identities))
        .add_service(weft_wire::trust::server(trust::TrustBundles::new(authority.clone(), stop.clone())))
}

/// What is served on the destination port.
pub(crate) fn destination(hub: &Arc<Hub>) -> Routes {
    Routes::new(weft_wire::destination::server(destination::Destinations::new(hub.clone())))
}

/// What is served on the policy port.
pub(crate) fn policy(hub: &Arc<Hub>) -> Routes {
    Routes::new(weft_wire::inbound::server(policy::Inbounds::new(hub.clone())))
        .add_service(weft_wire::outbound::server(policy::Outbounds::new(hub.clone())))
        .add_service(weft_wire::extension::server(policy::Extended::new(hub.clone())))
        .add_service(weft_wire::work::server(work::PodWorks::new(hub.clone())))
}
