//! Servers and who may call them: what is held of them, and which answers a change touches (control plane 6.4).

use super::{
    Settings, Subject,
    facts::{Common, Map, of_mesh},
    held::Few,
    store::{Id, in_namespace, link},
};
use crate::{
    Kind, Object,
    object::put,
    policy::{
        Egress, Identities, Limit, Networks, PolicyGrant, Port, Required, ServerGrant,
        client::{self, Terms},
    },
};
use k8s_openapi::jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};
use weft_model::policy::outbound::Breaker;

#[derive(Clone, Debug, Default)]
pub(super) struct Policies {
    servers: BTreeMap<Id, ServerFacts>,
    server_authorizations: BTreeMap<Id, ServerGrant>,
    authorization_policies: BTreeMap<Id, PolicyGrant>,
    identities: BTreeMap<Id, Identities>,
    networks: BTreeMap<Id, Networks>,
    limits: BTreeMap<Id, (Limit, Age)>,
    egress: BTreeMap<Id, EgressFacts>,
    /// The policies that refer to an object of a kind, which may be in another namespace, or not be there.
    referring: HashMap<(Kind, Id), Few<Id>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerFacts {
    pub(super) port: Port,
    /// The Server's own.
    pub(super) labels: Map,
    age: Age,
}

/// When an object was made; one that does not know is the youngest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Age(Option<Timestamp>);

impl Age {
    pub(super) fn of(object: &Object) -> Self {
        Self(object.metadata().and_then(|metadata| metadata.creation_timestamp.as_ref()).map(|time| time.0))
    }

    /// Of the oldest it is the smallest. Where objects have no age they are all of one.
    pub(super) fn counted(&self, aged: bool) -> (bool, Option<Timestamp>) {
        let created = self.0.filter(|_| aged);
        (created.is_none(), created)
    }
}

/// An EgressNetwork.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EgressFacts {
    pub(super) egress: Egress,
    /// Those of the mesh.
    pub(super) annotations: Map,
    /// What it asks of its clients.
    pub(super) terms: Terms,
    pub(super) breaker: Option<Breaker>,
    age: Age,
}

impl Policies {
    /// The Server of a workload's port: of several the oldest, then the first by name. Where objects have no age, by name alone.
    pub(super) fn server_of(&self, namespace: &str, of: &Common, port: u16, aged: bool) -> Option<(&Id, &ServerFacts)> {
        in_namespace(&self.servers, namespace)
            .filter(|(_, server)| server.port.is_of(of.kind(), &of.labels, port, of.port_names(port)))
            .min_by_key(|(_, server)| server.age.counted(aged))
    }

    /// A Server that a workload's port may have, and the label that says so, where the values of some are not known.
    pub(super) fn server_by(
        &self,
        namespace: &str,
        of: &Common,
        port: u16,
        unknown: &BTreeSet<String>,
    ) -> Option<(&Id, &str)> {
        in_namespace(&self.servers, namespace)
            .filter(|(_, server)| server.port.is_port(port, of.port_names(port)))
            .find_map(|(id, server)| Some((id, server.port.hangs_on(&of.labels, unknown)?)))
    }

    pub(super) fn server(&self, id: &Id) -> Option<&ServerFacts> {
        self.servers.get(id)
    }

    pub(super) fn server_authorizations(&self, namespace: &str) -> impl Iterator<Item = (&Id, &ServerGrant)> {
        in_namespace(&self.server_authorizations, namespace)
    }

    pub(super) fn authorization_policies(&self, namespace: &str) -> impl Iterator<Item = (&Id, &PolicyGrant)> {
        in_namespace(&self.authorization_policies, namespace)
    }

    pub(super) fn all_authorization_policies(&self) -> impl Iterator<Item = (&Id, &PolicyGrant)> {
        self.authorization_policies.iter()
    }

    /// The limit of a Server: of several the oldest, then the first by name.
    pub(super) fn limit_of(&self, (namespace, server): &Id, aged: bool) -> Option<(&Id, &Limit)> {
        in_namespace(&self.limits, namespace)
            .filter(|(_, (limit, _))| limit.server == *server)
            .min_by_key(|(_, (_, age))| age.counted(aged))
            .map(|(id, (limit, _))| (id, limit))
    }

    /// The EgressNetwork of an address: of those of the client's own namespace, and only if there is none, of the one for all. The
    /// smallest that holds it counts, of several the oldest, then the first by name.
    pub(super) fn egress_of(
        &self,
        from: &str,
        addr: IpAddr,
        settings: &Settings,
        aged: bool,
    ) -> Option<(&Id, &EgressFacts)> {
        let own = in_namespace(&self.egress, from).next().is_some();
        in_namespace(&self.egress, if own { from } else { &settings.egress_namespace })
            .filter_map(|of @ (_, facts)| Some((facts.egress.extent(addr, &settings.cluster_networks)?, of)))
            .min_by_key(|(extent, (_, facts))| (*extent, facts.age.counted(aged)))
            .map(|(_, of)| of)
    }

    pub(super) fn egress(&self, id: &Id) -> Option<&EgressFacts> {
        self.egress.get(id)
    }

    pub(super) fn identities(&self, id: &Id) -> Option<&Identities> {
        self.identities.get(id)
    }

    pub(super) fn networks(&self, id: &Id) -> Option<&Networks> {
        self.networks.get(id)
    }

    /// Takes in an object, unless it cannot be carried out: then it counts as not there.
    pub(super) fn insert(&mut self, id: Id, object: &Object) -> Vec<Subject> {
        match object {
            Object::Server(o) => {
                let (labels, age) = (o.metadata.labels.clone().unwrap_or_default(), Age::of(object));
                let server = o.spec.checked().ok().map(|port| ServerFacts { port, labels, age });
                own(&mut self.servers, id, server)
            }
            Object::ServerAuthorization(o) => {
                let grant = o.spec.checked(&id.0).ok();
                own(&mut self.server_authorizations, id, grant)
            }
            Object::AuthorizationPolicy(o) => {
                let grant = o.spec.checked(&id.0).ok();
                self.put_authorization_policy(id, grant)
            }
            Object::MeshTlsAuthentication(o) => {
                let identities = o.spec.checked(&id.0).ok();
                self.put_identities(id, identities)
            }
            Object::NetworkAuthentication(o) => self.put_networks(id, o.spec.checked().ok()),
            Object::HttpLocalRateLimitPolicy(o) => {
                let limit = o.spec.checked(&id.0).ok();
                own(&mut self.limits, id, limit.map(|limit| (limit, Age::of(object))))
            }
            Object::EgressNetwork(o) => {
                let egress = o.spec.checked().ok();
                self.put_egress(id, egress.map(|egress| EgressFacts::new(egress, object)))
            }
            _ => vec![],
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, id: Id) -> Vec<Subject> {
        match kind {
            Kind::Server => own(&mut self.servers, id, None),
            Kind::ServerAuthorization => own(&mut self.server_authorizations, id, None),
            Kind::AuthorizationPolicy => self.put_authorization_policy(id, None),
            Kind::MeshTlsAuthentication => self.put_identities(id, None),
            Kind::NetworkAuthentication => self.put_networks(id, None),
            Kind::HttpLocalRateLimitPolicy => own(&mut self.limits, id, None),
            Kind::EgressNetwork => self.put_egress(id, None),
            _ => vec![],
        }
    }

    fn put_authorization_policy(&mut self, id: Id, new: Option<PolicyGrant>) -> Vec<Subject> {
        for reference in self.authorization_policies.get(&id).iter().flat_map(|old| references(old)) {
            link(&mut self.referring, reference, &id, false);
        }
        for reference in new.iter().flat_map(references) {
            link(&mut self.referring, reference, &id, true);
        }
        own(&mut self.authorization_policies, id, new)
    }

    fn put_identities(&mut self, id: Id, new: Option<Identities>) -> Vec<Subject> {
        let touched = self.referring_to(Kind::MeshTlsAuthentication, &id);
        if put(&mut self.identities, id, new) { touched } else { vec![] }
    }

    fn put_networks(&mut self, id: Id, new: Option<Networks>) -> Vec<Subject> {
        let touched = self.referring_to(Kind::NetworkAuthentication, &id);
        if put(&mut self.networks, id, new) { touched } else { vec![] }
    }

    fn put_egress(&mut self, id: Id, new: Option<EgressFacts>) -> Vec<Subject> {
        let namespace = id.0.clone();
        if put(&mut self.egress, id, new) { vec![Subject::Egress { namespace }] } else { vec![] }
    }

    fn referring_to(&self, kind: Kind, id: &Id) -> Vec<Subject> {
        let policies = self.referring.get(&(kind, id.clone())).into_iter().flatten();
        policies.map(|(namespace, _)| subject(namespace.clone())).collect()
    }
}

/// Of what touches the ports of its own namespace alone.
fn own<T: PartialEq>(held: &mut BTreeMap<Id, T>, id: Id, new: Option<T>) -> Vec<Subject> {
    let namespace = id.0.clone();
    if put(held, id, new) { vec![subject(namespace)] } else { vec![] }
}

impl EgressFacts {
    fn new(egress: Egress, object: &Object) -> Self {
        let nothing = Map::new();
        let metadata = object.metadata();
        let said = metadata.and_then(|metadata| metadata.annotations.as_ref()).unwrap_or(&nothing);
        Self {
            egress,
            annotations: metadata.map(of_mesh).unwrap_or_default(),
            terms: client::terms(said),
            breaker: client::balancing(said, client::On::EgressNetwork).breaker,
            age: Age::of(object),
        }
    }
}

fn references(policy: &PolicyGrant) -> Vec<(Kind, Id)> {
    let PolicyGrant { target: _, identity, network } = policy;
    let mut references = vec![];
    match identity {
        Some(Required::MeshTls(id)) => references.push((Kind::MeshTlsAuthentication, id.clone())),
        // An account is only a name.
        Some(Required::Account(_)) | None => {}
    }
    references.extend(network.iter().map(|id| (Kind::NetworkAuthentication, id.clone())));
    references
}

fn subject(namespace: String) -> Subject {
    Subject::Policies { namespace }
}
