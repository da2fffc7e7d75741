//! The API server: the second source of objects, and what else the control plane asks of it.
//!
//! ```text
//! API server ─► watch (list, then changes) ─► trim ─► Event ─► the same index as manifests feed
//!            ◄── tokens: whose token is this?   ◄── events: what people should know
//!            ◄── lookup: what is this namespace, whose is this pod?
//!            ◄─► lease: which of several replicas acts?
//!            ◄── status: what an object's author should know
//!            ◄── slices: where ExternalWorkloads are
//! ```
//!
//! Nothing is decided here. What is known stays while the server is away; after a gap everything is listed anew.

mod client;
mod cluster;
mod events;
mod everything;
mod forward;
mod lease;
mod lookup;
mod slices;
mod status;
mod together;
mod tokens;
mod trim;
mod watch;

pub(crate) use client::reason;
pub use client::{Client, Error, connect, connect_as_user, present_context};
pub use cluster::{Cluster, Definition, Resource};
pub use events::{About, Recorder};
use forward::forward;
pub use lease::{Lease, hold};
pub use lookup::Lookup;
pub use slices::{find_slice, write_slice};
pub use status::{Written, write_status};
pub use tokens::{AUDIENCE, Account, NoAccount, Tokens};
pub use watch::{Sink, watch};
