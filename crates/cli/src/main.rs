//! `weft`: the commands that people type. What they do stands in the crates below; here are words, tables and exit codes.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod given;
mod live;
mod print;

use args::{Args, Command};
use clap::Parser;
use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    // The parts of the mesh change their namespaces, which must happen before there is a second thread.
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = weft_local::role(&arguments) {
        return code;
    }
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            print::error(&format!("weft: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    let state = args.state;
    // Starts its own threads, after it has started the node.
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match args.command {
        Command::Up(up) => commands::up::run(state, up),
        Command::Demo(demo) => commands::demo::run(state, demo),
        Command::Run(run) => runtime()?.block_on(commands::run::run(state, run)),
        Command::Ps(ps) => runtime()?.block_on(commands::ps::run(state, ps)),
        Command::Logs(logs) => runtime()?.block_on(commands::logs::run(state, logs)),
        Command::Down => runtime()?.block_on(commands::down::run(state)),
        Command::Inject(inject) => commands::inject::run(*inject),
        Command::Uninject(uninject) => commands::inject::undo(uninject),
        Command::Install(install) => runtime()?.block_on(commands::install::run(*install)),
        Command::Upgrade(upgrade) => runtime()?.block_on(commands::upgrade::run(*upgrade)),
        Command::Prune(prune) => runtime()?.block_on(commands::prune::run(prune)),
        Command::Check(check) => runtime()?.block_on(commands::check::run(check)),
        Command::Version(version) => runtime()?.block_on(commands::version::run(version)),
        Command::Uninstall(uninstall) => runtime()?.block_on(commands::uninstall::run(uninstall)),
        Command::ControlPlane(process) => runtime()?.block_on(commands::control_plane::run(*process)),
    }
}
