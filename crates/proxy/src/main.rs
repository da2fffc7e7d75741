//! The program: environment → configuration → running proxy → exit status.

#![forbid(unsafe_code)]

use std::process::ExitCode;
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

fn main() -> ExitCode {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let Checked { config, unknown, not_built } = match config::check(config::environment(), cpus) {
        Ok(checked) => checked,
        Err(problems) => {
            report(&problems);
            return ExitCode::from(USAGE);
        }
    };
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
