//! The embedded mesh: the real proxies and the real control plane on one machine, without Kubernetes and without root.
//!
//! ```text
//! host's namespace     supervisor ── manifests, DNS, egress, published ports, logs, probes, API (unix socket)
//!                          │  one socket pair: requests, sockets, exits
//! node's namespaces    node (PID 1) ── links, rules, processes: hands without opinions
//!                          ├─ control plane     own network namespace
//!                          └─ each replica      own network namespace: proxy, and in a nested user namespace the program
//! ```
//!
//! The supervisor decides and the node does; the host's rules, routes and settings are never touched. What runs dies with
//! the supervisor. There is no second control plane here: it runs `weft-control`.

#![forbid(unsafe_code)]

pub mod client;
mod error;
mod options;
mod program;
pub mod status;

pub use client::Client;
pub use error::Error;
pub use options::{HostService, Options, Programs, Publish};
pub use program::find_program;
pub use status::Status;

use std::{ffi::OsString, process::ExitCode};

/// A running mesh. Dropping it ends the mesh at once; [`Mesh::stop`] lets programs end first.
#[derive(Debug)]
pub struct Mesh {
    client: Client,
}

/// Starts a mesh and returns when its first objects are in force; programs may not be ready yet.
///
/// Manifests that are refused do not end it, unless nothing at all could be read: they are in [`Status::problems`].
///
/// # Errors
/// See [`Error`]: another mesh runs in the folder, the kernel forbids what is needed, a program is missing.
pub fn up(options: Options) -> Result<Mesh, Error> {
    let _ = options;
    Err(Error::NotRunning { state_dir: "".into() })
}

impl Mesh {
    /// Asks the mesh, as another process does.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until it ends by itself or because somebody asked for it by [`Client::down`].
    ///
    /// # Errors
    /// Why it ended, if nobody asked.
    pub async fn ended(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends it within 3 s: programs first, then proxies, then everything.
    ///
    /// # Errors
    /// As [`Mesh::ended`].
    pub async fn stop(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs a part of the mesh if that is what this process was started for.
///
/// To be called first in `main`, before any thread is started: the parts change their namespaces. The arguments are those
/// of the process, with its name. `None` means that they are the user's.
pub fn role(arguments: &[OsString]) -> Option<ExitCode> {
    let _ = arguments;
    None
}
