//! Another process takes over without a connection being lost: the old one starts it, hands it the listening sockets, and stays
//! for as long as its own connections last.
//!
//! ```text
//! SIGUSR2 ─► old: starts the program, its standard input is one end of a socket pair
//!            old ── Listeners (sockets) ──► new: certifies, accepts, takes the admin port
//!            old ◄────── Ready ──────────── new
//!            old: takes nothing new (`drain` leaving) ◄── Scrape ── new   (gauges of both are one answer)
//! ```
//! Until the new one is ready nothing changes for the old one: whatever goes wrong, the new one is killed and the old one goes on.
//! Both hold the same sockets, so that the kernel's queue of connections has no end.

mod message;
pub(super) mod pid_file;
mod predecessor;
mod successor;

pub(super) use message::Role;
pub(super) use predecessor::Elder;
pub use predecessor::Predecessor;
pub use successor::Program;
pub(super) use successor::{Listening, Upgrader};
