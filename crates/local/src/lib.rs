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

pub mod check;
pub mod client;
mod error;
mod launch;
mod node;
mod options;
mod program;
mod protocol;
pub mod status;
mod supervisor;

pub use client::Client;
pub use error::Error;
pub use options::{HostService, Options, Programs, Publish};
pub use program::find_program;
pub use status::Status;

use std::{ffi::OsString, process::ExitCode};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A running mesh. Dropping it ends the mesh at once; [`Mesh::stop`] lets programs end first.
#[derive(Debug)]
pub struct Mesh {
    client: Client,
    stop: CancellationToken,
    ended: Option<oneshot::Receiver<Result<(), Error>>>,
}

/// Starts a mesh and returns when its first objects are in force; programs may not be ready yet.
///
/// Manifests that are refused do not end it as long as there is one that is not: they are in [`Status::problems`]. But one that says
/// who may call whom, or what may leave, does: nothing is let through because of a mistake.
///
/// # Errors
/// See [`Error`]: another mesh runs in the folder, the kernel forbids what is needed, a program is missing.
pub fn up(options: Options) -> Result<Mesh, Error> {
    let (started, start) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    // A thread of its own: the kernel ties the node's life to the thread that started it.
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => {
                let result = runtime.block_on(supervisor::run(options, started, stopping));
                // A look-up with the host's resolver may still wait.
                runtime.shutdown_background();
                result
            }
            Err(error) => Err(Error::Io { what: "starting a runtime".into(), error }),
        };
        // Nobody waits.
        let _ = end.send(result);
    };
    let thread = std::thread::Builder::new().name("supervisor".into());
    thread.spawn(run).map_err(Error::io("starting the supervisor"))?;
    let gone = || Error::Node("could not be started".into());
    let state_dir = start.blocking_recv().map_err(|_| gone())??;
    Ok(Mesh { client: Client::new(Some(state_dir))?, stop, ended: Some(ended) })
}

impl Mesh {
    /// Asks the mesh, as another process does.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until it ends by itself or because somebody asked for it by [`Client::down`]. Cancel-safe.
    ///
    /// # Errors
    /// Why it ended, if nobody asked.
    pub async fn ended(&mut self) -> Result<(), Error> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        let result = ended.await;
        self.ended = None;
        result.unwrap_or_else(|_| Err(Error::Node("was left by its supervisor".into())))
    }

    /// Ends it within 3 s: programs first, then proxies, then everything.
    ///
    /// # Errors
    /// As [`Mesh::ended`].
    pub async fn stop(mut self) -> Result<(), Error> {
        self.stop.cancel();
        self.ended().await
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Closes what the caller left open beside the standard streams, so that a mesh that outlives it holds none of its files and
/// pipes. To be called before this process opens anything itself.
pub fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // One was the listing itself, which is closed by now.
        let _ = nix::unistd::close(fd);
    }
}

/// Runs a part of the mesh if that is what this process was started for.
///
/// To be called first in `main`, before any thread is started: the parts change their namespaces. The arguments are those
/// of the process, with its name. `None` means that they are the user's.
pub fn role(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments.get(1)?.to_str()? {
        node::arguments::OUTER => {
            // Everything of the mesh descends from here: programs must not get what the caller of `weft` has open.
            close_inherited();
            Some(node::outer(arguments.get(2).is_some_and(|a| a == node::arguments::ALL_USERS)))
        }
        node::arguments::INIT => Some(node::init()),
        node::arguments::LAUNCH => Some(launch::launch()),
        // Followed by anything else it is the control plane of Kubernetes, which is no part of this mesh.
        supervisor::CONTROL_PLANE if arguments.get(2).is_some_and(|a| a == "--config") => {
            Some(control_plane(arguments))
        }
        _ => None,
    }
}

/// `weft control-plane --config JSON`: what the node keeps running.
fn control_plane(arguments: &[OsString]) -> ExitCode {
    let config = match arguments {
        [_, _, flag, config] if flag == "--config" => serde_json::from_str(&config.to_string_lossy()).ok(),
        _ => None,
    };
    let Some(config) = config else {
        tracing::error!("control-plane takes --config and its configuration");
        return ExitCode::FAILURE;
    };
    let filter = std::env::var("WEFT_LOG").unwrap_or_else(|_| "info".to_owned());
    if weft_telemetry::logs::init(&filter, weft_telemetry::Format::Plain).is_err() {
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "starting a runtime");
            return ExitCode::FAILURE;
        }
    };
    let asked_to_end = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    match runtime.block_on(weft_control::run(config, asked_to_end)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the control plane ends");
            ExitCode::FAILURE
        }
    }
}
