//! Peers that mean harm: one file per class of attack, each with its budget of memory, processor time and answers.
//!
//! A budget of processor time counts ordinary requests of the same run, so that a slow or busy machine is no failure. What is
//! measured runs in a process of its own ([`measure::alone`]). What takes long is ignored here and run by `cargo xtask soak`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod cancels;
mod continuation;
mod corpus;
mod cost;
mod descriptors;
mod direct;
mod downgrade;
mod floods;
mod frames;
#[path = "../proxy/harness.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod harness;
mod header_bombs;
mod hellos;
mod hosts;
mod lab;
mod made_you_reset;
mod measure;
#[path = "../proxy/mesh.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod mesh;
#[path = "../proxy/mixed.rs"]
#[expect(dead_code, reason = "shared with the suites that have pairs")]
mod mixed;
mod origins;
mod plain;
#[path = "../conformance/program.rs"]
#[expect(dead_code, reason = "shared with the suite that needs all of it")]
mod program;
mod rapid_reset;
mod readings;
mod servers;
mod slow;
mod smuggling;
mod spoof;
mod unread;
mod uploads;
