//! What a peer may send without reason: named budgets, each a token bucket.
//!
//! A bucket refills with time, and by work that makes such frames legitimate (DATA sent makes WINDOW_UPDATE frames and PINGs
//! arrive). The clock is read only when a bucket is empty, so a budget costs one subtraction per frame.

use super::settings::MAX_CONCURRENT_STREAMS;
use std::{fmt, time::Duration};

/// What is bounded. The names are stable: they stand in logs and in the debug data of the GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Budget {
    /// Streams that the peer resets before they were handed on (rapid reset).
    Resets,
    /// Resets that the peer makes us send (MadeYouReset).
    ProvokedResets,
    Pings,
    Settings,
    /// DATA, HEADERS and CONTINUATION frames without content that end nothing.
    EmptyFrames,
    WindowUpdates,
    Priorities,
    /// GOAWAY, and frames of kinds that do not exist.
    OtherFrames,
    /// Header blocks of a server: heads, interim ones, trailers.
    Heads,
}

/// Requests that may be cancelled on a connection to a server before it has answered them. Beyond that the connection is left
/// for another, so that what one client cancels never spends what the server allows for all.
pub(crate) const CANCELS: Rate = Rate { burst: 800, per_second: 30 };

/// `burst` at once and `per_second` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    left: u32,
    rate: Rate,
    /// When it was last filled by time.
    filled: Duration,
}

impl Budget {
    pub(crate) const ALL: [Self; 9] = [
        Self::Resets,
        Self::ProvokedResets,
        Self::Pings,
        Self::Settings,
        Self::EmptyFrames,
        Self::WindowUpdates,
        Self::Priorities,
        Self::OtherFrames,
        Self::Heads,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::ProvokedResets => "provoked_resets",
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::EmptyFrames => "empty_frames",
            Self::WindowUpdates => "window_updates",
            Self::Priorities => "priorities",
            Self::OtherFrames => "other_frames",
            Self::Heads => "heads",
        }
    }

    /// Wide for what real clients do in bursts, narrow for what they hardly do.
    pub(crate) fn rate(self) -> Rate {
        match self {
            // Whoever shares a connection may have to cancel all of its streams at once, besides those of `CANCELS`.
            Self::Resets => Rate { burst: CANCELS.burst + MAX_CONCURRENT_STREAMS, per_second: 200 },
            Self::ProvokedResets => Rate { burst: 1000, per_second: 200 },
            Self::Pings => Rate { burst: 500, per_second: 50 },
            Self::Settings => Rate { burst: 100, per_second: 5 },
            Self::EmptyFrames => Rate { burst: 200, per_second: 20 },
            Self::WindowUpdates => Rate { burst: 5000, per_second: 1000 },
            Self::Priorities => Rate { burst: 1000, per_second: 100 },
            Self::OtherFrames => Rate { burst: 200, per_second: 20 },
            // So many are earned at most: two each for ten thousand requests that are answered at once.
            Self::Heads => Rate { burst: 20_000, per_second: 100 },
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Bucket {
    /// A full bucket; `now` is time since any fixed moment.
    pub(crate) fn full(rate: Rate, now: Duration) -> Self {
        Self { left: rate.burst, rate, filled: now }
    }

    /// Takes `n` tokens; false if there are not so many, even after what the time since the last filling brings.
    pub(crate) fn take(&mut self, n: u32, now: &mut impl FnMut() -> Duration) -> bool {
        if self.left < n {
            self.fill(now());
        }
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Puts in what legitimate work has earned.
    pub(crate) fn earn(&mut self, n: u32) {
        self.left = self.left.saturating_add(n).min(self.rate.burst);
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled);
        let tokens = elapsed.as_nanos().saturating_mul(u128::from(self.rate.per_second)) / 1_000_000_000;
        if tokens == 0 {
            return; // Keeps the fraction of a token that has grown.
        }
        self.filled = now;
        self.earn(u32::try_from(tokens).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10, per_second: 5 };

    #[test]
    fn a_burst_then_the_rate() {
        let mut bucket = Bucket::full(RATE, Duration::ZERO);
        let at = |ms: u64, bucket: &mut Bucket| bucket.take(1, &mut || Duration::from_millis(ms));
        assert!((0..10).all(|_| at(0, &mut bucket)));
        assert!(!at(199, &mut bucket));
        assert!(at(200, &mut bucket));
        assert!(!at(201, &mut bucket));
        assert!((0..10).all(|_| at(60_000, &mut bucket)), "at most the burst is saved up");
        assert!(!at(60_000, &mut bucket));
    }

    #[test]
    fn the_clock_rests_while_tokens_are_left() {
        let mut bucket = Bucket::full(RATE, Duration::ZERO);
        for _ in 0..1000 {
            assert!(bucket.take(1, &mut || panic!("not needed")));
            bucket.earn(1);
        }
    }
}
