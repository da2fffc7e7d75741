//! Listeners: TCP, mTLS terminated here or by a proxy in front, HTTP/2, gRPC.
//!
//! A full listener lets go of those at rest for whoever comes. Who has shown no certificate rests also while it is answered, and goes
//! when it has asked for nothing too long: anybody may come like that.

use crate::seats::{Seat, Seats};
use http_body_util::BodyExt;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceExt;
use weft_telemetry::{Counter, CounterFamily, Gauge, Labels, Registry, Shard};
use weft_transport::{
    socket::{self, AcceptOptions},
    tls::{Peer, Store},
};

const BACKLOG: u32 = 1024;
/// Connections of one listener: each proxy has one or two.
const MAX_CONNECTIONS: usize = 10_000;
/// Streams of one connection: a proxy asks several questions for each target that it talks to.
const MAX_STREAMS: u32 = 10_000;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer that is gone is noticed after both.
const PING: Duration = Duration::from_secs(10);
const PONG: Duration = Duration::from_secs(10);
/// Bytes that wait for one stream to be read.
const MAX_SEND_BYTES: usize = 256 << 10;
/// After an error of accept() that is not the connection's own, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Listener {
    name: &'static str,
    socket: TcpListener,
    front: Front,
    routes: Routes,
    connections: Gauge,
    accepted: Counter,
    failed: CounterFamily,
    idle: Counter,
    pub(crate) seats: Arc<Seats>,
}

/// Who proves to clients what this is, and asks them who they are.
#[derive(Clone)]
pub(crate) enum Front {
    /// This process, by mutual TLS.
    Mutual(Store),
    /// The pod's own proxy: what comes through it was let in by its policy, and what is asked on loopback by the pod itself.
    Proxy,
}

/// Who calls, in the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// `None` behind a proxy, which has asked.
    pub(crate) peer: Option<Peer>,
    /// Ends the caller's connection at once.
    pub(crate) connection: CancellationToken,
    /// Ends it when its calls have ended.
    pub(crate) farewell: CancellationToken,
}

/// A bound socket and its address.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpListener::from_std(socket::listen(addr, BACKLOG)?)?;
    let addr = socket.local_addr()?;
    Ok((socket, addr))
}

impl Listener {
    pub(crate) fn new(
        name: &'static str,
        socket: TcpListener,
        front: Front,
        routes: Routes,
        registry: &Registry,
    ) -> Self {
        let labels = Labels::new().with("listener", name);
        let help = "Connections at rest that were ended: for others, or because they had shown no certificate.";
        let ended = registry.counter("weft_control_connections_ended_total", help);
        let ended = |why| ended.with(Shard::ADMIN, &labels.clone().with("reason", why));
        Self {
            idle: ended("idle"),
            seats: Arc::new(Seats::new(MAX_CONNECTIONS, MAX_CONNECTIONS, ended("full"))),
            connections: registry.gauge("weft_control_connections", "Open connections.").with(Shard::ADMIN, &labels),
            accepted: registry
                .counter("weft_control_connections_total", "Connections accepted.")
                .with(Shard::ADMIN, &labels),
            failed: registry.counter("weft_control_handshakes_failed_total", "TLS handshakes that failed."),
            name,
            socket,
            front,
            routes: routes.prepare(),
        }
    }

    /// Serves until `stop`; then open calls end and the connections with them.
    pub(crate) async fn serve(self, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match stop.run_until_cancelled(this.socket.accept()).await {
                None => break,
                Some(Err(error)) => {
                    tracing::warn!(listener = this.name, %error, "accept failed");
                    tokio::time::sleep(PAUSE).await;
                }
                Some(Ok((tcp, peer))) => {
                    // Where all are asked something, the next ones stay in the kernel's queue.
                    let Some(seat) = stop.run_until_cancelled(this.seats.take()).await else { break };
                    let (this, stop) = (this.clone(), stop.clone());
                    connections.spawn(async move {
                        this.accepted.inc();
                        this.connections.inc();
                        this.connection(tcp, peer, Arc::new(seat), &stop).await;
                        this.connections.dec();
                    });
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(&self, tcp: TcpStream, addr: SocketAddr, seat: Arc<Seat>, stop: &CancellationToken) {
        if socket::accepted(&tcp, &AcceptOptions::default()).is_err() {
            return;
        }
        let Front::Mutual(store) = &self.front else { return self.calls(tcp, None, addr, seat, stop).await };
        let handshake = tokio::time::timeout(HANDSHAKE, store.accept(tcp, bytes::Bytes::new(), false));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = seat.is_told_to_go() => return,
        };
        match handshake {
            Ok(Ok((stream, peer))) => self.calls(stream, Some(peer), addr, seat, stop).await,
            Ok(Err(error)) => self.refused(error.label(), &error, addr),
            Err(elapsed) => self.refused("timeout", &elapsed, addr),
        }
    }

    async fn calls(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Option<Peer>,
        addr: SocketAddr,
        seat: Arc<Seat>,
        stop: &CancellationToken,
    ) {
        let is_stranger = peer.as_ref().is_some_and(|peer| peer.identity.is_none());
        let (cut, farewell) = (CancellationToken::new(), CancellationToken::new());
        let caller = Caller { peer, connection: cut.clone(), farewell: farewell.clone() };
        let (routes, asker) = (self.routes.clone(), seat.clone());
        let service = tower::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let open = (asker.asks(), (!is_stranger).then(|| asker.decides()));
            request.extensions_mut().insert(caller.clone());
            let answer = routes.clone().oneshot(request.map(tonic::body::Body::new));
            async move {
                let answer = answer.await?;
                // It is open until all of its answer has been read.
                Ok::<_, Infallible>(answer.map(|body| {
                    body.map_frame(move |frame| {
                        let _held = &open;
                        frame
                    })
                }))
            }
        });
        let mut server = http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .max_send_buf_size(MAX_SEND_BYTES);
        let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let mut serving = std::pin::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = cut.cancelled() => return,
            () = seat.is_told_to_go() => return,
            () = seat.is_idle(), if is_stranger => {
                self.idle.inc();
                None
            }
            () = stop.cancelled() => None,
            () = farewell.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            // The hub ends every stream on `stop`, so that a graceful end is near.
            None => {
                serving.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = serving => ended,
                    () = cut.cancelled() => return,
                    () = seat.is_told_to_go() => return,
                    () = seat.lingers(), if is_stranger => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(listener = self.name, peer = %addr, %error, "connection failed");
        }
    }

    fn refused(&self, label: &str, error: &dyn std::fmt::Display, addr: SocketAddr) {
        let labels = Labels::new().with("listener", self.name).with("reason", label);
        self.failed.with(Shard::ADMIN, &labels).inc();
        tracing::debug!(listener = self.name, peer = %addr, %error, "handshake failed");
    }
}
