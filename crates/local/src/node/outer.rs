//! The outer process of the node: enters the namespaces and starts PID 1 inside.
//!
//! It has one thread, since a user namespace is made by a process of one thread only.

use super::{arguments, protocol::Hello};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::{
    io,
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Command, ExitCode},
};
use weft_transport::fdpass;

pub(crate) fn outer(all_users: bool) -> ExitCode {
    let supervisor = io::stdin();
    match enter(all_users) {
        Ok(()) => {}
        Err(failed) => {
            // If the supervisor is gone there is nobody to tell.
            let _ = say(supervisor.as_fd(), &failed);
            return ExitCode::FAILURE;
        }
    }
    // Standard input is inherited: PID 1 serves the supervisor itself.
    let status = std::env::current_exe().and_then(|weft| {
        let mut child = Command::new(weft).arg(arguments::INIT).spawn()?;
        child.wait()
    });
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            tracing::debug!(signal = status.signal(), "node ended");
            ExitCode::FAILURE
        }
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or_default();
            let _ = say(supervisor.as_fd(), &Hello::Failed { what: "starting PID 1 of the node".into(), errno });
            ExitCode::FAILURE
        }
    }
}

fn enter(all_users: bool) -> Result<(), Hello> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |errno: Errno| Hello::Failed { what, errno: errno as i32 }
    };
    let io_failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Hello::Failed { what, errno: error.raw_os_error().unwrap_or_default() }
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(failed("making a user namespace"))?;
    if all_users {
        // The whole range of ids, so that programs can run as users without rights: only somebody outside may write it.
        let stdin = io::stdin();
        say(stdin.as_fd(), &Hello::MapIds { pid: std::process::id() }).map_err(io_failed("asking for ids"))?;
        fdpass::recv(stdin.as_fd()).map_err(io_failed("waiting for ids"))?;
    } else {
        let write = |file: &str, text: String| {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(io_failed("mapping the user into its namespace"))
        };
        // Without it an unprivileged caller may not map its group: it could drop a group that denies access.
        write("setgroups", "deny".into())?;
        write("uid_map", format!("0 {uid} 1\n"))?;
        write("gid_map", format!("0 {gid} 1\n"))?;
    }
    let rest = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(rest).map_err(failed("making mount, process and network namespaces"))?;
    // After the change of credentials, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Hello::Failed { what: "tying the node to its supervisor".into(), errno: e.raw_os_error() })
}

pub(super) fn say(socket: impl AsFd, hello: &Hello) -> io::Result<()> {
    fdpass::send(socket, &serde_json::to_vec(hello)?, &[])
}
