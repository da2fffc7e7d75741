//! Ends a cluster, and removes what its end left over: empty control groups and its folder. Namespaces and mounts end with the processes.

use super::{Home, node::cgroups};
use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// The kernel takes a moment to end a few hundred processes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(home: &Home) -> anyhow::Result<()> {
    let _turn = home.turn()?;
    if home.alive()? {
        // The lock says that the number is still the cluster's.
        let pid = Pid::from_raw(home.inner_pid()?);
        kill(pid, Signal::SIGKILL).with_context(|| format!("ending process {pid}"))?;
        let start = Instant::now();
        while home.alive()? {
            if start.elapsed() > PATIENCE {
                bail!("process {pid} of the cluster {} does not end", home.name());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    clear(home)
}

/// Removes what a cluster that is gone left over.
pub(crate) fn clear(home: &Home) -> anyhow::Result<()> {
    let start = Instant::now();
    while !cgroups::sweep(home)? {
        if start.elapsed() > PATIENCE {
            bail!("control groups of the cluster {} still hold processes", home.name());
        }
        thread::sleep(Duration::from_millis(20));
    }
    if home.folder.exists() {
        fs::remove_dir_all(&home.folder).with_context(|| format!("removing {}", home.folder.display()))?;
    }
    Ok(())
}
