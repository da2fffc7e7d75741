//! Network namespaces, and the process's own user, mount and PID namespaces.
//!
//! A [`Namespace`] is a handle; [`Namespace::run`] does something inside it, on a thread of its own, since a namespace
//! belongs to a thread and a worker must never change its own. [`Netlink`] makes links, addresses and routes. The
//! sockets that are made inside stay inside wherever they are carried afterwards.
//! It must not know what a workload is.

mod netlink;
mod own;

pub use netlink::{LinkIndex, Netlink};
pub use own::{IdMap, Kinds, enter, unshare};

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// A network namespace; it lives while a handle, a process or a socket is in it.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// A new one, empty but for a loopback interface that is down.
    ///
    /// # Errors
    /// `CAP_SYS_ADMIN` is missing in the thread's user namespace.
    pub fn create() -> io::Result<Self> {
        on_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })?
    }

    /// The one that the calling thread is in.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self(File::open(path)?.into()))
    }

    /// Runs `f` inside, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// The namespace cannot be entered (`CAP_SYS_ADMIN` is missing), or `f` panics.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(f())
        })?
    }

    /// A netlink socket inside.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn netlink(&self) -> io::Result<Netlink> {
        self.run(Netlink::open)?
    }

    /// Sets a kernel parameter of the namespace, as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// There is no such parameter, or it takes no such value.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        if !name.starts_with("net.") || name.contains("..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only parameters below net belong to a namespace"));
        }
        // Dots separate, so a dot within an interface's name is written as a slash and the other way round.
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect();
        self.run(|| std::fs::write(Path::new("/proc/sys").join(path), value))?
    }
}

impl From<OwnedFd> for Namespace {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs `f` on a new thread, which may change its namespaces freely, since it ends with `f`.
fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, f)?;
        thread.join().map_err(|_| io::Error::other("the function panicked inside the namespace"))
    })
}
