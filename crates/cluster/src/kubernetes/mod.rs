//! The API server: the second source of objects, and what else the control plane asks of it.
//!
//! ```text
//! API server ─► watch (list, then changes) ─► trim ─► Event ─► the same index as manifests feed
//!            ◄── tokens: whose token is this?   ◄── events: what people should know
//!            ◄─► lease: which of several replicas acts?
//! ```
//!
//! Nothing is decided here. What is known stays while the server is away; after a gap everything is listed anew.

mod client;
mod events;
mod lease;
mod tokens;
mod trim;
mod watch;

pub use client::{Client, Error, connect};
pub use events::{About, Recorder};
pub use lease::{Lease, hold};
pub use tokens::{AUDIENCE, Account, NoAccount, Tokens};
pub use watch::{Sink, watch};
