//! The words of what is asked of a mesh wherever it runs: `weft check`, `ps`, `version` and `identity`.

use super::ToCluster;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Which mesh.
#[derive(Args, Clone)]
pub(crate) struct ToMesh {
    /// The mesh of the state folder, even if a cluster is configured.
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) local: bool,
    #[command(flatten)]
    pub(crate) to: ToCluster,
}

#[derive(Args)]
pub(crate) struct Check {
    /// Whether the cluster is fit for an installation.
    #[arg(long, conflicts_with_all = ["crds", "proxy", "local"])]
    pub(crate) pre: bool,
    /// Whether the mesh's own kinds are defined.
    #[arg(long, conflicts_with_all = ["proxy", "local"])]
    pub(crate) crds: bool,
    /// Also the pods of the mesh.
    #[arg(long)]
    pub(crate) proxy: bool,
    /// Whose pods, with --proxy [default: all namespaces]
    #[arg(short, long, value_name = "NAMESPACE", requires = "proxy")]
    pub(crate) namespace: Option<String>,
    /// The version that the control plane should have [default: this command's]
    #[arg(long, value_name = "VERSION", alias = "cli-version-override")]
    pub(crate) expected_version: Option<String>,
    /// How long to wait for what may come true, such as 5m0s.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = super::durations)]
    pub(crate) wait: Duration,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: CheckOutput,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckOutput {
    #[default]
    Table,
    Json,
    /// Only what failed.
    Short,
}

#[derive(Args)]
pub(crate) struct Ps {
    /// Whose pods [default: all namespaces]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    /// With addresses, and what there is besides: process ids and fields that are ignored, or nodes and versions.
    Wide,
    Json,
}

#[derive(Args)]
pub(crate) struct Version {
    /// Only the versions themselves.
    #[arg(long)]
    pub(crate) short: bool,
    /// Asks no mesh.
    #[arg(long, conflicts_with = "proxy")]
    pub(crate) client: bool,
    /// Also of the proxies that run.
    #[arg(long)]
    pub(crate) proxy: bool,
    /// Whose proxies, with --proxy [default: all namespaces]
    #[arg(short, long, value_name = "NAMESPACE", requires = "proxy")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}

#[derive(Args)]
pub(crate) struct Identity {
    /// Whose certificates.
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pub(crate) pods: Vec<String>,
    /// Where the pods are [default: the namespace of the kubeconfig's context; of a mesh on one machine, all]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Pods by their labels, such as app=web.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "pods")]
    pub(crate) selector: Option<String>,
    #[command(flatten)]
    pub(crate) of: ToMesh,
}
