//! What the statuses of routes and limits should say (control plane 3.6), and how that differs from what they say.
//!
//! ```text
//! Event ─► Statuses ─► wanted(now) ─► Patch per object whose status says something else ─► (control) whoever holds the lease writes it
//! ```
//!
//! Nothing is answered from a status: it tells people, and an object holds whether it has one or not. Only entries under
//! [`CONTROLLER`] are ours, and are made anew as a whole; those of others stay as they are.

mod shown;

pub use shown::{Condition, Shown, UnknownKind, Wanted, shown};

use super::{
    Limit, Spoken, definition,
    route::{Checked, Parent, ParentOf, checked, parent_of},
};
use crate::{Event, Key, Kind, Object, Refused, object::namespace_of};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Under which name statuses are written: that of Linkerd's.
pub const CONTROLLER: &str = "linkerd.io/policy-controller";
/// The kinds whose status is written.
pub(crate) const KINDS: [Kind; 4] =
    [Kind::HttpLocalRateLimitPolicy, Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute];
/// What a definition allows of entries, and what is said at most.
const MAX_ENTRIES: usize = 32;
const MAX_MESSAGE_CHARS: usize = 1024;

const ACCEPTED: &str = "Accepted";
const NO_PARENT: &str = "NoMatchingParent";
const NO_TARGET: &str = "NoMatchingTarget";
const ALREADY_THERE: &str = "RateLimitReasonAlreadyExists";
/// The Gateway API's own, of what cannot be read.
const UNSUPPORTED: &str = "UnsupportedValue";

/// Every object that has a status of ours, and what statuses depend on.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    held: BTreeMap<Key, Held>,
    servers: BTreeMap<(String, String), Spoken>,
}

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
    /// With what there is to say of it.
    Route {
        parents: Vec<Parent>,
        message: String,
    },
    Limit {
        limit: Limit,
        target: Value,
        created: Option<Timestamp>,
    },
    /// It cannot be carried out.
    Refused {
        parents: Vec<Value>,
        target: Value,
        why: String,
    },
}

/// One condition of ours.
struct Verdict {
    reason: &'static str,
    message: String,
}

impl Statuses {
    /// Says whether any status may be another now.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Apply(object) => self.insert(object),
            Event::Refused(refused) => {
                let Refused { key, object, reason } = refused.as_ref();
                if !KINDS.contains(&key.kind) {
                    return false;
                }
                let of = Of::Refused {
                    parents: object["spec"]["parentRefs"].as_array().cloned().unwrap_or_default(),
                    target: object["spec"]["targetRef"].clone(),
                    why: reason.clone(),
                };
                let metadata: ObjectMeta = serde_json::from_value(object["metadata"].clone()).unwrap_or_default();
                let api_version = object["apiVersion"].as_str().unwrap_or_default();
                self.hold(key.clone(), &metadata, api_version, Some(&object["status"]), of)
            }
            Event::Delete(key) => {
                let id = (key.namespace.clone(), key.name.clone());
                let server = key.kind == Kind::Server && self.servers.remove(&id).is_some();
                self.held.remove(key).is_some() || server
            }
            Event::Synced => true,
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
            _ => false,
        }
    }

    fn route(&mut self, key: Key, object: &Object, of: &ObjectMeta, version: &str, status: Option<&Value>) -> bool {
        let Some(Ok(Checked { route, notes })) = checked(object) else { return false };
        let message = notes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
        self.hold(key, of, version, status, Of::Route { parents: route.parents, message })
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
        self.held.iter().filter_map(|(key, held)| self.patch(key, held, now)).collect()
    }

    fn patch(&self, key: &Key, held: &Held, now: Timestamp) -> Option<Patch> {
        let status = match &held.of {
            Of::Limit { target, .. } => of_target(held, target, &self.limited(key, held), now),
            Of::Refused { target, why, .. } if key.kind == Kind::HttpLocalRateLimitPolicy => {
                of_target(held, target, &Verdict { reason: UNSUPPORTED, message: why.clone() }, now)
            }
            Of::Route { parents, message } => {
                let ours = parents.iter().filter_map(|parent| {
                    let written = serde_json::to_value(&parent.written).unwrap_or_default();
                    Some((written, self.attached(key.kind, parent, message)?))
                });
                of_parents(held, ours.collect(), now)
            }
            Of::Refused { parents, why, .. } => {
                let ours = parents.iter().filter(|parent| parent_of(key.kind, parent).is_some());
                let ours = ours.map(|p| (p.clone(), Verdict { reason: UNSUPPORTED, message: why.clone() }));
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

    /// What a parent makes of a route; `None` of what is not carried out.
    fn attached(&self, kind: Kind, parent: &Parent, message: &str) -> Option<Verdict> {
        let (namespace, name) = (&parent.namespace, &parent.name);
        match parent.of {
            ParentOf::Service | ParentOf::EgressNetwork => None,
            ParentOf::Server => Some(match self.servers.get(&(namespace.clone(), name.clone())) {
                None => Verdict { reason: NO_PARENT, message: format!("there is no Server {namespace}/{name}") },
                Some(spoken) if spoken.takes(kind) => Verdict { reason: ACCEPTED, message: message.to_owned() },
                Some(spoken) => {
                    let message =
                        format!("the Server {name} speaks {}, and routes of this kind are not for it", spoken.as_str());
                    Verdict { reason: NO_PARENT, message }
                }
            }),
        }
    }

    fn limited(&self, key: &Key, held: &Held) -> Verdict {
        let Of::Limit { limit, created, .. } = &held.of else {
            return Verdict { reason: NO_TARGET, message: String::new() };
        };
        let age = |created: &Option<Timestamp>, name: &str| (created.is_none(), *created, name.to_owned());
        let others = self.held.iter().filter_map(|(other, held)| match &held.of {
            Of::Limit { limit: another, created, .. } if other.namespace == key.namespace && other != key => {
                (another.server == limit.server).then(|| age(created, &other.name))
            }
            _ => None,
        });
        let own = age(created, &key.name);
        match self.servers.get(&(key.namespace.clone(), limit.server.clone())) {
            None => {
                let message = format!("there is no Server {}/{}", key.namespace, limit.server);
                Verdict { reason: NO_TARGET, message }
            }
            Some(Spoken::Unknown | Spoken::Http1 | Spoken::Http2) => match others.filter(|other| *other < own).min() {
                Some((.., older)) => {
                    let message = format!("{older} is older, and limits the Server {}", limit.server);
                    Verdict { reason: ALREADY_THERE, message }
                }
                None => Verdict { reason: ACCEPTED, message: String::new() },
            },
            Some(spoken) => {
                let message =
                    format!("the Server {} speaks {}, of which no requests are limited", limit.server, spoken.as_str());
                Verdict { reason: NO_TARGET, message }
            }
        }
    }
}

/// The status of what has one target; `None` if it is there already.
fn of_target(held: &Held, target: &Value, verdict: &Verdict, now: Timestamp) -> Option<Value> {
    let old = &held.status["conditions"];
    let others = old.as_array().into_iter().flatten().filter(|condition| condition["type"] != ACCEPTED);
    let conditions: Vec<Value> = others.cloned().chain([condition(verdict, held.generation, old, now)]).collect();
    let reference = json!({
        "group": target["group"].as_str().unwrap_or_default(), "kind": target["kind"], "name": target["name"],
    });
    let same = held.status["targetRef"] == reference && says(old, &json!(conditions));
    (!same).then(|| json!({"conditions": conditions, "targetRef": reference}))
}

/// The status of what has parents; `None` if it is there already.
fn of_parents(held: &Held, mut ours: Vec<(Value, Verdict)>, now: Timestamp) -> Option<Value> {
    let old = held.status["parents"].as_array().cloned().unwrap_or_default();
    let entry = |parent: Value, verdict: &Verdict, before: &Value| {
        json!({
            "parentRef": parent,
            "controllerName": CONTROLLER,
            "conditions": [condition(verdict, held.generation, before, now)],
        })
    };
    let mut entries: Vec<Value> = vec![];
    for before in &old {
        if before["controllerName"] != CONTROLLER {
            entries.push(before.clone());
        } else if let Some(i) = ours.iter().position(|(parent, _)| *parent == before["parentRef"]) {
            let (parent, verdict) = ours.remove(i);
            entries.push(entry(parent, &verdict, &before["conditions"]));
        }
    }
    entries.extend(ours.into_iter().map(|(parent, verdict)| entry(parent, &verdict, &Value::Null)));
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
    let Verdict { reason, message } = verdict;
    let status = if *reason == ACCEPTED { "True" } else { "False" };
    let before = before.as_array().into_iter().flatten();
    let old = before.into_iter().find(|old| old["type"] == ACCEPTED && old["status"] == status);
    let since = old.and_then(|old| old["lastTransitionTime"].as_str().map(str::to_owned));
    let now = || Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    json!({
        "type": ACCEPTED,
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
