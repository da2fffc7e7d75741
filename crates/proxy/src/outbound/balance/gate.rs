//! Failfast: how long requests wait for an endpoint, how many may, and when they are refused at once.
//!
//! Pure: time is an argument. The gate shuts when no endpoint has been ready for the timeout; it opens when one is.

use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Gate {
    limits: GateLimits,
    unready_since: Option<Instant>,
    waiting: usize,
}

/// The bounds of waiting for an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateLimits {
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

impl Gate {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self { limits, unready_since: None, waiting: 0 }
    }

    /// An endpoint is ready.
    pub(crate) fn ready(&mut self) {
        self.unready_since = None;
    }

    /// No endpoint is ready.
    pub(crate) fn unready(&mut self, now: Instant) {
        self.unready_since.get_or_insert(now);
    }

    /// Lets a request wait until the returned time, unless it is refused. Each success is followed by one [`Gate::leave`].
    pub(crate) fn enter(&mut self, now: Instant) -> Result<Instant, Refused> {
        let deadline = *self.unready_since.get_or_insert(now) + self.limits.failfast;
        if now >= deadline {
            return Err(Refused::Shut);
        }
        if self.waiting >= self.limits.waiting {
            return Err(Refused::Full);
        }
        self.waiting += 1;
        Ok(deadline)
    }

    pub(crate) fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuts_after_the_timeout_and_opens_when_ready() {
        let mut gate = Gate::new(GateLimits { waiting: 10, failfast: Duration::from_secs(3) });
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(gate.enter(at(0)), Ok(at(3)));
        assert_eq!(gate.enter(at(2)), Ok(at(3)), "the time since when no endpoint is ready counts, not the request's");
        gate.unready(at(2));
        assert_eq!(gate.enter(at(3)), Err(Refused::Shut));
        gate.ready();
        assert_eq!(gate.enter(at(4)), Ok(at(7)));
    }

    #[test]
    fn waiters_are_bounded() {
        let mut gate = Gate::new(GateLimits { waiting: 1, failfast: Duration::from_secs(3) });
        let now = Instant::now();
        assert!(gate.enter(now).is_ok());
        assert_eq!(gate.enter(now), Err(Refused::Full));
        gate.leave();
        assert!(gate.enter(now).is_ok());
    }
}
