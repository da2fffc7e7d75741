//! The node's processes: started in a namespace, signalled by number, their end reported.

use super::{
    arguments,
    network::Network,
    protocol::{Exit, Net, Signal},
};
use crate::launch::Launch;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal,
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    process::Stdio,
    sync::Mutex,
};
use tokio::process::{Child, Command};
use weft_transport::fdpass;

/// What every process has for itself, besides the network of its pod.
const OWN: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS);

/// The processes that run, by the supervisor's numbers.
#[derive(Debug, Default)]
pub(super) struct Processes {
    running: Mutex<HashMap<u64, u32>>,
}

/// A process that was started, to be waited for.
#[derive(Debug)]
pub(super) struct Started {
    number: u64,
    child: Child,
}

impl Processes {
    /// Starts a process. Blocking, within the context of a runtime.
    pub(super) fn spawn(
        &self,
        network: &Network,
        number: u64,
        net: Net,
        launch: &Launch,
        output: OwnedFd,
    ) -> io::Result<Started> {
        // What to do reaches the process on its standard input, where no other process can read it.
        let (instructions, stdin) = UnixStream::pair()?;
        let runtime = tokio::runtime::Handle::current();
        let child = network.inside(net, move || {
            let _runtime = runtime.enter();
            unshare(OWN)?;
            Command::new("/proc/self/exe")
                .arg0("weft")
                .arg(arguments::LAUNCH)
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(stdin)))
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
        })??;
        fdpass::send(instructions.as_fd(), &serde_json::to_vec(launch)?, &[])?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
        self.lock().insert(number, pid);
        Ok(Started { number, child })
    }

    pub(super) async fn ended(&self, mut started: Started) -> Exit {
        let status = started.child.wait().await;
        self.lock().remove(&started.number);
        match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal.unwrap_or_default()),
            },
            Err(error) => {
                tracing::warn!(%error, "a process could not be waited for");
                Exit::Code(-1)
            }
        }
    }

    /// A process that has ended is none to signal, and no error.
    pub(super) fn signal(&self, number: u64, signal: Signal) -> io::Result<()> {
        let running = self.lock();
        let Some(pid) = running.get(&number).and_then(|pid| i32::try_from(*pid).ok()) else { return Ok(()) };
        let signal = match signal {
            Signal::Terminate => signal::Signal::SIGTERM,
            Signal::Kill => signal::Signal::SIGKILL,
        };
        Ok(signal::kill(Pid::from_raw(pid), signal)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Started {
    /// None if it has ended.
    pub(super) fn pidfd(&self) -> Vec<OwnedFd> {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).into_iter().collect()
    }
}
