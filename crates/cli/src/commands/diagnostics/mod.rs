//! `weft diagnostics`: what the control plane tells proxies, and what its processes and the proxies say of themselves.

mod control_plane;
mod metrics;

pub(super) use control_plane::columns;

use super::meant::Folder;
use crate::args::{Diagnostics, DiagnosticsCommand};
use std::process::ExitCode;

pub(crate) async fn run(folder: &Folder, args: Diagnostics) -> anyhow::Result<ExitCode> {
    match args.command {
        DiagnosticsCommand::ControllerMetrics(args) => metrics::of_the_control_plane(folder, args).await,
        DiagnosticsCommand::ProxyMetrics(args) => metrics::of_proxies(folder, args).await,
        DiagnosticsCommand::Endpoints(args) => control_plane::endpoints(folder, args).await,
        DiagnosticsCommand::Profile(args) => control_plane::profile(folder, args).await,
        DiagnosticsCommand::Policy(args) => control_plane::policy(folder, args).await,
    }
}
