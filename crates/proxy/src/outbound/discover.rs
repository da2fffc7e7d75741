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
        Metrics, detect, labels, route, tcp,
        tcp_route::{Family, Series},
    },
    process::discovery::{OutboundTarget, TargetKey, Versioned},
    records::Why,
};
use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use weft_model::{
    ClientPolicy, Meta,
    policy::{
        outbound::{Breaker, ClientProtocol, Distribution, OutboundRule, TcpRoute},
        route::{Filter, HttpMatch},
    },
};
use weft_telemetry::{Counter, Labels};

/// A target as one worker knows it.
pub(super) struct Target {
    wiring: Rc<Wiring>,
    pub(super) found: Arc<OutboundTarget>,
    /// Connections that the application opened to it.
    accepted: OnceCell<Arc<tcp::Series>>,
    current: RefCell<Rc<Snapshot>>,
    /// Those before it that connections still hold.
    past: RefCell<Vec<Weak<Snapshot>>>,
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
    /// Connections that are treated so.
    pub(super) protocol: Counter,
    /// What detection found out; `None` where it is not asked.
    pub(super) detected: Option<detect::Detected>,
    /// By the address of the distribution inside `policy` or `profiled`, which does not move while the snapshot holds it.
    http: RefCell<Vec<(*const Distribution, Rc<Ruled>)>>,
    bytes: RefCell<Vec<(*const TcpRoute, Carried)>>,
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
    /// What counts its requests; those of a profile are counted otherwise.
    pub(super) series: Option<route::Hosts>,
    /// The same of its backends, in the order of the spread's choices.
    pub(super) backends: Vec<Rc<route::Backend>>,
}

/// A rule of [`Snapshot::policy`] and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Found<'p> {
    pub(super) route: &'p Meta,
    /// Empty where they are of gRPC.
    pub(super) matches: &'p [HttpMatch],
    pub(super) filters: &'p [Filter],
    pub(super) rule: &'p OutboundRule,
    pub(super) kind: route::Kind,
    pub(super) breaker: Option<&'p Breaker>,
}

/// What was made of a route of bytes: what counts its connections, and where they go.
type Carried = (Rc<Series>, Rc<Spread<Tcp>>);

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
            current: RefCell::new(Rc::new(Snapshot::new(&self.wiring, &found))),
            wiring: Rc::clone(&self.wiring),
            found,
            accepted: OnceCell::new(),
            past: RefCell::default(),
            used: Cell::new(Instant::now()),
        });
        // Others may have waited for the same answer: all share what the first has made.
        Ok(Rc::clone(self.known.borrow_mut().entry(key).or_insert(target)))
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
        let next = Rc::new(Snapshot::new(&self.wiring, &self.found));
        // Whoever holds the old one goes on with it; its balancers are found again by name.
        let old = self.current.replace(Rc::clone(&next));
        let mut past = self.past.borrow_mut();
        past.retain(|snapshot| snapshot.strong_count() > 0);
        past.push(Rc::downgrade(&old));
        next
    }

    /// Visits what was made of rules that requests have followed.
    pub(super) fn for_each_http(&self, mut visit: impl FnMut(&Spread<Http>)) {
        let (current, past) = (Rc::clone(&self.current.borrow()), self.past.borrow());
        for snapshot in past.iter().filter_map(Weak::upgrade).chain([current]) {
            snapshot.http.borrow().iter().for_each(|(_, ruled)| visit(&ruled.spread));
        }
    }
}

impl Snapshot {
    fn new(wiring: &Wiring, found: &OutboundTarget) -> Self {
        let policy = found.policy.snapshot();
        let profile = found.profile.snapshot();
        let refusal = policy.value.unsupported().map(|what| {
            let text = format!("the policy of {} asks for what this proxy does not carry out: {what}", found.key);
            ProxyError::new(Code::PolicyUnsupported, text)
        });
        let opaque = profile.value.as_ref().is_some_and(|p| p.opaque);
        let (outbound, shard, parent) = (&wiring.outbound, wiring.metrics.shard, &policy.value.meta);
        let detects = !opaque && matches!(policy.value.protocol, ClientProtocol::Detect { .. });
        Self {
            protocol: outbound.protocol(shard, protocol_name(opaque, &policy.value.protocol), parent),
            detected: detects.then(|| outbound.detected(shard, parent)),
            profiled: Profiled::new(&profile, found.key.port(), found.budget()),
            opaque,
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
        let Found { route, matches: _, filters, rule, kind, breaker } = found;
        self.ruled(&rule.backends, || {
            let (parent, shard) = (&self.policy.value.meta, wiring.metrics.shard);
            let spread = Rc::new(backends.spread(&rule.backends, filters, parent, breaker));
            let asked = Asked::new(wiring, (parent, route), kind == route::Kind::Grpc, rule, &spread);
            let families = wiring.outbound.route(kind);
            let backend = |meta| Rc::new(families.backend(shard, parent, route, meta));
            Ruled {
                spread,
                asked: Some(asked),
                why: Rc::new(self.why(&rule.backends)),
                series: Some(families.route(shard, parent, route, wiring.context.config.outbound.hostname_labels)),
                backends: rule.backends.iter().map(|b| backend(&b.backend.meta)).collect(),
            }
        })
    }

    /// The same for the routes of the profile that is followed.
    pub(super) fn http_profiled(&self, profiled: &Profiled, backends: &Backends<Http>) -> Rc<Ruled> {
        self.ruled(&profiled.backends, || Ruled {
            spread: Rc::new(backends.spread(&profiled.backends, &[], &self.policy.value.meta, None)),
            asked: None,
            why: Rc::clone(&self.parent),
            series: None,
            backends: vec![],
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
    pub(super) fn bytes(&self, route: &TcpRoute, family: &Family, outbound: &Outbound) -> Carried {
        let at = std::ptr::from_ref(route);
        if let Some((_, made)) = self.bytes.borrow().iter().find(|(a, _)| *a == at) {
            return made.clone();
        }
        let parent = &self.policy.value.meta;
        let series = family.series(outbound.wiring.metrics.shard, parent, &route.meta);
        let tls = matches!(self.policy.value.protocol, ClientProtocol::Tls(_));
        let backends = if tls { &outbound.tls } else { &outbound.tcp };
        let made = (series, Rc::new(backends.spread(&route.backends, &[], parent, None)));
        self.bytes.borrow_mut().push((at, made.clone()));
        made
    }
}

/// Linkerd's word for what policy and profile say of a target.
fn protocol_name(opaque: bool, protocol: &ClientProtocol) -> &'static str {
    match protocol {
        _ if opaque => "opaq",
        ClientProtocol::Detect { .. } => "detect",
        ClientProtocol::Http1(_) => "http/1",
        ClientProtocol::Http2(_) | ClientProtocol::Grpc { .. } => "http/2",
        ClientProtocol::Opaque(_) => "opaq",
        ClientProtocol::Tls(_) => "tls",
    }
}
