//! Namespaces of the calling process itself.
//!
//! A user namespace can be made and entered only while the process has one thread, so these are called at the start of a
//! program, before any runtime.

use nix::sched::CloneFlags;
use std::{io, os::fd::AsFd};

/// Which namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub user: bool,
    pub mount: bool,
    /// Only children are in a new PID namespace; the first is its PID 1.
    pub pid: bool,
    pub network: bool,
    pub ipc: bool,
    pub host_name: bool,
}

/// Which ids outside are which inside a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The user inside; outside it is the caller.
    pub uid: u32,
    /// The group inside; outside it is the caller's.
    pub gid: u32,
}

/// Moves the calling process into new namespaces. A user namespace needs `map`: the caller becomes that user inside, with
/// every capability there until it executes another program as somebody other than 0.
///
/// # Errors
/// The process has more than one thread, the kernel forbids user namespaces, or `user` comes without `map`.
pub fn unshare(kinds: Kinds, map: Option<IdMap>) -> io::Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if kinds.user && map.is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a new user namespace needs a map of ids"));
    }
    nix::sched::unshare(kinds.flags())?;
    if let Some(map) = map.filter(|_| kinds.user) {
        // Without it an unprivileged caller may not map its group: it could drop a group that denies access.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{} {uid} 1\n", map.uid))?;
        std::fs::write("/proc/self/gid_map", format!("{} {gid} 1\n", map.gid))?;
    }
    Ok(())
}

/// Moves the calling process into the namespaces of another, given its pidfd. PID: as with [`unshare`], for children.
///
/// # Errors
/// The process has more than one thread (user), the other is gone, or the privilege is missing.
pub fn enter(pidfd: impl AsFd, kinds: Kinds) -> io::Result<()> {
    Ok(nix::sched::setns(pidfd, kinds.flags())?)
}

impl Kinds {
    fn flags(self) -> CloneFlags {
        let Self { user, mount, pid, network, ipc, host_name } = self;
        let mut flags = CloneFlags::empty();
        flags.set(CloneFlags::CLONE_NEWUSER, user);
        flags.set(CloneFlags::CLONE_NEWNS, mount);
        flags.set(CloneFlags::CLONE_NEWPID, pid);
        flags.set(CloneFlags::CLONE_NEWNET, network);
        flags.set(CloneFlags::CLONE_NEWIPC, ipc);
        flags.set(CloneFlags::CLONE_NEWUTS, host_name);
        flags
    }
}
