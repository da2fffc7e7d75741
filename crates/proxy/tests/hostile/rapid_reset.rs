//! Rapid reset (CVE-2023-44487): streams that are opened and reset at once, so that no limit of open streams holds.

use crate::{
    frames::{code, open, reset, whole},
    lab::{Budget, Lab},
    measure::alone,
};

#[test]
fn opening_and_resetting_ends_early() {
    alone(module_path!(), "opening_and_resetting_ends_early", async || {
        let lab = Lab::start().await;
        let calm = [code::ENHANCE_YOUR_CALM];
        let budget = Budget { open: 100, answers: 10, read: 300e3, requests: 200, memory: 6 << 20 };
        let again = |n: u32| [open(2 * n + 1), reset(2 * n + 1)].concat();
        lab.attack("open and reset", budget, &calm, &[], again).await;
        let again = |n: u32| [whole(2 * n + 1), reset(2 * n + 1)].concat();
        lab.attack("whole requests", budget, &calm, &[], again).await;
        // As many as may be open, and then all of them again.
        let again = |n: u32| {
            let streams = (0..100).map(|m| 2 * (100 * n + m) + 1);
            streams.clone().flat_map(open).chain(streams.flat_map(reset)).collect()
        };
        lab.attack("a hundred at a time", budget, &calm, &[], again).await;
        // Each stream twice: the second reset is of a stream that is closed.
        let again = |n: u32| [open(2 * n + 1), reset(2 * n + 1), reset(2 * n + 1)].concat();
        lab.attack("reset twice", budget, &calm, &[], again).await;
        lab.verdict();
    });
}
