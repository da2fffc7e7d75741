//! Which endpoint a request goes to: of two random ones the one with the lower load (data plane 4.6).
//!
//! The load of an endpoint is the moving average of its round trips, times the requests it has not answered yet.

use std::time::{Duration, Instant};

/// The floor of the assumed round trip: a zero would hide every load behind it.
pub const MIN_DEFAULT_RTT: Duration = Duration::from_millis(1);

/// An average of round trips that follows a rise at once and forgets it over `decay`.
#[derive(Clone, Copy, Debug)]
pub struct PeakEwma {
    /// Seconds.
    rtt: f64,
    updated: Instant,
    /// Seconds; above 0.
    decay: f64,
}

/// One of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    First,
    Second,
}

impl PeakEwma {
    /// An endpoint without a measured round trip counts as having taken `default_rtt`.
    pub fn new(default_rtt: Duration, decay: Duration, now: Instant) -> Self {
        Self {
            rtt: default_rtt.max(MIN_DEFAULT_RTT).as_secs_f64(),
            updated: now,
            decay: decay.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }

    /// Counts a round trip that ended at `now`.
    pub fn observe(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.as_secs_f64();
        let kept = self.kept(now);
        self.rtt = if rtt > self.rtt { rtt } else { self.rtt * kept + rtt * (1.0 - kept) };
        self.updated = self.updated.max(now);
    }

    /// Lower is better. An endpoint that was not used for long loses its past, so that it is tried again.
    pub fn load(&self, now: Instant, pending: usize) -> f64 {
        self.rtt * self.kept(now) * (pending as f64 + 1.0)
    }

    /// The share of the estimate that is left of what was known at the last update.
    fn kept(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.updated).as_secs_f64() / self.decay).exp()
    }
}

/// The choice between two loads; equal ones go to the first.
pub fn p2c(a_load: f64, b_load: f64) -> Choice {
    if b_load < a_load { Choice::Second } else { Choice::First }
}

/// Two distinct indices below `len`, in random order: `None` if there are fewer than two. `random(n)` gives a number below `n`.
pub fn two_of(len: usize, mut random: impl FnMut(usize) -> usize) -> Option<(usize, usize)> {
    if len < 2 {
        return None;
    }
    let first = random(len).min(len - 1);
    let second = random(len - 1).min(len - 2);
    // The second is drawn from those without the first.
    Some((first, if second >= first { second + 1 } else { second }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DECAY: Duration = Duration::from_secs(10);

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let start = Instant::now();
        let mut ewma = PeakEwma::new(Duration::from_millis(30), DECAY, start);
        ewma.observe(start, Duration::from_secs(1));
        assert_eq!(ewma.load(start, 0), 1.0);
        assert_eq!(ewma.load(start, 3), 4.0);
        let later = ewma.load(start + DECAY, 0);
        assert!((later - (-1.0_f64).exp()).abs() < 1e-9, "{later}");
    }

    #[test]
    fn a_faster_answer_pulls_the_estimate_down_by_the_time_that_passed() {
        let start = Instant::now();
        let mut ewma = PeakEwma::new(Duration::from_secs(1), DECAY, start);
        ewma.observe(start, Duration::ZERO);
        assert_eq!(ewma.load(start, 0), 1.0, "no time has passed");
        ewma.observe(start + DECAY, Duration::from_millis(500));
        let kept = (-1.0_f64).exp();
        let expected = kept + 0.5 * (1.0 - kept);
        assert!((ewma.load(start + DECAY, 0) - expected).abs() < 1e-9);
    }

    #[test]
    fn a_default_of_zero_still_weighs() {
        let now = Instant::now();
        let ewma = PeakEwma::new(Duration::ZERO, Duration::ZERO, now);
        assert!(ewma.load(now, 0) >= MIN_DEFAULT_RTT.as_secs_f64());
        assert_eq!(ewma.load(now + DECAY, 7), 0.0);
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(p2c(1.0, 1.0), Choice::First);
        assert_eq!(p2c(1.0, 0.5), Choice::Second);
        assert_eq!(p2c(f64::NAN, 0.5), Choice::First);
    }

    #[test]
    fn every_ordered_pair_is_drawn_once() {
        let mut seen = std::collections::BTreeSet::new();
        for a in 0..4 {
            for b in 0..3 {
                let mut draws = [a, b].into_iter();
                seen.extend(two_of(4, |_| draws.next().unwrap()));
            }
        }
        assert_eq!(seen.len(), 12);
        assert!(seen.iter().all(|(a, b)| a != b && *a < 4 && *b < 4));
        assert_eq!(two_of(1, |_| 0), None);
    }

    proptest! {
        /// Whatever is observed, the estimate lies between nothing and the largest round trip.
        #[test]
        fn the_estimate_is_bounded(steps in proptest::collection::vec((0_u64..60_000, 0_u64..10_000), 0..50)) {
            let mut now = Instant::now();
            let mut ewma = PeakEwma::new(Duration::from_millis(30), DECAY, now);
            let mut peak = Duration::from_millis(30);
            for (wait, rtt) in steps {
                now += Duration::from_millis(wait);
                let rtt = Duration::from_millis(rtt);
                peak = peak.max(rtt);
                let before = ewma.load(now, 0);
                ewma.observe(now, rtt);
                let after = ewma.load(now, 0);
                prop_assert!(after.is_finite() && after >= 0.0 && after <= peak.as_secs_f64() + 1e-9);
                prop_assert!(after >= before - 1e-9, "an answer never makes an endpoint lighter than its age did");
                prop_assert!(ewma.load(now, 1) >= after);
            }
        }
    }
}
