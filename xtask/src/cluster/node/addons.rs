//! What a cluster has beyond Kubernetes itself: the pause image, and CoreDNS as a Deployment as elsewhere.

use super::{CONTAINERD, Node, quietly};
use crate::cluster::programs;
use anyhow::Context;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Imports an archive of images, named behind it, to where the kubelet looks.
pub(crate) const IMPORT: &[&str] = &["ctr", "--address", CONTAINERD, "--namespace", "k8s.io", "images", "import"];

const MANIFESTS: &str = include_str!("addons.yaml");

pub(super) fn import(node: &Node) -> anyhow::Result<()> {
    let [ctr, arguments @ ..] = IMPORT else { return Ok(()) };
    for archive in programs::ARCHIVES {
        quietly(Command::new(ctr).args(arguments).arg(programs::archives(&node.programs).join(archive)))
            .with_context(|| format!("importing {archive}"))?;
    }
    Ok(())
}

pub(super) fn apply(node: &Node) -> anyhow::Result<()> {
    let mut child = node
        .kubectl()
        .args(["apply", "--filename=-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .context("starting kubectl")?;
    let manifests = MANIFESTS.replace("COREDNS", programs::COREDNS);
    child.stdin.take().context("kubectl has no input")?.write_all(manifests.as_bytes())?;
    anyhow::ensure!(child.wait()?.success(), "kubectl could not apply the add-ons");
    Ok(())
}

/// Whether the node is there and names are answered on it.
pub(super) fn serves(node: &Node) -> anyhow::Result<bool> {
    let path = "jsonpath={.status.availableReplicas}";
    let output =
        node.kubectl().args(["--namespace=kube-system", "get", "deployment/coredns", "--output", path]).output()?;
    Ok(output.status.success() && output.stdout == b"1")
}
