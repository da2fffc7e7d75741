//! One file per command.

pub(crate) mod control_plane;
pub(crate) mod demo;
pub(crate) mod down;
pub(crate) mod inject;
pub(crate) mod logs;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod up;

use std::path::PathBuf;
use weft_local::Client;

/// Asks the mesh of a state folder, the usual one without.
fn client(state: Option<PathBuf>) -> Result<Client, weft_local::Error> {
    Client::new(state)
}

/// Resolves when the user or the system asks the process to end.
async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let term = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term => {}
    }
}
