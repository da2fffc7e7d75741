//! What the mesh knows and how it decides: identities, endpoints, policies, and pure functions on them.
//!
//! Every other crate depends on this one and it depends on none of them. It has no I/O, no clock and no global random
//! numbers: time and randomness are arguments.

#![forbid(unsafe_code)]

pub mod decide;
pub mod duration;
pub mod endpoint;
pub mod extension;
pub mod fnv;
pub mod identity;
pub mod meta;
pub mod names;
pub mod policy;
pub mod ports;
pub mod profile;
pub mod tap;
pub mod trace;
pub mod unsupported;

pub use endpoint::{Endpoint, EndpointUpdate, NameAddr, ProtocolHint};
pub use extension::Extensions;
pub use identity::{DnsName, Identity};
pub use meta::Meta;
pub use policy::{inbound::ServerPolicy, outbound::ClientPolicy};
pub use profile::Profile;
