//! Which object a decision comes from: the labels of metrics and the text of errors.

use serde::{Deserialize, Serialize};

/// The object behind a server, route, backend or authorization.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Meta {
    /// Nothing that a user wrote; the name says which default.
    Default(String),
    Resource(Resource),
}

/// A reference to an object of the cluster. Empty strings and port 0 mean "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Resource {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub section: String,
    pub port: u16,
}

impl Meta {
    pub fn default_named(name: impl Into<String>) -> Self {
        Self::Default(name.into())
    }

    /// The API group; empty for a default.
    pub fn group(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(r) => &r.group,
        }
    }

    /// The kind as metrics show it: `default` for a default.
    pub fn kind(&self) -> &str {
        match self {
            Self::Default(_) => "default",
            Self::Resource(r) => &r.kind,
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Default(name) => name,
            Self::Resource(r) => &r.name,
        }
    }

    pub fn namespace(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(r) => &r.namespace,
        }
    }

    pub fn section(&self) -> &str {
        match self {
            Self::Default(_) => "",
            Self::Resource(r) => &r.section,
        }
    }

    /// 0 where the object has no port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Default(_) => 0,
            Self::Resource(r) => r.port,
        }
    }
}
