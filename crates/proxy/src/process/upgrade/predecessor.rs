//! The new process: gets the sockets, says when it is ready, and asks the old one for its gauges.

use super::{
    message::{self, FromNew, FromOld, Handed, Role},
    pid_file,
};
use anyhow::{Context, bail};
use std::{
    io,
    net::TcpListener,
    os::{fd::AsFd, unix::net::UnixStream as StdStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{Mutex, OwnedMutexGuard},
    time::{sleep, timeout},
};
use weft_telemetry::Readiness;
use weft_transport::fdpass;

/// How long the sockets may take: the old process sends them at once.
const HAND_OVER: Duration = Duration::from_secs(10);
/// How long the old process may take to tell its gauges.
const SCRAPE: Duration = Duration::from_secs(2);
/// How long nothing is made of a socket that can be read but is not at its end: it is being scraped.
const LOOK: Duration = Duration::from_millis(100);
/// The most that is taken of its gauges.
const MAX_GAUGES: usize = 64 << 20;

/// The process that this one replaces, and what it has handed over.
pub struct Predecessor {
    socket: StdStream,
    handed: Vec<Handed>,
}

/// The old process while it still serves connections.
pub(in crate::process) struct Elder {
    socket: Arc<Mutex<Option<Arc<UnixStream>>>>,
    pid_file: Option<PathBuf>,
}

impl Predecessor {
    /// Takes over what a process hands that has started this one with a socket as standard input.
    ///
    /// # Errors
    /// Standard input is no such socket, or the other process is gone.
    pub fn from_stdin() -> anyhow::Result<Self> {
        let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        Self::receive(socket)
    }

    fn receive(socket: StdStream) -> anyhow::Result<Self> {
        socket.set_nonblocking(false).context("standard input is no socket")?;
        socket.set_read_timeout(Some(HAND_OVER))?;
        let message = fdpass::recv(&socket).context("waiting for the sockets")?;
        let message = message.context("the other process has closed its end")?;
        let FromOld::Listeners(roles) = serde_json::from_slice(&message.bytes)? else {
            bail!("the other process has sent something else than sockets");
        };
        if roles.len() != message.fds.len() {
            bail!("{} sockets were announced, {} have come", roles.len(), message.fds.len());
        }
        let sockets = message.fds.into_iter().map(TcpListener::from);
        let handed = roles.into_iter().zip(sockets).map(|(role, socket)| Handed { role, socket }).collect();
        Ok(Self { socket, handed })
    }

    /// Takes the sockets of one kind.
    pub(in crate::process) fn take(&mut self, role: Role) -> Vec<TcpListener> {
        let (taken, left) = std::mem::take(&mut self.handed).into_iter().partition(|h: &Handed| h.role == role);
        self.handed = left;
        Vec::into_iter(taken).map(|h: Handed| h.socket).collect()
    }

    /// Must be called within the runtime that scrapes.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(in crate::process) fn into_elder(self, pid_file: Option<PathBuf>) -> io::Result<Elder> {
        self.socket.set_nonblocking(true)?;
        let socket = Arc::new(UnixStream::from_std(self.socket)?);
        Ok(Elder { socket: Arc::new(Mutex::new(Some(socket))), pid_file })
    }
}

impl Elder {
    /// Says that this process is ready, once it is: then the admin port is its own.
    pub(in crate::process) async fn replaced(&self, readiness: &Readiness) {
        readiness.ready().await;
        // The old process may end as soon as it knows: by then it is known who goes on.
        if let Some(path) = &self.pid_file {
            pid_file::write(path);
        }
        let mut socket = self.socket.lock().await;
        if let Some(open) = &*socket
            && let Err(error) = message::send(open, &FromNew::Ready, &[]).await
        {
            tracing::warn!(%error, "The old process is gone");
            *socket = None;
        }
    }

    /// Resolves when the old process has ended. Cancel-safe.
    pub(in crate::process) async fn gone(&self) {
        let Some(socket) = self.socket.lock().await.clone() else { return };
        while socket.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed()) {
            sleep(LOOK).await;
        }
    }

    /// What the old process counts up and down; nothing once it is gone. Cancel-safe: whoever waits for others just leaves, and what
    /// was begun to be asked is asked to its end.
    pub(in crate::process) async fn gauges(&self) -> String {
        // Held while waiting: two scrapes at once would read each other's answers. The time is bounded below.
        let socket = Arc::clone(&self.socket).lock_owned().await;
        tokio::spawn(ask(socket)).await.unwrap_or_default()
    }
}

async fn ask(mut socket: OwnedMutexGuard<Option<Arc<UnixStream>>>) -> String {
    let Some(open) = socket.take() else { return String::new() };
    // On any failure, also a slow answer, the socket is dropped: it may hold half a message.
    match timeout(SCRAPE, scrape(&open)).await {
        Ok(Ok(Some(text))) => {
            *socket = Some(open);
            text
        }
        Ok(Ok(None)) => String::new(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "The old process tells nothing any more");
            String::new()
        }
        Err(_) => {
            tracing::warn!("The old process does not tell its gauges in time: they are left out from now on");
            String::new()
        }
    }
}

async fn scrape(socket: &UnixStream) -> io::Result<Option<String>> {
    message::send(socket, &FromNew::Scrape, &[]).await?;
    let mut all = String::new();
    loop {
        match message::receive(socket).await? {
            Some(FromOld::Gauges { text, more }) => {
                all.push_str(&text);
                if !more {
                    return Ok(Some(all));
                }
                if all.len() > MAX_GAUGES {
                    return Err(io::Error::other("its gauges are too many"));
                }
            }
            Some(FromOld::Listeners(_)) => return Err(io::ErrorKind::InvalidData.into()),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who asks may go away amid the answer.
    #[tokio::test]
    async fn gauges_are_told_after_a_scraper_has_left() {
        let (own, other) = StdStream::pair().unwrap();
        let elder = Predecessor { socket: own, handed: vec![] }.into_elder(None).unwrap();
        other.set_nonblocking(true).unwrap();
        let old = UnixStream::from_std(other).unwrap();
        let asked = async || assert_eq!(message::receive(&old).await.unwrap(), Some(FromNew::Scrape));
        let tells = async |text: &str, more| {
            let part = FromOld::Gauges { text: text.to_owned(), more };
            message::send(&old, &part, &[]).await.unwrap();
        };
        tokio::select! {
            told = elder.gauges() => panic!("{told}"),
            () = async {
                asked().await;
                tells("half", true).await;
            } => {}
        }
        let (told, ()) = tokio::join!(elder.gauges(), async {
            tells(" of it", false).await;
            asked().await;
            tells("whole", false).await;
        });
        assert_eq!(told, "whole");
        drop(old);
        assert_eq!(elder.gauges().await, "");
    }
}
