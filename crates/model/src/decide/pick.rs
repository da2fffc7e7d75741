//! Which endpoint a request goes to: of two random ones the one with the lower load (data plane 4.6).
//!
//! The load of an endpoint is the moving average of its round trips, times the requests it has not answered yet.

use crate::policy::outbound::Penalty;
use std::time::{Duration, Instant};

/// gRPC codes for which an endpoint is penalised when they come without a body.
const GRPC_PENALISED: [u16; 6] = [2, 4, 8, 13, 14, 15];

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

/// Whether a response with this head says that the endpoint should get less: by its gRPC status if it has one already, else by
/// its HTTP status.
pub fn is_penalised(status: u16, grpc: Option<u16>) -> bool {
    match grpc {
        Some(code) => GRPC_PENALISED.contains(&code),
        None => status == 429 || status >= 500,
    }
}

/// The round trip that a penalised response counts as: what the server asks for, or the policy's penalty. `hint` is the value
/// of `grpc-retry-pushback-ms` for gRPC, of `retry-after` for HTTP; `unix_now` is the time of day.
pub fn penalty(policy: &Penalty, grpc: bool, hint: Option<&str>, unix_now: Duration) -> Duration {
    let asked = hint.map(str::trim).and_then(|hint| match grpc {
        true => hint.parse().ok().map(Duration::from_millis),
        false => retry_after(hint, unix_now),
    });
    // Who asks for nothing, or for the past, is not the faster for it.
    asked.filter(|wait| !wait.is_zero()).map_or(policy.rtt, |wait| wait.min(policy.max_retry_after))
}

/// `Retry-After` in either of its forms (RFC 9110 10.2.3): seconds, or a date.
fn retry_after(value: &str, unix_now: Duration) -> Option<Duration> {
    if value.bytes().all(|b| b.is_ascii_digit()) {
        return value.parse().ok().map(Duration::from_secs);
    }
    Some(date(value)?.saturating_sub(unix_now))
}

/// A date as in `Sun, 06 Nov 1994 08:49:37 GMT`, since 1970.
fn date(value: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = value.split_once(", ")?.1.split(' ');
    let day: u64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = parts.next()?;
    let month = MONTHS.iter().position(|m| *m == month)? as u64;
    let year: u64 = parts.next()?.parse().ok().filter(|year| (1970..10_000).contains(year))?;
    let mut time = parts.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|n| *n < 61));
    let (hours, minutes, seconds) = (time.next()??, time.next()??, time.next()??);
    // Years begin in March, so that the day that some have comes last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
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
    fn failures_that_ask_for_less_are_penalised() {
        for (status, grpc, expected) in [
            (200, None, false),
            (404, None, false),
            (429, None, true),
            (500, None, true),
            (503, None, true),
            (200, Some(0), false),
            (200, Some(7), false),
        ] {
            assert_eq!(is_penalised(status, grpc), expected, "{status} {grpc:?}");
        }
        for code in 0..17 {
            assert_eq!(is_penalised(200, Some(code)), [8, 14, 2, 4, 13, 15].contains(&code), "{code}");
        }
    }

    #[test]
    fn a_penalty_is_what_the_server_asks_for_within_the_cap() {
        let policy = Penalty { rtt: Duration::from_secs(5), max_retry_after: Duration::from_secs(300) };
        let now = Duration::from_secs(784_111_777);
        let http = |hint| penalty(&policy, false, hint, now);
        assert_eq!(http(None), policy.rtt);
        assert_eq!(http(Some("120")), Duration::from_secs(120));
        assert_eq!(http(Some("99999999999999999999")), policy.rtt);
        assert_eq!(http(Some("301")), policy.max_retry_after);
        for useless in ["0", "", "-1", "1.5", "soon", "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 31 Foo 1994 08:49:37 GMT"]
        {
            assert_eq!(http(Some(useless)), policy.rtt, "{useless}");
        }
        assert_eq!(http(Some("Sun, 06 Nov 1994 08:50:07 GMT")), Duration::from_secs(30));
        let grpc = |hint| penalty(&policy, true, Some(hint), now);
        assert_eq!(grpc("1500"), Duration::from_millis(1500));
        assert_eq!(grpc("400000"), policy.max_retry_after);
        assert_eq!(grpc("-1"), policy.rtt, "do not retry");
    }

    #[test]
    fn dates_are_told() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Fri, 01 Mar 2024", None),
            ("Fri, 00 Mar 2024 00:00:00 GMT", None),
        ] {
            assert_eq!(date(text), expected.map(Duration::from_secs), "{text}");
        }
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
