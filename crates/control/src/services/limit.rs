//! How often an identity may ask for a certificate.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use weft_model::Identity;

/// All replicas of a workload may start at once, …
const BURST: u32 = 200;
/// … and then one more certificate per this time: of a whole namespace's default account thousands come before their probes give up.
const REFILL: Duration = Duration::from_millis(50);
/// Identities remembered; who is full again is forgotten.
const MAX_IDENTITIES: usize = 10_000;

#[derive(Default)]
pub(super) struct Limit(Mutex<HashMap<Identity, Bucket>>);

struct Bucket {
    left: u32,
    counted: Instant,
}

impl Limit {
    /// Whether one more would not be allowed at `now`.
    pub(super) fn is_spent(&self, identity: &Identity, now: Instant) -> bool {
        self.0.lock().get(identity).is_some_and(|bucket| bucket.at(now) == 0)
    }

    /// Whether one more is allowed at `now`.
    pub(super) fn allows(&self, identity: &Identity, now: Instant) -> bool {
        let mut buckets = self.0.lock();
        if buckets.len() >= MAX_IDENTITIES {
            buckets.retain(|_, bucket| bucket.at(now) < BURST);
        }
        if buckets.len() >= MAX_IDENTITIES && !buckets.contains_key(identity) {
            return false;
        }
        let bucket = buckets.entry(identity.clone()).or_insert(Bucket { left: BURST, counted: now });
        let left = bucket.at(now);
        if left != bucket.left {
            (bucket.left, bucket.counted) = (left, now);
        }
        match bucket.left.checked_sub(1) {
            Some(rest) => {
                // The time of a full bucket does not count towards the next refill.
                if left == BURST {
                    bucket.counted = now;
                }
                bucket.left = rest;
                true
            }
            None => false,
        }
    }
}

impl Bucket {
    fn at(&self, now: Instant) -> u32 {
        let refilled = now.saturating_duration_since(self.counted).as_millis() / REFILL.as_millis();
        self.left.saturating_add(u32::try_from(refilled).unwrap_or(u32::MAX)).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_starts_at_once_is_certified_before_its_probes_give_up() {
        let (limit, start) = (Limit::default(), Instant::now());
        let id = "default.shop".parse::<Identity>().unwrap();
        // Proxies ask again each second or later; their startup probe gives up after 120 s.
        let certified = (0..120).flat_map(|second| (0..1000).map(move |_| start + Duration::from_secs(second)));
        assert!(certified.filter(|now| limit.allows(&id, *now)).count() > 2000);
    }

    #[test]
    fn identities_do_not_take_from_each_other() {
        let (limit, now) = (Limit::default(), Instant::now());
        let id = |name: &str| name.parse::<Identity>().unwrap();
        assert_eq!((0..2 * BURST).filter(|_| limit.allows(&id("a.b"), now)).count(), BURST as usize);
        assert!(limit.is_spent(&id("a.b"), now) && !limit.is_spent(&id("c.d"), now));
        assert!(limit.allows(&id("c.d"), now));
        assert!(!limit.allows(&id("a.b"), now + REFILL / 2));
        assert!(limit.allows(&id("a.b"), now + REFILL));
        assert!(!limit.allows(&id("a.b"), now + REFILL));
    }
}
