//! Last stage: to the application, at the address that the client dialled; never to this proxy itself.

use super::{
    Wiring,
    authorize::{self, Entry},
    connected::Connected,
    reach::Reach,
};
use crate::{
    carry,
    error::{Code, ProxyError},
    exchange::{self, Departure},
    http1, http2,
    metrics::tcp,
    parting::Parting,
    pool::Pool,
    process::discovery::PortPolicy,
    records::Passage,
};
use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};
use tokio::time::Instant;
use weft_model::endpoint::Http2Params;
use weft_transport::{
    Stream,
    socket::{self, ConnectOptions},
};

/// Makes connections to one address of the application.
pub(super) struct Connector {
    addr: SocketAddr,
    options: ConnectOptions,
    series: Arc<tcp::Series>,
}

/// What a worker holds for one address of the application to which requests go.
pub(super) struct App {
    connector: Connector,
    pool: Pool,
    reach: Reach,
    pub(super) used: Cell<Instant>,
    /// Somebody is told when it leaves.
    watched: Cell<bool>,
}

/// After an application has closed a connection it is asked at most so often whether it is there.
const KNOCK: Duration = Duration::from_millis(50);

/// The application as one request holds it.
pub(super) struct Lease(Rc<App>);

impl Connector {
    pub(super) fn new(wiring: &Wiring, addr: SocketAddr) -> Self {
        let connect = &wiring.context.config.inbound.connect;
        let options = ConnectOptions {
            timeout: connect.timeout,
            keepalive: connect.socket.keepalive,
            user_timeout: connect.socket.user_timeout,
            mark: connect.mark,
        };
        Self { addr, options, series: Arc::clone(&wiring.dialled) }
    }

    pub(super) fn connect(&self) -> impl Future<Output = Result<Stream, ProxyError>> + use<> {
        let (addr, options, series) = (self.addr, self.options.clone(), Arc::clone(&self.series));
        async move {
            let tcp = socket::connect(addr, &options).await.map_err(|error| failed(addr, &error))?;
            let mut stream = Stream::tcp(tcp);
            stream.meter(series.open());
            Ok(stream)
        }
    }
}

impl App {
    pub(super) fn new(wiring: &Wiring, addr: SocketAddr) -> Rc<Self> {
        let config = &wiring.context.config;
        // The application speaks plain HTTP/2 and says nothing of its limits beforehand: the proxy's own hold.
        let settings = http2::ClientSettings::new(&config.outbound.http2_client, &Http2Params::default());
        Rc::new(Self {
            connector: Connector::new(wiring, addr),
            pool: Pool::new(wiring.context.inbound_http1_pool, settings, config.inbound.http_queue.failfast),
            reach: Reach::new(
                config.inbound.http_queue,
                config.inbound.backoff,
                &wiring.context.inbound_waiting,
                wiring.context.drain.clone(),
            ),
            used: Cell::new(Instant::now()),
            watched: Cell::new(false),
        })
    }

    pub(super) fn expire(&self, now: Instant) {
        self.pool.expire(now);
    }

    /// What clients without a proxy are told when the application leaves. From now on that is noticed as it happens.
    pub(super) fn departure(self: &Rc<Self>) -> &Rc<Departure> {
        if !self.watched.replace(true) {
            tokio::task::spawn_local(watch(Rc::downgrade(self)));
        }
        self.reach.departure()
    }

    /// Whether the application is there at all: it may only have closed a connection, for which that one is there in its place.
    async fn knock(&self) {
        if self.reach.departure().is_awaited()
            && let Ok(stream) = self.reach.once(&|| self.connector.connect()).await
        {
            self.pool.keep(http1::Connection::new(stream));
        }
    }
}

/// Looks after an application as long as it is held.
async fn watch(app: Weak<App>) {
    loop {
        let parting = poll_fn(|cx| match app.upgrade() {
            Some(app) => app.pool.poll_parting(cx).map(Some),
            None => Poll::Ready(None),
        });
        let Some(parting) = parting.await else { return };
        let Some(app) = app.upgrade() else { return };
        match parting {
            Parting::Said => app.reach.departure().say(),
            Parting::Closed => app.knock().await,
        }
        drop(app);
        tokio::time::sleep(KNOCK).await;
    }
}

fn failed(addr: SocketAddr, error: &io::Error) -> ProxyError {
    ProxyError::new(Code::of_connect(error), format!("cannot connect to the application at {addr}: {error}"))
}

impl Lease {
    pub(super) fn new(app: Rc<App>) -> Self {
        Self(app)
    }
}

impl exchange::Endpoint for Lease {
    async fn http1(&self) -> Result<http1::Connection, ProxyError> {
        self.0.pool.http1(|| self.0.reach.connect(|| self.0.connector.connect())).await
    }

    fn keep_http1(&self, connection: http1::Connection) {
        self.0.pool.keep(connection);
    }

    async fn http2(&self) -> Result<http2::Sender, ProxyError> {
        let connect = || {
            let app = Rc::clone(&self.0);
            async move { app.reach.again(|| app.connector.connect()).await }
        };
        // The connection is made for all that wait; each of them has a place all the same.
        self.0.reach.wait(self.0.pool.http2(connect)).await
    }

    /// There is nothing to choose between.
    fn responded(&self, _: Duration) {}
}

/// Forwards bytes between the client's connection and one to the application, which may be open already, until both sides have
/// ended, or the policy no longer lets the client in.
///
/// # Errors
/// The policy lets the client in nowhere, or the application cannot be connected.
pub(super) async fn bytes(
    wiring: &Wiring,
    (mut stream, session): (Stream, Option<Stream>),
    connected: &Connected,
    port: &PortPolicy,
    passage: &mut Passage,
) -> Result<(), ProxyError> {
    let opened = match authorize::connection(wiring, connected, port, passage) {
        Ok(entry) => match session {
            Some(session) => Ok((entry, session)),
            None => Connector::new(wiring, connected.target).connect().await.map(|server| (entry, server)),
        },
        Err(error) => Err(error),
    };
    let (Entry { version, why }, mut server) = opened.inspect_err(|_| stream.reset_on_close())?;
    let since = passage.elapsed();
    let forwarded = passage.forwarded();
    forwarded.opened(why, None, since);
    let revoked = authorize::revoked(wiring, connected, port, version);
    if let Err(error) = carry::bytes(&mut stream, &mut server, forwarded, revoked).await {
        tracing::debug!(%error, target = %connected.target, "forwarding ended");
    }
    Ok(())
}
