//! What the workers' balancers of one target share, because the limits that a user sets hold for the process: how many requests
//! wait, and which endpoints fail.

use super::accrual::Accrual;
use crate::metrics::balancer::Kind;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::time::Instant;
use weft_model::{NameAddr, decide::breaker::Rules, policy::outbound::Load};

/// What tells balancers apart: rules that name the same target in the same way share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) target: NameAddr,
    pub(crate) load: Load,
    /// When an endpoint that fails is left out.
    pub(crate) rules: Option<Rules>,
}

/// Every target's. Looked up when a worker makes a balancer, never per request.
#[derive(Default)]
pub(crate) struct Balancers(Mutex<HashMap<Key, Weak<Shared>>>);

/// One target's.
#[derive(Default)]
pub(crate) struct Shared {
    waiting: AtomicUsize,
    accruals: Mutex<HashMap<SocketAddr, Weak<Accrual>>>,
}

/// A place among those who wait, for as long as it lives.
pub(crate) struct Place(Arc<Shared>);

impl Balancers {
    /// What belongs to `key`, as long as some worker holds it.
    pub(crate) fn get(&self, key: &Key) -> Arc<Shared> {
        let mut all = self.0.lock();
        if let Some(held) = all.get(key).and_then(Weak::upgrade) {
            return held;
        }
        all.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::default());
        all.insert(key.clone(), Arc::downgrade(&shared));
        shared
    }
}

impl Shared {
    /// A place to wait, unless `limit` requests wait already.
    pub(crate) fn enter(self: &Arc<Self>, limit: usize) -> Option<Place> {
        // Taken before it is looked at: two workers that reach for the last place cannot both get it.
        let before = self.waiting.fetch_add(1, Relaxed);
        let place = Place(Arc::clone(self));
        (before < limit).then_some(place)
    }

    /// What is known of an endpoint's failures. It lasts as long as some worker holds the endpoint.
    pub(crate) fn accrual(&self, addr: SocketAddr, rules: Rules, now: Instant) -> Arc<Accrual> {
        let mut accruals = self.accruals.lock();
        if let Some(held) = accruals.get(&addr).and_then(Weak::upgrade) {
            return held;
        }
        accruals.retain(|_, accrual| accrual.strong_count() > 0);
        let accrual = Arc::new(Accrual::new(addr.to_string(), rules, now));
        accruals.insert(addr, Arc::downgrade(&accrual));
        accrual
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weft_model::policy::outbound::{Backoff, Breaker};

    /// Of a balancer that leaves out what fails, with waits of that jitter.
    fn key(target: &str, jitter: f32) -> Key {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter };
        let load = Load { default_rtt: Duration::from_millis(30), decay: Duration::from_secs(10), penalty: None };
        let rules = Rules::new(&Breaker::Consecutive { max_failures: 7, backoff });
        assert!(rules.is_some());
        Key { kind: Kind::Http, target: target.parse().unwrap(), load, rules }
    }

    #[test]
    fn what_is_held_is_shared_and_nothing_else_is_kept() {
        let balancers = Balancers::default();
        let (one, two) = (balancers.get(&key("web:80", 0.5)), balancers.get(&key("web:80", 0.5)));
        assert!(Arc::ptr_eq(&one, &two));
        drop((one, two));
        let other = balancers.get(&key("db:80", 0.5));
        assert_eq!(balancers.0.lock().len(), 1);
        assert!(!Arc::ptr_eq(&other, &balancers.get(&key("db:80", 0.1))), "asked for in another way");
        assert!(!Arc::ptr_eq(&other, &balancers.get(&Key { kind: Kind::Tcp, ..key("db:80", 0.5) })));
    }

    #[test]
    fn places_are_bounded() {
        let shared = Arc::new(Shared::default());
        let place = shared.enter(1);
        assert!(place.is_some() && shared.enter(1).is_none());
        drop(place);
        assert!(shared.enter(1).is_some());
    }
}
