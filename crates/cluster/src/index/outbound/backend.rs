//! Where the rules of routes send. What is no backend keeps its share of the requests, and they fail.

use super::{
    super::{Index, failure::Traffic},
    Parent, QUEUE, To, egress_meta, service_meta,
};
use crate::policy::route::{BackendOf, BackendRef, ParentOf, Resolved, Unresolved};
use weft_model::{
    Endpoint, Meta,
    policy::outbound::{Backend, BackendKind, Distribution, RouteBackend},
};

/// Why a backend is none, and what it would be.
struct Nobody {
    meta: Meta,
    why: String,
}

impl Index {
    /// Over the backends of a rule by their weights; one without any sends to its parent.
    pub(super) fn distribution(&self, parent: &Parent<'_>, backends: &[BackendRef], of: Traffic) -> Distribution {
        if backends.is_empty() {
            return parent.itself(of);
        }
        if backends.iter().all(|backend| backend.weight == 0) {
            let why = "no backend of the route has a weight".to_owned();
            return Distribution::FirstAvailable(vec![Nobody { meta: invalid(), why }.failing(of)]);
        }
        let branch = |backend: &BackendRef| (self.branch(parent, backend, of), backend.weight);
        Distribution::RandomAvailable(backends.iter().map(branch).collect())
    }

    fn branch(&self, parent: &Parent<'_>, reference: &BackendRef, of: Traffic) -> RouteBackend {
        match self.backend(parent, reference, of) {
            Ok(backend) => {
                let filters = match of.unmet(&reference.filters, &reference.beyond) {
                    Some(what) => vec![of.not_carried_out(what)],
                    None => reference.filters.clone(),
                };
                RouteBackend { backend, filters }
            }
            Err(nobody) => nobody.failing(of),
        }
    }

    fn backend(&self, parent: &Parent<'_>, reference: &BackendRef, of: Traffic) -> Result<Backend, Nobody> {
        let BackendRef { of: kind, namespace, name, port, weight: _, filters: _, beyond: _ } = reference;
        let id = (namespace.clone(), name.clone());
        let meta = match (kind, port) {
            (BackendOf::Service, Some(port)) => service_meta(&id, *port),
            (BackendOf::EgressNetwork, _) => egress_meta(&id, port.unwrap_or(parent.meta.port())),
            (BackendOf::Service | BackendOf::Other(_), _) => invalid(),
        };
        let is_there = |of: ParentOf, namespace: &str, name: &str| match of {
            ParentOf::Service => self.store.service(namespace, name).is_some(),
            ParentOf::EgressNetwork => self.store.policies.egress(&(namespace.to_owned(), name.to_owned())).is_some(),
            ParentOf::Server => false,
        };
        let kind = match (reference.resolve(parent.of, is_there), &parent.to) {
            (Ok(Resolved::Service(port)), _) => match self.endpoints_of(&id, port) {
                // The parent says how load is told, whoever the backend is.
                Ok(target) => BackendKind::Balance { target, load: parent.load_of(of) },
                Err(refusal) => return Err(Nobody { meta, why: refusal.to_string() }),
            },
            (Ok(Resolved::EgressNetwork), To::Address(addr)) => BackendKind::Forward(Endpoint::plain(*addr)),
            (Ok(Resolved::EgressNetwork), To::Endpoints(_)) => BackendKind::Missing,
            (Err(Unresolved::Kind(why) | Unresolved::Missing(why)), _) => return Err(Nobody { meta, why }),
        };
        Ok(Backend { meta, kind, queue: QUEUE })
    }
}

impl Nobody {
    fn failing(self, of: Traffic) -> RouteBackend {
        let Self { meta, why } = self;
        let backend = Backend { meta, kind: BackendKind::Missing, queue: QUEUE };
        RouteBackend { backend, filters: vec![of.to_nobody(&why)] }
    }
}

/// What Linkerd calls a backend that could not be one.
fn invalid() -> Meta {
    Meta::default_named("invalid")
}
