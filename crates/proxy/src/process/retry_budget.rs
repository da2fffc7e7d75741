//! The retry budget of one profile, for all workers. Decides nothing itself: [`weft_model::decide::retry_budget`] does.

use super::rate_limit::Clock;
use std::time::Instant;
use weft_model::{decide::retry_budget::Ledger, profile::RetryBudget};

pub struct Budget {
    ledger: Ledger,
    clock: Clock,
    /// The ledger counts from here.
    start: Instant,
}

impl Budget {
    pub fn new(limits: RetryBudget, clock: &Clock) -> Self {
        Self { ledger: Ledger::new(limits), clock: clock.clone(), start: clock() }
    }

    pub fn limits(&self) -> RetryBudget {
        self.ledger.limits()
    }

    /// A request was answered by what is no failure.
    pub fn deposit(&self) {
        self.ledger.deposit((self.clock)().saturating_duration_since(self.start));
    }

    /// Whether a request may be sent again.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.ledger.withdraw((self.clock)().saturating_duration_since(self.start))
    }
}
