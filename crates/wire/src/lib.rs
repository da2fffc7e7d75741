//! The messages between proxies and the control plane, as [`weft_model`] types: Linkerd's four services, our own, a
//! workload API's, and the transport header.
//!
//! Both directions of every message stand beside each other. Generated types never leave this crate. It converts and decides
//! nothing: a message that lacks what it needs is an [`Invalid`] that names the field, and is never half accepted. Of endpoints,
//! profiles and extensions, which Linkerd's proxies take in parts, each part counts as a message.

#![forbid(unsafe_code)]

pub mod destination;
pub mod extension;
pub mod identity;
pub mod inbound;
pub mod otlp;
pub mod outbound;
pub mod spiffe;
pub mod tap;
pub mod transport_header;
pub mod trust;
pub mod work;

mod encoded;
mod endpoint;
mod error;
mod filter;
mod meta;
mod net;
mod profile;
mod route;
mod shown;
mod stream;
mod time;

pub use encoded::Encoded;
pub use error::{Error, Invalid, Verdict};
pub use stream::{GrpcServer, Incoming, Outgoing, Transport};

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod tests;

/// The largest message that is accepted, in bytes: some ten thousand endpoints.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
