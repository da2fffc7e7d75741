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
mod gate;
mod members;
mod shared;

pub(crate) use accrual::Ticket;
pub(crate) use gate::GateLimits;
pub(crate) use members::{Member, Members, Pending};
pub(crate) use shared::Balancers;

use crate::{
    error::{Code, ProxyError},
    metrics::balancer::{Series, Update},
    process::discovery::{EndpointState, EndpointsWatch},
    turn,
};
use accrual::Accrual;
use gate::{Gate, Refused};
use shared::Shared;
use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
};
use tokio::{
    sync::{Notify, futures::Notified},
    time::{Instant, timeout_at},
};
use weft_model::{
    Endpoint,
    decide::breaker::Rules,
    policy::outbound::{Backoff, Load},
};
use weft_telemetry::Labels;

/// What a balancer does with an endpoint's connections of its own accord.
pub(crate) trait Connections: 'static {
    /// Waits until an endpoint that failed may be used again, by connecting to it where that disturbs nobody.
    async fn revive(&self) -> Result<(), ProxyError>;
    /// The endpoint left the set: no connection is kept for later.
    fn retire(&self);
}

/// What differs between balancers.
pub(crate) struct Settings {
    pub(crate) load: Load,
    pub(crate) gate: GateLimits,
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
    gate: Gate,
    /// The gate as the series show it.
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
        let gate = Gate::new(settings.gate.failfast);
        let state = State { members: Members::new(), version: None, known: false, gate, open: true, last: None };
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
        admitting || (!state.known && state.gate.deadline(now).is_some())
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

    /// The endpoint to try next; waits for one up to the failfast timeout.
    pub(crate) async fn next(self: &Rc<Self>, series: &Series) -> Result<Picked<C>, ProxyError> {
        match self.pick() {
            Some(picked) => {
                series.passed();
                Ok(picked)
            }
            // Boxed: most requests find an endpoint at once, and need not carry the room for waiting.
            None => Box::pin(self.wait(series)).await,
        }
    }

    async fn wait(self: &Rc<Self>, series: &Series) -> Result<Picked<C>, ProxyError> {
        let deadline = self.deadline()?;
        // Counted as waiting until these are dropped, also when the request gives up.
        let place = self.settings.shared.enter(self.settings.gate.waiting);
        let _place = place.ok_or_else(|| self.refusal(Refused::Full, None))?;
        let _waiting = Waiting::new(series);
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before looking, so that no wake-up falls between.
            Notified::enable(woken.as_mut());
            if let Some(picked) = self.pick() {
                return Ok(picked);
            }
            let changed = self.watch.endpoints.changed(self.state.borrow().version.unwrap_or_default());
            let wait = async {
                tokio::select! {
                    () = woken => {}
                    // Cancel-safe: it only says that there is something to look at.
                    _ = changed => {}
                }
            };
            if timeout_at(deadline, wait).await.is_err() {
                if let Some(picked) = self.pick() {
                    return Ok(picked);
                }
                // The gate shuts, unless an endpoint was ready for a moment: this request has waited for its time all the same.
                self.deadline()?;
                return Err(self.refusal(Refused::Shut, self.state.borrow().last.as_ref()));
            }
        }
    }

    /// Until when a request may wait.
    fn deadline(&self) -> Result<Instant, ProxyError> {
        let mut state = self.state.borrow_mut();
        let deadline = state.gate.deadline(Instant::now());
        deadline.ok_or_else(|| {
            self.show(&mut state);
            self.refusal(Refused::Shut, state.last.as_ref())
        })
    }

    /// Leaves out a member that could not be connected, and tries again after a growing wait.
    pub(crate) fn failed(self: &Rc<Self>, member: &Rc<Member<C>>, error: &ProxyError) {
        let new = {
            let mut state = self.state.borrow_mut();
            state.last = Some(error.clone());
            let new = state.members.failed(member);
            self.note(&mut state);
            new
        };
        if new {
            let (target, endpoint) = (&self.watch.target, member.endpoint.addr);
            tracing::warn!(%target, %endpoint, %error, "an endpoint cannot be connected and is left out");
            tokio::task::spawn_local(revive(Rc::downgrade(self), Rc::clone(member)));
        }
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

    /// Leaves out a member that the circuit breaker shuts out, until that lets a request through.
    fn shut(self: &Rc<Self>, member: &Rc<Member<C>>, accrual: &Arc<Accrual>) {
        let mut state = self.state.borrow_mut();
        if state.members.shut(member) {
            let text = format!("{} fails and is left out by the circuit breaker", member.endpoint.addr);
            state.last = Some(ProxyError::new(Code::BreakerShut, text));
            self.note(&mut state);
            tokio::task::spawn_local(readmit(Rc::downgrade(self), Rc::clone(member), Arc::clone(accrual)));
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
            state.gate.ready();
            state.last = None;
        } else {
            state.gate.unready(Instant::now());
        }
        self.show(state);
    }

    fn show(&self, state: &mut State<C>) {
        let (ready, left_out) = state.members.counts();
        let open = !state.gate.is_shut();
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

    fn refusal(&self, refused: Refused, last: Option<&ProxyError>) -> ProxyError {
        let name = &self.watch.target;
        match (refused, last) {
            (Refused::Full, _) => ProxyError::new(Code::LoadShed, format!("too many requests wait for {name}")),
            (Refused::Shut, None) => ProxyError::new(
                Code::Failfast,
                match self.watch.endpoints.load().value.state {
                    EndpointState::Unknown => format!("the control plane has not named the endpoints of {name}"),
                    EndpointState::Known => format!("{name} has no endpoints"),
                    EndpointState::Absent => format!("{name} does not exist"),
                },
            ),
            (Refused::Shut, Some(last)) => {
                let code = if last.code == Code::BreakerShut { last.code } else { Code::Failfast };
                ProxyError::new(code, format!("no endpoint of {name} is ready: {}", last.message))
            }
        }
    }
}

/// A request that waits.
struct Waiting<'s> {
    series: &'s Series,
    since: Instant,
}

impl<'s> Waiting<'s> {
    fn new(series: &'s Series) -> Self {
        series.waits();
        Self { series, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.series.waited(self.since.elapsed());
    }
}

/// Brings a failed member back; ends when it is back, has left the set, or the balancer is gone.
async fn revive<C: Connections>(balancer: Weak<Balancer<C>>, member: Rc<Member<C>>) {
    loop {
        let Some(limits) = balancer.upgrade().map(|b| b.settings.backoff) else { return };
        tokio::time::sleep(member.wait(&limits, fastrand::f64())).await;
        if member.is_removed() {
            return;
        }
        let outcome = member.connections.revive().await;
        let Some(balancer) = balancer.upgrade() else { return };
        let mut state = balancer.state.borrow_mut();
        match outcome {
            Ok(()) => {
                if state.members.recovered(&member) {
                    balancer.note(&mut state);
                }
                drop(state);
                tracing::info!(target = %balancer.watch.target, endpoint = %member.endpoint.addr, "an endpoint is back");
                balancer.wake.notify_waiters();
                return;
            }
            Err(error) => state.last = Some(error),
        }
    }
}

/// Takes a member in again when the circuit breaker would let a request through to it.
async fn readmit<C: Connections>(balancer: Weak<Balancer<C>>, member: Rc<Member<C>>, accrual: Arc<Accrual>) {
    accrual.due().await;
    let Some(balancer) = balancer.upgrade() else { return };
    {
        let mut state = balancer.state.borrow_mut();
        if !member.is_shut() || !state.members.recovered(&member) {
            return;
        }
        balancer.note(&mut state);
    }
    balancer.wake.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::balancer::{Families, Kind},
        process::discovery::{EndpointSet, Watched},
    };
    use std::{cell::Cell, net::SocketAddr, time::Duration};
    use tokio::task::LocalSet;
    use weft_model::{decide::breaker::Outcome, policy::outbound::Breaker};
    use weft_telemetry::{Registry, Shard};

    /// Revives when told to, and counts how often it was asked.
    #[derive(Clone, Default)]
    struct Wire {
        up: Rc<Cell<bool>>,
        asked: Rc<Cell<u32>>,
        retired: Rc<Cell<bool>>,
    }

    impl Connections for Wire {
        async fn revive(&self) -> Result<(), ProxyError> {
            self.asked.set(self.asked.get() + 1);
            if self.up.get() { Ok(()) } else { Err(refused()) }
        }
        fn retire(&self) {
            self.retired.set(true);
        }
    }

    fn refused() -> ProxyError {
        ProxyError::new(Code::ConnectFailed, "connection refused")
    }

    fn set(hosts: &[u8]) -> EndpointSet {
        let addrs = hosts.iter().map(|h| SocketAddr::from(([10, 0, 0, *h], 80)));
        EndpointSet { state: EndpointState::Known, map: addrs.map(|a| (a, Endpoint::plain(a))).collect() }
    }

    struct Test {
        balancer: Rc<Balancer<Wire>>,
        series: Rc<Series>,
        watch: Arc<EndpointsWatch>,
        wire: Wire,
        registry: Registry,
    }

    impl Test {
        fn new(hosts: &[u8]) -> Self {
            Self::of(hosts, None, &Arc::default())
        }

        fn of(hosts: &[u8], breaker: Option<Breaker>, shared: &Arc<Shared>) -> Self {
            let watch = Arc::new(EndpointsWatch {
                target: "web.emojivoto.svc.cluster.local:80".parse().unwrap(),
                endpoints: Arc::new(Watched::new(set(hosts))),
            });
            let settings = Settings {
                load: Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None },
                gate: GateLimits { waiting: if breaker.is_some() { 2 } else { 1 }, failfast: Duration::from_secs(3) },
                backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 },
                rules: breaker.as_ref().and_then(Rules::new),
                shared: Arc::clone(shared),
            };
            let wire = Wire::default();
            let made = wire.clone();
            let balancer = Balancer::new(settings, Arc::clone(&watch), Box::new(move |_| made.clone()));
            let registry = Registry::new(1, 100);
            let families = Families::new(&registry, Kind::Http);
            let labels = Labels::new().with("parent", "p");
            let failfast = Duration::from_secs(3);
            let series = balancer.series(&labels, || families.series(Shard::worker(0), labels.clone(), failfast));
            Self { balancer, series, watch, wire, registry }
        }

        async fn next(&self) -> Result<Picked<Wire>, ProxyError> {
            self.balancer.next(&self.series).await
        }

        /// The code that refuses the next request, or the last byte of the address that it goes to.
        async fn asks(&self) -> Result<String, Code> {
            self.next().await.map(|picked| picked.member.endpoint.addr.to_string()).map_err(|error| error.code)
        }

        /// A number of the family, with `labels` besides those of parent and backend.
        fn metric(&self, family: &str, labels: &str) -> f64 {
            let text = self.registry.encode();
            let series = format!("outbound_http_balancer_{family}{{{labels}parent=\"p\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)).expect(&series).parse().unwrap()
        }

        fn endpoints(&self) -> (f64, f64) {
            let state = |state: &str| self.metric("endpoints", &format!("endpoint_state=\"{state}\","));
            (state("ready"), state("pending"))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_first_endpoint() {
        let test = Test::new(&[]);
        let (picked, ()) = tokio::join!(test.asks(), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(test.metric("queue_length", ""), 1.0);
            test.watch.endpoints.set(set(&[1]));
        });
        assert_eq!(picked, Ok("10.0.0.1:80".into()));
        assert_eq!((test.metric("queue_length", ""), test.metric("queue_requests_total", "")), (0.0, 1.0));
        assert_eq!(test.metric("queue_latency_seconds_sum", ""), 2.0);
        assert_eq!((test.endpoints(), test.metric("p2c_endpoints", "")), ((1.0, 0.0), 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_fail_at_once_after_the_timeout_until_an_endpoint_is_ready() {
        let test = Test::new(&[]);
        let start = Instant::now();
        let (first, second) = tokio::join!(test.asks(), test.asks());
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert_eq!(first, Err(Code::Failfast));
        assert_eq!(second, Err(Code::LoadShed), "one may wait");
        assert_eq!(test.asks().await, Err(Code::Failfast));
        assert_eq!(start.elapsed(), Duration::from_secs(3), "at once");
        let gate = || (test.metric("queue_gate_open_total", ""), test.metric("queue_gate_shut_total", ""));
        assert_eq!(gate(), (1.0, 1.0));
        assert_eq!(test.metric("queue_gate_open_time_seconds", ""), 0.0);
        assert!(test.metric("queue_gate_shut_time_seconds", "") > 1.7e9);
        assert_eq!(test.metric("queue_gate_timeout_seconds", ""), 3.0);
        test.watch.endpoints.set(set(&[1]));
        assert!(test.asks().await.is_ok());
        assert_eq!(gate(), (2.0, 1.0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_bounded_for_all_workers_together() {
        let shared = Arc::default();
        let (one, two) = (Test::of(&[], None, &shared), Test::of(&[], None, &shared));
        let (first, second) = tokio::join!(one.asks(), two.asks());
        assert_eq!((first, second), (Err(Code::Failfast), Err(Code::LoadShed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_not_sent_elsewhere_before_the_endpoints_are_known() {
        let test = Test::new(&[]);
        test.watch.endpoints.set(EndpointSet::default());
        assert!(test.balancer.is_available(), "they may come");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!test.balancer.is_available());
        test.watch.endpoints.set(set(&[1]));
        assert!(test.balancer.is_available());
        test.watch.endpoints.set(set(&[]));
        assert!(!test.balancer.is_available(), "there are none");
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_comes_back_by_itself() {
        LocalSet::new()
            .run_until(async {
                let test = Test::new(&[1]);
                let member = test.next().await.ok().unwrap().member;
                test.balancer.failed(&member, &refused());
                test.balancer.failed(&member, &refused());
                assert_eq!(test.endpoints(), (0.0, 1.0));
                let error = test.next().await.err().unwrap();
                assert_eq!(
                    error.to_string(),
                    "no endpoint of web.emojivoto.svc.cluster.local:80 is ready: connection refused [FAILFAST]"
                );
                assert_eq!(test.wire.asked.get(), 4, "after 100, 300, 700 and 1500 ms; one task, however many noticed");
                test.wire.up.set(true);
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(test.asks().await.is_ok());
                test.watch.endpoints.set(set(&[2]));
                assert_eq!(test.asks().await, Ok("10.0.0.2:80".into()));
                assert!(test.wire.retired.get());
                for (op, n) in [("Reset", 1.0), ("Add", 1.0), ("Remove", 1.0)] {
                    assert_eq!(test.metric("p2c_updates_total", &format!("op=\"{op}\",")), n, "{op}");
                }
            })
            .await;
    }

    fn breaker() -> Option<Breaker> {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter: 0.0 };
        Some(Breaker::Consecutive { max_failures: 3, backoff })
    }

    async fn fail(test: &Test) {
        test.next().await.ok().unwrap().ticket.unwrap().finish(Outcome::Failure);
    }

    #[tokio::test(start_paused = true)]
    async fn who_fails_is_left_out_by_all_workers_and_one_request_tries_it_again() {
        LocalSet::new()
            .run_until(async {
                let shared = Arc::default();
                let (one, two) = (Test::of(&[1], breaker(), &shared), Test::of(&[1], breaker(), &shared));
                fail(&one).await;
                fail(&two).await;
                fail(&one).await;
                let start = Instant::now();
                // Both wait; one of them is the probe, and the other waits on until it has succeeded.
                let (picked, refused, other) = match tokio::join!(one.next(), two.next()) {
                    (Ok(picked), Err(refused)) => (picked, refused, &two),
                    (Err(refused), Ok(picked)) => (picked, refused, &one),
                    (one, two) => panic!("{} {}", one.is_ok(), two.is_ok()),
                };
                assert_eq!((refused.code, start.elapsed().as_secs()), (Code::BreakerShut, 3));
                assert_eq!(other.endpoints(), (0.0, 1.0));
                picked.ticket.unwrap().finish(Outcome::Success);
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(other.next().await.is_ok());
                assert_eq!((one.endpoints(), two.endpoints()), ((1.0, 0.0), (1.0, 0.0)));
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn others_are_used_while_one_is_left_out() {
        LocalSet::new()
            .run_until(async {
                let test = Test::of(&[1, 2], breaker(), &Arc::default());
                let mut failures = 0;
                while failures < 3 {
                    let mut picked = test.next().await.ok().unwrap();
                    let fails = picked.member.endpoint.addr.to_string() == "10.0.0.1:80";
                    failures += u32::from(fails);
                    picked.ticket.as_mut().unwrap().finish(if fails { Outcome::Failure } else { Outcome::Success });
                }
                for _ in 0..20 {
                    assert_eq!(test.asks().await, Ok("10.0.0.2:80".into()));
                }
                assert_eq!(test.endpoints(), (1.0, 1.0));
            })
            .await;
    }
}
