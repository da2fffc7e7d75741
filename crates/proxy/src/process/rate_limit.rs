//! The rate limits of one port, for all workers: buckets are single atomics, and what a client's own bucket is was found out
//! when its connection first met the limit.
//!
//! Decides nothing itself: [`weft_model::decide::rate_limit`] does.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use weft_model::{
    Identity,
    decide::rate_limit::{Own, Scope, own, take},
    policy::inbound::RateLimit,
};

/// Clients with a bucket of their own. More of them share one, so that made-up identities cost no memory.
const MAX_CLIENTS: usize = 10_000;

/// Tells the time of limits. Tests put in their own.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The time that passes by itself.
pub fn clock() -> Clock {
    Arc::new(Instant::now)
}

/// The buckets of one limit.
pub struct Limiter {
    limit: RateLimit,
    /// Buckets count from here.
    start: Instant,
    total: Bucket,
    overrides: Box<[Arc<Bucket>]>,
    clients: Mutex<HashMap<Option<Identity>, Arc<Bucket>>>,
    /// For clients that came when all places were taken.
    others: Arc<Bucket>,
}

#[derive(Default)]
struct Bucket(AtomicU64);

/// The limits of one client.
pub struct Limits {
    limiter: Arc<Limiter>,
    own: Option<(Arc<Bucket>, u32)>,
}

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub scope: Scope,
    pub per_second: u32,
}

impl Limiter {
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        Self {
            overrides: limit.overrides.iter().map(|_| Arc::default()).collect(),
            limit,
            start: now,
            total: Bucket::default(),
            clients: Mutex::default(),
            others: Arc::default(),
        }
    }

    pub fn limit(&self) -> &RateLimit {
        &self.limit
    }

    /// What `client` is measured by. Takes a lock: for a connection, not for a request.
    pub fn of(self: &Arc<Self>, client: Option<&Identity>, now: Instant) -> Limits {
        let own = own(&self.limit, client).and_then(|own| match own {
            Own::Override { index, per_second } => Some((Arc::clone(self.overrides.get(index)?), per_second)),
            Own::Identity { per_second } => Some((self.bucket(client, now), per_second)),
        });
        Limits { limiter: Arc::clone(self), own }
    }

    fn bucket(&self, client: Option<&Identity>, now: Instant) -> Arc<Bucket> {
        let mut clients = self.clients.lock();
        if let Some(bucket) = clients.get(&client.cloned()) {
            return Arc::clone(bucket);
        }
        if clients.len() >= MAX_CLIENTS {
            let now = self.since_start(now);
            // A bucket that nobody holds and that has emptied is as good as a new one.
            clients.retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.0.load(Relaxed) > now);
            if clients.len() >= MAX_CLIENTS {
                return Arc::clone(&self.others);
            }
        }
        Arc::clone(clients.entry(client.cloned()).or_default())
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Limits {
    pub fn limit(&self) -> &RateLimit {
        self.limiter.limit()
    }

    /// Whether there is room for a request at `now`. Linkerd's proxy counts what one client has too many against all; here it
    /// does not, so that a client over its own limit takes nothing from others.
    ///
    /// # Errors
    /// The limit that has none; the total is looked at first.
    pub fn admit(&self, now: Instant) -> Result<(), Exceeded> {
        let limiter = &self.limiter;
        let now = limiter.since_start(now);
        let total = limiter.limit.total;
        let over_total = |per_second| Exceeded { scope: Scope::Total, per_second };
        if let Some(per_second) = total {
            take(limiter.total.0.load(Relaxed), now, per_second).map_err(|_| over_total(per_second))?;
        }
        if let Some((bucket, per_second)) = &self.own
            && !bucket.take(now, *per_second)
        {
            return Err(Exceeded { scope: Scope::Identity, per_second: *per_second });
        }
        match total {
            Some(per_second) if !limiter.total.take(now, per_second) => Err(over_total(per_second)),
            _ => Ok(()),
        }
    }
}

impl Bucket {
    fn take(&self, now: u64, per_second: u32) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |bucket| take(bucket, now, per_second).ok()).is_ok()
    }
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rate limit exceeded: {}rps", self.scope.as_str(), self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weft_model::Meta;

    fn limiter(total: Option<u32>, identity: Option<u32>, overrides: Vec<(u32, Vec<Identity>)>) -> Arc<Limiter> {
        let limit = RateLimit { meta: Meta::default_named("limit"), total, identity, overrides };
        Arc::new(Limiter::new(limit, Instant::now()))
    }

    fn id(name: &str) -> Identity {
        name.parse().unwrap()
    }

    #[test]
    fn clients_are_measured_apart_and_strangers_together() {
        let now = Instant::now();
        let limiter = limiter(None, Some(2), vec![(3, vec![id("a.b"), id("b.b")])]);
        let admitted = |client: Option<&str>| {
            let limits = limiter.of(client.map(id).as_ref(), now);
            (0..9).filter(|_| limits.admit(now).is_ok()).count()
        };
        assert_eq!(admitted(Some("c.b")), 2);
        assert_eq!(admitted(Some("c.b")), 0, "also over another connection");
        assert_eq!(admitted(Some("d.b")), 2);
        assert_eq!(admitted(None), 2);
        assert_eq!(admitted(None), 0);
        assert_eq!(admitted(Some("a.b")), 3);
        assert_eq!(admitted(Some("b.b")), 0, "clients of one override share it");
    }

    #[test]
    fn who_has_too_many_takes_nothing_from_others() {
        let now = Instant::now();
        let limiter = limiter(Some(4), Some(2), vec![]);
        let (greedy, modest) = (limiter.of(Some(&id("a.b")), now), limiter.of(Some(&id("b.b")), now));
        let refused = |limits: &Limits| limits.admit(now).err().map(|e| e.scope);
        assert_eq!([refused(&greedy), refused(&greedy)], [None, None]);
        for _ in 0..10 {
            assert_eq!(refused(&greedy), Some(Scope::Identity));
        }
        assert_eq!([refused(&modest), refused(&modest)], [None, None]);
        assert_eq!(refused(&greedy), Some(Scope::Total), "all have too many");
        let later = now + Duration::from_millis(600);
        assert!(greedy.admit(later).is_ok());
    }

    #[test]
    fn identities_are_bounded() {
        let now = Instant::now();
        let limiter = limiter(None, Some(1), vec![]);
        let held: Vec<_> = (0..MAX_CLIENTS).map(|n| limiter.of(Some(&id(&format!("c{n}.b"))), now)).collect();
        let (first, second) = (limiter.of(Some(&id("x.b")), now), limiter.of(Some(&id("y.b")), now));
        assert!(first.admit(now).is_ok());
        assert!(second.admit(now).is_err(), "they share a bucket");
        assert_eq!(limiter.clients.lock().len(), MAX_CLIENTS);
        drop(held);
        assert!(limiter.of(Some(&id("y.b")), now).admit(now).is_ok(), "there is room again");
    }

    #[test]
    fn threads_share_a_limit_exactly() {
        let now = Instant::now();
        let limiter = limiter(Some(1000), None, vec![]);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let limits = limiter.of(None, now);
                    scope.spawn(move || (0..1000).filter(|_| limits.admit(now).is_ok()).count())
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }
}
