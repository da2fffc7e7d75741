//! How many requests of a ServiceProfile may be sent again: a share of those that were answered lately, and some per second in
//! any case (data plane 4.10).
//!
//! One budget serves the workers of a process, without a lock. Time passes in slots of a tenth of the time to live; what a slot
//! holds is forgotten in whole when its time is over. Two workers that reach for the last retry at once may both be refused,
//! but never both be granted it.

use crate::profile::RetryBudget;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const SLOTS: usize = 10;
/// One retry in the unit that is counted: shares of requests are far smaller.
const RETRY: i64 = 1_000_000;
/// A slot is a word: its turn in the upper bits, its balance, which may be negative, in the lower ones.
const BALANCE_BITS: u32 = 40;
/// What a slot can hold either way: half a million retries. Beyond it nothing more is counted.
const MOST: i64 = (1 << (BALANCE_BITS - 1)) - 1;

/// Deposits and withdrawals of one profile. Times are since any fixed point.
#[derive(Debug)]
pub struct Ledger {
    limits: RetryBudget,
    /// How much an answered request adds.
    deposit: i64,
    /// Granted in any case, within the time to live.
    reserve: i64,
    slots: [AtomicU64; SLOTS],
}

impl Ledger {
    pub fn new(limits: RetryBudget) -> Self {
        let RetryBudget { ratio, min_retries_per_second, ttl } = limits;
        let units = |retries: f64| {
            let units = retries * RETRY as f64;
            // Also what is not a number.
            if units > 0.0 { units.min(MOST as f64) as i64 } else { 0 }
        };
        Self {
            limits,
            deposit: units(f64::from(ratio)),
            reserve: units(f64::from(min_retries_per_second) * ttl.as_secs_f64()),
            slots: Default::default(),
        }
    }

    pub fn limits(&self) -> RetryBudget {
        self.limits
    }

    /// A request was answered by what is no failure.
    pub fn deposit(&self, now: Duration) {
        self.add(self.turn(now), self.deposit);
    }

    /// Whether a request may be sent again; if so it is counted.
    #[must_use]
    pub fn withdraw(&self, now: Duration) -> bool {
        let turn = self.turn(now);
        if self.balance(turn) < RETRY {
            return false;
        }
        self.add(turn, -RETRY);
        let granted = self.balance(turn) >= 0;
        if !granted {
            self.add(turn, RETRY);
        }
        granted
    }

    /// Which slot of time it is.
    fn turn(&self, now: Duration) -> u64 {
        let slot = (self.limits.ttl / SLOTS as u32).as_nanos().max(1);
        (now.as_nanos() / slot) as u64
    }

    fn balance(&self, turn: u64) -> i64 {
        let slots = self.slots.iter().map(|slot| slot.load(Relaxed));
        slots.filter(|word| is_within(*word, turn)).map(balance_of).fold(self.reserve, i64::saturating_add)
    }

    fn add(&self, turn: u64, units: i64) {
        let Some(slot) = self.slots.get(turn as usize % SLOTS) else { return };
        // Never fails: it is tried until it succeeds.
        let _ = slot.fetch_update(Relaxed, Relaxed, |word| {
            let held = if turn_of(word) == turn & TURNS { balance_of(word) } else { 0 };
            let balance = held.saturating_add(units).clamp(-MOST, MOST);
            Some((turn & TURNS) << BALANCE_BITS | (balance as u64 & BALANCE))
        });
    }
}

const BALANCE: u64 = (1 << BALANCE_BITS) - 1;
/// Turns come round again after 19 days or more.
const TURNS: u64 = u64::MAX >> BALANCE_BITS;

fn turn_of(word: u64) -> u64 {
    word >> BALANCE_BITS
}

fn balance_of(word: u64) -> i64 {
    // Shifted up and down again to spread the sign.
    ((word << (u64::BITS - BALANCE_BITS)) as i64) >> (u64::BITS - BALANCE_BITS)
}

fn is_within(word: u64, turn: u64) -> bool {
    (turn & TURNS).wrapping_sub(turn_of(word)) & TURNS < SLOTS as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ledger(ratio: f32, min_retries_per_second: u32, ttl: u64) -> Ledger {
        Ledger::new(RetryBudget { ratio, min_retries_per_second, ttl: Duration::from_secs(ttl) })
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn granted(ledger: &Ledger, now: Duration) -> usize {
        (0..1_000_000).take_while(|_| ledger.withdraw(now)).count()
    }

    #[test]
    fn a_share_of_the_answered_requests() {
        let ledger = ledger(0.2, 0, 10);
        assert!(!ledger.withdraw(at(0)));
        for _ in 0..4 {
            ledger.deposit(at(0));
        }
        assert!(!ledger.withdraw(at(0)), "four fifths of a retry");
        for _ in 0..96 {
            ledger.deposit(at(500));
        }
        assert_eq!(granted(&ledger, at(900)), 20);
        for _ in 0..10 {
            ledger.deposit(at(1000));
        }
        assert_eq!(granted(&ledger, at(1000)), 2);
    }

    #[test]
    fn some_in_any_case() {
        let ledger = ledger(0.0, 10, 2);
        assert_eq!(granted(&ledger, at(0)), 20);
        ledger.deposit(at(0));
        assert!(!ledger.withdraw(at(1999)));
        assert_eq!(granted(&ledger, at(2000)), 20, "what was taken is forgotten with its slot");
    }

    #[test]
    fn deposits_are_forgotten_after_their_time() {
        let ledger = ledger(1.0, 0, 10);
        ledger.deposit(at(0));
        ledger.deposit(at(5000));
        assert_eq!(granted(&ledger, at(9999)), 2);
        ledger.deposit(at(20_000));
        ledger.deposit(at(25_000));
        assert_eq!(granted(&ledger, at(30_000)), 1);
    }

    #[test]
    fn nothing_overflows() {
        let ledger = ledger(1000.0, u32::MAX, 60);
        for _ in 0..2000 {
            ledger.deposit(at(0));
        }
        assert!(ledger.withdraw(Duration::MAX));
        assert!(!self::ledger(f32::NAN, 0, 0).withdraw(Duration::MAX));
        for units in [0, 1, -1, MOST, -MOST] {
            assert_eq!(balance_of(units as u64 & BALANCE), units);
        }
    }

    /// What a user sets holds for the process, however many workers there are.
    #[test]
    fn workers_share_it_and_never_take_more() {
        let ledger = ledger(0.5, 0, 10);
        let taken: usize = std::thread::scope(|scope| {
            let work = || {
                let mut taken = 0;
                for n in 0..20_000 {
                    ledger.deposit(at(0));
                    taken += usize::from(n % 7 != 0 && ledger.withdraw(at(0)));
                }
                taken
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let rest = granted(&ledger, at(0));
        assert_eq!(taken + rest, 40_000, "half of 80,000, and none is lost");
    }

    proptest! {
        #[test]
        fn as_a_list_of_all_movements_says(
            ratio in 0_f32..3.0,
            min in 0_u32..5,
            ttl in 1_u64..5,
            steps in proptest::collection::vec((0_u64..1500, any::<bool>()), 0..200),
        ) {
            let ledger = ledger(ratio, min, ttl);
            let (mut now, mut movements) = (0, vec![]);
            for (after, deposit) in steps {
                now += after;
                let turn = now * 10 / (ttl * 1000);
                let lately = |movements: &[(u64, f64)]| {
                    movements.iter().filter(|(t, _)| turn < t + 10).map(|(_, units)| units).sum::<f64>()
                };
                let balance = lately(&movements) + f64::from(min) * ttl as f64;
                if deposit {
                    ledger.deposit(at(now));
                    movements.push((turn, f64::from(ratio)));
                } else if ledger.withdraw(at(now)) {
                    prop_assert!(balance >= 1.0 - 1e-3, "{balance}");
                    movements.push((turn, -1.0));
                } else {
                    prop_assert!(balance < 1.0 + 1e-3, "{balance}");
                }
            }
        }
    }
}
