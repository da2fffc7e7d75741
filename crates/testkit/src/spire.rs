//! A SPIFFE workload API on a Unix socket: it sends the identities that the test sets, and again when they change.

use crate::ca::Ca;
use anyhow::{Context, Result};
use futures_util::stream;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
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
    server: Option<JoinHandle<()>>,
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

    /// Closes the socket and every stream, as an agent that dies does.
    pub fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
        }
        // It may be gone already.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Serves on the same socket again.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let listener =
            UnixListener::bind(&self.socket).with_context(|| format!("binding {}", self.socket.display()))?;
        let routes = Routes::new(spiffe::server(self.state.clone()));
        let incoming = stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        self.server = Some(tokio::spawn(async move {
            // Its end shows at its callers.
            let _ = tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await;
        }));
        Ok(())
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
