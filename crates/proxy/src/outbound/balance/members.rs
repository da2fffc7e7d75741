//! The endpoints of a balancer as one worker sees them: which are ready, how loaded each is, and the choice among them.
//!
//! Pure but for the cells of the counts: time and random numbers are arguments. A member that stays keeps what hangs on it,
//! its connections among them, when the set around it changes.

use super::accrual::Accrual;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_model::{
    Endpoint,
    decide::{
        backoff,
        pick::{Choice, PeakEwma, p2c, two_of},
    },
    policy::outbound::{Backoff, Load, Penalty},
};

/// One endpoint with what this worker holds for it: `C`, its connections.
pub(crate) struct Member<C> {
    pub(crate) endpoint: Endpoint,
    pub(crate) connections: C,
    pub(crate) penalty: Option<Penalty>,
    /// Whether it fails, as all workers see it; `None` if nobody asks.
    pub(crate) accrual: Option<Arc<Accrual>>,
    load: RefCell<PeakEwma>,
    pending: Cell<usize>,
    health: Cell<Health>,
    /// Failures to connect in a row.
    failures: Cell<u32>,
    /// A fixed endpoint that could not be connected is used again from then on, if there is another one.
    rests_until: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Ready,
    /// Left out until it can be connected again.
    Failed,
    /// Left out until the circuit breaker lets a request through.
    Shut,
    /// No longer in the set: requests on it finish, nothing new begins.
    Removed,
}

/// The set, with the ready ones at hand so that a choice costs the same however many there are.
pub(crate) struct Members<C> {
    all: BTreeMap<SocketAddr, Rc<Member<C>>>,
    ready: Vec<Rc<Member<C>>>,
}

/// Counts a request as pending at its member until dropped.
pub(crate) struct Pending<C>(Rc<Member<C>>);

impl<C> Member<C> {
    pub(crate) fn new(
        endpoint: Endpoint,
        connections: C,
        load: Load,
        accrual: Option<Arc<Accrual>>,
        now: Instant,
    ) -> Rc<Self> {
        Rc::new(Self {
            accrual,
            endpoint,
            connections,
            penalty: load.penalty,
            load: RefCell::new(PeakEwma::new(load.default_rtt, load.decay, now)),
            pending: Cell::new(0),
            health: Cell::new(Health::Ready),
            failures: Cell::new(0),
            rests_until: Cell::new(None),
        })
    }

    /// Feeds the load estimate.
    pub(crate) fn responded(&self, now: Instant, rtt: Duration) {
        self.load.borrow_mut().observe(now, rtt);
    }

    /// Counts a request until the value is dropped.
    pub(crate) fn begin(self: &Rc<Self>) -> Pending<C> {
        self.pending.set(self.pending.get() + 1);
        Pending(Rc::clone(self))
    }

    /// A connection came about.
    pub(crate) fn connected(&self) {
        self.failures.set(0);
        self.rests_until.set(None);
    }

    /// It could not be connected: another one is better for a while.
    pub(crate) fn rest(&self, now: Instant, limits: &Backoff, random01: f64) {
        self.rests_until.set(Some(now + self.wait(limits, random01)));
    }

    pub(crate) fn rests(&self, now: Instant) -> bool {
        self.rests_until.get().is_some_and(|until| now < until)
    }

    /// A connection did not come about: how long until the next attempt.
    pub(crate) fn wait(&self, limits: &Backoff, random01: f64) -> Duration {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        backoff::delay(limits, failures, random01)
    }

    /// Whether the circuit breaker leaves it out.
    pub(crate) fn is_shut(&self) -> bool {
        self.health.get() == Health::Shut
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.health.get() == Health::Removed
    }

    /// What one unit of its weight bears.
    fn load(&self, now: Instant) -> f64 {
        self.load.borrow().load(now, self.pending.get()) / f64::from(self.endpoint.weight.max(1))
    }
}

impl<C> Drop for Pending<C> {
    fn drop(&mut self) {
        self.0.pending.set(self.0.pending.get().saturating_sub(1));
    }
}

impl<C> Members<C> {
    pub(crate) fn new() -> Self {
        Self { all: BTreeMap::new(), ready: vec![] }
    }

    /// Takes over `set`. Members whose endpoint is unchanged stay; a changed endpoint is a new member. Returns what left.
    pub(crate) fn update(
        &mut self,
        set: &BTreeMap<SocketAddr, Endpoint>,
        mut member: impl FnMut(&Endpoint) -> Rc<Member<C>>,
    ) -> Vec<Rc<Member<C>>> {
        let mut before = std::mem::take(&mut self.all);
        let mut gone = vec![];
        for (addr, endpoint) in set {
            let kept = match before.remove(addr) {
                Some(old) if old.endpoint == *endpoint => Some(old),
                Some(changed) => {
                    gone.push(changed);
                    None
                }
                None => None,
            };
            self.all.insert(*addr, kept.unwrap_or_else(|| member(endpoint)));
        }
        gone.extend(before.into_values());
        gone.iter().for_each(|m| m.health.set(Health::Removed));
        self.collect();
        gone
    }

    /// Of two random ready members the less loaded, for its weight.
    pub(crate) fn pick(&self, now: Instant, random: impl FnMut(usize) -> usize) -> Option<Rc<Member<C>>> {
        let Some((a, b)) = two_of(self.ready.len(), random) else { return self.ready.first().cloned() };
        let (a, b) = (self.ready.get(a)?, self.ready.get(b)?);
        Some(Rc::clone(match p2c(a.load(now), b.load(now)) {
            Choice::First => a,
            Choice::Second => b,
        }))
    }

    /// A random one that is ready, else one that could not be connected, but none of `tried`.
    pub(crate) fn untried(
        &self,
        tried: &[SocketAddr],
        mut random: impl FnMut(usize) -> usize,
    ) -> Option<Rc<Member<C>>> {
        [Health::Ready, Health::Failed].into_iter().find_map(|health| {
            let wanted = |m: &&Rc<Member<C>>| m.health.get() == health && !tried.contains(&m.endpoint.addr);
            let count = self.all.values().filter(wanted).count();
            let nth = if count > 1 { random(count) } else { 0 };
            self.all.values().filter(wanted).nth(nth).cloned()
        })
    }

    /// Leaves out a member that could not be connected; returns whether that is new: it may have left the set, or another
    /// request found out before.
    pub(crate) fn failed(&mut self, member: &Member<C>) -> bool {
        self.leave_out(member, Health::Failed)
    }

    /// The same for a member that the circuit breaker shuts out.
    pub(crate) fn shut(&mut self, member: &Member<C>) -> bool {
        self.leave_out(member, Health::Shut)
    }

    fn leave_out(&mut self, member: &Member<C>, health: Health) -> bool {
        let new = member.health.get() == Health::Ready;
        if new {
            member.health.set(health);
            self.collect();
        }
        new
    }

    /// Takes a member in again. False if it left the set meanwhile.
    pub(crate) fn recovered(&mut self, member: &Member<C>) -> bool {
        if member.is_removed() {
            return false;
        }
        member.health.set(Health::Ready);
        self.collect();
        true
    }

    pub(crate) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn ready(&self) -> impl Iterator<Item = &Rc<Member<C>>> {
        self.ready.iter()
    }

    /// How many are ready, and how many are left out.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.ready.len(), self.all.len() - self.ready.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Member<C>>> {
        self.all.values()
    }

    fn collect(&mut self) {
        self.ready = self.all.values().filter(|m| m.health.get() == Health::Ready).cloned().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None };

    fn set(hosts: &[u8]) -> BTreeMap<SocketAddr, Endpoint> {
        hosts.iter().map(|h| SocketAddr::from(([10, 0, 0, *h], 80))).map(|a| (a, Endpoint::plain(a))).collect()
    }

    fn members(hosts: &[u8], now: Instant) -> Members<()> {
        let mut members = Members::new();
        members.update(&set(hosts), |e| Member::new(e.clone(), (), LOAD, None, now));
        members
    }

    /// The last byte of the address of what is picked when `draws` are the random numbers.
    fn pick(members: &Members<()>, now: Instant, draws: [usize; 2]) -> Option<u8> {
        let mut draws = draws.into_iter();
        members.pick(now, |_| draws.next().unwrap()).map(|m| host(&m))
    }

    fn host(member: &Member<()>) -> u8 {
        match member.endpoint.addr.ip() {
            std::net::IpAddr::V4(v4) => v4.octets()[3],
            std::net::IpAddr::V6(_) => unreachable!(),
        }
    }

    fn get(members: &Members<()>, h: u8) -> Rc<Member<()>> {
        Rc::clone(members.iter().find(|m| host(m) == h).unwrap())
    }

    #[test]
    fn what_stays_keeps_its_connections_and_its_load() {
        let now = Instant::now();
        let mut members = members(&[1, 2], now);
        let one = get(&members, 1);
        let mut changed = set(&[1, 2, 3]);
        changed.values_mut().nth(1).unwrap().labels.insert("zone".into(), "a".into());
        let gone = members.update(&changed, |e| Member::new(e.clone(), (), LOAD, None, now));
        assert!(Rc::ptr_eq(&one, &get(&members, 1)));
        assert_eq!(gone.iter().map(|m| host(m)).collect::<Vec<_>>(), [2], "a changed endpoint is a new one");
        assert!(gone[0].is_removed() && !one.is_removed());
        assert_eq!(members.iter().count(), 3);
    }

    #[test]
    fn the_less_loaded_of_two_is_picked() {
        let now = Instant::now();
        let members = members(&[1, 2], now);
        assert_eq!(pick(&members, now, [0, 0]), Some(1), "a tie goes to the first drawn");
        let busy = get(&members, 1).begin();
        assert_eq!(pick(&members, now, [0, 0]), Some(2));
        drop(busy);
        get(&members, 2).responded(now, Duration::from_secs(1));
        assert_eq!(pick(&members, now, [1, 0]), Some(1));
    }

    #[test]
    fn more_weight_bears_more_load() {
        let now = Instant::now();
        let mut weighted = set(&[1, 2]);
        weighted.values_mut().next().unwrap().weight = 10 * Endpoint::WEIGHT;
        let mut members = Members::new();
        members.update(&weighted, |e| Member::new(e.clone(), (), LOAD, None, now));
        let held: Vec<_> = (0..9).map(|_| get(&members, 1).begin()).collect();
        assert_eq!(pick(&members, now, [1, 0]), Some(2), "ten times the load is a tie, and goes to the first drawn");
        assert_eq!(pick(&members, now, [0, 0]), Some(1));
        drop(held.into_iter().next());
        assert_eq!(pick(&members, now, [1, 0]), Some(1));
        // Nothing is divided by nothing.
        let mut none = set(&[1, 2]);
        none.values_mut().for_each(|e| e.weight = 0);
        members.update(&none, |e| Member::new(e.clone(), (), LOAD, None, now));
        assert_eq!(pick(&members, now, [1, 0]), Some(2));
    }

    #[test]
    fn what_failed_is_left_out_until_it_recovers() {
        let now = Instant::now();
        let mut members = members(&[1, 2], now);
        let (one, two) = (get(&members, 1), get(&members, 2));
        assert!(members.failed(&one));
        assert!(!members.failed(&one), "known already");
        assert_eq!((pick(&members, now, [0, 0]), members.counts()), (Some(2), (1, 1)));
        members.shut(&two);
        assert!(two.is_shut() && !members.failed(&two), "left out already");
        assert_eq!(pick(&members, now, [0, 0]), None);
        assert!(!members.any_ready());
        assert!(members.recovered(&one));
        assert_eq!(pick(&members, now, [0, 0]), Some(1));
        members.update(&set(&[1]), |_| unreachable!("nothing is new"));
        assert!(!members.recovered(&two), "it left the set");
    }

    #[test]
    fn failures_in_a_row_wait_longer() {
        let member = get(&members(&[1], Instant::now()), 1);
        let limits = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(60), jitter: 0.0 };
        assert_eq!(member.wait(&limits, 0.5), Duration::from_millis(100));
        assert_eq!(member.wait(&limits, 0.5), Duration::from_millis(200));
        let now = Instant::now();
        member.rest(now, &limits, 0.5);
        assert!(member.rests(now + Duration::from_millis(399)) && !member.rests(now + Duration::from_millis(400)));
        member.connected();
        assert!(!member.rests(now));
        assert_eq!(member.wait(&limits, 0.5), Duration::from_millis(100));
    }
}
