//! One entry per key, with the task that keeps it up to date, forgotten when nobody has held it for a while.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

pub(super) struct Cache<K, V> {
    entries: Mutex<Entries<K, V>>,
    most: usize,
    /// Where a look-up begins the idle time anew: what of it may give way to another one when the cache is full.
    renews: Option<fn(&V) -> bool>,
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
        Self { entries: Mutex::new(Entries { held: HashMap::new(), look_ups: 0 }), most, renews: None }
    }

    /// The same where each look-up begins the idle time anew, for what is held so shortly that no sweep may see it. When it is
    /// full, the one that nobody holds and that was not looked up for the longest time gives way, if it may.
    pub(super) fn renewing(most: usize, gives_way: fn(&V) -> bool) -> Self {
        Self { renews: Some(gives_way), ..Self::new(most) }
    }

    /// The entry of `key`, made if there is none; `None` when the cache is full.
    pub(super) fn get_or_insert(&self, key: K, new: impl FnOnce() -> (Arc<V>, JoinHandle<()>)) -> Option<Arc<V>> {
        let mut entries = self.entries.lock();
        let Entries { held, look_ups } = &mut *entries;
        *look_ups += 1;
        if let Some(found) = held.get_mut(&key) {
            if self.renews.is_some() {
                found.idle_since = None;
                found.looked_up = *look_ups;
            }
            return Some(found.value.clone());
        }
        if held.len() >= self.most {
            let gives_way = self.renews?;
            let unused = held.iter().filter(|(_, held)| Arc::strong_count(&held.value) == 1 && gives_way(&held.value));
            let oldest = unused.min_by_key(|(_, held)| held.looked_up)?.0.clone();
            held.remove(&oldest);
        }
        let (value, task) = new();
        held.insert(key, Held { value: value.clone(), task, idle_since: None, looked_up: *look_ups, pin: None });
        Some(value)
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
            let keep = now.saturating_duration_since(since) < idle;
            if !keep {
                held.task.abort();
            }
            keep
        });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.lock().held.len()
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
        let cache = Cache::renewing(10, |_| true);
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
        assert!(cache.get_or_insert(MAX_WATCHES, new).is_none());
        assert!(cache.get_or_insert(7, new).is_some());
    }
    #[tokio::test]
    async fn what_was_not_asked_for_the_longest_gives_way() {
        // 0 says something of its own.
        let cache = Cache::renewing(4, |value: &u32| *value != 0);
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
}
