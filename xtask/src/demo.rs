//! `cargo xtask demo`: the first two minutes of a newcomer.

use crate::{cargo, target_dir, tools};
use anyhow::Context;
use std::{os::unix::process::CommandExt, process::Command};

/// The programs that make up the mesh.
pub(crate) const PACKAGES: &[&str] = &["weft-cli", "weft-proxy", "weft-init", "weft-demo"];

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    let found = tools::ensure(tools::MESH)?;
    build(&["--release"])?;
    let weft = target_dir()?.join("release/weft");
    let mut command = Command::new(&weft);
    found.apply(command.arg("demo").args(args));
    // In place of this process, so that Ctrl-C and signals reach the mesh alone.
    Err(command.exec()).with_context(|| format!("starting {}", weft.display()))
}

/// Builds the programs of the mesh.
pub(crate) fn build(flags: &[&str]) -> anyhow::Result<()> {
    let packages = PACKAGES.iter().flat_map(|p| ["--package", *p]);
    crate::run(cargo().arg("build").args(flags).args(packages))
}
