//! The whole proxy in process, against a fake control plane; every port is 0, nothing needs privileges.
//!
//! One binary: add a file per subject and name it here. [`harness`] starts proxies and connects through them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod access_log;
mod admin;
mod authz;
mod binary;
mod breaker;
mod certificates;
mod change;
mod control_streams;
#[path = "../hostile/cost.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod cost;
mod departure;
mod discovery;
mod distribution;
#[path = "../conformance/door.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod door;
mod egress;
mod env;
mod errors;
mod explain;
mod families;
mod faults;
mod filters;
mod harness;
mod http1;
mod http2_endpoints;
mod http2_settings;
mod identity;
mod idle;
mod inbound;
mod inbound_routes;
mod ingress;
mod matches;
#[path = "../hostile/measure.rs"]
mod measure;
mod mesh;
mod mirror;
mod mixed;
mod mixed_pairs;
mod multicluster;
mod old_messages;
mod pair;
mod parity;
mod penalty;
mod process;
mod profile_retry;
mod profiles;
mod protocols;
mod rate_limit;
mod refuse;
mod refused;
mod repeated;
mod retry;
mod revoke;
mod rewrite;
mod series;
mod server_first;
mod shared;
mod silence;
mod sockets;
mod spire;
mod tap;
mod tcp;
mod timeout;
mod tls_routes;
mod traces;
mod trailers;
mod transcript;
mod transparency;
mod upgrade;
mod wire;
