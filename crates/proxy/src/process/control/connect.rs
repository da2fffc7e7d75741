//! A connection to a service of the control plane, as a tonic channel that connects when it is used.

use super::Resolver;
use crate::config::{Connect, ControlAddr};
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tonic::transport::{Channel, Endpoint};
use weft_model::{Identity, endpoint::ServerTls};
use weft_transport::{
    Stream,
    socket::{self, ConnectOptions},
    tls::Store,
};

/// A peer that answers no ping for this long is gone: its streams end, and are opened again elsewhere.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// A TLS handshake that takes longer has failed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many addresses one attempt tries before it fails.
const ADDRESSES_PER_ATTEMPT: usize = 4;

/// Makes channels to services.
#[derive(Clone)]
pub(in crate::process) struct Services {
    pub(in crate::process) resolver: Resolver,
    pub(in crate::process) tls: Store,
    pub(in crate::process) connect: Connect,
}

struct Dialer {
    services: Services,
    client: &'static str,
    service: ControlAddr,
    /// Where the next attempt begins in the list of addresses.
    next: AtomicUsize,
    /// The last attempt failed: the change is logged, not each attempt.
    failing: AtomicBool,
}

impl Services {
    /// A channel to `service` that opens one connection when it is used, and another when that is lost. Must be called
    /// within the runtime that will drive it.
    pub(in crate::process) fn channel(
        &self,
        client: &'static str,
        service: &ControlAddr,
    ) -> Result<Channel, tonic::transport::Error> {
        let authority = service.addr.to_string();
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let dialer = Arc::new(Dialer {
            services: self.clone(),
            client,
            service: service.clone(),
            next: AtomicUsize::new(fastrand::usize(..1 << 16)),
            failing: AtomicBool::new(false),
        });
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let dialer = dialer.clone();
            async move { dialer.connect().await.map(TokioIo::new) }
        })))
    }
}

impl Dialer {
    async fn connect(&self) -> io::Result<Stream> {
        let result = self.try_addresses().await;
        let (client, addr) = (self.client, &self.service.addr);
        match &result {
            Ok(stream) => {
                let peer = stream.peer_addr().ok();
                if self.failing.swap(false, Relaxed) {
                    tracing::info!(client, %addr, ?peer, "The control plane is reached again");
                } else {
                    tracing::debug!(client, %addr, ?peer, "Connected to the control plane");
                }
            }
            Err(error) if !self.failing.swap(true, Relaxed) => {
                tracing::warn!(client, %addr, %error, "The control plane cannot be reached");
            }
            Err(error) => tracing::debug!(client, %addr, %error, "The control plane still cannot be reached"),
        }
        result
    }

    /// Begins at another address than the last attempt did.
    async fn try_addresses(&self) -> io::Result<Stream> {
        let addrs = self.services.resolver.resolve(self.client, &self.service.addr).await.map_err(io::Error::other)?;
        let start = self.next.fetch_add(1, Relaxed) % addrs.len().max(1);
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in addrs.iter().cycle().skip(start).take(addrs.len().min(ADDRESSES_PER_ATTEMPT)) {
            match self.dial(*addr).await {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = io::Error::new(e.kind(), format!("{addr}: {e}")),
            }
        }
        Err(failure)
    }

    async fn dial(&self, addr: SocketAddr) -> io::Result<Stream> {
        let Connect { timeout, socket, mark, backoff: _ } = self.services.connect;
        let options = ConnectOptions { timeout, keepalive: socket.keepalive, user_timeout: socket.user_timeout, mark };
        let tcp = socket::connect(addr, &options).await?;
        let Some(name) = &self.service.identity else { return Ok(Stream::tcp(tcp)) };
        let server = ServerTls { identity: Identity::Dns(name.clone()), server_name: name.clone() };
        let handshake = self.services.tls.connect(tcp, &server, false);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok((stream, _))) => Ok(stream),
            Ok(Err(e)) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, e)),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake timed out")),
        }
    }
}
