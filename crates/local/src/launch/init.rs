//! PID 1 of a program's process namespace: passes on the request to end, reaps orphans, ends with the program.
//!
//! A program that were PID 1 itself would not die of SIGTERM unless it handles it.

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};
use tokio::signal::unix::{SignalKind, signal};

/// Added to a signal's number, as shells do.
const BY_SIGNAL: i32 = 128;

pub(super) fn run(command: Command, program: &Path) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(command, program))
}

async fn supervise(mut command: Command, program: &Path) -> io::Result<ExitCode> {
    let mut ended = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Not in our session: no terminal is its controlling one.
    nix::unistd::setsid().or_else(|e| if e == Errno::EPERM { Ok(Pid::this()) } else { Err(e) })?;
    let child = command.process_group(0).spawn().map_err(|e| super::explain(&e, "starting", program))?;
    let pid = i32::try_from(child.id()).map(Pid::from_raw).map_err(io::Error::other)?;
    loop {
        tokio::select! {
            _ = ended.recv() => {
                if let Some(status) = reap(pid)? {
                    return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
                }
            }
            // It may have ended by itself just now.
            _ = terminate.recv() => match kill(pid, Signal::SIGTERM) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// Takes all that have ended; the status of the program if it is among them.
fn reap(program: Pid) -> io::Result<Option<i32>> {
    let mut status = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => status = Some(code),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => status = Some(BY_SIGNAL + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
