//! The endpoints of one target, from `Destination.Get`.

use super::Watched;
use crate::process::control::{Counted, Event, Failed, Following, follow};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use weft_model::{Endpoint, EndpointUpdate, NameAddr};
use weft_wire::{Verdict, destination::Client};

/// The endpoints behind a name, kept up to date as long as somebody holds it.
pub struct EndpointsWatch {
    pub target: NameAddr,
    pub endpoints: Arc<Watched<EndpointSet>>,
}

/// The newest complete set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSet {
    pub state: EndpointState,
    pub map: BTreeMap<SocketAddr, Endpoint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointState {
    /// The control plane has not answered yet, or refuses to answer any more.
    #[default]
    Unknown,
    Known,
    /// The target does not exist.
    Absent,
}

impl EndpointsWatch {
    pub(super) fn new(target: NameAddr) -> Self {
        Self { target, endpoints: Arc::new(Watched::new(EndpointSet::default())) }
    }

    /// What the watching task writes to: it must not hold the watch itself, or that would never be idle.
    pub(super) fn published(&self) -> Arc<Watched<EndpointSet>> {
        self.endpoints.clone()
    }
}

/// Publishes the endpoints of `path`. A lost stream leaves the set as it is until another stream has begun: its first
/// message then is the whole set. Where the control plane knows of none any more what it knew before is not used on.
pub(super) async fn watch(
    endpoints: Arc<Watched<EndpointSet>>,
    path: String,
    client: Client<Counted>,
    context: String,
    following: Following,
) {
    let open = || {
        let (mut client, path, context) = (client.clone(), path.clone(), context.clone());
        async move { client.get(&path, &context).await }
    };
    let mut anew = false;
    follow(following, open, |event| match event {
        Event::Message { first, value } => {
            anew = if first { begins_anew(&value) } else { anew };
            let set = next(&endpoints.load().value, &mut anew, value);
            if endpoints.set_if_changed(set) {
                tracing::debug!(target = path, endpoints = endpoints.load().value.map.len(), "Endpoints changed");
            }
        }
        Event::Invalid(reason) => {
            tracing::warn!(target = path, reason, "What cannot be used of an update of endpoints is left out");
        }
        Event::Failed(Failed { error, verdict, again, .. }) => match denied(verdict, again) {
            Some(state) if endpoints.set_if_changed(EndpointSet { state, map: BTreeMap::new() }) => {
                tracing::warn!(target = path, %error, "The endpoints are not used any more");
            }
            _ if verdict == Verdict::Refused && !again => {
                tracing::warn!(target = path, %error, "The endpoints are refused");
            }
            _ => tracing::debug!(target = path, %error, "The stream of endpoints is lost"),
        },
    })
    .await;
}

/// What is known when a stream has failed; `None` if what was known holds. The control plane must have said twice that it knows of
/// no endpoints: one that has just been started may not have read everything yet, and the second answer comes soon.
fn denied(verdict: Verdict, again: bool) -> Option<EndpointState> {
    match verdict {
        Verdict::Unknown => Some(EndpointState::Absent),
        Verdict::Refused => Some(EndpointState::Unknown),
        // A service that is not there knows nothing of the target.
        Verdict::Unserved | Verdict::None => None,
    }
    .filter(|_| again)
}

/// Whether a stream that begins with this replaces what an earlier one had told. One that begins with a removal tells a difference.
fn begins_anew(first: &EndpointUpdate) -> bool {
    !matches!(first, EndpointUpdate::Remove(_))
}

/// The set after an update. `anew` says that what is held is an earlier stream's: it stands until this stream has told some of its
/// own, and is dropped whole then, so that no endpoint outlives it that nobody names any more.
fn next(held: &EndpointSet, anew: &mut bool, update: EndpointUpdate) -> EndpointSet {
    if matches!(&update, EndpointUpdate::Add(added) if added.is_empty()) {
        return held.clone();
    }
    let state = match update {
        EndpointUpdate::NoEndpoints { exists: false } => EndpointState::Absent,
        _ => EndpointState::Known,
    };
    let replaces = !matches!(update, EndpointUpdate::Remove(_)) && std::mem::take(anew);
    let mut map = if replaces { BTreeMap::new() } else { held.map.clone() };
    update.apply(&mut map);
    EndpointSet { state, map }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(hosts: &[u8]) -> EndpointUpdate {
        EndpointUpdate::Add(hosts.iter().map(|h| Endpoint::plain(([10, 0, 0, *h], 80).into())).collect())
    }

    fn hosts(set: &EndpointSet) -> Vec<String> {
        set.map.keys().map(ToString::to_string).collect()
    }

    /// The set after a stream that brings these.
    fn stream(held: &EndpointSet, updates: impl IntoIterator<Item = EndpointUpdate>) -> EndpointSet {
        let mut updates = updates.into_iter().peekable();
        let mut anew = updates.peek().is_some_and(begins_anew);
        updates.fold(held.clone(), |set, update| next(&set, &mut anew, update))
    }

    fn remove(hosts: &[u8]) -> EndpointUpdate {
        EndpointUpdate::Remove(hosts.iter().map(|h| ([10, 0, 0, *h], 80).into()).collect())
    }

    #[test]
    fn the_first_update_of_a_stream_replaces_the_set() {
        let set = stream(&EndpointSet::default(), [add(&[1, 2]), add(&[3])]);
        assert_eq!(hosts(&set), ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
        assert_eq!(hosts(&stream(&set, [add(&[2, 4])])), ["10.0.0.2:80", "10.0.0.4:80"]);
        let set = stream(&set, [add(&[2, 4]), remove(&[4])]);
        assert_eq!((hosts(&set), set.state), (vec!["10.0.0.2:80".to_owned()], EndpointState::Known));
    }

    /// Of an addition that cannot be used nothing is left.
    #[test]
    fn what_an_earlier_stream_told_ends_with_the_first_endpoint_of_the_next() {
        let held = stream(&EndpointSet::default(), [add(&[1])]);
        assert_eq!(hosts(&stream(&held, [add(&[]), add(&[2])])), ["10.0.0.2:80"]);
        assert_eq!(hosts(&stream(&held, [add(&[]), remove(&[3]), add(&[]), add(&[2])])), ["10.0.0.2:80"]);
        assert_eq!(hosts(&stream(&held, [add(&[]), add(&[2]), add(&[3])])), ["10.0.0.2:80", "10.0.0.3:80"]);
        let none = stream(&held, [add(&[]), EndpointUpdate::NoEndpoints { exists: true }]);
        assert_eq!((hosts(&none), none.state), (vec![], EndpointState::Known));
        // A stream that begins with a removal tells a difference.
        assert_eq!(hosts(&stream(&held, [remove(&[3]), add(&[2])])), ["10.0.0.1:80", "10.0.0.2:80"]);
    }

    #[test]
    fn who_says_twice_that_there_is_nothing_is_believed() {
        assert_eq!(denied(Verdict::Unknown, true), Some(EndpointState::Absent));
        assert_eq!(denied(Verdict::Refused, true), Some(EndpointState::Unknown));
        for verdict in [Verdict::Unknown, Verdict::Refused] {
            assert_eq!(denied(verdict, false), None);
        }
        for verdict in [Verdict::Unserved, Verdict::None] {
            assert_eq!(denied(verdict, true), None, "the last known state stays");
        }
    }

    #[test]
    fn an_empty_addition_says_nothing() {
        assert_eq!(stream(&EndpointSet::default(), [add(&[])]), EndpointSet::default());
        let known = stream(&EndpointSet::default(), [add(&[1])]);
        assert_eq!(stream(&known, [add(&[])]), known);
    }

    #[test]
    fn a_target_may_not_exist() {
        let known = stream(&EndpointSet::default(), [add(&[1])]);
        let gone = stream(&known, [add(&[1]), EndpointUpdate::NoEndpoints { exists: false }]);
        assert_eq!(gone, EndpointSet { state: EndpointState::Absent, map: BTreeMap::new() });
        let empty = stream(&known, [add(&[1]), EndpointUpdate::NoEndpoints { exists: true }]);
        assert_eq!(empty, EndpointSet { state: EndpointState::Known, map: BTreeMap::new() });
    }
}
