//! What a worker holds for an endpoint that speaks HTTP, and the lease of it that one request has.

use super::{
    Wiring,
    balance::{Connections, Member, Pending},
    connect::{Connector, endpoint_labels},
};
use crate::{
    error::ProxyError,
    exchange::{self, Carrier},
    http1, http2,
    metrics::http::Series,
    pool::Pool,
    protocol::Version,
    turn,
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::time::Instant;
use weft_model::{Endpoint, ProtocolHint};
use weft_telemetry::Labels;
use weft_wire::transport_header::SessionProtocol;

/// The connections to one endpoint.
pub(crate) struct Http {
    wiring: Rc<Wiring>,
    connector: Rc<Connector>,
    pool: Pool,
    hint: ProtocolHint,
    local: bool,
    /// There is no other endpoint to balance over.
    fixed: bool,
    /// Replaces the authority of requests.
    authority: Option<Rc<str>>,
    /// What requests travelled on last: how the endpoint is connected again after a failure.
    last: Cell<Carrier>,
    labels: Labels,
    /// Made by the first request, so that endpoints without any have no series.
    series: OnceCell<Rc<Series>>,
}

/// An endpoint as one request holds it, with the connection that was made while it was chosen.
pub(crate) struct Lease {
    member: Rc<Member<Http>>,
    _pending: Pending<Http>,
    held: RefCell<Option<Held>>,
}

enum Held {
    Http1(http1::Connection),
    Http2(http2::Sender),
}

impl Http {
    pub(super) fn new(wiring: &Rc<Wiring>, endpoint: &Endpoint, authority: Option<&str>) -> Self {
        let outbound = &wiring.context.config.outbound;
        let local = wiring.is_local(endpoint);
        let labels = endpoint_labels(endpoint, authority, local);
        let settings = http2::ClientSettings::new(&outbound.http2_client, &endpoint.http2);
        Self {
            connector: Rc::new(Connector::new(wiring, endpoint, &labels)),
            wiring: Rc::clone(wiring),
            pool: Pool::new(wiring.context.outbound_http1_pool, settings, outbound.http_queue.failfast),
            hint: endpoint.hint,
            local,
            fixed: authority.is_none(),
            // The workload itself is no gateway to itself.
            authority: endpoint.authority_override.as_deref().filter(|_| !local).map(Rc::from),
            last: Cell::new(Carrier::Http1),
            labels,
            series: OnceCell::new(),
        }
    }

    /// What a request travels on: HTTP/1 on HTTP/2 where the endpoint asks for it, unless it wants to leave HTTP.
    pub(super) fn carrier(&self, version: Version, upgrades: bool) -> Carrier {
        match version {
            Version::Http2 => Carrier::Http2,
            _ if self.hint == ProtocolHint::H2 && !self.local && !upgrades => Carrier::Http2,
            _ => Carrier::Http1,
        }
    }

    pub(super) fn authority_override(&self) -> Option<Rc<str>> {
        self.authority.clone()
    }

    /// Whether the server's proxy may ask to close the application's connection (data plane 4.3): where endpoints are balanced, it
    /// would speak for one and the others would suffer.
    pub(super) fn heeds_close(&self) -> bool {
        self.fixed && self.connector.is_meshed()
    }

    pub(super) fn series(&self) -> &Rc<Series> {
        self.series.get_or_init(|| {
            let labels = Labels::new().with("direction", "outbound").join(&self.labels);
            self.wiring.metrics.http.series(self.wiring.metrics.shard, labels)
        })
    }

    pub(super) fn expire(&self, now: Instant) {
        self.pool.expire(now);
    }

    async fn http1(&self) -> Result<http1::Connection, ProxyError> {
        self.last.set(Carrier::Http1);
        self.pool.http1(|| self.connector.connect(Some(SessionProtocol::Http1))).await
    }

    async fn http2(&self) -> Result<http2::Sender, ProxyError> {
        self.last.set(Carrier::Http2);
        let connect = || {
            let connector = Rc::clone(&self.connector);
            async move { connector.connect(Some(SessionProtocol::Http2)).await }
        };
        self.pool.http2(connect).await
    }
}

impl Connections for Http {
    async fn revive(&self) -> Result<bool, ProxyError> {
        match self.last.get() {
            Carrier::Http1 => {
                let connection = self.http1().await?;
                self.pool.keep(connection);
            }
            Carrier::Http2 => drop(self.http2().await?),
        }
        Ok(true)
    }

    fn retire(&self) {
        self.pool.clear();
    }
}

impl Lease {
    /// Connects to `member`, which counts as pending from now on.
    pub(super) async fn new(member: Rc<Member<Http>>, carrier: Carrier) -> Result<Self, ProxyError> {
        let pending = member.begin();
        let held = match carrier {
            Carrier::Http1 => Held::Http1(member.connections.http1().await?),
            Carrier::Http2 => Held::Http2(member.connections.http2().await?),
        };
        member.connected();
        Ok(Self { member, _pending: pending, held: RefCell::new(Some(held)) })
    }
}

impl exchange::Endpoint for Lease {
    async fn http1(&self) -> Result<http1::Connection, ProxyError> {
        let held = self.held.borrow_mut().take();
        match held {
            Some(Held::Http1(connection)) => Ok(connection),
            _ => self.member.connections.http1().await,
        }
    }

    fn keep_http1(&self, connection: http1::Connection) {
        if !self.member.is_removed() {
            self.member.connections.pool.keep(connection);
        }
    }

    async fn http2(&self) -> Result<http2::Sender, ProxyError> {
        let held = self.held.borrow_mut().take();
        match held {
            Some(Held::Http2(sender)) => Ok(sender),
            _ => self.member.connections.http2().await,
        }
    }

    fn responded(&self, rtt: Duration) {
        self.member.responded(turn::now(), rtt);
    }
}
