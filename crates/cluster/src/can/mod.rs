//! What the mesh's policies would say to a request, asked before there is one: `weft policy can`, `weft policy test`, `weft authz`.
//!
//! ```text
//! manifests | supervisor | API server ─► Index ─┐
//! words ─► name (who, where), request ─┴─► people (pods, identities, addresses) ─► way (routes) ─► door ─► Told ─► text | JSON
//! cases.yaml ─► case ─► the same for each case ─► report, JUnit
//! ```
//!
//! Nothing is decided here: policies are the index's answers, and what they say to a request is what the proxies ask,
//! [`weft_model::decide::route`] at the client and [`weft_model::decide::admit`] at the server. What cannot be told is said to be so, and
//! never guessed: an address that nobody has given is every address that a pod may have, and a host every host.

mod authz;
mod case;
mod decide;
mod door;
mod hosts;
mod junit;
mod name;
mod people;
mod request;
mod sources;
mod told;
mod way;

pub use authz::{Found, Granted, Resource, authorizations, pods, pods_among};
pub use case::{Case, Cases, Checked, Expected, Failure, check};
pub use decide::{Asked, ask};
pub use junit::junit;
pub use name::{Client, Port, Target};
pub use request::Request;
pub use sources::{of_manifests, of_objects, settings_of};
pub use told::{Answer, Nearest, Shown, Told, Verdict};

/// Why a question cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct Untold {
    pub message: String,
    pub remedy: String,
}

impl Untold {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests;
