//! The programs of others that the tests run: installed once below the cache folder, each at a pinned version, from
//! the package registries of its language. Go and Node are prerequisites.

use crate::{run, tools};
use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One tool: what it is pinned to, and how it is installed into a folder of its own.
pub(crate) struct Foreign {
    folder: &'static str,
    pins: &'static [&'static str],
    install: fn(&Path, &[&str]) -> anyhow::Result<()>,
}

/// What the test command needs.
pub(crate) const TEST: &[Foreign] = &[
    Foreign { folder: "httpwg", pins: &["httpwg-cli@0.2.5"], install: cargo },
    Foreign {
        folder: "go",
        pins: &["google.golang.org/grpc/interop/client@v1.85.0", "google.golang.org/grpc/interop/server@v1.85.0"],
        install: go,
    },
    Foreign {
        folder: "python",
        pins: &["aiohttp==3.14.5", "grpcio==1.85.3", "spiffe==0.3.2", "websockets==17.0"],
        install: python,
    },
    Foreign { folder: "node", pins: &["@grpc/grpc-js@1.14.7", "ws@8.23.0"], install: node },
];
/// What soak needs besides. It runs on Python 2.7 alone.
pub(crate) const SOAK: &[Foreign] =
    &[Foreign { folder: "autobahn", pins: &["autobahntestsuite==25.10.1"], install: python27 }];

impl Foreign {
    pub(crate) fn pins(&self) -> String {
        self.pins.join(", ")
    }
}

/// Names what is pinned, once it is installed whole.
const STAMP: &str = "pins";

/// Installs what is missing and returns the folder.
pub(crate) fn ensure(wanted: &[Foreign]) -> anyhow::Result<PathBuf> {
    let home = tools::cache()?.join("tools");
    for foreign in wanted {
        let folder = home.join(foreign.folder);
        let pins = foreign.pins.join("\n");
        if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == pins) {
            continue;
        }
        eprintln!("xtask: installing {}", foreign.pins.join(" "));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        (foreign.install)(&folder, foreign.pins)?;
        fs::write(folder.join(STAMP), pins)?;
    }
    Ok(home)
}

/// A prerequisite is only looked for.
fn need(program: &str) -> anyhow::Result<()> {
    let found = Command::new(program).arg(if program == "go" { "version" } else { "--version" }).output();
    if !found.is_ok_and(|output| output.status.success()) {
        bail!("{program} is not there: install {program}, which the tests need, and try again");
    }
    Ok(())
}

fn cargo(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    let target = folder.join("target");
    run(crate::cargo()
        .args(["install", "--quiet", "--locked", "--debug", "--root"])
        .arg(folder)
        .arg("--target-dir")
        .arg(&target)
        .args(pins))?;
    fs::remove_dir_all(&target).context("removing what it was built from")
}

fn go(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    need("go")?;
    run(Command::new("go")
        .arg("install")
        .args(pins)
        .env("GOBIN", folder.join("bin"))
        .env("GOFLAGS", "-p=2")
        .current_dir(folder))
}

fn python(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder)).context("python3 with venv is needed")?;
    run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", "--disable-pip-version-check"]).args(pins))
}

/// Python 2.7 of the PATH, or the one that pyenv has. Packages go below the folder as a user's own, so that neither changes.
fn python27(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    let mut candidates = vec![PathBuf::from("python2.7")];
    if let Ok(found) = Command::new("pyenv").args(["prefix", "2.7.18"]).output() {
        candidates.push(PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()).join("bin/python2.7"));
    }
    let works = |python: &&PathBuf| {
        Command::new(python).args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success())
    };
    let python = candidates.iter().find(works).context("Python 2.7 with pip is not there: pyenv install 2.7.18")?;
    run(Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--user", "--no-warn-script-location", "--disable-pip-version-check"])
        .args(pins)
        .env("PYTHONUSERBASE", folder))
}

fn node(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    need("node")?;
    need("npm")?;
    run(Command::new("npm").args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).args(pins))
}
