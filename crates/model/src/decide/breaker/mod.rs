//! When an endpoint is left out because it fails, and when it is let in again (data plane 4.9).
//!
//! ```text
//!            too many failures                    the wait is over
//! open ───────────────────────────► shut ───────────────────────────► probing (one request)
//!  ▲                                 ▲                                  │
//!  │             success             └── failure: a longer wait ────────┤
//!  └────────────────────────────────────────────────────────────────────┘
//! ```
//! [`Gate`] and [`window`] are plain values of 64 bits, so that several threads can share them as atomics: each step is a pure
//! function from the old value to the new one. Times are counted from when the endpoint became known.

#[cfg(test)]
mod tests;
pub mod window;

use crate::{
    decide::backoff,
    policy::outbound::{Backoff, Breaker},
};
use std::time::Duration;
use window::Counts;

/// gRPC codes that say that the server failed.
pub const GRPC_FAILURES: [u16; 6] = [2, 4, 7, 13, 14, 15];
/// gRPC's RESOURCE_EXHAUSTED.
const GRPC_RATE_LIMITED: u16 = 8;

/// The shortest time for which a probe may be unanswered until another request is let through.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// How an exchange with the endpoint went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Failure,
    /// The server works, and asks for less: counts against the success rate alone.
    RateLimited,
}

/// What a policy asks for, with what can never happen left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Failures in a row; 0 is never.
    max_failures: u32,
    rate: Option<RateRule>,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RateRule {
    /// Of 10,000 requests.
    threshold: u32,
    min_requests: u32,
    window: Duration,
}

/// Whether requests are let through to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Which opening or probe this is; what was let through by an earlier one says nothing any more.
    turn: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Failures in a row so far.
    Open(u32),
    Shut(Wait),
    /// One request is on its way; if it has no outcome by then, another may try.
    Probing(Wait),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    /// Probes that have failed.
    attempt: u8,
    /// Milliseconds.
    until: u64,
}

/// The permission for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    turn: u16,
    probe: bool,
}

/// What becomes of a request that would go to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Open(Pass),
    /// It is the probe, if the gate becomes this one.
    Probe(Pass, Gate),
    /// Not before this time, unless the gate changes until then.
    Refused(Duration),
}

/// How an exchange went, by the status of its response and the gRPC status that came with it.
pub fn outcome(status: u16, grpc: Option<u16>) -> Outcome {
    match grpc {
        Some(GRPC_RATE_LIMITED) => Outcome::RateLimited,
        Some(code) if GRPC_FAILURES.contains(&code) => Outcome::Failure,
        Some(_) => Outcome::Success,
        None if status >= 500 => Outcome::Failure,
        None if status == 429 => Outcome::RateLimited,
        None => Outcome::Success,
    }
}

impl Rules {
    /// `None` if the endpoint is never left out.
    pub fn new(breaker: &Breaker) -> Option<Self> {
        let rules = match *breaker {
            Breaker::Consecutive { max_failures, backoff } => Self { max_failures, rate: None, backoff },
            Breaker::Unified {
                success_rate_threshold,
                window,
                min_requests,
                max_consecutive_failures: max_failures,
                backoff,
                honor_retry_after: _,
            } => {
                // What is no number becomes 0.
                let threshold = (success_rate_threshold.clamp(0.0, 1.0) * 10_000.0).round() as u32;
                let rate = RateRule { threshold, min_requests: min_requests.max(1), window };
                Self { max_failures, rate: (threshold > 0).then_some(rate), backoff }
            }
        };
        (rules.max_failures > 0 || rules.rate.is_some()).then_some(rules)
    }

    /// The span over which the success rate is taken, if it counts.
    pub fn window(&self) -> Option<Duration> {
        self.rate.map(|rate| rate.window)
    }

    fn is_low(&self, counts: Counts) -> bool {
        self.rate.is_some_and(|rate| {
            let total = counts.good + counts.bad;
            total >= u64::from(rate.min_requests) && counts.good * 10_000 < u64::from(rate.threshold) * total
        })
    }

    /// Whether a probe with this outcome shows that the endpoint is well again.
    fn is_well(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Success => true,
            Outcome::Failure => false,
            Outcome::RateLimited => self.rate.is_none(),
        }
    }

    fn wait(&self, attempt: u8, now: Duration, random01: f64) -> Wait {
        Wait { attempt, until: millis(now + backoff::delay(&self.backoff, attempt.into(), random01)) }
    }

    fn patience(&self, attempt: u8, now: Duration) -> Wait {
        let wait = backoff::delay(&self.backoff, attempt.into(), 0.0).max(PROBE_PATIENCE);
        Wait { attempt, until: millis(now + wait) }
    }
}

impl Gate {
    pub const OPEN: Self = Self { turn: 0, state: State::Open(0) };

    /// Whether a request may go to the endpoint at `now`.
    pub fn admit(self, rules: &Rules, now: Duration) -> Admission {
        let (wait, attempt) = match self.state {
            State::Open(_) => return Admission::Open(Pass { turn: self.turn, probe: false }),
            State::Shut(wait) => (wait, wait.attempt),
            // The probe was not answered in time, which is no success either.
            State::Probing(wait) => (wait, wait.attempt.saturating_add(1)),
        };
        if millis(now) < wait.until {
            return Admission::Refused(Duration::from_millis(wait.until));
        }
        let turn = self.turn.wrapping_add(1);
        let next = Self { turn, state: State::Probing(rules.patience(attempt, now)) };
        Admission::Probe(Pass { turn, probe: true }, next)
    }

    /// The gate after a request that was let through; `counts` are those of the window with it. `random01` is in `0.0..1.0`.
    pub fn after(
        self,
        rules: &Rules,
        pass: Pass,
        outcome: Outcome,
        counts: Counts,
        now: Duration,
        random01: f64,
    ) -> Self {
        if pass.turn != self.turn {
            return self;
        }
        let state = match (self.state, outcome) {
            (State::Open(failures), _) => {
                let failures = if outcome == Outcome::Failure { failures.saturating_add(1) } else { 0 };
                let in_a_row = rules.max_failures > 0 && failures >= rules.max_failures;
                if in_a_row || rules.is_low(counts) {
                    State::Shut(rules.wait(0, now, random01))
                } else {
                    State::Open(failures)
                }
            }
            (State::Probing(_), _) if !pass.probe => return self,
            (State::Probing(_), outcome) if rules.is_well(outcome) => State::Open(0),
            (State::Probing(Wait { attempt, .. }), _) => {
                State::Shut(rules.wait(attempt.saturating_add(1), now, random01))
            }
            (State::Shut(_), _) => return self,
        };
        Self { turn: self.turn, state }
    }

    /// The gate after a request that was let through came to no outcome: another one may be the probe at once.
    pub fn released(self, pass: Pass, now: Duration) -> Self {
        match self.state {
            State::Probing(Wait { attempt, .. }) if pass.probe && pass.turn == self.turn => {
                Self { turn: self.turn, state: State::Shut(Wait { attempt, until: millis(now) }) }
            }
            _ => self,
        }
    }

    pub fn is_open(self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether it is open, and an outcome of `pass` counts.
    pub fn takes(self, pass: Pass) -> bool {
        self.is_open() && pass.turn == self.turn
    }

    pub fn from_bits(bits: u64) -> Self {
        let value = bits & VALUE;
        let wait = Wait { attempt: (bits >> ATTEMPT_AT) as u8, until: value };
        let state = match (bits >> TAG_AT) & TAG {
            0 => State::Open(value as u32),
            1 => State::Shut(wait),
            _ => State::Probing(wait),
        };
        Self { turn: (bits >> TURN_AT) as u16, state }
    }

    pub fn bits(self) -> u64 {
        let (tag, attempt, value) = match self.state {
            State::Open(failures) => (0, 0, u64::from(failures)),
            State::Shut(Wait { attempt, until }) => (1, attempt, until),
            State::Probing(Wait { attempt, until }) => (2, attempt, until),
        };
        (u64::from(self.turn) << TURN_AT) | (u64::from(attempt) << ATTEMPT_AT) | (tag << TAG_AT) | value.min(VALUE)
    }
}

impl Pass {
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

/// 38 bits: failures, or milliseconds of more than eight years.
const VALUE: u64 = (1 << TAG_AT) - 1;
const TAG_AT: u32 = 38;
const TAG: u64 = 3;
const ATTEMPT_AT: u32 = 40;
const TURN_AT: u32 = 48;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(VALUE)
}
