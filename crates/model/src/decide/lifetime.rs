//! When a connection ends because a certificate that it was opened with is over.

use std::time::{Duration, SystemTime};

/// Who dials leaves a connection this long before the other side asks for its end, so that no request meets the end half way;
/// clocks may differ by as much.
const AHEAD: Duration = Duration::from_secs(10);
/// But never earlier than after this part of the time that was left when it was opened.
const KEPT: f64 = 0.9;

/// The two times of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifespan {
    /// From here on it takes nothing new; what runs may finish.
    pub ask: SystemTime,
    /// From here on it is closed.
    pub cut: SystemTime,
}

/// Of a connection that was accepted, whose client's certificate is over at `expires`.
pub fn accepted(expires: SystemTime, grace: Duration) -> Lifespan {
    Lifespan { ask: expires, cut: after(expires, grace) }
}

/// Of a connection that was dialled at `now`; the first of both sides' certificates is over at `expires`.
pub fn dialled(now: SystemTime, expires: SystemTime, grace: Duration) -> Lifespan {
    let left = expires.duration_since(now).unwrap_or_default();
    let kept = left.mul_f64(KEPT).max(left.saturating_sub(AHEAD));
    Lifespan { ask: after(now, kept).min(expires), cut: after(expires, grace) }
}

/// A time that the clock cannot say is taken for the time itself.
fn after(time: SystemTime, wait: Duration) -> SystemTime {
    time.checked_add(wait).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn who_dials_leaves_first() {
        let (grace, day) = (Duration::from_secs(60), 86_400);
        for (left, ask) in [(day, day - 10), (100, 90), (10, 9), (0, 0)] {
            let dialled = dialled(at(1000), at(1000 + left), grace);
            let accepted = accepted(at(1000 + left), grace);
            assert_eq!(dialled, Lifespan { ask: at(1000 + ask), cut: at(1060 + left) }, "{left}");
            assert_eq!(accepted, Lifespan { ask: at(1000 + left), cut: at(1060 + left) }, "{left}");
        }
        assert_eq!(dialled(at(1000), at(10), grace), Lifespan { ask: at(10), cut: at(70) }, "over already");
    }
}
