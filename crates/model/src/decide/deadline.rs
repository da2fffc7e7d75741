//! When a request has taken too long (data plane 4.11).

use crate::policy::outbound::Timeouts;
use std::time::{Duration, Instant};

/// How far a request has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Its head came from the client.
    pub began: Instant,
    /// Anything moved on the present attempt, the sending of its head included.
    pub active: Option<Instant>,
    /// The present attempt was sent to its end.
    pub sent: Option<Instant>,
    /// The head of the present attempt's response came.
    pub head: Option<Instant>,
}

/// What a request is too late with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// The head of an attempt's response.
    Headers,
    /// The end of the response.
    Response,
    /// The head of the response, its attempts and the wait for an endpoint included.
    Answer,
    /// Any sign of life.
    Idle,
    /// The whole exchange, its attempts included.
    Request,
}

/// The next time at which the request is too late, and with what. `attempt` is how long the present attempt waits for the
/// head of its response, `answer` how long the request waits for one.
pub fn next(
    timeouts: &Timeouts,
    attempt: Option<Duration>,
    answer: Option<Duration>,
    progress: &Progress,
) -> Option<(Instant, Late)> {
    let Timeouts { response, request, idle } = *timeouts;
    let Progress { began, active, sent, head } = *progress;
    let answering = match (sent, head) {
        (Some(sent), Some(head)) => Some(sent.min(head)),
        (sent, head) => sent.or(head),
    };
    // The time is so far off where the sum overflows that it never comes.
    let at = |from: Option<Instant>, timeout: Option<Duration>, late| Some((from?.checked_add(timeout?)?, late));
    let all = [
        at(sent.filter(|_| head.is_none()), attempt, Late::Headers),
        at(answering, response, Late::Response),
        at(Some(began).filter(|_| head.is_none()), answer, Late::Answer),
        at(active, idle, Late::Idle),
        at(Some(began), request, Late::Request),
    ];
    all.into_iter().flatten().min_by_key(|(at, _)| *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn an_answer_is_awaited_over_all_attempts() {
        let zero = Instant::now();
        let sent = Progress { began: zero, active: None, sent: Some(zero + ms(50)), head: None };
        let late = next(&Timeouts::default(), Some(ms(100)), Some(ms(120)), &sent);
        assert_eq!(late, Some((zero + ms(120), Late::Answer)));
        let answered = Progress { head: Some(zero + ms(60)), ..sent };
        assert_eq!(next(&Timeouts::default(), None, Some(ms(120)), &answered), None);
    }

    #[test]
    fn the_first_of_four_counts() {
        let zero = Instant::now();
        let at = |n| zero + ms(n);
        let all = Timeouts { response: Some(ms(100)), request: Some(ms(1000)), idle: Some(ms(50)) };
        let response = Timeouts { response: Some(ms(100)), ..Timeouts::default() };
        let new = Progress { began: zero, active: None, sent: None, head: None };
        let sent = Progress { active: Some(at(20)), sent: Some(at(20)), ..new };
        let answered = Progress { head: Some(at(30)), ..sent };
        let early = Progress { sent: None, ..answered };
        let cases = [
            (all, None, new, Some((1000, Late::Request))),
            (all, None, Progress { active: Some(at(10)), ..new }, Some((60, Late::Idle))),
            (all, None, sent, Some((70, Late::Idle))),
            (response, None, new, None),
            (response, None, sent, Some((120, Late::Response))),
            (response, None, answered, Some((120, Late::Response))),
            (response, None, early, Some((130, Late::Response))),
            (response, Some(ms(5)), new, None),
            (response, Some(ms(5)), sent, Some((25, Late::Headers))),
            (response, Some(ms(5)), answered, Some((120, Late::Response))),
            (Timeouts::default(), None, sent, None),
            (Timeouts { request: Some(Duration::MAX), ..Timeouts::default() }, None, new, None),
        ];
        for (timeouts, attempt, progress, expected) in cases {
            let found = next(&timeouts, attempt, None, &progress);
            assert_eq!(found, expected.map(|(n, late)| (at(n), late)), "{timeouts:?} {attempt:?} {progress:?}");
        }
    }
}
