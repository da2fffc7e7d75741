//! Writes the EndpointSlices by which Services lead to ExternalWorkloads, while this process holds the lease for it.
//!
//! What is planned is `cluster::external_workload`'s. A Service whose slices cannot be written is tried again later and later, and
//! keeps no other waiting.

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
    Event,
    external_workload::Slices,
    kubernetes::{Client, Written, write_slice},
};
use weft_telemetry::{Counter, Labels, Registry, Shard};

/// The lease of Linkerd's, so that two control planes do not write at once.
pub(super) const LEASE: &str = "linkerd-destination-endpoint-write";
/// How often everything is looked at, whether anything has changed or not.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a Service waits whose slices could not be written; twice as long each time, …
const BACKOFF: Duration = Duration::from_millis(200);
/// … and this long at most.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What is to be written, kept by who sees events.
pub(super) struct Writer {
    slices: Mutex<Slices>,
    changed: Notify,
    meters: Meters,
}

struct Meters {
    written: Counter,
    outdated: Counter,
    failed: Counter,
}

/// A Service that could not be written.
struct Late {
    wait: Duration,
    until: Instant,
}

/// The loop's own.
struct Round {
    writer: Arc<Writer>,
    client: Client,
    /// By namespace and name.
    late: HashMap<(String, String), Late>,
}

impl Writer {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = registry.counter(
            "weft_slice_writes_total",
            "EndpointSlices of ExternalWorkloads that were written, by what came of it.",
        );
        let counter = |result| counters.with(Shard::ADMIN, &Labels::new().with("result", result));
        let meters = Meters { written: counter("written"), outdated: counter("outdated"), failed: counter("failed") };
        Self { slices: Mutex::default(), changed: Notify::new(), meters }
    }

    pub(super) fn see(&self, events: &[Event]) {
        let mut slices = self.slices.lock();
        // Each of them is taken in.
        let changed = events.iter().filter(|event| slices.apply(event)).count();
        drop(slices);
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
        let round = Round { writer: self.clone(), client, late: HashMap::new() };
        holder::write_while_held(round, &self.changed, holds, synced, stop).await;
    }
}

impl Writing for Round {
    async fn write(&mut self, holds: &watch::Receiver<bool>) -> Duration {
        let wanted = self.writer.slices.lock().wanted();
        self.late.retain(|service, _| wanted.contains_key(service));
        let meters = &self.writer.meters;
        // What fails for all is told of one.
        let mut told = HashSet::new();
        for (service, changes) in wanted {
            if self.late.get(&service).is_some_and(|late| late.until > Instant::now()) {
                continue;
            }
            let mut done = true;
            for change in changes {
                // Whoever holds the lease next may write already.
                if !*holds.borrow() {
                    return AGAIN;
                }
                let (written, known) = write_slice(&self.client, &change).await;
                if let Some(event) = known {
                    self.writer.slices.lock().apply(&event);
                }
                let (namespace, name) = &service;
                match written {
                    Written::Done => {
                        meters.written.inc();
                        continue;
                    }
                    Written::Outdated => {
                        tracing::debug!(namespace, name, "slice not written: it has changed");
                        meters.outdated.inc();
                    }
                    Written::Failed(reason) => {
                        meters.failed.inc();
                        if told.insert(reason.clone()) {
                            tracing::warn!(namespace, name, reason, "slice of the Service not written");
                        }
                    }
                }
                // The others would be of a plan that does not hold any more.
                done = false;
                break;
            }
            if done {
                self.late.remove(&service);
            } else {
                let before = self.late.get(&service).map_or(Duration::ZERO, |late| late.wait);
                let wait = (before * 2).clamp(BACKOFF, MAX_BACKOFF);
                self.late.insert(service, Late { wait, until: Instant::now() + wait });
            }
        }
        let next = self.late.values().map(|late| late.until.saturating_duration_since(Instant::now())).min();
        next.map_or(AGAIN, |next| next.min(AGAIN))
    }
}
