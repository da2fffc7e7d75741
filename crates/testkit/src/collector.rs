//! A collector of traces that keeps what it is sent.

use anyhow::{Context, Result};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::{Status, service::Routes, transport::server::TcpIncoming};
use weft_model::trace::Span;
use weft_wire::otlp::{self, Export};

/// How long [`Collector::saw`] waits: longer than spans wait to be sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// The fake, in plaintext on loopback. Dropping it ends it.
pub struct Collector {
    addr: SocketAddr,
    exports: watch::Receiver<Vec<Export>>,
    task: JoinHandle<()>,
}

struct Service(watch::Sender<Vec<Export>>);

impl otlp::Collector for Service {
    async fn export(&self, export: Export) -> Result<(), Status> {
        self.0.send_modify(|exports| exports.push(export));
        Ok(())
    }
}

impl Collector {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (sender, exports) = watch::channel(vec![]);
        let routes = Routes::new(otlp::server(Service(sender)));
        let task = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_routes(routes);
            // Its end shows in what was not seen.
            let _ = server.serve_with_incoming(TcpIncoming::from(listener)).await;
        });
        Ok(Self { addr, exports, task })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn exports(&self) -> Vec<Export> {
        self.exports.borrow().clone()
    }

    /// Waits until as many spans have come.
    pub async fn saw(&self, spans: usize) -> Result<Vec<Span>> {
        let mut exports = self.exports.clone();
        let enough = |exports: &Vec<Export>| exports.iter().map(|export| export.spans.len()).sum::<usize>() >= spans;
        let waiting = tokio::time::timeout(PATIENCE, exports.wait_for(enough));
        let seen = waiting.await.context("the spans did not come")??;
        Ok(seen.iter().flat_map(|export| export.spans.clone()).collect())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}
