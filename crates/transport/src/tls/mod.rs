//! Mutual TLS of the mesh: TLS 1.3 only, post-quantum key exchange first, names compared exactly.
//!
//! ```text
//! Key ─► csr ─► (identity service) ─► Store::set_certificate ─┐
//! anchors ─► Store::new, Store::set_anchors ──────────────────┴─► Store::accept / Store::connect ─► Stream
//! ```
//! Anchors and certificate are swapped while connections are made; a handshake uses what was in force when it began.
//! Readiness probes alone check nobody (`probe`), and only webhooks are asked by who has no certificate of the mesh (`serving`). It must not know what a connection carries; the only protocol it negotiates is the transport header.

mod control;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handshake;
mod key;
mod probe;
mod record;
mod serving;
mod session;
mod shown;
mod store;
mod verify;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod interop;
#[cfg(test)]
pub(crate) mod test;

pub use error::{AnchorsError, CertificateError, KeyError, TlsError};
pub use key::Key;
pub use probe::connect_unverified;
pub use serving::Serving;
pub(crate) use session::Session;
pub use shown::Asking;
pub use store::{Peer, Store};
pub use verify::{Info, KeyExchange, check_anchors, info};
