//! Which failures are worth a line of the log now: each code at most once a second, whoever fails and however often.
//!
//! Shared by the workers and asked for every failure, so without locks; what is left out is counted and told with the next.

use super::{Code, ProxyError};
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two lines of one code.
const EVERY: Duration = Duration::from_secs(1);

/// When each code was told last.
#[derive(Debug)]
pub(crate) struct Notices {
    start: Instant,
    slots: [Slot; Code::ALL.len()],
}

#[derive(Debug, Default)]
struct Slot {
    /// From when on it is told again, in milliseconds since the start.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Notices {
    pub(crate) fn new(start: Instant) -> Self {
        Self { start, slots: std::array::from_fn(|_| Slot::default()) }
    }

    /// Whether to tell of a failure at `now`: how many of its code were left out since the last one that was told.
    pub(crate) fn take(&self, error: &ProxyError, now: Instant) -> Option<u64> {
        let slot = self.slots.get(error.code as usize)?;
        let now = u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let next = slot.next.load(Ordering::Relaxed);
        let every = u64::try_from(EVERY.as_millis()).unwrap_or(u64::MAX);
        let due = now >= next;
        // Of several workers one is faster.
        let ours = due
            && slot
                .next
                .compare_exchange(next, now.saturating_add(every), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if ours {
            return Some(slot.left_out.swap(0, Ordering::Relaxed));
        }
        slot.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_told_once_a_second_with_what_was_left_out() {
        let start = Instant::now();
        let notices = Notices::new(start);
        let take = |code, millis| notices.take(&ProxyError::new(code, ""), start + Duration::from_millis(millis));
        assert_eq!(take(Code::Unauthorized, 0), Some(0));
        for millis in [0, 1, 500, 999] {
            assert_eq!(take(Code::Unauthorized, millis), None);
        }
        assert_eq!(take(Code::RouteNotFound, 999), Some(0), "another one");
        assert_eq!(take(Code::Unauthorized, 1000), Some(4));
        assert_eq!(take(Code::Unauthorized, 1001), None);
        assert_eq!(take(Code::Unauthorized, 60_000), Some(1));
        for code in Code::ALL {
            assert_eq!(take(*code, 120_000), Some(0), "{code:?} has no slot");
        }
    }
}
