//! Many small cases by number: each is found again by its seed, and costs what it does and no more.

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

/// How many cases there are; `cargo xtask soak` asks for ten times as many by the variable.
pub(super) fn cases() -> u64 {
    std::env::var("WEFT_CASES").map_or(100_000, |n| n.parse().unwrap())
}

/// Tries all cases.
///
/// # Panics
/// A case fails; its seed is told.
pub(super) fn try_all<E: Display>(case: impl Fn(u64) -> Result<(), E> + Sync) {
    try_some(cases(), case);
}

/// Tries the seeds from 0 on all cores.
///
/// # Panics
/// A case fails; its seed is told.
pub(super) fn try_some<E: Display>(cases: u64, case: impl Fn(u64) -> Result<(), E> + Sync) {
    let cores = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed = AtomicBool::new(false);
    let of_core = |core: u64| {
        let seeds = (core..cases).step_by(cores as usize);
        for seed in seeds.take_while(|_| !failed.load(Relaxed)) {
            if let Err(error) = case(seed) {
                failed.store(true, Relaxed);
                return Some(format!("seed {seed}: {error}"));
            }
        }
        None
    };
    let failures: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || of_core(core))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Always the same `n` values.
pub(super) fn sample<T>(strategy: &impl Strategy<Value = T>, n: usize) -> Vec<T> {
    let mut runner = TestRunner::deterministic();
    (0..n).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

/// The shortest of what can be made from `whole` by leaving out parts of it, and of which `fails` still says why.
pub(super) fn shortest<T: Clone>(whole: &[T], fails: impl Fn(&[T]) -> Option<String>) -> (Vec<T>, String) {
    let mut left = whole.to_vec();
    let mut why = fails(&left).expect("it fails as a whole");
    let mut at = 0;
    while at < left.len() {
        let mut fewer = left.clone();
        fewer.remove(at);
        match fails(&fewer) {
            // What stands before may be dispensable now.
            Some(still) => (left, why, at) = (fewer, still, 0),
            None => at += 1,
        }
    }
    (left, why)
}

pub(super) fn pick<'t, T>(rng: &mut fastrand::Rng, from: &'t [T]) -> &'t T {
    &from[rng.usize(..from.len())]
}
