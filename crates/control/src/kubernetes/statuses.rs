//! Writes the statuses of routes, limits and EgressNetworks, while this process holds the lease for it.
//!
//! Answers wait for none of this. A wake-up only makes it look at what statuses should say; the timer is the retry.

use super::holder::{Plan, Writing};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use weft_cluster::{
    Key,
    index::Settings,
    k8s::jiff::Timestamp,
    kubernetes::{Client, Written, write_status},
    policy::status::Statuses,
};
use weft_telemetry::Registry;

/// The lease of Linkerd's, so that two control planes do not write at once.
pub(super) const LEASE: &str = "policy-controller-write";
/// How often everything is looked at, whether anything has changed or not; and how long a write may take to be seen.
const AGAIN: Duration = Duration::from_secs(10);

/// Who writes.
pub(super) struct Writer {
    plan: Arc<Plan<Statuses>>,
    client: Client,
    /// Which version of an object was written about, and when: until it is seen it is not written about again.
    written: HashMap<Key, (String, Instant)>,
}

pub(super) fn plan(settings: Settings, registry: &Registry) -> Arc<Plan<Statuses>> {
    let help = "Statuses of objects that were written, by what came of it.";
    Plan::new(Statuses::new(settings), Statuses::apply, registry, ("weft_status_writes_total", help))
}

impl Writer {
    pub(super) fn new(plan: Arc<Plan<Statuses>>, client: Client) -> Self {
        Self { plan, client, written: HashMap::new() }
    }
}

impl Writing for Writer {
    async fn write(&mut self, holds: &watch::Receiver<bool>) -> Duration {
        let written = &mut self.written;
        written.retain(|_, (_, at)| at.elapsed() < AGAIN);
        let wanted = self.plan.planned().wanted(Timestamp::now());
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
            let became = write_status(&self.client, &patch).await;
            self.plan.count(&became);
            match became {
                Written::Done => {}
                Written::Outdated => tracing::debug!(object, "status not written: the object has changed"),
                Written::Failed(reason) => {
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
