//! The words of `weft diagnostics`.

use super::{TextOutput, ToMesh};
use clap::{Args, Subcommand, ValueEnum};
use std::time::Duration;

#[derive(Args)]
pub(crate) struct Diagnostics {
    #[command(subcommand)]
    pub(crate) command: DiagnosticsCommand,
}

#[derive(Subcommand)]
pub(crate) enum DiagnosticsCommand {
    /// The metrics of the control plane's processes and of their proxies.
    #[command(visible_alias = "cp-metrics")]
    ControllerMetrics(ControllerMetrics),
    /// The metrics of the proxies of a workload's pods.
    ProxyMetrics(ProxyMetrics),
    /// The endpoints behind names, as the control plane tells proxies of them.
    #[command(visible_alias = "ep")]
    Endpoints(Endpoints),
    /// What the control plane says of an address or a name, as JSON.
    Profile(Profile),
    /// How the control plane has a pod's port served (po/NAME; externalworkload/NAME is no pod), or traffic to a Service's port behave (svc/NAME).
    Policy(Policy),
}

#[derive(Args)]
pub(crate) struct ControllerMetrics {
    /// How long to wait for all of them, such as 30s.
    #[arg(short, long, value_name = "DURATION", default_value = "30s", value_parser = super::durations)]
    pub(crate) wait: Duration,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct ProxyMetrics {
    /// KIND/NAME with po, deploy, sts, ds, rs, rc, job, cj, svc (the pods behind it) or ns (all of it).
    pub(crate) resource: String,
    /// Where it is [default: the namespace of the kubeconfig's context, or default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Replaces names and addresses of peers by hashes.
    #[arg(long)]
    pub(crate) obfuscate: bool,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

/// Which control plane answers, and to whom.
#[derive(Args)]
pub(crate) struct Ask {
    /// The pod that is asked, of several.
    #[arg(long, value_name = "POD", conflicts_with = "local")]
    pub(crate) destination_pod: Option<String>,
    /// Who asks, as proxies say it.
    #[arg(long, value_name = "TOKEN", conflicts_with = "local")]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct Endpoints {
    /// Such as web-svc.emojivoto.svc.cluster.local:80.
    #[arg(value_name = "AUTHORITY", required = true)]
    pub(crate) authorities: Vec<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: TextOutput,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Args)]
pub(crate) struct Profile {
    /// Such as 10.20.2.4:8080.
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: String,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Args)]
pub(crate) struct Policy {
    /// po/NAME, externalworkload/NAME or svc/NAME.
    pub(crate) resource: String,
    pub(crate) port: u16,
    /// Where it is [default: the namespace of the kubeconfig's context, or default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: MessageOutput,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MessageOutput {
    #[default]
    Yaml,
    Json,
}
