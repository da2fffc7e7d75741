//! HTTP/1 connections that wait for their next request.

use std::{cell::RefCell, collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// HTTP/1 connections that are idle between two messages. The one used last is used next, so that a burst's surplus ages out.
pub(crate) struct Idle<C> {
    /// Oldest first.
    idle: RefCell<VecDeque<(Instant, C)>>,
    limit: IdleLimit,
}

/// How many connections an endpoint's pool keeps, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleLimit {
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
}

impl<C> Idle<C> {
    pub(crate) fn new(limit: IdleLimit) -> Self {
        Self { idle: RefCell::default(), limit }
    }

    pub(crate) fn take(&self, now: Instant) -> Option<C> {
        let mut idle = self.idle.borrow_mut();
        let (since, connection) = idle.pop_back()?;
        if now.duration_since(since) < self.limit.timeout {
            return Some(connection);
        }
        // The newest is too old, so all are.
        idle.clear();
        None
    }

    pub(crate) fn keep(&self, now: Instant, connection: C) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= self.limit.connections {
            idle.pop_front();
        }
        if self.limit.connections > 0 {
            idle.push_back((now, connection));
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn expire(&self, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        while idle.front().is_some_and(|(since, _)| now.duration_since(*since) >= self.limit.timeout) {
            idle.pop_front();
        }
    }

    /// Drops those for which `keeps` does not hold; whether there were any.
    pub(crate) fn drops(&self, mut keeps: impl FnMut(&mut C) -> bool) -> bool {
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain_mut(|(_, connection)| keeps(connection));
        idle.len() < before
    }

    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.idle.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: IdleLimit = IdleLimit { connections: 2, timeout: Duration::from_secs(3) };

    #[test]
    fn the_last_used_connection_is_used_next_and_old_ones_close() {
        let pool = Idle::new(LIMIT);
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        pool.keep(at(0), 'a');
        pool.keep(at(1), 'b');
        pool.keep(at(2), 'c');
        assert_eq!(pool.len(), 2, "the oldest gave way");
        assert_eq!(pool.take(at(2)), Some('c'));
        pool.keep(at(3), 'c');
        pool.expire(at(4));
        assert_eq!(pool.len(), 1, "b was idle for three seconds");
        assert_eq!(pool.take(at(6)), None, "c was as well");
        assert_eq!(pool.len(), 0);
    }
}
