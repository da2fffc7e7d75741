//! One file per command.

pub(crate) mod authz;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod control_plane;
pub(crate) mod demo;
pub(crate) mod diagnostics;
pub(crate) mod down;
pub(crate) mod get;
pub(crate) mod identity;
pub(crate) mod inject;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod meant;
pub(crate) mod policy;
pub(crate) mod profile;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod uninstall;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod version;

use crate::{
    args::{ManifestFormat, ToCluster},
    print,
};
use std::path::PathBuf;
use weft_cluster::kubernetes::{Cluster, connect_as_user};
use weft_local::Client;

/// Asks the mesh of a state folder, the usual one without.
fn client(state: Option<PathBuf>) -> Result<Client, weft_local::Error> {
    Client::new(state)
}

/// The cluster that a command asks.
async fn cluster(to: &ToCluster) -> anyhow::Result<Cluster> {
    Ok(Cluster::new(connect_as_user(to.kubeconfig.as_deref(), to.context.as_deref()).await?))
}

/// What can be applied or deleted by kubectl.
fn print_objects(objects: &[serde_json::Value], format: ManifestFormat) -> anyhow::Result<()> {
    let text: String = match format {
        ManifestFormat::Yaml => weft_cluster::install::text(objects),
        ManifestFormat::Json => objects.iter().map(|object| format!("{object}\n")).collect(),
    };
    print::text(&text)
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
