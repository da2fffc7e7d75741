//! Whether a request is let in, as the policy of its port says now: the same for ports of the application, for the gateway's, and
//! for the admin server's.
//!
//! ```text
//! carried out at all? ─► route ─► may the client use it? ─► told, counted ─► filters ─► rate limit
//! ```
//! What counts a request or is drawn for it does so once, however often it is attempted. What becomes of a rule's filters is up to
//! the [`Door`]; where the request goes is not known here.

use super::connected::{Connected, audit, reason, unsupported};
use crate::{
    error::{Code, ProxyError},
    metrics::{Metrics, labels},
    process::{
        discovery::{PortPolicy, Versioned},
        rate_limit::Limits,
    },
    records::Why,
};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};
use weft_model::{
    Meta, ServerPolicy,
    decide::{
        admit::{Admission, admit},
        rate_limit::Scope,
        route::RequestView,
    },
    policy::route::{Filter, HttpMatch},
};
use weft_telemetry::{Counter, Labels};

/// Authorities of one connection whose handles are held; those of more are looked up each time.
const MAX_NAMED: usize = 16;

/// What one kind of port makes of the requests that are let in.
pub(crate) trait Door {
    /// Held for requests that follow one rule by one authorization.
    type Handles;

    fn metrics(&self) -> &Metrics;

    /// By the clock of rate limits.
    fn now(&self) -> Instant;

    /// `labels` are those of server, route and authorization; `authority` is named if metrics shall name it.
    fn handles(
        &self,
        policy: &ServerPolicy,
        permit: &Permit<'_>,
        labels: &Labels,
        authority: Option<&str>,
    ) -> Self::Handles;

    /// Carries out the filters of the rule, or refuses them.
    ///
    /// # Errors
    /// The request is answered instead of going on.
    fn filters(&self, permit: &Permit<'_>, asked: &Asked<'_>) -> Result<(), ProxyError>;
}

/// A request that asks to be let in.
pub(crate) struct Asked<'a> {
    pub(crate) request: &'a dyn RequestView,
    /// No attempt of it has asked before.
    pub(crate) first: bool,
    pub(crate) authority: Option<&'a str>,
}

/// Which rule a request follows, and what lets it in.
pub(crate) struct Permit<'p> {
    pub(crate) route: &'p Meta,
    pub(crate) matches: &'p [HttpMatch],
    pub(crate) filters: &'p [Filter],
    pub(crate) by: &'p Meta,
}

/// Decides the requests of one client by the policy of one port.
pub(crate) struct Admissions<H> {
    port: Arc<PortPolicy>,
    connected: Connected,
    current: RefCell<Rc<Snapshot<H>>>,
}

/// What requests have in common that follow one rule by one authorization.
pub(crate) struct LetIn<H> {
    allowed: Counter,
    why: Rc<Why>,
    pub(crate) handles: H,
}

/// What one version of the policy says, and what was counted under it.
struct Snapshot<H> {
    policy: Arc<Versioned<ServerPolicy>>,
    refusal: Option<ProxyError>,
    /// What this client's requests are measured by.
    limits: Option<Limits>,
    let_in: RefCell<Vec<(Decided, Rc<LetIn<H>>)>>,
    /// The same where metrics name the authority, which clients choose: few are held.
    named: RefCell<Vec<Named<H>>>,
    /// What counts the requests that are refused, as soon as one is: to look it up takes a lock.
    refused: RefCell<Vec<(Refused, Counter)>>,
}

/// Why requests are refused that are counted together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// By this route, which lets the client in nowhere.
    Denied(*const Meta),
    NoRoute,
    Limited(Scope),
}

/// Route, its rule's filters, and authorization, by their addresses inside the policy or the program, which do not move
/// meanwhile.
type Decided = (*const Meta, *const Filter, *const Meta);

/// What requests have in common that also name one authority.
type Named<H> = (Decided, String, Rc<LetIn<H>>);

impl<H> Admissions<H> {
    pub(crate) fn new(port: Arc<PortPolicy>, connected: Connected, now: Instant) -> Self {
        let current = RefCell::new(Rc::new(Snapshot::new(&port, &connected, now)));
        Self { port, connected, current }
    }

    pub(crate) fn connected(&self) -> &Connected {
        &self.connected
    }

    pub(crate) fn port(&self) -> &PortPolicy {
        &self.port
    }

    /// Decides on a request. `why` is told by which objects, also if they refuse it.
    ///
    /// # Errors
    /// It is not let in, or its filters answer it.
    pub(crate) fn admit<D: Door<Handles = H>>(
        &self,
        door: &D,
        asked: &Asked<'_>,
        why: &mut dyn FnMut(&Rc<Why>),
    ) -> Result<Rc<LetIn<H>>, ProxyError> {
        let snapshot = self.snapshot(door);
        let policy = &snapshot.policy.value;
        if let Some(refusal) = &snapshot.refusal {
            why(&Rc::new(reason(policy, None, None)));
            return Err(refusal.clone());
        }
        let permit = match admit(policy, &self.connected.client(), asked.request) {
            Admission::Permitted { route, matches, filters, by } => Permit { route, matches, filters, by },
            refused => {
                let route = if let Admission::Denied { route } = refused { Some(route) } else { None };
                why(&Rc::new(reason(policy, route, None)));
                return Err(self.refuse(door.metrics(), &snapshot, route));
            }
        };
        let let_in = snapshot.let_in(&permit, asked.authority, || self.make(door, policy, &permit, asked.authority));
        why(&let_in.why);
        if asked.first {
            let_in.allowed.inc();
        }
        door.filters(&permit, asked)?;
        if asked.first
            && let Some(limits) = &snapshot.limits
        {
            self.measure(door, &snapshot, limits)?;
        }
        Ok(let_in)
    }

    fn snapshot(&self, door: &impl Door<Handles = H>) -> Rc<Snapshot<H>> {
        let mut current = self.current.borrow_mut();
        if current.policy.version != self.port.policy.version() {
            *current = Rc::new(Snapshot::new(&self.port, &self.connected, door.now()));
        }
        Rc::clone(&current)
    }

    fn labels(&self, policy: &ServerPolicy) -> Labels {
        self.connected.labels().join(&labels::server(&policy.meta, self.port.port))
    }

    /// It fits no route, or that lets this client in nowhere.
    fn refuse(&self, metrics: &Metrics, snapshot: &Snapshot<H>, route: Option<&Meta>) -> ProxyError {
        let labels = || self.labels(&snapshot.policy.value);
        let Some(route) = route else {
            snapshot.count(Refused::NoRoute, || metrics.counter(&metrics.route_not_found, &labels()));
            return ProxyError::new(Code::RouteNotFound, "no route found for request");
        };
        let denied = || metrics.counter(&metrics.http_deny, &labels().join(&labels::route(route)));
        snapshot.count(Refused::Denied(route), denied);
        ProxyError::new(Code::Unauthorized, "unauthorized request on route")
    }

    fn make<D: Door<Handles = H>>(
        &self,
        door: &D,
        policy: &ServerPolicy,
        permit: &Permit<'_>,
        authority: Option<&str>,
    ) -> LetIn<H> {
        audit(&self.connected, permit.by);
        let labels = self.labels(policy).join(&labels::route(permit.route)).join(&labels::authorization(permit.by));
        let metrics = door.metrics();
        LetIn {
            allowed: metrics.counter(&metrics.http_allow, &labels),
            why: Rc::new(reason(policy, Some(permit.route), Some(permit.by))),
            handles: door.handles(policy, permit, &labels, authority),
        }
    }

    /// Whether the port's rate limit has room; if not, that is counted.
    fn measure(
        &self,
        door: &impl Door<Handles = H>,
        snapshot: &Snapshot<H>,
        limits: &Limits,
    ) -> Result<(), ProxyError> {
        limits.admit(door.now()).map_err(|exceeded| {
            snapshot.count(Refused::Limited(exceeded.scope), || {
                let limit = labels::rate_limit(&limits.limit().meta, exceeded.scope);
                let metrics = door.metrics();
                metrics.counter(&metrics.rate_limited, &self.labels(&snapshot.policy.value).join(&limit))
            });
            ProxyError::new(Code::RateLimited, exceeded.to_string())
        })
    }
}

impl<H> Snapshot<H> {
    fn new(port: &PortPolicy, connected: &Connected, now: Instant) -> Self {
        let policy = port.policy.snapshot();
        let limiter = port.limiter().filter(|_| policy.value.protocol.rate_limit().is_some());
        let limits = limiter.map(|limiter| limiter.of(connected.tls.identity(), now));
        let refusal = unsupported(&policy.value, port.port);
        Self {
            policy,
            refusal,
            limits,
            let_in: RefCell::default(),
            named: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Counts a refusal; what counts it is made for the first.
    fn count(&self, why: Refused, make: impl FnOnce() -> Counter) {
        let mut held = self.refused.borrow_mut();
        if let Some((_, counter)) = held.iter().find(|(refused, _)| *refused == why) {
            return counter.inc();
        }
        let counter = make();
        counter.inc();
        held.push((why, counter));
    }

    fn let_in(&self, permit: &Permit<'_>, authority: Option<&str>, make: impl FnOnce() -> LetIn<H>) -> Rc<LetIn<H>> {
        let decided = (std::ptr::from_ref(permit.route), permit.filters.as_ptr(), std::ptr::from_ref(permit.by));
        let Some(authority) = authority else {
            let mut held = self.let_in.borrow_mut();
            if let Some((_, let_in)) = held.iter().find(|(d, _)| *d == decided) {
                return Rc::clone(let_in);
            }
            let let_in = Rc::new(make());
            held.push((decided, Rc::clone(&let_in)));
            return let_in;
        };
        let mut held = self.named.borrow_mut();
        if let Some((.., let_in)) = held.iter().find(|(d, a, _)| *d == decided && a == authority) {
            return Rc::clone(let_in);
        }
        let let_in = Rc::new(make());
        if held.len() < MAX_NAMED {
            held.push((decided, authority.to_owned(), Rc::clone(&let_in)));
        }
        let_in
    }
}
