//! What one of several replicas writes into the cluster: whoever holds a lease.

use parking_lot::{Mutex, MutexGuard};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_cluster::{Event, kubernetes::Written};
use weft_telemetry::{Counter, Labels, Registry, Shard};

/// Changes that come within this are written about together.
const TOGETHER: Duration = Duration::from_millis(50);

/// What is to be written, kept by who sees events.
pub(super) struct Plan<P> {
    planned: Mutex<P>,
    /// Says whether anything is to be written that was not before.
    apply: fn(&mut P, &Event) -> bool,
    changed: Notify,
    written: Counter,
    outdated: Counter,
    failed: Counter,
}

/// Who writes into the cluster. It takes no input: each time it looks at what there is.
pub(super) trait Writing: Send {
    /// Writes what is to be written, as long as `holds` is true, and says how long to wait for a change: the timer is the retry.
    fn write(&mut self, holds: &watch::Receiver<bool>) -> impl Future<Output = Duration> + Send;
}

impl<P> Plan<P> {
    /// Writes are counted by `name`, by what came of them.
    pub(super) fn new(
        planned: P,
        apply: fn(&mut P, &Event) -> bool,
        registry: &Registry,
        (name, help): (&'static str, &'static str),
    ) -> Arc<Self> {
        let counters = registry.counter(name, help);
        let counter = |result| counters.with(Shard::ADMIN, &Labels::new().with("result", result));
        Arc::new(Self {
            planned: Mutex::new(planned),
            apply,
            changed: Notify::new(),
            written: counter("written"),
            outdated: counter("outdated"),
            failed: counter("failed"),
        })
    }

    pub(super) fn see(&self, events: &[Event]) {
        let mut planned = self.planned.lock();
        // Each of them is taken in.
        let changed = events.iter().filter(|event| (self.apply)(&mut planned, event)).count();
        drop(planned);
        if changed > 0 {
            self.changed.notify_one();
        }
    }

    pub(super) fn planned(&self) -> MutexGuard<'_, P> {
        self.planned.lock()
    }

    pub(super) fn count(&self, written: &Written) {
        match written {
            Written::Done => self.written.inc(),
            Written::Outdated => self.outdated.inc(),
            Written::Failed(_) => self.failed.inc(),
        }
    }

    /// Writes until `stop`, once everything is known: what was not listed yet would be taken for missing.
    pub(super) async fn write_while_held(
        self: Arc<Self>,
        mut writing: impl Writing,
        mut holds: watch::Receiver<bool>,
        mut synced: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let run = async {
            if synced.wait_for(|synced| *synced).await.is_err() {
                return;
            }
            loop {
                if holds.wait_for(|holds| *holds).await.is_err() {
                    return;
                }
                let wait = writing.write(&holds).await;
                let _ = tokio::time::timeout(wait, self.changed.notified()).await;
                tokio::time::sleep(TOGETHER).await;
            }
        };
        stop.run_until_cancelled(run).await;
    }
}
