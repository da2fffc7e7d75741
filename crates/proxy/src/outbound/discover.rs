//! Second stage: what is behind the target, as policy and profile say, and what this worker has made of it.
//!
//! A snapshot is derived once per version of the policy and shared by the worker's connections; a request checks by two
//! atomic loads whether it is still current.

use super::{
    Http, Outbound, Tcp, Wiring,
    backends::{Backends, Spread},
    profile::Profiled,
    retry::Asked,
};
use crate::{
    error::{Code, ProxyError},
    metrics::{
        Metrics, labels, tcp,
        tcp_route::{Family, Series},
    },
    process::discovery::{OutboundTarget, TargetKey, Versioned},
    records::Why,
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use weft_model::{
    ClientPolicy, Meta,
    policy::{
        outbound::{Distribution, OutboundRule, TcpRoute},
        route::{Filter, HttpMatch},
    },
};
use weft_telemetry::Labels;

/// A target as one worker knows it.
pub(super) struct Target {
    pub(super) found: Arc<OutboundTarget>,
    /// Connections that the application opened to it.
    accepted: OnceCell<Arc<tcp::Series>>,
    current: RefCell<Rc<Snapshot>>,
    used: Cell<Instant>,
}

/// What one version of policy and profile says.
pub(super) struct Snapshot {
    pub(super) policy: Arc<Versioned<ClientPolicy>>,
    profile: u64,
    /// The profile says that the port is opaque.
    pub(super) opaque: bool,
    /// The profile that is followed instead of the policy.
    profiled: Option<Profiled>,
    /// Why traffic that follows the policy is refused: something asked for is not carried out.
    refusal: Option<ProxyError>,
    /// By the address of the distribution inside `policy` or `profiled`, which does not move while the snapshot holds it.
    http: RefCell<Vec<(*const Distribution, Rc<Ruled>)>>,
    bytes: RefCell<Vec<(*const TcpRoute, Bytes)>>,
    /// What is known of what follows no rule.
    pub(super) parent: Rc<Why>,
}

/// A rule for requests as this worker has it.
pub(super) struct Ruled {
    pub(super) spread: Rc<Spread<Http>>,
    /// The routes of a profile ask each for their own.
    pub(super) asked: Option<Asked>,
    /// Where the rule stands, for the records.
    pub(super) why: Rc<Why>,
}

/// A rule of [`Snapshot::policy`] and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Found<'p> {
    pub(super) route: &'p Meta,
    /// Empty where they are of gRPC.
    pub(super) matches: &'p [HttpMatch],
    pub(super) filters: &'p [Filter],
    pub(super) rule: &'p OutboundRule,
    /// The route is one of gRPC.
    pub(super) grpc: bool,
}

/// What was made of a route of bytes: what counts its connections, and where they go.
type Bytes = (Rc<Series>, Rc<Spread<Tcp>>);

/// The targets of one worker.
pub(super) struct Targets {
    wiring: Rc<Wiring>,
    known: RefCell<HashMap<TargetKey, Rc<Target>>>,
}

impl Targets {
    pub(super) fn new(wiring: &Rc<Wiring>) -> Self {
        Self { wiring: Rc::clone(wiring), known: RefCell::default() }
    }

    /// What is behind `key`; waits for the control plane's first answers.
    pub(super) async fn get(&self, key: TargetKey) -> Result<Rc<Target>, ProxyError> {
        if let Some(known) = self.known.borrow().get(&key) {
            known.used.set(Instant::now());
            return Ok(Rc::clone(known));
        }
        let found = self.wiring.context.discovery.outbound(key.clone()).await?;
        let target = Rc::new(Target {
            current: RefCell::new(Rc::new(Snapshot::new(&found))),
            found,
            accepted: OnceCell::new(),
            used: Cell::new(Instant::now()),
        });
        self.known.borrow_mut().insert(key, Rc::clone(&target));
        Ok(target)
    }

    /// Visits every target, and forgets those that no connection has used for `idle`.
    pub(super) fn expire(&self, now: Instant, idle: Duration, mut visit: impl FnMut(&Target)) {
        self.known.borrow_mut().retain(|_, target| {
            if Rc::strong_count(target) > 1 {
                target.used.set(now);
            }
            visit(target);
            now.duration_since(target.used.get()) < idle
        });
    }
}

impl Target {
    /// What counts the connections that the application opens to it; a name has none of its own.
    pub(super) fn accepted(&self, metrics: &Metrics) -> &Arc<tcp::Series> {
        self.accepted.get_or_init(|| {
            let labels = Labels::new().with("direction", "outbound").with("peer", "src");
            let labels = self.found.key.addr().map_or(labels.clone(), |addr| labels.join(&labels::target(addr)));
            metrics.tcp.series(metrics.shard, labels.join(&labels::AcceptedTls::Loopback.labels()))
        })
    }

    /// The newest snapshot.
    pub(super) fn snapshot(&self) -> Rc<Snapshot> {
        let current = Rc::clone(&self.current.borrow());
        if current.policy.version == self.found.policy.version() && current.profile == self.found.profile.version() {
            return current;
        }
        let next = Rc::new(Snapshot::new(&self.found));
        // Whoever holds the old one goes on with it; its balancers are found again by name.
        *self.current.borrow_mut() = Rc::clone(&next);
        next
    }

    /// Visits what was made of rules that requests have followed.
    pub(super) fn for_each_http(&self, mut visit: impl FnMut(&Spread<Http>)) {
        self.current.borrow().http.borrow().iter().for_each(|(_, ruled)| visit(&ruled.spread));
    }
}

impl Snapshot {
    fn new(found: &OutboundTarget) -> Self {
        let policy = found.policy.snapshot();
        let profile = found.profile.snapshot();
        let refusal = policy.value.unsupported().map(|what| {
            let text = format!("the policy of {} asks for what this proxy does not carry out: {what}", found.key);
            ProxyError::new(Code::PolicyUnsupported, text)
        });
        Self {
            opaque: profile.value.as_ref().is_some_and(|p| p.opaque),
            profiled: Profiled::new(&profile, found.key.port(), found.budget()),
            parent: Rc::new(Why { parent: policy.value.meta.clone(), route: None, rule: None, authorization: None }),
            profile: profile.version,
            refusal,
            policy,
            http: RefCell::default(),
            bytes: RefCell::default(),
        }
    }

    /// The profile that requests follow, if it is not the policy.
    ///
    /// # Errors
    /// It is, and asks for something that is not carried out.
    pub(super) fn profiled(&self) -> Result<Option<&Profiled>, ProxyError> {
        self.unless_refused(self.profiled.as_ref())
    }

    /// The profile's route that bytes follow, if it is not the policy's; `named` bytes follow the policy alone.
    ///
    /// # Errors
    /// They follow the policy, which asks for something that is not carried out.
    pub(super) fn split(&self, named: bool) -> Result<Option<&TcpRoute>, ProxyError> {
        self.unless_refused(self.profiled.as_ref().and_then(|profiled| profiled.bytes.as_ref()).filter(|_| !named))
    }

    fn unless_refused<T>(&self, by_profile: Option<T>) -> Result<Option<T>, ProxyError> {
        match &self.refusal {
            Some(refusal) if by_profile.is_none() => Err(refusal.clone()),
            _ => Ok(by_profile),
        }
    }

    /// What this worker holds for a rule of [`Self::policy`], and where the rule stands.
    pub(super) fn http(&self, found: Found<'_>, wiring: &Wiring, backends: &Backends<Http>) -> Rc<Ruled> {
        let Found { route, matches: _, filters, rule, grpc } = found;
        self.ruled(&rule.backends, || {
            let spread = Rc::new(backends.spread(&rule.backends, filters));
            let asked = Asked::new(wiring, (&self.policy.value.meta, route), grpc, rule, &spread);
            Ruled { spread, asked: Some(asked), why: Rc::new(self.why(&rule.backends)) }
        })
    }

    /// The same for the routes of the profile that is followed.
    pub(super) fn http_profiled(&self, profiled: &Profiled, backends: &Backends<Http>) -> Rc<Ruled> {
        self.ruled(&profiled.backends, || Ruled {
            spread: Rc::new(backends.spread(&profiled.backends, &[])),
            asked: None,
            why: Rc::clone(&self.parent),
        })
    }

    fn ruled(&self, backends: &Distribution, make: impl FnOnce() -> Ruled) -> Rc<Ruled> {
        let at = std::ptr::from_ref(backends);
        if let Some((_, made)) = self.http.borrow().iter().find(|(a, _)| *a == at) {
            return Rc::clone(made);
        }
        let made = Rc::new(make());
        self.http.borrow_mut().push((at, Rc::clone(&made)));
        made
    }

    fn why(&self, rule: *const Distribution) -> Why {
        let place = self.policy.value.protocol.rules().find(|(_, _, of)| std::ptr::eq(*of, rule));
        let (route, rule) = place.map(|(route, rule, _)| (route.clone(), rule)).unzip();
        Why { parent: self.policy.value.meta.clone(), route, rule, authorization: None }
    }

    /// The same for a route of bytes, whose connections `family` counts.
    pub(super) fn bytes(&self, route: &TcpRoute, family: &Family, outbound: &Outbound) -> Bytes {
        let at = std::ptr::from_ref(route);
        if let Some((_, made)) = self.bytes.borrow().iter().find(|(a, _)| *a == at) {
            return made.clone();
        }
        let series = family.series(outbound.wiring.metrics.shard, &self.policy.value.meta, &route.meta);
        let made = (series, Rc::new(outbound.tcp.spread(&route.backends, &[])));
        self.bytes.borrow_mut().push((at, made.clone()));
        made
    }
}
