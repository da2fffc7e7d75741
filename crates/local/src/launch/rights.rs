//! What a process may: ids and capabilities, given up before anything of the user runs.

use super::Ids;
use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use rustix::{
    process::{DumpableBehavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
        set_capabilities, set_keep_capabilities, set_no_new_privs,
    },
};
use std::{io, os::fd::OwnedFd};

/// The node's user with no capability: what it may is what files grant it.
pub(super) fn keep_none() -> io::Result<()> {
    bound(CapabilitySet::empty())?;
    only(CapabilitySet::empty())?;
    Ok(set_no_new_privs(true)?)
}

/// `CAP_NET_ADMIN` alone, for `SO_MARK`; it counts in the node's namespaces only.
pub(super) fn keep_marking(id: Option<u32>) -> io::Result<()> {
    let marking = CapabilitySet::NET_ADMIN;
    bound(marking)?;
    if let Some(id) = id {
        set_keep_capabilities(true)?;
        become_user(id)?;
    }
    only(marking)?;
    configure_capability_in_ambient_set(marking, true)?;
    Ok(set_no_new_privs(true)?)
}

/// A user namespace of its own: nothing in it counts for the namespaces that the process is in.
pub(super) fn nest(id: Option<u32>, inside: Ids) -> io::Result<()> {
    if let Some(id) = id {
        become_user(id)?;
        // The change of user made its own files under /proc somebody else's.
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{} {uid} 1\n", inside.uid))?;
    std::fs::write("/proc/self/gid_map", format!("{} {gid} 1\n", inside.gid))?;
    only(CapabilitySet::empty())?;
    Ok(set_no_new_privs(true)?)
}

/// The namespaces of a program that [`nest`] has made, its user namespace last. As long as that is still the node's own, the
/// kernel refuses to enter it, and nothing is started with the node's rights.
pub(super) fn join(id: Option<u32>, mut namespaces: Vec<OwnedFd>) -> io::Result<()> {
    let user = namespaces.pop().ok_or_else(|| io::Error::other("there is no namespace to enter"))?;
    for namespace in namespaces {
        setns(namespace, CloneFlags::empty())?;
    }
    if let Some(id) = id {
        become_user(id)?;
    }
    setns(user, CloneFlags::CLONE_NEWUSER)?;
    only(CapabilitySet::empty())?;
    Ok(set_no_new_privs(true)?)
}

fn become_user(id: u32) -> io::Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(id))?;
    Ok(setuid(Uid::from_raw(id))?)
}

/// Takes from the bounding set what is not kept: no exec can bring it back.
fn bound(kept: CapabilitySet) -> io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // Newer than this kernel.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn only(capabilities: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective: capabilities, permitted: capabilities, inheritable: capabilities };
    Ok(set_capabilities(None, sets)?)
}
