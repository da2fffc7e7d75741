//! `weft up`.

use super::{asked_to_end, client};
use crate::{
    args::{self, Host, Switch},
    given, print,
};
use anyhow::{Context, bail};
use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};
use weft_local::{
    Client, Error, Options, Status,
    status::{Phase, Pod},
};
use weft_telemetry::Format;

/// Longest a detached mesh may take to start.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest a detached mesh is waited for once it answers; what is not ready then is named.
const READY: Duration = Duration::from_secs(30);
/// Set in the process that a detached mesh runs in: its words still ask to detach.
const DETACHED: &str = "WEFT_DETACHED";

pub(crate) fn run(state: Option<PathBuf>, args: args::Up) -> anyhow::Result<ExitCode> {
    if args.detach && std::env::var_os(DETACHED).is_none() {
        return detach(state, &args);
    }
    let given = if args.detach {
        weft_local::close_inherited();
        given::take_over(&args.files)?
    } else {
        given::read(&args.files)?
    };
    let options = Options { manifests: given.paths, texts: given.texts, ..options(state, args.host) };
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
    if workloads == 0 && status.problems.is_empty() {
        print::error("there is no workload in the manifests yet: what is put there is applied");
    }
    for published in &status.published {
        let problem = published.problem.as_ref().map(|p| format!(": {p}")).unwrap_or_default();
        print::error(&format!(
            "{}/{} is at http://{}{problem}",
            published.namespace, published.service, published.listen
        ));
    }
}

/// What is not settled yet: each pod is to be ready or to have failed, and the control plane to be ready.
fn unsettled(status: &Status) -> Vec<String> {
    let mut open = Vec::new();
    if !status.control_plane.ready {
        open.push("the control plane is not ready".to_owned());
    }
    for workload in &status.workloads {
        let name = format!("{}/{}", workload.namespace, workload.name);
        let pods = workload.pods.iter().filter(|p| p.phase != Phase::Terminating);
        let missing = (workload.replicas as usize).saturating_sub(pods.clone().count());
        if missing > 0 {
            open.push(format!("{missing} pods of {name} are not started"));
        }
        open.extend(pods.filter(|p| !p.ready && !has_failed(p)).map(|p| not_ready(&workload.namespace, p)));
    }
    open
}

/// So that `ps` shows why.
fn has_failed(pod: &Pod) -> bool {
    match pod.phase {
        Phase::Backoff => true,
        Phase::Pending => pod.message.is_some(),
        Phase::Running | Phase::Terminating => false,
    }
}

fn not_ready(namespace: &str, pod: &Pod) -> String {
    let why = pod.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
    format!("{namespace}/{} is not ready{why}", pod.name)
}

/// Waits until the mesh runs as far as it can, and says what does not.
fn settle(client: &Client, runtime: &tokio::runtime::Runtime) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let status = runtime.block_on(client.status())?;
        let open = unsettled(&status);
        if open.is_empty() || start.elapsed() >= READY {
            for text in &open {
                print::error(&format!("after {} s: {text}", READY.as_secs()));
            }
            for workload in &status.workloads {
                let failed = workload.pods.iter().filter(|p| !p.ready && has_failed(p));
                failed.for_each(|p| print::error(&not_ready(&workload.namespace, p)));
            }
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Starts this program again, in a process group of its own, and waits until its mesh runs.
fn detach(state: Option<PathBuf>, args: &args::Up) -> anyhow::Result<ExitCode> {
    let given = given::read(&args.files)?;
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
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0);
    let mut child = command.spawn().context("starting the mesh")?;
    if let Some(stdin) = child.stdin.take() {
        // If it has ended already, its log says why.
        let _ = given::pass_on(&given.texts, stdin);
    }
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
            settle(&asked, &runtime)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use weft_local::status::{ControlPlane, Workload};

    fn pod(phase: Phase, ready: bool, message: Option<&str>) -> Pod {
        Pod {
            name: "web-0".into(),
            service_account: "default".into(),
            ips: vec![],
            phase,
            ready,
            meshed: true,
            restarts: 0,
            proxy_restarts: 0,
            message: message.map(Into::into),
            started: jiff::Timestamp::UNIX_EPOCH,
            pid: None,
            proxy_pid: None,
        }
    }

    #[test]
    fn a_mesh_runs_when_every_pod_is_ready_or_has_failed() {
        let with = |ready: bool, pods: Vec<Pod>| Status {
            control_plane: ControlPlane { ready, ..ControlPlane::default() },
            workloads: vec![Workload { namespace: "shop".into(), name: "web".into(), replicas: 1, ready: 0, pods }],
            ..Status::default()
        };
        let none: Vec<String> = vec![];
        assert_eq!(unsettled(&with(true, vec![pod(Phase::Running, true, None)])), none);
        assert_eq!(unsettled(&with(true, vec![pod(Phase::Backoff, false, Some("exit status 1"))])), none);
        assert_eq!(unsettled(&with(true, vec![pod(Phase::Pending, false, Some("no address"))])), none);
        assert_eq!(unsettled(&with(true, vec![])), ["1 pods of shop/web are not started"]);
        assert_eq!(
            unsettled(&with(false, vec![pod(Phase::Running, false, Some("its probe failed"))])),
            ["the control plane is not ready", "shop/web-0 is not ready: its probe failed"]
        );
        // One that ends stands for none of the new.
        assert_eq!(unsettled(&with(true, vec![pod(Phase::Terminating, false, None)])).len(), 1);
    }
}
