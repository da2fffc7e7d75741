//! Other people's programs through the pair of proxies: conformance cases, clients and servers of other languages.
//!
//! `cargo xtask test` installs them and names their folder in `WEFT_TOOLS`; without it the suite fails and says so.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod autobahn;
mod door;
mod grpc;
mod grpc_cases;
#[path = "../proxy/harness.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod harness;
mod http2;
#[path = "../proxy/mesh.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod mesh;
#[path = "../proxy/mixed.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod mixed;
mod mixed_pairs;
mod program;
mod websocket;
