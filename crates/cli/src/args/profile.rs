//! The words of `weft profile`: Linkerd's.

use super::{ManifestFormat, ToCluster};
use clap::{ArgGroup, Args};
use std::path::PathBuf;

#[derive(Args)]
#[command(group = ArgGroup::new("from").required(true))]
pub(crate) struct Profile {
    /// The name of the Service.
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
    /// A profile to fill in, with what each field means.
    #[arg(long, group = "from")]
    pub(crate) template: bool,
    /// From a Swagger 2 file, `-` for standard input.
    #[arg(long, group = "from", value_name = "FILE|-")]
    pub(crate) open_api: Option<PathBuf>,
    /// From a file of Protocol Buffers, `-` for standard input.
    #[arg(long, group = "from", value_name = "FILE|-")]
    pub(crate) proto: Option<PathBuf>,
    /// The Service's [default: the namespace of the kubeconfig's context; with --ignore-cluster, default]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Asks no cluster for its domain, which is taken to be cluster.local.
    #[arg(long)]
    pub(crate) ignore_cluster: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ManifestFormat,
    #[command(flatten)]
    pub(crate) to: ToCluster,
}
