//! `cargo xtask cluster`: a real Kubernetes of one node on this machine, in namespaces of its own, for developers and suites.
//!
//! ```text
//! up ─► programs (Go, once) ─► home (state folder) ─► certificates ─► unshare ─► node (PID 1 of the cluster)
//!                                                                                  ├─ cgroups, view, network
//!                                                                                  ├─ daemons (etcd … kube-proxy), add-ons
//!                                                                                  └─ forward: the host's loopback ─► API server
//! ```
//! The end of one process is the end of all. It must never touch a cluster that is not its own: `$KUBECONFIG` is not read.

mod certificates;
mod down;
mod home;
mod kubeconfig;
mod load;
mod node;
mod other;
mod programs;
mod report;
mod up;

use clap::{Args, Subcommand};
use home::Home;
#[cfg(test)]
pub(crate) use programs::VERSION;
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

/// The address of the node, where the API server listens.
const NODE: &str = "10.250.0.1";
const NODE_V6: &str = "fd00:250::1";
/// The API server's port in the cluster's namespace.
const API_PORT: u16 = 6443;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Starts a cluster, or finds it running, and prints what a shell needs to use it.
    Up(Up),
    /// Ends a cluster and removes all of it.
    Down(Named),
    /// Imports images that `cargo xtask image` packed.
    Load {
        #[command(flatten)]
        named: Named,
        /// Other names for the image, with their tags; behind a name may stand what it runs: `shop/web:v1=/weft-demo web`.
        #[arg(long = "as", value_name = "NAME[=WORDS]")]
        aliases: Vec<String>,
        /// Archives of images.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Runs the cluster's kubectl against it.
    Kubectl {
        #[command(flatten)]
        named: Named,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Builds the programs of a cluster, once, and prints the folder that they are in.
    Programs,
    /// Runs a command in the network of the node.
    Exec {
        #[command(flatten)]
        named: Named,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Puts a mesh of optimised programs through its life in a cluster and writes docs/cluster-report.md.
    Report(report::Options),
    /// The cluster itself: process 1 of its namespaces.
    #[command(hide = true)]
    Node(node::Options),
}

#[derive(Args)]
pub(crate) struct Named {
    /// Which of this working copy's clusters.
    #[arg(long, default_value = "default")]
    name: String,
}

#[derive(Args)]
pub(crate) struct Up {
    #[command(flatten)]
    named: Named,
    /// With IPv6 besides IPv4.
    #[arg(long, conflicts_with = "kubeconfig")]
    dual_stack: bool,
    /// etcd and the API server alone: no node, no controllers.
    #[arg(long, conflicts_with = "kubeconfig")]
    api_only: bool,
    /// Stays in the foreground and takes the cluster along when standard input ends.
    #[arg(long)]
    attached: bool,
    /// Uses this cluster instead of starting one.
    #[arg(long, requires = "i_know_this_cluster")]
    kubeconfig: Option<PathBuf>,
    /// Says that tests may do with that cluster what they like.
    #[arg(long, requires = "kubeconfig")]
    i_know_this_cluster: bool,
}

/// Gets everything that a cluster needs, where this machine can run one; where it cannot, the suites say so. Helm is among its
/// programs, and is needed anyway.
pub(crate) fn prepare() -> anyhow::Result<()> {
    if crate::tools::is_root()? {
        crate::tools::ensure(crate::tools::CLUSTER)?;
        crate::tools::ensure(crate::tools::IMAGE)?;
    }
    programs::ensure().map(drop)
}

/// Checks a cluster that is not ours and returns its kubeconfig; chores ask before they build anything for it.
pub(crate) fn other(kubeconfig: &Path) -> anyhow::Result<PathBuf> {
    other::check(kubeconfig, &other::kubectl()?)
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::run(&options),
        Command::Down(named) => down::run(&Home::new(&named.name)?),
        Command::Load { named, aliases, files } => load::run(&Home::new(&named.name)?, &files, &aliases),
        Command::Kubectl { named, args } => programs::kubectl(&Home::new(&named.name)?, &args),
        Command::Programs => programs::tell(),
        Command::Exec { named, command } => load::exec(&Home::new(&named.name)?, &command),
        Command::Report(options) => report::run(&options),
        Command::Node(options) => node::run(&options),
    }
}
