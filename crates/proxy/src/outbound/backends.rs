//! The backends that a rule names, as this worker holds them.
//!
//! Balancers are shared by all rules and targets that name the same one in the same way. They outlive the last rule that held
//! them by the idle time, so that a policy that changes keeps connections and load estimates.

use super::{
    Wiring,
    balance::{Balancer, Connections, Key, Member, Picked, QueueLimits, Settings},
    mirror::Mirror,
};
use crate::{
    config::Queue,
    error::{Code, ProxyError},
    filter::Changes,
    metrics::{
        balancer::{Kind, Series},
        labels,
    },
};
use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc, time::Duration};
use tokio::time::Instant;
use weft_model::{
    Endpoint, Meta, NameAddr,
    decide::breaker::Rules,
    policy::{
        outbound::{Backend, BackendKind, Backoff, Breaker, Distribution, Load, RouteBackend},
        route::{self, Filter},
    },
};

/// The balancers of one worker for one kind of connections.
pub(super) struct Backends<C> {
    wiring: Rc<Wiring>,
    kind: Kind,
    queue: Queue,
    connections: fn(&Rc<Wiring>, &Endpoint, Option<&str>) -> C,
    balancers: RefCell<HashMap<Key, Held<C>>>,
}

struct Held<C> {
    balancer: Rc<Balancer<C>>,
    used: Instant,
}

/// A rule's distribution over what this worker holds.
pub(super) struct Spread<C> {
    branches: Vec<Branch<C>>,
    /// In the order of the branches; `None` if the first that is available is taken.
    weights: Option<Vec<u32>>,
    backoff: Backoff,
}

/// One backend of a rule.
pub(super) struct Branch<C> {
    to: Choice<C>,
    /// What is asked of a request that goes there, besides the rule's own filters.
    pub(super) filters: Vec<Filter>,
    /// Of the rule and of this backend.
    pub(super) changes: Changes,
    /// Of both too.
    pub(super) mirrors: Vec<Mirror<C>>,
}

/// Where a request may go.
pub(super) enum Choice<C> {
    /// One fixed endpoint: whoever fails to reach it is told at once.
    Forward(Rc<Member<C>>),
    Balance(Rc<Balancer<C>>, Rc<Series>),
    /// There is no such backend: what goes there fails.
    Missing,
}

impl<C: Connections> Backends<C> {
    pub(super) fn new(
        wiring: &Rc<Wiring>,
        kind: Kind,
        queue: Queue,
        connections: fn(&Rc<Wiring>, &Endpoint, Option<&str>) -> C,
    ) -> Self {
        Self { wiring: Rc::clone(wiring), kind, queue, connections, balancers: RefCell::default() }
    }

    /// What `parent` makes of a rule with these filters, and when its endpoints are left out.
    pub(super) fn spread(
        &self,
        distribution: &Distribution,
        filters: &[Filter],
        parent: &Meta,
        breaker: Option<&Breaker>,
    ) -> Spread<C> {
        let rules = breaker.and_then(Rules::new);
        let branch = |RouteBackend { backend, filters: own }: &RouteBackend| Branch {
            to: self.choice(backend, parent, rules),
            filters: own.clone(),
            changes: Changes::new(filters, own),
            mirrors: self.mirrors(filters.iter().chain(own), parent),
        };
        let (branches, weights) = match distribution {
            Distribution::Empty => (vec![], None),
            Distribution::FirstAvailable(all) => (all.iter().map(branch).collect(), None),
            Distribution::RandomAvailable(all) => {
                (all.iter().map(|(b, _)| branch(b)).collect(), Some(all.iter().map(|(_, weight)| *weight).collect()))
            }
        };
        Spread { branches, weights, backoff: self.wiring.context.config.outbound.backoff }
    }

    fn mirrors<'f>(&self, filters: impl Iterator<Item = &'f Filter>, parent: &Meta) -> Vec<Mirror<C>> {
        let mirror = |filter: &Filter| {
            let Filter::Mirror(route::Mirror { meta, target, share }) = filter else { return None };
            let kind = BackendKind::Balance { target: target.clone(), load: Load::LINKERD };
            // The proxy's own settings count for queues.
            let queue = weft_model::policy::outbound::Queue { capacity: 0, failfast: Duration::ZERO };
            let backend = Backend { meta: meta.clone(), kind, queue };
            let labels = labels::parent(parent).join(&labels::backend(meta));
            let branch = Branch {
                to: self.choice(&backend, parent, None),
                filters: vec![],
                changes: Changes::default(),
                mirrors: vec![],
            };
            let context = &self.wiring.context;
            let spread = Spread { branches: vec![branch], weights: None, backoff: context.config.outbound.backoff };
            let series = self.wiring.outbound.mirror(self.wiring.metrics.shard, &labels);
            Some(Mirror::new(spread, *share, &context.outbound_copies, series))
        };
        filters.filter_map(mirror).collect()
    }

    /// Visits what is held per endpoint, and forgets balancers that no rule has held for `idle`.
    pub(super) fn expire(&self, now: Instant, idle: Duration, mut visit: impl FnMut(&C)) {
        self.balancers.borrow_mut().retain(|_, held| {
            held.balancer.for_each(|member| visit(&member.connections));
            if Rc::strong_count(&held.balancer) > 1 {
                held.used = now;
            }
            now.duration_since(held.used) < idle
        });
    }

    fn choice(&self, backend: &Backend, parent: &Meta, rules: Option<Rules>) -> Choice<C> {
        match &backend.kind {
            BackendKind::Forward(endpoint) => {
                let connections = (self.connections)(&self.wiring, endpoint, None);
                // Nothing is compared with a fixed endpoint: how its load is estimated does not matter.
                Choice::Forward(Member::new(
                    endpoint.clone(),
                    connections,
                    Load::LINKERD,
                    None,
                    Instant::now().into_std(),
                ))
            }
            BackendKind::Balance { target, load } => {
                let balancer = self.balancer(target, *load, rules);
                let labels = labels::parent(parent).join(&labels::backend(&backend.meta));
                let wiring = &self.wiring;
                let families = wiring.outbound.balancer(self.kind);
                let series = balancer
                    .series(&labels, || families.series(wiring.metrics.shard, labels.clone(), self.queue.failfast));
                Choice::Balance(balancer, series)
            }
            BackendKind::Missing => Choice::Missing,
        }
    }

    fn balancer(&self, target: &NameAddr, load: Load, rules: Option<Rules>) -> Rc<Balancer<C>> {
        let key = Key { kind: self.kind, target: target.clone(), load, rules };
        if let Some(held) = self.balancers.borrow().get(&key) {
            return Rc::clone(&held.balancer);
        }
        let context = &self.wiring.context;
        let settings = Settings {
            load,
            queue: QueueLimits { waiting: self.queue.capacity, failfast: self.queue.failfast },
            backoff: context.config.outbound.backoff,
            rules,
            shared: context.outbound_balancers.get(&key),
        };
        let watch = context.discovery.endpoints(target);
        let (wiring, connections, authority) = (Rc::clone(&self.wiring), self.connections, target.to_string());
        let make = move |endpoint: &Endpoint| connections(&wiring, endpoint, Some(&authority));
        let balancer = Balancer::new(settings, watch, Box::new(make));
        let held = Held { balancer: Rc::clone(&balancer), used: Instant::now() };
        self.balancers.borrow_mut().insert(key, held);
        balancer
    }
}

impl<C: Connections> Spread<C> {
    /// The number of the backend to try next: by order or weight one that is available, else the first of them, where the
    /// request waits. What is no backend has its share by weight, no more and no less: only the `first` time it is drawn.
    pub(super) fn choose(&self, first: bool) -> Result<usize, ProxyError> {
        let available = |branch: &Branch<C>| branch.to.is_available();
        let chosen = match (self.branches.len(), &self.weights) {
            (0, _) => None,
            (1, _) => Some(0),
            (_, None) => Some(self.branches.iter().position(available).unwrap_or(0)),
            (_, Some(weights)) => {
                let all = weights.iter().copied().enumerate();
                let those = |wanted: &dyn Fn(&Branch<C>) -> bool| {
                    weighted(all.clone().filter(|(at, _)| self.branches.get(*at).is_some_and(wanted)))
                };
                let again = if first { None } else { those(&|branch| !branch.is_missing()) };
                let drawn = again.or_else(|| weighted(all.clone()));
                let stays = |branch: &Branch<C>| branch.is_missing() || available(branch);
                if drawn.and_then(|at| self.branches.get(at)).is_some_and(stays) {
                    drawn
                } else {
                    those(&available).or(drawn)
                }
            }
        };
        chosen.ok_or_else(none)
    }

    pub(super) fn branch(&self, chosen: usize) -> Result<&Branch<C>, ProxyError> {
        self.branches.get(chosen).ok_or_else(none)
    }

    /// The endpoint of a backend to try next; waits for one up to the failfast timeout.
    pub(super) async fn next(&self, chosen: usize) -> Result<Picked<C>, ProxyError> {
        let branch = self.branches.get(chosen);
        match branch.map(|branch| &branch.to) {
            Some(Choice::Forward(member)) => Ok(Picked { member: Rc::clone(member), ticket: None }),
            Some(Choice::Balance(balancer, series)) => balancer.next(series).await,
            Some(Choice::Missing) | None => {
                let why = branch.and_then(|branch| {
                    branch
                        .filters
                        .iter()
                        .find_map(|f| if let Filter::Invalid(why) = f { Some(why.as_str()) } else { None })
                });
                // Data plane 4.12: where no filter says what its requests are answered with.
                let why = why.unwrap_or("the route's backend has no kind");
                Err(ProxyError::new(Code::BackendInvalid, why).answered(502, 14))
            }
        }
    }

    /// The same for who connects to it itself, and goes to each endpoint at most once: `None` when there is no other one. Only
    /// the first waits.
    pub(super) async fn untried(
        &self,
        chosen: usize,
        tried: &[SocketAddr],
    ) -> Result<Option<Rc<Member<C>>>, ProxyError> {
        if let Some(Choice::Balance(balancer, series)) = self.branches.get(chosen).map(|branch| &branch.to) {
            if let Some(member) = balancer.untried(tried) {
                series.passed();
                return Ok(Some(member));
            } else if !tried.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(self.next(chosen).await?.member))
    }

    /// An endpoint of a backend could not be connected. Says whether another one may be tried.
    pub(super) fn failed(&self, chosen: usize, member: &Rc<Member<C>>, error: &ProxyError) -> bool {
        if error.code.spares_the_endpoint() {
            // Another one would do no better: one that is full was thought the least busy when it was picked.
            return false;
        }
        match self.branches.get(chosen).map(|branch| &branch.to) {
            Some(Choice::Balance(balancer, _)) => {
                balancer.failed(member, error);
                true
            }
            Some(Choice::Forward(_)) => {
                member.rest(std::time::Instant::now(), &self.backoff, fastrand::f64());
                self.is_available_without(Some(chosen))
            }
            Some(Choice::Missing) | None => false,
        }
    }

    /// Whether a request would find an endpoint without waiting.
    pub(super) fn is_ready(&self) -> bool {
        self.is_available_without(None)
    }

    /// Whether a backend is available that may be chosen, one of them left out.
    fn is_available_without(&self, left_out: Option<usize>) -> bool {
        let may_be_chosen = |at: usize| self.weights.as_ref().is_none_or(|w| w.get(at).is_some_and(|w| *w > 0));
        let mut all = self.branches.iter().enumerate();
        all.any(|(at, branch)| Some(at) != left_out && may_be_chosen(at) && branch.to.is_available())
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&Choice<C>)) {
        self.branches.iter().for_each(|branch| visit(&branch.to));
    }
}

impl<C> Branch<C> {
    /// Whether there is no such backend.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.to, Choice::Missing)
    }
}

impl<C: Connections> Choice<C> {
    fn is_available(&self) -> bool {
        match self {
            Self::Forward(member) => !member.rests(std::time::Instant::now()),
            Self::Balance(balancer, _) => balancer.is_available(),
            Self::Missing => false,
        }
    }
}

fn none() -> ProxyError {
    ProxyError::new(Code::LoadShed, "the route has no backend")
}

/// A random one, by weight. Weights of zero are never drawn.
fn weighted<T>(all: impl Iterator<Item = (T, u32)> + Clone) -> Option<T> {
    let total: u64 = all.clone().map(|(_, weight)| u64::from(weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = fastrand::u64(..total);
    for (item, weight) in all {
        match left.checked_sub(u64::from(weight)) {
            Some(rest) => left = rest,
            None => return Some(item),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_shares() {
        fastrand::seed(7);
        let all = [('a', 1), ('b', 0), ('c', 3)];
        let drawn: Vec<char> = (0..4000).filter_map(|_| weighted(all.iter().copied())).collect();
        assert_eq!(drawn.len(), 4000);
        let count = |wanted| drawn.iter().filter(|c| **c == wanted).count();
        assert_eq!(count('b'), 0);
        assert!((900..1100).contains(&count('a')), "{}", count('a'));
        assert_eq!(weighted([('a', 0)].into_iter()), None);
    }
}
