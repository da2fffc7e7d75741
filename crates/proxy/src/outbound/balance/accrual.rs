//! Whether an endpoint is let through to: the gate of `decide::breaker`, shared by all workers as atomics.
//!
//! ```text
//! admit() ─► Ticket ─► request ─► finish(outcome) ─► gate ─► changed: workers look again
//!                         └─ dropped: no outcome
//! ```
//! A request costs a load, and with a success rate one count more. Workers are woken only when the gate opens or shuts.

use std::sync::{
    Arc,
    atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};
use std::{pin::pin, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use weft_model::decide::breaker::{
    Admission, Gate, Outcome, Pass, Rules,
    window::{BUCKETS, Counts, Slot},
};

/// What all workers know of one endpoint's failures.
pub(crate) struct Accrual {
    /// For logs.
    name: String,
    rules: Rules,
    start: Instant,
    gate: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
    changed: Notify,
}

/// One request that was let through. Dropped without an outcome it says nothing of the endpoint.
pub(crate) struct Ticket {
    accrual: Arc<Accrual>,
    pass: Pass,
    since: Instant,
    finished: bool,
}

/// How long a probe whose response flows has to last until that is a success: there are streams without an end.
const FLOWING: Duration = Duration::from_secs(1);

impl Accrual {
    pub(crate) fn new(name: String, rules: Rules, now: Instant) -> Self {
        let gate = AtomicU64::new(Gate::OPEN.bits());
        Self { name, rules, start: now, gate, buckets: Default::default(), changed: Notify::new() }
    }

    /// Lets a request through, unless the gate is shut.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Option<Ticket> {
        let at = now.saturating_duration_since(self.start);
        let ticket = |pass| Ticket { accrual: Arc::clone(self), pass, since: now, finished: false };
        let mut bits = self.gate.load(Acquire);
        loop {
            match Gate::from_bits(bits).admit(&self.rules, at) {
                Admission::Open(pass) => return Some(ticket(pass)),
                Admission::Refused(_) => return None,
                Admission::Probe(pass, next) => {
                    match self.gate.compare_exchange(bits, next.bits(), AcqRel, Acquire) {
                        Ok(_) => return Some(ticket(pass)),
                        // Another worker was faster.
                        Err(now) => bits = now,
                    }
                }
            }
        }
    }

    /// Whether a request would be let through.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.start);
        !matches!(Gate::from_bits(self.gate.load(Acquire)).admit(&self.rules, at), Admission::Refused(_))
    }

    /// Waits until a request would be let through.
    pub(crate) async fn due(&self) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Registered before looking, so that no change falls between.
            changed.as_mut().enable();
            let at = Instant::now().saturating_duration_since(self.start);
            let Admission::Refused(until) = Gate::from_bits(self.gate.load(Acquire)).admit(&self.rules, at) else {
                return;
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(self.start + until) => {}
            }
        }
    }

    fn finish(&self, pass: Pass, outcome: Outcome, now: Instant) {
        let at = now.saturating_duration_since(self.start);
        let mut bits = self.gate.load(Acquire);
        let counts = self.count(Gate::from_bits(bits), pass, outcome, at);
        loop {
            let gate = Gate::from_bits(bits);
            let next = gate.after(&self.rules, pass, outcome, counts, at, fastrand::f64());
            if next == gate {
                return;
            }
            if next.is_open() && !gate.is_open() {
                // What was before says nothing any more. Nobody counts while a probe is on its way.
                self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
            }
            match self.gate.compare_exchange(bits, next.bits(), AcqRel, Acquire) {
                Ok(_) => return self.moved(gate, next),
                Err(now) => bits = now,
            }
        }
    }

    /// Counts an outcome, if the success rate matters and the gate takes it.
    fn count(&self, gate: Gate, pass: Pass, outcome: Outcome, at: Duration) -> Counts {
        let Some(window) = self.rules.window().filter(|_| gate.takes(pass)) else { return Counts::default() };
        let slot = Slot::at(at, window);
        if let Some(bucket) = self.buckets.get(slot.index()) {
            // The closure never gives up.
            let _ = bucket.fetch_update(Relaxed, Relaxed, |bits| Some(slot.count(bits, outcome)));
        }
        slot.sum(|index| self.buckets.get(index).map_or(0, |bucket| bucket.load(Relaxed)))
    }

    fn release(&self, pass: Pass, now: Instant) {
        let at = now.saturating_duration_since(self.start);
        let released = |bits| {
            let gate = Gate::from_bits(bits);
            Some(gate.released(pass, at)).filter(|next| *next != gate).map(Gate::bits)
        };
        if self.gate.fetch_update(AcqRel, Acquire, released).is_ok() {
            self.changed.notify_waiters();
        }
    }

    fn moved(&self, from: Gate, to: Gate) {
        match (from.is_open(), to.is_open()) {
            (true, true) => return,
            (true, false) => tracing::warn!(endpoint = self.name, "an endpoint fails and is left out"),
            (false, true) => tracing::info!(endpoint = self.name, "an endpoint no longer fails"),
            (false, false) => tracing::debug!(endpoint = self.name, "an endpoint still fails"),
        }
        self.changed.notify_waiters();
    }
}

impl Ticket {
    pub(crate) fn finish(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.finished, true) {
            self.accrual.finish(self.pass, outcome, Instant::now());
        }
    }

    /// The response flows, and nothing speaks against the endpoint so far.
    pub(crate) fn flows(&mut self) {
        if self.pass.is_probe() && self.since.elapsed() >= FLOWING {
            self.finish(Outcome::Success);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished && self.pass.is_probe() {
            self.accrual.release(self.pass, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicUsize, thread};
    use weft_model::policy::outbound::{Backoff, Breaker};

    fn accrual(max_failures: u32) -> Arc<Accrual> {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60), jitter: 0.0 };
        let rules = Rules::new(&Breaker::Consecutive { max_failures, backoff }).unwrap();
        Arc::new(Accrual::new("10.0.0.1:80".into(), rules, Instant::now()))
    }

    fn fail(accrual: &Arc<Accrual>, times: usize) {
        for _ in 0..times {
            accrual.admit(Instant::now()).unwrap().finish(Outcome::Failure);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_told_when_the_wait_is_over() {
        let accrual = accrual(2);
        accrual.due().await;
        fail(&accrual, 2);
        let start = Instant::now();
        accrual.due().await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        let mut probe = accrual.admit(Instant::now()).unwrap();
        assert!(accrual.admit(Instant::now()).is_none());
        let (waiting, ()) = tokio::join!(accrual.due(), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            probe.finish(Outcome::Success);
        });
        assert_eq!((waiting, start.elapsed()), ((), Duration::from_millis(1010)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_dropped_makes_room_for_another() {
        let accrual = accrual(1);
        fail(&accrual, 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(accrual.admit(Instant::now()).unwrap());
        let mut probe = accrual.admit(Instant::now()).expect("another probe");
        tokio::time::advance(FLOWING).await;
        probe.flows();
        assert!(accrual.admit(Instant::now()).is_some());
    }

    /// Threads fail at once: together they trip the gate, and of all that would probe one may.
    #[test]
    fn threads_share_one_gate() {
        for _ in 0..50 {
            let accrual = accrual(8);
            let later = Instant::now() + Duration::from_secs(5);
            let probes = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| fail(&accrual, 2));
                }
            });
            assert!(accrual.admit(Instant::now()).is_none());
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        if let Some(ticket) = accrual.admit(later) {
                            probes.fetch_add(1, Relaxed);
                            std::mem::forget(ticket);
                        }
                    });
                }
            });
            assert_eq!(probes.into_inner(), 1);
        }
    }
}
