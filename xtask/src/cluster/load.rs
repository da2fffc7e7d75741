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

/// Imports each archive; one alone may get another name, also that of a public registry that somebody's manifest asks for.
pub(crate) fn run(home: &Home, files: &[PathBuf], name: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(name.is_none() || files.len() == 1, "--as names one image: give one archive");
    for (number, file) in files.iter().enumerate() {
        let file = file.canonicalize().with_context(|| format!("{} is not there", file.display()))?;
        let plain = home.folder.join(format!("import-{}-{number}.tar", std::process::id()));
        let imported = plainly(&file, &plain, name)
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
fn plainly(archive: &Path, into: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let folder = into.with_extension("unpacked");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let done = repack(archive, &folder, into, name);
    fs::remove_dir_all(&folder)?;
    done
}

fn repack(archive: &Path, folder: &Path, into: &Path, name: Option<&str>) -> anyhow::Result<()> {
    let tar = |action: &str, file: &Path| {
        let mut tar = Command::new("tar");
        tar.arg(action).arg("--file").arg(file).arg("--directory").arg(folder);
        tar
    };
    crate::run(&mut tar("--extract", archive))?;
    if let Some(name) = name {
        rename(&folder.join("manifest.json"), name)?;
    }
    crate::run(tar("--create", into).args(["blobs", "manifest.json"]))
}

fn rename(manifest: &Path, name: &str) -> anyhow::Result<()> {
    let mut images: serde_json::Value =
        serde_json::from_slice(&fs::read(manifest)?).context("reading manifest.json")?;
    for image in images.as_array_mut().context("manifest.json is no list")? {
        image["RepoTags"] = serde_json::json!([name]);
    }
    fs::write(manifest, images.to_string()).context("writing manifest.json")
}
