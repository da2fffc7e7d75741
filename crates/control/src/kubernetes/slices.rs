//! Writes the EndpointSlices by which Services lead to ExternalWorkloads, while this process holds the lease for it.
//!
//! What is planned is `cluster::external_workload`'s. Services are written one after the other; one whose slices cannot be
//! written is tried again later and later, and not before the others.

use super::holder::{Plan, Writing};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use weft_cluster::{
    external_workload::Slices,
    kubernetes::{Client, Written, find_slice, write_slice},
};
use weft_telemetry::Registry;

/// The lease of Linkerd's, so that two control planes do not write at once.
pub(super) const LEASE: &str = "linkerd-destination-endpoint-write";
/// How often everything is looked at, whether anything has changed or not.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a Service waits whose slices could not be written; twice as long each time, …
const BACKOFF: Duration = Duration::from_millis(200);
/// … and this long at most.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A Service that could not be written.
struct Late {
    wait: Duration,
    until: Instant,
}

/// Who writes.
pub(super) struct Writer {
    plan: Arc<Plan<Slices>>,
    client: Client,
    /// By namespace and name.
    late: HashMap<(String, String), Late>,
    /// When it was looked for slices that watches have not told of.
    looked: Instant,
}

pub(super) fn plan(registry: &Registry) -> Arc<Plan<Slices>> {
    let help = "EndpointSlices of ExternalWorkloads that were written, by what came of it.";
    Plan::new(Slices::default(), Slices::apply, registry, ("weft_slice_writes_total", help))
}

impl Writer {
    pub(super) fn new(plan: Arc<Plan<Slices>>, client: Client) -> Self {
        Self { plan, client, late: HashMap::new(), looked: Instant::now() }
    }

    /// Others may have deleted what was written before any watch has seen it.
    async fn look(&mut self) {
        self.looked = Instant::now();
        let untold = self.plan.planned().untold();
        for (namespace, name) in untold {
            let Some(found) = find_slice(&self.client, &namespace, &name).await else { return };
            self.plan.planned().wrote(&found);
        }
    }
}

impl Writing for Writer {
    async fn write(&mut self, holds: &watch::Receiver<bool>) -> Duration {
        if self.looked.elapsed() >= AGAIN {
            self.look().await;
        }
        let wanted = self.plan.planned().wanted();
        self.late.retain(|service, _| wanted.contains_key(service));
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
                    self.plan.planned().wrote(&event);
                }
                self.plan.count(&written);
                let (namespace, name) = &service;
                match written {
                    Written::Done => continue,
                    Written::Outdated => tracing::debug!(namespace, name, "slice not written: it has changed"),
                    Written::Failed(reason) => {
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
