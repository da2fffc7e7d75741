//! `weft`: the commands that people type. What they do stands in the crates below; here are words, tables and exit codes.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod given;
mod live;
mod print;

use args::{Args, Command};
use clap::{CommandFactory, FromArgMatches, parser::ValueSource};
use commands::meant::Folder;
use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    // The parts of the mesh change their namespaces, which must happen before there is a second thread.
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(code) = weft_local::role(&arguments) {
        return code;
    }
    let arguments = args::as_clap_reads(arguments);
    let read = Args::command().try_get_matches_from(&arguments).and_then(|matches| {
        let named = matches.value_source("state") == Some(ValueSource::CommandLine);
        Ok((Args::from_arg_matches(&matches)?, named))
    });
    let (args, named) = match read {
        Ok(read) => read,
        Err(told) => {
            if let Some(refused) = args::told_of_linkerds(&told) {
                print::error(&format!("weft: {refused}"));
                return ExitCode::FAILURE;
            }
            // Help goes to standard output, and is no failure.
            let _ = told.print();
            return if told.use_stderr() { wrong(&arguments) } else { ExitCode::SUCCESS };
        }
    };
    let failed = |error: anyhow::Error, code| {
        print::error(&format!("weft: {error:#}"));
        code
    };
    match run(args, named) {
        Ok(code) => print::cut().map_or_else(|error| failed(error, wrong(&arguments)), |()| code),
        Err(error) => failed(error, ExitCode::FAILURE),
    }
}

/// That something is wrong, in a status.
fn wrong(arguments: &[OsString]) -> ExitCode {
    if is_policy(arguments) { commands::policy::UNKNOWN.into() } else { ExitCode::FAILURE }
}

/// Whose status says "denied" where others say that something is wrong.
fn is_policy(arguments: &[OsString]) -> bool {
    let mut words = arguments.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match &*word {
            "--state" => drop(words.next()),
            word if word.starts_with("--state=") => {}
            word => return word == "policy",
        }
    }
    false
}

fn run(args: Args, named: bool) -> anyhow::Result<ExitCode> {
    let state = args.state;
    let folder = Folder { path: state.clone(), named };
    // Starts its own threads, after it has started the node.
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match args.command {
        Command::Up(up) => commands::up::run(state, up),
        Command::Demo(demo) => commands::demo::run(state, demo),
        Command::Run(run) => runtime()?.block_on(commands::run::run(state, run)),
        Command::Ps(ps) => runtime()?.block_on(commands::ps::run(&folder, ps)),
        Command::Logs(logs) => runtime()?.block_on(commands::logs::run(state, logs)),
        Command::Down => runtime()?.block_on(commands::down::run(state)),
        Command::Inject(inject) => runtime()?.block_on(commands::inject::run(&folder, *inject)),
        Command::Uninject(uninject) => runtime()?.block_on(commands::inject::undo(uninject)),
        Command::Install(install) => runtime()?.block_on(commands::install::run(&folder, *install)),
        Command::Upgrade(upgrade) => runtime()?.block_on(commands::upgrade::run(&folder, *upgrade)),
        Command::Prune(prune) => runtime()?.block_on(commands::prune::run(&folder, prune)),
        Command::Check(check) => runtime()?.block_on(commands::check::run(&folder, check)),
        Command::Version(version) => runtime()?.block_on(commands::version::run(&folder, version)),
        Command::Uninstall(uninstall) => runtime()?.block_on(commands::uninstall::run(&folder, uninstall)),
        Command::Profile(profile) => runtime()?.block_on(commands::profile::run(&folder, profile)),
        Command::Get(get) => runtime()?.block_on(commands::get::run(&folder, get)),
        Command::Authz(authz) => runtime()?.block_on(commands::authz::run(&folder, authz)),
        Command::Diagnostics(asked) => runtime()?.block_on(commands::diagnostics::run(&folder, *asked)),
        Command::Policy(policy) => Ok(runtime()?.block_on(commands::policy::run(&folder, *policy))),
        Command::Identity(identity) => runtime()?.block_on(commands::identity::run(&folder, identity)),
        Command::Completion(completion) => commands::completion::run(&completion),
        Command::ControlPlane(process) => runtime()?.block_on(commands::control_plane::run(*process)),
    }
}
