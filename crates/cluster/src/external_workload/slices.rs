//! Which EndpointSlices there should be, and how that differs from those that there are (control plane 6.7).
//!
//! A Service has the ready and the other ExternalWorkloads of its namespace that its selector selects, in slices of ours: one set per
//! family and set of ports. Slices of others are left alone, whoever they are of. Pure: what is planned depends on the objects alone.

use super::{
    checked, is_ready,
    spec::{Declared, External},
};
use crate::{
    Event, Key, Kind, Object,
    object::{is_label, put},
    policy::Custom,
};
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name.
type Id = (String, String);
type Map = BTreeMap<String, String>;

/// Endpoints of one slice, as Linkerd's controller and Kubernetes' own have it.
const MAX_ENDPOINTS: usize = 100;
/// Who writes a slice: whatever has another value here is another's.
const MANAGER: &str = "linkerd-external-workloads-controller";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Where nothing is written, as by Linkerd's controller: the cluster's own Services have nothing outside of it.
const UNTOUCHED: &str = "kube-system";
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What slices depend on, and those of ours that there are.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    services: BTreeMap<Id, Selecting>,
    workloads: BTreeMap<Id, Selected>,
    slices: BTreeMap<Id, EndpointSlice>,
    /// Of these the ones that are known by their writing alone. A watch that has never told of one does not tell either that it is gone.
    untold: BTreeSet<Id>,
}

/// One write to the API server. Who else wrote the slice first wins.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Create(Box<EndpointSlice>),
    /// Of the version that it has.
    Replace(Box<EndpointSlice>),
    Delete {
        namespace: String,
        name: String,
        uid: Option<String>,
        version: Option<String>,
    },
}

/// A Service that has a selector.
#[derive(Clone, Debug, PartialEq)]
struct Selecting {
    uid: String,
    labels: Map,
    selector: Map,
    /// Of its addresses.
    families: BTreeSet<&'static str>,
    headless: bool,
    ports: Vec<ServicePort>,
    /// It is being deleted, and its slices with it.
    leaving: bool,
}

/// An ExternalWorkload.
#[derive(Clone, Debug, PartialEq)]
struct Selected {
    uid: Option<String>,
    labels: Map,
    ready: bool,
    external: External,
}

/// What all endpoints of a slice have in common: the family, and name, number and protocol of the ports.
type Group = (&'static str, Vec<(String, i32, String)>);
/// With the endpoints, by the names of their workloads.
type Groups = BTreeMap<Group, BTreeMap<String, Endpoint>>;

impl Slices {
    /// Takes in what a watch tells, and says whether any slice should be another now.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Apply(object) => {
                if object.kind() == Kind::EndpointSlice {
                    let Key { namespace, name, .. } = object.key();
                    self.untold.remove(&(namespace, name));
                }
                self.insert(object)
            }
            Event::Delete(key) => self.remove(key),
            Event::Refused(refused) => self.remove(&refused.key),
            Event::Synced => true,
        }
    }

    /// Takes in what came of a write, or was found, unless a watch has told it already.
    pub fn wrote(&mut self, event: &Event) {
        let Event::Apply(object) = event else {
            self.apply(event);
            return;
        };
        if self.insert(object) {
            let Key { namespace, name, .. } = object.key();
            self.untold.insert((namespace, name));
        }
    }

    /// Slices, by namespace and name, of which no watch has told since they were written.
    pub fn untold(&self) -> Vec<Id> {
        self.untold.iter().cloned().collect()
    }

    fn insert(&mut self, object: &Object) -> bool {
        let key = object.key();
        if key.namespace == UNTOUCHED {
            return false;
        }
        let id = (key.namespace, key.name);
        match object {
            Object::Service(service) => put(&mut self.services, id, Selecting::of(service)),
            Object::ExternalWorkload(workload) => put(&mut self.workloads, id, Selected::of(workload)),
            Object::EndpointSlice(slice) => put(&mut self.slices, id, ours(slice)),
            _ => false,
        }
    }

    fn remove(&mut self, key: &Key) -> bool {
        let id = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Service => self.services.remove(&id).is_some(),
            Kind::ExternalWorkload => self.workloads.remove(&id).is_some(),
            Kind::EndpointSlice => {
                self.untold.remove(&id);
                self.slices.remove(&id).is_some()
            }
            _ => false,
        }
    }

    /// What leads from the slices that there are to those that there should be, by the Service that they are of; in this order, so
    /// that no endpoint is gone before it is there again.
    pub fn wanted(&self) -> BTreeMap<Id, Vec<Change>> {
        let mut held: BTreeMap<Id, Vec<&EndpointSlice>> = BTreeMap::new();
        for ((namespace, _), slice) in &self.slices {
            // One that is of no Service leads nobody anywhere.
            if let Some(service) = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
                held.entry((namespace.clone(), service.clone())).or_default().push(slice);
            }
        }
        let mut wanted = BTreeMap::new();
        for (id, service) in &self.services {
            let held = held.remove(id).unwrap_or_default();
            if service.leaving {
                continue;
            }
            let workloads = self.workloads.range((id.0.clone(), String::new())..);
            let workloads = workloads.take_while(|((namespace, _), _)| *namespace == id.0);
            let selected = workloads.filter(|(_, workload)| service.selects(&workload.labels));
            let changes = service.changes(id, selected, held);
            if !changes.is_empty() {
                wanted.insert(id.clone(), changes);
            }
        }
        // Their Services are gone, or select nothing any more.
        wanted.extend(held.into_iter().map(|(id, slices)| (id, slices.into_iter().map(Change::delete).collect())));
        wanted
    }
}

impl Change {
    fn delete(slice: &EndpointSlice) -> Self {
        let ObjectMeta { namespace, name, uid, resource_version, .. } = slice.metadata.clone();
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        Self::Delete { namespace, name, uid, version: resource_version }
    }

    /// The namespace that it is in.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Create(slice) | Self::Replace(slice) => slice.metadata.namespace.as_deref().unwrap_or_default(),
            Self::Delete { namespace, .. } => namespace,
        }
    }
}

/// One that is about to go leads nobody anywhere, and cannot be changed.
fn ours(slice: &EndpointSlice) -> Option<EndpointSlice> {
    let manager = slice.metadata.labels.as_ref()?.get(MANAGED_BY)?;
    let ours = manager == MANAGER && slice.metadata.deletion_timestamp.is_none();
    // None and no ports are the same.
    let ports = slice.ports.clone().filter(|ports| !ports.is_empty());
    ours.then(|| EndpointSlice { ports, ..slice.clone() })
}

impl Selected {
    /// `None` of one that cannot be carried out.
    fn of(workload: &Custom<super::ExternalWorkloadSpec>) -> Option<Self> {
        let Custom { metadata, status, .. } = workload;
        Some(Self {
            uid: metadata.uid.clone(),
            labels: metadata.labels.clone().unwrap_or_default(),
            ready: is_ready(status.as_ref()),
            external: checked(workload).ok()?,
        })
    }

    /// The ports of a Service that it declares, as a slice has them.
    fn ports(&self, service: &Selecting) -> Vec<(String, i32, String)> {
        let found = service.ports.iter().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let number = |number: i32| self.declared(protocol, |own| i32::from(own.number) == number);
            let own = match &port.target_port {
                None | Some(IntOrString::Int(0)) => number(port.port),
                Some(IntOrString::Int(target)) => number(*target),
                Some(IntOrString::String(name)) => self.declared(protocol, |own| own.name.as_ref() == Some(name)),
            };
            Some((port.name.clone().unwrap_or_default(), i32::from(own?.number), protocol.to_owned()))
        });
        found.collect()
    }

    fn declared(&self, protocol: &str, is: impl Fn(&Declared) -> bool) -> Option<&Declared> {
        self.external.ports.iter().find(|own| own.protocol == protocol && is(own))
    }

    /// `None` if it has no address of the family.
    fn endpoint(&self, (namespace, name): &Id, family: &str, headless: bool) -> Option<Endpoint> {
        let of_family = self.external.ips.iter().filter(|ip| ip.is_ipv4() == (family == FAMILIES[0]));
        let addresses: Vec<String> = of_family.map(ToString::to_string).collect();
        (!addresses.is_empty()).then(|| Endpoint {
            addresses,
            conditions: Some(EndpointConditions {
                ready: Some(self.ready),
                serving: Some(self.ready),
                terminating: Some(false),
            }),
            // What is no label is no name in DNS.
            hostname: Some(name.clone()).filter(|name| headless && is_label(name)),
            target_ref: Some(ObjectReference {
                kind: Some(Kind::ExternalWorkload.as_str().to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                uid: self.uid.clone(),
                ..ObjectReference::default()
            }),
            zone: self.labels.get(ZONE).filter(|zone| !zone.is_empty()).cloned(),
            ..Endpoint::default()
        })
    }
}

impl Selecting {
    /// `None` of a Service that selects nothing.
    fn of(service: &Service) -> Option<Self> {
        let nothing = ServiceSpec::default();
        let (metadata, spec) = (&service.metadata, service.spec.as_ref().unwrap_or(&nothing));
        let selector = spec.selector.clone().unwrap_or_default();
        if selector.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let named = |name: &&str| spec.ip_families.iter().flatten().any(|family| family == name);
        let mut families: BTreeSet<&'static str> = FAMILIES.into_iter().filter(named).collect();
        if families.is_empty() {
            families = FAMILIES.into();
        }
        Some(Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            labels: metadata.labels.clone().unwrap_or_default(),
            selector,
            families,
            headless: spec.cluster_ip.as_deref() == Some("None"),
            ports: spec.ports.clone().unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some(),
        })
    }

    fn selects(&self, labels: &Map) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether a slice is of this very Service, and not of an earlier one of its name.
    fn owns(&self, slice: &EndpointSlice) -> bool {
        let mut owners = slice.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.uid == self.uid && owner.kind == "Service" && owner.api_version == "v1")
    }

    fn changes<'s>(
        &self,
        id: &Id,
        selected: impl Iterator<Item = (&'s Id, &'s Selected)>,
        held: Vec<&EndpointSlice>,
    ) -> Vec<Change> {
        // What is left of these has no place yet.
        let mut groups = self.groups(selected);
        let (own, foreign): (Vec<&EndpointSlice>, Vec<_>) = held.into_iter().partition(|slice| self.owns(slice));
        let mut slices: Vec<(Group, Option<&EndpointSlice>, Vec<Endpoint>)> = vec![];
        let mut spare: Vec<&EndpointSlice> = vec![];
        for slice in own {
            let kept = group_of(slice).map(|group| (kept(&mut groups, &group, slice), group));
            match kept {
                Some((endpoints, group)) if !endpoints.is_empty() => slices.push((group, Some(slice), endpoints)),
                _ => spare.push(slice),
            }
        }
        for (group, missing) in groups {
            let mut missing = missing.into_values();
            let of_group = slices.iter_mut().filter(|(of, ..)| *of == group);
            let mut of_group: Vec<&mut Vec<Endpoint>> = of_group.map(|(.., endpoints)| endpoints).collect();
            // Those with the most room first: the fewer are written.
            of_group.sort_by_key(|endpoints| endpoints.len());
            for endpoints in of_group {
                let room = MAX_ENDPOINTS.saturating_sub(endpoints.len());
                endpoints.extend(missing.by_ref().take(room));
            }
            loop {
                let endpoints: Vec<Endpoint> = missing.by_ref().take(MAX_ENDPOINTS).collect();
                if endpoints.is_empty() {
                    break;
                }
                // The family of a slice is for good.
                let place = spare.iter().position(|slice| slice.address_type == group.0);
                slices.push((group.clone(), place.map(|place| spare.remove(place)), endpoints));
            }
        }
        let (mut changes, mut replaced) = (vec![], vec![]);
        for (group, before, endpoints) in slices {
            let slice = Box::new(self.slice(id, group, before, endpoints));
            match before {
                None => changes.push(Change::Create(slice)),
                Some(before) if *before != *slice => replaced.push(Change::Replace(slice)),
                Some(_) => {}
            }
        }
        changes.extend(replaced);
        changes.extend(spare.into_iter().chain(foreign).map(Change::delete));
        changes
    }

    /// The endpoints by what they have in common, and by the workload.
    fn groups<'s>(&self, selected: impl Iterator<Item = (&'s Id, &'s Selected)>) -> Groups {
        let mut groups = Groups::new();
        for (id, workload) in selected {
            let ports = workload.ports(self);
            if ports.is_empty() && !self.ports.is_empty() {
                continue;
            }
            for family in &self.families {
                if let Some(endpoint) = workload.endpoint(id, family, self.headless) {
                    groups.entry((*family, ports.clone())).or_default().insert(id.1.clone(), endpoint);
                }
            }
        }
        groups
    }

    /// A slice of these endpoints, in the place of one that there is, or a new one, which the API server names.
    fn slice(
        &self,
        (namespace, name): &Id,
        (family, ports): Group,
        before: Option<&EndpointSlice>,
        endpoints: Vec<Endpoint>,
    ) -> EndpointSlice {
        let metadata = match before.map(|before| before.metadata.clone()) {
            // Labels that others have put there are no reason to write.
            Some(metadata) if self.is_labelled(name, &metadata) => metadata,
            Some(metadata) => ObjectMeta { labels: Some(self.slice_labels(name)), ..metadata },
            None => ObjectMeta {
                generate_name: Some(format!("linkerd-external-{name}-")),
                namespace: Some(namespace.clone()),
                labels: Some(self.slice_labels(name)),
                owner_references: Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Service".to_owned(),
                    name: name.clone(),
                    uid: self.uid.clone(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
        };
        let ports = ports.into_iter().map(|(name, number, protocol)| EndpointPort {
            name: Some(name),
            port: Some(number),
            protocol: Some(protocol),
            ..EndpointPort::default()
        });
        let ports: Vec<EndpointPort> = ports.collect();
        let ports = (!ports.is_empty()).then_some(ports);
        EndpointSlice { metadata, address_type: family.to_owned(), endpoints, ports }
    }

    /// Those of the Service, and what the slice is.
    fn slice_labels(&self, service: &str) -> Map {
        let mut labels = self.labels.clone();
        labels.remove(HEADLESS);
        labels.insert(SERVICE_NAME.to_owned(), service.to_owned());
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        if self.headless {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        labels
    }

    fn is_labelled(&self, service: &str, metadata: &ObjectMeta) -> bool {
        let Some(labels) = &metadata.labels else { return false };
        labels.contains_key(HEADLESS) == self.headless
            && self.slice_labels(service).iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// The endpoints of a slice that are to stay, as they should be; from then on they have their place.
fn kept(groups: &mut Groups, group: &Group, slice: &EndpointSlice) -> Vec<Endpoint> {
    let Some(missing) = groups.get_mut(group) else { return vec![] };
    let wanted = |endpoint: &Endpoint| {
        let target = endpoint.target_ref.as_ref()?;
        let is_workload = target.kind.as_deref() == Some(Kind::ExternalWorkload.as_str());
        missing.remove(target.name.as_ref().filter(|_| is_workload)?)
    };
    slice.endpoints.iter().filter_map(wanted).take(MAX_ENDPOINTS).collect()
}

/// `None` of a slice that is none of ours, whatever its labels say.
fn group_of(slice: &EndpointSlice) -> Option<Group> {
    let family = FAMILIES.into_iter().find(|family| *family == slice.address_type)?;
    let port = |port: &EndpointPort| Some((port.name.clone()?, port.port?, port.protocol.clone()?));
    Some((family, slice.ports.iter().flatten().map(port).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests;
