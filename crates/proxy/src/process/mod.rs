//! What is one per process: start-up, worker threads, admin server, identity, control streams, discovery.
//!
//! ```text
//! start ─► listen ─► keys, anchors ─► admin thread: control clients, discovery, identity, admin server
//!                └─► worker threads ── accept once certified ─► inbound | outbound
//! work: all other containers of the pod have ended ─► this one ends
//! upgrade: SIGUSR2 ─► a new process, which gets the sockets ─► this one leaves
//! wait  ◄─ a thread died | a worker does not answer | all is drained
//! ```

mod admin;
mod control;
pub mod discovery;
pub(crate) mod identity;
pub mod in_flight;
mod places;
pub mod rate_limit;
pub mod retry_budget;
mod run;
mod served;
mod shutdown;
pub mod spoken;
mod start;
mod tap;
mod traces;
mod upgrade;
mod work;
pub mod worker;
mod workers;

#[cfg(feature = "fuzzing")]
pub(crate) use control::srv_addrs;
pub use run::{Handle, ProcessError};
pub use start::{Addrs, Options, StartError, start};
pub use upgrade::{Predecessor, Program};
