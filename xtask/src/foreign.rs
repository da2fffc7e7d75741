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
struct Foreign {
    folder: &'static str,
    pins: &'static [&'static str],
    install: fn(&Path, &[&str]) -> anyhow::Result<()>,
}

const ALL: &[Foreign] = &[
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

/// Names what is pinned, once it is installed whole.
const STAMP: &str = "pins";

/// Installs what is missing and returns the folder.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let home = tools::cache()?.join("tools");
    for foreign in ALL {
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

fn node(folder: &Path, pins: &[&str]) -> anyhow::Result<()> {
    need("node")?;
    need("npm")?;
    run(Command::new("npm").args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder).args(pins))
}
