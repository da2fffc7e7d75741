//! `weft run`.

use super::client;
use crate::{args, print};
use std::{path::PathBuf, process::ExitCode};
use weft_local::client::Run;

pub(crate) async fn run(state: Option<PathBuf>, args: args::Run) -> anyhow::Result<ExitCode> {
    let args::Run { name, port, replicas, namespace, env, command } = args;
    // The program sees the folder that the user is in.
    let working_dir = std::env::current_dir().ok();
    let (shown, port_shown) = (format!("{namespace}/{name}"), port);
    client(state)?.run(Run { namespace, name, replicas, port, command, env, working_dir }).await?;
    match port_shown {
        Some(port) => {
            print::error(&format!(
                "{shown} was started, see `weft ps`; programs of the mesh reach it at {}",
                address(&shown, port)
            ));
        }
        None => print::error(&format!("{shown} was started, see `weft ps`")),
    }
    Ok(ExitCode::SUCCESS)
}

fn address(workload: &str, port: u16) -> String {
    let (namespace, name) = workload.split_once('/').unwrap_or(("default", workload));
    format!("{name}.{namespace}.svc.{}:{port}", weft_model::names::CLUSTER_DOMAIN)
}
