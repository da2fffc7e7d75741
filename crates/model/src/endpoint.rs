//! What is behind an address: endpoints and how to reach each.

use crate::{DnsName, Identity};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

/// One address that answers for a target, with what a client's proxy must know to reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// Beside others of the same load the one with more is asked more; see [`Self::WEIGHT`].
    pub weight: u32,
    /// The identity that its certificate must carry; `None` is plaintext.
    pub tls: Option<ServerTls>,
    pub hint: ProtocolHint,
    /// The inbound port of its proxy: connections go there and begin with a transport header.
    pub transport_port: Option<u16>,
    /// Replaces the request's authority, and names the target in the transport header.
    pub authority_override: Option<String>,
    /// Labels of its metrics, without the `dst_` prefix.
    pub labels: BTreeMap<String, String>,
    pub http2: Http2Params,
}

/// What a client's proxy expects from a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerTls {
    pub identity: Identity,
    /// The SNI to send.
    pub server_name: DnsName,
}

/// How HTTP is carried to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtocolHint {
    /// Each message in its own version.
    #[default]
    Unknown,
    /// HTTP/1 is carried on HTTP/2.
    H2,
    /// The server's proxy forwards bytes without detection.
    Opaque,
}

/// Parameters of HTTP/2 connections to an endpoint; `None` leaves the proxy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http2Params {
    /// Bytes.
    pub connection_window: Option<u32>,
    /// Bytes.
    pub stream_window: Option<u32>,
    /// Windows follow the measured bandwidth instead.
    pub adaptive_window: bool,
    pub keep_alive: Option<Http2KeepAlive>,
    pub max_concurrent_reset_streams: Option<u32>,
    /// Bytes.
    pub max_frame_size: Option<u32>,
    /// Bytes.
    pub max_send_buf_size: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Http2KeepAlive {
    pub interval: std::time::Duration,
    pub timeout: std::time::Duration,
    pub while_idle: bool,
}

/// One step of an endpoint stream, applied in order to the set held so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointUpdate {
    /// New or changed endpoints.
    Add(Vec<Endpoint>),
    Remove(Vec<SocketAddr>),
    /// The set is empty; `exists` says whether the target itself is known.
    NoEndpoints {
        exists: bool,
    },
}

/// A target by name: `host:port`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameAddr {
    pub name: DnsName,
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target: it has the form name:port")]
pub struct InvalidNameAddr(String);

impl Endpoint {
    /// That of an endpoint of which nothing else is said.
    pub const WEIGHT: u32 = 10_000;

    /// An endpoint that is reached in plaintext at its address and of which nothing else is known.
    pub fn plain(addr: SocketAddr) -> Self {
        Self {
            addr,
            weight: Self::WEIGHT,
            tls: None,
            hint: ProtocolHint::Unknown,
            transport_port: None,
            authority_override: None,
            labels: BTreeMap::new(),
            http2: Http2Params::default(),
        }
    }
}

impl EndpointUpdate {
    /// Applies this step to `set`, keyed by address.
    pub fn apply(self, set: &mut BTreeMap<SocketAddr, Endpoint>) {
        match self {
            Self::Add(endpoints) => set.extend(endpoints.into_iter().map(|e| (e.addr, e))),
            Self::Remove(addrs) => addrs.iter().for_each(|a| drop(set.remove(a))),
            Self::NoEndpoints { .. } => set.clear(),
        }
    }

    /// The steps that lead from `from` to `to`: removals first. None if both are equal.
    pub fn between(from: &BTreeMap<SocketAddr, Endpoint>, to: &BTreeMap<SocketAddr, Endpoint>) -> Vec<Self> {
        Self::steps(from, to, |_, endpoint| endpoint.clone())
    }

    /// The same of sets whose endpoints are made only if they are sent.
    pub fn steps<T: PartialEq>(
        from: &BTreeMap<SocketAddr, T>,
        to: &BTreeMap<SocketAddr, T>,
        endpoint: impl Fn(SocketAddr, &T) -> Endpoint,
    ) -> Vec<Self> {
        if to.is_empty() {
            return if from.is_empty() { vec![] } else { vec![Self::NoEndpoints { exists: true }] };
        }
        let gone: Vec<_> = from.keys().filter(|a| !to.contains_key(a)).copied().collect();
        let changed = to.iter().filter(|(addr, is)| from.get(*addr) != Some(*is));
        let new: Vec<_> = changed.map(|(addr, is)| endpoint(*addr, is)).collect();
        let mut steps = vec![];
        if !gone.is_empty() {
            steps.push(Self::Remove(gone));
        }
        if !new.is_empty() {
            steps.push(Self::Add(new));
        }
        steps
    }
}

impl FromStr for NameAddr {
    type Err = InvalidNameAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidNameAddr(text.chars().take(256).collect());
        let (name, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port: u16 = port.parse().map_err(|_| invalid())?;
        if port == 0 {
            return Err(invalid());
        }
        Ok(Self { name: name.parse().map_err(|_| invalid())?, port })
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl fmt::Debug for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(hosts: &[u8]) -> BTreeMap<SocketAddr, Endpoint> {
        hosts.iter().map(|h| SocketAddr::from(([10, 0, 0, *h], 80))).map(|a| (a, Endpoint::plain(a))).collect()
    }

    #[test]
    fn steps_lead_to_the_set() {
        for from in [&[][..], &[1], &[1, 2], &[3]] {
            for to in [&[][..], &[1], &[2, 3], &[1, 2, 3]] {
                let mut held = set(from);
                for step in EndpointUpdate::between(&set(from), &set(to)) {
                    step.apply(&mut held);
                }
                assert_eq!(held, set(to), "from {from:?}");
            }
        }
    }
}
