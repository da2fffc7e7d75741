//! The program: environment → configuration → running proxy → exit status.

#![forbid(unsafe_code)]

use std::{ffi::OsStr, process::ExitCode};
use weft_proxy::{
    config::{self, Checked},
    process::{self, Options, Predecessor, Program},
};
use weft_telemetry::logs;
use weft_transport::socket;

/// Chosen by measurement: `docs/adr/0001-allocator.md`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// `EX_USAGE`: the configuration is wrong.
const USAGE: u8 = 64;

const HELP: &str = concat!(
    "weft-proxy ",
    env!("CARGO_PKG_VERSION"),
    ": the data plane of weft, in the place of linkerd2-proxy\n\n\
     It takes no arguments: its environment says what it does. docs/reference/proxy-env.md names each variable, with its default;\n\
     `weft inject` and `weft up` set them."
);

fn main() -> ExitCode {
    // Linkerd's entrypoint hands on none.
    if let Some(argument) = std::env::args_os().nth(1) {
        return answer(&argument);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let Checked { config, unknown, not_built, left_out } = match config::check(config::environment(), cpus) {
        Ok(checked) => checked,
        Err(problems) => {
            report(&problems);
            return ExitCode::from(USAGE);
        }
    };
    leave_out(&left_out);
    let logs = match logs::init(&config.process.log, config.process.log_format) {
        Ok(logs) => logs,
        Err(error) => return fail(&error),
    };
    config::warn(&unknown, &not_built);
    tracing::debug!(?config, "Configured");
    match socket::raise_open_files() {
        Ok(limit) => tracing::debug!(limit, "Raised the limit of open files"),
        Err(error) => tracing::warn!(%error, "The limit of open files cannot be raised"),
    }
    let upgrade = match Program::own() {
        Ok(program) => program,
        Err(error) => return fail(&error),
    };
    let predecessor = match config.process.upgrade.takes_over.then(Predecessor::from_stdin).transpose() {
        Ok(predecessor) => predecessor,
        Err(error) => return fail(error.as_ref()),
    };
    let options = Options { logs, signals: true, upgrade: Some(upgrade), predecessor, ..Options::default() };
    let handle = match process::start(config, options) {
        Ok(handle) => handle,
        Err(error) => return fail(&error),
    };
    match handle.wait() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own output")]
fn answer(argument: &OsStr) -> ExitCode {
    if argument == "--help" || argument == "-h" {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    eprintln!(
        "weft-proxy: unexpected argument {}: it takes none; set variables of its environment instead, see --help",
        argument.display()
    );
    ExitCode::from(USAGE)
}

/// The logs may not show it.
#[expect(clippy::print_stderr, reason = "the program's own output")]
fn leave_out(directives: &[String]) {
    for directive in directives {
        eprintln!(
            "weft-proxy: LINKERD2_PROXY_LOG: {directive:?} is left out; use levels, and targets with theirs, such as warn,linkerd=debug"
        );
    }
}

/// All problems at once, on standard error: there are no logs yet.
#[expect(clippy::print_stderr, reason = "the program's own output")]
fn report(problems: &[config::Problem]) {
    eprintln!("weft-proxy: the configuration is invalid");
    for problem in problems {
        eprintln!("  {problem}");
    }
}

#[expect(clippy::print_stderr, reason = "the program's own output")]
fn fail(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "Ending");
    eprintln!("weft-proxy: {error}");
    ExitCode::FAILURE
}
