//! The backends that a rule names, as this worker holds them.
//!
//! Balancers are shared by all rules and targets that name the same one. They outlive the last rule that held them by the idle
//! time, so that a policy that changes keeps connections and load estimates.

use super::{
    Wiring,
    balance::{Balancer, Connections, GateLimits, Member, Settings},
};
use crate::{
    config::Queue,
    error::{Code, ProxyError},
    filter::Changes,
};
use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};
use tokio::time::Instant;
use weft_model::{
    Endpoint, NameAddr,
    policy::{
        outbound::{Backend, BackendKind, Distribution, Load, RouteBackend},
        route::Filter,
    },
};

/// The balancers of one worker for one kind of connections.
pub(super) struct Backends<C> {
    wiring: Rc<Wiring>,
    queue: Queue,
    connections: fn(&Rc<Wiring>, &Endpoint, Option<&str>) -> C,
    balancers: RefCell<HashMap<Key, Held<C>>>,
}

struct Held<C> {
    balancer: Rc<Balancer<C>>,
    used: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    target: NameAddr,
    default_rtt: Duration,
    decay: Duration,
}

/// A rule's distribution over what this worker holds.
pub(super) enum Spread<C> {
    Empty,
    First(Vec<Way<C>>),
    Weighted(Vec<(Way<C>, u32)>),
}

/// One backend of a rule.
pub(super) struct Way<C> {
    pub(super) to: Choice<C>,
    /// What is asked of a request that goes this way, besides the rule's own filters.
    pub(super) filters: Vec<Filter>,
    /// Of the rule and of this backend.
    pub(super) changes: Changes,
}

/// Where a request may go.
pub(super) enum Choice<C> {
    /// One fixed endpoint: whoever fails to reach it is told at once.
    Forward(Rc<Member<C>>),
    Balance(Rc<Balancer<C>>),
    Missing,
}

impl<C: Connections> Backends<C> {
    pub(super) fn new(
        wiring: &Rc<Wiring>,
        queue: Queue,
        connections: fn(&Rc<Wiring>, &Endpoint, Option<&str>) -> C,
    ) -> Self {
        Self { wiring: Rc::clone(wiring), queue, connections, balancers: RefCell::default() }
    }

    /// What a rule with these filters spreads over.
    pub(super) fn spread(&self, distribution: &Distribution, filters: &[Filter]) -> Spread<C> {
        let way = |RouteBackend { backend, filters: own }: &RouteBackend| Way {
            to: self.choice(backend),
            filters: own.clone(),
            changes: Changes::new(filters, own),
        };
        match distribution {
            Distribution::Empty => Spread::Empty,
            Distribution::FirstAvailable(all) => Spread::First(all.iter().map(way).collect()),
            Distribution::RandomAvailable(all) => {
                Spread::Weighted(all.iter().map(|(backend, weight)| (way(backend), *weight)).collect())
            }
        }
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

    fn choice(&self, backend: &Backend) -> Choice<C> {
        match &backend.kind {
            BackendKind::Forward(endpoint) => {
                let connections = (self.connections)(&self.wiring, endpoint, None);
                Choice::Forward(Member::new(endpoint.clone(), connections, FIXED, Instant::now().into_std()))
            }
            BackendKind::Balance { target, load } => Choice::Balance(self.balancer(target, *load)),
            BackendKind::Missing => Choice::Missing,
        }
    }

    fn balancer(&self, target: &NameAddr, load: Load) -> Rc<Balancer<C>> {
        let key = Key { target: target.clone(), default_rtt: load.default_rtt, decay: load.decay };
        if let Some(held) = self.balancers.borrow().get(&key) {
            return Rc::clone(&held.balancer);
        }
        let settings = Settings {
            load,
            gate: GateLimits { waiting: self.queue.capacity, failfast: self.queue.failfast },
            backoff: self.wiring.context.config.outbound.backoff,
        };
        let watch = self.wiring.context.discovery.endpoints(target);
        let (wiring, connections, authority) = (Rc::clone(&self.wiring), self.connections, target.to_string());
        let make = move |endpoint: &Endpoint| connections(&wiring, endpoint, Some(&authority));
        let balancer = Balancer::new(settings, watch, Box::new(make));
        let held = Held { balancer: Rc::clone(&balancer), used: Instant::now() };
        self.balancers.borrow_mut().insert(key, held);
        balancer
    }
}

/// Nothing is compared with a fixed endpoint.
const FIXED: Load = Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None };

impl<C: Connections> Spread<C> {
    /// The backend to try next: by order or weight one that is ready, else the first of them, where the request waits.
    pub(super) fn choose(&self) -> Result<&Way<C>, ProxyError> {
        let none = || ProxyError::new(Code::LoadShed, "the route has no backend");
        match self {
            Self::Empty => Err(none()),
            Self::First(all) => match all.as_slice() {
                [only] => Ok(only),
                all => all.iter().find(|way| way.to.is_ready()).or_else(|| all.first()).ok_or_else(none),
            },
            Self::Weighted(all) => match all.as_slice() {
                [(only, _)] => Ok(only),
                all => weighted(all.iter().filter(|(way, _)| way.to.is_ready()))
                    .or_else(|| weighted(all.iter()))
                    .ok_or_else(none),
            },
        }
    }

    /// Whether a request would find an endpoint without waiting.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Empty => false,
            Self::First(all) => all.iter().any(|way| way.to.is_ready()),
            Self::Weighted(all) => all.iter().any(|(way, weight)| *weight > 0 && way.to.is_ready()),
        }
    }

    pub(super) fn for_each(&self, mut visit: impl FnMut(&Choice<C>)) {
        match self {
            Self::Empty => {}
            Self::First(all) => all.iter().for_each(|way| visit(&way.to)),
            Self::Weighted(all) => all.iter().for_each(|(way, _)| visit(&way.to)),
        }
    }
}

impl<C: Connections> Choice<C> {
    fn is_ready(&self) -> bool {
        match self {
            Self::Forward(_) => true,
            Self::Balance(balancer) => balancer.is_ready(),
            Self::Missing => false,
        }
    }

    /// The endpoint to try next; waits for one up to the failfast timeout.
    pub(super) async fn next(&self) -> Result<Rc<Member<C>>, ProxyError> {
        match self {
            Self::Forward(member) => Ok(Rc::clone(member)),
            Self::Balance(balancer) => balancer.next().await,
            Self::Missing => Err(ProxyError::new(Code::PolicyUnsupported, "the route's backend has no kind")),
        }
    }

    /// An endpoint could not be connected. Says whether another one may be tried.
    pub(super) fn failed(&self, member: &Rc<Member<C>>, error: &ProxyError) -> bool {
        match self {
            Self::Balance(balancer) => {
                balancer.failed(member, error);
                true
            }
            Self::Forward(_) | Self::Missing => false,
        }
    }
}

/// A random one, by weight. Weights of zero are never drawn.
fn weighted<'c, T: 'c>(all: impl Iterator<Item = &'c (T, u32)> + Clone) -> Option<&'c T> {
    let total: u64 = all.clone().map(|(_, weight)| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = fastrand::u64(..total);
    for (item, weight) in all {
        match left.checked_sub(u64::from(*weight)) {
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
        let drawn: Vec<char> = (0..4000).filter_map(|_| weighted(all.iter()).copied()).collect();
        assert_eq!(drawn.len(), 4000);
        let count = |wanted| drawn.iter().filter(|c| **c == wanted).count();
        assert_eq!(count('b'), 0);
        assert!((900..1100).contains(&count('a')), "{}", count('a'));
        assert_eq!(weighted([('a', 0)].iter()), None);
    }
}
