//! Endpoints with where they are, and which of them a client is sent to (control plane 6.2).
//!
//! One set answers for all clients; what depends on a client's place is decided when the set is sent to it.
//! Pods of one template differ in address and name alone: the rest is held once for all of them.

use super::{facts::Map, hash, settings::Platform};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
};
use weft_model::{Endpoint, EndpointUpdate};

/// What is behind a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Endpoints {
    pub(super) all: BTreeMap<SocketAddr, Located>,
    /// Clients are sent to their own node alone (`internalTrafficPolicy: Local`).
    pub(super) node_only: bool,
    pub(super) platform: Platform,
    /// What is in a client's own zone weighs more.
    pub(super) zone_weights: bool,
}

/// How much more than the rest of the endpoints, where zones have weights.
const OWN_ZONE: u32 = 10;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located {
    /// An endpoint of another address, without the label of its pod.
    pub(super) like: Arc<Endpoint>,
    pub(super) pod: Option<Box<str>>,
    /// Where only the node's own clients are sent here.
    pub(super) node: Option<Box<str>>,
    pub(super) zone: Option<Box<str>>,
    /// The zones whose clients should be sent here; empty is no hint.
    pub(super) for_zones: BTreeSet<String>,
}

/// Where a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    /// Empty if it did not say so.
    pub node: String,
    pub zone: Option<String>,
}

/// An endpoint as it is seen from a place. Two are equal where what is made of them is.
#[derive(PartialEq)]
struct Seen<'e> {
    like: &'e Arc<Endpoint>,
    pod: Option<&'e str>,
    zone: Option<&'e str>,
    locality: Option<&'static str>,
    weight: u32,
}

const LOCAL: &str = "local";

impl Endpoints {
    /// The set as a client at `place` gets it.
    pub fn seen_from(&self, place: &Place) -> BTreeMap<SocketAddr, Endpoint> {
        self.seen(place).into_iter().map(|(addr, seen)| (addr, seen.endpoint(addr))).collect()
    }

    /// The steps to this set, for a client at `place` from what it held where it was then, if it held anything.
    pub fn steps(&self, place: &Place, held: Option<(&Self, &Place)>) -> Vec<EndpointUpdate> {
        let from = held.map(|(held, place)| held.seen(place)).unwrap_or_default();
        EndpointUpdate::steps(&from, &self.seen(place), |addr, seen| seen.endpoint(addr))
    }

    /// What of `place` makes a difference: clients of which it is the same are told the same.
    pub fn told_apart_by(&self, place: &Place) -> Place {
        let by_zone = self.all.values().any(|e| e.zone.is_some() || !e.for_zones.is_empty());
        Place {
            node: if self.node_only { place.node.clone() } else { String::new() },
            zone: place.zone.clone().filter(|_| by_zone),
        }
    }

    fn seen(&self, place: &Place) -> BTreeMap<SocketAddr, Seen<'_>> {
        let on_node = |e: &Located| !self.node_only || e.node.as_ref().is_some_and(|n| **n == *place.node);
        let candidates: Vec<_> = self.all.iter().filter(|(_, e)| on_node(e)).collect();
        // Hints hold if every endpoint has one and some endpoint is meant for the client's zone.
        let meant = |e: &Located| place.zone.as_ref().is_some_and(|zone| e.for_zones.contains(zone));
        let hinted =
            candidates.iter().all(|(_, e)| !e.for_zones.is_empty()) && candidates.iter().any(|(_, e)| meant(e));
        let chosen = candidates.into_iter().filter(|(_, e)| !hinted || meant(e));
        chosen.map(|(addr, located)| (*addr, self.seen_at(located, place))).collect()
    }

    fn seen_at<'e>(&self, located: &'e Located, place: &Place) -> Seen<'e> {
        let zone = located.zone.as_deref();
        let locality = match (zone, &place.zone) {
            (Some(zone), Some(own)) if zone == own => LOCAL,
            (Some(_), Some(_)) => "remote",
            _ => "unknown",
        };
        let on_kubernetes = self.platform == Platform::Kubernetes;
        let factor = if self.zone_weights && locality == LOCAL { OWN_ZONE } else { 1 };
        Seen {
            like: &located.like,
            pod: located.pod.as_deref(),
            zone: zone.filter(|_| on_kubernetes),
            locality: on_kubernetes.then_some(locality),
            weight: located.like.weight.saturating_mul(factor),
        }
    }

    /// The hash of the content, in which what endpoints share is read once.
    pub(super) fn version(&self) -> u64 {
        hash::of(&Content(self))
    }
}

impl Seen<'_> {
    fn endpoint(&self, addr: SocketAddr) -> Endpoint {
        let mut endpoint = Endpoint { addr, weight: self.weight, ..Endpoint::clone(self.like) };
        let labels = [("pod", self.pod), ("zone", self.zone), ("zone_locality", self.locality)];
        endpoint.labels.extend(labels.into_iter().filter_map(|(name, is)| Some((name.to_owned(), is?.to_owned()))));
        endpoint
    }
}

/// Everything that tells one set from another, as text.
struct Content<'e>(&'e Endpoints);

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoints { all, node_only, platform, zone_weights } = self.0;
        write!(f, "endpoints {node_only} {platform:?} {zone_weights}")?;
        let mut last: Option<(&Arc<Endpoint>, u64)> = None;
        for (addr, Located { like, pod, node, zone, for_zones }) in all {
            let shared = match last {
                Some((same, shared)) if Arc::ptr_eq(same, like) => shared,
                _ => hash::of(like),
            };
            last = Some((like, shared));
            write!(f, "{addr} {shared} {pod:?} {node:?} {zone:?} {for_zones:?}")?;
        }
        Ok(())
    }
}

/// The labels that all endpoints of a Service have.
pub(super) fn labels_of(namespace: &str, service: &str) -> Map {
    [("service", service), ("namespace", namespace)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}
