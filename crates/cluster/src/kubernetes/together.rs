//! Watches that belong together come back together: what one kind says means nothing without the other.
//!
//! ```text
//! watches of Pods, ExternalWorkloads, EndpointSlices ─► held while one of them is away ─► Sink, all at once
//! the others ──────────────────────────────────────────────────────────────────────────► Sink
//! ```
//!
//! An endpoint is one only with its workload. Were the end of a rollout told of one of these kinds, there would be no endpoint left until
//! the watch of the other is back. So none is told of then, and all are once each has said what it had to say.
//!
//! A kind that stays away for longer than [`LONGEST`] is waited for no more: then the last that is known of it is as good as anything, and
//! what the others say counts again.
//!
//! Who comes back tells all others: they end their waits, and begin anew where they were, for whether they are still alive nobody knows.

use super::Sink;
use crate::{Event, Key, Kind};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use weft_telemetry::{Gauge, Labels, Registry, Shard};

const TOGETHER: [Kind; 3] = [Kind::Pod, Kind::ExternalWorkload, Kind::EndpointSlice];
/// Where watches come and go again and again, how long until that is told which each said when it was whole last.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the others wait for a kind that does not come back, such as one whose list is forbidden.
const LONGEST: Duration = Duration::from_secs(30);
/// Objects of which something is held back, the newest of each: more than change within [`LONGEST`].
const MAX_HELD: usize = 100_000;

pub(super) struct Together {
    sink: Sink,
    /// Those of [`TOGETHER`] that are watched.
    kinds: Vec<Kind>,
    state: Mutex<State>,
    /// How many objects of [`State::held`].
    held: Gauge,
    /// Counts outages that are over.
    returns: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Everything was listed once. Before, nobody is answered, and nothing is held back.
    synced: bool,
    away: BTreeSet<Kind>,
    /// Since when one of them is.
    away_since: Option<Instant>,
    /// Those that are away and waited for no more.
    given_up: BTreeSet<Kind>,
    /// Since when one was, or since something was told meanwhile, …
    since: Option<Instant>,
    /// … and which were whole at some time since then.
    whole: BTreeSet<Kind>,
    held: BTreeMap<Key, Event>,
}

impl Together {
    pub(super) fn new(sink: Sink, watched: &[Kind], registry: &Registry) -> Self {
        let kinds = TOGETHER.into_iter().filter(|kind| watched.contains(kind)).collect();
        let help = "Objects whose changes are held back until the watch of another kind is back.";
        let held = registry.gauge("weft_kubernetes_held", help).with(Shard::ADMIN, &Labels::new());
        Self { sink, kinds, state: Mutex::default(), held, returns: watch::Sender::new(0) }
    }

    pub(super) fn take_in(&self, kind: Kind, events: Vec<Event>) {
        let mut state = self.state.lock();
        state.synced |= events.contains(&Event::Synced);
        self.give_up(&mut state);
        if state.away.is_empty() || !self.kinds.contains(&kind) {
            return (self.sink)(events);
        }
        for event in events {
            let key = match &event {
                Event::Apply(object) => object.key(),
                Event::Delete(key) => key.clone(),
                Event::Refused(refused) => refused.key.clone(),
                // That was said before anything is held back.
                Event::Synced => continue,
            };
            state.held.insert(key, event);
        }
        self.held.set(i64::try_from(state.held.len()).unwrap_or(i64::MAX));
        if state.held.len() > MAX_HELD {
            tracing::warn!(away = ?state.away, "too many changes of endpoints to be held back; some may be missing for a time");
            self.release(&mut state);
        }
    }

    /// Changes of a kind may be missing.
    pub(super) fn left(&self, kind: Kind) {
        if self.kinds.contains(&kind) {
            let mut state = self.state.lock();
            self.give_up(&mut state);
            state.leave([kind]);
        }
    }

    /// Everything was taken in of a kind that has changed meanwhile.
    pub(super) fn is_whole(&self, kind: Kind) {
        let mut state = self.state.lock();
        self.give_up(&mut state);
        state.given_up.remove(&kind);
        if !state.away.remove(&kind) {
            return;
        }
        state.whole.insert(kind);
        let each = state.away.is_subset(&state.whole);
        if state.away.is_empty() || each && state.since.is_some_and(|since| since.elapsed() >= PATIENCE) {
            self.release(&mut state);
        }
    }

    /// The server answers again, of whichever kind: what is believed to be watched may not have been for as long.
    pub(super) fn returned(&self) {
        let mut state = self.state.lock();
        self.give_up(&mut state);
        state.leave(self.kinds.iter().copied());
        drop(state);
        self.returns.send_modify(|count| *count += 1);
    }

    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// Who is away looks in at least every few seconds, so that this is asked in time.
    fn give_up(&self, state: &mut State) {
        if state.away.is_empty() || state.away_since.is_none_or(|since| since.elapsed() < LONGEST) {
            return;
        }
        let away = std::mem::take(&mut state.away);
        tracing::warn!(?away, "watches stay away: changes of the kinds that belong to theirs are told without them");
        state.given_up.extend(away);
        self.release(state);
    }

    fn release(&self, state: &mut State) {
        (state.since, state.whole) = (Some(Instant::now()), BTreeSet::new());
        let held = std::mem::take(&mut state.held);
        self.held.set(0);
        if !held.is_empty() {
            (self.sink)(held.into_values().collect());
        }
    }
}

impl State {
    fn leave(&mut self, kinds: impl IntoIterator<Item = Kind>) {
        if !self.synced {
            return;
        }
        let news: Vec<Kind> = kinds.into_iter().filter(|kind| !self.given_up.contains(kind)).collect();
        if self.away.is_empty() && !news.is_empty() {
            let now = Some(Instant::now());
            (self.away_since, self.since, self.whole) = (now, now, BTreeSet::new());
        }
        self.away.extend(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_kind_that_does_not_come_back_holds_up_nothing_for_ever() {
        let told = Arc::new(Mutex::new(0));
        let count = Arc::clone(&told);
        let sink: Sink = Arc::new(move |events: Vec<Event>| *count.lock() += events.len());
        let registry = Registry::new(0, 100);
        let together = Together::new(sink, &TOGETHER, &registry);
        let held = || registry.encode().lines().any(|line| line == "weft_kubernetes_held 1");
        let gone = |name: &str| Event::Delete(Key::new(Kind::Pod, "ns", name));
        together.take_in(Kind::Pod, vec![Event::Synced]);
        together.left(Kind::ExternalWorkload);
        together.take_in(Kind::Pod, vec![gone("a")]);
        assert_eq!(*told.lock(), 1, "it is held");
        assert!(held());
        together.state.lock().away_since = Instant::now().checked_sub(LONGEST);
        together.left(Kind::ExternalWorkload);
        assert_eq!(*told.lock(), 2);
        assert!(!held());
        together.take_in(Kind::Pod, vec![gone("b")]);
        assert_eq!(*told.lock(), 3, "and nothing more is");
        // Until it has been back.
        together.is_whole(Kind::ExternalWorkload);
        together.left(Kind::ExternalWorkload);
        together.take_in(Kind::Pod, vec![gone("c")]);
        assert_eq!(*told.lock(), 3);
        together.is_whole(Kind::ExternalWorkload);
        assert_eq!(*told.lock(), 4);
    }
}
