//! Failfast: how long requests wait for an endpoint, and when they are refused at once.
//!
//! Pure: time is an argument. It shuts when no endpoint has been ready for the timeout, and opens when one is. Linkerd's metrics
//! call it the queue's failfast.

use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Failfast {
    timeout: Duration,
    unready_since: Option<Instant>,
    shut: bool,
}

/// The bounds of waiting for an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) waiting: usize,
    pub(crate) failfast: Duration,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No endpoint has been ready for the failfast timeout.
    Shut,
    /// As many requests as allowed are waiting already.
    Full,
}

impl Failfast {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { timeout, unready_since: None, shut: false }
    }

    /// An endpoint is ready.
    pub(crate) fn ready(&mut self) {
        self.unready_since = None;
        self.shut = false;
    }

    /// No endpoint is ready.
    pub(crate) fn unready(&mut self, now: Instant) {
        self.unready_since.get_or_insert(now);
    }

    /// Until when a request may wait; `None` when it is shut.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let deadline = *self.unready_since.get_or_insert(now) + self.timeout;
        self.shut = now >= deadline;
        (!self.shut).then_some(deadline)
    }

    /// Somebody found it shut, and no endpoint has been ready since.
    pub(crate) fn is_shut(&self) -> bool {
        self.shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuts_after_the_timeout_and_opens_when_ready() {
        let mut failfast = Failfast::new(Duration::from_secs(3));
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(failfast.deadline(at(0)), Some(at(3)));
        assert_eq!(
            failfast.deadline(at(2)),
            Some(at(3)),
            "the time since when no endpoint is ready counts, not the request's"
        );
        failfast.unready(at(2));
        assert_eq!((failfast.is_shut(), failfast.deadline(at(3)), failfast.is_shut()), (false, None, true));
        failfast.ready();
        assert!(!failfast.is_shut());
        assert_eq!(failfast.deadline(at(4)), Some(at(7)));
    }
}
