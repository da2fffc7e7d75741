//! What the environment asks for, in two steps: raw text → checked values, all problems at once.
//!
//! ```text
//! environment ─► table (every name, with type, default and doc) ─► check ─► Config | Vec<Problem> + unused names
//! ```
//! Nothing else of the proxy reads the environment.

mod check;
pub mod reference;
pub mod table;
mod value;

pub use check::{Checked, Problem, check};
use std::{collections::BTreeSet, net::IpAddr, net::SocketAddr, path::PathBuf, time::Duration};
use weft_model::{
    DnsName, Identity,
    decide::cidr::Cidr,
    policy::{inbound::DefaultPolicy, outbound::Backoff},
};
use weft_telemetry::Format;
use weft_transport::tls::KeyExchange;

/// Everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    pub inbound: Inbound,
    pub outbound: Outbound,
    pub admin: Admin,
    pub identity: IdentityConfig,
    pub destination: Destination,
    pub policy: Policy,
    pub control: ControlClients,
    pub process: Process,
    /// The tap server, if there is one.
    pub tap: Option<Tap>,
    pub access_log: Option<AccessLogFormat>,
    /// Where spans are sent; without it trace context passes untouched.
    pub traces: Option<Traces>,
}

/// The side that faces peers.
#[derive(Clone, Debug)]
pub struct Inbound {
    pub listen: SocketAddr,
    pub backlog: Option<u32>,
    /// Original destinations that are this workload's; empty is any.
    pub ips: BTreeSet<IpAddr>,
    pub accept: SocketOptions,
    pub connect: Connect,
    /// Between attempts to connect the application.
    pub backoff: Backoff,
    pub http1_pool: Http1Pool,
    pub http2_server: Http2Server,
    /// Requests that wait for an application that cannot be connected.
    pub http_queue: Queue,
    pub max_in_flight: usize,
    pub detect_timeout: Duration,
    /// How long a client is silent until the application is connected, so that it may speak first; zero is for ever.
    pub server_first_wait: Duration,
    /// How long the head of an HTTP/1 request may take that has begun; zero is for ever.
    pub head_timeout: Duration,
    pub discovery_idle: Duration,
    /// Metrics of requests have a label `authority`, whose values clients choose.
    pub authority_labels: bool,
    /// Names to which this proxy forwards as a gateway.
    pub gateway_suffixes: DnsSuffixes,
    /// Ports whose policy is watched from the start and never forgotten.
    pub ports: BTreeSet<u16>,
    /// Ports that are opaque until a policy says otherwise.
    pub opaque_ports: PortSet,
    pub default_policy: DefaultPolicy,
    pub cluster_networks: Vec<Cidr>,
}

/// The side that faces the application.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// One or two addresses.
    pub listen: Vec<SocketAddr>,
    pub backlog: Option<u32>,
    pub accept: SocketOptions,
    pub connect: Connect,
    /// Between attempts to connect an endpoint.
    pub backoff: Backoff,
    pub http1_pool: Http1Pool,
    pub http2_client: Http2Client,
    pub http2_server: Http2Server,
    pub http_queue: Queue,
    pub tcp_queue: Queue,
    pub max_in_flight: usize,
    pub detect_timeout: Duration,
    /// How long a client is silent until a session is opened for it, so that the server may speak first; zero is for ever.
    pub server_first_wait: Duration,
    /// How long the head of an HTTP/1 request may take that has begun; zero is for ever.
    pub head_timeout: Duration,
    pub discovery_idle: Duration,
    /// Each request may name its target by `l5d-dst-override`.
    pub ingress: bool,
    /// Whether the application is shown `l5d-proxy-error` and `l5d-proxy-connection`.
    pub informational_headers: bool,
    /// Whether metrics of routes name the host of a request.
    pub hostname_labels: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    pub keepalive: Option<Duration>,
    pub user_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connect {
    pub timeout: Duration,
    pub socket: SocketOptions,
    /// The packet mark that exempts dialled connections from redirection.
    pub mark: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http1Pool {
    /// Per endpoint, of all workers together.
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

impl Http1Pool {
    /// What worker `index` of so many may keep.
    pub(crate) fn share(self, index: usize, workers: usize) -> Self {
        let workers = workers.max(1);
        let one_more = usize::from(index < self.max_idle % workers);
        Self { max_idle: self.max_idle / workers + one_more, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Client {
    /// Bytes.
    pub stream_window: u32,
    /// Bytes.
    pub connection_window: u32,
}

/// `None` leaves the proxy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2Server {
    /// Bytes, stream and connection.
    pub windows: Option<(u32, u32)>,
    pub keep_alive_interval: Option<Duration>,
    pub keep_alive_timeout: Option<Duration>,
    pub max_concurrent_streams: Option<u32>,
    /// Bytes.
    pub max_frame_size: Option<u32>,
    /// Bytes.
    pub max_header_list_size: Option<u32>,
    pub max_pending_accept_reset_streams: Option<u32>,
    /// Bytes.
    pub max_send_buf_size: Option<u32>,
    /// Windows grow with the connection's speed.
    pub adaptive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    pub capacity: usize,
    pub failfast: Duration,
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub listen: SocketAddr,
    /// Whether POST /shutdown works.
    pub shutdown: bool,
    pub metrics_retain_idle: Duration,
}

#[derive(Clone, Debug)]
pub struct Tap {
    pub listen: SocketAddr,
    /// Who may observe; loopback may besides.
    pub permitted: Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogFormat {
    Apache,
    Json,
}

/// What is said of this process in traces, and to whom. Later attributes replace earlier ones of their name.
#[derive(Clone, Debug)]
pub struct Traces {
    pub collector: ControlAddr,
    pub service_name: String,
    pub attributes_path: Option<PathBuf>,
    pub extra_attributes: Option<String>,
    pub otel_attributes: Option<String>,
    pub hostname: Option<String>,
}

#[derive(Clone, Debug)]
pub struct IdentityConfig {
    pub trust_anchors: String,
    pub id: Identity,
    pub server_name: DnsName,
    pub source: IdentitySource,
    /// How long a connection may outlive a certificate that it was opened with.
    pub expiry_grace: Duration,
    pub key_exchange: KeyExchange,
}

/// Who certifies this workload.
#[derive(Clone, Debug)]
pub enum IdentitySource {
    /// The control plane.
    Service(IdentityService),
    /// A SPIFFE workload API on this machine.
    Workload(WorkloadApi),
}

#[derive(Clone, Debug)]
pub struct IdentityService {
    /// Of key and request.
    pub dir: PathBuf,
    pub token_file: PathBuf,
    pub service: ControlAddr,
    pub min_refresh: Duration,
    pub max_refresh: Duration,
}

#[derive(Clone, Debug)]
pub struct WorkloadApi {
    pub socket: PathBuf,
    /// Between attempts to reach it.
    pub backoff: Backoff,
}

#[derive(Clone, Debug)]
pub struct Destination {
    pub service: ControlAddr,
    pub context: String,
    pub profile_networks: Vec<Cidr>,
    pub profile_suffixes: DnsSuffixes,
    /// How long an inbound request waits for the profile of its name.
    pub profile_patience: Duration,
    /// How long a connection waits for the first answers about its destination.
    pub timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct Policy {
    pub service: ControlAddr,
    pub workload: String,
}

/// What all clients of the control plane share.
#[derive(Clone, Debug)]
pub struct ControlClients {
    pub connect: Connect,
    pub backoff: Backoff,
    pub streams: StreamLimits,
    pub dns_min_ttl: Option<Duration>,
    pub dns_max_ttl: Option<Duration>,
}

/// Limits on watch streams, after which they are opened anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamLimits {
    pub initial: Option<Duration>,
    pub idle: Option<Duration>,
    pub lifetime: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Process {
    pub workers: usize,
    pub shutdown_grace: Duration,
    /// The uid of the pod whose work the process ends with.
    pub shutdown_with_pod: Option<String>,
    pub log: String,
    pub log_format: Format,
    pub metrics_series_cap: usize,
    /// Decision records that each worker keeps.
    pub records: usize,
    pub upgrade: Upgrade,
}

/// How another process takes over.
#[derive(Clone, Debug)]
pub struct Upgrade {
    pub enabled: bool,
    /// What is started; `None` is the present program.
    pub program: Option<PathBuf>,
    /// How long the new process may take until it is ready.
    pub timeout: Duration,
    /// How long this process then stays for the connections that are open.
    pub drain: Duration,
    /// Where the process that accepts connections says its number.
    pub pid_file: Option<PathBuf>,
    /// This process itself takes over from the one that has started it.
    pub takes_over: bool,
}

/// Where a service of the control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlAddr {
    pub addr: HostPort,
    /// What its certificate must carry; `None` is plaintext, which only loopback may be.
    pub identity: Option<DnsName>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPort {
    Addr(SocketAddr),
    /// A trailing dot is kept: it says that no search path applies.
    Name(String, u16),
}

/// Ports as ranges, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(pub Vec<std::ops::RangeInclusive<u16>>);

/// Ends of names, lower-case and without trailing dot; an empty one is the end of every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSuffixes(pub Vec<String>);

impl DnsSuffixes {
    /// Whether `name` is one of them or below one.
    pub fn contains(&self, name: &DnsName) -> bool {
        self.0.iter().any(|suffix| {
            let rest = name.as_str().strip_suffix(suffix.as_str());
            rest.is_some_and(|rest| suffix.is_empty() || rest.is_empty() || rest.ends_with('.'))
        })
    }
}

impl PortSet {
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl HostPort {
    /// Loopback is reached in plaintext.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Addr(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Name(name, _) => name == "localhost" || name == "localhost.",
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The process's environment. A value that is not UTF-8 has its bad bytes replaced, and is then refused by whoever parses it.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

/// One line for everything in the environment that has no effect.
pub fn warn(unknown: &[String], not_built: &[String]) {
    if !unknown.is_empty() || !not_built.is_empty() {
        let (unknown, not_built) = (unknown.join(" "), not_built.join(" "));
        tracing::warn!(
            unknown,
            not_built,
            "Variables without effect: names nobody knows, and functions this build lacks"
        );
    }
}
