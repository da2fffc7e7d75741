//! PID 1 of the process namespace of a program or a proxy: passes on what it is asked, reaps orphans, ends with the main process.
//!
//! A program that were PID 1 itself would not die of SIGTERM unless it handles it. A proxy that were could not be upgraded: the
//! namespace ends with PID 1. Its main process is the one that accepts connections, which a file names (`WEFT_PROXY_PID_FILE`);
//! those that it has replaced stay as long as their connections last, and end with it.

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    io,
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

/// Added to a signal's number, as shells do.
const BY_SIGNAL: i32 = 128;
/// Of a main process that is no child of ours, and of which nothing more is known.
const ENDED: i32 = 1;
/// After a request to upgrade the file is looked at so often, for so long.
const LOOK: Duration = Duration::from_millis(200);
const LOOKING: Duration = Duration::from_secs(60);
/// Everybody in the namespace but PID 1.
const ALL: Pid = Pid::from_raw(-1);

/// The process with which everything here ends.
struct Main {
    pid: Pid,
    handle: AsyncFd<OwnedFd>,
}

/// With `pid_file` other processes may take over from the first.
pub(super) fn run(command: Command, program: &Path, pid_file: Option<PathBuf>) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(command, program, pid_file.as_deref()))
}

async fn supervise(mut command: Command, program: &Path, pid_file: Option<&Path>) -> io::Result<ExitCode> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    // Not in our session: no terminal is its controlling one.
    nix::unistd::setsid().or_else(|e| if e == Errno::EPERM { Ok(Pid::this()) } else { Err(e) })?;
    let child = command.process_group(0).spawn().map_err(|e| super::explain(&e, "starting", program))?;
    let mut main = Main::of(i32::try_from(child.id()).map_err(io::Error::other)?)?;
    let mut status = None;
    let mut look_until: Option<Instant> = None;
    loop {
        // Every arm may be dropped: a signal that was not received yet is still there, as is the end of a process.
        tokio::select! {
            _ = children.recv() => status = reap(main.pid)?.or(status),
            ended = main.handle.readable() => {
                drop(ended?);
                status = reap(main.pid)?.or(status);
                match pid_file.and_then(|file| main.successor(file)) {
                    Some(next) => (main, status) = (next, None),
                    None => return Ok(ExitCode::from(u8::try_from(status.unwrap_or(ENDED)).unwrap_or(u8::MAX))),
                }
            }
            _ = terminate.recv() => tell(if pid_file.is_some() { ALL } else { main.pid }, Signal::SIGTERM)?,
            _ = upgrade.recv() => if let Some(file) = pid_file {
                if let Some(next) = main.successor(file) {
                    (main, status) = (next, None);
                }
                tell(main.pid, Signal::SIGUSR2)?;
                look_until = Some(Instant::now() + LOOKING);
            },
            // The new process is the main one as soon as it accepts connections, though the old one lives on.
            () = tokio::time::sleep(LOOK), if look_until.is_some() => {
                if let Some(next) = pid_file.and_then(|file| main.successor(file)) {
                    (main, status, look_until) = (next, None, None);
                }
                look_until = look_until.filter(|until| Instant::now() < *until);
            }
        }
    }
}

impl Main {
    #[expect(deprecated, reason = "the other constructor is unsafe code; what is registered here owns its descriptor")]
    fn of(pid: i32) -> io::Result<Self> {
        let known = rustix::process::Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(Self { pid: Pid::from_raw(pid), handle: AsyncFd::new(pidfd_open(known, PidfdFlags::empty())?)? })
    }

    /// The process that the file names, if it is another one that lives.
    fn successor(&self, file: &Path) -> Option<Self> {
        let pid: i32 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        if pid == self.pid.as_raw() || pid <= 1 {
            return None;
        }
        Self::of(pid).ok()
    }
}

/// It may have ended by itself just now.
fn tell(pid: Pid, signal: Signal) -> io::Result<()> {
    match kill(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes all that have ended; the status of the main process if it is among them.
fn reap(main: Pid) -> io::Result<Option<i32>> {
    let mut status = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == main => status = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => status = Some(BY_SIGNAL + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
