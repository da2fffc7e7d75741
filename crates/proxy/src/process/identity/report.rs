//! What is told of certificates, wherever they come from: log, metrics, readiness, and who waits for the first one.

use super::Certifying;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use weft_model::Identity;
use weft_telemetry::{CounterFamily, Labels, Registry, Shard, Task, metrics::Sample};
use weft_transport::tls::{Key, Store};

/// How often the log says that the proxy still waits.
const REMIND: Duration = Duration::from_secs(15);

/// Puts certificates into force and says so.
pub(in crate::process) struct Reporter {
    id: Identity,
    store: Store,
    refreshes: CounterFamily,
    refreshed: Arc<watch::Sender<Option<SystemTime>>>,
    certified: Certifying,
    /// Until the first certificate.
    task: Option<Task>,
    failures: u32,
}

/// Reminds of the wait until dropped.
pub(super) struct Reminder(JoinHandle<()>);

impl Reporter {
    pub(in crate::process) fn new(
        id: &Identity,
        store: Store,
        certified: Certifying,
        task: Task,
        registry: &Registry,
    ) -> Self {
        let refreshed = Arc::new(watch::Sender::new(None));
        let (expiry, last) = (store.clone(), refreshed.clone());
        registry.collector(move |out| {
            let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
            out.push(Sample::level(
                "control_identity_cert_expiration_timestamp_seconds",
                "When the certificate in force expires, since the epoch",
                expiry.expiry().map_or(0.0, seconds),
            ));
            out.push(Sample::level(
                "control_identity_cert_refresh_timestamp_seconds",
                "When the certificate in force was received, since the epoch",
                last.borrow().map_or(0.0, seconds),
            ));
        });
        let refreshes = registry.counter("control_identity_cert_refreshes_total", "Attempts to get a certificate");
        Self { id: id.clone(), store, refreshes, refreshed, certified, task: Some(task), failures: 0 }
    }

    /// Presents that certificate from now on.
    ///
    /// # Errors
    /// It cannot be used; the present one stays.
    pub(super) fn present(&self, key: &Key, leaf: &[u8], intermediates: &[Vec<u8>]) -> anyhow::Result<()> {
        Ok(self.store.set_certificate(key, leaf, intermediates)?)
    }

    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.store.expiry()
    }

    /// The outcome of one attempt.
    pub(super) fn report(&mut self, outcome: Result<(), anyhow::Error>) {
        let labels = Labels::new().with("result", if outcome.is_ok() { "success" } else { "error" });
        self.refreshes.pinned(Shard::ADMIN, &labels).inc();
        match outcome {
            Ok(()) => {
                self.failures = 0;
                self.refreshed.send_replace(Some(SystemTime::now()));
                if self.task.take().is_some() {
                    tracing::info!(id = %self.id, "Certified identity");
                } else {
                    tracing::debug!(id = %self.id, "Renewed the certificate");
                }
                self.certified.0.send_replace(true);
            }
            Err(error) => {
                self.failures += 1;
                let failures = self.failures;
                // Attempts come often at first; the reminder tells of the wait.
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "Certifying the identity failed");
                } else {
                    tracing::debug!(%error, failures, "Certifying the identity failed again");
                }
            }
        }
    }

    /// Says every now and then that the first certificate is still waited for.
    pub(super) fn remind(&self, service: String) -> Reminder {
        let certified = self.certified.0.subscribe();
        Reminder(tokio::spawn(async move {
            let start = Instant::now();
            loop {
                tokio::time::sleep(REMIND).await;
                if *certified.borrow() {
                    return;
                }
                let waited = start.elapsed().as_secs();
                tracing::warn!(waited, service, "Waiting for the identity to be certified");
            }
        }))
    }
}

impl Drop for Reminder {
    fn drop(&mut self) {
        self.0.abort();
    }
}
