//! Questions and answers.

use super::Endpoints;
use crate::policy::WorkloadKind;
use std::net::{IpAddr, SocketAddr};
use weft_model::{ClientPolicy, NameAddr, Profile, ServerPolicy};

/// What a stream asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// What is behind this name?
    Destination(NameAddr),
    /// What is this address or name, to a client in the namespace `from`?
    Profile { from: String, target: Target },
    /// How is this port of a workload served?
    Inbound { namespace: String, of: WorkloadKind, name: String, port: u16 },
    /// How does traffic to this target behave that comes from a namespace?
    Outbound { from: String, target: Target },
    /// Is the work of this very pod done?
    Work { namespace: String, pod: String, uid: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Addr(SocketAddr),
    Name(NameAddr),
}

/// What an answer depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The Service, or the pods behind it.
    Service {
        namespace: String,
        name: String,
    },
    Pod {
        namespace: String,
        name: String,
    },
    ExternalWorkload {
        namespace: String,
        name: String,
    },
    /// Whose it is, or something about its owner.
    Address(IpAddr),
    /// Servers of the namespace, or who may call them.
    Policies {
        namespace: String,
    },
    /// EgressNetworks of the namespace, or their routes.
    Egress {
        namespace: String,
    },
    /// In which zone a node is: no answer, but how clients there see it.
    Zones,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Destination(Endpoints),
    Profile(Profile),
    Inbound(ServerPolicy),
    Outbound(ClientPolicy),
    Work { done: bool },
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
    /// This version does not do what an object asks for.
    #[error("{0}")]
    NotCarriedOut(String),
}

/// An answer with the hash of its content: equal answers have equal versions, also in other processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    pub version: u64,
    pub answer: Result<Answer, Refusal>,
}
