//! How many requests of one direction may wait for the heads of their responses.
//!
//! The limit holds for the process, so this is the one thing on the request path that workers share: one atomic addition when
//! a request begins, one subtraction when its response does.

use crate::{
    error::{Code, ProxyError},
    exchange::Observe,
};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

pub struct InFlight {
    limit: usize,
    now: AtomicUsize,
}

/// Counts a request as in flight until dropped.
pub(crate) struct Permit(Arc<InFlight>);

impl InFlight {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, now: AtomicUsize::new(0) })
    }

    /// # Errors
    /// As many requests as allowed are in flight.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Permit, ProxyError> {
        // Taken before it is looked at: two workers that reach for the last place cannot both get it. Whoever is refused
        // gives the place back by dropping.
        let before = self.now.fetch_add(1, Relaxed);
        let permit = Permit(Arc::clone(self));
        if before >= self.limit {
            return Err(ProxyError::new(Code::LoadShed, format!("more than {} requests are in flight", self.limit)));
        }
        Ok(permit)
    }
}

/// For who follows a request on behalf of its permit alone: it is given back when the head of the response comes.
impl Observe for Option<Permit> {
    fn response_head(&mut self, _: u16) {
        *self = None;
    }

    fn first_byte(&mut self) {}

    fn end(&mut self, _: Option<u16>, _: Option<&ProxyError>) {}
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_across_threads() {
        let in_flight = InFlight::new(100);
        let admitted: Vec<Permit> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..100).filter_map(|_| in_flight.admit().ok()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 100, "of 400 on four threads");
        assert_eq!(in_flight.admit().err().map(|e| e.code), Some(Code::LoadShed));
        drop(admitted);
        assert_eq!(in_flight.now.load(Relaxed), 0, "what was refused does not count");
        assert!(in_flight.admit().is_ok());
    }
}
