//! The embedded mesh as its users meet it: real programs, real proxies, real rules, as root and as an ordinary user.
//!
//! Needs nft, python3 and the built programs of the mesh; `cargo xtask test` sees to it. What is missing fails.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says what the mesh said"
)]

mod annotations;
mod asked;
mod capture;
mod change;
mod connections;
mod documented;
mod end;
mod failure;
mod first_day;
mod folders;
mod foretold;
mod harness;
mod hostile;
mod logs;
mod mirror;
mod network;
mod probes;
mod scrape;
mod talk;
mod traffic;
mod upgrade;
