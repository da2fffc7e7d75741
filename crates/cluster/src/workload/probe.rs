//! Probes: how to ask a program whether it is ready.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub action: ProbeAction,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// Ready if the status is 200 to 399.
    HttpGet { port: u16, path: String, host: Option<String>, headers: Vec<(String, String)>, https: bool },
    /// Ready if it can be connected.
    Tcp { port: u16, host: Option<String> },
    /// Ready if it ends with status 0.
    Exec { command: Vec<String> },
    /// Ready if the gRPC health service says so.
    Grpc { port: u16, service: String },
}
