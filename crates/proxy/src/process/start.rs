//! Start-up, as a list.

use super::{
    admin,
    control::{Caller, Following, Resolver, Services},
    discovery::{Discovery, InboundSettings, Settings, Sources},
    identity::{self, Certifier},
    in_flight::InFlight,
    rate_limit::{self, Clock},
    run::{Ending, Event, Handle},
    shutdown,
    spoken::SpokenPorts,
    tap,
    traces::Exporter,
    worker::{Context, Direction, OriginalDst},
    workers::{self, Listener, Shared},
};
use crate::{
    Config,
    config::{ControlAddr, StreamLimits},
    records::{AccessLog, Readers, Sinks, Taps, Traces},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    time::Duration,
};
use weft_telemetry::{LogHandle, Readiness, Registry, Shard, build, process};
use weft_transport::{drain, socket, tls::Store};

/// The kernel's own limit (`somaxconn`) applies besides.
const BACKLOG: u32 = 4096;
/// How often metrics that nobody holds are looked for.
const METRICS_SWEEP: Duration = Duration::from_secs(30);

/// What a caller may replace.
pub struct Options {
    pub original_dst: OriginalDst,
    pub logs: LogHandle,
    /// What rate limits are measured by.
    pub clock: Clock,
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
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] io::Error),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            original_dst: Arc::new(|_, tcp| socket::original_dst(tcp)),
            logs: LogHandle::off(),
            clock: rate_limit::clock(),
            signals: false,
            ask: Duration::from_secs(1),
            access_log: Box::new(io::stderr()),
        }
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

    let listeners = Listeners::bind(&config)?;
    let addrs = listeners.addrs();
    let tls = tls_store(&config)?;
    let keys = identity::load_or_make(&config.identity.dir, &config.identity.id)
        .map_err(|e| StartError::Identity(e.into()))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let entered = runtime.enter();
    let (certifying, certified) = identity::uncertified();
    let services = Services {
        resolver: Resolver::new(&config.control, &registry),
        tls: tls.clone(),
        connect: config.control.connect,
        certified: certified.clone(),
    };
    let discovery = discovery(&config, &services, &addrs, &options.clock, &runtime, &registry)?;
    let certifier = Certifier::new(config.identity.clone(), services.clone(), keys, certifying, &registry);
    let anchors =
        services.channel("identity", &config.identity.service, Caller::Certified).map_err(StartError::Control)?;
    let readers = Readers::default();
    let (access_log, log_thread) = match config.access_log {
        Some(format) => {
            let started = AccessLog::start(format, options.access_log, &registry).map_err(StartError::Thread)?;
            (Some(started.0), Some(started.1))
        }
        None => (None, None),
    };
    let taps = Taps::new(&registry);
    let (traces, exporting) = match &config.traces {
        Some(traces) => {
            let collector = services.channel("opentelemetry", &traces.collector, Caller::Certified);
            let exporter = Exporter::new(collector.map_err(StartError::Control)?, traces, &registry);
            let (traces, spans) = Traces::new(&registry);
            (Some(traces), Some((exporter, spans)))
        }
        None => (None, None),
    };
    let sinks = Sinks { taps: taps.clone(), access_log, traces };
    let state = admin::State {
        readers: readers.clone(),
        registry: registry.clone(),
        readiness: readiness.clone(),
        logs: options.logs.clone(),
        shutdown: trigger.clone(),
        shutdown_enabled: config.admin.shutdown,
    };
    let guard = admin::Guard::new(tls.clone(), discovery.inbound(addrs.admin.port()), &registry);
    drop(entered);

    announce(&config, &addrs);
    let shared = Shared::new(workers);
    shared.register(&registry);
    let inbound_in_flight = InFlight::new(config.inbound.max_in_flight);
    let inbound_waiting = InFlight::new(config.inbound.http_queue.capacity);
    let outbound_in_flight = InFlight::new(config.outbound.max_in_flight);
    let spoken = Arc::new(SpokenPorts::default());
    spoken.register(&registry);
    let contexts = (0..workers).map(|index| Context {
        shard: Shard::worker(index),
        config: config.clone(),
        registry: registry.clone(),
        discovery: discovery.clone(),
        spoken: spoken.clone(),
        inbound_in_flight: inbound_in_flight.clone(),
        inbound_waiting: inbound_waiting.clone(),
        outbound_in_flight: outbound_in_flight.clone(),
        tls: tls.clone(),
        drain: drain_watch.clone(),
        original_dst: options.original_dst.clone(),
        clock: options.clock.clone(),
        inbound_port: addrs.inbound.port(),
        readers: readers.clone(),
        sinks: sinks.clone(),
    });
    let mut threads: Vec<_> = {
        let (contexts, events, certified) = (contexts.collect(), events.clone(), certified.clone());
        let died = move |index| drop(events.send(Event::WorkerDied(index)));
        workers::spawn(contexts, listeners.traffic, &shared, &certified, &registry, died).map_err(StartError::Thread)?
    };
    drop((drain_watch, sinks));
    threads.extend(log_thread);

    let following = following(&config, &config.identity.service);
    runtime.spawn(identity::run(certifier, readiness.task("identity")));
    runtime.spawn(identity::follow_anchors(anchors, tls.clone(), following, registry.clone()));
    runtime.spawn(sweep_metrics(registry.clone(), config.admin.metrics_retain_idle));
    let admin_events = events.clone();
    runtime.spawn(async move {
        let ended = admin::serve(listeners.admin, state, guard).await;
        // Nobody listens any more when the process ends.
        let _ = admin_events.send(Event::AdminEnded(ended.err()));
    });
    if let Some((socket, config)) = listeners.tap.zip(config.tap.clone()) {
        runtime.spawn(async move {
            if let Err(error) = tap::serve(socket, config, tls, taps).await {
                tracing::error!(%error, "The tap server has ended");
            }
        });
    }
    if let Some((exporter, spans)) = exporting {
        runtime.spawn(exporter.run(spans));
    }
    if options.signals {
        runtime.spawn(shutdown::on_signals(trigger.clone()));
    }
    let ending = Ending { pulled, drain: drain_signal, shared: shared.clone(), grace: config.process.shutdown_grace };
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
    fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |role, addr, backlog: Option<u32>| {
            let socket = socket::listen(addr, backlog.unwrap_or(BACKLOG));
            let bound = socket.and_then(|socket| Ok((socket.local_addr()?, socket)));
            bound.map_err(|source| StartError::Listen { role, addr, source })
        };
        let (admin_addr, admin) = bind("admin", config.admin.listen, None)?;
        let (inbound_addr, inbound) = bind("inbound", config.inbound.listen, config.inbound.backlog)?;
        let mut addrs = Addrs { admin: admin_addr, inbound: inbound_addr, outbound: vec![], tap: None };
        let mut traffic = vec![Listener { direction: Direction::Inbound, socket: inbound }];
        for addr in &config.outbound.listen {
            let (addr, socket) = bind("outbound", *addr, config.outbound.backlog)?;
            addrs.outbound.push(addr);
            traffic.push(Listener { direction: Direction::Outbound, socket });
        }
        let tap = config.tap.as_ref().map(|tap| bind("tap", tap.listen, None)).transpose()?;
        let tap = tap.map(|(addr, socket)| {
            addrs.tap = Some(addr);
            socket
        });
        Ok(Self { admin, tap, traffic, addrs })
    }

    fn addrs(&self) -> Addrs {
        self.addrs.clone()
    }
}

fn registry(config: &Config) -> Registry {
    let registry = Registry::new(config.process.workers, config.process.metrics_series_cap);
    build::register(&registry);
    process::register(&registry);
    registry
}

fn tls_store(config: &Config) -> Result<Store, StartError> {
    let identity = &config.identity;
    Store::new(&identity.trust_anchors, identity.server_name.clone(), identity.id.clone())
        .map_err(|e| StartError::Identity(e.into()))
}

fn discovery(
    config: &Config,
    services: &Services,
    addrs: &Addrs,
    clock: &Clock,
    runtime: &tokio::runtime::Runtime,
    registry: &Registry,
) -> Result<Discovery, StartError> {
    let (destination, policy) = (&config.destination, &config.policy);
    let sources = Sources {
        destination: services
            .channel("destination", &destination.service, Caller::Certified)
            .map_err(StartError::Control)?,
        destination_context: destination.context.clone(),
        destination_following: following(config, &destination.service),
        policy: services.channel("policy", &policy.service, Caller::Certified).map_err(StartError::Control)?,
        workload: policy.workload.clone(),
        policy_following: following(config, &policy.service),
    };
    let settings = Settings {
        timeout: destination.timeout,
        profile_networks: destination.profile_networks.clone(),
        profile_suffixes: destination.profile_suffixes.clone(),
        detect_timeout: config.outbound.detect_timeout,
        outbound_idle: config.outbound.discovery_idle,
        inbound: InboundSettings::new(&config.inbound, addrs.admin.port(), addrs.inbound.port(), clock.clone()),
    };
    Ok(Discovery::new(runtime.handle().clone(), sources, settings, registry))
}

/// Limits on streams are for control planes that may sit behind something that hangs; loopback does not.
fn following(config: &Config, service: &ControlAddr) -> Following {
    let limits = if service.addr.is_loopback() { StreamLimits::default() } else { config.control.streams };
    Following { backoff: config.control.backoff, limits }
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

async fn sweep_metrics(registry: Registry, retain: Duration) {
    loop {
        tokio::time::sleep(METRICS_SWEEP.min(retain)).await;
        registry.evict_idle(std::time::Instant::now(), retain);
    }
}
