//! What the mesh is told: objects read from manifests, what follows from them for workloads and proxies, and the index
//! that answers the four questions of the control plane.
//!
//! ```text
//! files ─► manifest ─► Object ─┬─► workload ─► the programs and pods that should run, with inject ─► a proxy's environment
//!                              └─► Event ─► source ─┐
//! API server ─► kubernetes ─► Event ────────────────┴─► index ─► Answer per Question ─┬─► (control) gRPC streams
//!                                                                                     └─► can: what a policy would say
//! Event ─► external_workload, policy::status ─► what is to be written into the cluster
//! ```
//!
//! Everything but `kubernetes`, which talks to the API server, and `download`, is a pure function or a plain state machine: no sockets, no
//! clock, no processes. This is the only crate that names Kubernetes types.

#![forbid(unsafe_code)]

pub mod annotation;
pub mod can;
pub mod chart;
pub mod download;
pub mod external_workload;
pub mod index;
pub mod inject;
pub mod install;
pub mod kubernetes;
pub mod label;
pub mod manifest;
pub mod object;
pub mod policy;
mod ports;
mod probed;
pub mod service_profile;
pub mod source;
pub mod values;
pub mod workload;
pub mod yaml;

pub use index::Index;
/// The Kubernetes types that [`Object`] is made of, for crates that build or read objects.
pub use k8s_openapi as k8s;
pub use object::{Event, Key, Kind, Object, Refused, Token};
