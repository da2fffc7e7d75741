//! ServiceProfiles: made from what describes a service already (`weft profile`: text in, object out), what is wrong with one, and what
//! one asks of clients.

mod admission;
mod checked;
mod open_api;
mod proto;
mod spec;
mod template;

pub use admission::mistakes;
pub(crate) use checked::Asked;
pub use open_api::open_api;
pub use proto::proto;
pub use spec::{
    OverrideSpec, RequestConditionSpec, ResponseClassSpec, ResponseConditionSpec, RetryBudgetSpec, RouteSpec,
    ServiceProfileSpec, StatusRangeSpec,
};
pub use template::template;

use serde_json::{Value, json};

/// What a profile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    pub service: &'a str,
    pub namespace: &'a str,
    /// The end of all names of Services.
    pub domain: &'a str,
}

/// Why there is no profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    #[error("{0:?} is no name of a Service: it has up to 63 of a-z, 0-9 and '-', and begins with a letter")]
    Service(String),
    #[error("{0:?} is no name of a namespace: it has up to 63 of a-z, 0-9 and '-'")]
    Namespace(String),
    #[error("line {line}: {message}; {remedy}")]
    Unreadable { line: u32, message: String, remedy: &'static str },
    #[error("{at}: {message}")]
    Invalid { at: String, message: String },
}

impl Subject<'_> {
    /// # Errors
    /// No Service can be called so.
    pub fn check(&self) -> Result<(), NoProfile> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let label = |text: &str| {
            (1..=63).contains(&text.len()) && text.bytes().all(known) && !text.starts_with('-') && !text.ends_with('-')
        };
        if !label(self.service) || !self.service.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(NoProfile::Service(self.service.to_owned()));
        }
        if !label(self.namespace) {
            return Err(NoProfile::Namespace(self.namespace.to_owned()));
        }
        Ok(())
    }

    /// The profile's name: the Service's in DNS.
    fn name(&self) -> String {
        format!("{}.{}.svc.{}", self.service, self.namespace, self.domain)
    }

    fn object(&self, routes: Vec<Value>) -> Value {
        json!({
            "apiVersion": "linkerd.io/v1alpha2",
            "kind": "ServiceProfile",
            "metadata": { "name": self.name(), "namespace": self.namespace },
            "spec": { "routes": routes },
        })
    }
}

/// A regular expression that matches this text alone.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const WEB: Subject<'_> = Subject { service: "web", namespace: "shop", domain: "cluster.local" };

    #[test]
    fn a_profile_is_of_a_service_that_there_can_be() {
        assert_eq!(WEB.check(), Ok(()));
        for bad in ["", "Web", "1web", "-web", "web-", "web.shop", &"w".repeat(64)] {
            assert!(matches!(Subject { service: bad, ..WEB }.check(), Err(NoProfile::Service(_))), "{bad}");
        }
        assert_eq!(Subject { namespace: "1", ..WEB }.check(), Ok(()));
        for bad in ["", "Shop", "shop.", "-"] {
            assert!(matches!(Subject { namespace: bad, ..WEB }.check(), Err(NoProfile::Namespace(_))), "{bad}");
        }
    }

    #[test]
    fn what_is_quoted_matches_itself_alone() {
        assert_eq!(quoted("/a.b/C+d"), r"/a\.b/C\+d");
    }
}
