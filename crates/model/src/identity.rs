//! Who a workload is: the name in its certificate.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// A name in the form of a DNS name: lower-case labels of letters, digits, `-` and `_`, at most 253 bytes, without a trailing dot.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(Arc<str>);

/// The identity of a workload, compared exactly.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identity {
    /// A DNS subject alternative name, as every Kubernetes workload has.
    Dns(DnsName),
    /// A `spiffe://` URI subject alternative name.
    Uri(Arc<str>),
}

/// A text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an identity: {reason}")]
pub struct InvalidIdentity {
    text: String,
    reason: &'static str,
}

impl DnsName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidIdentity { text: text.chars().take(256).collect(), reason };
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > 253 {
            return Err(invalid("a DNS name has 1 to 253 bytes"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(invalid("each label of a DNS name has 1 to 63 bytes"));
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return Err(invalid("a DNS name has letters, digits, '-' and '_' only"));
            }
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }
}

impl Identity {
    /// The identity of a Kubernetes service account: `<account>.<namespace>.serviceaccount.identity.<control namespace>.<trust domain>`.
    ///
    /// # Errors
    /// One of the parts is no DNS label, or the whole is too long.
    pub fn of_service_account(
        account: &str,
        namespace: &str,
        control_namespace: &str,
        trust_domain: &str,
    ) -> Result<Self, InvalidIdentity> {
        Self::service_account_name(account, namespace, control_namespace, trust_domain).parse()
    }

    /// The text of [`Identity::of_service_account`], for who hands it on and leaves it to others to check.
    pub fn service_account_name(account: &str, namespace: &str, control_namespace: &str, trust_domain: &str) -> String {
        format!("{account}.{namespace}.serviceaccount.identity.{control_namespace}.{trust_domain}")
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Dns(name) => name.as_str(),
            Self::Uri(uri) => uri,
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("spiffe://") { spiffe(text).map(Self::Uri) } else { text.parse().map(Self::Dns) }
    }
}

fn spiffe(text: &str) -> Result<Arc<str>, InvalidIdentity> {
    let invalid = |reason| InvalidIdentity { text: text.chars().take(256).collect(), reason };
    if text.len() > 2048 {
        return Err(invalid("a SPIFFE ID has at most 2048 bytes"));
    }
    let rest = text.strip_prefix("spiffe://").ok_or_else(|| invalid("a SPIFFE ID begins with spiffe://"))?;
    let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
    let in_domain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if domain.is_empty() || !domain.bytes().all(in_domain) {
        return Err(invalid("a trust domain has lower-case letters, digits, '.', '-' and '_' only"));
    }
    let in_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if rest.contains('/') && path.split('/').any(|s| s.is_empty() || s == "." || s == ".." || !s.bytes().all(in_path)) {
        return Err(invalid(
            "a path segment is not empty, '.' or '..', and has letters, digits, '.', '-' and '_' only",
        ));
    }
    Ok(text.into())
}

impl TryFrom<String> for DnsName {
    type Error = InvalidIdentity;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for Identity {
    type Error = InvalidIdentity;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(id: Identity) -> Self {
        id.as_str().to_owned()
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_canonical() {
        assert_eq!("Web.Emojivoto.".parse::<DnsName>().unwrap().as_str(), "web.emojivoto");
        for bad in ["", ".", "a..b", "a b", "a/b", "*.x", &"a".repeat(64), &"a.".repeat(127)] {
            if bad.len() == 254 {
                continue; // 253 bytes and a trailing dot: valid
            }
            assert!(bad.parse::<DnsName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn spiffe_ids_are_strict() {
        assert!("spiffe://td.example/a/b".parse::<Identity>().is_ok());
        assert!("spiffe://td.example".parse::<Identity>().is_ok());
        for bad in
            ["spiffe://", "spiffe://TD/a", "spiffe://td//a", "spiffe://td/../a", "spiffe://td/a/", "spiffe://td/a?b"]
        {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }
}
