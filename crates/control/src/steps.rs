//! The messages that lead clients from one set of endpoints to the newest, each made once for all streams that need it.
//!
//! They are kept with the newest snapshot and go with it. Streams that hold the same version and are told the same of it take the
//! same bytes: most come from the version before, and who lagged behind takes one way from what it holds, over nothing in between.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};
use tonic::Status;
use weft_cluster::index::{Answer, Endpoints, Place, Versioned};
use weft_model::EndpointUpdate;
use weft_wire::{Encoded, destination::encode};

/// Ways to one version that are kept: streams come from few versions and zones. Where clients are told apart by their nodes there can
/// be more, which are made anew for each.
const MAX_WAYS: usize = 1_000;

/// Messages in their order.
pub(crate) type Way = Arc<[Encoded]>;

/// The ways to one version.
#[derive(Default)]
pub(crate) struct Steps(Mutex<HashMap<Ends, Way>>);

/// Where a way begins and ends.
#[derive(PartialEq, Eq, Hash)]
struct Ends {
    /// The version that is held, and what of the client's place made a difference to it.
    from: Option<(u64, Place)>,
    /// What of it makes one now.
    at: Place,
}

impl Steps {
    /// The way to `to`, which this is kept with, for a client at `place`; `held` and where it was seen from is what the client was told
    /// before, and nothing of a target that was gone.
    pub(crate) fn to(&self, to: &Endpoints, place: &Place, held: Option<(&Versioned, &Place)>) -> Result<Way, Status> {
        let from = held.map(|(held, was)| (held.version, of(held).map(|e| e.told_apart_by(was)).unwrap_or_default()));
        let ends = Ends { from, at: to.told_apart_by(place) };
        // Who asks at the same moment waits for what is being made.
        let mut ways = self.0.lock();
        if let Some(way) = ways.get(&ends) {
            return Ok(way.clone());
        }
        let held = held.map(|(held, was)| (of(held), was));
        let way: Way = updates(to, place, held).iter().map(encode).collect::<Result<_, _>>()?;
        if ways.len() < MAX_WAYS {
            ways.insert(ends, way.clone());
        }
        Ok(way)
    }
}

fn updates(to: &Endpoints, place: &Place, held: Option<(Option<&Endpoints>, &Place)>) -> Vec<EndpointUpdate> {
    let Some((held, was)) = held else {
        let first = to.steps(place, None);
        // The client waits for a first word even if there is nobody.
        return if first.is_empty() { vec![EndpointUpdate::NoEndpoints { exists: true }] } else { first };
    };
    let mut steps = to.steps(place, held.map(|held| (held, was)));
    // Who comes before who goes: while pods are replaced there is always somebody.
    steps.reverse();
    steps
}

/// Nothing of a target that is gone.
fn of(versioned: &Versioned) -> Option<&Endpoints> {
    match &versioned.answer {
        Ok(Answer::Destination(endpoints)) => Some(endpoints),
        _ => None,
    }
}
