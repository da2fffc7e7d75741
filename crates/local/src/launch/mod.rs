//! Turns a fresh process of the node into a program, a proxy or the control plane: what it sees, who it is, what it may.
//!
//! ```text
//! standard input ─► Launch ─► view (mounts, /proc, names) ─► rights (ids, capabilities) ─┬─► exec          control plane
//!                                                                                        └─► init ─► exec  program, proxy
//! ```
//!
//! A command beside a program (a readiness probe's) enters the program's namespaces instead of making a view.
//!
//! The process starts inside its namespaces with the node's rights and gives up what it does not need, in this order,
//! before anything of the user runs. It has one thread throughout. Each is PID 1 of a process namespace and sees no other;
//! a program gets one of ours in between, and so does a proxy, which another process of its kind may replace.

mod init;
mod rights;
mod view;

pub(crate) use view::cover;

use serde::{Deserialize, Serialize};
use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};
use weft_transport::fdpass;

/// What is to run, and in which surroundings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: PathBuf,
    pub(crate) host_name: String,
    pub(crate) who: Who,
    pub(crate) view: View,
}

/// Who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Who {
    /// The node's user, without any capability: the control plane.
    Control,
    /// May set packet marks and nothing else. `None`: there are no other users (rootless).
    Proxy { id: Option<u32> },
    /// In a user namespace of its own, in which it is `inside`. `id` is its user in the node, `None` as above.
    Program { id: Option<u32>, inside: Ids },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What a process sees of the machine's files.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct View {
    /// The state folder, which is hidden.
    pub(crate) state_dir: Option<PathBuf>,
    /// State folders of other meshes: nothing in them is shown, not even what is to be kept.
    pub(crate) others: Vec<PathBuf>,
    /// Further folders that are empty for it.
    pub(crate) hide: Vec<PathBuf>,
    /// Seen although it is in a hidden folder.
    pub(crate) keep: Vec<PathBuf>,
    /// Files with a text of their own.
    pub(crate) files: Vec<(PathBuf, String)>,
}

/// The proxy's variable with the file in which it says which of its processes accepts connections.
pub(crate) const PID_FILE: &str = "WEFT_PROXY_PID_FILE";

/// As shells have it: the command cannot be run.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) fn launch() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
        }
    }
}

fn run() -> io::Result<ExitCode> {
    let message = fdpass::recv(io::stdin().as_fd())?.ok_or_else(|| io::Error::other("the node is gone"))?;
    let launch: Launch = serde_json::from_slice(&message.bytes)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    if !message.fds.is_empty() {
        return beside(&launch, message.fds);
    }
    let program = resolve(&launch)?;
    view::make(&launch, &program)?;
    let mut command = command(&launch, &program);
    match launch.who {
        Who::Control => rights::keep_none()?,
        Who::Proxy { id } => rights::keep_marking(id)?,
        Who::Program { id, inside } => rights::nest(id, inside)?,
    }
    enter(&launch.working_dir)?;
    match launch.who {
        Who::Program { .. } => return init::run(command, &program, None),
        Who::Proxy { .. } => {
            let pid_file = launch.env.iter().find(|(name, _)| name == PID_FILE).map(|(_, path)| PathBuf::from(path));
            return init::run(command, &program, pid_file);
        }
        Who::Control => {}
    }
    Err(explain(&command.exec(), "starting", &program))
}

/// A command beside a program that runs: it sees what that sees, and may what that may.
fn beside(launch: &Launch, namespaces: Vec<OwnedFd>) -> io::Result<ExitCode> {
    let Who::Program { id, .. } = launch.who else {
        return Err(io::Error::other("only a program has commands beside it"));
    };
    rights::join(id, namespaces)?;
    let program = resolve(launch)?;
    enter(&launch.working_dir)?;
    Err(explain(&command(launch, &program).exec(), "starting", &program))
}

fn command(launch: &Launch, program: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((name, arguments)) = launch.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(launch.env.iter().map(|(k, v)| (k, v)));
    command
}

fn enter(dir: &Path) -> io::Result<()> {
    std::env::set_current_dir(dir).map_err(|e| explain(&e, "entering the working folder", dir))
}

/// The file of the program: a name is looked for in its own `PATH`, a relative path is of its working folder.
fn resolve(launch: &Launch) -> io::Result<PathBuf> {
    let name = launch.argv.first().filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no command to start"))?;
    if name.contains('/') {
        return Ok(launch.working_dir.join(name));
    }
    let path = launch.env.iter().rev().find(|(k, _)| k == "PATH").map_or("", |(_, v)| v.as_str());
    let executable = |file: &PathBuf| {
        use std::os::unix::fs::PermissionsExt;
        file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .map(|dir| launch.working_dir.join(dir).join(name))
        .find(executable)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{name} is not in the program's PATH ({path})")))
}

fn explain(error: &io::Error, what: &str, path: &Path) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => " (programs run as a user without rights: is it readable for everybody?)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{what} {}: {error}{hint}", path.display()))
}

/// Standard error is the workload's log.
#[expect(clippy::print_stderr, reason = "the log of the workload is this process's standard error")]
fn complain(text: &str) {
    eprintln!("weft: {text}");
}
