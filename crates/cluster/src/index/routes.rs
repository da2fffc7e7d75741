//! Routes by what they are attached to, and which answers a change of one touches (control plane 6.4, 6.5).

use super::{
    Subject,
    policies::Age,
    store::{Id, link},
};
use crate::{
    Kind, Object,
    policy::route::{Parent, ParentOf, Route, checked},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    held: BTreeMap<RouteId, RouteFacts>,
    by_parent: HashMap<(ParentOf, Id), BTreeSet<RouteId>>,
}

pub(super) type RouteId = (Kind, Id);

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RouteFacts {
    pub(super) route: Route,
    age: Age,
}

impl Routes {
    /// The routes of a parent that are of one of `kinds`, the oldest first, then by namespace and name.
    pub(super) fn attached(&self, of: ParentOf, parent: &Id, kinds: &[Kind], aged: bool) -> Vec<(&RouteId, &Route)> {
        let ids = self.by_parent.get(&(of, parent.clone())).into_iter().flatten();
        let found = ids.filter(|(kind, _)| kinds.contains(kind)).filter_map(|id| self.held.get_key_value(id));
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|((kind, id), facts)| (facts.age.counted(aged), id, *kind));
        found.into_iter().map(|(id, facts)| (id, &facts.route)).collect()
    }

    /// Takes in a route, unless it cannot be carried out: then it counts as not there.
    pub(super) fn insert(&mut self, kind: Kind, id: Id, object: &Object) -> Vec<Subject> {
        let route = checked(object).and_then(Result::ok).map(|checked| checked.route);
        let facts = route.filter(|route| !route.parents.is_empty());
        self.put((kind, id), facts.map(|route| RouteFacts { route, age: Age::of(object) }))
    }

    pub(super) fn remove(&mut self, kind: Kind, id: Id) -> Vec<Subject> {
        self.put((kind, id), None)
    }

    fn put(&mut self, id: RouteId, new: Option<RouteFacts>) -> Vec<Subject> {
        let old = self.held.remove(&id);
        let parents =
            |facts: &Option<RouteFacts>| facts.iter().flat_map(|f| f.route.parents.clone()).collect::<Vec<_>>();
        let (before, after) = (parents(&old), parents(&new));
        for parent in &before {
            link(&mut self.by_parent, key(parent), &id, false);
        }
        for parent in &after {
            link(&mut self.by_parent, key(parent), &id, true);
        }
        let changed = old != new;
        if let Some(new) = new {
            self.held.insert(id, new);
        }
        if changed { before.iter().chain(&after).filter_map(subject).collect() } else { vec![] }
    }
}

fn key(parent: &Parent) -> (ParentOf, Id) {
    (parent.of, (parent.namespace.clone(), parent.name.clone()))
}

/// What an answer about a parent depends on.
fn subject(parent: &Parent) -> Option<Subject> {
    match parent.of {
        ParentOf::Server => Some(Subject::Policies { namespace: parent.namespace.clone() }),
        // Not answered from yet.
        ParentOf::Service | ParentOf::EgressNetwork => None,
    }
}
