//! PID 1 of the node: serves the supervisor's requests until the supervisor is gone.

use super::{
    network::Network,
    outer::say,
    process::Processes,
    protocol::{Hello, Reply, Request, Say, What},
};
use nix::mount::{MsFlags, mount};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixStream, sync::mpsc};
use weft_transport::fdpass::{self, Message};

/// Requests that wait for an answer to be written.
const BACKLOG: usize = 256;
/// Request threads; most wait for nft or a connection.
const THREADS: usize = 16;

pub(crate) fn init() -> ExitCode {
    match prepare().and_then(|()| run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((what, error)) => {
            let errno = error.raw_os_error().unwrap_or_default();
            // The supervisor may be what is gone.
            let _ = say(io::stdin().as_fd(), &Hello::Failed { what, errno });
            ExitCode::FAILURE
        }
    }
}

type Failure = (String, io::Error);

fn failed<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> Failure {
    let what = what.to_owned();
    move |error| (what, error.into())
}

fn prepare() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tying PID 1 to the outer process"))?;
    let none = None::<&str>;
    // Mounts made here never reach the host, and the host's changes do not come in half-way.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("keeping mounts private"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(failed("mounting /proc"))
}

fn run() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .map_err(failed("starting a runtime"))?;
    let served = runtime.block_on(serve());
    // Requests in flight are of no use to anybody.
    runtime.shutdown_background();
    served
}

async fn serve() -> Result<(), Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(failed("taking the supervisor's socket"))?;
    // Children must not inherit it.
    let null = std::fs::File::open("/dev/null").map_err(failed("opening /dev/null"))?;
    let node = Arc::new(Node {
        network: Network::new().map_err(failed("opening the network namespace"))?,
        processes: Processes::default(),
    });
    say(&stdin, &Hello::Ready).map_err(failed("telling the supervisor"))?;
    rustix::stdio::dup2_stdin(null).map_err(failed("closing standard input"))?;
    let socket = std::os::unix::net::UnixStream::from(stdin);
    socket.set_nonblocking(true).map_err(failed("using the supervisor's socket"))?;
    let socket = Arc::new(UnixStream::from_std(socket).map_err(failed("using the supervisor's socket"))?);

    let (answers, mut outgoing) = mpsc::channel::<(Say, Vec<OwnedFd>)>(BACKLOG);
    let writer = socket.clone();
    tokio::spawn(async move {
        while let Some((say, fds)) = outgoing.recv().await {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let Ok(bytes) = serde_json::to_vec(&say) else { continue };
            if fdpass::send_async(&writer, &bytes, &fds).await.is_err() {
                return;
            }
        }
    });
    // The end of the supervisor is the end of the node, even where the kernel's signal did not come.
    while let Some(message) = fdpass::recv_async(&socket).await.map_err(failed("receiving a request"))? {
        let Message { bytes, fds } = message;
        let request: Request = serde_json::from_slice(&bytes).map_err(failed("reading a request"))?;
        if matches!(request.what, What::End) {
            return Ok(());
        }
        tokio::spawn(answer(node.clone(), request, fds, answers.clone()));
    }
    Ok(())
}

#[derive(Debug)]
struct Node {
    network: Network,
    processes: Processes,
}

async fn answer(node: Arc<Node>, request: Request, fds: Vec<OwnedFd>, answers: mpsc::Sender<(Say, Vec<OwnedFd>)>) {
    let Request { number, what } = request;
    let failed = |error: io::Error| (Reply::Failed { text: error.to_string() }, vec![]);
    if let What::Spawn { process, net, launch, beside } = what {
        let worker = node.clone();
        let started = blocking(move || {
            let output = fds.into_iter().next().ok_or_else(|| io::Error::other("nowhere to write to"))?;
            worker.processes.spawn(&worker.network, process, net, &launch, beside, output)
        });
        match started.await {
            Ok(started) => {
                // The supervisor is gone when this fails.
                let _ = answers.send((Say::Done { number, reply: Reply::Started }, started.pidfd())).await;
                let how = node.processes.ended(started).await;
                let _ = answers.send((Say::Exited { process, how }, vec![])).await;
            }
            Err(error) => {
                let (reply, fds) = failed(error);
                let _ = answers.send((Say::Done { number, reply }, fds)).await;
            }
        }
        return;
    }
    let sockets = blocking(move || node.act(what)).await;
    let (reply, fds) = sockets.map_or_else(failed, |sockets| (Reply::Done, sockets));
    let _ = answers.send((Say::Done { number, reply }, fds)).await;
}

impl Node {
    fn act(&self, what: What) -> io::Result<Vec<OwnedFd>> {
        match what {
            What::Bridge(bridge) => return self.network.bridge(&bridge),
            What::Attach(attach) => self.network.attach(&attach)?,
            What::Rules { net, ruleset } => self.network.rules(net, &ruleset)?,
            What::Detach { net } => self.network.detach(net)?,
            What::Hide { folder } => self.processes.hide(folder)?,
            What::Signal { process, signal } => self.processes.signal(process, signal)?,
            What::Dial { net, addr, timeout_ms } => {
                return Ok(vec![self.network.dial(net, addr, Duration::from_millis(timeout_ms))?]);
            }
            // Acted on before.
            What::Spawn { .. } | What::End => {}
        }
        Ok(vec![])
    }
}

async fn blocking<T: Send + 'static>(f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}
