//! The control plane: the four questions of the mesh and its certificates, over gRPC and mTLS.
//!
//! ```text
//! unix socket ─► events ─┐
//! API server ─► watches ─┴► hub (cluster::Index, one snapshot per question, `steps` to it) ─► destination, inbound, outbound ─┐
//!                                └─ tokens ─► identity ◄─ authority (ca) ─► trust bundle ──────────────────────┴─► serve
//! ```
//!
//! On one machine one process is all of it (`start`); on Kubernetes it is several, each behind a proxy of its own (`kubernetes`).
//! It decides nothing about traffic: answers are pure functions of `cluster::index`. State on disk is the CA's alone.

#![forbid(unsafe_code)]

mod admin;
mod authority;
pub mod ca;
pub mod certificate;
pub mod check;
mod config;
pub mod diagnostics;
mod digest;
mod error;
mod events;
mod hub;
pub mod kubernetes;
mod process;
mod seats;
mod serve;
mod services;
mod start;
mod steps;
mod webhook;

pub use config::{Config, Lifetimes, Ports};
pub use digest::{sha256, token_sha256};
pub use error::Error;
pub use start::{Addresses, Running, run, start};

#[cfg(test)]
mod tests;
