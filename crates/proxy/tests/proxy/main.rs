//! The whole proxy in process, against a fake control plane; every port is 0, nothing needs privileges.
//!
//! One binary: add a file per subject and name it here. [`harness`] starts proxies and connects through them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod admin;
mod binary;
mod change;
mod descriptors;
mod discovery;
mod egress;
mod env;
mod errors;
mod harness;
mod identity;
mod inbound;
mod ingress;
mod mesh;
mod pair;
mod process;
mod rate_limit;
mod refuse;
mod revoke;
mod series;
mod server_first;
mod spire;
mod spoof;
mod tcp;
mod tls_routes;
mod upgrade;
