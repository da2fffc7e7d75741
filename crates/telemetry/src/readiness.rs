//! Whether the process is ready: it is, once no named task is outstanding.
//!
//! A task is held as a value; dropping it means it is done. What is ready stays ready as long as nobody begins a new task.

use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Notify;

/// The outstanding tasks of a process.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// How many holders each name has.
    outstanding: Mutex<BTreeMap<&'static str, usize>>,
    done: Notify,
}

/// An outstanding task. The process is not ready while it lives.
#[must_use = "a task that is dropped at once is done at once"]
pub struct Task {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a task.
    pub fn task(&self, name: &'static str) -> Task {
        *self.0.outstanding.lock().entry(name).or_default() += 1;
        Task { readiness: self.clone(), name }
    }

    pub fn is_ready(&self) -> bool {
        self.0.outstanding.lock().is_empty()
    }

    /// The names of what is outstanding, in order.
    pub fn outstanding(&self) -> Vec<&'static str> {
        self.0.outstanding.lock().keys().copied().collect()
    }

    /// Waits until nothing is outstanding.
    pub async fn ready(&self) {
        loop {
            let done = self.0.done.notified();
            if self.is_ready() {
                return;
            }
            done.await;
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut outstanding = self.readiness.0.outstanding.lock();
        if let Some(holders) = outstanding.get_mut(self.name) {
            *holders -= 1;
            if *holders == 0 {
                outstanding.remove(self.name);
            }
        }
        let ready = outstanding.is_empty();
        drop(outstanding);
        if ready {
            self.readiness.0.done.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_once_the_last_task_is_dropped() {
        let readiness = Readiness::new();
        let (a, b, b2) = (readiness.task("identity"), readiness.task("dns"), readiness.task("dns"));
        assert_eq!(readiness.outstanding(), ["dns", "identity"]);
        drop((a, b));
        assert_eq!(readiness.outstanding(), ["dns"]);
        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(b2);
        waiter.await.unwrap();
        assert!(readiness.is_ready());
    }
}
