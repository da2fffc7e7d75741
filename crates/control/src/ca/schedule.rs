//! What is due: the life of roots and issuer as a pure function of the state and the time.
//!
//! ```text
//! root:    made ── 70 % ─► successor made and announced ── announce ─► successor signs ── leaf lifetime ─► dropped
//! issuer:  made ── 70 %, or its root has a successor that was announced ─► next issuer
//! ```

use super::state::{Pair, Root, State, seconds};
use crate::Lifetimes;
use std::time::{Duration, SystemTime};

/// More steps than ever follow each other at one moment.
pub(super) const MAX_STEPS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MakeRoot,
    /// Signed by the root with this number.
    MakeIssuer {
        root: u32,
    },
    DropRoot {
        root: u32,
    },
}

pub(super) fn due(state: &State, lifetimes: &Lifetimes, now: SystemTime) -> Option<Step> {
    let now = seconds(now);
    // A root that has ended, or that was made in what is now the future, proves nothing.
    if let Some(useless) = state.roots.iter().find(|r| !is_valid(&r.pair, lifetimes, now)) {
        return Some(Step::DropRoot { root: useless.number });
    }
    let Some(newest) = state.roots.last() else { return Some(Step::MakeRoot) };
    let root = signing_root(state, lifetimes, now).unwrap_or(newest);

    match &state.issuer {
        Some(issuer)
            if is_valid(&issuer.pair, lifetimes, now) && !is_old(&issuer.pair, now) && issuer.root == root.number => {}
        // The last issuer under a root ends with it: making another one would not help.
        Some(issuer)
            if is_valid(&issuer.pair, lifetimes, now)
                && issuer.root == root.number
                && issuer.pair.not_after >= root.pair.not_after => {}
        _ => return Some(Step::MakeIssuer { root: root.number }),
    }
    if is_old(&newest.pair, now) {
        return Some(Step::MakeRoot);
    }
    let oldest = state.roots.first().filter(|oldest| oldest.number != root.number)?;
    let until = root.signs_since? + whole(lifetimes.leaf + 2 * lifetimes.skew);
    (now >= until).then_some(Step::DropRoot { root: oldest.number })
}

/// The newest root that was announced for long enough; where there is none, the one that signs now, or the oldest.
fn signing_root<'s>(state: &'s State, lifetimes: &Lifetimes, now: u64) -> Option<&'s Root> {
    let announced = |r: &&Root| now >= r.pair.made + whole(lifetimes.announce);
    let present = || state.signing().map(|(_, root)| root);
    state.roots.iter().rev().find(announced).or_else(present).or_else(|| state.roots.first())
}

fn is_valid(pair: &Pair, lifetimes: &Lifetimes, now: u64) -> bool {
    pair.made <= now + whole(lifetimes.skew) && now < pair.not_after
}

/// More than 70 % of its life are over.
fn is_old(pair: &Pair, now: u64) -> bool {
    let life = pair.not_after.saturating_sub(pair.made);
    now.saturating_sub(pair.made) >= life - life * 3 / 10
}

/// Seconds, rounded up: a shorter time would end an overlap too early.
fn whole(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
