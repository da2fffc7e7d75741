//! Process 1 of a cluster's namespaces: prepares them, starts the daemons in order, and lives as long as they do.
//!
//! ```text
//! cgroups ─► view (mounts) ─► network ─► etcd, containerd ─► kube-apiserver ─► controllers, kubelet, kube-proxy ─► add-ons ─► supervise
//!                                                              └─ forward
//! ```
//! It is started by `up` alone, and changes nothing outside of its namespaces but one control group per hierarchy.

mod addons;
pub(crate) mod cgroups;
mod daemons;
mod forward;
mod network;
mod settings;
mod supervise;
mod view;

pub(crate) use addons::IMPORT;
pub(crate) use view::OWN;

use super::{Home, programs};
use anyhow::Context;
use clap::Args;
use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use supervise::Daemons;

/// For each step of the start.
const PATIENCE: Duration = Duration::from_secs(240);
const CONTAINERD: &str = "/run/containerd/containerd.sock";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    folder: PathBuf,
    /// Where the programs of Kubernetes are.
    #[arg(long)]
    programs: PathBuf,
    #[arg(long)]
    dual_stack: bool,
    #[arg(long)]
    api_only: bool,
}

/// What the steps share.
struct Node {
    home: Home,
    programs: PathBuf,
    dual_stack: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let home = Home::at(&options.folder);
    let _alive = home.hold()?;
    let node = Node { home, programs: options.programs.clone(), dual_stack: options.dual_stack };
    cgroups::enter(&node.home).context("entering a control group of our own")?;
    view::arrange().context("arranging mounts")?;
    network::arrange(options.dual_stack).context("arranging the network")?;
    settings::write(&node).context("writing settings")?;

    let mut daemons = Daemons::default();
    daemons.start(&node, daemons::etcd())?;
    daemons.start(&node, daemons::apiserver(&node, options.api_only))?;
    forward::start()?;
    if !options.api_only {
        daemons.start(&node, daemons::containerd(&node))?;
        daemons.until("containerd", || Ok(fs::exists(CONTAINERD)?))?;
        addons::import(&node)?;
    }
    daemons
        .until("kube-apiserver", || Ok(node.kubectl().args(["get", "--raw", "/readyz"]).output()?.status.success()))?;
    if !options.api_only {
        daemons.start(&node, daemons::controller_manager(&node))?;
        daemons.start(&node, daemons::scheduler(&node))?;
        daemons.start(&node, daemons::kubelet(&node))?;
        daemons.start(&node, daemons::proxy(&node))?;
        addons::apply(&node)?;
        daemons.until("the names of the cluster", || addons::serves(&node))?;
    }
    fs::write(node.home.ready(), "")?;
    daemons.supervise()
}

impl Node {
    fn kubectl(&self) -> Command {
        let mut command = Command::new(programs::find(&self.programs, "kubectl"));
        command.env("KUBECONFIG", self.home.inner_kubeconfig("admin"));
        command
    }
}

/// Runs a command whose output only matters where it fails.
fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !output.status.success() {
        let program = command.get_program().display();
        anyhow::bail!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Looks until it holds.
fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !holds()? {
        anyhow::ensure!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{what} after {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
