//! The outbound direction: one accepted connection from its first byte to its last.
//!
//! ```text
//! app ─► accept ─► discover ─► detect ─┬─ HTTP ─► route ─► retry ─┬─► balance ─► connect ─► peer
//!                                │     └─ bytes ─► forward ───────┤
//!                                └─ silence ─► server_first ──────┘
//! ```
//! Per worker: targets, balancers and connections are shared by the worker's connections and by nobody else.

mod accept;
mod backends;
mod balance;
mod connect;
mod detect;
mod discover;
mod endpoint;
mod forward;
mod gateway;
mod ingress;
mod mirror;
mod profile;
mod record;
mod retry;
mod route;
mod server_first;

pub(crate) use balance::Balancers;

use crate::{
    direction::Direction,
    error::ProxyError,
    exchange::{self, ServerConnection},
    http2::ServerSettings,
    metrics::{
        self, Failed, Metrics, balancer::Kind, labels::AcceptedTls, server_first as server_first_metrics, tcp_route,
    },
    process::worker::Context,
    protocol::Protocol,
    records::{Passage, Records},
};
use backends::{Backends, Choice};
use bytes::Bytes;
use detect::Detected;
use discover::{Target, Targets};
use endpoint::Http;
use forward::Session;
pub(crate) use gateway::Onward;
pub(crate) use mirror::MAX_COPIES;
pub(crate) use route::Requests;
use std::{
    cell::Cell,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    time::Duration,
};
use tokio::{net::TcpStream, time::Instant};
use weft_model::{DnsName, Endpoint};
use weft_transport::Stream;

/// The outbound side of one worker.
pub(crate) struct Outbound {
    wiring: Rc<Wiring>,
    targets: Targets,
    http: Backends<Http>,
    tcp: Backends<Tcp>,
    /// For TLS that is routed by its server name.
    tls: Backends<Tcp>,
    sweeping: Cell<bool>,
}

/// What every stage works with.
struct Wiring {
    context: Context,
    metrics: Metrics,
    tcp_routes: tcp_route::Families,
    server_first: server_first_metrics::Family,
    outbound: metrics::outbound::Families,
    records: Rc<Records>,
}

/// What a worker holds for an endpoint to which bytes are forwarded.
struct Tcp(connect::Connector);

/// How often idle connections and targets are looked through.
const SWEEP: Duration = Duration::from_secs(1);

impl Outbound {
    pub(crate) fn new(context: Context, records: &Rc<Records>) -> Rc<Self> {
        let metrics = Metrics::new(&context.registry, context.shard, Direction::Outbound);
        let tcp_routes = tcp_route::Families::new(&context.registry, context.config.outbound.hostname_labels);
        let server_first = server_first_metrics::Family::new(&context.registry, context.shard, Direction::Outbound);
        let outbound = metrics::outbound::Families::new(&context.registry);
        let records = Rc::clone(records);
        let wiring = Rc::new(Wiring { context, metrics, outbound, tcp_routes, server_first, records });
        let config = &wiring.context.config.outbound;
        Rc::new(Self {
            targets: Targets::new(&wiring),
            http: Backends::new(&wiring, Kind::Http, config.http_queue, Http::new),
            tcp: Backends::new(&wiring, Kind::Tcp, config.tcp_queue, Tcp::new),
            tls: Backends::new(&wiring, Kind::Tls, config.tcp_queue, Tcp::new),
            sweeping: Cell::new(false),
            wiring,
        })
    }

    /// Serves one connection until it is closed. Called in a task of its own on the worker's local set; returning early
    /// drops the connection.
    pub(crate) async fn serve(self: Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        self.begin_sweeping();
        let mut passage = Passage::new(&self.wiring.records, Direction::Outbound, client);
        let ended = self.connection(tcp, &mut passage).await;
        if let Err(error) = &ended {
            let target = passage.target().map(tracing::field::display);
            if let Some(left_out) =
                self.wiring.context.notices.take(Direction::Outbound, error, std::time::Instant::now())
            {
                tracing::info!(%client, target, %error, left_out, "outbound connection failed");
            } else {
                tracing::debug!(%client, target, %error, "outbound connection failed");
            }
            self.wiring.metrics.failed(Failed::Connection, error);
        }
        passage.end(ended.err());
    }

    fn begin_sweeping(self: &Rc<Self>) {
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self)));
        }
    }

    async fn connection(self: &Rc<Self>, tcp: TcpStream, passage: &mut Passage) -> Result<(), ProxyError> {
        let drain = self.wiring.context.drain.clone();
        let addr = accept::target(&self.wiring.context, &tcp)?;
        let scene = passage.scene(|scene| {
            scene.target = Some(addr);
            scene.tls = AcceptedTls::Loopback.word();
        });
        let scene = Rc::clone(scene);
        let target = Box::pin(self.targets.get(addr.into())).await?;
        let mut stream = Stream::tcp(tcp);
        stream.meter(target.accepted(&self.wiring.metrics).open());
        target.snapshot().protocol.inc();
        let detected = match Box::pin(detect::protocol(self, &mut stream, &target)).await {
            Ok(Some(detected)) => detected,
            Ok(None) => return Ok(()),
            Err(error) => {
                stream.reset_on_close();
                return Err(error);
            }
        };
        let Detected { protocol, prefix, sni, session } = detected;
        stream.unread(prefix);
        passage.protocol(protocol.as_str());
        if protocol == Protocol::Opaque {
            return Box::pin(self.forward(&target, stream, sni, session, passage)).await;
        }
        let requests = route::Requests::new(Rc::clone(self), target, protocol, scene);
        if protocol == Protocol::Http1 {
            let connection = ServerConnection { stream, prefix: Bytes::new() };
            Box::pin(exchange::serve_http1(connection, &requests, drain)).await;
        } else {
            let settings = ServerSettings::new(&self.wiring.context.config.outbound.http2_server);
            let ending = async move { drain.ending().await };
            Box::pin(exchange::serve_http2(stream, &settings, Rc::new(requests), ending)).await;
        }
        Ok(())
    }

    /// Forwards bytes over the session that stands already, or over a new one.
    async fn forward(
        &self,
        target: &Target,
        stream: Stream,
        sni: Option<DnsName>,
        session: Option<Session>,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        let session = match session {
            Some(session) => session,
            None => match Box::pin(forward::open(self, target, sni.as_ref())).await {
                Ok(session) => session,
                Err(error) => {
                    passage.forwarded().why = Some(Rc::clone(&target.snapshot().parent));
                    stream.reset_on_close();
                    return Err(error);
                }
            },
        };
        session.forward(stream, target, std::future::pending(), passage).await;
        Ok(())
    }
}

impl Wiring {
    /// Whether the endpoint is this workload itself, which is reached without TLS (data plane 2.4).
    fn is_local(&self, endpoint: &Endpoint) -> bool {
        self.context.config.inbound.ips.contains(&endpoint.addr.ip())
    }

    /// Whether an endpoint is dialled, whoever named it. A workload that has addresses of its own meets nobody on loopback but itself
    /// (data plane 2.4); one that lives there, or does not say, may have peers there.
    fn may_dial(&self, endpoint: &Endpoint) -> bool {
        let ips = &self.context.config.inbound.ips;
        !accept::is_own(endpoint.addr) || ips.is_empty() || ips.iter().any(IpAddr::is_loopback)
    }
}

/// Closes what has been idle for too long, as long as the worker lives.
async fn sweep(outbound: Weak<Outbound>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(outbound) = outbound.upgrade() else { return };
        let now = Instant::now();
        let idle = outbound.wiring.context.config.outbound.discovery_idle;
        outbound.targets.expire(now, idle, |target| {
            target.for_each_http(|spread| {
                spread.for_each(|choice| {
                    if let Choice::Forward(member) = choice {
                        member.connections.expire(now);
                    }
                });
            });
        });
        outbound.http.expire(now, idle, |connections| connections.expire(now));
        outbound.tcp.expire(now, idle, |_| {});
        outbound.tls.expire(now, idle, |_| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each protocol needs is allocated when it is known, so that no connection carries the room for all of them.
    #[test]
    fn a_connection_is_small() {
        fn size<F>(_: fn(Rc<Outbound>, TcpStream, SocketAddr) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(Outbound::serve) <= 1040, "{}", size(Outbound::serve));
    }
}
