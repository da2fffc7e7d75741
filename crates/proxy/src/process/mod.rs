//! What is one per process: start-up, worker threads, admin server, identity, control streams, discovery.

pub mod discovery;
pub mod worker;
