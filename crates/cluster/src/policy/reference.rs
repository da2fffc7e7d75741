//! References to other objects.

use super::{GROUP, Mistake};
use serde::{Deserialize, Serialize};

/// A reference as objects have it; not each may have a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(default)]
    pub name: String,
}

impl ReferenceSpec {
    /// Whether it is of this kind of the mesh's own group.
    pub(super) fn is_of_mesh(&self, kind: &str) -> bool {
        self.is_of(GROUP, kind)
    }

    pub(super) fn is_of(&self, group: &str, kind: &str) -> bool {
        self.group().eq_ignore_ascii_case(group) && self.kind.eq_ignore_ascii_case(kind)
    }

    /// Whether it is of this kind of Kubernetes' core.
    pub(super) fn is_core(&self, kind: &str) -> bool {
        (self.group().is_empty() || self.group().eq_ignore_ascii_case("core")) && self.kind.eq_ignore_ascii_case(kind)
    }

    fn group(&self) -> &str {
        self.group.as_deref().unwrap_or_default()
    }

    /// The namespace that it names, or the one of the object that refers.
    pub(super) fn namespace_or<'a>(&'a self, own: &'a str) -> &'a str {
        self.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(own)
    }

    pub(super) fn named(&self, at: &str) -> Option<Mistake> {
        let nameless = || Mistake::new(format!("{at}.name"), "the reference names nothing", "give its name");
        self.name.is_empty().then(nameless)
    }
}

/// `HTTPRoute (gateway.networking.k8s.io)`, or without its group where that is empty.
impl std::fmt::Display for ReferenceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.group() {
            "" => f.write_str(&self.kind),
            group => write!(f, "{} ({group})", self.kind),
        }
    }
}
