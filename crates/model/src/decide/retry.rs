//! Whether a request is sent again because of how its last attempt ended (data plane 4.10).
//!
//! Repeats that no server can notice are not decided here: they need nobody's leave.

use super::backoff;
use crate::policy::outbound::{Backoff, Retry, RetryOn};
use std::{ops::RangeInclusive, time::Duration};

/// The most bytes of a request's body that are kept for another attempt, whatever a policy says.
pub const MAX_BODY: usize = 1024 * 1024;

/// What is asked for concerning retries.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryTerms {
    /// Attempts besides the first.
    pub limit: u32,
    /// Bytes of body that are kept for another attempt; a longer body is sent once.
    pub body: usize,
    pub statuses: Vec<RangeInclusive<u16>>,
    /// gRPC codes.
    pub codes: Vec<u16>,
    /// How long an attempt that is not the last waits for the head of its response.
    pub timeout: Option<Duration>,
    pub backoff: Option<Backoff>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response came, of which nothing was passed on. The gRPC status is known where the head or trailers behind an empty
    /// body carry one.
    Response { status: u16, grpc: Option<u16> },
    /// No endpoint became available in time.
    Failfast,
    /// The head of the response did not come within the attempt's own timeout.
    Late,
    /// The server says that it did not look at the request.
    Refused,
}

/// Where a request stands when an attempt has ended.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Retries made so far.
    pub made: u32,
    /// The request was sent to its end, and all of it is kept.
    pub whole: bool,
    /// A backend could take another attempt now.
    pub ready: bool,
    /// How long until the request's own timeout.
    pub left: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What the attempt ended with is the answer.
    Settled,
    /// It is one to a retry, and needs no other.
    Recovered,
    /// Once more, after this wait.
    Again(Duration),
    /// It would be worth another attempt, but all have been made.
    LimitExceeded,
    /// It would be worth another attempt, but nobody could take it.
    Overflow,
}

impl RetryTerms {
    pub fn of(policy: &Retry) -> Self {
        let Retry { max_retries, max_request_bytes, on, timeout, backoff } = policy;
        let (statuses, codes) = match on {
            RetryOn::Statuses(statuses) => (statuses.clone(), vec![]),
            RetryOn::GrpcCodes(codes) => (vec![], codes.clone()),
        };
        let body = usize::try_from(*max_request_bytes).unwrap_or(MAX_BODY).min(MAX_BODY);
        Self { limit: *max_retries, body, statuses, codes, timeout: *timeout, backoff: *backoff }
    }

    /// What to do after an attempt. `random01` is in `0.0..1.0`.
    pub fn decide(&self, outcome: Outcome, standing: Standing, random01: f64) -> Verdict {
        let Standing { made, whole, ready, left } = standing;
        if !self.includes(outcome) {
            return if made > 0 { Verdict::Recovered } else { Verdict::Settled };
        }
        // Behind a retry the request is known to be whole, and it is not kept for an attempt that there will not be.
        if made >= self.limit {
            return Verdict::LimitExceeded;
        }
        if !whole {
            return Verdict::Settled;
        }
        let wait = self.backoff.as_ref().map_or(Duration::ZERO, |limits| backoff::delay(limits, made, random01));
        if left.is_some_and(|left| left <= wait) {
            // It would not be asked any more, so what there is counts.
            return Verdict::Settled;
        }
        if ready { Verdict::Again(wait) } else { Verdict::Overflow }
    }

    /// Whether such an end is worth another attempt.
    pub fn includes(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Response { status, grpc } => {
                grpc.is_some_and(|code| self.codes.contains(&code))
                    || self.statuses.iter().any(|range| range.contains(&status))
            }
            Outcome::Failfast | Outcome::Late | Outcome::Refused => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDING: Standing = Standing { made: 0, whole: true, ready: true, left: None };

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn terms() -> RetryTerms {
        let backoff = Some(Backoff { min: ms(100), max: ms(250), jitter: 0.5 });
        RetryTerms { limit: 3, body: 0, statuses: vec![500..=599], codes: vec![14], timeout: None, backoff }
    }

    fn response(status: u16, grpc: Option<u16>) -> Outcome {
        Outcome::Response { status, grpc }
    }

    #[test]
    fn what_the_conditions_name_is_asked_again() {
        let cases = [
            (response(503, None), true),
            (response(499, None), false),
            (response(600, None), false),
            (response(200, Some(14)), true),
            (response(200, Some(13)), false),
            (response(200, Some(0)), false),
            (Outcome::Failfast, true),
            (Outcome::Late, true),
            (Outcome::Refused, true),
        ];
        for (outcome, again) in cases {
            let expected = if again { Verdict::Again(ms(100)) } else { Verdict::Settled };
            assert_eq!(terms().decide(outcome, STANDING, 0.0), expected, "{outcome:?}");
        }
    }

    #[test]
    fn waits_grow() {
        let wait = |made, random| terms().decide(response(500, None), Standing { made, ..STANDING }, random);
        assert_eq!(
            [wait(0, 0.0), wait(0, 1.0), wait(1, 0.0), wait(2, 0.0)],
            [100, 150, 200, 250].map(ms).map(Verdict::Again)
        );
        let bare = RetryTerms { backoff: None, ..terms() };
        assert_eq!(bare.decide(response(500, None), STANDING, 0.9), Verdict::Again(ms(0)));
    }

    #[test]
    fn what_stands_in_the_way() {
        let with = |standing| terms().decide(response(500, None), standing, 0.0);
        assert_eq!(with(Standing { whole: false, ..STANDING }), Verdict::Settled);
        assert_eq!(with(Standing { made: 3, ..STANDING }), Verdict::LimitExceeded);
        assert_eq!(with(Standing { made: 3, whole: false, ..STANDING }), Verdict::LimitExceeded);
        assert_eq!(with(Standing { ready: false, ..STANDING }), Verdict::Overflow);
        assert_eq!(with(Standing { made: 3, ready: false, ..STANDING }), Verdict::LimitExceeded);
        assert_eq!(with(Standing { left: Some(ms(100)), ..STANDING }), Verdict::Settled);
        assert_eq!(with(Standing { left: Some(ms(101)), ..STANDING }), Verdict::Again(ms(100)));
        let recovered = terms().decide(response(200, None), Standing { made: 3, ready: false, ..STANDING }, 0.0);
        assert_eq!(recovered, Verdict::Recovered, "nothing is counted against what needs no retry");
    }

    #[test]
    fn what_is_kept_of_a_body_is_bounded() {
        let policy = |max_request_bytes| Retry {
            max_retries: 1,
            max_request_bytes,
            on: RetryOn::GrpcCodes(vec![14]),
            timeout: None,
            backoff: None,
        };
        assert_eq!(RetryTerms::of(&policy(65_536)).body, 65_536);
        assert_eq!(RetryTerms::of(&policy(u32::MAX)).body, MAX_BODY);
    }
}
