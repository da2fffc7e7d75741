//! `weft up`.

use super::{asked_to_end, client};
use crate::{
    args::{self, Host, Switch},
    print,
};
use anyhow::{Context, bail};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use weft_local::{Error, Options, Status};
use weft_telemetry::Format;

/// Longest a detached mesh may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set in the process that a detached mesh runs in: its words still ask to detach.
const DETACHED: &str = "WEFT_DETACHED";

pub(crate) fn run(state: Option<PathBuf>, args: args::Up) -> anyhow::Result<ExitCode> {
    if args.detach && std::env::var_os(DETACHED).is_none() {
        return detach(state, &args);
    }
    if args.detach {
        weft_local::close_inherited();
    }
    let options = Options { manifests: args.files, ..options(state, args.host) };
    // What is wrong with a later change of a manifest is said here.
    weft_telemetry::logs::init(&std::env::var("WEFT_LOG").unwrap_or_else(|_| "warn".into()), Format::Plain)?;
    let mut mesh = weft_local::up(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        report(&mesh.client().status().await?);
        tokio::select! {
            ended = mesh.ended() => ended?,
            () = asked_to_end() => mesh.stop().await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The options that `up` and `demo` share.
pub(super) fn options(state: Option<PathBuf>, host: Host) -> Options {
    Options {
        state_dir: state,
        egress: host.egress == Switch::On,
        host_services: host.host_service,
        publish: host.publish,
        proxy_log: host.proxy_log,
        ..Options::default()
    }
}

fn report(status: &Status) {
    print::manifests(&status.problems, &status.ignored);
    let workloads = status.workloads.len();
    print::error(&format!("the mesh runs with {workloads} workloads; its state is in {}", status.state_dir.display()));
    for published in &status.published {
        print::error(&format!("{}/{} is at http://{}", published.namespace, published.service, published.listen));
    }
}

/// Starts this program again, in a process group of its own, and waits until its mesh answers.
fn detach(state: Option<PathBuf>, args: &args::Up) -> anyhow::Result<ExitCode> {
    let asked = client(state)?;
    let folder = asked.state_dir().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Its log is not ours to empty.
    if runtime.block_on(asked.status()).is_ok() {
        let state_dir = folder.clone();
        return Err(Error::AlreadyRunning { pid: owner(&state_dir).unwrap_or_default(), state_dir }.into());
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let log = folder.join("up.log");
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn().context("starting the mesh")?;
    let pid = child.id().to_string();
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            bail!("the mesh ended: {status}; {} says:\n{}", log.display(), tail(&log));
        }
        // Another mesh may have been faster.
        if owner(&folder).is_some_and(|owner| owner == pid)
            && let Ok(status) = runtime.block_on(asked.status())
        {
            report(&status);
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    bail!("the mesh of {} workload files did not answer in {PATIENCE:?}; see {}", args.files.len(), log.display());
}

/// The process whose mesh has the folder.
fn owner(folder: &Path) -> Option<String> {
    Some(std::fs::read_to_string(folder.join("lock")).ok()?.trim().to_owned())
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
