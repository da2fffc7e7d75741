//! Where the rules of routes send. What is no backend keeps its share of the requests, and they fail.

use super::{
    super::{Index, failure::Traffic},
    Parent, QUEUE, To, egress_meta, service_meta,
};
use crate::policy::route::{BackendOf, BackendRef, Beyond, Copies, ParentOf, Resolved, Unresolved};
use weft_model::{
    Endpoint, Meta,
    policy::{
        outbound::{Backend, BackendKind, Distribution, RouteBackend},
        route::{Filter, Mirror},
    },
};

impl Index {
    /// Over the backends of a rule by their weights; one without any sends to its parent.
    pub(super) fn distribution(&self, parent: &Parent<'_>, backends: &[BackendRef], of: Traffic) -> Distribution {
        if backends.is_empty() {
            return parent.itself(of);
        }
        if backends.iter().all(|backend| backend.weight == 0) {
            return Distribution::FirstAvailable(vec![nobody(invalid(), "no backend of the route has a weight", of)]);
        }
        let branch = |backend: &BackendRef| (self.branch(parent, backend, of), backend.weight);
        Distribution::RandomAvailable(backends.iter().map(branch).collect())
    }

    fn branch(&self, parent: &Parent<'_>, reference: &BackendRef, of: Traffic) -> RouteBackend {
        let BackendRef { of: named, namespace, name, port, weight: _, filters, beyond } = reference;
        let id = (namespace.clone(), name.clone());
        let meta = match (named, port) {
            (BackendOf::Service, Some(port)) => service_meta(&id, *port),
            (BackendOf::EgressNetwork, _) => egress_meta(&id, port.unwrap_or(parent.meta.port())),
            (BackendOf::Service | BackendOf::Other(_), _) => invalid(),
        };
        match self.resolved(parent, reference, of) {
            Ok(kind) => {
                let filters = match of.unmet(filters, beyond) {
                    Some(what) => vec![of.not_carried_out(what)],
                    None => self.beyond(parent, beyond).chain(filters.iter().cloned()).collect(),
                };
                RouteBackend { backend: Backend { meta, kind, queue: QUEUE }, filters }
            }
            Err(why) => nobody(meta, &why, of),
        }
    }

    /// What Linkerd's messages have no words for. Nothing is copied for who is not there; the route's status says so.
    pub(super) fn beyond(&self, parent: &Parent<'_>, beyond: &Beyond) -> impl Iterator<Item = Filter> {
        let Beyond { rewrite, mirrors, unknown: _ } = beyond;
        let mirrors: Vec<Filter> = mirrors
            .iter()
            .filter_map(|Copies { to, share }| match self.resolved(parent, to, Traffic::Http) {
                Ok(BackendKind::Balance { target, load: _ }) => {
                    let meta = service_meta(&(to.namespace.clone(), to.name.clone()), target.port);
                    Some(Filter::Mirror(Mirror { meta, target, share: *share }))
                }
                Ok(BackendKind::Forward(_) | BackendKind::Missing) | Err(_) => None,
            })
            .collect();
        rewrite.iter().cloned().map(Filter::Rewrite).collect::<Vec<_>>().into_iter().chain(mirrors)
    }

    /// What a backend is, or why it is none.
    fn resolved(&self, parent: &Parent<'_>, reference: &BackendRef, of: Traffic) -> Result<BackendKind, String> {
        let is_there = |of: ParentOf, namespace: &str, name: &str| match of {
            ParentOf::Service => self.store.service(namespace, name).is_some(),
            ParentOf::EgressNetwork => self.store.policies.egress(&(namespace.to_owned(), name.to_owned())).is_some(),
            ParentOf::Server => false,
        };
        match (reference.resolve(parent.of, is_there), &parent.to) {
            (Ok(Resolved::Service(port)), _) => {
                let id = (reference.namespace.clone(), reference.name.clone());
                let target = self.endpoints_of(&id, port).map_err(|refusal| refusal.to_string())?;
                // The parent says how load is told, whoever the backend is.
                Ok(BackendKind::Balance { target, load: parent.load_of(of) })
            }
            (Ok(Resolved::EgressNetwork), To::Address(addr)) => Ok(BackendKind::Forward(Endpoint::plain(*addr))),
            (Ok(Resolved::EgressNetwork), To::Endpoints(_)) => Ok(BackendKind::Missing),
            (Err(Unresolved::Kind(why) | Unresolved::Missing(why)), _) => Err(why),
        }
    }
}

/// A backend that is none: what goes there fails.
fn nobody(meta: Meta, why: &str, of: Traffic) -> RouteBackend {
    let backend = Backend { meta, kind: BackendKind::Missing, queue: QUEUE };
    RouteBackend { backend, filters: vec![of.to_nobody(why)] }
}

/// What Linkerd calls a backend that could not be one.
fn invalid() -> Meta {
    Meta::default_named("invalid")
}
