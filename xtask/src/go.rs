//! What Go builds from a module of ours that pins every version: once, into a folder of the cache that is named after all that went into it.

use crate::tools;
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// The module whose definitions suites apply.
const GATEWAY_API: &str = "sigs.k8s.io/gateway-api";
/// Which of them there are.
const CHANNELS: &[&str] = &["standard", "experimental"];

/// A folder of the cache, while nobody else builds there: that takes minutes.
pub(crate) struct Turn {
    pub(crate) folder: PathBuf,
    module: PathBuf,
    _lock: File,
}

impl Turn {
    /// Waits for the folder of what is built from a module; it has this name, and its version's changes with every file.
    pub(crate) fn wait(name: &str, version: &str, module: &Path) -> anyhow::Result<Self> {
        let all = tools::cache()?.join(name);
        fs::create_dir_all(&all).with_context(|| format!("creating {}", all.display()))?;
        let folder = all.join(key(version, module)?);
        let lock = File::create(all.join("turn"))?;
        lock.lock().with_context(|| format!("waiting for another build of {name}"))?;
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { folder, module: module.to_owned(), _lock: lock })
    }

    /// Does a part of the work, unless it has been done: its stamp is there then.
    pub(crate) fn once(&self, stamp: &str, work: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let stamp = self.folder.join(stamp);
        if !stamp.exists() {
            work(self)?;
            fs::write(&stamp, "").with_context(|| format!("writing {}", stamp.display()))?;
        }
        Ok(())
    }

    /// Go, in the module's folder, not before others.
    ///
    /// Without C what it builds is static: an image of one program is one file.
    pub(crate) fn go(&self, what: &str) -> anyhow::Result<Command> {
        let found = Command::new("go").arg("version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            let version = pinned(&self.module, "go")?;
            bail!("{what} cannot be built here: go is missing; install Go {version} or newer and try again");
        }
        let mut command = Command::new("nice");
        command.args(["-n", "10", "go"]).env("CGO_ENABLED", "0").current_dir(&self.module);
        Ok(command)
    }

    /// Where a module that ours pins lies.
    pub(crate) fn sources(&self, module: &str) -> anyhow::Result<PathBuf> {
        let download = ["mod", "download", "-json", module];
        let output = Command::new("go").args(download).current_dir(&self.module).output().context("starting go")?;
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading what go downloaded")?;
        if let Some(error) = told["Error"].as_str() {
            bail!("go cannot download {module}: {error}");
        }
        Ok(told["Dir"].as_str().context("go names no folder")?.into())
    }

    /// The definitions of the Gateway API, by channel, which suites apply: they lie in a module that is not built.
    pub(crate) fn definitions(&self, into: &str) -> anyhow::Result<()> {
        if self.folder.join(into).exists() {
            return Ok(());
        }
        let from = self.sources(GATEWAY_API)?.join("config/crd");
        let part = self.folder.join(format!("{into}.part"));
        let _ = fs::remove_dir_all(&part);
        for channel in CHANNELS {
            fs::create_dir_all(part.join(channel))?;
            for entry in fs::read_dir(from.join(channel)).with_context(|| format!("reading {}", from.display()))? {
                let file = entry?.path();
                let name = file.file_name().context("a file has no name")?;
                // Only definitions; the module's files are not for writing, and their copies would not be for removing.
                if file.extension().is_some_and(|extension| extension == "yaml") && name != "kustomization.yaml" {
                    fs::write(part.join(channel).join(name), fs::read(&file)?)?;
                }
            }
        }
        fs::rename(part, self.folder.join(into)).context("putting definitions in their place")
    }
}

/// Which version of a module ours pins; of `go` the oldest that builds it.
pub(crate) fn pinned(folder: &Path, module: &str) -> anyhow::Result<String> {
    let file = folder.join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let mut words = text.lines().map(|line| line.trim_start().trim_start_matches("require ").split_whitespace());
    let version = words.find_map(|mut line| (line.next() == Some(module)).then(|| line.next()).flatten());
    version.map(str::to_owned).with_context(|| format!("{} does not require {module}", file.display()))
}

/// Changes with everything that goes into the build.
fn key(version: &str, module: &Path) -> anyhow::Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut files = vec![];
    let mut folders = vec![module.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    for file in &files {
        file.strip_prefix(module)?.hash(&mut hasher);
        fs::read(file)?.hash(&mut hasher);
    }
    Ok(format!("{version}-{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_modules() {
        let pinned = |folder: &str, module: &str| pinned(&crate::root().join("tests").join(folder), module).ok();
        assert_eq!(pinned("kubernetes", "k8s.io/kubernetes"), Some(crate::cluster::VERSION.to_owned()));
        // The suite and the definitions that it is about.
        let suite = pinned("conformance", crate::conformance::SUITE);
        assert!(suite.is_some());
        assert_eq!(suite, pinned("conformance", GATEWAY_API));
        assert_eq!(pinned("conformance", "example.com/other"), None);
    }
}
