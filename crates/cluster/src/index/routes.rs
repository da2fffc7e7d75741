//! Routes by what they are attached to and by what they send to, and whose answers a change of one touches (control plane 6.4, 6.5).

use super::{
    facts::Map,
    held::Few,
    policies::Age,
    store::{Id, link},
};
use crate::{
    Kind, Object,
    policy::{
        client::{self, Terms},
        route::{BackendOf, BackendRef, ParentOf, Route, checked},
    },
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    held: BTreeMap<RouteId, RouteFacts>,
    by_parent: HashMap<Named, Few<RouteId>>,
    by_backend: HashMap<Named, Few<RouteId>>,
}

pub(super) type RouteId = (Kind, Id);

/// What a route names: a parent, or a backend. It may not be there.
pub(super) type Named = (ParentOf, Id);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RouteFacts {
    pub(super) route: Route,
    /// What it asks of clients by annotations.
    pub(super) terms: Terms,
    age: Age,
}

impl RouteFacts {
    fn of(object: &Object) -> Option<Self> {
        let route = checked(object)?.ok()?.route;
        let nothing = Map::new();
        let said = object.metadata().and_then(|metadata| metadata.annotations.as_ref()).unwrap_or(&nothing);
        Some(Self { route, terms: client::terms(said), age: Age::of(object) })
    }

    fn parents(&self) -> BTreeSet<Named> {
        self.route.parents.iter().map(|parent| (parent.of, (parent.namespace.clone(), parent.name.clone()))).collect()
    }

    fn backends(&self) -> BTreeSet<Named> {
        self.route.backends().filter_map(sent_to).collect()
    }
}

impl Routes {
    /// Whether there is one, be it somebody else's.
    pub(super) fn contains(&self, id: &RouteId) -> bool {
        self.held.contains_key(id)
    }

    /// The routes of a parent that are of one of `kinds`, the oldest first, then by namespace and name.
    pub(super) fn attached(
        &self,
        of: ParentOf,
        parent: &Id,
        kinds: &[Kind],
        aged: bool,
    ) -> Vec<(&RouteId, &RouteFacts)> {
        let ids = self.by_parent.get(&(of, parent.clone())).into_iter().flatten();
        let found = ids.filter(|(kind, _)| kinds.contains(kind)).filter_map(|id| self.held.get_key_value(id));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|((kind, id), facts)| (facts.age.counted(aged), id, *kind));
        found
    }

    /// The parents of the routes that send to something.
    pub(super) fn parents_sending_to(&self, backend: &Named) -> BTreeSet<Named> {
        let ids = self.by_backend.get(backend).into_iter().flatten();
        ids.filter_map(|id| self.held.get(id)).flat_map(RouteFacts::parents).collect()
    }

    /// Takes in a route, unless it cannot be carried out: then it counts as not there. Says whose routes have changed.
    pub(super) fn insert(&mut self, kind: Kind, id: Id, object: &Object) -> BTreeSet<Named> {
        self.put((kind, id), RouteFacts::of(object))
    }

    pub(super) fn remove(&mut self, kind: Kind, id: Id) -> BTreeSet<Named> {
        self.put((kind, id), None)
    }

    fn put(&mut self, id: RouteId, new: Option<RouteFacts>) -> BTreeSet<Named> {
        let old = self.held.remove(&id);
        let mut touched = BTreeSet::new();
        for (facts, add) in old.iter().map(|old| (old, false)).chain(new.iter().map(|new| (new, true))) {
            for parent in facts.parents() {
                link(&mut self.by_parent, parent.clone(), &id, add);
                touched.insert(parent);
            }
            for backend in facts.backends() {
                link(&mut self.by_backend, backend, &id, add);
            }
        }
        let changed = old != new;
        if let Some(new) = new {
            self.held.insert(id, new);
        }
        if changed { touched } else { BTreeSet::new() }
    }
}

/// `None` of what cannot be a backend.
fn sent_to(backend: &BackendRef) -> Option<Named> {
    let of = match backend.of {
        BackendOf::Service => ParentOf::Service,
        BackendOf::EgressNetwork => ParentOf::EgressNetwork,
        BackendOf::Other(_) => return None,
    };
    Some((of, (backend.namespace.clone(), backend.name.clone())))
}
