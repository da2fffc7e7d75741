//! Which failures are worth a line of the log now: each code at most once a second, whoever fails and however often. Each side
//! counts by itself: what the application dials in vain takes no line from what strangers are refused.
//!
//! Shared by the workers and asked for every failure, so without locks; what is left out is counted and told with the next.

use super::{Code, ProxyError};
use crate::direction::Direction;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Between two lines of one code on one side.
const EVERY: Duration = Duration::from_secs(1);

/// When each side told each code last.
#[derive(Debug)]
pub(crate) struct Notices {
    start: Instant,
    inbound: Slots,
    outbound: Slots,
}

/// One for each code.
type Slots = [Slot; Code::ALL.len()];

#[derive(Debug, Default)]
struct Slot {
    /// From when on it is told again, in milliseconds since the start.
    next: AtomicU64,
    left_out: AtomicU64,
}

impl Notices {
    pub(crate) fn new(start: Instant) -> Self {
        let slots = || std::array::from_fn(|_| Slot::default());
        Self { start, inbound: slots(), outbound: slots() }
    }

    /// Whether to tell of a failure at `now`: how many of its code were left out on that side since the last one that was told.
    pub(crate) fn take(&self, side: Direction, error: &ProxyError, now: Instant) -> Option<u64> {
        let slots = match side {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let slot = slots.get(error.code as usize)?;
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
        let on =
            |side, code, millis| notices.take(side, &ProxyError::new(code, ""), start + Duration::from_millis(millis));
        let take = |code, millis| on(Direction::Inbound, code, millis);
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

    /// An application may fail all the time where its policy forbids what it dials.
    #[test]
    fn one_side_takes_no_line_from_the_other() {
        let start = Instant::now();
        let notices = Notices::new(start);
        for code in Code::ALL {
            let take = |side| notices.take(side, &ProxyError::new(*code, ""), start);
            assert_eq!((take(Direction::Outbound), take(Direction::Outbound)), (Some(0), None), "{code:?}");
            assert_eq!(take(Direction::Inbound), Some(0), "{code:?}");
        }
        let error = ProxyError::new(Code::Unauthorized, "");
        let later = start + EVERY;
        assert_eq!(notices.take(Direction::Inbound, &error, later), Some(0), "none of its own was left out");
        assert_eq!(notices.take(Direction::Outbound, &error, later), Some(1));
    }
}
