//! Clients of the control plane: names → addresses → TLS to the service's identity → HTTP/2, and streams that are kept open.
//!
//! ```text
//! Service ─► resolve (SRV, then A/AAAA) ─► connect (rotation over addresses, mTLS or loopback) ─► lanes (tonic channels) ─► count
//! follow  ─► open a stream ─► messages ─► lost: wait, open again
//! ```
//! All of it runs on the admin thread.

mod connect;
mod count;
mod follow;
mod lanes;
mod link;
mod resolve;

pub(super) use crate::metrics::balancer::Client;
pub(super) use connect::{Caller, Services};
pub(super) use count::{Counted, Families};
pub(super) use follow::{Event, Failed, Following, REFUSED, follow, follow_while};
pub(super) use link::Links;
pub(super) use resolve::Resolver;
#[cfg(feature = "fuzzing")]
pub(crate) use resolve::srv_addrs;
