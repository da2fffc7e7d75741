//! Start-up, as a list.

use super::{
    admin,
    control::{Caller, Client, Counted, Families, Following, Links, REFUSED, Resolver, Services},
    discovery::{Discovery, InboundSettings, Settings, Sources},
    identity::{self, Certifier},
    in_flight::InFlight,
    rate_limit::{self, Clock},
    run::{Ending, Event, Handle},
    shutdown,
    spoken::SpokenPorts,
    tap,
    traces::Exporter,
    upgrade::{Listening, Predecessor, Program, Role, Upgrader, pid_file},
    work,
    worker::{Context, OriginalDst, WallClock},
    workers::{self, Listener, Shared},
};
use crate::{
    Config,
    config::{self, ControlAddr, IdentitySource, StreamLimits},
    direction::Direction,
    error::notice::Notices,
    outbound::{Balancers, MAX_COPIES},
    records::{AccessLog, Readers, Sinks, Taps, Traces},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch};
use weft_telemetry::{Labels, LogHandle, Readiness, Registry, Shard, build, metrics::Sample, process};
use weft_transport::{
    drain, socket,
    tls::{self, Store},
};
use weft_wire::work::WorkSpec;

/// The kernel's own limit (`somaxconn`) applies besides.
const BACKLOG: u32 = 4096;
/// How often metrics that nobody holds are looked for.
const METRICS_SWEEP: Duration = Duration::from_secs(30);

/// What a caller may replace.
pub struct Options {
    pub original_dst: OriginalDst,
    /// By which connections end with their certificates.
    pub wall_clock: WallClock,
    pub logs: LogHandle,
    /// What rate limits are measured by.
    pub clock: Clock,
    /// What SIGUSR2 starts to hand over to.
    pub upgrade: Option<Program>,
    /// The process that this one replaces.
    pub predecessor: Option<Predecessor>,
    /// End on SIGTERM and SIGINT.
    pub signals: bool,
    /// How often workers are asked for a sign of life; ten asks without one end the process.
    pub ask: Duration,
    /// Where the access log is written, if there is one.
    pub access_log: Box<dyn io::Write + Send>,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {addr} ({role}): {source}")]
    Listen { role: &'static str, addr: SocketAddr, source: io::Error },
    #[error("the identity cannot be set up: {0}")]
    Identity(#[source] anyhow::Error),
    #[error("a control plane address cannot be used: {0}")]
    Control(#[source] tonic::transport::Error),
    #[error("taking over from another process failed: {0}")]
    HandOver(#[source] io::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            original_dst: Arc::new(original_dst),
            wall_clock: Arc::new(std::time::SystemTime::now),
            logs: LogHandle::off(),
            clock: rate_limit::clock(),
            upgrade: None,
            predecessor: None,
            signals: false,
            ask: Duration::from_secs(1),
            access_log: Box::new(io::stderr()),
        }
    }
}

/// What the kernel knows. An inbound connection that it does not track was not redirected: it was made to this proxy's own
/// port, and is held to what that asks for.
fn original_dst(direction: Direction, tcp: &TcpStream) -> io::Result<SocketAddr> {
    match socket::original_dst(tcp) {
        Err(error) if direction == Direction::Inbound && error.kind() == io::ErrorKind::NotFound => tcp.local_addr(),
        known => known,
    }
}

/// Starts the proxy on threads of its own. Sockets are bound when this returns; they are accepted from once the identity is
/// certified.
///
/// # Errors
/// See [`StartError`].
pub fn start(config: Config, options: Options) -> Result<Handle, StartError> {
    let config = Arc::new(config);
    let workers = config.process.workers;
    let registry = registry(&config);
    let readiness = Readiness::new();
    let (trigger, pulled) = shutdown::channel();
    let (drain_signal, drain_watch) = drain::channel();
    let (events, inbox) = mpsc::channel();

    let mut predecessor = options.predecessor;
    let (listeners, listening) = Listeners::open(&config, predecessor.as_mut())?;
    let addrs = listeners.addrs();
    let tls = tls_store(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let entered = runtime.enter();
    let pid_file = config.process.upgrade.pid_file.clone();
    let elder = predecessor.map(|old| old.into_elder(pid_file.clone())).transpose().map_err(StartError::HandOver)?;
    let elder = elder.map(Arc::new);
    if let Some(path) = pid_file.filter(|_| elder.is_none()) {
        runtime.spawn(name_once_ready(path, readiness.clone()));
    }
    let (handed, admin_over) = watch::channel(false);
    let tap_over = admin_over.clone();
    let (certifying, certified) = identity::uncertified();
    let lifetimes = identity::Lifetimes::new(options.wall_clock.clone(), config.identity.expiry_grace, &registry);
    let services = Services {
        resolver: Resolver::new(&config.control, &registry),
        tls: tls.clone(),
        connect: config.control.connect,
        certified: certified.clone(),
        lifetimes: lifetimes.clone(),
        requests: Families::new(&registry),
        links: Links::new(&registry, config.control.connect.timeout),
    };
    let policy = services.channel(Client::Policy, &config.policy.service, Caller::Certified);
    let policy = policy.map_err(StartError::Control)?;
    let discovery = discovery(&config, &services, policy.clone(), &addrs, &options.clock, &runtime, &registry)?;
    let reporter =
        identity::Reporter::new(&config.identity.id, tls.clone(), certifying, readiness.task("identity"), &registry);
    let certifying = certifying_by(&config, &services, reporter, tls.clone(), &registry)?;
    let readers = Readers::default();
    let access_log = config.access_log.map(|format| AccessLog::start(format, options.access_log, &registry));
    let (access_log, log_thread) = access_log.transpose().map_err(StartError::Thread)?.unzip();
    let taps = Taps::new(&registry);
    let traces = config.traces.as_ref().map(|traces| traces_to(traces, &services, &registry));
    let (traces, exporting) = traces.transpose()?.unzip();
    let sinks = Sinks { taps: taps.clone(), access_log, traces };
    let state = admin::State {
        readers: readers.clone(),
        registry: registry.clone(),
        readiness: readiness.clone(),
        logs: options.logs.clone(),
        shutdown: trigger.clone(),
        shutdown_enabled: config.admin.shutdown,
        elder: elder.clone(),
    };
    let notices = Arc::new(Notices::new(std::time::Instant::now()));
    let port = discovery.inbound(addrs.admin.port());
    let (clock, told) = (options.clock.clone(), notices.clone());
    let guard = admin::Guard::new(tls.clone(), lifetimes.clone(), port, &registry, clock, told, readers.clone());
    drop(entered);

    announce(&config, &addrs);
    let shared = Shared::new(workers);
    shared.register(&registry);
    let inbound_in_flight = InFlight::new(config.inbound.max_in_flight);
    let inbound_waiting = InFlight::new(config.inbound.http_queue.capacity);
    let outbound_in_flight = InFlight::new(config.outbound.max_in_flight);
    let outbound_copies = InFlight::new(MAX_COPIES);
    let spoken = Arc::new(SpokenPorts::default());
    spoken.register(&registry);
    let outbound_balancers = Arc::<Balancers>::default();
    let contexts = (0..workers).map(|index| Context {
        shard: Shard::worker(index),
        config: config.clone(),
        registry: registry.clone(),
        discovery: discovery.clone(),
        spoken: spoken.clone(),
        inbound_in_flight: inbound_in_flight.clone(),
        inbound_waiting: inbound_waiting.clone(),
        outbound_in_flight: outbound_in_flight.clone(),
        outbound_copies: outbound_copies.clone(),
        inbound_http1_pool: config.inbound.http1_pool.share(index, workers),
        outbound_http1_pool: config.outbound.http1_pool.share(index, workers),
        outbound_balancers: outbound_balancers.clone(),
        tls: tls.clone(),
        lifetimes: lifetimes.clone(),
        drain: drain_watch.clone(),
        original_dst: options.original_dst.clone(),
        clock: options.clock.clone(),
        inbound_port: addrs.inbound.port(),
        readers: readers.clone(),
        sinks: sinks.clone(),
        notices: notices.clone(),
    });
    let mut threads: Vec<_> = {
        let (contexts, events, certified) = (contexts.collect(), events.clone(), certified.clone());
        let died = move |index| drop(events.send(Event::WorkerDied(index)));
        workers::spawn(contexts, listeners.traffic, &shared, &certified, &registry, died).map_err(StartError::Thread)?
    };
    drop((drain_watch, sinks));
    threads.extend(log_thread);

    runtime.spawn(certifying);
    runtime.spawn(lifetimes.clone().run());
    runtime.spawn(sweep_metrics(registry.clone(), config.admin.metrics_retain_idle));
    let admin_events = events.clone();
    runtime.spawn(async move {
        let ended = admin::serve(listeners.admin, state, guard, admin_over).await;
        // Nobody listens any more when the process ends.
        let _ = admin_events.send(Event::AdminEnded(ended.err()));
    });
    if let Some((socket, config)) = listeners.tap.zip(config.tap.clone()) {
        runtime.spawn(until_taken_over(tap::serve(socket, config, tls, lifetimes, taps), tap_over));
    }
    if let Some(exporting) = exporting {
        runtime.spawn(exporting);
    }
    if let Some(uid) = config.process.shutdown_with_pod.clone() {
        let spec = WorkSpec { workload: config.policy.workload.clone(), uid };
        let following = following(&config, &config.policy.service);
        runtime.spawn(work::end_with_it(policy, spec, following, trigger.clone()));
    }
    if options.signals {
        runtime.spawn(shutdown::on_signals(trigger.clone()));
    }
    if let Some(program) = options.upgrade {
        let upgrader = Upgrader {
            config: config.process.upgrade.clone(),
            program,
            listening,
            registry: registry.clone(),
            trigger: trigger.clone(),
            pulled: pulled.clone(),
            handed,
            elder: elder.clone(),
        };
        runtime.spawn(upgrader.run());
    }
    let ending = Ending {
        pulled,
        drain: drain_signal,
        shared: shared.clone(),
        grace: config.process.shutdown_grace,
        stay: config.process.upgrade.drain,
        elder,
    };
    let admin = std::thread::Builder::new()
        .name("admin".into())
        .spawn(move || runtime.block_on(ending.run(events)))
        .map_err(StartError::Thread)?;
    threads.push(admin);
    Ok(Handle { addrs, trigger, readiness, registry, shared, inbox, ask: options.ask, threads })
}

/// Where the proxy really listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addrs {
    pub admin: SocketAddr,
    pub inbound: SocketAddr,
    pub outbound: Vec<SocketAddr>,
    /// Where there is a tap server.
    pub tap: Option<SocketAddr>,
}

struct Listeners {
    admin: TcpListener,
    tap: Option<TcpListener>,
    traffic: Vec<Listener>,
    addrs: Addrs,
}

impl Listeners {
    /// Takes the sockets of the process that is replaced, and binds those that it does not have.
    fn open(config: &Config, mut old: Option<&mut Predecessor>) -> Result<(Self, Listening), StartError> {
        let mut listening = Listening::new();
        let mut open = |role: Role, addr, backlog: Option<u32>, handed: Option<TcpListener>| {
            let socket = handed.map_or_else(|| socket::listen(addr, backlog.unwrap_or(BACKLOG)), Ok);
            let bound = socket.and_then(|socket| {
                listening.add(role, &socket)?;
                Ok((socket.local_addr()?, socket))
            });
            bound.map_err(|source| StartError::Listen { role: role.as_str(), addr, source })
        };
        let mut handed = |role| old.as_mut().map(|old| old.take(role)).unwrap_or_default().into_iter();
        let (admin_addr, admin) = open(Role::Admin, config.admin.listen, None, handed(Role::Admin).next())?;
        let inbound = (config.inbound.listen, config.inbound.backlog);
        let (inbound_addr, inbound) = open(Role::Inbound, inbound.0, inbound.1, handed(Role::Inbound).next())?;
        let mut addrs = Addrs { admin: admin_addr, inbound: inbound_addr, outbound: vec![], tap: None };
        let mut traffic = vec![Listener { direction: Direction::Inbound, socket: inbound }];
        let mut of_outbound = handed(Role::Outbound);
        for addr in &config.outbound.listen {
            let (addr, socket) = open(Role::Outbound, *addr, config.outbound.backlog, of_outbound.next())?;
            addrs.outbound.push(addr);
            traffic.push(Listener { direction: Direction::Outbound, socket });
        }
        let tap = config.tap.as_ref().map(|tap| open(Role::Tap, tap.listen, None, handed(Role::Tap).next()));
        let tap = tap.transpose()?.map(|(addr, socket)| {
            addrs.tap = Some(addr);
            socket
        });
        Ok((Self { admin, tap, traffic, addrs }, listening))
    }

    fn addrs(&self) -> Addrs {
        self.addrs.clone()
    }
}

fn registry(config: &Config) -> Registry {
    let registry = Registry::new(config.process.workers, config.process.metrics_series_cap);
    build::register(&registry);
    process::register(&registry);
    let tls = tls::info(config.identity.key_exchange);
    registry.collector(move |out| {
        let labels = Labels::new()
            .with("tls_suites", &tls.suites)
            .with("tls_kx_groups", &tls.groups)
            .with("tls_rand", &tls.random)
            .with("tls_key_provider", &tls.keys)
            .with("tls_fips", tls.fips);
        out.push(Sample::level("rustls_info", "What TLS is made with", 1.0).labels(labels));
    });
    registry
}

fn tls_store(config: &Config) -> Result<Store, StartError> {
    let identity = &config.identity;
    let (name, id) = (identity.server_name.clone(), identity.id.clone());
    Store::with_exchange(&identity.trust_anchors, name, id, identity.key_exchange)
        .map_err(|e| StartError::Identity(e.into()))
}

fn discovery(
    config: &Config,
    services: &Services,
    policy_channel: Counted,
    addrs: &Addrs,
    clock: &Clock,
    runtime: &tokio::runtime::Runtime,
    registry: &Registry,
) -> Result<Discovery, StartError> {
    let (destination, policy) = (&config.destination, &config.policy);
    let sources = Sources {
        destination: services
            .channel(Client::Destination, &destination.service, Caller::Certified)
            .map_err(StartError::Control)?,
        destination_context: destination.context.clone(),
        destination_following: following(config, &destination.service),
        policy: policy_channel,
        workload: policy.workload.clone(),
        policy_following: following(config, &policy.service),
    };
    let settings = Settings {
        timeout: destination.timeout,
        profile_networks: destination.profile_networks.clone(),
        profile_suffixes: destination.profile_suffixes.clone(),
        profile_patience: destination.profile_patience,
        detect_timeout: config.outbound.detect_timeout,
        outbound_idle: config.outbound.discovery_idle,
        inbound: InboundSettings::new(&config.inbound, addrs.admin.port(), addrs.inbound.port(), clock.clone()),
    };
    Ok(Discovery::new(runtime.handle().clone(), sources, settings, registry))
}

/// What keeps this workload certified, as long as the process lives.
fn certifying_by(
    config: &Config,
    services: &Services,
    reporter: identity::Reporter,
    tls: Store,
    registry: &Registry,
) -> Result<Pin<Box<dyn Future<Output = ()> + Send>>, StartError> {
    let service = match &config.identity.source {
        IdentitySource::Workload(api) => {
            return Ok(Box::pin(identity::follow_workload_api(api.clone(), config.identity.id.clone(), reporter)));
        }
        IdentitySource::Service(service) => service.clone(),
    };
    let keys = identity::load_or_make(&service.dir, &config.identity.id).map_err(|e| StartError::Identity(e.into()))?;
    let anchors =
        services.channel(Client::Identity, &service.service, Caller::Certified).map_err(StartError::Control)?;
    let following = following(config, &service.service);
    let certifier = Certifier::new(config.identity.id.clone(), service, services.clone(), keys, reporter);
    let anchors = identity::follow_anchors(anchors, tls, following, registry.clone());
    Ok(Box::pin(async move {
        tokio::join!(identity::run(certifier), anchors);
    }))
}

/// Where workers leave their spans, and what takes them to the collector.
fn traces_to(
    config: &config::Traces,
    services: &Services,
    registry: &Registry,
) -> Result<(Traces, impl Future<Output = ()> + use<>), StartError> {
    let collector = services.channel(Client::Opentelemetry, &config.collector, Caller::Certified);
    let exporter = Exporter::new(collector.map_err(StartError::Control)?, config, registry);
    let (traces, spans) = Traces::new(registry);
    Ok((traces, exporter.run(spans)))
}

/// Limits on streams are for control planes that may sit behind something that hangs; loopback does not.
fn following(config: &Config, service: &ControlAddr) -> Following {
    let limits = if service.addr.is_loopback() { StreamLimits::default() } else { config.control.streams };
    Following { backoff: config.control.backoff, limits, absent: None, refused: Some(REFUSED) }
}

/// The lines that operators look for at start.
fn announce(config: &Config, addrs: &Addrs) {
    tracing::info!("Admin interface on {}", addrs.admin);
    tracing::info!("Inbound interface on {}", addrs.inbound);
    for addr in &addrs.outbound {
        tracing::info!("Outbound interface on {addr}");
    }
    if let Some(addr) = addrs.tap {
        tracing::info!("Tap interface on {addr}");
    }
    tracing::info!("SNI is {}", config.identity.server_name);
    tracing::info!("Local identity is {}", config.identity.id);
    let service = &config.destination.service;
    match &service.identity {
        Some(identity) => tracing::info!("Destinations resolved via {} ({identity})", service.addr),
        None => tracing::info!("Destinations resolved via {}", service.addr),
    }
}

/// Says in the pid file that this process serves.
async fn name_once_ready(pid_file: PathBuf, readiness: Readiness) {
    readiness.ready().await;
    pid_file::write(&pid_file);
}

/// Who taps once another process has taken over taps that one.
async fn until_taken_over(tap_server: impl Future<Output = io::Result<()>>, mut over: watch::Receiver<bool>) {
    let taken_over = async {
        if over.wait_for(|over| *over).await.is_err() {
            // Nobody can take over.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = tap_server => {
            if let Err(error) = ended {
                tracing::error!(%error, "The tap server has ended");
            }
        }
        () = taken_over => {}
    }
}

async fn sweep_metrics(registry: Registry, retain: Duration) {
    loop {
        tokio::time::sleep(METRICS_SWEEP.min(retain)).await;
        registry.evict_idle(std::time::Instant::now(), retain);
    }
}
