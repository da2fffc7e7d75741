//! What a row of cases costs the proxies in all: processor time in ordinary exchanges of the same run, so that a slow or busy
//! machine is no failure, and memory of the whole process. How long one may take, [`harness::soon`](crate::harness::soon) says.

use crate::measure::{Meter, Spent, say};
use std::time::Duration;

/// Ordinary exchanges by which processor time is measured, after as many that warm up.
const ORDINARY: u32 = 20;
/// Bytes by which the process may grow: what its origins keep of what they saw is among them.
const MEMORY: usize = 24 << 20;

pub(crate) struct Cost {
    meter: Meter,
    ordinary: Duration,
}

impl Cost {
    /// Begins, once it is known what an exchange with nothing wrong costs.
    pub(crate) async fn begin(mut exchange: impl AsyncFnMut()) -> Self {
        for _ in 0..ORDINARY {
            exchange().await;
        }
        let meter = Meter::start();
        for _ in 0..ORDINARY {
            exchange().await;
        }
        let ordinary = meter.stop().cpu / ORDINARY;
        Self { meter: Meter::start(), ordinary }
    }

    /// Ends after so many cases, of which each may have cost as much as `most` ordinary exchanges, one with another.
    pub(crate) fn end(self, what: &str, cases: usize, most: f64) {
        let (told, spent) = self.judged(what, cases, 0, most);
        assert!(spent.resident <= MEMORY, "memory: {told}");
    }

    /// The same where memory is judged by what each case holds, and `served` others had ordinary exchanges meanwhile.
    pub(crate) fn end_beside(self, served: usize, what: &str, cases: usize, most: f64) {
        self.judged(what, cases, served, most);
    }

    fn judged(&self, what: &str, cases: usize, served: usize, most: f64) -> (String, Spent) {
        let spent = self.meter.stop();
        let all = spent.cpu.as_secs_f64() / self.ordinary.as_secs_f64();
        let each = (all - served as f64).max(0.0) / cases as f64;
        let told = format!(
            "{what}: each of {cases} cases costs {each:.2} ordinary exchanges of {:?}, {most} at most; {} KiB more in all",
            self.ordinary,
            spent.resident / 1024
        );
        say(&told);
        assert!(each <= most, "processor time: {told}");
        (told, spent)
    }
}
