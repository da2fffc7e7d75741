//! Asks the identity service for certificates, the first one and each that follows.

use super::{Reporter, schedule};
use crate::{
    config::IdentityService,
    process::control::{self, Caller, Services},
};
use bytes::Bytes;
use std::time::{Duration, SystemTime};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use weft_model::Identity;
use weft_transport::tls::Key;
use weft_wire::identity::Client;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How often the wall clock is looked at: timers do not see a suspended machine or a clock that was set.
const LOOK: Duration = Duration::from_secs(2);

/// Whether there has been a certificate. Sockets are accepted from only then.
#[derive(Clone)]
pub(in crate::process) struct Certified(watch::Receiver<bool>);

/// Says that there is a certificate.
pub(in crate::process) struct Certifying(pub(super) watch::Sender<bool>);

/// Everything that certifying needs.
pub(in crate::process) struct Certifier {
    id: Identity,
    config: IdentityService,
    services: Services,
    key: Key,
    csr: Bytes,
    reporter: Reporter,
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
        id: Identity,
        config: IdentityService,
        services: Services,
        (key, csr): (Key, Vec<u8>),
        reporter: Reporter,
    ) -> Self {
        Self { id, config, services, key, csr: csr.into(), reporter }
    }

    /// One attempt over a connection of its own; the token is read anew.
    async fn certify(&self) -> anyhow::Result<()> {
        let token = tokio::fs::read(&self.config.token_file)
            .await
            .map_err(|e| anyhow::anyhow!("the token {} cannot be read: {e}", self.config.token_file.display()))?;
        let channel = self.services.channel(control::Client::Identity, &self.config.service, Caller::Anybody)?;
        let mut client = Client::new(channel);
        let request = client.certify(&self.id, token.into(), self.csr.clone());
        let certificate = timeout(ATTEMPT, request)
            .await
            .map_err(|_| anyhow::anyhow!("the identity service has not answered in {ATTEMPT:?}"))??;
        let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|der| der.to_vec()).collect();
        self.reporter.present(&self.key, &certificate.leaf, &intermediates)
    }
}

/// Certifies at once, then for ever in time.
pub(in crate::process) async fn run(mut certifier: Certifier) {
    let start = Instant::now();
    let _reminder = certifier.reporter.remind(certifier.config.service.addr.to_string());
    loop {
        let outcome = certifier.certify().await;
        certifier.reporter.report(outcome);
        let now = SystemTime::now();
        let expiry = certifier.reporter.expiry();
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
