//! How one port of a workload is served and who may call it.

use super::route::{GrpcRoute, HttpRoute};
use crate::{Identity, Meta, decide::cidr::Cidr};
use std::{str::FromStr, time::Duration};

/// The policy of one port.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPolicy {
    pub meta: Meta,
    pub protocol: ServerProtocol,
    /// Who may connect; empty is nobody. For HTTP a route's own authorizations are tried first.
    pub authorizations: Vec<Authorization>,
}

impl ServerPolicy {
    /// Every reason to let anybody in: the server's own, and those of its routes.
    pub fn all_authorizations(&self) -> impl Iterator<Item = &Authorization> {
        let of_routes: Box<dyn Iterator<Item = &InboundRule>> = match &self.protocol {
            ServerProtocol::Detect { routes, .. }
            | ServerProtocol::Http1 { routes, .. }
            | ServerProtocol::Http2 { routes, .. } => {
                Box::new(routes.iter().flat_map(|route| &route.rules).map(|rule| &rule.does))
            }
            ServerProtocol::Grpc { routes } => {
                Box::new(routes.iter().flat_map(|route| &route.rules).map(|rule| &rule.does))
            }
            ServerProtocol::Opaque | ServerProtocol::Tls => Box::new(std::iter::empty()),
        };
        self.authorizations.iter().chain(of_routes.flat_map(|rule| &rule.authorizations))
    }
}

/// What the port speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerProtocol {
    /// The proxy looks at the first bytes; after `timeout` without any it forwards bytes.
    Detect {
        timeout: Duration,
        routes: Vec<HttpRoute<InboundRule>>,
        rate_limit: Option<RateLimit>,
    },
    Http1 {
        routes: Vec<HttpRoute<InboundRule>>,
        rate_limit: Option<RateLimit>,
    },
    Http2 {
        routes: Vec<HttpRoute<InboundRule>>,
        rate_limit: Option<RateLimit>,
    },
    Grpc {
        routes: Vec<GrpcRoute<InboundRule>>,
    },
    Opaque,
    Tls,
}

impl ServerProtocol {
    /// Whether requests follow routes; without any, what a request asks for decides nothing.
    pub fn has_routes(&self) -> bool {
        match self {
            Self::Detect { routes, .. } | Self::Http1 { routes, .. } | Self::Http2 { routes, .. } => !routes.is_empty(),
            Self::Grpc { routes } => !routes.is_empty(),
            Self::Opaque | Self::Tls => false,
        }
    }

    /// How many requests are taken; protocols without requests, and gRPC, have no such limit.
    pub fn rate_limit(&self) -> Option<&RateLimit> {
        match self {
            Self::Detect { rate_limit, .. } | Self::Http1 { rate_limit, .. } | Self::Http2 { rate_limit, .. } => {
                rate_limit.as_ref()
            }
            Self::Grpc { .. } | Self::Opaque | Self::Tls => None,
        }
    }
}

/// What a matched inbound rule asks for besides its filters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InboundRule {
    /// Who may use the route, besides those whom the server lets in.
    pub authorizations: Vec<Authorization>,
}

/// One reason to let a client in.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    pub meta: Meta,
    /// At least one must hold the client's address.
    pub networks: Vec<NetworkMatch>,
    pub authentication: Authentication,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkMatch {
    pub net: Cidr,
    pub except: Vec<Cidr>,
}

/// What the client must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    Unauthenticated,
    /// Mesh TLS, with or without a certificate.
    TlsUnauthenticated,
    /// Mesh TLS with one of these.
    TlsAuthenticated {
        identities: Vec<Identity>,
        suffixes: Vec<IdentitySuffix>,
    },
}

/// Matches identities that end in a dot and this text; the empty suffix matches every identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySuffix(pub String);

/// Requests per second; the limits are of the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    pub meta: Meta,
    pub total: Option<u32>,
    pub identity: Option<u32>,
    pub overrides: Vec<(u32, Vec<Identity>)>,
}

/// The policy of a port that no Server selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultPolicy {
    Deny,
    AllAuthenticated,
    AllUnauthenticated,
    ClusterAuthenticated,
    ClusterUnauthenticated,
    /// Lets everybody in and counts whom `deny` would not have.
    Audit,
}

/// A text that names no default policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a default policy: use one of deny, all-authenticated, all-unauthenticated, cluster-authenticated, \
     cluster-unauthenticated, audit"
)]
pub struct InvalidDefaultPolicy(String);

impl DefaultPolicy {
    pub const ALL: [Self; 6] = [
        Self::Deny,
        Self::AllAuthenticated,
        Self::AllUnauthenticated,
        Self::ClusterAuthenticated,
        Self::ClusterUnauthenticated,
        Self::Audit,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::AllAuthenticated => "all-authenticated",
            Self::AllUnauthenticated => "all-unauthenticated",
            Self::ClusterAuthenticated => "cluster-authenticated",
            Self::ClusterUnauthenticated => "cluster-unauthenticated",
            Self::Audit => "audit",
        }
    }

    /// The authorizations it stands for. `cluster` is the networks of the cluster.
    pub fn authorizations(self, cluster: &[Cidr]) -> Vec<Authorization> {
        let all = || vec![Cidr::ALL_V4, Cidr::ALL_V6];
        let (networks, authentication) = match self {
            Self::Deny => return vec![],
            Self::AllAuthenticated => (all(), any_identity()),
            Self::AllUnauthenticated | Self::Audit => (all(), Authentication::Unauthenticated),
            Self::ClusterAuthenticated => (cluster.to_vec(), any_identity()),
            Self::ClusterUnauthenticated => (cluster.to_vec(), Authentication::Unauthenticated),
        };
        if networks.is_empty() {
            return vec![];
        }
        vec![Authorization {
            meta: Meta::default_named(self.as_str()),
            networks: networks.into_iter().map(|net| NetworkMatch { net, except: vec![] }).collect(),
            authentication,
        }]
    }
}

fn any_identity() -> Authentication {
    Authentication::TlsAuthenticated { identities: vec![], suffixes: vec![IdentitySuffix(String::new())] }
}

impl FromStr for DefaultPolicy {
    type Err = InvalidDefaultPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| InvalidDefaultPolicy(text.chars().take(64).collect()))
    }
}
