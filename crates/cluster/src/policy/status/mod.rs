//! What the statuses of routes, limits and EgressNetworks should say (control plane 3.6), and how that differs from what they say.
//!
//! ```text
//! Event ─► Statuses ─► wanted(now) ─► Patch per object whose status says something else ─► (control) whoever holds the lease writes it
//! ```
//!
//! Nothing is answered from a status: it tells people, and an object holds whether it has one or not. Only entries under
//! [`CONTROLLER`] are ours, and are made anew as a whole; those of others stay as they are.

mod kept;
mod shown;

pub use kept::{replacing, written};
pub use shown::{Condition, Shown, UnknownKind, Wanted, shown};

use super::{
    Limit, Spoken, definition,
    route::{BackendRef, Checked, Parent, ParentOf, Unresolved, checked, parent_of},
};
use crate::{
    Event, Key, Kind, Object, Refused,
    index::{Map, Platform, Ports, Settings, of_mesh},
    object::{namespace_of, put},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};
use weft_model::decide::cidr::Cidr;

/// Under which name statuses are written: that of Linkerd's.
pub const CONTROLLER: &str = "linkerd.io/policy-controller";
/// The kinds whose status is written.
pub(crate) const KINDS: [Kind; 7] = [
    Kind::HttpLocalRateLimitPolicy,
    Kind::EgressNetwork,
    Kind::MeshHttpRoute,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
];
/// What a definition allows of entries, and what is said at most.
const MAX_ENTRIES: usize = 32;
const MAX_MESSAGE_CHARS: usize = 1024;

const ACCEPTED: &str = "Accepted";
const RESOLVED: &str = "ResolvedRefs";
const CONFLICTED: &str = "RouteReasonConflicted";
const NOT_FOUND: &str = "BackendNotFound";
const NO_BACKEND: &str = "InvalidKind";
const NO_PARENT: &str = "NoMatchingParent";
const NO_TARGET: &str = "NoMatchingTarget";
const ALREADY_THERE: &str = "RateLimitReasonAlreadyExists";
const INSIDE: &str = "EgressReasonNetworkOverlap";
/// The Gateway API's own, of what cannot be read.
const UNSUPPORTED: &str = "UnsupportedValue";

/// Every object that has a status of ours, and what statuses depend on.
#[derive(Clone, Debug)]
pub struct Statuses {
    settings: Settings,
    held: BTreeMap<Key, Held>,
    servers: BTreeMap<Id, Spoken>,
    services: BTreeMap<Id, Addressed>,
    egress: BTreeMap<Id, Ports>,
    /// What annotations of namespaces say of their objects, where that holds for them at once.
    namespaces: BTreeMap<String, Map>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
struct Addressed {
    /// Whether clients address it by an address of its own.
    by_address: bool,
    ports: Ports,
}

/// Namespace and name.
type Id = (String, String);

/// A status that is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub key: Key,
    /// Of the object that it was made for: of another one it is out of date.
    pub version: String,
    pub(crate) api_version: String,
    /// A merge patch.
    pub body: Value,
}

#[derive(Clone, Debug, PartialEq)]
struct Held {
    version: String,
    generation: i64,
    api_version: String,
    status: Value,
    of: Of,
}

#[derive(Clone, Debug, PartialEq)]
enum Of {
    Route(Box<Route>),
    Limit {
        limit: Limit,
        target: Value,
        created: Option<Timestamp>,
    },
    /// An EgressNetwork, with the first network of the cluster that it has addresses of.
    Egress {
        inside: Option<Cidr>,
    },
    /// It cannot be carried out.
    Refused {
        parents: Vec<Value>,
        target: Value,
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Route {
    parents: Vec<Parent>,
    backends: Vec<BackendRef>,
    /// What there is to say of it.
    message: String,
}

/// The parents that a route takes for itself and its like, for the clients of a namespace: of, namespace, name, and port if it is one.
/// With the rank of the first of these routes.
type Taken<'s> = HashMap<(ParentOf, &'s str, &'s str, Option<u16>, &'s str), Rank>;

/// Of several kinds of routes of a port those of the lowest are followed.
type Rank = u8;

/// `None` of what is no route.
fn rank(kind: Kind) -> Option<Rank> {
    match kind {
        Kind::GrpcRoute => Some(0),
        Kind::MeshHttpRoute | Kind::HttpRoute => Some(1),
        Kind::TlsRoute => Some(2),
        Kind::TcpRoute => Some(3),
        _ => None,
    }
}

/// One condition of ours.
#[derive(Debug)]
struct Verdict {
    /// Its type.
    of: &'static str,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn accepted(reason: &'static str, message: impl Into<String>) -> Self {
        Self { of: ACCEPTED, reason, message: message.into() }
    }

    fn holds(&self) -> bool {
        // Both conditions have one reason for which they hold, which is their type.
        self.reason == self.of
    }
}

impl Statuses {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            held: BTreeMap::new(),
            servers: BTreeMap::new(),
            services: BTreeMap::new(),
            egress: BTreeMap::new(),
            namespaces: BTreeMap::new(),
        }
    }

    /// Says whether any status may be another now.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Apply(object) => self.insert(object),
            Event::Refused(refused) => {
                let Refused { key, object, reason } = refused.as_ref();
                // It counts as not there.
                let named = self.forget(key);
                if !KINDS.contains(&key.kind) {
                    return named;
                }
                let of = Of::Refused {
                    parents: object["spec"]["parentRefs"].as_array().cloned().unwrap_or_default(),
                    target: object["spec"]["targetRef"].clone(),
                    why: reason.clone(),
                };
                let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap_or_default();
                let api_version = object["apiVersion"].as_str().unwrap_or_default();
                self.hold(key.clone(), &metadata, api_version, Some(&object["status"]), of) || named
            }
            Event::Delete(key) => {
                let named = self.forget(key);
                self.held.remove(key).is_some() || named
            }
            Event::Synced => true,
        }
    }

    /// Others name it no longer.
    fn forget(&mut self, key: &Key) -> bool {
        let id = (key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Server => self.servers.remove(&id).is_some(),
            Kind::Service => self.services.remove(&id).is_some(),
            Kind::EgressNetwork => self.egress.remove(&id).is_some(),
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
            _ => false,
        }
    }

    fn insert(&mut self, object: &Object) -> bool {
        let key = object.key();
        match object {
            Object::Server(server) => {
                let id = (key.namespace, key.name);
                let spoken = server.spec.checked().ok().map(|port| port.spoken);
                match spoken {
                    Some(spoken) => self.servers.insert(id, spoken) != Some(spoken),
                    None => self.servers.remove(&id).is_some(),
                }
            }
            Object::Service(service) => {
                let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
                let by_address = ip.is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
                let addressed = Addressed { by_address, ports: Ports::of_service(service) };
                put(&mut self.services, (key.namespace, key.name), Some(addressed))
            }
            // On Kubernetes they hold where they stand.
            Object::Namespace(namespace) if self.settings.platform == Platform::Manifests => {
                put(&mut self.namespaces, key.name, Some(of_mesh(&namespace.metadata)))
            }
            Object::EgressNetwork(o) => {
                let Ok(egress) = o.spec.checked() else { return self.forget(&key) };
                let ports = Ports::of_egress(&o.metadata);
                let named = put(&mut self.egress, (key.namespace.clone(), key.name.clone()), Some(ports));
                let of = Of::Egress { inside: egress.inside(&self.settings.cluster_networks) };
                self.hold(key, &o.metadata, &o.api_version, o.status.as_ref(), of) || named
            }
            Object::HttpLocalRateLimitPolicy(o) => {
                let Ok(limit) = o.spec.checked(namespace_of(&o.metadata)) else { return false };
                let target = serde_json::to_value(&o.spec.target_ref).unwrap_or_default();
                let created = o.metadata.creation_timestamp.as_ref().map(|time| time.0);
                self.hold(key, &o.metadata, &o.api_version, o.status.as_ref(), Of::Limit { limit, target, created })
            }
            Object::MeshHttpRoute(o) | Object::HttpRoute(o) => {
                self.route(key, object, &o.metadata, &o.api_version, o.status.as_ref())
            }
            Object::GrpcRoute(o) => self.route(key, object, &o.metadata, &o.api_version, o.status.as_ref()),
            Object::TlsRoute(o) => self.route(key, object, &o.metadata, &o.api_version, o.status.as_ref()),
            Object::TcpRoute(o) => self.route(key, object, &o.metadata, &o.api_version, o.status.as_ref()),
            _ => false,
        }
    }

    fn route(&mut self, key: Key, object: &Object, of: &ObjectMeta, version: &str, status: Option<&Value>) -> bool {
        let Some(Ok(Checked { route, notes })) = checked(object) else { return false };
        let message = notes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        let backends = route.backends().cloned().collect();
        self.hold(key, of, version, status, Of::Route(Box::new(Route { parents: route.parents, backends, message })))
    }

    fn hold(&mut self, key: Key, metadata: &ObjectMeta, api_version: &str, status: Option<&Value>, of: Of) -> bool {
        let held = Held {
            version: metadata.resource_version.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            api_version: api_version.to_owned(),
            status: status.cloned().unwrap_or_default(),
            of,
        };
        self.held.insert(key, held.clone()) != Some(held)
    }

    /// What is to be written at `now`.
    pub fn wanted(&self, now: Timestamp) -> Vec<Patch> {
        let taken = self.taken();
        self.held.iter().filter_map(|(key, held)| self.patch(key, held, &taken, now)).collect()
    }

    fn taken(&self) -> Taken<'_> {
        let mut taken = Taken::new();
        for (key, held) in &self.held {
            let (Of::Route(route), Some(rank)) = (&held.of, rank(key.kind)) else { continue };
            for Parent { of, namespace, name, port, written: _ } in &route.parents {
                let place = (*of, namespace.as_str(), name.as_str(), *port, key.namespace.as_str());
                taken.entry(place).and_modify(|first| *first = rank.min(*first)).or_insert(rank);
            }
        }
        taken
    }

    fn patch(&self, key: &Key, held: &Held, taken: &Taken<'_>, now: Timestamp) -> Option<Patch> {
        let status = match &held.of {
            Of::Limit { target, .. } => of_target(held, target, &self.limited(key, held), now),
            Of::Egress { inside } => of_itself(held, &outside(*inside), now),
            Of::Refused { why, .. } if key.kind == Kind::EgressNetwork => {
                of_itself(held, &Verdict::accepted(UNSUPPORTED, why.clone()), now)
            }
            Of::Refused { target, why, .. } if key.kind == Kind::HttpLocalRateLimitPolicy => {
                of_target(held, target, &Verdict::accepted(UNSUPPORTED, why.clone()), now)
            }
            Of::Route(route) => {
                let ours = route.parents.iter().map(|parent| {
                    let written = serde_json::to_value(&parent.written).unwrap_or_default();
                    (written, self.attached(key, route, parent, taken))
                });
                of_parents(held, ours.collect(), now)
            }
            Of::Refused { parents, why, .. } => {
                let ours = parents.iter().filter(|parent| parent_of(key.kind, parent).is_some());
                let ours = ours.map(|p| (p.clone(), vec![Verdict::accepted(UNSUPPORTED, why.clone())]));
                of_parents(held, ours.collect(), now)
            }
        }?;
        let kind = definition(key.kind)?.kind;
        let body = json!({
            "apiVersion": held.api_version,
            "kind": kind,
            // Who else wrote it first wins.
            "metadata": {"name": key.name, "resourceVersion": held.version},
            "status": status,
        });
        Some(Patch { key: key.clone(), version: held.version.clone(), api_version: held.api_version.clone(), body })
    }

    /// What a parent makes of a route.
    fn attached(&self, key: &Key, route: &Route, parent: &Parent, taken: &Taken<'_>) -> Vec<Verdict> {
        let Parent { of, namespace, name, port: _, written: _ } = parent;
        let id = (namespace.clone(), name.clone());
        let no_parent = |message: String| Verdict::accepted(NO_PARENT, message);
        let accepted = match of {
            ParentOf::Server => match self.servers.get(&id) {
                None => no_parent(format!("there is no Server {namespace}/{name}")),
                Some(spoken) if spoken.takes(key.kind) => Verdict::accepted(ACCEPTED, &route.message),
                Some(spoken) => {
                    let spoken = spoken.as_str();
                    no_parent(format!("the Server {name} speaks {spoken}, and routes of this kind are not for it"))
                }
            },
            ParentOf::Service => match self.services.get(&id) {
                None => no_parent(format!("there is no Service {namespace}/{name}")),
                Some(Addressed { by_address: false, .. }) => {
                    no_parent(format!("the Service {name} has no cluster IP, by which alone clients follow its routes"))
                }
                Some(Addressed { by_address: true, ports }) => self.shared(key, route, parent, ports, taken),
            },
            ParentOf::EgressNetwork => match self.egress.get(&id) {
                None => no_parent(format!("there is no EgressNetwork {namespace}/{name}")),
                Some(ports) => self.shared(key, route, parent, ports, taken),
            },
        };
        match of {
            // Its proxy sends everything to its own application.
            ParentOf::Server => vec![accepted],
            ParentOf::Service | ParentOf::EgressNetwork => vec![accepted, self.resolved(route, *of)],
        }
    }

    /// Among the routes of a parent that is there: on each of its ports those of the same clients are followed that are of the first
    /// kind, of the kinds that are for what it speaks.
    fn shared(&self, key: &Key, route: &Route, parent: &Parent, ports: &Ports, taken: &Taken<'_>) -> Verdict {
        let Parent { of, namespace, name, port, written: _ } = parent;
        let own = rank(key.kind);
        let is_taken = |number: u16| {
            let by = |port, from: &str| taken.get(&(*of, namespace.as_str(), name.as_str(), port, from)).copied();
            let all = [None, Some(number)].map(|port| [by(port, namespace), by(port, &key.namespace)]);
            all.into_iter().flatten().flatten().any(|first| Some(first) < own)
        };
        let nothing = Map::new();
        let inherited = self.namespaces.get(namespace).unwrap_or(&nothing);
        let meant = ports.meant(*port, inherited, &self.settings.opaque_ports);
        let (takes, others): (Vec<_>, Vec<_>) = meant.into_iter().partition(|(_, wire)| wire.takes(key.kind));
        let others: Vec<_> =
            others.iter().map(|(port, wire)| format!("port {port} speaks {}", wire.as_str())).collect();
        if takes.is_empty() {
            let why = match (port, others.is_empty()) {
                (Some(port), true) => format!("the Service {name} has no port {port}"),
                (None, true) => format!("the Service {name} has no port of TCP"),
                (_, false) => format!("{}, and routes of this kind are not for it", others.join(", ")),
            };
            return Verdict::accepted(NO_PARENT, why);
        }
        if takes.iter().all(|(port, wire)| wire.takes_several() && is_taken(*port)) {
            let message =
                "the parent has a route of another kind, which comes before: GRPCRoute, HTTPRoute, TLSRoute, TCPRoute";
            return Verdict::accepted(CONFLICTED, message);
        }
        let elsewhere = (!others.is_empty()).then(|| format!("it is not for each port: {}", others.join(", ")));
        let told = [Some(route.message.clone()).filter(|message| !message.is_empty()), elsewhere];
        Verdict::accepted(ACCEPTED, told.into_iter().flatten().collect::<Vec<_>>().join(" | "))
    }

    /// Whether there is everything that a route sends to.
    fn resolved(&self, route: &Route, parent: ParentOf) -> Verdict {
        let is_there = |of: ParentOf, namespace: &str, name: &str| {
            let id = (namespace.to_owned(), name.to_owned());
            match of {
                ParentOf::Service => self.services.contains_key(&id),
                ParentOf::EgressNetwork => self.egress.contains_key(&id),
                ParentOf::Server => false,
            }
        };
        let (mut reason, mut told) = (RESOLVED, BTreeSet::new());
        for unresolved in route.backends.iter().filter_map(|backend| backend.resolve(parent, is_there).err()) {
            let (of, why) = match unresolved {
                Unresolved::Kind(why) => (NO_BACKEND, why),
                Unresolved::Missing(why) => (NOT_FOUND, why),
            };
            // What can never be comes first.
            if reason != NO_BACKEND {
                reason = of;
            }
            told.insert(why);
        }
        let message = told.into_iter().collect::<Vec<_>>().join(" | ");
        Verdict { of: RESOLVED, reason, message }
    }

    fn limited(&self, key: &Key, held: &Held) -> Verdict {
        let Of::Limit { limit, created, .. } = &held.of else {
            return Verdict::accepted(NO_TARGET, "");
        };
        // On disk objects are all of one age, whatever they say.
        let aged = self.settings.platform == Platform::Kubernetes;
        let age = |created: &Option<Timestamp>, name: &str| {
            let created = created.filter(|_| aged);
            (created.is_none(), created, name.to_owned())
        };
        let others = self.held.iter().filter_map(|(other, held)| match &held.of {
            Of::Limit { limit: another, created, .. } if other.namespace == key.namespace && other != key => {
                (another.server == limit.server).then(|| age(created, &other.name))
            }
            _ => None,
        });
        let own = age(created, &key.name);
        match self.servers.get(&(key.namespace.clone(), limit.server.clone())) {
            None => Verdict::accepted(NO_TARGET, format!("there is no Server {}/{}", key.namespace, limit.server)),
            Some(Spoken::Unknown | Spoken::Http1 | Spoken::Http2) => match others.filter(|other| *other < own).min() {
                Some((unaged, since, other)) => {
                    let alike = (unaged, since) == (own.0, own.1);
                    let why = if alike { "comes before it by its name" } else { "is older" };
                    Verdict::accepted(ALREADY_THERE, format!("{other} {why}, and limits the Server {}", limit.server))
                }
                None => Verdict::accepted(ACCEPTED, ""),
            },
            Some(spoken) => {
                let message =
                    format!("the Server {} speaks {}, of which no requests are limited", limit.server, spoken.as_str());
                Verdict::accepted(NO_TARGET, message)
            }
        }
    }
}

/// What becomes of an EgressNetwork that has addresses of the cluster.
fn outside(inside: Option<Cidr>) -> Verdict {
    let told = |net| {
        format!(
            "it has addresses of the cluster's network {net}: leave them out by except; until then it holds for those \
             that are of no Service and no pod"
        )
    };
    inside.map_or_else(|| Verdict::accepted(ACCEPTED, ""), |net| Verdict::accepted(INSIDE, told(net)))
}

/// The status of what has one target; `None` if it is there already.
fn of_target(held: &Held, target: &Value, verdict: &Verdict, now: Timestamp) -> Option<Value> {
    let (conditions, same) = of_own(held, verdict, now);
    let reference = json!({
        "group": target["group"].as_str().unwrap_or_default(), "kind": target["kind"], "name": target["name"],
    });
    let same = same && held.status["targetRef"] == reference;
    (!same).then(|| json!({"conditions": conditions, "targetRef": reference}))
}

/// The status of what nobody else is asked about; `None` if it is there already.
fn of_itself(held: &Held, verdict: &Verdict, now: Timestamp) -> Option<Value> {
    let (conditions, same) = of_own(held, verdict, now);
    (!same).then(|| json!({"conditions": conditions}))
}

/// The conditions of others and the one of ours, and whether they are there already.
fn of_own(held: &Held, verdict: &Verdict, now: Timestamp) -> (Vec<Value>, bool) {
    let old = &held.status["conditions"];
    let others = old.as_array().into_iter().flatten().filter(|condition| condition["type"] != ACCEPTED);
    let conditions: Vec<Value> = others.cloned().chain([condition(verdict, held.generation, old, now)]).collect();
    let same = says(old, &json!(conditions));
    (conditions, same)
}

/// The status of what has parents; `None` if it is there already.
fn of_parents(held: &Held, mut ours: Vec<(Value, Vec<Verdict>)>, now: Timestamp) -> Option<Value> {
    let old = held.status["parents"].as_array().cloned().unwrap_or_default();
    let entry = |parent: Value, verdicts: &[Verdict], before: &Value| {
        let conditions = verdicts.iter().map(|verdict| condition(verdict, held.generation, before, now));
        json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": conditions.collect::<Vec<_>>(),
        })
    };
    let mut entries: Vec<Value> = vec![];
    for before in &old {
        if before["controllerName"] != CONTROLLER {
            entries.push(before.clone());
        } else if let Some(i) = ours.iter().position(|(parent, _)| *parent == before["parentRef"]) {
            let (parent, verdicts) = ours.remove(i);
            entries.push(entry(parent, &verdicts, &before["conditions"]));
        }
    }
    entries.extend(ours.into_iter().map(|(parent, verdicts)| entry(parent, &verdicts, &Value::Null)));
    entries.truncate(MAX_ENTRIES);
    let conditions = |entry: &Value| entry["conditions"].clone();
    let same = old.len() == entries.len()
        && old.iter().zip(&entries).all(|(old, new)| {
            old == new || old["parentRef"] == new["parentRef"] && says(&conditions(old), &conditions(new))
        });
    (!same).then(|| json!({"parents": entries}))
}

/// `before` is the conditions that stand there.
fn condition(verdict: &Verdict, generation: i64, before: &Value, now: Timestamp) -> Value {
    let Verdict { of, reason, message } = verdict;
    let status = if verdict.holds() { "True" } else { "False" };
    let before = before.as_array().into_iter().flatten();
    let old = before.into_iter().find(|old| old["type"] == *of && old["status"] == status);
    let since = old.and_then(|old| old["lastTransitionTime"].as_str().map(str::to_owned));
    let now = || Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    json!({
        "type": of,
        "status": status,
        "reason": reason,
        "message": message.chars().take(MAX_MESSAGE_CHARS).collect::<String>(),
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(now),
    })
}

/// Whether conditions say the same, whenever they came to.
fn says(old: &Value, new: &Value) -> bool {
    let timeless = |conditions: &Value| {
        let all = conditions.as_array().into_iter().flatten().cloned();
        all.map(|mut condition| {
            if let Some(fields) = condition.as_object_mut() {
                fields.remove("lastTransitionTime");
            }
            condition
        })
        .collect::<Vec<_>>()
    };
    timeless(old) == timeless(new)
}

#[cfg(test)]
mod tests;
