//! This workload's certificate: got at start, renewed in time, and the anchors that it and its peers are checked against.
//!
//! ```text
//! keys (files, or made here) ─► certify (token, CSR) ─► Store ─► schedule ─► certify …
//! spire (a workload API: key and certificate) ────────► Store
//! trust  (TrustBundle.Watch) ─► Store
//! lifetimes: connections end with the certificates that they were opened with
//! ```
//! Runs on the admin thread. It must not open a port: who accepts waits for [`Certified`].

mod certify;
mod keys;
mod lifetimes;
mod report;
mod schedule;
mod spire;
mod trust;

pub(super) use certify::{Certified, Certifier, Certifying, run, uncertified};
pub(super) use keys::load_or_make;
pub(crate) use lifetimes::Lifetimes;
pub(super) use report::Reporter;
pub(super) use spire::follow_workload_api;
pub(super) use trust::follow_anchors;
