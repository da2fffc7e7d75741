//! The inbound direction: one accepted connection from its first byte to its last.
//!
//! ```text
//! peer ─► accept ─┬─ a port of the application ─► tls ─► detect ─┬─ HTTP ──► route ─► authorize ─┬─► forward ─► app
//!                 │                          │      └─ silence ─ server_first ─┐                 │
//!                 └─ this proxy's own port ─► tls ─► direct ─┬───┴─ bytes ─► authorize ──────────┘
//!                                                            └─ a name ─► gateway ─► the outbound side
//! ```
//! Per worker: connections to the application are shared by the worker's connections and by nobody else.

mod accept;
pub(crate) mod admit;
mod apps;
pub(crate) mod authorize;
pub(crate) mod connected;
mod detect;
mod direct;
mod forward;
mod gateway;
mod profile;
mod reach;
mod redirected;
mod route;
mod server_first;
pub(crate) mod tls;

use crate::{
    direction::Direction,
    error::ProxyError,
    exchange::{self, Director, ServerConnection},
    http2::ServerSettings,
    metrics::{Failed, Metrics, labels, server_first as server_first_metrics, tcp},
    outbound::Outbound,
    process::{discovery::PortPolicy, worker::Context},
    protocol::Protocol,
    records::{Passage, Records},
};
use accept::Dialled;
use apps::Apps;
use bytes::Bytes;
use connected::Connected;
use gateway::Gateway;
use std::{
    cell::Cell,
    fmt::Display,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};
use weft_model::NameAddr;
use weft_telemetry::Labels;
use weft_transport::Stream;

/// The inbound side of one worker.
pub(crate) struct Inbound {
    wiring: Wiring,
    /// To where this proxy forwards as a gateway.
    outbound: Rc<Outbound>,
    apps: Apps,
    profiles: profile::Profiles,
    sweeping: Cell<bool>,
}

/// What every stage works with.
struct Wiring {
    context: Context,
    metrics: Metrics,
    records: Rc<Records>,
    /// Connections to the application.
    dialled: Arc<tcp::Series>,
    server_first: server_first_metrics::Family,
}

/// A connection of which everything is known that decides where it goes.
struct Known {
    stream: Stream,
    connected: Connected,
    port: Arc<PortPolicy>,
    protocol: Protocol,
    /// The target for which this proxy is to be a gateway.
    gateway: Option<NameAddr>,
    /// To the application, opened before it was known that bytes are forwarded.
    session: Option<Stream>,
}

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

impl Inbound {
    pub(crate) fn new(context: Context, outbound: &Rc<Outbound>, records: &Rc<Records>) -> Rc<Self> {
        let metrics = Metrics::new(&context.registry, context.shard, Direction::Inbound);
        let labels =
            Labels::new().with("direction", "inbound").with("peer", "dst").join(&labels::dialled_tls(None, true));
        let dialled = metrics.tcp.series(metrics.shard, labels);
        let server_first = server_first_metrics::Family::new(&context.registry, context.shard, Direction::Inbound);
        let wiring = Wiring { context, metrics, records: Rc::clone(records), dialled, server_first };
        Rc::new(Self {
            apps: Apps::new(&wiring),
            wiring,
            outbound: Rc::clone(outbound),
            profiles: Default::default(),
            sweeping: Cell::new(false),
        })
    }

    /// Serves one connection until it is closed. Called in a task of its own on the worker's local set; returning early
    /// drops the connection.
    pub(crate) async fn serve(self: Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(&self)));
        }
        let mut passage = Passage::new(&self.wiring.records, Direction::Inbound, client);
        let ended = self.connection(tcp, client, &mut passage).await;
        if let Err(error) = &ended {
            if let Some(left_out) =
                self.wiring.context.notices.take(Direction::Inbound, error, std::time::Instant::now())
            {
                tracing::info!(%client, %error, left_out, "inbound connection failed");
            } else {
                tracing::debug!(%client, %error, "inbound connection failed");
            }
            self.wiring.metrics.failed(Failed::Connection, error);
        }
        passage.end(ended.err());
    }

    async fn connection(
        self: &Rc<Self>,
        tcp: TcpStream,
        client: SocketAddr,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        let known = match accept::dialled(&self.wiring.context, &tcp)? {
            Dialled::Port(target) => {
                passage.scene(|scene| scene.target = Some(target));
                Box::pin(self.redirected(tcp, client, target)).await?
            }
            Dialled::Direct(local) => Box::pin(self.direct(tcp, client, local)).await?,
        };
        match known {
            Some(known) => self.carry(known, passage).await,
            None => Ok(()),
        }
    }

    async fn carry(self: &Rc<Self>, known: Known, passage: &mut Passage) -> Result<(), ProxyError> {
        let Known { stream, connected, port, protocol, gateway, session } = known;
        let scene = passage.scene(|scene| {
            scene.target = Some(connected.target);
            scene.client_id = connected.tls.identity().cloned();
            scene.tls = connected.tls.word();
        });
        let scene = Rc::clone(scene);
        passage.protocol(protocol.as_str());
        if let Some(name) = gateway {
            return Box::pin(self.forward_on(stream, connected, port, protocol, name, passage)).await;
        }
        if protocol == Protocol::Opaque {
            let ends = (stream, session);
            return Box::pin(forward::bytes(&self.wiring, ends, &connected, &port, passage)).await;
        }
        let app = self.apps.get(&self.wiring, connected.target, authorize::enters(&connected, &port));
        let requests = route::Requests::new(Rc::clone(self), port, connected, scene, app);
        Box::pin(self.serve_http(stream, protocol, requests)).await;
        Ok(())
    }

    /// As a gateway.
    async fn forward_on(
        self: &Rc<Self>,
        stream: Stream,
        connected: Connected,
        port: Arc<PortPolicy>,
        protocol: Protocol,
        name: NameAddr,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        let gateway = Gateway::new(self, name, connected, port);
        if protocol == Protocol::Opaque {
            return gateway.bytes(stream, passage).await;
        }
        let scene = Rc::clone(passage.scene(|_| {}));
        self.serve_http(stream, protocol, gateway.requests(protocol == Protocol::Http2, scene)).await;
        Ok(())
    }

    async fn serve_http(&self, stream: Stream, protocol: Protocol, requests: impl Director + 'static) {
        let context = &self.wiring.context;
        let drain = context.drain.with(stream.life());
        if protocol == Protocol::Http1 {
            let connection = ServerConnection { stream, prefix: Bytes::new() };
            return Box::pin(exchange::serve_http1(connection, &requests, drain)).await;
        }
        let settings = ServerSettings::new(&context.config.inbound.http2_server);
        let requests = Rc::new(requests);
        let asked = Rc::clone(&requests);
        let ending = async move {
            match asked.departure() {
                None => drain.ending().await,
                // Whichever comes first: what is dropped is only waiting.
                Some(departure) => tokio::select! {
                    () = drain.ending() => {}
                    () = departure.said() => {}
                },
            }
        };
        let serving = Box::pin(exchange::serve_http2(stream, &settings, Rc::clone(&requests), ending));
        tokio::select! {
            () = serving => {}
            // Streams end with their connection: none of them looks complete.
            () = requests.shut_out() => {}
        }
    }

    fn metered(&self, mut stream: Stream, connected: &Connected, port: &PortPolicy) -> Stream {
        let labels = Labels::new()
            .with("direction", "inbound")
            .with("peer", "src")
            .join(&connected.labels())
            .join(&labels::server(&port.policy.load().value.meta, port.port));
        let metrics = &self.wiring.metrics;
        stream.meter(metrics.tcp_accepted.series(metrics.shard, labels).open());
        stream
    }

    /// By the clock of rate limits.
    fn now(&self) -> std::time::Instant {
        (self.wiring.context.clock)()
    }
}

impl Wiring {
    /// Counts a request that `server` was asked for and the proxy answers itself, and says so in the log now and then.
    fn refused(&self, server: &dyn Display, connected: &Connected, error: &ProxyError) {
        let client = connected.client;
        if let Some(left_out) = self.context.notices.take(Direction::Inbound, error, std::time::Instant::now()) {
            let identity = connected.tls.identity().map(tracing::field::display);
            tracing::info!(%server, %client, identity, %error, left_out, "request failed");
        } else {
            tracing::debug!(%server, %client, %error, "request failed");
        }
        self.metrics.failed(Failed::Request, error);
    }
}

/// Closes what has been idle for too long, as long as the worker lives.
async fn sweep(inbound: Weak<Inbound>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inbound) = inbound.upgrade() else { return };
        let now = Instant::now();
        let idle = inbound.wiring.context.config.inbound.discovery_idle;
        inbound.profiles.expire(&inbound.wiring.context.discovery, now, idle);
        inbound.apps.expire(now, idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each protocol needs is allocated when it is known, so that no connection carries the room for all of them.
    #[test]
    fn a_connection_is_small() {
        fn size<F>(_: fn(Rc<Inbound>, TcpStream, SocketAddr) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Inbound::serve) <= 1416, "{}", size(Inbound::serve));
    }
}
