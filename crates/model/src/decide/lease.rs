//! Who of several replicas acts: a lease that one holds, renews, and loses by silence.
//!
//! Clocks of machines differ, so nobody reads the time that another wrote: a lease is stale when it has not changed for its duration
//! as its observer counts it. The API server lets one of several writers win.

use std::time::Duration;

/// How long a lease is good without a renewal, …
pub const DURATION: Duration = Duration::from_secs(30);
/// … how often its holder renews it, …
pub const RENEW: Duration = Duration::from_secs(10);
/// … and how often others look.
pub const LOOK: Duration = Duration::from_secs(5);

/// A lease as somebody sees it. Times are on the observer's monotonic clock, from any beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Empty if it was given back.
    pub holder: String,
    pub duration: Duration,
    /// When it was first seen as it is.
    pub since: Duration,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write it: there is none, nobody holds it, or its holder is silent.
    Acquire,
    Renew,
    /// Look again after this long.
    Wait(Duration),
}

/// What `me` does about a lease at `now`.
pub fn decide(lease: Option<&Seen>, me: &str, now: Duration) -> Step {
    let Some(lease) = lease else { return Step::Acquire };
    let age = now.saturating_sub(lease.since);
    if lease.holder == me {
        return match RENEW.checked_sub(age) {
            Some(left) if !left.is_zero() => Step::Wait(left),
            _ => Step::Renew,
        };
    }
    if lease.holder.is_empty() {
        return Step::Acquire;
    }
    match lease.duration.checked_sub(age) {
        Some(left) if !left.is_zero() => Step::Wait(left.min(LOOK)),
        _ => Step::Acquire,
    }
}

/// Whether `me` may act at `now`. It stops a while before others may begin: what was decided is still under way.
pub fn holds(lease: Option<&Seen>, me: &str, now: Duration) -> bool {
    lease.is_some_and(|l| l.holder == me && now.saturating_sub(l.since) < l.duration * 2 / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn seen(holder: &str, since: u32) -> Seen {
        Seen { holder: holder.to_owned(), duration: DURATION, since: S * since }
    }

    #[test]
    fn a_lease_is_taken_from_the_silent_alone() {
        assert_eq!(decide(None, "a", S), Step::Acquire);
        assert_eq!(decide(Some(&seen("", 0)), "a", S), Step::Acquire);
        for (holder, at, step) in [
            ("a", 0, Step::Wait(RENEW)),
            ("a", 9, Step::Wait(S)),
            ("a", 10, Step::Renew),
            ("a", 1000, Step::Renew),
            ("b", 0, Step::Wait(LOOK)),
            ("b", 28, Step::Wait(S * 2)),
            ("b", 30, Step::Acquire),
        ] {
            assert_eq!(decide(Some(&seen(holder, 5)), "a", S * (5 + at)), step, "{holder} at {at}");
        }
    }

    /// However late anybody runs, two never hold it at once.
    #[test]
    fn never_two_hold_it() {
        let mut random: u64 = 7;
        let mut next = |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((random >> 33) % n).unwrap_or(0)
        };
        // The record, and what each of three sees of it: its version and since when.
        let (mut record, mut version) = (None::<String>, 0_u64);
        let mut views: Vec<(u64, Option<Seen>)> = vec![(0, None); 3];
        let mut changes = 0;
        for tick in 0..200_000_u32 {
            let now = S * tick;
            // Some sleep for long.
            let who = next(40) as usize;
            if let Some((at, view)) = views.get_mut(who) {
                let me = who.to_string();
                // Looks, then writes if the version is still the one it saw.
                if *at != version {
                    let seen = record.as_ref().map(|h| Seen { holder: h.clone(), duration: DURATION, since: now });
                    (*at, *view) = (version, seen);
                }
                if matches!(decide(view.as_ref(), &me, now), Step::Acquire | Step::Renew) {
                    changes += u32::from(record.as_ref() != Some(&me));
                    (record, version) = (Some(me.clone()), version + 1);
                    (*at, *view) = (version, Some(Seen { holder: me, duration: DURATION, since: now }));
                }
            }
            let holders = views.iter().enumerate().filter(|(i, (_, v))| holds(v.as_ref(), &i.to_string(), now));
            assert!(holders.count() <= 1, "at {tick}");
        }
        assert!(changes > 10, "it changed hands {changes} times");
    }
}
