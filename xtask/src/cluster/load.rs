//! What is done in a running cluster from outside: importing images, and running a command in the node's network.

use super::{Home, node::IMPORT};
use anyhow::Context;
use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Imports each archive.
pub(crate) fn run(home: &Home, files: &[PathBuf]) -> anyhow::Result<()> {
    for (number, file) in files.iter().enumerate() {
        let file = file.canonicalize().with_context(|| format!("{} is not there", file.display()))?;
        let plain = home.folder.join(format!("import-{}-{number}.tar", std::process::id()));
        let imported = without_layout(&file, &plain)
            .and_then(|()| crate::run(enter(home, &["--mount", "--pid"])?.args(IMPORT).arg(&plain)));
        let _ = fs::remove_file(&plain);
        imported?;
    }
    Ok(())
}

/// Runs a command in place of this process.
pub(crate) fn exec(home: &Home, command: &[OsString]) -> anyhow::Result<()> {
    Err(enter(home, &["--net"])?.args(command).exec()).context("starting nsenter")
}

fn enter(home: &Home, namespaces: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--target={}", home.inner_pid()?)).args(namespaces).arg("--");
    Ok(command)
}

/// containerd completes an image's name to what the kubelet asks for only where it knows it from the older `manifest.json`, and looks at
/// that only where there is no newer layout.
pub(crate) fn without_layout(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let folder = into.with_extension("unpacked");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let tar = || Command::new("tar");
    let done =
        crate::run(tar().arg("--extract").arg("--file").arg(archive).arg("--directory").arg(&folder)).and_then(|()| {
            let members = ["blobs", "manifest.json"];
            crate::run(tar().arg("--create").arg("--file").arg(into).arg("--directory").arg(&folder).args(members))
        });
    fs::remove_dir_all(&folder)?;
    done
}
