//! What is one per process: start-up, worker threads, admin server, identity, control streams, discovery.

mod control;
pub mod discovery;
pub mod worker;
