//! One entry per key, with the task that keeps it up to date, forgotten when nobody has held it for a while.

use parking_lot::Mutex;
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

pub(super) struct Cache<K, V> {
    entries: Mutex<HashMap<K, Held<V>>>,
    most: usize,
    /// Whether a look-up begins the idle time anew.
    renews: bool,
}

struct Held<V> {
    value: Arc<V>,
    task: JoinHandle<()>,
    /// Since when nobody else holds it, as far as was looked.
    idle_since: Option<Instant>,
    /// Never forgotten.
    pin: Option<Arc<V>>,
}

impl<K: Eq + Hash, V> Cache<K, V> {
    /// Holds at most so many entries.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most, renews: false }
    }

    /// The same where each look-up begins the idle time anew, for what is held so shortly that no sweep may see it.
    pub(super) fn renewing(most: usize) -> Self {
        Self { renews: true, ..Self::new(most) }
    }

    /// The entry of `key`, made if there is none; `None` when the cache is full.
    pub(super) fn get_or_insert(&self, key: K, new: impl FnOnce() -> (Arc<V>, JoinHandle<()>)) -> Option<Arc<V>> {
        let mut held = self.entries.lock();
        let full = held.len() >= self.most;
        match held.entry(key) {
            Entry::Occupied(mut entry) => {
                if self.renews {
                    entry.get_mut().idle_since = None;
                }
                Some(entry.get().value.clone())
            }
            Entry::Vacant(_) if full => None,
            Entry::Vacant(entry) => {
                let (value, task) = new();
                Some(entry.insert(Held { value, task, idle_since: None, pin: None }).value.clone())
            }
        }
    }

    /// Keeps an entry for good.
    pub(super) fn pin(&self, key: K, value: Arc<V>) {
        if let Some(held) = self.entries.lock().get_mut(&key) {
            held.pin = Some(value);
        }
    }

    /// Forgets what nobody has held for `idle`.
    pub(super) fn sweep(&self, now: Instant, idle: Duration) {
        self.entries.lock().retain(|_, held| {
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
        self.entries.lock().len()
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
        let cache = Cache::renewing(10);
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
}
