//! What is shipped and measured: programs of the profile `dist`, and the proxy among them laid out by what it does under load
//! (docs/adr/0006).
//!
//! ```text
//! cargo xtask profile: the proxy, built to be watched ─► load of the benchmarks ─► bench/profile/
//! dist::proxy:         the proxy, built by what is in there
//! ```
//! The profile is in the repository, so that whoever builds gets the same program without a load to run. Functions that have
//! changed since are built as if there were none. It names functions by what this compiler and these features of dependencies
//! make of them: so the proxy is built alone, and by another compiler without a profile, which is said.

use crate::{cargo, demo, root, run as run_command, target_dir, tools};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the proxy is watched at: each protocol, bytes, and handshakes.
const WORKS: &[&str] = &["h1", "h1-over-h2", "h2", "tcp", "handshakes"];

const PROXY: &str = "weft-proxy";

fn profile() -> PathBuf {
    root().join("bench/profile/weft-proxy.profdata")
}

/// Which compiler made the profile.
fn made_by() -> PathBuf {
    root().join("bench/profile/rustc")
}

/// Builds the programs of the mesh.
pub(crate) fn all() -> anyhow::Result<()> {
    let others: Vec<_> = demo::PACKAGES.iter().filter(|package| **package != PROXY).copied().collect();
    run_command(&mut build(&others))?;
    proxy().map(|_| ())
}

/// Builds a program that has its package's name, and says where it is.
pub(crate) fn program(package: &str) -> anyhow::Result<PathBuf> {
    run_command(&mut build(&[package]))?;
    Ok(target_dir()?.join("dist").join(package))
}

/// Builds the proxy, and says where it is.
pub(crate) fn proxy() -> anyhow::Result<PathBuf> {
    let (made_by, ours) = (fs::read_to_string(made_by()).unwrap_or_default(), compiler()?);
    let mut build = build(&[PROXY]);
    if made_by == ours {
        build.env("RUSTFLAGS", format!("-Cprofile-use={}", profile().display()));
    } else {
        eprintln!(
            "xtask: bench/profile is not of this compiler, so that weft-proxy is built without it and costs some 6 % more CPU; \
             `cargo xtask profile` makes a new one"
        );
    }
    run_command(&mut build)?;
    Ok(target_dir()?.join("dist").join(PROXY))
}

fn build(packages: &[&str]) -> Command {
    let mut build = cargo();
    build.args(["build", "--profile", "dist"]).args(packages.iter().flat_map(|package| ["--package", *package]));
    build
}

/// What identifies the compiler: all that `rustc` says of itself.
fn compiler() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").current_dir(root()).output().context("starting rustc")?;
    String::from_utf8(output.stdout).context("reading what rustc says of itself")
}

/// Watches the proxy under load and writes its profile anew.
pub(crate) fn watch() -> anyhow::Result<()> {
    let found = tools::ensure(tools::BENCH)?;
    let merge = merger()?;
    let watched = target_dir()?.join("watched");
    let seen = watched.join("seen");
    let generate = format!("-Cprofile-generate={}", seen.display());
    run_command(build(&[PROXY]).arg("--target-dir").arg(&watched).env("RUSTFLAGS", generate))?;
    // Nothing of an earlier run, which was of another program, nor of the build itself: what it runs is watched, too.
    match fs::remove_dir_all(&seen) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("removing old profiles");
        }
        _ => fs::create_dir_all(&seen)?,
    }
    let program = program("weft-bench")?;
    for work in WORKS {
        let mut bench = Command::new(&program);
        bench
            .current_dir(root())
            .env("WEFT_BENCH_PROXY", watched.join("dist").join(PROXY))
            // Each run of it has process ids of its own.
            .env("LLVM_PROFILE_FILE", seen.join(format!("{work}-%p.profraw")))
            .args(["--subject", "weft", "--rounds", "1", "--dry", "--gently", "--only", work]);
        run_command(found.apply(&mut bench))?;
    }
    let raw: Vec<_> = fs::read_dir(&seen)?.flatten().map(|entry| entry.path()).collect();
    anyhow::ensure!(raw.len() == 2 * WORKS.len(), "{} profiles of two proxies at {} works", raw.len(), WORKS.len());
    fs::create_dir_all(profile().parent().unwrap_or(&root()))?;
    run_command(Command::new(merge).args(["merge", "--sparse", "--output"]).arg(profile()).args(raw))?;
    fs::write(made_by(), compiler()?).context("writing which compiler made it")
}

/// The compiler's own program that reads profiles.
fn merger() -> anyhow::Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "target-libdir"]).current_dir(root()).output()?;
    let libraries = String::from_utf8(output.stdout).context("reading where rustc keeps its libraries")?;
    let tool = Path::new(libraries.trim()).with_file_name("bin").join("llvm-profdata");
    if !tool.exists() {
        run_command(Command::new("rustup").args(["component", "add", "llvm-tools"]).current_dir(root()))
            .context("llvm-profdata is needed: rustup component add llvm-tools")?;
    }
    Ok(tool)
}
