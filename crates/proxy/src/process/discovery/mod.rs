//! What the control plane says of targets and ports: one watch per target for the whole process, read by all workers.
//!
//! ```text
//! worker ── outbound(addr or name) ► cache ──► GetProfile + OutboundPolicies.Watch ──► OutboundTarget { policy, profile }
//!        ── endpoints(name) ─► cache ──► Destination.Get ──────────────────────► EndpointsWatch
//!        ── inbound(port) ───► cache ──► InboundServerPolicies.WatchPort ──────► PortPolicy
//!        ── profile(name) ───► cache ──► GetProfile ───────────────────────────► ProfileWatch
//! ```
//! The streams run on the admin thread; workers read snapshots without a lock. While the control plane is away the last
//! known state stays in force, and what it refuses is asked again for as long as somebody holds it. What nobody holds is forgotten
//! after the idle time.

mod cache;
mod endpoints;
mod fallback;
mod inbound;
mod outbound;
mod profile;
mod target;
mod watched;

use self::cache::Cache;
use super::{
    control::{Counted, Following},
    rate_limit::Clock,
};
use crate::{
    config::{DnsSuffixes, Inbound, PortSet},
    error::{Code, ProxyError},
};
pub use endpoints::{EndpointSet, EndpointState, EndpointsWatch};
pub use inbound::PortPolicy;
pub use outbound::OutboundTarget;
pub use profile::{ProfileWatch, Unwatched};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
pub use target::TargetKey;
use tokio::sync::Semaphore;
pub use watched::{Versioned, Watched};
use weft_model::{
    NameAddr,
    decide::cidr::Cidr,
    policy::inbound::{Authorization, DefaultPolicy},
};
use weft_telemetry::{Registry, metrics::Sample};
use weft_wire as wire;

/// The most targets and names that are watched at once, of each kind. Over it new ones are refused.
pub const MAX_WATCHES: usize = 10_000;
/// The most ports that are watched besides those that are from the start. Anybody can connect to any port: over it those give way
/// of which the control plane says no more than the default, or the new one is refused.
pub const MAX_PORTS: usize = 300;
/// The most names whose endpoints are held. Those over [`MAX_WATCHES`] are asked for when another one is forgotten.
pub const MAX_NAMES: usize = 8 * MAX_WATCHES;
/// The most names that are watched of those that clients of the application use, which are looked up only to count their requests
/// by route. Anybody can make up names: over it those without routes give way, then the one that was not used for the longest time.
pub const MAX_PROFILES: usize = 100;
/// How often the caches are looked through for what nobody holds.
const SWEEP: Duration = Duration::from_secs(1);

/// The process-wide caches. Cheap to clone.
#[derive(Clone)]
pub struct Discovery(Arc<Inner>);

struct Inner {
    runtime: tokio::runtime::Handle,
    sources: Sources,
    settings: Settings,
    targets: Cache<TargetKey, OutboundTarget>,
    endpoints: Cache<NameAddr, EndpointsWatch>,
    /// Streams of endpoints that may be open.
    streams: Arc<Semaphore>,
    ports: Cache<u16, PortPolicy>,
    profiles: Cache<NameAddr, ProfileWatch>,
}

/// Whom to ask.
#[derive(Clone)]
pub(super) struct Sources {
    pub(super) destination: Counted,
    pub(super) destination_context: String,
    pub(super) destination_following: Following,
    pub(super) policy: Counted,
    pub(super) workload: String,
    pub(super) policy_following: Following,
}

/// How to treat what they say, and what they do not say.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) timeout: Duration,
    pub(super) profile_networks: Vec<Cidr>,
    pub(super) profile_suffixes: DnsSuffixes,
    /// How long an inbound request waits for a profile.
    pub(super) profile_patience: Duration,
    pub(super) detect_timeout: Duration,
    pub(super) outbound_idle: Duration,
    pub(super) inbound: InboundSettings,
}

/// What holds for a port that the control plane has not spoken of.
#[derive(Clone)]
pub(super) struct InboundSettings {
    pub(super) idle: Duration,
    pub(super) default_policy: DefaultPolicy,
    pub(super) authorizations: Vec<Authorization>,
    pub(super) opaque_ports: PortSet,
    pub(super) detect_timeout: Duration,
    /// Watched from the start, never forgotten.
    pub(super) eager: BTreeSet<u16>,
    /// The proxy's own port, which is probed.
    pub(super) admin_port: u16,
    pub(super) clock: Clock,
}

impl InboundSettings {
    pub(super) fn new(config: &Inbound, admin_port: u16, inbound_port: u16, clock: Clock) -> Self {
        let mut eager = config.ports.clone();
        eager.insert(admin_port);
        if !config.gateway_suffixes.0.is_empty() {
            eager.insert(inbound_port);
        }
        Self {
            idle: config.discovery_idle,
            default_policy: config.default_policy,
            authorizations: config.default_policy.authorizations(&config.cluster_networks),
            opaque_ports: config.opaque_ports.clone(),
            detect_timeout: config.detect_timeout,
            eager,
            admin_port,
            clock,
        }
    }
}

impl Discovery {
    /// Begins to watch the eager ports and to forget what nobody holds, on `runtime`.
    pub(super) fn new(
        runtime: tokio::runtime::Handle,
        sources: Sources,
        settings: Settings,
        registry: &Registry,
    ) -> Self {
        let eager = settings.inbound.eager.len();
        let inner = Arc::new(Inner {
            runtime,
            sources,
            settings,
            targets: Cache::new(MAX_WATCHES),
            endpoints: Cache::new(MAX_NAMES),
            streams: Arc::new(Semaphore::new(MAX_WATCHES)),
            ports: Cache::renewing(eager + MAX_PORTS, PortPolicy::gives_way),
            profiles: Cache::renewing(MAX_PROFILES, ProfileWatch::gives_way),
        });
        for port in &inner.settings.inbound.eager {
            if let Some(held) = inner.ports.get_or_insert(*port, || inner.watch_port(*port)) {
                inner.ports.pin(*port, held);
            }
        }
        let weak = Arc::downgrade(&inner);
        inner.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(inner) = weak.upgrade() else { return };
                inner.sweep(Instant::now());
            }
        });
        let weak = Arc::downgrade(&inner);
        registry.collector(move |out| {
            let Some(inner) = weak.upgrade() else { return };
            let counts = [
                ("outbound", inner.targets.len(), inner.targets.full()),
                ("endpoints", inner.endpoints.len(), inner.endpoints.full()),
                ("inbound", inner.ports.len(), inner.ports.full()),
                ("profiles", inner.profiles.len(), inner.profiles.full()),
            ];
            for (kind, watches, full) in counts {
                let labels = weft_telemetry::Labels::new().with("kind", kind);
                out.push(
                    Sample::gauge("weft_discovery_watches", "Targets that the control plane is asked about", watches)
                        .labels(labels.clone()),
                );
                let help =
                    "New targets that met the most watches of their kind: another one gave way, or they have none";
                out.push(Sample::counter("weft_discovery_full_total", help, full as f64).labels(labels));
            }
        });
        Self(inner)
    }

    /// What is behind an address that an application connects to, or a name that a request is for. Waits for the first
    /// answers. A name without policy and profile has no routes.
    ///
    /// # Errors
    /// [`Code::DiscoveryTimeout`] when they do not come in time; [`Code::PolicyUnsupported`] when the control plane refuses
    /// the question; [`Code::LoadShed`] when too many targets are watched.
    pub async fn outbound(&self, key: impl Into<TargetKey>) -> Result<Arc<OutboundTarget>, ProxyError> {
        let (inner, key) = (&self.0, key.into());
        let target = inner.targets.get_or_insert(key.clone(), || inner.watch_target(&key)).ok_or_else(|| {
            ProxyError::new(Code::LoadShed, format!("more than {MAX_WATCHES} destinations are in use"))
        })?;
        match tokio::time::timeout(inner.settings.timeout, target.answered()).await {
            Ok(Ok(())) => Ok(target),
            Ok(Err(refusal)) => Err(ProxyError::new(
                Code::PolicyUnsupported,
                format!("the control plane refuses to look up {key}: {refusal}"),
            )),
            Err(_) => Err(ProxyError::new(
                Code::DiscoveryTimeout,
                format!("the control plane has not answered for {key} in {:?}", inner.settings.timeout),
            )),
        }
    }

    /// The endpoints of a target, at once; [`EndpointState::Unknown`] until the first answer.
    pub fn endpoints(&self, target: &NameAddr) -> Arc<EndpointsWatch> {
        let inner = &self.0;
        let watch = inner.endpoints.get_or_insert(target.clone(), || inner.watch_endpoints(target));
        watch.unwrap_or_else(|| Arc::new(EndpointsWatch::new(target.clone())))
    }

    /// The profile of a name that inbound requests are sent to, at once.
    ///
    /// # Errors
    /// It is not to be looked up, or too many are.
    pub fn profile(&self, name: &NameAddr) -> Result<Arc<ProfileWatch>, Unwatched> {
        let inner = &self.0;
        if !inner.settings.profile_suffixes.contains(&name.name) {
            return Err(Unwatched::Outside);
        }
        inner.profiles.get_or_insert(name.clone(), || inner.watch_profile(name)).ok_or(Unwatched::Full)
    }

    /// Whoever holds the profile of a name goes on using it.
    pub fn renew_profile(&self, name: &NameAddr) {
        self.0.profiles.renew(name);
    }

    /// The policy of an inbound port, at once: the default policy until the control plane has answered. Where [`MAX_PORTS`] others
    /// are in use a new one refuses everything.
    pub fn inbound(&self, port: u16) -> Arc<PortPolicy> {
        let inner = &self.0;
        let policy = inner.ports.get_or_insert(port, || inner.watch_port(port));
        policy.unwrap_or_else(|| Arc::new(PortPolicy::refusing(port, &inner.settings.inbound)))
    }
}

impl Inner {
    fn sweep(&self, now: Instant) {
        self.targets.sweep(now, self.settings.outbound_idle);
        self.endpoints.sweep(now, self.settings.outbound_idle);
        self.ports.sweep(now, self.settings.inbound.idle);
        self.profiles.sweep(now, self.settings.inbound.idle);
    }

    fn watch_target(&self, key: &TargetKey) -> (Arc<OutboundTarget>, tokio::task::JoinHandle<()>) {
        let target = Arc::new(OutboundTarget::new(key.clone(), &self.settings));
        let task = self.runtime.spawn(outbound::watch(target.published(), self.sources.clone()));
        (target, task)
    }

    fn watch_endpoints(&self, target: &NameAddr) -> (Arc<EndpointsWatch>, tokio::task::JoinHandle<()>) {
        let watch = Arc::new(EndpointsWatch::new(target.clone()));
        let client = wire::destination::Client::new(self.sources.destination.clone());
        let context = self.sources.destination_context.clone();
        let following = self.sources.destination_following;
        let watching = endpoints::watch(watch.published(), target.to_string(), client, context, following);
        let streams = self.streams.clone();
        let task = self.runtime.spawn(async move {
            // It is never closed.
            let _place = streams.acquire_owned().await;
            watching.await;
        });
        (watch, task)
    }

    fn watch_profile(&self, name: &NameAddr) -> (Arc<ProfileWatch>, tokio::task::JoinHandle<()>) {
        let watch = Arc::new(ProfileWatch::new(name.clone(), self.settings.profile_patience));
        let client = wire::destination::Client::new(self.sources.destination.clone());
        let context = self.sources.destination_context.clone();
        let following = self.sources.destination_following;
        let task = self.runtime.spawn(profile::watch(watch.published(), name.to_string(), client, context, following));
        (watch, task)
    }

    fn watch_port(&self, port: u16) -> (Arc<PortPolicy>, tokio::task::JoinHandle<()>) {
        let policy = Arc::new(PortPolicy::new(port, &self.settings.inbound));
        let client = wire::inbound::Client::new(self.sources.policy.clone());
        let workload = self.sources.workload.clone();
        let following = self.sources.policy_following;
        let task = self.runtime.spawn(inbound::watch(policy.published(), port, client, workload, following));
        (policy, task)
    }
}
