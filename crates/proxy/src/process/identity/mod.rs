//! This workload's certificate: got at start, renewed in time, and the anchors that it and its peers are checked against.
//!
//! ```text
//! keys (files, or made here) ─► certify (token, CSR) ─► Store ─► schedule ─► certify …
//! trust  (TrustBundle.Watch) ─► Store
//! ```
//! Runs on the admin thread. It must not open a port: who accepts waits for [`Certified`].

mod certify;
mod keys;
mod schedule;
mod trust;

pub(super) use certify::{Certified, Certifier, run, uncertified};
pub(super) use keys::load_or_make;
pub(super) use trust::follow_anchors;
