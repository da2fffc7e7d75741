//! What is done in a running cluster from outside: importing images, and running a command in the node's network.

use super::{Home, node::IMPORT};
use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Imports each archive; one alone may get other names, also those of a public registry that somebody's manifest asks for, and another
/// entrypoint under each.
pub(crate) fn run(home: &Home, files: &[PathBuf], aliases: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(aliases.is_empty() || files.len() == 1, "--as names one image: give one archive");
    for (number, file) in files.iter().enumerate() {
        let file = file.canonicalize().with_context(|| format!("{} is not there", file.display()))?;
        let plain = home.folder.join(format!("import-{}-{number}.tar", std::process::id()));
        let imported = plainly(&file, &plain, aliases)
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
fn plainly(archive: &Path, into: &Path, aliases: &[String]) -> anyhow::Result<()> {
    let folder = into.with_extension("unpacked");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let done = repack(archive, &folder, into, aliases);
    fs::remove_dir_all(&folder)?;
    done
}

fn repack(archive: &Path, folder: &Path, into: &Path, aliases: &[String]) -> anyhow::Result<()> {
    let tar = |action: &str, file: &Path| {
        let mut tar = Command::new("tar");
        tar.arg(action).arg("--file").arg(file).arg("--directory").arg(folder);
        tar
    };
    crate::run(&mut tar("--extract", archive))?;
    if !aliases.is_empty() {
        rename(folder, aliases)?;
    }
    crate::run(tar("--create", into).args(["blobs", "manifest.json"]))
}

/// The image under each of these names. What it is made of stays; only what it runs may differ.
fn rename(folder: &Path, aliases: &[String]) -> anyhow::Result<()> {
    let manifest = folder.join("manifest.json");
    let mut images: Vec<Value> = read(&manifest)?;
    let [image] = images.as_mut_slice() else { anyhow::bail!("an archive of one image gets another name") };
    let mut named = vec![];
    for (number, alias) in aliases.iter().enumerate() {
        let (name, words) = alias.split_once('=').map_or((alias.as_str(), None), |(name, words)| (name, Some(words)));
        image["RepoTags"] = json!([name]);
        let mut image = image.clone();
        if let Some(words) = words {
            let mut config: Value = read(&folder.join(image["Config"].as_str().context("an image has no config")?))?;
            config["config"]["Entrypoint"] = words.split_whitespace().collect();
            let path = format!("blobs/{number}.json");
            fs::write(folder.join(&path), config.to_string()).context("writing a config")?;
            image["Config"] = json!(path);
        }
        named.push(image);
    }
    fs::write(&manifest, json!(named).to_string()).context("writing manifest.json")
}

fn read<T: DeserializeOwned>(file: &Path) -> anyhow::Result<T> {
    serde_json::from_slice(&fs::read(file)?).with_context(|| format!("reading {}", file.display()))
}
