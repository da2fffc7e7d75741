//! A value that one task replaces and many threads read.

use arc_swap::{ArcSwap, Guard};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Notify;

/// The newest value, its version, and a way to wait for the next.
pub struct Watched<T> {
    newest: ArcSwap<Versioned<T>>,
    version: AtomicU64,
    changed: Notify,
}

/// A value and which one it is. Versions only grow; the first is 1.
#[derive(Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub version: u64,
    pub value: T,
}

impl<T> Watched<T> {
    pub fn new(value: T) -> Self {
        Self {
            newest: ArcSwap::from_pointee(Versioned { version: 1, value }),
            version: AtomicU64::new(1),
            changed: Notify::new(),
        }
    }

    /// The newest value. Do not hold the guard across an await; [`Self::snapshot`] may be kept.
    pub fn load(&self) -> Guard<Arc<Versioned<T>>> {
        self.newest.load()
    }

    pub fn snapshot(&self) -> Arc<Versioned<T>> {
        self.newest.load_full()
    }

    /// One atomic load: whether what was derived from an earlier value is still current.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits until the version is another than `seen`, and returns the newest value. May be dropped at any time.
    pub async fn changed(&self, seen: u64) -> Arc<Versioned<T>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.version() != seen {
                return self.snapshot();
            }
            changed.await;
        }
    }

    /// Replaces the value. Only the one task that writes calls this.
    pub(crate) fn set(&self, value: T) {
        let version = self.version() + 1;
        self.newest.store(Arc::new(Versioned { version, value }));
        self.version.store(version, Ordering::Release);
        self.changed.notify_waiters();
    }
}

impl<T: PartialEq> Watched<T> {
    /// Replaces the value if it differs. Returns whether it did.
    pub(crate) fn set_if_changed(&self, value: T) -> bool {
        let differs = self.load().value != value;
        if differs {
            self.set(value);
        }
        differs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_change_has_a_version_and_wakes_who_waits() {
        let watched = Arc::new(Watched::new("a"));
        assert_eq!((watched.version(), watched.load().value), (1, "a"));
        assert!(!watched.set_if_changed("a"));
        assert_eq!(watched.version(), 1);
        let waiter = tokio::spawn({
            let watched = watched.clone();
            async move { watched.changed(1).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        assert!(watched.set_if_changed("b"));
        let seen = waiter.await.unwrap();
        assert_eq!((seen.version, seen.value), (2, "b"));
        // Who asks with an old version does not wait.
        assert_eq!(watched.changed(1).await.version, 2);
    }
}
