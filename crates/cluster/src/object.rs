//! Objects, their keys, and the events that add and remove them.

use crate::{
    policy::{
        AuthorizationPolicy, EgressNetwork, ExternalWorkload, GrpcRoute, HttpLocalRateLimitPolicy, HttpRoute,
        MeshTlsAuthentication, NetworkAuthentication, Server, ServerAuthorization, ServiceProfile, TcpRoute, TlsRoute,
    },
    workload::{Unrun, Workload},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, HTTPGetAction, Namespace, Node, Pod, PodSpec, Service, ServiceAccount},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// The namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// What a probe asks for, as the kubelet does, with its query if there is one.
pub fn probed_path(get: &HTTPGetAction) -> String {
    crate::probed::sent(get.path.as_deref().unwrap_or_default())
}

/// All containers of a pod: those that run beside each other, then those that run before them.
pub fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// The port that a probe of a container asks, as the kubelet does: by its number, or by the name that this container gives it,
/// whichever ports of others have that name.
pub fn probed_port(port: &IntOrString, of: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = of.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |port| Some(port.container_port))?
        }
    };
    u16::try_from(number).ok()
}

/// What Kubernetes means by a DNS label: the name of a namespace, and of most parts of others.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_part(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The value of a label that is not empty, and what stands behind the prefix of its key.
pub(crate) fn is_label_text(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && ends(text.chars().next())
        && ends(text.chars().next_back())
}

/// The key of a label: an optional prefix, and a name.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_text(key),
        Some((prefix, name)) => is_subdomain(prefix) && is_label_text(name),
    }
}

/// The key of an annotation, whose prefix may have upper-case letters.
pub(crate) fn is_annotation_key(key: &str) -> bool {
    is_label_key(&key.to_lowercase())
}

/// For who has written another key.
pub(crate) const KEY_REMEDY: &str =
    "use an optional DNS name and '/', then at most 63 letters, digits, '-', '_' and '.'";
/// For who has written another value of a label.
pub(crate) const LABEL_TEXT_REMEDY: &str =
    "use at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends";

/// The name of most objects. Unlike in DNS a part may be as long as the whole.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

/// One object of the cluster, typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Object {
    Namespace(Box<Namespace>),
    ServiceAccount(Box<ServiceAccount>),
    Deployment(Box<Deployment>),
    /// Read from manifests for questions alone.
    Unrun(Box<Workload>),
    Service(Box<Service>),
    Pod(Box<Pod>),
    EndpointSlice(Box<EndpointSlice>),
    Node(Box<Node>),
    Server(Box<Server>),
    ServerAuthorization(Box<ServerAuthorization>),
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    MeshTlsAuthentication(Box<MeshTlsAuthentication>),
    NetworkAuthentication(Box<NetworkAuthentication>),
    HttpLocalRateLimitPolicy(Box<HttpLocalRateLimitPolicy>),
    /// An HTTPRoute of the mesh's own group.
    MeshHttpRoute(Box<HttpRoute>),
    /// An HTTPRoute of the Gateway API.
    HttpRoute(Box<HttpRoute>),
    GrpcRoute(Box<GrpcRoute>),
    TlsRoute(Box<TlsRoute>),
    TcpRoute(Box<TcpRoute>),
    EgressNetwork(Box<EgressNetwork>),
    ServiceProfile(Box<ServiceProfile>),
    ExternalWorkload(Box<ExternalWorkload>),
    Token(Token),
}

/// Who may ask for a certificate: the holder of a secret, known here by its hash only. Made by whoever starts a workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Of the token's bytes, in lower-case hexadecimal digits.
    pub sha256: String,
    pub namespace: String,
    pub service_account: String,
    pub pod: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Namespace,
    ServiceAccount,
    Deployment,
    Unrun(Unrun),
    Service,
    Pod,
    EndpointSlice,
    Node,
    Server,
    ServerAuthorization,
    AuthorizationPolicy,
    MeshTlsAuthentication,
    NetworkAuthentication,
    HttpLocalRateLimitPolicy,
    /// Of the mesh's own group.
    MeshHttpRoute,
    /// Of the Gateway API, as are those that follow.
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    EgressNetwork,
    ServiceProfile,
    ExternalWorkload,
    Token,
}

/// What tells an object from every other. The namespace is part of it: a look-up cannot forget it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    /// Empty for what is in no namespace: a Namespace, a Node.
    pub namespace: String,
    /// For a token its hash.
    pub name: String,
}

/// An object that cannot be carried out, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    pub key: Key,
    /// As it is written, as far as its status depends on it.
    pub object: serde_json::Value,
    pub reason: String,
}

/// One step of the stream that tells the control plane what exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// The object is new or changed.
    Apply(Object),
    Delete(Key),
    /// The object is there and cannot be carried out: it counts as not there.
    Refused(Box<Refused>),
    /// What was told before belongs together; at the end of a list it is everything, and objects that are not among it are gone.
    Synced,
}

impl Kind {
    /// Whether its objects are in namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Deployment => "Deployment",
            Self::Unrun(kind) => kind.as_str(),
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::Server => "Server",
            Self::ServerAuthorization => "ServerAuthorization",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::MeshTlsAuthentication => "MeshTLSAuthentication",
            Self::NetworkAuthentication => "NetworkAuthentication",
            Self::HttpLocalRateLimitPolicy => "HTTPLocalRateLimitPolicy",
            Self::MeshHttpRoute => "HTTPRoute.policy.linkerd.io",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::EgressNetwork => "EgressNetwork",
            Self::ServiceProfile => "ServiceProfile",
            Self::ExternalWorkload => "ExternalWorkload",
            Self::Token => "Token",
        }
    }
}

impl Key {
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind.as_str(), self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
        }
    }
}

impl Object {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Deployment(_) => Kind::Deployment,
            Self::Unrun(o) => Kind::Unrun(o.kind),
            Self::Service(_) => Kind::Service,
            Self::Pod(_) => Kind::Pod,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Node(_) => Kind::Node,
            Self::Server(_) => Kind::Server,
            Self::ServerAuthorization(_) => Kind::ServerAuthorization,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::MeshTlsAuthentication(_) => Kind::MeshTlsAuthentication,
            Self::NetworkAuthentication(_) => Kind::NetworkAuthentication,
            Self::HttpLocalRateLimitPolicy(_) => Kind::HttpLocalRateLimitPolicy,
            Self::MeshHttpRoute(_) => Kind::MeshHttpRoute,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::EgressNetwork(_) => Kind::EgressNetwork,
            Self::ServiceProfile(_) => Kind::ServiceProfile,
            Self::ExternalWorkload(_) => Kind::ExternalWorkload,
            Self::Token(_) => Kind::Token,
        }
    }

    /// `None` for a token.
    pub fn metadata(&self) -> Option<&ObjectMeta> {
        match self {
            Self::Namespace(o) => Some(&o.metadata),
            Self::ServiceAccount(o) => Some(&o.metadata),
            Self::Deployment(o) => Some(&o.metadata),
            Self::Unrun(o) => Some(&o.metadata),
            Self::Service(o) => Some(&o.metadata),
            Self::Pod(o) => Some(&o.metadata),
            Self::EndpointSlice(o) => Some(&o.metadata),
            Self::Node(o) => Some(&o.metadata),
            Self::Server(o) => Some(&o.metadata),
            Self::ServerAuthorization(o) => Some(&o.metadata),
            Self::AuthorizationPolicy(o) => Some(&o.metadata),
            Self::MeshTlsAuthentication(o) => Some(&o.metadata),
            Self::NetworkAuthentication(o) => Some(&o.metadata),
            Self::HttpLocalRateLimitPolicy(o) => Some(&o.metadata),
            Self::MeshHttpRoute(o) | Self::HttpRoute(o) => Some(&o.metadata),
            Self::GrpcRoute(o) => Some(&o.metadata),
            Self::TlsRoute(o) => Some(&o.metadata),
            Self::TcpRoute(o) => Some(&o.metadata),
            Self::EgressNetwork(o) => Some(&o.metadata),
            Self::ServiceProfile(o) => Some(&o.metadata),
            Self::ExternalWorkload(o) => Some(&o.metadata),
            Self::Token(_) => None,
        }
    }

    /// `None` for a token.
    pub fn metadata_mut(&mut self) -> Option<&mut ObjectMeta> {
        match self {
            Self::Namespace(o) => Some(&mut o.metadata),
            Self::ServiceAccount(o) => Some(&mut o.metadata),
            Self::Deployment(o) => Some(&mut o.metadata),
            Self::Unrun(o) => Some(&mut o.metadata),
            Self::Service(o) => Some(&mut o.metadata),
            Self::Pod(o) => Some(&mut o.metadata),
            Self::EndpointSlice(o) => Some(&mut o.metadata),
            Self::Node(o) => Some(&mut o.metadata),
            Self::Server(o) => Some(&mut o.metadata),
            Self::ServerAuthorization(o) => Some(&mut o.metadata),
            Self::AuthorizationPolicy(o) => Some(&mut o.metadata),
            Self::MeshTlsAuthentication(o) => Some(&mut o.metadata),
            Self::NetworkAuthentication(o) => Some(&mut o.metadata),
            Self::HttpLocalRateLimitPolicy(o) => Some(&mut o.metadata),
            Self::MeshHttpRoute(o) | Self::HttpRoute(o) => Some(&mut o.metadata),
            Self::GrpcRoute(o) => Some(&mut o.metadata),
            Self::TlsRoute(o) => Some(&mut o.metadata),
            Self::TcpRoute(o) => Some(&mut o.metadata),
            Self::EgressNetwork(o) => Some(&mut o.metadata),
            Self::ServiceProfile(o) => Some(&mut o.metadata),
            Self::ExternalWorkload(o) => Some(&mut o.metadata),
            Self::Token(_) => None,
        }
    }

    /// An object without a namespace is in the namespace `default`.
    pub fn key(&self) -> Key {
        let (namespace, name) = match (self, self.metadata()) {
            (Self::Token(t), _) => (t.namespace.clone(), t.sha256.clone()),
            (_, Some(meta)) => (namespace_of(meta).to_owned(), meta.name.clone().unwrap_or_default()),
            (_, None) => Default::default(),
        };
        let namespace = if self.kind().is_namespaced() { namespace } else { String::new() };
        Key { kind: self.kind(), namespace, name }
    }
}

/// Says whether that changed anything.
pub(crate) fn put<K: Ord, T: PartialEq>(held: &mut BTreeMap<K, T>, key: K, new: Option<T>) -> bool {
    let changed = held.get(&key) != new.as_ref();
    match new {
        Some(new) => drop(held.insert(key, new)),
        None => drop(held.remove(&key)),
    }
    changed
}

pub(crate) fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}
