//! The cluster that other suites rest on.
//!
//! Needs root, Go, Debian's packages and the built programs of the mesh; `cargo xtask test` sees to it. What is missing fails, in one line.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod end;
mod guard;
