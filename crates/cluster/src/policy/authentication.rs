//! What clients must prove, and where they must come from: the objects that authorizations refer to.

use super::{Mistake, ReferenceSpec, all_right};
use serde::{Deserialize, Serialize};
use weft_model::{
    DnsName, Identity,
    decide::cidr::Cidr,
    policy::inbound::{IdentitySuffix, NetworkMatch},
};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshTlsAuthenticationSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identities: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_refs: Option<Vec<ReferenceSpec>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAuthenticationSpec {
    pub networks: Vec<NetworkSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub cidr: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub except: Option<Vec<String>>,
}

/// Some identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdentityMatch {
    Exact(Identity),
    /// Those that end so; the empty one is all.
    Suffix(IdentitySuffix),
    Account {
        namespace: String,
        name: String,
    },
    /// All of a namespace.
    Namespace(String),
}

pub(crate) type Identities = Vec<IdentityMatch>;
pub(crate) type Networks = Vec<NetworkMatch>;

impl MeshTlsAuthenticationSpec {
    pub(crate) fn checked(&self, namespace: &str) -> Result<Identities, Vec<Mistake>> {
        let Self { identities, identity_refs } = self;
        let (names, refs) = (identities.as_deref().unwrap_or_default(), identity_refs.as_deref().unwrap_or_default());
        let mut mistakes = vec![];
        match (names.is_empty(), refs.is_empty()) {
            (true, true) => mistakes.push(Mistake::new("spec", "it names nobody", "give identities or identityRefs")),
            (false, false) => {
                let message = "it has both identities and identityRefs";
                mistakes.push(Mistake::new("spec", message, "give one of them; two objects can have one each"));
            }
            _ => {}
        }
        let mut found = self::names(names, "spec.identities", &mut mistakes);
        for (i, reference) in refs.iter().enumerate() {
            let at = format!("spec.identityRefs[{i}]");
            mistakes.extend(reference.named(&at));
            let name = reference.name.clone();
            if reference.is_core("ServiceAccount") {
                let namespace = reference.namespace_or(namespace).to_owned();
                found.push(IdentityMatch::Account { namespace, name });
            } else if reference.is_core("Namespace") {
                if reference.namespace.as_ref().is_some_and(|n| !n.is_empty()) {
                    let at = format!("{at}.namespace");
                    mistakes.push(Mistake::new(at, "a Namespace is in no namespace", "remove it"));
                }
                found.push(IdentityMatch::Namespace(name));
            } else {
                let message = format!("{reference} has no identity");
                mistakes.push(Mistake::new(format!("{at}.kind"), message, "use ServiceAccount or Namespace"));
            }
        }
        all_right(Some(found), mistakes)
    }
}

/// Identities by their names: `*`, `*.suffix`, or whole.
pub(super) fn names(texts: &[String], at: &str, mistakes: &mut Vec<Mistake>) -> Identities {
    let mut found = vec![];
    for (i, text) in texts.iter().enumerate() {
        let matches = match text.strip_prefix('*') {
            Some("") => Some(IdentityMatch::Suffix(IdentitySuffix(String::new()))),
            Some(rest) => rest
                .strip_prefix('.')
                .and_then(|suffix| suffix.parse::<DnsName>().ok())
                .map(|suffix| IdentityMatch::Suffix(IdentitySuffix(suffix.as_str().to_owned()))),
            None => text.parse().ok().map(IdentityMatch::Exact),
        };
        match matches {
            Some(matches) => found.push(matches),
            None => {
                let text: String = text.chars().take(256).collect();
                let remedy = "use *, *. and the end of names, a DNS name or a spiffe:// URI";
                mistakes.push(Mistake::new(format!("{at}[{i}]"), format!("{text:?} is no identity"), remedy));
            }
        }
    }
    found
}

impl NetworkAuthenticationSpec {
    pub(crate) fn checked(&self) -> Result<Networks, Vec<Mistake>> {
        let mut mistakes = vec![];
        if self.networks.is_empty() {
            mistakes.push(Mistake::new("spec.networks", "it has no network", "give at least one"));
        }
        let networks = networks(&self.networks, "spec.networks", &mut mistakes);
        all_right(Some(networks), mistakes)
    }
}

/// Networks and what is left out of each: smaller ones inside.
pub(super) fn networks(specs: &[NetworkSpec], at: &str, mistakes: &mut Vec<Mistake>) -> Networks {
    let mut found = vec![];
    for (i, NetworkSpec { cidr, except }) in specs.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let Ok(net) = cidr.parse::<Cidr>() else {
            mistakes.push(no_network(format!("{at}.cidr"), cidr));
            continue;
        };
        let mut left_out = vec![];
        for (j, text) in except.iter().flatten().enumerate() {
            let at = format!("{at}.except[{j}]");
            match text.parse::<Cidr>() {
                Ok(except) if net.contains(except.addr()) && except.prefix_len() > net.prefix_len() => {
                    left_out.push(except);
                }
                Ok(except) => {
                    let message = format!("{except} is not a part of {net}");
                    mistakes.push(Mistake::new(at, message, "use a smaller network inside"));
                }
                Err(_) => mistakes.push(no_network(at, text)),
            }
        }
        found.push(NetworkMatch { net, except: left_out });
    }
    found
}

fn no_network(field: String, text: &str) -> Mistake {
    let text: String = text.chars().take(64).collect();
    Mistake::new(field, format!("{text:?} is no network"), "use an address, or one with a length, such as 10.0.0.0/8")
}
