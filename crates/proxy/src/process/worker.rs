//! What one worker thread works with.

use super::identity::Lifetimes;
use crate::{
    Config,
    config::Http1Pool,
    direction::Direction,
    error::notice::Notices,
    outbound::Balancers,
    process::{discovery::Discovery, in_flight::InFlight, rate_limit::Clock, spoken::SpokenPorts},
    records::{Readers, Sinks},
};
use std::{io, net::SocketAddr, sync::Arc, time::SystemTime};
use tokio::net::TcpStream;
use weft_telemetry::{Registry, Shard};
use weft_transport::{drain, tls::Store};

/// Finds where a redirected connection was going to. Tests put in their own.
pub type OriginalDst = Arc<dyn Fn(Direction, &TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// The wall clock by which certificates are over. Tests put in their own.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything that the directions need, one per worker. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub shard: Shard,
    pub config: Arc<Config>,
    pub registry: Registry,
    pub discovery: Discovery,
    /// What ports were seen to speak.
    pub spoken: Arc<SpokenPorts>,
    /// All workers' requests of the direction.
    pub inbound_in_flight: Arc<InFlight>,
    /// All workers' requests that wait for an application that cannot be connected.
    pub inbound_waiting: Arc<InFlight>,
    pub outbound_in_flight: Arc<InFlight>,
    /// Copies of requests, for mirrors.
    pub outbound_copies: Arc<InFlight>,
    /// This worker's share of the idle connections.
    pub inbound_http1_pool: Http1Pool,
    pub outbound_http1_pool: Http1Pool,
    /// What the workers' outbound balancers share.
    pub(crate) outbound_balancers: Arc<Balancers>,
    /// This workload's certificate and the anchors it believes.
    pub tls: Store,
    /// Ends connections with the certificates that they were opened with.
    pub(crate) lifetimes: Lifetimes,
    /// Says when to finish. Connections are counted by the worker: a clone need not be held for that.
    pub drain: drain::Watch,
    pub original_dst: OriginalDst,
    pub clock: Clock,
    /// The port on which the inbound listener is really bound.
    pub inbound_port: u16,
    /// Where each worker says how its decision records are read.
    pub(crate) readers: Readers,
    /// Who is told of requests besides.
    pub(crate) sinks: Sinks,
    /// Which failures are logged, of each side by itself.
    pub(crate) notices: Arc<Notices>,
}
