//! The inbound direction: one accepted connection from its first byte to its last.
//!
//! ```text
//! peer ─► accept ─┬─ a port of the application ─► tls ─► detect ─┬─ HTTP ──► route ─► authorize ─┬─► forward ─► app
//!                 └─ this proxy's own port ─► tls ─► direct ─────┴─ bytes ─► authorize ──────────┘
//! ```
//! Per worker: connections to the application are shared by the worker's connections and by nobody else.

mod accept;
pub(crate) mod authorize;
mod detect;
mod direct;
mod forward;
mod route;
pub(crate) mod tls;

use crate::{
    error::{Code, ProxyError},
    exchange::{self, Director, ServerConnection},
    http2::ServerSettings,
    metrics::{
        Failed, Metrics,
        labels::{self, AcceptedTls},
        tcp,
    },
    process::{
        discovery::PortPolicy,
        worker::{Context, Direction},
    },
};
use accept::Dialled;
use authorize::Connected;
use bytes::Bytes;
use detect::Protocol;
use forward::App;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tls::{Arrived, Patience};
use tokio::{net::TcpStream, time::Instant};
use weft_model::policy::inbound::ServerProtocol;
use weft_telemetry::Labels;
use weft_transport::Stream;

/// The inbound side of one worker.
pub(crate) struct Inbound {
    wiring: Wiring,
    apps: RefCell<HashMap<SocketAddr, Rc<App>>>,
    sweeping: Cell<bool>,
}

/// What every stage works with.
struct Wiring {
    context: Context,
    metrics: Metrics,
    /// Connections to the application.
    dialled: Arc<tcp::Series>,
}

/// A connection of which everything is known that decides where it goes.
struct Known {
    stream: Stream,
    connected: Connected,
    port: Arc<PortPolicy>,
    protocol: Protocol,
}

/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(1);

impl Inbound {
    pub(crate) fn new(context: Context) -> Rc<Self> {
        let metrics = Metrics::new(&context.registry, context.shard, Direction::Inbound);
        let labels =
            Labels::new().with("direction", "inbound").with("peer", "dst").join(&labels::dialled_tls(None, true));
        let dialled = metrics.tcp.series(metrics.shard, labels);
        let wiring = Wiring { context, metrics, dialled };
        Rc::new(Self { wiring, apps: RefCell::default(), sweeping: Cell::new(false) })
    }

    /// Serves one connection until it is closed. Called in a task of its own on the worker's local set; returning early
    /// drops the connection.
    pub(crate) async fn serve(self: Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(&self)));
        }
        if let Err(error) = self.connection(tcp, client).await {
            tracing::info!(%client, %error, "inbound connection failed");
            self.wiring.metrics.failed(Failed::Connection, &error);
        }
    }

    async fn connection(self: &Rc<Self>, tcp: TcpStream, client: SocketAddr) -> Result<(), ProxyError> {
        let known = match accept::dialled(&self.wiring.context, &tcp)? {
            Dialled::Port(target) => Box::pin(self.redirected(tcp, client, target)).await?,
            Dialled::Direct(local) => Box::pin(self.direct(tcp, client, local)).await?,
        };
        match known {
            Some(known) => self.carry(known).await,
            None => Ok(()),
        }
    }

    /// A connection to a port of the application: what it is must be found out.
    async fn redirected(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        target: SocketAddr,
    ) -> Result<Option<Known>, ProxyError> {
        let context = &self.wiring.context;
        let port = context.discovery.inbound(target.port());
        if matches!(port.policy.load().value.protocol, ServerProtocol::Opaque) {
            let connected = Connected { client, tls: AcceptedTls::PortSkipped, target };
            let stream = self.metered(Stream::tcp(tcp), &connected, &port);
            return Ok(Some(Known { stream, connected, port, protocol: Protocol::Opaque }));
        }
        let timeout = context.config.inbound.detect_timeout;
        let patience = Patience { first: timeout, whole: timeout };
        let arrived = tls::terminate(&context.tls, &context.lifetimes, tcp, false, patience).await?;
        let Some(Arrived { stream, tls, .. }) = arrived else { return Ok(None) };
        let connected = Connected { client, tls, target };
        let mut stream = self.metered(stream, &connected, &port);
        let protocol = if matches!(connected.tls, AcceptedTls::Passthrough(_)) {
            Some(Protocol::Opaque)
        } else {
            let policy = port.policy.snapshot();
            let meshed = connected.tls.is_meshed();
            let metrics = &self.wiring.metrics;
            detect::protocol(&mut stream, &policy.value, meshed, timeout, metrics, port.port)
                .await
                .map_err(|error| ProxyError::new(Code::BadRequest, format!("the client's connection broke: {error}")))?
        };
        Ok(protocol.map(|protocol| Known { stream, connected, port, protocol }))
    }

    /// A connection to this proxy's own port: the client says what it is.
    async fn direct(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        local: std::net::IpAddr,
    ) -> Result<Option<Known>, ProxyError> {
        let context = &self.wiring.context;
        let timeout = context.config.inbound.detect_timeout;
        let patience = Patience { first: timeout, whole: timeout };
        let Some(mut arrived) = tls::terminate(&context.tls, &context.lifetimes, tcp, true, patience).await? else {
            return Ok(None);
        };
        let named = direct::named(&self.wiring.metrics, &mut arrived, local, context.inbound_port, timeout).await?;
        let port = context.discovery.inbound(named.target.port());
        let connected = Connected { client, tls: arrived.tls, target: named.target };
        let stream = self.metered(arrived.stream, &connected, &port);
        Ok(Some(Known { stream, connected, port, protocol: named.protocol }))
    }

    async fn carry(self: &Rc<Self>, known: Known) -> Result<(), ProxyError> {
        let Known { stream, connected, port, protocol } = known;
        let drain = self.wiring.context.drain.with(stream.life());
        let app = self.app(connected.target);
        if protocol == Protocol::Opaque {
            return Box::pin(forward::bytes(&self.wiring, &app, stream, &connected, &port, &drain)).await;
        }
        let requests = route::Requests::new(Rc::clone(self), port, connected, app);
        if protocol == Protocol::Http1 {
            let connection = ServerConnection { stream, prefix: Bytes::new() };
            Box::pin(exchange::serve_http1(connection, &requests, drain)).await;
        } else {
            let settings = ServerSettings::new(&self.wiring.context.config.inbound.http2_server);
            let ending = async move { drain.ending().await };
            let requests = Rc::new(requests);
            let serving = Box::pin(exchange::serve_http2(stream, &settings, Rc::clone(&requests), ending));
            tokio::select! {
                () = serving => {}
                // Streams end with their connection: none of them looks complete.
                () = requests.shut_out() => {}
            }
        }
        Ok(())
    }

    fn metered(&self, mut stream: Stream, connected: &Connected, port: &PortPolicy) -> Stream {
        let labels = Labels::new()
            .with("direction", "inbound")
            .with("peer", "src")
            .join(&connected.labels())
            .join(&labels::server(&port.policy.load().value.meta, port.port));
        let metrics = &self.wiring.metrics;
        stream.meter(metrics.tcp.series(metrics.shard, labels).open());
        stream
    }

    /// By the clock of rate limits.
    fn now(&self) -> std::time::Instant {
        (self.wiring.context.clock)()
    }

    fn app(&self, addr: SocketAddr) -> Rc<App> {
        let mut apps = self.apps.borrow_mut();
        let app = apps.entry(addr).or_insert_with(|| App::new(&self.wiring, addr));
        app.used.set(Instant::now());
        Rc::clone(app)
    }
}

/// Closes what has been idle for too long, as long as the worker lives.
async fn sweep(inbound: Weak<Inbound>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(inbound) = inbound.upgrade() else { return };
        let now = Instant::now();
        let idle = inbound.wiring.context.config.inbound.discovery_idle;
        inbound.apps.borrow_mut().retain(|_, app| {
            if Rc::strong_count(app) > 1 {
                app.used.set(now);
            }
            app.expire(now);
            now.duration_since(app.used.get()) < idle
        });
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
        assert!(size(Inbound::serve) <= 1536, "{}", size(Inbound::serve));
    }
}
