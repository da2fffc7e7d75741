//! The index: every object, and the questions of the control plane answered from them.
//!
//! ```text
//! Event ─► facts ─► apply (store) ─► Subjects that changed ─► (control) the Questions that depend on them
//! Question ─► destination | profile | inbound | outbound | work ─► Answer, hash ─► Versioned
//! ```
//!
//! Pure and deterministic: the answers depend on the objects held, never on the order in which they came.

mod destination;
mod endpoints;
mod facts;
mod failure;
mod gateway;
mod grants;
mod hash;
mod held;
mod inbound;
mod known;
mod name;
mod outbound;
mod policies;
mod profile;
mod question;
mod routes;
mod settings;
mod store;
mod wire;
mod work;

pub use endpoints::{Endpoints, Place};
pub(crate) use facts::{Map, is_tcp, of_mesh};
pub(crate) use gateway::Gateway;
pub use grants::Absent;
pub(crate) use known::{Backing, Known, Missing};
pub use question::{Answer, Question, Refusal, Subject, Target, Versioned};
pub use settings::{DefaultPolicyName, Platform, Settings};
pub(crate) use wire::Ports;
pub(crate) use work::runs_to_an_end;

pub use crate::policy::WorkloadKind;

use crate::{Event, Object, workload::Unsure};
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeMap;
use store::Store;

/// Every object, in the form that answers need.
#[derive(Clone, Debug)]
pub struct Index {
    settings: Settings,
    store: Store,
    /// Whether it counts when an object was made: what a mesh holds that runs from manifests is all of one age.
    aged: bool,
    /// What is not known of pods that only stand for others.
    unsure: BTreeMap<store::Id, Unsure>,
}

impl Index {
    pub fn new(settings: Settings) -> Self {
        let aged = settings.platform == Platform::Kubernetes;
        Self { settings, store: Store::default(), aged, unsure: BTreeMap::new() }
    }

    /// Of manifests as a cluster would run them.
    pub(crate) fn foretelling(settings: Settings) -> Self {
        Self { aged: true, ..Self::new(settings) }
    }

    /// Takes in a pod that stands for what a cluster would run.
    pub(crate) fn stand(&mut self, pod: Pod, unsure: Unsure) {
        let object = Object::Pod(Box::new(pod));
        let key = object.key();
        self.unsure.insert((key.namespace, key.name), unsure);
        self.apply(Event::Apply(object));
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes in one event and says what it may have changed.
    pub fn apply(&mut self, event: Event) -> Vec<Subject> {
        let is_of_kubernetes = self.settings.platform == Platform::Kubernetes;
        let mut changed = match &event {
            // Nothing is inherited there.
            Event::Apply(Object::Namespace(_)) if is_of_kubernetes => vec![],
            Event::Apply(object) => self.store.insert(object),
            Event::Delete(key) => self.store.remove(key),
            Event::Refused(refused) => self.store.refuse(&refused.key),
            Event::Synced => vec![],
        };
        changed.sort();
        changed.dedup();
        changed
    }

    /// The newest answer.
    pub fn answer(&self, question: &Question) -> Versioned {
        let answer = self.reply(question);
        let version = match &answer {
            Ok(Answer::Destination(endpoints)) => endpoints.version(),
            answer => hash::of(answer),
        };
        Versioned { version, answer }
    }

    fn reply(&self, question: &Question) -> Result<Answer, Refusal> {
        match question {
            Question::Destination(target) => self.destination(target).map(Answer::Destination),
            Question::Profile { from, target } => self.profile(from, target).map(Answer::Profile),
            Question::Inbound { namespace, of, name, port } => {
                self.inbound(namespace, *of, name, *port).map(Answer::Inbound)
            }
            Question::Outbound { from, target } => self.outbound(from, target).map(Answer::Outbound),
            Question::Work { namespace, pod, uid } => self.work(namespace, pod, uid).map(|done| Answer::Work { done }),
        }
    }

    /// What an answer to `question` depends on: when none of it changed, neither did the answer.
    pub fn subjects(&self, question: &Question) -> Vec<Subject> {
        let of_name = |parsed: Result<name::ServiceName, Refusal>| {
            parsed.map(|n| vec![Subject::Service { namespace: n.namespace, name: n.service }]).unwrap_or_default()
        };
        let domain = &self.settings.cluster_domain;
        match question {
            Question::Destination(target) | Question::Profile { target: Target::Name(target), .. } => {
                of_name(name::parse(&target.name, domain))
            }
            Question::Outbound { target: Target::Name(target), .. } => {
                of_name(name::parse_authority(&target.name, domain))
            }
            Question::Profile { target: Target::Addr(addr), .. } => {
                vec![Subject::Address(addr.ip().to_canonical())]
            }
            Question::Outbound { from, target: Target::Addr(addr) } => {
                let egress = [from, &self.settings.egress_namespace];
                let mut subjects = vec![Subject::Address(addr.ip().to_canonical())];
                subjects.extend(egress.map(|namespace| Subject::Egress { namespace: namespace.clone() }));
                subjects
            }
            Question::Inbound { namespace, of, name, .. } => {
                let (namespace, name) = (namespace.clone(), name.clone());
                let policies = Subject::Policies { namespace: namespace.clone() };
                let workload = match of {
                    WorkloadKind::Pod => Subject::Pod { namespace, name },
                    WorkloadKind::ExternalWorkload => Subject::ExternalWorkload { namespace, name },
                };
                vec![workload, policies]
            }
            Question::Work { namespace, pod, .. } => {
                vec![Subject::Pod { namespace: namespace.clone(), name: pod.clone() }]
            }
        }
    }

    /// Where a client on `node` is, as far as it is known.
    pub fn place(&self, node: &str) -> Place {
        Place { node: node.to_owned(), zone: self.store.zone(node).cloned() }
    }

    /// The mesh's annotations that hold for an object of `namespace` with these of its own.
    fn annotations(&self, namespace: &str, own: &facts::Map) -> facts::Map {
        match self.settings.platform {
            Platform::Manifests => self.store.inherit(namespace, own),
            Platform::Kubernetes => own.clone(),
        }
    }

    /// Who holds the token with this SHA-256, in lower-case hexadecimal digits.
    pub fn token(&self, sha256: &str) -> Option<&crate::Token> {
        self.store.token(sha256)
    }
}

#[cfg(test)]
mod tests;
