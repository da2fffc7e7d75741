//! A cluster that is not ours: used only if the caller names it, says that it may be, and no mesh is installed in it.

use super::programs;
use anyhow::{Context, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The control plane's namespace, Linkerd's and ours.
const CONTROL_PLANE: &str = "linkerd";

/// Checks the cluster behind a kubeconfig and returns the file.
pub(crate) fn check(kubeconfig: &Path, kubectl: &Path) -> anyhow::Result<PathBuf> {
    let file = kubeconfig.canonicalize().with_context(|| format!("{} is not there", kubeconfig.display()))?;
    let output = Command::new(kubectl)
        .args(["get", "namespaces", "--output=name", "--request-timeout=10s"])
        .env("KUBECONFIG", &file)
        .output()
        .with_context(|| format!("starting {}", kubectl.display()))?;
    if !output.status.success() {
        bail!("the cluster of {} does not answer: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    let taken = format!("namespace/{CONTROL_PLANE}");
    if String::from_utf8_lossy(&output.stdout).lines().any(|line| line == taken) {
        bail!("the cluster of {} has a namespace {CONTROL_PLANE}: tests would change the mesh in it", file.display());
    }
    Ok(file)
}

/// kubectl, which needs no build where the machine has one.
pub(crate) fn kubectl() -> anyhow::Result<PathBuf> {
    let own = Command::new("kubectl").args(["version", "--client"]).output();
    if own.is_ok_and(|output| output.status.success()) {
        return Ok("kubectl".into());
    }
    Ok(programs::find(&programs::ensure()?, "kubectl"))
}
