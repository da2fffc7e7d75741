//! The index: every object, and the four questions of the control plane answered from them.
//!
//! ```text
//! Event ─► apply ─► Subjects that changed ─► (control) the Questions that depend on them ─► answer ─► Answer, version
//! ```
//!
//! Pure and deterministic: the answers depend on the objects held, never on the order in which they came.

use crate::{Event, annotation::PortRanges};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};
use weft_model::{
    ClientPolicy, Endpoint, NameAddr, Profile, ProtocolHint, ServerPolicy, decide::cidr::Cidr,
    policy::inbound::DefaultPolicy,
};

/// What holds for the whole mesh.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    pub control_namespace: String,
    pub trust_domain: String,
    pub cluster_domain: String,
    pub cluster_networks: Vec<Cidr>,
    pub probe_networks: Vec<Cidr>,
    pub default_policy: DefaultPolicyName,
    pub opaque_ports: Vec<u16>,
    /// How HTTP/1 is carried to a meshed endpoint whose port is not opaque.
    pub hint: ProtocolHint,
}

/// A default policy by its name, for configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DefaultPolicyName(pub DefaultPolicy);

/// What a stream asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// What is behind this name?
    Destination(NameAddr),
    /// What is this address or name?
    Profile(Target),
    /// How is this port of a pod served?
    Inbound { namespace: String, pod: String, port: u16 },
    /// How does traffic to this target behave, for a client in this namespace?
    Outbound { source_namespace: String, target: Target },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Addr(SocketAddr),
    Name(NameAddr),
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    Service { namespace: String, name: String },
    Pod { namespace: String, name: String },
    Address(IpAddr),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Destination(BTreeMap<SocketAddr, Endpoint>),
    Profile(Profile),
    Inbound(ServerPolicy),
    Outbound(ClientPolicy),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    NotFound(String),
    /// The question itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The objects contradict each other.
    #[error("{0}")]
    Ambiguous(String),
}

/// An answer with the hash of its content: equal answers have equal versions, also in other processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    pub version: u64,
    pub answer: Result<Answer, Refusal>,
}

/// Every object, in the form that answers need.
#[derive(Clone, Debug)]
pub struct Index {
    settings: Settings,
    _opaque: PortRanges,
}

impl Index {
    pub fn new(settings: Settings) -> Self {
        let opaque = settings.opaque_ports.iter().copied().collect();
        Self { settings, _opaque: opaque }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes in one event and says what it may have changed.
    pub fn apply(&mut self, event: Event) -> Vec<Subject> {
        let _ = event;
        vec![]
    }

    /// The newest answer.
    pub fn answer(&self, question: &Question) -> Versioned {
        let _ = question;
        Versioned { version: 0, answer: Err(Refusal::NotFound("not built yet".into())) }
    }

    /// Who holds the token with this SHA-256, in lower-case hexadecimal digits: namespace and service account.
    pub fn token(&self, sha256: &str) -> Option<(&str, &str)> {
        let _ = sha256;
        None
    }
}

impl Default for Settings {
    fn default() -> Self {
        let networks = ["10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];
        Self {
            control_namespace: weft_model::names::CONTROL_NAMESPACE.to_owned(),
            trust_domain: weft_model::names::CLUSTER_DOMAIN.to_owned(),
            cluster_domain: weft_model::names::CLUSTER_DOMAIN.to_owned(),
            cluster_networks: networks.iter().filter_map(|n| n.parse().ok()).collect(),
            probe_networks: vec![Cidr::ALL_V4, Cidr::ALL_V6],
            default_policy: DefaultPolicyName(DefaultPolicy::AllUnauthenticated),
            opaque_ports: weft_model::names::DEFAULT_OPAQUE_PORTS.to_vec(),
            hint: ProtocolHint::H2,
        }
    }
}

impl TryFrom<String> for DefaultPolicyName {
    type Error = weft_model::policy::inbound::InvalidDefaultPolicy;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<DefaultPolicyName> for String {
    fn from(name: DefaultPolicyName) -> Self {
        name.0.as_str().to_owned()
    }
}
