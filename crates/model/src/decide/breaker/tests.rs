//! The gate and its window, against examples and against a naive model.

use super::{window::Slot, *};
use proptest::prelude::*;
use std::collections::VecDeque;

const SECOND: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff { min: SECOND, max: Duration::from_secs(60), jitter: 0.0 };

fn consecutive(max_failures: u32) -> Rules {
    Rules::new(&Breaker::Consecutive { max_failures, backoff: BACKOFF }).unwrap()
}

fn unified(threshold: f64, min_requests: u32, max_consecutive_failures: u32) -> Option<Rules> {
    Rules::new(&Breaker::Unified {
        success_rate_threshold: threshold,
        window: 10 * SECOND,
        min_requests,
        max_consecutive_failures,
        backoff: BACKOFF,
        honor_retry_after: false,
    })
}

/// What threads share, for one thread.
struct Endpoint {
    rules: Rules,
    gate: u64,
    buckets: [u64; window::BUCKETS],
    now: Duration,
}

impl Endpoint {
    fn new(rules: Rules) -> Self {
        Self { rules, gate: Gate::OPEN.bits(), buckets: [0; window::BUCKETS], now: Duration::ZERO }
    }

    fn admit(&mut self) -> Option<Pass> {
        match Gate::from_bits(self.gate).admit(&self.rules, self.now) {
            Admission::Open(pass) => Some(pass),
            Admission::Probe(pass, gate) => {
                self.gate = gate.bits();
                Some(pass)
            }
            Admission::Refused(until) => {
                assert!(until > self.now);
                None
            }
        }
    }

    fn outcome(&mut self, pass: Pass, outcome: Outcome) {
        let before = Gate::from_bits(self.gate);
        let mut counts = Counts::default();
        if let Some(window) = self.rules.window()
            && before.is_open()
        {
            let slot = Slot::at(self.now, window);
            if before.takes(pass) {
                self.buckets[slot.index()] = slot.count(self.buckets[slot.index()], outcome);
            }
            counts = slot.sum(|i| self.buckets[i]);
        }
        let after = before.after(&self.rules, pass, outcome, counts, self.now, 0.0);
        if !before.is_open() && after.is_open() {
            self.buckets = [0; window::BUCKETS];
        }
        self.gate = after.bits();
    }

    fn fails(&mut self, times: usize) {
        for _ in 0..times {
            let pass = self.admit().expect("the gate is open");
            self.outcome(pass, Outcome::Failure);
        }
    }
}

#[test]
fn outcomes_are_told_by_status_and_code() {
    use Outcome::{Failure, RateLimited, Success};
    for (status, grpc, expected) in [
        (200, None, Success),
        (404, None, Success),
        (429, None, RateLimited),
        (500, None, Failure),
        (599, None, Failure),
        (200, Some(0), Success),
        (200, Some(5), Success),
        (200, Some(8), RateLimited),
        // A gRPC status counts more than the HTTP status.
        (503, Some(0), Success),
    ] {
        assert_eq!(outcome(status, grpc), expected, "{status} {grpc:?}");
    }
    for code in 0..17 {
        assert_eq!(outcome(200, Some(code)) == Failure, [2, 4, 7, 13, 14, 15].contains(&code), "{code}");
    }
}

#[test]
fn what_never_trips_has_no_rules() {
    assert_eq!(Rules::new(&Breaker::Consecutive { max_failures: 0, backoff: BACKOFF }), None);
    assert_eq!(unified(0.0, 5, 0), None);
    assert_eq!(unified(f64::NAN, 5, 0), None);
    assert!(unified(0.8, 5, 0).is_some() && unified(0.0, 5, 7).is_some());
}

#[test]
fn failures_in_a_row_shut_it_and_waits_grow_until_a_probe_succeeds() {
    let mut endpoint = Endpoint::new(consecutive(7));
    endpoint.fails(6);
    let pass = endpoint.admit().unwrap();
    endpoint.outcome(pass, Outcome::Success);
    endpoint.fails(7);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(endpoint.admit(), None);
        endpoint.now += wait * SECOND - Duration::from_millis(1);
        assert_eq!(endpoint.admit(), None, "{wait}");
        endpoint.now += Duration::from_millis(1);
        let probe = endpoint.admit().expect("the probe");
        assert_eq!(endpoint.admit(), None, "one probe");
        endpoint.outcome(probe, Outcome::Failure);
    }
    endpoint.now += 60 * SECOND;
    let probe = endpoint.admit().unwrap();
    endpoint.outcome(probe, Outcome::Success);
    endpoint.fails(7);
    endpoint.now += SECOND;
    assert!(endpoint.admit().is_some(), "the waits begin anew");
}

#[test]
fn a_probe_that_is_given_up_lets_another_one_try_at_once() {
    let mut endpoint = Endpoint::new(consecutive(1));
    endpoint.fails(1);
    endpoint.now += SECOND;
    let probe = endpoint.admit().unwrap();
    endpoint.gate = Gate::from_bits(endpoint.gate).released(probe, endpoint.now).bits();
    let second = endpoint.admit().expect("another probe");
    endpoint.gate = Gate::from_bits(endpoint.gate).released(probe, endpoint.now).bits();
    assert_eq!(endpoint.admit(), None, "a probe is given up once");
    endpoint.outcome(probe, Outcome::Success);
    assert_eq!(endpoint.admit(), None, "the first one has no say any more");
    endpoint.outcome(second, Outcome::Success);
    assert!(endpoint.admit().is_some());
}

#[test]
fn a_probe_without_an_answer_does_not_shut_it_for_ever() {
    let mut endpoint = Endpoint::new(consecutive(1));
    endpoint.fails(1);
    endpoint.now += SECOND;
    let silent = endpoint.admit().unwrap();
    endpoint.now += PROBE_PATIENCE - Duration::from_millis(1);
    assert_eq!(endpoint.admit(), None);
    endpoint.now += Duration::from_millis(1);
    let probe = endpoint.admit().unwrap();
    endpoint.outcome(silent, Outcome::Failure);
    endpoint.outcome(probe, Outcome::Success);
    assert!(endpoint.admit().is_some());
}

#[test]
fn what_was_sent_before_says_nothing_about_a_gate_that_opened_again() {
    let mut endpoint = Endpoint::new(consecutive(2));
    let old = endpoint.admit().unwrap();
    endpoint.fails(2);
    endpoint.outcome(old, Outcome::Success);
    assert_eq!(endpoint.admit(), None, "a late success does not open it");
    endpoint.now += SECOND;
    let probe = endpoint.admit().unwrap();
    endpoint.outcome(probe, Outcome::Success);
    endpoint.outcome(old, Outcome::Failure);
    endpoint.fails(1);
    assert!(endpoint.admit().is_some());
}

#[test]
fn a_low_rate_shuts_it_once_enough_is_known() {
    let mut endpoint = Endpoint::new(unified(0.8, 5, 0).unwrap());
    endpoint.fails(4);
    assert!(endpoint.admit().is_some());
    endpoint.fails(1);
    assert_eq!(endpoint.admit(), None);
    // 8 of 10 are not below four fifths; one failure more is.
    let mut endpoint = Endpoint::new(unified(0.8, 5, 0).unwrap());
    for n in 0..10 {
        let pass = endpoint.admit().unwrap();
        endpoint.outcome(pass, if n % 5 == 4 { Outcome::Failure } else { Outcome::Success });
    }
    endpoint.fails(1);
    assert_eq!(endpoint.admit(), None);
}

#[test]
fn old_outcomes_leave_the_window() {
    let mut endpoint = Endpoint::new(unified(0.5, 5, 0).unwrap());
    endpoint.fails(4);
    endpoint.now += 10 * SECOND;
    endpoint.fails(4);
    endpoint.now += 9 * SECOND;
    assert!(endpoint.admit().is_some());
    endpoint.fails(1);
    assert_eq!(endpoint.admit(), None);
}

#[test]
fn who_asks_for_less_is_no_failure_in_a_row_but_no_success_either() {
    let limited = |endpoint: &mut Endpoint| {
        let pass = endpoint.admit().unwrap();
        endpoint.outcome(pass, Outcome::RateLimited);
    };
    let mut endpoint = Endpoint::new(unified(0.8, 5, 2).unwrap());
    (0..4).for_each(|_| limited(&mut endpoint));
    assert!(endpoint.admit().is_some(), "the count in a row is not reached");
    limited(&mut endpoint);
    assert_eq!(endpoint.admit(), None, "the rate is too low");
    endpoint.now += SECOND;
    limited(&mut endpoint);
    endpoint.now += SECOND;
    assert_eq!(endpoint.admit(), None, "it fails the probe: the wait is longer");
    // Without a rate it is a success.
    let mut endpoint = Endpoint::new(consecutive(2));
    endpoint.fails(1);
    limited(&mut endpoint);
    endpoint.fails(1);
    assert!(endpoint.admit().is_some());
}

#[test]
fn a_gate_that_opens_knows_nothing_of_the_past() {
    let mut endpoint = Endpoint::new(unified(0.8, 5, 0).unwrap());
    endpoint.fails(5);
    endpoint.now += SECOND;
    let probe = endpoint.admit().unwrap();
    endpoint.outcome(probe, Outcome::Success);
    endpoint.fails(4);
    assert!(endpoint.admit().is_some());
}

#[test]
fn a_full_count_keeps_the_ratio() {
    let slot = Slot::at(Duration::ZERO, SECOND);
    let sum = |bucket| slot.sum(|i| if i == 0 { bucket } else { 0 });
    // As many as 24 bits hold, and a third of them.
    let full = (0xff_ffff << 24) | 0x55_5555;
    assert_eq!(sum(full), Counts { good: 0xff_ffff, bad: 0x55_5555 });
    assert_eq!(sum(slot.count(full, Outcome::Success)), Counts { good: 0x80_0000, bad: 0x2a_aaaa });
    assert_eq!(sum(slot.count(full, Outcome::RateLimited)), Counts { good: 0xff_ffff, bad: 0x55_5556 });
}

/// The same rules without packing, rounds and turns: every outcome is remembered.
struct Naive {
    rules: Rules,
    now: Duration,
    state: NaiveState,
    row: u32,
    /// Since it was opened last.
    seen: VecDeque<(u64, bool)>,
    opened: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum NaiveState {
    Open,
    Shut { attempt: u32, until: Duration },
    Probing { attempt: u32, until: Duration, probe: usize },
}

impl Naive {
    fn new(rules: Rules) -> Self {
        Self { rules, now: Duration::ZERO, state: NaiveState::Open, row: 0, seen: VecDeque::new(), opened: 0 }
    }

    /// `n` is the number of the request.
    fn admit(&mut self, n: usize) -> bool {
        let (attempt, until) = match self.state {
            NaiveState::Open => return true,
            NaiveState::Shut { attempt, until } => (attempt, until),
            NaiveState::Probing { attempt, until, .. } => (attempt + 1, until),
        };
        if self.now < until {
            return false;
        }
        let patience = backoff::delay(&self.rules.backoff, attempt, 0.0).max(PROBE_PATIENCE);
        self.state = NaiveState::Probing { attempt, until: self.now + patience, probe: n };
        true
    }

    fn shut(&mut self, attempt: u32) {
        self.state = NaiveState::Shut { attempt, until: self.now + backoff::delay(&self.rules.backoff, attempt, 0.0) };
    }

    fn outcome(&mut self, n: usize, outcome: Outcome) {
        match self.state {
            NaiveState::Open if n >= self.opened => {
                self.row = if outcome == Outcome::Failure { self.row + 1 } else { 0 };
                let mut low = false;
                if let Some(rate) = self.rules.rate {
                    let bucket = |t: Duration| (t.as_nanos() / (rate.window / 10).as_nanos()) as u64;
                    self.seen.push_back((bucket(self.now), outcome == Outcome::Success));
                    let live: Vec<_> = self.seen.iter().filter(|(at, _)| at + 10 > bucket(self.now)).collect();
                    let good = live.iter().filter(|(_, good)| *good).count();
                    low = live.len() >= rate.min_requests as usize
                        && good * 10_000 < rate.threshold as usize * live.len();
                }
                if low || (self.rules.max_failures > 0 && self.row >= self.rules.max_failures) {
                    self.shut(0);
                }
            }
            NaiveState::Probing { probe, attempt, .. } if probe == n => {
                let well = match outcome {
                    Outcome::Success => true,
                    Outcome::Failure => false,
                    Outcome::RateLimited => self.rules.rate.is_none(),
                };
                if well {
                    self.state = NaiveState::Open;
                    self.row = 0;
                    self.seen.clear();
                    self.opened = n;
                } else {
                    self.shut(attempt + 1);
                }
            }
            _ => {}
        }
    }

    fn release(&mut self, n: usize) {
        if let NaiveState::Probing { probe, attempt, .. } = self.state
            && probe == n
        {
            self.state = NaiveState::Shut { attempt, until: self.now };
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Send,
    /// The request under way with this number, counted round.
    Answer(usize, Outcome),
    Drop(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Failure), Just(Outcome::RateLimited)];
    prop_oneof![
        (0_u64..3_000).prop_map(Step::Wait),
        Just(Step::Send),
        Just(Step::Send),
        (any::<usize>(), outcome).prop_map(|(n, outcome)| Step::Answer(n, outcome)),
        (any::<usize>(), Just(Outcome::Failure)).prop_map(|(n, outcome)| Step::Answer(n, outcome)),
        any::<usize>().prop_map(Step::Drop),
        (0_u64..30_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes in whatever order, the packed gate decides as the naive one does.
    #[test]
    fn it_decides_as_the_naive_model(
        max_failures in 0_u32..5,
        threshold in prop_oneof![Just(0.0), 0.1_f64..1.0],
        min_requests in 0_u32..8,
        steps in proptest::collection::vec(step(), 0..120),
    ) {
        let Some(rules) = unified(threshold, min_requests, max_failures) else { return Ok(()) };
        let (mut endpoint, mut naive) = (Endpoint::new(rules), Naive::new(rules));
        let mut under_way: Vec<(usize, Pass)> = vec![];
        let mut sent = 0;
        for step in steps {
            match step {
                Step::Wait(millis) => {
                    endpoint.now += Duration::from_millis(millis);
                    naive.now = endpoint.now;
                }
                Step::Send => {
                    sent += 1;
                    let pass = endpoint.admit();
                    prop_assert_eq!(pass.is_some(), naive.admit(sent), "{:?}", naive.state);
                    under_way.extend(pass.map(|pass| (sent, pass)));
                }
                Step::Answer(n, outcome) if !under_way.is_empty() => {
                    let (n, pass) = under_way.remove(n % under_way.len());
                    endpoint.outcome(pass, outcome);
                    naive.outcome(n, outcome);
                }
                Step::Drop(n) if !under_way.is_empty() => {
                    let (n, pass) = under_way.remove(n % under_way.len());
                    endpoint.gate = Gate::from_bits(endpoint.gate).released(pass, endpoint.now).bits();
                    naive.release(n);
                }
                Step::Answer(..) | Step::Drop(_) => {}
            }
            prop_assert_eq!(Gate::from_bits(endpoint.gate).is_open(), naive.state == NaiveState::Open);
        }
    }

    #[test]
    fn bits_hold_all_of_a_gate(turn: u16, attempt: u8, until in 0..=VALUE, failures: u32, tag in 0..3) {
        let wait = Wait { attempt, until };
        let state = match tag {
            0 => State::Open(failures),
            1 => State::Shut(wait),
            _ => State::Probing(wait),
        };
        let gate = Gate { turn, state };
        prop_assert_eq!(Gate::from_bits(gate.bits()), gate);
    }
}
