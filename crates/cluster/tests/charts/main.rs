//! The charts, by Helm itself: they come to the same as `weft install`, and refuse the same.
//!
//! helm is built once with the programs of Kubernetes; `cargo xtask test` sees to it, and that `weft` is built.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod both;
mod refuse;
mod same;
#[path = "../kubernetes/samples.rs"]
mod samples;
