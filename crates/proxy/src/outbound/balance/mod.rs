//! Hands out endpoints of one target: the less loaded of two that are ready, or a place in the queue until one is.
//!
//! ```text
//! discovery ─► members (ready | failed | shut) ─► next() ─► connect ─┬─► request ─► outcome ─► accrual
//!                          ▲     ▲      ▲                          │
//!                          │     │      └─── readmit() when the breaker lets one through
//!                          │     └──── failed() ◄──────────────────┘ could not connect: another one is tried
//!                        revive() after a growing wait
//! ```
//! One worker's; what is shared with other threads is the watched set, and what [`shared`] counts for all. Knows nothing of HTTP.

mod accrual;
mod failfast;
mod members;
mod queue;
mod recover;
mod shared;

pub(crate) use accrual::Ticket;
pub(crate) use failfast::QueueLimits;
pub(crate) use members::{Member, Members, Pending};
pub(crate) use shared::{Balancers, Key};

use crate::{
    error::ProxyError,
    metrics::balancer::{Series, Update},
    process::discovery::{EndpointState, EndpointsWatch},
    turn,
};
use failfast::Failfast;
use shared::Shared;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
};
use tokio::{sync::Notify, time::Instant};
use weft_model::{
    Endpoint,
    decide::breaker::Rules,
    policy::outbound::{Backoff, Load},
};
use weft_telemetry::Labels;

/// What a balancer does with an endpoint's connections of its own accord.
pub(crate) trait Connections: 'static {
    /// Waits until an endpoint that failed may be used again, by connecting to it where that disturbs nobody; says whether it
    /// was connected.
    async fn revive(&self) -> Result<bool, ProxyError>;
    /// The endpoint left the set: no connection is kept for later.
    fn retire(&self);
}

/// What differs between balancers.
pub(crate) struct Settings {
    pub(crate) load: Load,
    pub(crate) queue: QueueLimits,
    pub(crate) backoff: Backoff,
    /// When an endpoint that fails is left out.
    pub(crate) rules: Option<Rules>,
    /// What all workers' balancers with these settings share.
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Balancer<C> {
    settings: Settings,
    watch: Arc<EndpointsWatch>,
    connections: Box<dyn Fn(&Endpoint) -> C>,
    state: RefCell<State<C>>,
    /// One for each parent and backend whose requests come here.
    series: RefCell<Vec<Weak<Series>>>,
    /// Wakes those who wait for an endpoint.
    wake: Notify,
}

struct State<C> {
    members: Members<C>,
    version: Option<u64>,
    /// The endpoints of the target are known.
    known: bool,
    failfast: Failfast,
    /// Whether requests may wait, as the series show it.
    open: bool,
    /// Why an endpoint was left out last: the reason that a refused request is told.
    last: Option<ProxyError>,
}

/// An endpoint for one request.
pub(crate) struct Picked<C> {
    pub(crate) member: Rc<Member<C>>,
    /// To be told how it went.
    pub(crate) ticket: Option<Ticket>,
}

impl<C: Connections> Balancer<C> {
    /// Follows `watch` until the balancer is dropped. `connections` makes what hangs on a new endpoint.
    pub(crate) fn new(
        settings: Settings,
        watch: Arc<EndpointsWatch>,
        connections: Box<dyn Fn(&Endpoint) -> C>,
    ) -> Rc<Self> {
        let failfast = Failfast::new(settings.queue.failfast);
        let state = State { members: Members::new(), version: None, known: false, failfast, open: true, last: None };
        let balancer = Rc::new(Self {
            settings,
            watch,
            connections,
            state: RefCell::new(state),
            series: RefCell::default(),
            wake: Notify::new(),
        });
        balancer.refresh();
        balancer
    }

    /// The series with these labels, made by `new` if nobody holds them.
    pub(crate) fn series(&self, labels: &Labels, new: impl FnOnce() -> Series) -> Rc<Series> {
        let mut all = self.series.borrow_mut();
        all.retain(|series| series.strong_count() > 0);
        let mut held = all.iter().filter_map(Weak::upgrade);
        if let Some(held) = held.find(|series| series.labels() == labels) {
            return held;
        }
        let series = Rc::new(new());
        all.push(Rc::downgrade(&series));
        let state = self.state.borrow();
        let (ready, left_out) = state.members.counts();
        series.endpoints(ready, left_out);
        if state.known {
            series.update(Update::Reset);
        }
        series
    }

    /// Whether a request finds an endpoint now, or may soon: before the endpoints are known nobody is passed over for that.
    pub(crate) fn is_available(&self) -> bool {
        self.refresh();
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let mut ready = state.members.ready();
        let admitting = ready.any(|member| member.accrual.as_ref().is_none_or(|accrual| accrual.admits(now)));
        drop(ready);
        admitting || (!state.known && state.failfast.deadline(now).is_some())
    }

    /// Visits what is held per endpoint, after a look whether the set has changed, and whom other workers have left out.
    pub(crate) fn for_each(self: &Rc<Self>, mut visit: impl FnMut(&Member<C>)) {
        self.refresh();
        let now = Instant::now();
        let refused = |member: &&Rc<Member<C>>| member.accrual.as_ref().is_some_and(|accrual| !accrual.admits(now));
        let shut: Vec<_> = self.state.borrow().members.ready().filter(refused).cloned().collect();
        for member in shut {
            if let Some(accrual) = &member.accrual {
                self.shut(&member, accrual);
            }
        }
        self.state.borrow().members.iter().for_each(|m| visit(m));
    }

    /// For who connects to the endpoint itself, and has tried some: one that is ready, else one that could not be connected
    /// lately. No circuit breaker is asked.
    pub(crate) fn untried(&self, tried: &[SocketAddr]) -> Option<Rc<Member<C>>> {
        self.refresh();
        let members = &self.state.borrow().members;
        let ready = members.pick(turn::now(), |n| fastrand::usize(..n));
        ready
            .filter(|member| !tried.contains(&member.endpoint.addr))
            .or_else(|| members.untried(tried, |n| fastrand::usize(..n)))
    }

    fn pick(self: &Rc<Self>) -> Option<Picked<C>> {
        self.refresh();
        loop {
            let member = self.state.borrow().members.pick(turn::now(), |n| fastrand::usize(..n))?;
            let Some(accrual) = &member.accrual else { return Some(Picked { member, ticket: None }) };
            if let ticket @ Some(_) = accrual.admit(Instant::now()) {
                return Some(Picked { member, ticket });
            }
            self.shut(&member, accrual);
        }
    }

    /// Takes over a changed set: one atomic load when nothing changed.
    fn refresh(&self) {
        let version = self.watch.endpoints.version();
        if self.state.borrow().version == Some(version) {
            return;
        }
        let set = self.watch.endpoints.snapshot();
        let now = Instant::now();
        let gone = {
            let mut state = self.state.borrow_mut();
            state.version = Some(set.version);
            let mut added = false;
            let gone = state.members.update(&set.value.map, |endpoint| {
                added = true;
                let rules = self.settings.rules;
                let accrual = rules.map(|rules| self.settings.shared.accrual(endpoint.addr, rules, now));
                let connections = (self.connections)(endpoint);
                Member::new(endpoint.clone(), connections, self.settings.load, accrual, now.into_std())
            });
            let first = set.value.state != EndpointState::Unknown && !std::mem::replace(&mut state.known, true);
            state.known = set.value.state != EndpointState::Unknown;
            let updates = match first {
                true => [Some(Update::Reset), None],
                false => [added.then_some(Update::Add), (!gone.is_empty()).then_some(Update::Remove)],
            };
            updates.into_iter().flatten().for_each(|update| self.each_series(|series| series.update(update)));
            self.note(&mut state);
            gone
        };
        gone.iter().for_each(|m| m.connections.retire());
        self.wake.notify_waiters();
    }

    /// Endpoints came, went, or are left out.
    fn note(&self, state: &mut State<C>) {
        if state.members.any_ready() {
            state.failfast.ready();
        } else {
            state.failfast.unready(Instant::now());
        }
        // Where there are no endpoints any more, none is left out.
        if state.members.any_ready() || state.members.is_empty() {
            state.last = None;
        }
        self.show(state);
    }

    fn show(&self, state: &mut State<C>) {
        let (ready, left_out) = state.members.counts();
        let open = !state.failfast.is_shut();
        let turned = std::mem::replace(&mut state.open, open) != open;
        self.each_series(|series| {
            series.endpoints(ready, left_out);
            if turned {
                series.gate(open);
            }
        });
    }

    fn each_series(&self, visit: impl Fn(&Series)) {
        self.series.borrow().iter().filter_map(Weak::upgrade).for_each(|series| visit(&series));
    }
}

#[cfg(test)]
mod tests;
