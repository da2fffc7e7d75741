//! When the certificate is renewed. Pure: the clock is an argument.

use std::time::{Duration, SystemTime};

/// How much of the remaining lifetime passes before the renewal.
const PART: f64 = 0.7;

/// The wall-clock time of the next renewal: at 70 % of what remains until `expiry`, within the two bounds.
pub(super) fn renew_at(now: SystemTime, expiry: Option<SystemTime>, min: Duration, max: Duration) -> SystemTime {
    let remaining = expiry.and_then(|expiry| expiry.duration_since(now).ok()).unwrap_or(Duration::ZERO);
    now + remaining.mul_f64(PART).clamp(min, max.max(min))
}

/// Least wait between attempts at the first certificate.
const RETRY: Duration = Duration::from_millis(50);
/// What part of the time that went by without a certificate passes before the next attempt.
const RETRY_PART: f64 = 0.25;
/// By how much of itself a wait may be longer, so that many proxies do not ask at one moment.
const RETRY_JITTER: f64 = 0.2;

/// How long to wait after a failed attempt at the first certificate, `waited` after the first of them. Until it has one a
/// workload is cut off, so a control plane that is back must be noticed soon: the wait grows with the outage, to no more
/// than `longest`. `chance` is 0 to 1.
pub(super) fn retry_in(waited: Duration, longest: Duration, chance: f64) -> Duration {
    waited.mul_f64(RETRY_PART).max(RETRY).mul_f64(1.0 + RETRY_JITTER * chance).min(longest.max(RETRY))
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

    /// A control plane that is away for a while is noticed within a third of that while, without being asked all the time.
    #[test]
    fn a_control_plane_that_is_back_is_noticed_soon() {
        for away in [0.1, 0.5, 1.0, 5.0, 20.0] {
            let (mut waited, mut attempts) = (0.0, 1);
            while waited < away {
                waited += retry_in(Duration::from_secs_f64(waited), MIN, 1.0).as_secs_f64();
                attempts += 1;
            }
            assert!(waited <= away * 1.34 + 0.06, "noticed {waited} s after an outage of {away} s began");
            assert!(attempts <= 30, "{attempts} attempts in {away} s");
        }
        assert_eq!(retry_in(Duration::from_secs(3600), MIN, 1.0), MIN);
        assert_eq!(retry_in(Duration::ZERO, Duration::ZERO, 0.0), RETRY);
        assert!(retry_in(Duration::from_secs(8), MIN, 1.0) > retry_in(Duration::from_secs(8), MIN, 0.0));
    }

    #[test]
    fn a_clock_that_jumps_is_noticed() {
        let (set, due) = (at(1000), at(1070));
        for (now, expected) in [(1000, false), (1069, false), (1070, true), (9999, true), (999, true)] {
            assert_eq!(is_due(at(now), set, due), expected, "{now}");
        }
    }
}
