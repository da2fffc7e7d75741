//! The supervisor: decides what runs, keeps it running, and meets the host on the mesh's behalf.
//!
//! ```text
//! start ─► run ─┬─ manifests ─► desired ─► pods (one task each) ─► store ─► control plane, DNS, published ports
//!               ├─ control_plane, dns, egress, publish
//!               └─ api
//! ```
//!
//! One thread of its own, with a runtime of its own: the kernel ties the node to it.

mod api;
mod carry;
mod context;
mod control_plane;
mod desired;
mod dns;
mod egress;
mod endpoints;
mod folders;
mod forwards;
mod grpc_health;
mod hands;
pub(crate) mod logs;
mod manifests;
mod names;
mod plan;
mod pod;
mod probe;
mod process;
mod publish;
mod rules;
mod start;
pub(crate) mod state;
mod store;

pub(crate) use control_plane::COMMAND as CONTROL_PLANE;
pub(crate) use start::run;

use std::time::Duration;

/// Of programs when the whole mesh ends: together with what follows it stays below 3 s.
pub(crate) const HURRY: Duration = Duration::from_millis(1500);
