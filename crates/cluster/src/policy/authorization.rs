//! Who may call: ServerAuthorizations, which say it themselves, and AuthorizationPolicies, which refer to what clients must prove.

use super::{
    Identities, IdentityMatch, Mistake, NetworkSpec, Networks, ReferenceSpec, Selector, all_right,
    authentication::{names, networks},
    definition,
};
use crate::Kind;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerAuthorizationSpec {
    pub server: ServerRefSpec,
    pub client: ClientSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerRefSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkSpec>>,
    #[serde(default)]
    pub unauthenticated: bool,
    #[serde(rename = "meshTLS", default, skip_serializing_if = "Option::is_none")]
    pub mesh_tls: Option<MeshTlsSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTlsSpec {
    #[serde(rename = "unauthenticatedTLS", default)]
    pub unauthenticated_tls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<Vec<AccountSpec>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSpec {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    pub target_ref: ReferenceSpec,
    pub required_authentication_refs: Vec<ReferenceSpec>,
}

/// A ServerAuthorization: Servers of its own namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerGrant {
    pub(crate) servers: Servers,
    /// `None` is the cluster's.
    pub(crate) networks: Option<Networks>,
    pub(crate) proof: Proof,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    Named(String),
    Selected(Selector),
}

/// What a client must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Nothing,
    MeshTls,
    Identity(Identities),
}

/// An AuthorizationPolicy. References are namespaces and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyGrant {
    pub(crate) target: Target,
    pub(crate) identity: Option<Required>,
    /// `None` is every network.
    pub(crate) network: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server(String),
    /// Every Server of its own namespace.
    Namespace,
    /// A route of its own namespace, by its kind and name.
    Route(Kind, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Required {
    MeshTls((String, String)),
    Account((String, String)),
}

impl Servers {
    pub(crate) fn contain(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Named(wanted) => wanted == name,
            Self::Selected(selector) => selector.selects(labels),
        }
    }
}

impl ServerAuthorizationSpec {
    pub(crate) fn checked(&self, namespace: &str) -> Result<ServerGrant, Vec<Mistake>> {
        let mut mistakes = vec![];
        let servers = match (&self.server.name, &self.server.selector) {
            (Some(name), None) if !name.is_empty() => Some(Servers::Named(name.clone())),
            (None, Some(selector)) => match Selector::checked(selector, "spec.server.selector") {
                Ok(selector) => Some(Servers::Selected(selector)),
                Err(wrong) => {
                    mistakes.extend(wrong);
                    None
                }
            },
            _ => {
                let message = "it names Servers in no way, or in two";
                mistakes.push(Mistake::new("spec.server", message, "give name or selector"));
                None
            }
        };
        let ClientSpec { networks: nets, unauthenticated, mesh_tls } = &self.client;
        let nets = nets.as_deref().filter(|n| !n.is_empty());
        let networks = nets.map(|nets| networks(nets, "spec.client.networks", &mut mistakes));
        let proof = match (unauthenticated, mesh_tls) {
            (true, None) => Proof::Nothing,
            (false, Some(mesh_tls)) => mesh_tls.checked(namespace, &mut mistakes),
            (true, Some(_)) => {
                let message = "whoever need not prove anything needs no meshTLS";
                mistakes.push(Mistake::new("spec.client.unauthenticated", message, "remove one of them"));
                Proof::Nothing
            }
            (false, None) => {
                let remedy = "give meshTLS, or unauthenticated: true";
                mistakes.push(Mistake::new("spec.client", "it lets nobody in", remedy));
                Proof::Nothing
            }
        };
        all_right(servers.map(|servers| ServerGrant { servers, networks, proof }), mistakes)
    }
}

impl MeshTlsSpec {
    fn checked(&self, namespace: &str, mistakes: &mut Vec<Mistake>) -> Proof {
        const AT: &str = "spec.client.meshTLS";
        let Self { unauthenticated_tls, identities, service_accounts } = self;
        let mut found = names(identities.as_deref().unwrap_or_default(), &format!("{AT}.identities"), mistakes);
        for (i, AccountSpec { name, namespace: other }) in service_accounts.iter().flatten().enumerate() {
            if name.is_empty() {
                let at = format!("{AT}.serviceAccounts[{i}].name");
                mistakes.push(Mistake::new(at, "the reference names nothing", "give its name"));
            }
            let namespace = other.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace).to_owned();
            found.push(IdentityMatch::Account { namespace, name: name.clone() });
        }
        match (*unauthenticated_tls, found.is_empty()) {
            (true, true) => Proof::MeshTls,
            (false, false) => Proof::Identity(found),
            (true, false) => {
                let message = "whoever needs no identity needs no identities or serviceAccounts";
                mistakes.push(Mistake::new(format!("{AT}.unauthenticatedTLS"), message, "remove one of them"));
                Proof::MeshTls
            }
            (false, true) => {
                let remedy = "give identities, serviceAccounts, or unauthenticatedTLS: true";
                mistakes.push(Mistake::new(AT, "it lets nobody in", remedy));
                Proof::MeshTls
            }
        }
    }
}

impl AuthorizationPolicySpec {
    pub(crate) fn checked(&self, namespace: &str) -> Result<PolicyGrant, Vec<Mistake>> {
        let mut mistakes = vec![];
        let target = self.target(namespace, &mut mistakes);
        let (mut identity, mut network) = (None, None);
        for (i, reference) in self.required_authentication_refs.iter().enumerate() {
            let at = format!("spec.requiredAuthenticationRefs[{i}]");
            mistakes.extend(reference.named(&at));
            let id = (reference.namespace_or(namespace).to_owned(), reference.name.clone());
            let is_second = if reference.is_of_mesh("MeshTLSAuthentication") {
                identity.replace(Required::MeshTls(id)).is_some()
            } else if reference.is_core("ServiceAccount") {
                identity.replace(Required::Account(id)).is_some()
            } else if reference.is_of_mesh("NetworkAuthentication") {
                network.replace(id).is_some()
            } else {
                let remedy =
                    "use MeshTLSAuthentication or NetworkAuthentication of policy.linkerd.io, or ServiceAccount";
                mistakes.push(Mistake::new(
                    format!("{at}.kind"),
                    format!("{reference} is nothing that a client could prove"),
                    remedy,
                ));
                false
            };
            if is_second {
                let remedy = "require one MeshTLSAuthentication or ServiceAccount, and one NetworkAuthentication";
                mistakes.push(Mistake::new(at, "it is the second of its sort", remedy));
            }
        }
        all_right(target.map(|target| PolicyGrant { target, identity, network }), mistakes)
    }

    fn target(&self, namespace: &str, mistakes: &mut Vec<Mistake>) -> Option<Target> {
        const AT: &str = "spec.targetRef";
        let reference = &self.target_ref;
        mistakes.extend(reference.named(AT));
        // It is always of the policy's own namespace.
        if let Some(other) = reference.namespace.as_deref().filter(|n| !n.is_empty() && *n != namespace) {
            let message = format!("a policy's target is in its own namespace, not in {other}");
            mistakes.push(Mistake::new(format!("{AT}.namespace"), message, "remove it"));
        }
        if reference.is_of_mesh("Server") {
            return Some(Target::Server(reference.name.clone()));
        }
        if reference.is_core("Namespace") {
            if reference.name != namespace {
                let message = "a policy can have no other namespace than its own as target";
                mistakes.push(Mistake::new(format!("{AT}.name"), message, format!("use {namespace}")));
            }
            return Some(Target::Namespace);
        }
        for kind in [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute] {
            if definition(kind).is_some_and(|defined| reference.is_of(defined.group, defined.kind)) {
                return Some(Target::Route(kind, reference.name.clone()));
            }
        }
        let message = format!("{reference} is no target of a policy");
        let remedy = "use Server or HTTPRoute of policy.linkerd.io, HTTPRoute or GRPCRoute of gateway.networking.k8s.io, or Namespace";
        mistakes.push(Mistake::new(format!("{AT}.kind"), message, remedy));
        None
    }
}
