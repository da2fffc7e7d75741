//! Local rate limits (data plane 3.6): how many requests a second a server takes, in all and of each client.
//!
//! The generic cell rate algorithm: a bucket is one number, the moment at which it will have emptied, so whoever shares buckets
//! between threads does so by one atomic each. A bucket that is empty takes a second's worth of requests at once.

use crate::{Identity, policy::inbound::RateLimit};
use std::time::Duration;

/// How much may be in a bucket, as time in which it empties.
const BURST_NS: u64 = 1_000_000_000;

/// Which limit was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Total,
    Identity,
}

/// The bucket that a client's requests go into besides that of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// That of the override with this index, which its clients share.
    Override { index: usize, per_second: u32 },
    /// One for this identity; clients without one share theirs.
    Identity { per_second: u32 },
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Identity => "identity",
        }
    }
}

/// One request more at `now`, both in nanoseconds since the same moment: the bucket's next state, or how long there is no room.
///
/// A new bucket is 0. Limits that do not divide a second are met to the nanosecond per request, those above 10⁹ not at all.
///
/// # Errors
/// The bucket is full.
pub fn take(bucket: u64, now: u64, per_second: u32) -> Result<u64, Duration> {
    let interval = BURST_NS / u64::from(per_second.max(1));
    let next = bucket.max(now).saturating_add(interval);
    match next.saturating_sub(now).saturating_sub(BURST_NS) {
        0 => Ok(next),
        wait => Err(Duration::from_nanos(wait)),
    }
}

/// The bucket of a client's own; `None` if only the total counts.
pub fn own(limit: &RateLimit, client: Option<&Identity>) -> Option<Own> {
    let named = client.and_then(|id| {
        let mut all = limit.overrides.iter().enumerate();
        all.find(|(_, (_, clients))| clients.contains(id)).map(|(index, (rate, _))| (index, *rate))
    });
    match named {
        Some((index, per_second)) => Some(Own::Override { index, per_second }),
        None => limit.identity.map(|per_second| Own::Identity { per_second }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Meta;
    use proptest::prelude::*;

    #[test]
    fn a_second_at_once_then_one_by_one() {
        let mut bucket = 0;
        let mut ask = |now_ms: u64, rate| match take(bucket, now_ms * 1_000_000, rate) {
            Ok(next) => {
                bucket = next;
                Ok(())
            }
            Err(wait) => Err(wait.as_millis()),
        };
        for _ in 0..4 {
            assert_eq!(ask(10_000, 4), Ok(()));
        }
        assert_eq!(ask(10_000, 4), Err(250));
        assert_eq!(ask(10_249, 4), Err(1));
        assert_eq!(ask(10_250, 4), Ok(()));
        assert_eq!(ask(10_250, 4), Err(250));
        for _ in 0..4 {
            assert_eq!(ask(20_000, 4), Ok(()), "what was saved up is a second's worth at most");
        }
        assert_eq!(ask(20_000, 4), Err(250));
    }

    proptest! {
        /// In any window of a second there are at most twice as many as the limit says: what was saved up, and what has come.
        #[test]
        fn no_second_holds_more_than_two(rate in 1u32..50, gaps in proptest::collection::vec(0u64..80_000_000, 1..400)) {
            let (mut now, mut bucket, mut taken) = (1u64 << 40, 0, vec![]);
            for gap in gaps {
                now += gap;
                if let Ok(next) = take(bucket, now, rate) {
                    bucket = next;
                    taken.push(now);
                }
            }
            for (first, at) in taken.iter().enumerate() {
                let in_window = taken[first..].iter().take_while(|t| **t < at + BURST_NS).count();
                prop_assert!(in_window <= 2 * rate as usize, "{in_window}");
            }
        }

        #[test]
        fn nothing_overflows(bucket: u64, now: u64, rate: u32) {
            let _ = take(bucket, now, rate);
        }
    }

    #[test]
    fn overrides_replace_the_limit_of_each() {
        let id = |name: &str| name.parse::<Identity>().unwrap();
        let limit = RateLimit {
            meta: Meta::default_named("limit"),
            total: Some(100),
            identity: Some(10),
            overrides: vec![(50, vec![id("a.b"), id("b.b")]), (75, vec![id("c.b")])],
        };
        assert_eq!(own(&limit, Some(&id("b.b"))), Some(Own::Override { index: 0, per_second: 50 }));
        assert_eq!(own(&limit, Some(&id("c.b"))), Some(Own::Override { index: 1, per_second: 75 }));
        assert_eq!(own(&limit, Some(&id("d.b"))), Some(Own::Identity { per_second: 10 }));
        assert_eq!(own(&limit, None), Some(Own::Identity { per_second: 10 }));
        let total_only = RateLimit { identity: None, ..limit };
        assert_eq!(own(&total_only, None), None);
    }
}
