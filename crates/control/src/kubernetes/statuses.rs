//! Writes the statuses of routes, limits and EgressNetworks, while this process holds the lease for it.
//!
//! Answers wait for none of this. A wake-up only makes it look at what statuses should say; the timer is the retry.

use super::holder::{self, Writing};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Event, Key,
    index::Settings,
    k8s::jiff::Timestamp,
    kubernetes::{Client, Written, write_status},
    policy::status::Statuses,
};
use weft_telemetry::{Counter, Labels, Registry, Shard};

/// The lease of Linkerd's, so that two control planes do not write at once.
pub(super) const LEASE: &str = "policy-controller-write";
/// How often everything is looked at, whether anything has changed or not; and how long a write may take to be seen.
const AGAIN: Duration = Duration::from_secs(10);

/// What is to be said, kept by who sees events.
pub(super) struct Writer {
    statuses: Mutex<Statuses>,
    changed: Notify,
    meters: Meters,
}

struct Meters {
    written: Counter,
    outdated: Counter,
    failed: Counter,
}

/// The loop's own.
struct Round {
    writer: Arc<Writer>,
    client: Client,
    /// Which version of an object was written about, and when: until it is seen it is not written about again.
    written: HashMap<Key, (String, Instant)>,
}

impl Writer {
    pub(super) fn new(settings: Settings, registry: &Registry) -> Self {
        let counters =
            registry.counter("weft_status_writes_total", "Statuses of objects that were written, by what came of it.");
        let counter = |result| counters.with(Shard::ADMIN, &Labels::new().with("result", result));
        let meters = Meters { written: counter("written"), outdated: counter("outdated"), failed: counter("failed") };
        Self { statuses: Mutex::new(Statuses::new(settings)), changed: Notify::new(), meters }
    }

    pub(super) fn see(&self, events: &[Event]) {
        let mut statuses = self.statuses.lock();
        // Each of them is taken in.
        let changed = events.iter().filter(|event| statuses.apply(event)).count();
        drop(statuses);
        if changed > 0 {
            self.changed.notify_one();
        }
    }

    pub(super) async fn run(
        self: Arc<Self>,
        client: Client,
        holds: watch::Receiver<bool>,
        synced: watch::Receiver<bool>,
        stop: CancellationToken,
    ) {
        let round = Round { writer: self.clone(), client, written: HashMap::new() };
        holder::write_while_held(round, &self.changed, holds, synced, stop).await;
    }
}

impl Writing for Round {
    async fn write(&mut self, holds: &watch::Receiver<bool>) -> Duration {
        let (meters, written) = (&self.writer.meters, &mut self.written);
        written.retain(|_, (_, at)| at.elapsed() < AGAIN);
        let wanted = self.writer.statuses.lock().wanted(Timestamp::now());
        // What fails for all is told of one.
        let mut told = HashSet::new();
        for patch in wanted {
            if written.get(&patch.key).is_some_and(|(version, _)| *version == patch.version) {
                continue;
            }
            // Whoever holds the lease next may write already.
            if !*holds.borrow() {
                return AGAIN;
            }
            let object = patch.key.to_string();
            match write_status(&self.client, &patch).await {
                Written::Done => meters.written.inc(),
                Written::Outdated => {
                    tracing::debug!(object, "status not written: the object has changed");
                    meters.outdated.inc();
                }
                Written::Failed(reason) => {
                    meters.failed.inc();
                    if told.contains(&reason) {
                        tracing::debug!(object, reason, "status not written");
                    } else {
                        tracing::warn!(object, reason, "status not written");
                        told.insert(reason);
                    }
                }
            }
            written.insert(patch.key, (patch.version, Instant::now()));
        }
        AGAIN
    }
}
