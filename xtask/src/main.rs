//! The chores of the project: `cargo xtask <chore>`. What a chore needs on the machine it installs itself ([`tools`]).

#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a chore reports on the terminal")]

mod bench;
mod cluster;
mod conformance;
mod demo;
mod dist;
mod foreign;
mod fuzz;
mod go;
mod image;
mod links;
mod soak;
mod test;
mod tidy;
mod tools;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Chores of the project")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Builds release binaries and runs the embedded mesh with the demo app until Ctrl-C.
    Demo {
        /// Passed to `weft demo`, for example `--for 30s --json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Checks format, lints and structure, then runs every test.
    Test(test::Options),
    /// Installs what the tests need from outside.
    Tools,
    /// Checks what the compiler does not: arrows between crates, file sizes, forgotten modules, left-overs.
    Tidy,
    /// Packs the images of the mesh, without a container engine.
    Image(image::Options),
    /// A real Kubernetes of one node on this machine.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Runs the Gateway API's official suite against the mesh in a cluster and writes conformance/.
    Conformance(conformance::Options),
    /// Measures the proxies beside HAProxy and Envoy and writes bench/RESULTS.md.
    Bench {
        /// Passed to the bench program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Watches the proxy under load and writes bench/profile, by which it is built as it is shipped.
    Profile,
    /// Fuzzes every parser and writes docs/fuzz.md.
    Fuzz {
        /// One target alone, without a report.
        target: Option<String>,
        /// For each target.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Runs properties longer, the tests that are left to it, and the suites again and again; writes docs/soak.md.
    Soak {
        /// Parts whose name holds this, without a report.
        part: Option<String>,
        /// For how long the suites are repeated.
        #[arg(long, default_value_t = 6)]
        minutes: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().chore {
        Chore::Demo { args } => demo::run(&args),
        Chore::Test(options) => test::run(&options),
        Chore::Tools => tools::ensure(tools::TEST)
            .and_then(|_| foreign::ensure(foreign::TEST))
            .map(|folder| eprintln!("WEFT_TOOLS={}", folder.display())),
        Chore::Tidy => tidy::run(),
        Chore::Image(options) => image::run(&options),
        Chore::Cluster(command) => cluster::run(command),
        Chore::Conformance(options) => conformance::run(&options),
        Chore::Bench { args } => bench::run(&args),
        Chore::Profile => dist::watch(),
        Chore::Fuzz { target, minutes } => fuzz::run(minutes, target.as_deref()),
        Chore::Soak { part, minutes } => soak::run(minutes, part.as_deref()),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// `cargo`, the one that runs this chore, in the workspace.
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The folder that cargo builds into.
fn target_dir() -> anyhow::Result<PathBuf> {
    let output = cargo().args(["metadata", "--format-version=1", "--no-deps"]).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target_directory")?.into())
}

/// What a program says on its standard output.
fn output_of(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("starting {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit that the working tree is of.
fn commit() -> anyhow::Result<String> {
    output_of("git", &["-C", &root().display().to_string(), "rev-parse", "--short=12", "HEAD"])
}

/// Runs a command to its end; its failure is ours.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed: {status}", command.get_program().display());
    }
    Ok(())
}
