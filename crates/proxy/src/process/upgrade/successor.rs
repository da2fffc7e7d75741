//! The old process: starts the new one on SIGUSR2, and leaves once that is ready.

use super::message::{self, FromNew, FromOld, Handed, Role};
use crate::{
    config::Upgrade,
    process::{
        shutdown::{Pulled, Trigger},
        upgrade::Elder,
    },
};
use anyhow::{Context, bail};
use std::{
    ffi::OsString,
    net::TcpListener,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    path::PathBuf,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixStream,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::timeout,
};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard};

/// How long the end of a new process is waited for that does not answer any more.
const LAST_WORD: Duration = Duration::from_millis(500);

/// What is started in an upgrade.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<OsString>,
}

impl Program {
    /// The present one, by the path under which it was started: what lies there by then is what an upgrade starts.
    ///
    /// # Errors
    /// The system does not know the path of the program.
    pub fn own() -> std::io::Result<Self> {
        let mut args = std::env::args_os();
        let name = args.next().map(PathBuf::from).filter(|name| name.components().count() > 1);
        let path = match name {
            // Kept as it is: it may lead over a link that is set anew.
            Some(name) => std::path::absolute(name)?,
            None => std::env::current_exe()?,
        };
        Ok(Self { path, args: args.collect() })
    }
}

/// The sockets that are handed over, beside those that are in use.
pub(in crate::process) struct Listening(Vec<Handed>);

impl Listening {
    pub(in crate::process) fn new() -> Self {
        Self(vec![])
    }

    /// # Errors
    /// No descriptor is left.
    pub(in crate::process) fn add(&mut self, role: Role, socket: &TcpListener) -> std::io::Result<()> {
        self.0.push(Handed { role, socket: socket.try_clone()? });
        Ok(())
    }
}

/// Everything that an upgrade needs.
pub(in crate::process) struct Upgrader {
    pub(in crate::process) config: Upgrade,
    pub(in crate::process) program: Program,
    pub(in crate::process) listening: Listening,
    pub(in crate::process) registry: Registry,
    pub(in crate::process) trigger: Trigger,
    pub(in crate::process) pulled: Pulled,
    /// Told when the admin port is another process's.
    pub(in crate::process) handed: watch::Sender<bool>,
    /// The process that this one has replaced.
    pub(in crate::process) elder: Option<Arc<Elder>>,
}

/// A new process that is ready.
struct Successor {
    child: Child,
    socket: UnixStream,
}

impl Upgrader {
    /// Waits for SIGUSR2 until the process ends, or another has taken over.
    pub(in crate::process) async fn run(self) -> std::io::Result<()> {
        let mut asked = signal(SignalKind::user_defined2())?;
        let upgrades = self.registry.counter("weft_proxy_upgrades_total", "Requests to hand over to a new process");
        let successor = loop {
            // Both arms may be dropped: neither has taken anything.
            tokio::select! {
                _ = asked.recv() => {}
                // The sockets must not outlive the end: who connects then is to be refused.
                () = self.pulled.wait() => return Ok(()),
            }
            if let Err(why) = self.permitted() {
                count(&upgrades, "refused");
                tracing::error!(why, "This proxy cannot be upgraded");
                continue;
            }
            match self.attempt(&mut asked, &upgrades).await {
                Ok(Some(successor)) => break successor,
                Ok(None) => return Ok(()),
                Err(error) => {
                    count(&upgrades, "failed");
                    tracing::error!(error = format!("{error:#}"), "The upgrade has failed: this process goes on");
                }
            }
        };
        count(&upgrades, "success");
        let Self { registry, trigger, handed, elder, listening, .. } = self;
        drop(listening);
        handed.send_replace(true);
        trigger.leave();
        tracing::info!(pid = successor.child.id(), "Handed over: open connections stay with this process");
        attend(successor, &mut asked, &upgrades, &registry, elder.as_deref()).await;
        Ok(())
    }

    fn permitted(&self) -> Result<(), &'static str> {
        if std::process::id() == 1 {
            return Err("it is process 1, with which everything in its container ends: replace the container");
        }
        if !self.config.enabled {
            return Err("WEFT_PROXY_UPGRADE_ENABLED is false: who started it would take the hand-over for a crash");
        }
        Ok(())
    }

    /// Starts the new process and waits until it is ready; `None` if this one is to end meanwhile.
    async fn attempt(&self, asked: &mut Signal, upgrades: &CounterFamily) -> anyhow::Result<Option<Successor>> {
        let path = self.config.program.as_ref().unwrap_or(&self.program.path);
        let (ours, theirs) = StdStream::pair().context("making a socket pair")?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        let mut child = Command::new(path)
            .args(&self.program.args)
            .env(message::VARIABLE, message::STDIN)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("starting {}", path.display()))?;
        tracing::info!(path = %path.display(), pid = child.id(), "Starting a new process to hand over to");
        // Dropped as a whole if the time is over: then the new process is killed, and the socket is of no use any more.
        let ready = timeout(self.config.timeout, async {
            let handing = self.hand_over(&ours);
            tokio::pin!(handing);
            loop {
                tokio::select! {
                    done = &mut handing => match done {
                        Ok(()) => return Ok(true),
                        // How it ended says more than that its socket is closed.
                        Err(error) => match timeout(LAST_WORD, child.wait()).await {
                            Ok(exit) => bail!("the new process has ended: {}", exit?),
                            Err(_) => return Err(error),
                        },
                    },
                    exit = child.wait() => bail!("the new process has ended: {}", exit?),
                    _ = asked.recv() => {
                        count(upgrades, "refused");
                        tracing::warn!("SIGUSR2 is ignored: an upgrade is under way");
                    }
                    () = self.pulled.wait() => return Ok(false),
                }
            }
        });
        let outcome = ready
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the new process is not ready after {:?}", self.config.timeout)));
        match outcome {
            Ok(true) => Ok(Some(Successor { child, socket: ours })),
            failed => {
                // It may have ended by itself.
                let _ = child.kill().await;
                failed.map(|_| None)
            }
        }
    }

    async fn hand_over(&self, socket: &UnixStream) -> anyhow::Result<()> {
        let roles = self.listening.0.iter().map(|l| l.role).collect();
        let fds: Vec<_> = self.listening.0.iter().map(|l| l.socket.as_fd()).collect();
        message::send(socket, &FromOld::Listeners(roles), &fds).await.context("handing over the sockets")?;
        match message::receive(socket).await.context("waiting for the new process")? {
            Some(FromNew::Ready) => Ok(()),
            Some(FromNew::Scrape) => bail!("the new process is not one of these"),
            None => bail!("the new process has closed its end"),
        }
    }
}

/// Tells the new process what this one still counts, for as long as either of them lives.
async fn attend(
    successor: Successor,
    asked: &mut Signal,
    upgrades: &CounterFamily,
    registry: &Registry,
    elder: Option<&Elder>,
) {
    let Successor { mut child, socket } = successor;
    // Not killed when this process ends; only its end is noted, so that it leaves no zombie.
    tokio::spawn(async move { child.wait().await });
    let serve = async {
        while let Ok(Some(FromNew::Scrape)) = message::receive(&socket).await {
            let others = match elder {
                Some(elder) => elder.gauges().await,
                None => String::new(),
            };
            let text = registry.gauges(&others);
            let parts = message::parts(&text);
            for (n, part) in parts.iter().enumerate() {
                let part = FromOld::Gauges { text: (*part).to_owned(), more: n + 1 < parts.len() };
                if message::send(&socket, &part, &[]).await.is_err() {
                    return;
                }
            }
        }
    };
    let refuse = async {
        while asked.recv().await.is_some() {
            count(upgrades, "refused");
            tracing::warn!("SIGUSR2 is ignored: this process has handed over already");
        }
    };
    tokio::join!(serve, refuse);
}

fn count(upgrades: &CounterFamily, result: &str) {
    upgrades.pinned(Shard::ADMIN, &Labels::new().with("result", result)).inc();
}
