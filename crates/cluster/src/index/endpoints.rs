//! Endpoints with where they are, and which of them a client is sent to (control plane 6.2).
//!
//! One set answers for all clients; what depends on a client's place is decided when the set is sent to it.

use super::{facts::Map, settings::Platform};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use weft_model::Endpoint;

/// What is behind a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    pub(super) all: BTreeMap<SocketAddr, Located>,
    /// Clients are sent to their own node alone (`internalTrafficPolicy: Local`).
    pub(super) node_only: bool,
    pub(super) platform: Platform,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located {
    pub(super) endpoint: Endpoint,
    pub(super) node: Option<String>,
    pub(super) zone: Option<String>,
    /// The zones whose clients should be sent here; empty is no hint.
    pub(super) for_zones: BTreeSet<String>,
}

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Empty if it did not say so.
    pub node: String,
    pub zone: Option<String>,
}

impl Endpoints {
    /// The set as a client at `place` gets it.
    pub fn seen_from(&self, place: &Place) -> BTreeMap<SocketAddr, Endpoint> {
        let on_node = |e: &Located| !self.node_only || e.node.as_ref().is_some_and(|n| *n == place.node);
        let candidates: Vec<_> = self.all.iter().filter(|(_, e)| on_node(e)).collect();
        // Hints hold if every endpoint has one and some endpoint is meant for the client's zone.
        let meant = |e: &Located| place.zone.as_ref().is_some_and(|zone| e.for_zones.contains(zone));
        let hinted =
            candidates.iter().all(|(_, e)| !e.for_zones.is_empty()) && candidates.iter().any(|(_, e)| meant(e));
        candidates
            .into_iter()
            .filter(|(_, e)| !hinted || meant(e))
            .map(|(addr, located)| (*addr, self.labelled(located, place)))
            .collect()
    }

    fn labelled(&self, located: &Located, place: &Place) -> Endpoint {
        let mut endpoint = located.endpoint.clone();
        if self.platform == Platform::Kubernetes {
            let locality = match (&located.zone, &place.zone) {
                (Some(zone), Some(own)) if zone == own => "local",
                (Some(_), Some(_)) => "remote",
                _ => "unknown",
            };
            endpoint.labels.insert("zone_locality".to_owned(), locality.to_owned());
            endpoint.labels.extend(located.zone.clone().map(|zone| ("zone".to_owned(), zone)));
        }
        endpoint
    }
}

/// The labels that all endpoints of a Service have.
pub(super) fn labels_of(namespace: &str, service: &str) -> Map {
    [("service", service), ("namespace", namespace)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}
