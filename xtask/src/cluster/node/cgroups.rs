//! One control group per hierarchy for the whole cluster, as the root of a namespace: two clusters do not see each other's, and what
//! is left over of one is found by its name.

use crate::cluster::Home;
use anyhow::Context;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

/// A mounted hierarchy of control groups.
struct Hierarchy {
    /// Where it is mounted.
    at: PathBuf,
    /// `cgroup` (version 1) or `cgroup2`.
    kind: &'static str,
    /// What to mount it with again.
    options: String,
}

const MOUNTED: &str = "/sys/fs/cgroup";

/// The group's name tells clusters of the same name in two working copies apart.
fn name(home: &Home) -> String {
    let mut hasher = DefaultHasher::new();
    home.folder.hash(&mut hasher);
    format!("weft-cluster-{}-{:08x}", home.name(), hasher.finish() as u32)
}

fn hierarchies() -> anyhow::Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = vec![];
    for line in mounts.lines() {
        let (before, behind) = line.split_once(" - ").context("a mount has no type")?;
        let mut behind = behind.split(' ');
        let kind = match behind.next() {
            Some("cgroup") => "cgroup",
            Some("cgroup2") => "cgroup2",
            _ => continue,
        };
        let at = before.split(' ').nth(4).context("a mount has no folder")?;
        // What is of the mount, not of the hierarchy, is left out.
        let options = behind.nth(1).unwrap_or_default().split(',');
        let options: Vec<_> =
            options.filter(|o| !["rw", "ro", "xattr", "nsdelegate", "clone_children"].contains(o)).collect();
        let options = if options.iter().any(|o| o.starts_with("name=")) {
            format!("none,{}", options.join(","))
        } else {
            options.join(",")
        };
        found.push(Hierarchy { at: at.into(), kind, options: if kind == "cgroup2" { String::new() } else { options } });
    }
    Ok(found)
}

/// Makes this process the first of the cluster's groups, which look like the root from then on.
pub(super) fn enter(home: &Home) -> anyhow::Result<()> {
    let hierarchies = hierarchies()?;
    for hierarchy in &hierarchies {
        let group = hierarchy.at.join(name(home));
        fs::create_dir_all(&group).with_context(|| format!("creating {}", group.display()))?;
        // A group of the CPU hierarchy begins without CPUs and memory.
        for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|_| hierarchy.kind == "cgroup") {
            if let Ok(all) = fs::read(hierarchy.at.join(file)) {
                fs::write(group.join(file), all)?;
            }
        }
        fs::write(group.join("cgroup.procs"), "0").with_context(|| format!("entering {}", group.display()))?;
    }
    unshare(CloneFlags::CLONE_NEWCGROUP).context("unsharing control groups")?;
    mount_again(&hierarchies)
}

/// The mounts show the root of the namespace that they were made in, so they are made again, over a new /sys of the new network.
fn mount_again(hierarchies: &[Hierarchy]) -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mounting /sys")?;
    if let [Hierarchy { kind: "cgroup2", .. }] = hierarchies {
        mount(Some("cgroup2"), MOUNTED, Some("cgroup2"), MsFlags::empty(), none).context("mounting cgroup2")?;
        return delegate(Path::new(MOUNTED));
    }
    mount(Some("tmpfs"), MOUNTED, Some("tmpfs"), MsFlags::empty(), none).context("mounting a folder for cgroups")?;
    for Hierarchy { at, kind, options } in hierarchies {
        fs::create_dir_all(at)?;
        mount(Some("cgroup"), at, Some(*kind), MsFlags::empty(), Some(options.as_str()))
            .with_context(|| format!("mounting {} ({options})", at.display()))?;
    }
    Ok(())
}

/// Version 2 hands controllers on only from a group that holds no process itself.
fn delegate(root: &Path) -> anyhow::Result<()> {
    let own = root.join("daemons");
    fs::create_dir_all(&own)?;
    fs::write(own.join("cgroup.procs"), "0")?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let all: Vec<_> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    fs::write(root.join("cgroup.subtree_control"), all.join(" ")).context("handing on controllers")
}

/// Removes the groups of a cluster that has ended; says whether that is done, which it is not while a process still ends.
pub(crate) fn sweep(home: &Home) -> anyhow::Result<bool> {
    let mut done = true;
    for hierarchy in hierarchies()? {
        done &= remove(&hierarchy.at.join(name(home)))?;
    }
    Ok(done)
}

/// From the leaves up: a group goes when it is empty.
fn remove(group: &Path) -> anyhow::Result<bool> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(true) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() && !remove(&entry.path())? {
            return Ok(false);
        }
    }
    Ok(fs::remove_dir(group).is_ok())
}
