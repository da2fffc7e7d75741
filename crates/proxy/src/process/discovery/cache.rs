//! One entry per key, with the task that keeps it up to date, forgotten when nobody has held it for a while.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

pub(super) struct Cache<K, V> {
    entries: Mutex<Entries<K, V>>,
    most: usize,
    /// Where a look-up begins the idle time anew: whether an entry gives way to another one when the cache is full.
    gives_way: Option<GivesWay<V>>,
    /// How often it was full.
    full: AtomicU64,
}

/// When an entry gives way to another one, if it does.
pub(super) type GivesWay<V> = fn(&Arc<V>) -> Option<Turn>;

/// Of those whose turn is the same, the one that was not looked up for the longest time gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    First,
    /// Not yet, but no one gives way in its stead whose turn comes later.
    Soon,
    Last,
}

struct Entries<K, V> {
    held: HashMap<K, Held<V>>,
    look_ups: u64,
}

struct Held<V> {
    value: Arc<V>,
    task: JoinHandle<()>,
    /// Since when nobody else holds it, as far as was looked.
    idle_since: Option<Instant>,
    /// Which look-up was its last.
    looked_up: u64,
    /// Never forgotten.
    pin: Option<Arc<V>>,
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// Holds at most so many entries.
    pub(super) fn new(most: usize) -> Self {
        Self {
            entries: Mutex::new(Entries { held: HashMap::new(), look_ups: 0 }),
            most,
            gives_way: None,
            full: AtomicU64::new(0),
        }
    }

    /// The same where each look-up begins the idle time anew, for what is held so shortly that no sweep may see it. When it is
    /// full, one gives way if it may. Who holds that keeps the value, which nothing keeps up to date any more.
    pub(super) fn renewing(most: usize, gives_way: GivesWay<V>) -> Self {
        Self { gives_way: Some(gives_way), ..Self::new(most) }
    }

    /// The entry of `key`, made if there is none; `None` when the cache is full.
    pub(super) fn get_or_insert(&self, key: K, new: impl FnOnce() -> (Arc<V>, JoinHandle<()>)) -> Option<Arc<V>> {
        let mut entries = self.entries.lock();
        let Entries { held, look_ups } = &mut *entries;
        *look_ups += 1;
        if let Some(found) = held.get_mut(&key) {
            if self.gives_way.is_some() {
                found.idle_since = None;
                found.looked_up = *look_ups;
            }
            return Some(found.value.clone());
        }
        if held.len() >= self.most {
            self.full.fetch_add(1, Ordering::Relaxed);
            let gives_way = self.gives_way?;
            let turns = held.iter().filter_map(|(key, held)| Some((gives_way(&held.value)?, held.looked_up, key)));
            let (turn, _, first) = turns.min_by_key(|(turn, looked_up, _)| (*turn, *looked_up))?;
            if turn == Turn::Soon {
                return None;
            }
            let first = first.clone();
            held.remove(&first);
        }
        let (value, task) = new();
        held.insert(key, Held { value: value.clone(), task, idle_since: None, looked_up: *look_ups, pin: None });
        Some(value)
    }

    /// Counts as a look-up, for who holds an entry and goes on using it.
    pub(super) fn renew(&self, key: &K) {
        let mut entries = self.entries.lock();
        let Entries { held, look_ups } = &mut *entries;
        if let Some(found) = held.get_mut(key) {
            *look_ups += 1;
            found.looked_up = *look_ups;
        }
    }

    /// Keeps an entry for good.
    pub(super) fn pin(&self, key: K, value: Arc<V>) {
        if let Some(held) = self.entries.lock().held.get_mut(&key) {
            held.pin = Some(value);
        }
    }

    /// Forgets what nobody has held for `idle`.
    pub(super) fn sweep(&self, now: Instant, idle: Duration) {
        self.entries.lock().held.retain(|_, held| {
            // Under the lock nobody can take a new reference from here, and who holds one keeps the count above one.
            if Arc::strong_count(&held.value) > 1 {
                held.idle_since = None;
                return true;
            }
            let since = *held.idle_since.get_or_insert(now);
            now.saturating_duration_since(since) < idle
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.lock().held.len()
    }

    /// How often another one gave way to a new entry, or there was no room for it.
    pub(super) fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }
}

impl<V> Drop for Held<V> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MAX_WATCHES, *};

    #[tokio::test]
    async fn only_what_nobody_holds_is_forgotten() {
        let cache = Cache::new(10);
        let new = |n: u32| move || (Arc::new(n), tokio::spawn(std::future::pending()));
        let held = cache.get_or_insert("held", new(1)).unwrap();
        drop(cache.get_or_insert("idle", new(2)));
        let pinned = cache.get_or_insert("pinned", new(3)).unwrap();
        cache.pin("pinned", pinned);
        let start = Instant::now();
        let idle = Duration::from_secs(5);
        cache.sweep(start, idle);
        cache.sweep(start + Duration::from_secs(4), idle);
        assert_eq!(cache.len(), 3);
        // A look at it is no use.
        assert_eq!(*cache.get_or_insert("idle", new(9)).unwrap(), 2);
        cache.sweep(start + Duration::from_secs(5), idle);
        assert_eq!(cache.len(), 2);
        assert_eq!(*cache.get_or_insert("idle", new(9)).unwrap(), 9);
        assert_eq!((*held, *cache.get_or_insert("held", new(9)).unwrap()), (1, 1));
    }

    #[tokio::test]
    async fn what_is_held_between_sweeps_is_in_use() {
        let cache = Cache::renewing(10, |_| Some(Turn::First));
        let new = |n: u32| move || (Arc::new(n), tokio::spawn(std::future::pending()));
        let (start, idle) = (Instant::now(), Duration::from_secs(5));
        for second in 0..20 {
            assert_eq!(*cache.get_or_insert("port", new(second)).unwrap(), 0);
            cache.sweep(start + Duration::from_secs(second.into()), idle);
        }
        cache.sweep(start + Duration::from_secs(24), idle);
        assert_eq!(cache.len(), 0);
    }

    #[tokio::test]
    async fn a_full_cache_takes_nothing_new() {
        let cache = Cache::new(MAX_WATCHES);
        let new = || (Arc::new(()), tokio::spawn(std::future::pending()));
        for key in 0..MAX_WATCHES {
            assert!(cache.get_or_insert(key, new).is_some());
        }
        assert_eq!(cache.full(), 0);
        assert!(cache.get_or_insert(MAX_WATCHES, new).is_none());
        assert!(cache.get_or_insert(7, new).is_some());
        assert_eq!(cache.full(), 1);
    }

    #[tokio::test]
    async fn what_was_not_asked_for_the_longest_gives_way() {
        // 0 says something of its own.
        let cache = Cache::renewing(4, |value: &Arc<u32>| {
            (Arc::strong_count(value) == 1 && **value != 0).then_some(Turn::First)
        });
        let new = |n: u32| move || (Arc::new(n), tokio::spawn(std::future::pending()));
        let held = cache.get_or_insert(1, new(1));
        drop([0, 2, 3].map(|key| cache.get_or_insert(key, new(key))));
        drop(cache.get_or_insert(2, new(9)));
        assert_eq!(cache.get_or_insert(4, new(4)).as_deref(), Some(&4), "3 gives way");
        assert_eq!(cache.get_or_insert(5, new(5)).as_deref(), Some(&5), "2 gives way");
        assert_eq!(cache.len(), 4);
        let (four, five) = (cache.get_or_insert(4, new(9)), cache.get_or_insert(5, new(9)));
        assert_eq!((four.as_deref(), five.as_deref()), (Some(&4), Some(&5)));
        assert_eq!(cache.get_or_insert(6, new(6)), None, "who is held stays, and who says something of its own");
        drop(four);
        assert_eq!(cache.get_or_insert(6, new(6)).as_deref(), Some(&6));
        assert_eq!((held.as_deref(), cache.get_or_insert(0, new(9)).as_deref()), (Some(&1), Some(&0)));
    }

    #[tokio::test]
    async fn what_is_used_gives_way_behind_what_is_not() {
        // Odd ones say something.
        let turn = |value: &Arc<u32>| Some(if value.is_multiple_of(2) { Turn::First } else { Turn::Last });
        let cache = Cache::renewing(4, turn);
        let new = |n: u32| move || (Arc::new(n), tokio::spawn(std::future::pending()));
        let held = [1, 2, 3, 4].map(|key| cache.get_or_insert(key, new(key)).unwrap());
        let holds = |keys: &[u32]| {
            let entries = cache.entries.lock();
            entries.held.len() == keys.len() && keys.iter().all(|key| entries.held.contains_key(key))
        };
        cache.renew(&2);
        cache.renew(&1);
        for (next, expected) in [(6, [1, 2, 3, 6]), (7, [1, 3, 6, 7]), (9, [1, 3, 7, 9]), (11, [1, 7, 9, 11])] {
            assert_eq!(cache.get_or_insert(next, new(next)).as_deref(), Some(&next));
            assert!(holds(&expected), "{next} came");
        }
        cache.renew(&3);
        assert!(holds(&[1, 7, 9, 11]), "who has given way does not come back by being used");
        assert_eq!((held.map(|value| *value), cache.full()), ([1, 2, 3, 4], 4));
    }

    #[tokio::test]
    async fn nobody_gives_way_for_one_whose_turn_comes_soon() {
        let cache = Cache::renewing(2, |value: &Arc<u32>| Some(if **value < 3 { Turn::Last } else { Turn::Soon }));
        let new = |n: u32| move || (Arc::new(n), tokio::spawn(std::future::pending()));
        drop([1, 2].map(|key| cache.get_or_insert(key, new(key)).unwrap()));
        assert_eq!(cache.get_or_insert(3, new(3)).as_deref(), Some(&3));
        assert_eq!(cache.get_or_insert(4, new(4)), None);
        assert_eq!(cache.get_or_insert(2, new(9)).as_deref(), Some(&2));
    }
}
