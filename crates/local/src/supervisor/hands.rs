//! The supervisor's end of the node: requests out, answers and exits in.

use super::context::extents;
use crate::{
    Error,
    launch::Launch,
    node::{
        arguments,
        protocol::{Attach, Bridge, Exit, Hello, Net, Reply, Request, Say, Signal, What},
    },
};
use nix::errno::Errno;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpStream, UnixStream},
    process::{Child, Command},
    sync::{mpsc, oneshot},
};
use weft_transport::fdpass::{self, Message};

/// How long the node may take to be ready; it is some ten milliseconds.
const START: Duration = Duration::from_secs(10);
/// Requests under way at once; more wait.
const BACKLOG: usize = 256;

/// Asks the node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    requests: mpsc::Sender<Vec<u8>>,
    with_fds: mpsc::Sender<(Vec<u8>, OwnedFd)>,
    waiting: Arc<Mutex<Waiting>>,
    numbers: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Waiting {
    answers: HashMap<u64, oneshot::Sender<(Reply, Vec<OwnedFd>)>>,
    exits: HashMap<u64, oneshot::Sender<Exit>>,
}

/// A process of the node.
#[derive(Debug)]
pub(crate) struct Process {
    number: u64,
    /// As the host sees it.
    pub(crate) pid: Option<u32>,
    exit: oneshot::Receiver<Exit>,
}

/// The node's outer process. Dropping it kills everything inside.
#[derive(Debug)]
pub(crate) struct Body {
    child: Child,
}

/// Starts the node, with all users that the caller has or with the caller's own alone. To be called on a thread that lives as long as the mesh: the kernel ties the node to it.
pub(crate) async fn start(weft: &Path, path: &str, all_users: bool) -> Result<(Node, Body), Error> {
    let (socket, theirs) = UnixStream::pair().map_err(Error::io("making a socket pair"))?;
    let theirs = theirs.into_std().map_err(Error::io("making a socket pair"))?;
    theirs.set_nonblocking(false).map_err(Error::io("making a socket pair"))?;
    let child = Command::new(weft)
        .args(std::iter::once(arguments::OUTER).chain(all_users.then_some(arguments::ALL_USERS)))
        .env("PATH", path)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .kill_on_drop(true)
        // Ctrl-C on the terminal is for the supervisor, which ends programs in order.
        .process_group(0)
        .spawn()
        .map_err(Error::io(format!("starting {}", weft.display())))?;
    let body = Body { child };
    match tokio::time::timeout(START, greet(&socket)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(_) => return Err(Error::Node(format!("did not start within {} s", START.as_secs()))),
    }
    Ok((Node::over(socket), body))
}

async fn greet(socket: &UnixStream) -> Result<(), Error> {
    loop {
        let message = fdpass::recv_async(socket).await.map_err(Error::io("hearing from the node"))?;
        let message = message.ok_or_else(|| Error::Node("ended while it started".into()))?;
        match serde_json::from_slice(&message.bytes).map_err(|e| Error::Node(format!("said nonsense: {e}")))? {
            Hello::Ready => return Ok(()),
            Hello::MapIds { pid } => {
                // Each id stays what it is.
                let map = |file: &str| {
                    let own = std::fs::read_to_string(format!("/proc/self/{file}")).map_err(Error::io(file))?;
                    let same: String =
                        extents(&own).map(|(first, count)| format!("{first} {first} {count}\n")).collect();
                    let file = format!("/proc/{pid}/{file}");
                    std::fs::write(&file, same).map_err(Error::io(format!("writing {file}")))
                };
                map("uid_map")?;
                map("gid_map")?;
                fdpass::send_async(socket, b"mapped", &[]).await.map_err(Error::io("answering the node"))?;
            }
            Hello::Failed { what, errno } => return Err(refused(what, errno)),
        }
    }
}

/// Says what to enable where the kernel forbids namespaces.
fn refused(what: String, errno: i32) -> Error {
    let error = io::Error::from_raw_os_error(errno);
    let forbidden = [Errno::EPERM, Errno::ENOSPC, Errno::EUSERS, Errno::ENOSYS, Errno::EINVAL, Errno::EACCES];
    if !forbidden.iter().any(|e| *e as i32 == errno) {
        return Error::Io { what, error };
    }
    let setting = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).map(|v| v.trim().to_owned());
    let remedy = if setting("kernel/unprivileged_userns_clone").is_ok_and(|v| v == "0") {
        "as root, run `sysctl -w kernel.unprivileged_userns_clone=1`".to_owned()
    } else if setting("kernel/apparmor_restrict_unprivileged_userns").is_ok_and(|v| v == "1") {
        "as root, run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give weft an AppArmor profile with `userns,`".to_owned()
    } else if setting("user/max_user_namespaces").is_ok_and(|v| v == "0") {
        "as root, run `sysctl -w user.max_user_namespaces=10000`".to_owned()
    } else {
        "look at user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns; \
         inside a container its seccomp profile may forbid unshare"
            .to_owned()
    };
    Error::NoUserNamespaces { remedy: format!("{what}: {error}; {remedy}") }
}

impl Body {
    /// Waits until everything inside has ended.
    pub(crate) async fn ended(&mut self) {
        // What fails here has ended.
        let _ = self.child.wait().await;
    }

    pub(crate) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

impl Node {
    fn over(socket: UnixStream) -> Self {
        let (requests, mut outgoing) = mpsc::channel::<Vec<u8>>(BACKLOG);
        let (with_fds, mut outgoing_fds) = mpsc::channel::<(Vec<u8>, OwnedFd)>(BACKLOG);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let socket = Arc::new(socket);
        let writer = socket.clone();
        tokio::spawn(async move {
            loop {
                let sent = tokio::select! {
                    Some(bytes) = outgoing.recv() => fdpass::send_async(&writer, &bytes, &[]).await,
                    Some((bytes, fd)) = outgoing_fds.recv() => fdpass::send_async(&writer, &bytes, &[fd.as_fd()]).await,
                    else => return,
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, "the node takes no requests");
                    return;
                }
            }
        });
        let answers = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = fdpass::recv_async(&socket).await {
                answers.lock().take(message);
            }
            // Who waits learns of the end from its dropped sender.
            *answers.lock() = Waiting::default();
        });
        Self { requests, with_fds, waiting, numbers: Arc::default() }
    }

    /// For tests of what happens beside the node: nobody answers at the other end.
    #[cfg(test)]
    pub(crate) fn unanswered() -> io::Result<(Self, UnixStream)> {
        let (socket, other) = UnixStream::pair()?;
        Ok((Self::over(socket), other))
    }

    /// A number for a namespace or a process; none comes twice.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn bridge(&self, bridge: Bridge) -> Result<Vec<OwnedFd>, Error> {
        let wanted = bridge.listen.len() + bridge.udp.len();
        let (_, fds) = self.ask(What::Bridge(bridge), None).await?;
        if fds.len() == wanted { Ok(fds) } else { Err(Error::Node("gave too few sockets".into())) }
    }

    pub(crate) async fn attach(&self, attach: Attach) -> Result<(), Error> {
        self.ask(What::Attach(attach), None).await.map(drop)
    }

    pub(crate) async fn rules(&self, net: Net, ruleset: String) -> Result<(), Error> {
        self.ask(What::Rules { net, ruleset }, None).await.map(drop)
    }

    pub(crate) async fn detach(&self, net: u64) -> Result<(), Error> {
        self.ask(What::Detach { net }, None).await.map(drop)
    }

    /// Starts a process that writes to `output`, in namespaces of its own or in those of the process `beside`.
    pub(crate) async fn spawn(
        &self,
        net: Net,
        launch: Launch,
        beside: Option<u64>,
        output: OwnedFd,
    ) -> Result<Process, Error> {
        let number = self.number();
        let (sender, exit) = oneshot::channel();
        // Before the request, since a short process ends before its answer is read.
        self.waiting.lock().exits.insert(number, sender);
        let asked =
            self.ask(What::Spawn { process: number, net, launch: Box::new(launch), beside }, Some(output)).await;
        match asked {
            Ok((Reply::Started, fds)) => Ok(Process { number, pid: fds.first().and_then(host_pid), exit }),
            Ok(_) => Err(Error::Node("answered something else".into())),
            Err(error) => {
                self.waiting.lock().exits.remove(&number);
                Err(error)
            }
        }
    }

    pub(crate) async fn signal(&self, process: u64, signal: Signal) -> Result<(), Error> {
        self.ask(What::Signal { process, signal }, None).await.map(drop)
    }

    /// Connects from a namespace.
    pub(crate) async fn dial(&self, net: Net, addr: SocketAddr, timeout: Duration) -> Result<TcpStream, Error> {
        let fd = self.dial_fd(net, addr, timeout).await?;
        TcpStream::from_std(std::net::TcpStream::from(fd)).map_err(Error::io("using a socket of the node"))
    }

    pub(crate) async fn dial_fd(&self, net: Net, addr: SocketAddr, timeout: Duration) -> Result<OwnedFd, Error> {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
        let (_, fds) = self.ask(What::Dial { net, addr, timeout_ms }, None).await?;
        fds.into_iter().next().ok_or_else(|| Error::Node("gave no socket".into()))
    }

    /// Hides a folder from all processes, those that come as well.
    pub(crate) async fn hide(&self, folder: PathBuf) -> Result<(), Error> {
        self.ask(What::Hide { folder }, None).await.map(drop)
    }

    /// Ends everything inside at once.
    pub(crate) async fn end(&self) {
        let request = Request { number: self.number(), what: What::End };
        if let Ok(bytes) = serde_json::to_vec(&request) {
            // A node that takes no requests has ended.
            let _ = self.requests.send(bytes).await;
        }
    }

    async fn ask(&self, what: What, fd: Option<OwnedFd>) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let gone = || Error::Node("is gone".into());
        let number = self.number();
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().answers.insert(number, sender);
        let bytes =
            serde_json::to_vec(&Request { number, what }).map_err(|e| Error::Node(format!("not asked: {e}")))?;
        match fd {
            None => self.requests.send(bytes).await.map_err(|_| gone())?,
            Some(fd) => self.with_fds.send((bytes, fd)).await.map_err(|_| gone())?,
        }
        match answer.await.map_err(|_| gone())? {
            (Reply::Failed { text }, _) => Err(Error::Refused(text)),
            done => Ok(done),
        }
    }
}

impl Process {
    /// Waits for its end; `None` if the node is gone. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> Option<Exit> {
        (&mut self.exit).await.ok()
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Waiting {
    fn take(&mut self, message: Message) {
        let Message { bytes, fds } = message;
        match serde_json::from_slice(&bytes) {
            // Who asked may have gone; then nobody needs the answer.
            Ok(Say::Done { number, reply }) => drop(self.answers.remove(&number).map(|a| a.send((reply, fds)))),
            Ok(Say::Exited { process, how }) => drop(self.exits.remove(&process).map(|e| e.send(how))),
            Err(error) => tracing::warn!(%error, "the node said nonsense"),
        }
    }
}

/// Which process of the host a pidfd means: the kernel says it to those who can see the process.
fn host_pid(pidfd: &OwnedFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}
