//! A SPIFFE workload API on a Unix socket: it sends the identities that the test sets, and again when they change.

use crate::ca::Ca;
use anyhow::{Context, Result};
use futures_util::stream;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
};
use tonic::{Code, Request, Status, service::Routes};
use weft_model::Identity;
use weft_wire::{
    Outgoing,
    spiffe::{self, Svid},
};

/// The fake. Dropping it ends it and removes the socket.
pub struct FakeWorkloadApi {
    socket: PathBuf,
    state: State,
    server: Option<Server>,
}

/// The thread that serves; dropping it closes every connection.
struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct State {
    svids: watch::Sender<Vec<Svid>>,
    failures: Arc<Mutex<VecDeque<Code>>>,
    calls: watch::Sender<usize>,
}

impl FakeWorkloadApi {
    /// Serves on `socket`, with no identities yet.
    pub fn start(socket: &Path) -> Result<Self> {
        let state = State { svids: watch::Sender::new(vec![]), failures: Arc::default(), calls: watch::Sender::new(0) };
        let mut fake = Self { socket: socket.to_owned(), state, server: None };
        fake.restart()?;
        Ok(fake)
    }

    /// Where it listens, as the environment of a workload names it.
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// What callers get, the one after the other.
    pub fn set(&self, svids: Vec<Svid>) {
        self.state.svids.send_replace(svids);
    }

    /// The next call fails; repeated, the next ones do.
    pub fn fail_next(&self, code: Code) {
        self.state.failures.lock().unwrap_or_else(PoisonError::into_inner).push_back(code);
    }

    /// How often it was called.
    pub fn calls(&self) -> usize {
        *self.state.calls.borrow()
    }

    /// Closes the socket and every connection, as an agent that dies does.
    pub fn kill(&mut self) {
        drop(self.server.take());
        // It may be gone already.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Serves on the same socket again.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let bound = std::os::unix::net::UnixListener::bind(&self.socket);
        let listener = bound.with_context(|| format!("binding {}", self.socket.display()))?;
        listener.set_nonblocking(true)?;
        let routes = Routes::new(spiffe::server(self.state.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("fake-spire".to_owned()).spawn(move || {
            runtime.block_on(async {
                let serving = async {
                    let incoming = stream::unfold(UnixListener::from_std(listener)?, |listener| async move {
                        let accepted = listener.accept().await.map(|(stream, _)| stream);
                        Some((accepted, listener))
                    });
                    tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await?;
                    anyhow::Ok(())
                };
                tokio::select! {
                    _ = serving => {}
                    _ = stopped => {}
                }
            });
            // The runtime goes with the thread, and with it every connection.
        })?;
        self.server = Some(Server { stop: Some(stop), thread: Some(thread) });
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the fake has been printed.
            let _ = thread.join();
        }
    }
}

impl Drop for FakeWorkloadApi {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An identity of `ca` for a workload API to send.
pub fn svid(ca: &Ca, id: &Identity, lifetime: Duration) -> Result<Svid> {
    let issued = ca.issue(id, lifetime)?;
    let mut chain = vec![issued.certificate.leaf];
    chain.extend(issued.certificate.intermediates);
    Ok(Svid { id: id.clone(), chain, key: issued.key_pkcs8.into(), bundle: vec![ca.anchor_der().to_vec().into()] })
}

impl spiffe::WorkloadApi for State {
    async fn fetch(&self, _: Request<()>) -> Result<Outgoing<Vec<Svid>>, Status> {
        self.calls.send_modify(|calls| *calls += 1);
        if let Some(code) = self.failures.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
            return Err(Status::new(code, "the test wants it so"));
        }
        let mut svids = self.svids.subscribe();
        svids.mark_changed();
        Ok(Box::pin(stream::unfold(svids, |mut svids| async move {
            loop {
                svids.changed().await.ok()?;
                let now = svids.borrow_and_update().clone();
                // A workload API has no answer without an identity: the caller waits.
                if !now.is_empty() {
                    return Some((Ok(now), svids));
                }
            }
        })))
    }
}
