//! Asks the identity service for certificates, the first one and each that follows.

use super::schedule;
use crate::{
    config::IdentityConfig,
    process::control::{Caller, Services},
};
use bytes::Bytes;
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use weft_telemetry::{CounterFamily, Labels, Registry, Shard, Task, metrics::Sample};
use weft_transport::tls::{Key, Store};
use weft_wire::identity::Client;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often the wall clock is looked at: timers do not see a suspended machine or a clock that was set.
const LOOK: Duration = Duration::from_secs(2);
/// How often the log says that the proxy still waits.
const REMIND: Duration = Duration::from_secs(15);

/// Whether there has been a certificate. Sockets are accepted from only then.
#[derive(Clone)]
pub(in crate::process) struct Certified(watch::Receiver<bool>);

/// Says that there is a certificate.
pub(in crate::process) struct Certifying(watch::Sender<bool>);

/// Everything that certifying needs.
pub(in crate::process) struct Certifier {
    config: IdentityConfig,
    services: Services,
    store: Store,
    key: Key,
    csr: Bytes,
    refreshes: CounterFamily,
    refreshed: Arc<watch::Sender<Option<SystemTime>>>,
    certified: watch::Sender<bool>,
}

impl Certified {
    /// Waits for the first certificate. `false` when there will be none.
    pub(in crate::process) async fn wait(&self) -> bool {
        self.0.clone().wait_for(|certified| *certified).await.is_ok()
    }
}

/// Not certified yet.
pub(in crate::process) fn uncertified() -> (Certifying, Certified) {
    let (sender, receiver) = watch::channel(false);
    (Certifying(sender), Certified(receiver))
}

impl Certifier {
    pub(in crate::process) fn new(
        config: IdentityConfig,
        services: Services,
        (key, csr): (Key, Vec<u8>),
        certified: Certifying,
        registry: &Registry,
    ) -> Self {
        let refreshed = Arc::new(watch::Sender::new(None));
        let store = services.tls.clone();
        let (expiry, last) = (store.clone(), refreshed.clone());
        registry.collector(move |out| {
            let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
            out.push(Sample::gauge(
                "control_identity_cert_expiration_timestamp_seconds",
                "When the certificate in force expires, since the epoch",
                expiry.expiry().map_or(0.0, seconds),
            ));
            out.push(Sample::gauge(
                "control_identity_cert_refresh_timestamp_seconds",
                "When the certificate in force was received, since the epoch",
                last.borrow().map_or(0.0, seconds),
            ));
        });
        let refreshes = registry.counter("control_identity_cert_refreshes_total", "Attempts to get a certificate");
        Self { config, services, store, key, csr: csr.into(), refreshes, refreshed, certified: certified.0 }
    }

    /// One attempt over a connection of its own; the token is read anew.
    async fn certify(&self) -> anyhow::Result<()> {
        let token = tokio::fs::read(&self.config.token_file)
            .await
            .map_err(|e| anyhow::anyhow!("the token {} cannot be read: {e}", self.config.token_file.display()))?;
        let channel = self.services.channel("identity", &self.config.service, Caller::Anybody)?;
        let mut client = Client::new(channel);
        let request = client.certify(&self.config.id, token.into(), self.csr.clone());
        let certificate = timeout(ATTEMPT, request)
            .await
            .map_err(|_| anyhow::anyhow!("the identity service has not answered in {ATTEMPT:?}"))??;
        let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|der| der.to_vec()).collect();
        self.store.set_certificate(&self.key, &certificate.leaf, &intermediates)?;
        Ok(())
    }
}

/// Certifies at once, then for ever in time. `task` ends with the first certificate.
pub(in crate::process) async fn run(certifier: Certifier, task: Task) {
    let (mut task, mut failures) = (Some(task), 0_u32);
    let start = Instant::now();
    let reminder = tokio::spawn(remind(certifier.certified.subscribe(), certifier.config.clone()));
    loop {
        let result = certifier.certify().await;
        let labels = Labels::new().with("result", if result.is_ok() { "success" } else { "error" });
        certifier.refreshes.pinned(Shard::ADMIN, &labels).inc();
        let now = SystemTime::now();
        let expiry = certifier.store.expiry();
        match result {
            Ok(()) => {
                failures = 0;
                certifier.refreshed.send_replace(Some(now));
                if task.take().is_some() {
                    reminder.abort();
                    tracing::info!(id = %certifier.config.id, "Certified identity");
                } else {
                    tracing::debug!(id = %certifier.config.id, "Renewed the certificate");
                }
                certifier.certified.send_replace(true);
            }
            Err(error) => {
                failures += 1;
                // Attempts come often at first; the reminder tells of the wait.
                if failures.is_power_of_two() {
                    tracing::warn!(%error, failures, "Certifying the identity failed");
                } else {
                    tracing::debug!(%error, failures, "Certifying the identity failed again");
                }
            }
        }
        let (min, max) = (certifier.config.min_refresh, certifier.config.max_refresh);
        if expiry.is_none() {
            // Nothing works yet: do not wait as long as a renewal may.
            sleep(schedule::retry_in(start.elapsed(), min, fastrand::f64())).await;
            continue;
        }
        wait_until(now, schedule::renew_at(now, expiry, min, max)).await;
    }
}

/// Sleeps until the wall clock says `at`.
async fn wait_until(set: SystemTime, at: SystemTime) {
    loop {
        let now = SystemTime::now();
        if schedule::is_due(now, set, at) {
            return;
        }
        sleep(at.duration_since(now).unwrap_or_default().min(LOOK)).await;
    }
}

async fn remind(certified: watch::Receiver<bool>, config: IdentityConfig) {
    let start = Instant::now();
    loop {
        sleep(REMIND).await;
        if *certified.borrow() {
            return;
        }
        let waited = start.elapsed().as_secs();
        tracing::warn!(waited, service = %config.service.addr, "Waiting for the identity to be certified");
    }
}
