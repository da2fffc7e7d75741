//! How long to wait before another attempt.

use crate::policy::outbound::Backoff;
use std::time::Duration;

/// The wait before attempt number `attempt` (0 is the first repetition): it doubles from `min`, has a random part added, and
/// never exceeds `max`. `random01` is in `0.0..1.0`.
pub fn delay(backoff: &Backoff, attempt: u32, random01: f64) -> Duration {
    let base = 2_u32.checked_pow(attempt).and_then(|factor| backoff.min.checked_mul(factor)).unwrap_or(Duration::MAX);
    let base = base.min(backoff.max);
    let jitter = base.as_secs_f64() * f64::from(backoff.jitter) * random01.clamp(0.0, 1.0);
    let jitter = Duration::try_from_secs_f64(jitter).unwrap_or(Duration::ZERO);
    base.saturating_add(jitter).min(backoff.max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backoff(min: u64, max: u64, jitter: f32) -> Backoff {
        Backoff { min: Duration::from_millis(min), max: Duration::from_millis(max), jitter }
    }

    #[test]
    fn doubles_up_to_the_maximum() {
        let waits: Vec<_> = (0..5).map(|n| delay(&backoff(100, 1000, 0.0), n, 0.9).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000]);
        assert_eq!(delay(&backoff(100, 1000, 0.0), u32::MAX, 0.0).as_millis(), 1000);
    }

    #[test]
    fn jitter_is_added() {
        assert_eq!(delay(&backoff(100, 1000, 0.5), 0, 0.5).as_millis(), 125);
        assert_eq!(delay(&backoff(100, 1000, f32::NAN), 0, 0.5).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(
            min in 0_u64..1 << 40, more in 0_u64..1 << 40, jitter in 0_f32..100.0, attempt: u32, random in 0_f64..1.0,
        ) {
            let b = backoff(min, min + more, jitter);
            let wait = delay(&b, attempt, random);
            prop_assert!(b.min <= wait && wait <= b.max);
        }
    }
}
