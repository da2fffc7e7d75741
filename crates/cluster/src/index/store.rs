//! The facts by key and by address, and what an event changes among them.

use super::{
    Subject,
    facts::{self, Behind, Common, ExternalFacts, Map, PodFacts, ServiceFacts, SliceFacts},
    held::{Few, Pool},
    policies::{Policies, ServerFacts},
    routes::{Named, Routes},
};
use crate::{
    Key, Kind, Object, Token,
    object::put,
    policy::{WorkloadKind, route::ParentOf},
    service_profile::Asked,
    workload,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, SocketAddr},
};

/// Namespace and name, in this order.
pub(super) type Id = (String, String);

#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// Annotations of the mesh.
    namespaces: BTreeMap<String, Map>,
    services: BTreeMap<Id, ServiceFacts>,
    pods: BTreeMap<Id, PodFacts>,
    /// What those have in common.
    common: Pool<Common>,
    externals: BTreeMap<Id, ExternalFacts>,
    /// ExternalWorkloads that are there and cannot be carried out.
    refused_externals: BTreeSet<Id>,
    slices: BTreeMap<Id, SliceFacts>,
    /// The zones of nodes.
    zones: HashMap<String, String>,
    tokens: HashMap<String, Token>,
    pub(super) policies: Policies,
    pub(super) routes: Routes,
    /// Each is named by the full name of its Service.
    profiles: BTreeMap<Id, Asked>,
    services_by_ip: HashMap<IpAddr, Few<Id>>,
    pods_by_ip: HashMap<IpAddr, Few<Id>>,
    externals_by_ip: HashMap<IpAddr, Few<Id>>,
    /// By the ports of their nodes that lead to them.
    pods_by_host: HashMap<SocketAddr, Few<Id>>,
    /// The slices of a Service.
    slices_by_service: HashMap<Id, Few<Id>>,
    /// The slices that name a workload.
    slices_by_endpoint: HashMap<Behind, Few<Id>>,
}

impl Store {
    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&ServiceFacts> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.pods.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn pod_of(&self, id: &Id) -> Option<&PodFacts> {
        self.pods.get(id)
    }

    pub(super) fn external(&self, namespace: &str, name: &str) -> Option<&ExternalFacts> {
        self.externals.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn external_of(&self, id: &Id) -> Option<&ExternalFacts> {
        self.externals.get(id)
    }

    pub(super) fn is_refused_external(&self, namespace: &str, name: &str) -> bool {
        self.refused_externals.contains(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn externals_at(&self, ip: IpAddr) -> impl Iterator<Item = (&Id, &ExternalFacts)> {
        let ids = self.externals_by_ip.get(&ip.to_canonical()).into_iter().flatten();
        ids.filter_map(|id| Some((id, self.externals.get(id)?)))
    }

    /// Those that the Service selects, which are always in its namespace.
    pub(super) fn externals_of(
        &self,
        namespace: &str,
        service: &ServiceFacts,
    ) -> impl Iterator<Item = (&Id, &ExternalFacts)> {
        in_namespace(&self.externals, namespace).filter(|(_, of)| service.selects(&of.labels))
    }

    pub(super) fn all_pods(&self) -> impl Iterator<Item = (&Id, &PodFacts)> {
        self.pods.iter()
    }

    pub(super) fn token(&self, sha256: &str) -> Option<&Token> {
        self.tokens.get(sha256)
    }

    pub(super) fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = (&Id, &ServiceFacts)> {
        self.services_by_ip
            .get(&ip.to_canonical())
            .into_iter()
            .flatten()
            .filter_map(|id| Some((id, self.services.get(id)?)))
    }

    /// The Service that nodes take in at an address which is none of the cluster's.
    pub(super) fn service_from_outside(&self, ip: IpAddr) -> Option<&Id> {
        let is_at = |service: &ServiceFacts| service.external_ips.iter().any(|own| own.to_canonical() == ip);
        self.services.iter().find(|(_, service)| is_at(service)).map(|(id, _)| id)
    }

    pub(super) fn pods_at(&self, ip: IpAddr) -> impl Iterator<Item = (&Id, &PodFacts)> {
        self.pods_by_ip.get(&ip.to_canonical()).into_iter().flatten().filter_map(|id| Some((id, self.pods.get(id)?)))
    }

    /// Those that a port of a node leads to, each with its own port.
    pub(super) fn pods_behind(&self, at: SocketAddr) -> impl Iterator<Item = (&Id, &PodFacts, u16)> {
        let ids = self.pods_by_host.get(&at).into_iter().flatten();
        ids.filter_map(move |id| {
            let pod = self.pods.get(id)?;
            Some((id, pod, pod.host_ports.iter().find(|p| p.at == at)?.port))
        })
    }

    /// Those that the Service selects, which are always in its namespace.
    pub(super) fn pods_of(&self, namespace: &str, service: &ServiceFacts) -> impl Iterator<Item = (&Id, &PodFacts)> {
        in_namespace(&self.pods, namespace).filter(|(_, pod)| service.selects(&pod.labels))
    }

    /// The slices of a Service, in the order of their names.
    pub(super) fn slices_of(&self, namespace: &str, service: &str) -> impl Iterator<Item = &SliceFacts> {
        let ids = self.slices_by_service.get(&(namespace.to_owned(), service.to_owned()));
        ids.into_iter().flatten().filter_map(|id| self.slices.get(id))
    }

    pub(super) fn zone(&self, node: &str) -> Option<&String> {
        self.zones.get(node)
    }

    /// The ServiceProfile of a name for clients in a namespace, and its namespace: their own, or that of the Service.
    pub(super) fn profile(&self, from: &str, service: &str, name: &str) -> Option<(&str, &Asked)> {
        let of = |namespace: &str| self.profiles.get_key_value(&(namespace.to_owned(), name.to_owned()));
        of(from).or_else(|| of(service)).map(|((namespace, _), asked)| (namespace.as_str(), asked))
    }

    /// Annotations of the mesh: the object's own before its namespace's.
    pub(super) fn inherit(&self, namespace: &str, own: &Map) -> Map {
        self.namespaces.get(namespace).map_or_else(|| own.clone(), |inherited| workload::inherit(own, inherited))
    }

    pub(super) fn insert(&mut self, object: &Object) -> Vec<Subject> {
        let key = object.key();
        let id = (key.namespace.clone(), key.name.clone());
        match object {
            Object::Namespace(namespace) => self.put_namespace(&key.name, Some(facts::of_mesh(&namespace.metadata))),
            Object::Service(service) => self.put_service(id, Some(service.as_ref().into())),
            Object::Pod(pod) => self.put_pod(id, Some(pod.as_ref().into())),
            Object::EndpointSlice(slice) => self.put_slice(id, SliceFacts::of(slice)),
            Object::Node(node) => self.put_zone(key.name, facts::zone_of(&node.metadata)),
            Object::Token(token) => {
                self.tokens.insert(token.sha256.clone(), token.clone());
                vec![]
            }
            Object::Server(_) => self.put_server(id, |policies, id| policies.insert(id, object)),
            Object::ServerAuthorization(_)
            | Object::AuthorizationPolicy(_)
            | Object::MeshTlsAuthentication(_)
            | Object::NetworkAuthentication(_)
            | Object::HttpLocalRateLimitPolicy(_) => self.policies.insert(id, object),
            Object::EgressNetwork(_) => self.put_egress(id, |policies, id| policies.insert(id, object)),
            Object::ServiceProfile(profile) => self.put_profile(id, profile.spec.checked().ok()),
            Object::ExternalWorkload(workload) => match ExternalFacts::of(workload) {
                Some(facts) => self.put_external(id, Some(facts), false),
                None => self.put_external(id, None, true),
            },
            Object::MeshHttpRoute(_)
            | Object::HttpRoute(_)
            | Object::GrpcRoute(_)
            | Object::TlsRoute(_)
            | Object::TcpRoute(_) => {
                let touched = self.routes.insert(key.kind, id, object);
                self.about_parents(touched)
            }
            // Neither says anything about traffic: pods are what workloads become, and an account is a name.
            Object::ServiceAccount(_) | Object::Deployment(_) | Object::Unrun(_) => vec![],
        }
    }

    fn put_zone(&mut self, node: String, zone: Option<String>) -> Vec<Subject> {
        let before = match zone.clone() {
            Some(zone) => self.zones.insert(node, zone),
            None => self.zones.remove(&node),
        };
        if before == zone { vec![] } else { vec![Subject::Zones] }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Vec<Subject> {
        let id = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => self.put_namespace(&key.name, None),
            Kind::Service => self.put_service(id, None),
            Kind::Pod => self.put_pod(id, None),
            Kind::EndpointSlice => self.put_slice(id, None),
            Kind::Node => self.put_zone(key.name.clone(), None),
            Kind::Token => {
                self.tokens.remove(&key.name);
                vec![]
            }
            Kind::Server => self.put_server(id, |policies, id| policies.remove(Kind::Server, id)),
            Kind::ServerAuthorization
            | Kind::AuthorizationPolicy
            | Kind::MeshTlsAuthentication
            | Kind::NetworkAuthentication
            | Kind::HttpLocalRateLimitPolicy => self.policies.remove(key.kind, id),
            Kind::EgressNetwork => self.put_egress(id, |policies, id| policies.remove(key.kind, id)),
            Kind::ServiceProfile => self.put_profile(id, None),
            Kind::ExternalWorkload => self.put_external(id, None, false),
            Kind::MeshHttpRoute | Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => {
                let touched = self.routes.remove(key.kind, id);
                self.about_parents(touched)
            }
            Kind::ServiceAccount | Kind::Deployment | Kind::Unrun(_) => vec![],
        }
    }

    /// It is there and cannot be carried out.
    pub(super) fn refuse(&mut self, key: &Key) -> Vec<Subject> {
        match key.kind {
            Kind::ExternalWorkload => self.put_external((key.namespace.clone(), key.name.clone()), None, true),
            _ => self.remove(key),
        }
    }

    /// The Services whose slices name a workload.
    fn naming(&self, of: &Behind) -> impl Iterator<Item = Subject> {
        let slices = self.slices_by_endpoint.get(of).into_iter().flatten();
        slices.filter_map(|slice| {
            let service = &self.slices.get(slice)?.service;
            Some(service_subject(&(slice.0.clone(), service.clone())))
        })
    }

    /// A Server says what its workloads' ports speak: that is told to their clients too.
    fn put_server(&mut self, id: Id, change: impl FnOnce(&mut Policies, Id) -> Vec<Subject>) -> Vec<Subject> {
        let old = self.policies.server(&id).cloned();
        let mut changed = change(&mut self.policies, id.clone());
        if changed.is_empty() {
            return changed;
        }
        let servers: Vec<&ServerFacts> = old.iter().chain(self.policies.server(&id)).collect();
        for (pod_id, pod) in in_namespace(&self.pods, &id.0) {
            if servers.iter().any(|server| server.port.selects(WorkloadKind::Pod, &pod.labels)) {
                changed.extend(about_pod(pod_id, pod));
                changed.extend(self.naming(&Behind::Pod(pod_id.clone())));
                let selecting = in_namespace(&self.services, &id.0).filter(|(_, s)| s.selects(&pod.labels));
                changed.extend(selecting.map(|(id, _)| service_subject(id)));
            }
        }
        for (external_id, external) in in_namespace(&self.externals, &id.0) {
            let selects = |server: &&ServerFacts| server.port.selects(WorkloadKind::ExternalWorkload, &external.labels);
            if servers.iter().any(selects) {
                changed.extend(self.about_external(external_id, external));
            }
        }
        changed
    }

    fn put_egress(&mut self, id: Id, change: impl FnOnce(&mut Policies, Id) -> Vec<Subject>) -> Vec<Subject> {
        let was_there = self.policies.egress(&id).is_some();
        let mut changed = change(&mut self.policies, id.clone());
        if self.policies.egress(&id).is_some() != was_there {
            changed.extend(self.about_senders((ParentOf::EgressNetwork, id)));
        }
        changed
    }

    /// What answers about these parents depend on.
    fn about_parents(&self, parents: impl IntoIterator<Item = Named>) -> Vec<Subject> {
        let about = |(of, id): Named| match of {
            ParentOf::Server => vec![Subject::Policies { namespace: id.0 }],
            ParentOf::Service => self.about_named_service(&id),
            ParentOf::EgressNetwork => vec![Subject::Egress { namespace: id.0 }],
        };
        parents.into_iter().flat_map(about).collect()
    }

    /// Where a backend comes or goes: it is told to whoever sends there by a route.
    fn about_senders(&self, backend: Named) -> Vec<Subject> {
        self.about_parents(self.routes.parents_sending_to(&backend))
    }

    /// Of one that may not be there.
    fn about_named_service(&self, id: &Id) -> Vec<Subject> {
        self.services.get(id).map_or_else(|| vec![service_subject(id)], |facts| about_service(id, facts))
    }

    fn put_namespace(&mut self, name: &str, new: Option<Map>) -> Vec<Subject> {
        let annotations = new.unwrap_or_default();
        let same = self.namespaces.get(name).map_or(annotations.is_empty(), |old| *old == annotations);
        // One that says nothing need not be known.
        if annotations.is_empty() {
            self.namespaces.remove(name);
        } else {
            self.namespaces.insert(name.to_owned(), annotations);
        }
        if same {
            return vec![];
        }
        let services = in_namespace(&self.services, name);
        let pods = in_namespace(&self.pods, name);
        let externals = in_namespace(&self.externals, name);
        let of_egress = Subject::Egress { namespace: name.to_owned() };
        let pods_and_externals = pods
            .flat_map(|(id, pod)| about_pod(id, pod))
            .chain(externals.flat_map(|(id, external)| self.about_external(id, external)));
        let services = services.flat_map(|(id, service)| about_service(id, service));
        services.chain(pods_and_externals).chain([of_egress]).collect()
    }

    fn put_service(&mut self, id: Id, new: Option<ServiceFacts>) -> Vec<Subject> {
        let old = self.services.remove(&id);
        let mut changed: Vec<Subject> =
            if old == new { vec![] } else { old.iter().chain(&new).flat_map(|s| about_service(&id, s)).collect() };
        if old.is_some() != new.is_some() {
            changed.extend(self.about_senders((ParentOf::Service, id.clone())));
        }
        for ip in old.iter().flat_map(|s| &s.cluster_ips) {
            unlink(&mut self.services_by_ip, *ip, &id);
        }
        for ip in new.iter().flat_map(|s| &s.cluster_ips) {
            self.services_by_ip.entry(ip.to_canonical()).or_default().insert(id.clone());
        }
        if let Some(new) = new {
            self.services.insert(id, new);
        }
        changed
    }

    fn put_profile(&mut self, id: Id, new: Option<Asked>) -> Vec<Subject> {
        let mut labels = id.1.split('.').map(str::to_owned);
        let service = labels.next().zip(labels.next()).map(|(name, namespace)| (namespace, name));
        if !put(&mut self.profiles, id, new) {
            return vec![];
        }
        service.map_or_else(Vec::new, |service| self.about_named_service(&service))
    }

    fn put_slice(&mut self, id: Id, new: Option<SliceFacts>) -> Vec<Subject> {
        let old = self.slices.remove(&id);
        let changed = old != new;
        let both = || [(&old, false), (&new, true)].into_iter().filter_map(|(s, add)| Some((s.as_ref()?, add)));
        let mut subjects = vec![];
        for (slice, add) in both() {
            let service = (id.0.clone(), slice.service.clone());
            if changed {
                subjects.push(service_subject(&service));
            }
            link(&mut self.slices_by_service, service, &id, add);
            for of in slice.endpoints.iter().filter_map(|e| e.of.clone()) {
                link(&mut self.slices_by_endpoint, of, &id, add);
            }
        }
        if let Some(new) = new {
            self.slices.insert(id, new);
        }
        subjects
    }

    fn put_pod(&mut self, id: Id, mut new: Option<PodFacts>) -> Vec<Subject> {
        let old = self.pods.remove(&id);
        if let Some(new) = &mut new {
            new.common = self.common.take(new.common.clone());
        }
        if let Some(old) = &old {
            self.common.give_back(&old.common);
        }
        let mut changed: Vec<Subject> = vec![];
        if old != new {
            changed.extend(old.iter().chain(&new).flat_map(|p| about_pod(&id, p)));
            let selecting = in_namespace(&self.services, &id.0)
                .filter(|(_, s)| old.iter().chain(&new).any(|pod| s.selects(&pod.labels)));
            changed.extend(selecting.map(|(id, _)| service_subject(id)));
            changed.extend(self.naming(&Behind::Pod(id.clone())));
        }
        for ip in old.iter().flat_map(|p| &p.ips) {
            unlink(&mut self.pods_by_ip, *ip, &id);
        }
        for ip in new.iter().flat_map(|p| &p.ips) {
            self.pods_by_ip.entry(ip.to_canonical()).or_default().insert(id.clone());
        }
        for (pod, add) in old.iter().map(|old| (old, false)).chain(new.iter().map(|new| (new, true))) {
            pod.host_ports.iter().for_each(|p| link(&mut self.pods_by_host, p.at, &id, add));
        }
        if let Some(new) = new {
            self.pods.insert(id, new);
        }
        changed
    }

    fn put_external(&mut self, id: Id, new: Option<ExternalFacts>, is_refused: bool) -> Vec<Subject> {
        let old = self.externals.remove(&id);
        let mut changed: Vec<Subject> = vec![];
        let was_refused =
            if is_refused { !self.refused_externals.insert(id.clone()) } else { self.refused_externals.remove(&id) };
        if was_refused != is_refused {
            changed.push(Subject::ExternalWorkload { namespace: id.0.clone(), name: id.1.clone() });
        }
        if old != new {
            changed.extend(old.iter().chain(&new).flat_map(|external| self.about_external(&id, external)));
        }
        for (external, add) in old.iter().map(|old| (old, false)).chain(new.iter().map(|new| (new, true))) {
            external.ips.iter().for_each(|ip| link(&mut self.externals_by_ip, *ip, &id, add));
        }
        if let Some(new) = new {
            self.externals.insert(id, new);
        }
        changed
    }

    /// What answers about it depend on, its Services among them.
    fn about_external(&self, id: &Id, external: &ExternalFacts) -> Vec<Subject> {
        let (namespace, name) = id.clone();
        let addresses = external.ips.iter().map(|ip| Subject::Address(ip.to_canonical()));
        let mut about: Vec<Subject> = addresses.chain(self.naming(&Behind::ExternalWorkload(id.clone()))).collect();
        let selecting = in_namespace(&self.services, &id.0).filter(|(_, s)| s.selects(&external.labels));
        about.extend(selecting.map(|(id, _)| service_subject(id)));
        about.push(Subject::ExternalWorkload { namespace, name });
        about
    }
}

/// Enters or removes `id` under `key`.
pub(super) fn link<K, V>(map: &mut HashMap<K, Few<V>>, key: K, id: &V, add: bool)
where
    K: Clone + Eq + Hash,
    V: Clone + Ord,
{
    let ids = map.entry(key.clone()).or_default();
    if add {
        ids.insert(id.clone());
    } else {
        ids.remove(id);
    }
    if ids.is_empty() {
        map.remove(&key);
    }
}

pub(super) fn in_namespace<'m, T>(map: &'m BTreeMap<Id, T>, namespace: &str) -> impl Iterator<Item = (&'m Id, &'m T)> {
    let namespace = namespace.to_owned();
    map.range((namespace.clone(), String::new())..).take_while(move |(id, _)| id.0 == namespace)
}

fn unlink(by_ip: &mut HashMap<IpAddr, Few<Id>>, ip: IpAddr, id: &Id) {
    if let Some(ids) = by_ip.get_mut(&ip.to_canonical()) {
        ids.remove(id);
        if ids.is_empty() {
            by_ip.remove(&ip.to_canonical());
        }
    }
}

fn service_subject((namespace, name): &Id) -> Subject {
    Subject::Service { namespace: namespace.clone(), name: name.clone() }
}

fn about_service(id: &Id, service: &ServiceFacts) -> Vec<Subject> {
    let addresses = service.cluster_ips.iter().map(|ip| Subject::Address(ip.to_canonical()));
    std::iter::once(service_subject(id)).chain(addresses).collect()
}

fn about_pod((namespace, name): &Id, pod: &PodFacts) -> Vec<Subject> {
    let hosts = pod.host_ports.iter().map(|p| p.at.ip());
    let addresses = pod.ips.iter().copied().chain(hosts).map(|ip| Subject::Address(ip.to_canonical()));
    let pod = Subject::Pod { namespace: namespace.clone(), name: name.clone() };
    std::iter::once(pod).chain(addresses).collect()
}
