//! Hands out endpoints of one target: the less loaded of two that are ready, or a place in the queue until one is.
//!
//! ```text
//! discovery ─► members (ready | failed) ─► next() ─► connect ─┬─► request
//!                          ▲     ▲                            │
//!                          │     └──── failed() ◄─────────────┘ could not connect: another one is tried
//!                        revive() after a growing wait
//! ```
//! One worker's; nothing here is shared with another thread but the watched set. Knows nothing of HTTP.

mod gate;
mod members;

pub(crate) use gate::GateLimits;
pub(crate) use members::{Member, Members, Pending};

use crate::{
    error::{Code, ProxyError},
    process::discovery::{EndpointState, EndpointsWatch},
};
use gate::{Gate, Refused};
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
    policy::outbound::{Backoff, Load},
};

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
}

pub(crate) struct Balancer<C> {
    settings: Settings,
    watch: Arc<EndpointsWatch>,
    connections: Box<dyn Fn(&Endpoint) -> C>,
    state: RefCell<State<C>>,
    /// Wakes those who wait for an endpoint.
    wake: Notify,
}

struct State<C> {
    members: Members<C>,
    version: Option<u64>,
    gate: Gate,
    /// Why an endpoint was left out last: the reason that a refused request is told.
    last: Option<ProxyError>,
}

impl<C: Connections> Balancer<C> {
    /// Follows `watch` until the balancer is dropped. `connections` makes what hangs on a new endpoint.
    pub(crate) fn new(
        settings: Settings,
        watch: Arc<EndpointsWatch>,
        connections: Box<dyn Fn(&Endpoint) -> C>,
    ) -> Rc<Self> {
        let gate = Gate::new(settings.gate);
        let state = State { members: Members::new(), version: None, gate, last: None };
        let balancer = Rc::new(Self { settings, watch, connections, state: RefCell::new(state), wake: Notify::new() });
        balancer.refresh();
        balancer
    }

    /// Whether an endpoint is ready now.
    pub(crate) fn is_ready(&self) -> bool {
        self.refresh();
        self.state.borrow().members.any_ready()
    }

    /// Visits what is held per endpoint.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Member<C>)) {
        self.state.borrow().members.iter().for_each(|m| visit(m));
    }

    /// The endpoint to try next; waits for one up to the failfast timeout.
    pub(crate) async fn next(&self) -> Result<Rc<Member<C>>, ProxyError> {
        match self.pick() {
            Some(member) => Ok(member),
            // Boxed: most requests find an endpoint at once, and need not carry the room for waiting.
            None => Box::pin(self.wait()).await,
        }
    }

    async fn wait(&self) -> Result<Rc<Member<C>>, ProxyError> {
        let deadline = {
            let mut state = self.state.borrow_mut();
            let entered = state.gate.enter(Instant::now());
            entered.map_err(|refused| self.refusal(refused, &state.last))?
        };
        // Counted as waiting until this is dropped, also when the request gives up.
        let _waiting = Waiting(&self.state);
        loop {
            let woken = self.wake.notified();
            tokio::pin!(woken);
            // Registered before looking, so that no wake-up falls between.
            Notified::enable(woken.as_mut());
            if let Some(member) = self.pick() {
                return Ok(member);
            }
            let changed = self.watch.endpoints.changed(self.state.borrow().version.unwrap_or_default());
            let wait = async {
                tokio::select! {
                    () = woken => {}
                    // Cancel-safe: it only says that there is something to look at.
                    _ = changed => {}
                }
            };
            if timeout_at(deadline, wait).await.is_err() && !self.is_ready() {
                return Err(self.refusal(Refused::Shut, &self.state.borrow().last));
            }
        }
    }

    /// Leaves out a member that could not be connected, and tries again after a growing wait.
    pub(crate) fn failed(self: &Rc<Self>, member: &Rc<Member<C>>, error: &ProxyError) {
        let new = {
            let mut state = self.state.borrow_mut();
            state.last = Some(error.clone());
            let new = state.members.failed(member);
            state.note(Instant::now());
            new
        };
        if new {
            let (target, endpoint) = (&self.watch.target, member.endpoint.addr);
            tracing::warn!(%target, %endpoint, %error, "an endpoint cannot be connected and is left out");
            tokio::task::spawn_local(revive(Rc::downgrade(self), Rc::clone(member)));
        }
    }

    fn pick(&self) -> Option<Rc<Member<C>>> {
        self.refresh();
        self.state.borrow().members.pick(std::time::Instant::now(), |n| fastrand::usize(..n))
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
            let gone = state.members.update(&set.value.map, |endpoint| {
                Member::new(endpoint.clone(), (self.connections)(endpoint), self.settings.load, now.into_std())
            });
            state.note(now);
            gone
        };
        gone.iter().for_each(|m| m.connections.retire());
        self.wake.notify_waiters();
    }

    fn refusal(&self, refused: Refused, last: &Option<ProxyError>) -> ProxyError {
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
                ProxyError::new(Code::Failfast, format!("no endpoint of {name} is ready: {}", last.message))
            }
        }
    }
}

impl<C> State<C> {
    fn note(&mut self, now: Instant) {
        if self.members.any_ready() {
            self.gate.ready();
            self.last = None;
        } else {
            self.gate.unready(now);
        }
    }
}

/// A place in the queue.
struct Waiting<'s, C>(&'s RefCell<State<C>>);

impl<C> Drop for Waiting<'_, C> {
    fn drop(&mut self) {
        self.0.borrow_mut().gate.leave();
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
                    state.note(Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::discovery::{EndpointSet, Watched};
    use std::{cell::Cell, net::SocketAddr, time::Duration};
    use tokio::task::LocalSet;

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

    fn balancer(hosts: &[u8]) -> (Rc<Balancer<Wire>>, Arc<EndpointsWatch>, Wire) {
        let watch = Arc::new(EndpointsWatch {
            target: "web.emojivoto.svc.cluster.local:80".parse().unwrap(),
            endpoints: Arc::new(Watched::new(set(hosts))),
        });
        let settings = Settings {
            load: Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None },
            gate: GateLimits { waiting: 1, failfast: Duration::from_secs(3) },
            backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 },
        };
        let wire = Wire::default();
        let made = wire.clone();
        (Balancer::new(settings, Arc::clone(&watch), Box::new(move |_| made.clone())), watch, wire)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_first_endpoint() {
        let (balancer, watch, _) = balancer(&[]);
        let (picked, ()) = tokio::join!(balancer.next(), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            watch.endpoints.set(set(&[1]));
        });
        assert_eq!(picked.map(|m| m.endpoint.addr.to_string()).map_err(|e| e.to_string()), Ok("10.0.0.1:80".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_fail_at_once_after_the_timeout_until_an_endpoint_is_ready() {
        let (balancer, watch, _) = balancer(&[]);
        let start = Instant::now();
        let (first, second) = tokio::join!(balancer.next(), balancer.next());
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        assert_eq!(first.err().map(|e| e.code), Some(Code::Failfast));
        assert_eq!(second.err().map(|e| e.code), Some(Code::LoadShed), "one may wait");
        assert_eq!(balancer.next().await.err().map(|e| e.code), Some(Code::Failfast));
        assert_eq!(start.elapsed(), Duration::from_secs(3), "at once");
        watch.endpoints.set(set(&[1]));
        assert!(balancer.next().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_comes_back_by_itself() {
        LocalSet::new()
            .run_until(async {
                let (balancer, watch, wire) = balancer(&[1]);
                let member = balancer.next().await.ok().unwrap();
                balancer.failed(&member, &refused());
                balancer.failed(&member, &refused());
                let error = balancer.next().await.err().unwrap();
                assert_eq!(
                    error.to_string(),
                    "no endpoint of web.emojivoto.svc.cluster.local:80 is ready: connection refused [FAILFAST]"
                );
                assert_eq!(wire.asked.get(), 4, "after 100, 300, 700 and 1500 ms; one task, however many noticed");
                wire.up.set(true);
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(balancer.next().await.is_ok());
                watch.endpoints.set(set(&[2]));
                assert_eq!(balancer.next().await.ok().unwrap().endpoint.addr.to_string(), "10.0.0.2:80");
                assert!(wire.retired.get());
            })
            .await;
    }
}
