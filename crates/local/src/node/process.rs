//! The node's processes: started in a namespace, signalled by number, their end reported.

use super::{
    arguments,
    network::Network,
    protocol::{Exit, Net, Signal},
};
use crate::launch::Launch;
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::signal,
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
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

/// What a process takes over from the one that it is started beside, in the order in which it enters them. The last gives up
/// the node's rights.
const JOINED: [&str; 4] = ["mnt", "ipc", "uts", "user"];

/// The processes that run, by the supervisor's numbers.
#[derive(Debug, Default)]
pub(super) struct Processes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    running: HashMap<u64, u32>,
    /// What none of them may see, besides what each is told.
    hidden: Vec<PathBuf>,
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
        beside: Option<u64>,
        output: OwnedFd,
    ) -> io::Result<Started> {
        let joined = beside.map(|other| self.namespaces(other)).transpose()?;
        let (processes, others) = joined.map_or((None, vec![]), |(processes, others)| (Some(processes), others));
        // What to do reaches the process on its standard input, where no other process can read it.
        let (instructions, stdin) = UnixStream::pair()?;
        let runtime = tokio::runtime::Handle::current();
        let child = network.inside(net, move || {
            let _runtime = runtime.enter();
            match processes {
                Some(processes) => setns(processes, CloneFlags::CLONE_NEWPID)?,
                None => unshare(OWN)?,
            }
            Command::new("/proc/self/exe")
                .arg0("weft")
                .arg(arguments::LAUNCH)
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(stdin)))
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
        })??;
        let pid = child.id().ok_or_else(|| io::Error::other("the process ended at once"))?;
        let mut launch = launch.clone();
        {
            // At one moment: what is hidden later is hidden from this process as well.
            let mut inner = self.lock();
            inner.running.insert(number, pid);
            launch.view.others.extend(inner.hidden.iter().cloned());
        }
        let others: Vec<_> = others.iter().map(AsFd::as_fd).collect();
        fdpass::send(instructions.as_fd(), &serde_json::to_vec(&launch)?, &others)?;
        Ok(Started { number, child })
    }

    /// The process namespace of a process, and its others.
    fn namespaces(&self, number: u64) -> io::Result<(File, Vec<File>)> {
        let pid = self.lock().running.get(&number).copied();
        let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the program has ended"))?;
        let open = |name: &str| File::open(format!("/proc/{pid}/ns/{name}"));
        // It is the first process of its namespace's children, which it is in itself.
        let others = JOINED.iter().map(|name| open(name)).collect::<io::Result<_>>()?;
        Ok((open("pid")?, others))
    }

    pub(super) async fn ended(&self, mut started: Started) -> Exit {
        let status = started.child.wait().await;
        self.lock().running.remove(&started.number);
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
        let inner = self.lock();
        let Some(pid) = inner.running.get(&number).and_then(|pid| i32::try_from(*pid).ok()) else { return Ok(()) };
        let signal = match signal {
            Signal::Terminate => signal::Signal::SIGTERM,
            Signal::Kill => signal::Signal::SIGKILL,
        };
        Ok(signal::kill(Pid::from_raw(pid), signal)?)
    }

    /// Hides a folder from the processes that run and from those that come. Blocking.
    pub(super) fn hide(&self, folder: PathBuf) -> io::Result<()> {
        let running: Vec<u32> = {
            let mut inner = self.lock();
            if !inner.hidden.contains(&folder) {
                inner.hidden.push(folder.clone());
            }
            inner.running.values().copied().collect()
        };
        for pid in running {
            match File::open(format!("/proc/{pid}/ns/mnt")) {
                Ok(mounts) => cover_inside(mounts, &folder)?,
                // It has ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Covers a folder in a mount namespace, on a thread that ends there: it cannot come back.
fn cover_inside(mounts: File, folder: &Path) -> io::Result<()> {
    let cover = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        setns(mounts, CloneFlags::CLONE_NEWNS)?;
        // What a process does not see need not be hidden from it.
        if folder.is_dir() { crate::launch::cover(folder, "755") } else { Ok(()) }
    };
    std::thread::scope(|scope| scope.spawn(cover).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread that hides a folder panicked")))
}

impl Started {
    /// None if it has ended.
    pub(super) fn pidfd(&self) -> Vec<OwnedFd> {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).into_iter().collect()
    }
}
