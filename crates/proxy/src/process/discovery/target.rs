//! What the control plane is asked about on the outbound side.

use std::{fmt, net::SocketAddr};
use weft_model::NameAddr;

/// A target: the address that an application dialled, or a name that a request gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetKey {
    Addr(SocketAddr),
    Name(NameAddr),
}

impl TargetKey {
    /// `None` for a name.
    pub fn addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Addr(addr) => Some(*addr),
            Self::Name(_) => None,
        }
    }

    pub fn port(&self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Name(name) => name.port,
        }
    }
}

impl From<SocketAddr> for TargetKey {
    fn from(addr: SocketAddr) -> Self {
        Self::Addr(addr)
    }
}

impl From<NameAddr> for TargetKey {
    fn from(name: NameAddr) -> Self {
        Self::Name(name)
    }
}

impl fmt::Display for TargetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
