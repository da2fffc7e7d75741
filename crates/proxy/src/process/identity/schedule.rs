//! When the certificate is renewed. Pure: the clock is an argument.

use std::time::{Duration, SystemTime};

/// How much of the remaining lifetime passes before the renewal.
const PART: f64 = 0.7;

/// The wall-clock time of the next renewal: at 70 % of what remains until `expiry`, within the two bounds.
pub(super) fn renew_at(now: SystemTime, expiry: Option<SystemTime>, min: Duration, max: Duration) -> SystemTime {
    let remaining = expiry.and_then(|expiry| expiry.duration_since(now).ok()).unwrap_or(Duration::ZERO);
    now + remaining.mul_f64(PART).clamp(min, max.max(min))
}

/// Whether to renew at `now`. `set` is when the time `at` was computed: a clock that stands before it has been set back, and
/// what was computed by it means nothing any more.
pub(super) fn is_due(now: SystemTime, set: SystemTime, at: SystemTime) -> bool {
    now >= at || now < set
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    const MIN: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_secs(86_400);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn at_seventy_per_cent_within_bounds() {
        let day = 86_400;
        for (remaining, wait) in [(100, 70), (5, 10), (0, 10), (day, day * 7 / 10), (10 * day, day)] {
            assert_eq!(renew_at(at(1000), Some(at(1000 + remaining)), MIN, MAX), at(1000 + wait), "{remaining}");
        }
        assert_eq!(renew_at(at(1000), None, MIN, MAX), at(1010));
        assert_eq!(renew_at(at(1000), Some(at(10)), MIN, MAX), at(1010));
    }

    #[test]
    fn a_clock_that_jumps_is_noticed() {
        let (set, due) = (at(1000), at(1070));
        for (now, expected) in [(1000, false), (1069, false), (1070, true), (9999, true), (999, true)] {
            assert_eq!(is_due(at(now), set, due), expected, "{now}");
        }
    }
}
