//! Good and bad outcomes of the last while, in ten buckets that are filled in turn.
//!
//! A bucket is 64 bits: the round in which it was filled, and both counts. It empties itself when it is filled in a later round.

use super::Outcome;
use std::time::Duration;

pub const BUCKETS: usize = 10;

/// The narrowest bucket: a window is at least ten of them.
const MIN_WIDTH: Duration = Duration::from_millis(1);

/// What the window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub good: u64,
    pub bad: u64,
}

/// A place in time: which bucket, filled in which round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    number: u64,
}

/// 24 bits for each count; 16 for the round, which comes again only after as many windows.
const COUNT: u64 = (1 << GOOD_AT) - 1;
const GOOD_AT: u32 = 24;
const ROUND_AT: u32 = 48;

impl Slot {
    /// The slot of `now` where `window` is the span of all buckets.
    pub fn at(now: Duration, window: Duration) -> Self {
        let width = (window / BUCKETS as u32).max(MIN_WIDTH);
        Self { number: u64::try_from(now.as_nanos() / width.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Which bucket to fill.
    pub fn index(self) -> usize {
        (self.number % BUCKETS as u64) as usize
    }

    fn round(self) -> u64 {
        (self.number / BUCKETS as u64) & 0xffff
    }

    /// The bucket with one more outcome. Where a count is full, both are halved, which keeps their ratio.
    pub fn count(self, bucket: u64, outcome: Outcome) -> u64 {
        let Counts { mut good, mut bad } = self.counts(bucket);
        match outcome {
            Outcome::Success => good += 1,
            Outcome::Failure | Outcome::RateLimited => bad += 1,
        }
        if good.max(bad) > COUNT {
            (good, bad) = (good / 2, bad / 2);
        }
        (self.round() << ROUND_AT) | (good << GOOD_AT) | bad
    }

    /// What the buckets hold that is not too old. `bucket` gives each by its index.
    pub fn sum(self, bucket: impl Fn(usize) -> u64) -> Counts {
        let live = (0..BUCKETS as u64).filter_map(|age| Some(Self { number: self.number.checked_sub(age)? }));
        live.fold(Counts::default(), |sum, slot| {
            let Counts { good, bad } = slot.counts(bucket(slot.index()));
            Counts { good: sum.good + good, bad: sum.bad + bad }
        })
    }

    /// What a bucket holds of this slot.
    fn counts(self, bucket: u64) -> Counts {
        if bucket >> ROUND_AT != self.round() {
            return Counts::default();
        }
        Counts { good: (bucket >> GOOD_AT) & COUNT, bad: bucket & COUNT }
    }
}
