//! Starts daemons and lives as long as all of them: the end of one is told and ends the cluster.

use super::{Node, until};
use crate::cluster::programs;
use anyhow::{Context, bail};
use nix::sys::wait::{WaitStatus, wait};
use std::{
    fs::File,
    process::{Child, Command, Stdio},
};

pub(super) struct Daemon {
    program: &'static str,
    arguments: Vec<String>,
}

impl Daemon {
    pub(super) fn new(program: &'static str, arguments: &str) -> Self {
        Self { program, arguments: arguments.split_whitespace().map(str::to_owned).collect() }
    }

    pub(super) fn arg(mut self, argument: String) -> Self {
        self.arguments.push(argument);
        self
    }
}

#[derive(Default)]
pub(super) struct Daemons {
    running: Vec<(&'static str, Child)>,
}

impl Daemons {
    pub(super) fn start(&mut self, node: &Node, daemon: Daemon) -> anyhow::Result<()> {
        let log = File::create(node.home.log(daemon.program))?;
        let program = programs::find(&node.programs, daemon.program);
        let child = Command::new(&program)
            .args(&daemon.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        self.running.push((daemon.program, child));
        Ok(())
    }

    /// Looks until it holds, or until one of the daemons ends.
    pub(super) fn until(&mut self, what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        until(what, || {
            for (program, child) in &mut self.running {
                if let Some(status) = child.try_wait()? {
                    bail!("{program} ended: {status}; see its log");
                }
            }
            holds()
        })
    }

    /// Until the first daemon ends. Process 1 also inherits what others leave behind, and buries it.
    pub(super) fn supervise(self) -> anyhow::Result<()> {
        loop {
            let status = wait().context("waiting for the daemons")?;
            let ended = match status {
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => pid.as_raw(),
                _ => continue,
            };
            if let Some((program, _)) = self.running.iter().find(|(_, child)| child.id().cast_signed() == ended) {
                bail!("{program} ended: {status:?}; see its log");
            }
        }
    }
}
