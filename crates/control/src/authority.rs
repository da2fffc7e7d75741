//! The CA while the control plane runs: renewed by a task, read by all.

use crate::{
    Error, Lifetimes,
    ca::{self, Ca, Status},
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    future::Future,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_model::Identity;
use weft_telemetry::{Gauge, Labels, Registry, Shard};
use weft_transport::tls::{Key, Store};

/// How often files that others renew are read.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is told that a certificate ends.
const REMIND: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) struct Authority {
    origin: Origin,
    lifetimes: Lifetimes,
    ca: ArcSwap<Ca>,
    anchors: watch::Sender<String>,
    /// The control plane's own certificates.
    own: Mutex<Vec<Own>>,
}

/// Where the CA is.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// In a folder of ours, where it is made and renewed.
    Folder(PathBuf),
    /// In files that somebody else renews.
    Mounted(ca::Mounted),
}

/// What happened to the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Renewed,
    /// The present one stays.
    Kept {
        why: String,
    },
    /// There is none, or the present one has ended: nobody gets a certificate.
    Invalid {
        why: String,
    },
    /// Somebody should see to a successor; told again now and then.
    Due {
        issuer_left: Duration,
        root_left: Duration,
    },
}

/// A TLS store of the control plane, and when its certificate is to be replaced.
struct Own {
    store: Store,
    renew_at: SystemTime,
}

impl Authority {
    pub(crate) fn open(origin: Origin, lifetimes: Lifetimes) -> Result<Self, ca::Error> {
        let ca = origin.read(&lifetimes, SystemTime::now())?;
        let anchors = watch::Sender::new(ca.status().anchors_pem.clone());
        Ok(Self { origin, lifetimes, ca: ArcSwap::from_pointee(ca), anchors, own: Mutex::default() })
    }

    pub(crate) fn ca(&self) -> Arc<Ca> {
        self.ca.load_full()
    }

    /// The anchors in force, PEM, and each text that follows.
    pub(crate) fn anchors(&self) -> watch::Receiver<String> {
        self.anchors.subscribe()
    }

    /// A store with a certificate of this CA, which is kept fresh from now on.
    pub(crate) fn store(&self, identity: &Identity) -> Result<Store, Error> {
        let failed = |reason: String| Error::Identity { what: "certificate of the control plane", reason };
        let Identity::Dns(server_name) = identity else { return Err(failed(format!("{identity} is no DNS name"))) };
        let ca = self.ca();
        let store = Store::new(&ca.status().anchors_pem, server_name.clone(), identity.clone())
            .map_err(|e| failed(e.to_string()))?;
        let mut own = Own { store: store.clone(), renew_at: UNIX_EPOCH };
        own.renew(&ca, SystemTime::now()).map_err(failed)?;
        self.own.lock().push(own);
        Ok(store)
    }

    /// Brings the CA and what hangs on it to what is due at `now`, and says whether it is another one.
    fn refresh(&self, now: SystemTime) -> Result<bool, String> {
        let ca = self.origin.read(&self.lifetimes, now).map_err(|e| e.to_string())?;
        let changed = ca.status() != self.ca.load().status();
        if changed {
            tracing::info!(
                anchors = ca.status().anchors_pem.matches("BEGIN CERTIFICATE").count(),
                "certificate authority renewed"
            );
            self.ca.store(Arc::new(ca));
        }
        let ca = self.ca();
        // First the anchors, so that the new certificate is not refused by the store that gets it.
        let anchors = &ca.status().anchors_pem;
        for own in self.own.lock().iter_mut() {
            if changed {
                own.store.set_anchors(anchors).map_err(|e| e.to_string())?;
            }
            if changed || now >= own.renew_at {
                own.renew(&ca, now)?;
            }
        }
        self.anchors.send_if_modified(|present| {
            let differs = present != anchors;
            if differs {
                present.clone_from(anchors);
            }
            differs
        });
        Ok(changed)
    }
}

impl Origin {
    fn read(&self, lifetimes: &Lifetimes, now: SystemTime) -> Result<Ca, ca::Error> {
        match self {
            Self::Folder(state_dir) => ca::ensure(state_dir, lifetimes, now),
            Self::Mounted(files) => files.read(lifetimes, now),
        }
    }

    /// How often to look.
    fn interval(&self, lifetimes: &Lifetimes) -> Duration {
        match self {
            Self::Folder(_) => ca::interval(lifetimes),
            Self::Mounted(_) => LOOK,
        }
    }
}

impl Own {
    fn renew(&mut self, ca: &Ca, now: SystemTime) -> Result<(), String> {
        let key = Key::generate().map_err(|e| e.to_string())?;
        let csr = key.csr(self.store.identity()).map_err(|e| e.to_string())?;
        let leaf = ca.sign(self.store.identity(), &csr, now).map_err(|e| e.to_string())?;
        self.store.set_certificate(&key, &leaf.certificate, &leaf.intermediates).map_err(|e| e.to_string())?;
        let life = leaf.not_after.duration_since(now).unwrap_or_default();
        self.renew_at = now + life * 7 / 10;
        Ok(())
    }
}

/// Renews until `stop`, and tells each change and each new reason why there is none. The wall clock is read each time, so that a
/// suspended machine catches up at once.
pub(crate) fn renew<T: Fn(News) + Send>(
    authority: Arc<Authority>,
    registry: &Registry,
    tell: T,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<T> {
    let expiry = registry.gauge("weft_ca_not_after_seconds", "When a certificate of the CA ends, in Unix time.");
    let gauge = |name: &str| expiry.with(Shard::ADMIN, &Labels::new().with("certificate", name));
    let (root, issuer) = (gauge("root"), gauge("issuer"));
    let failures = registry
        .counter("weft_ca_renewal_failures_total", "Renewals of the CA that failed.")
        .with(Shard::ADMIN, &Labels::new());
    let interval = authority.origin.interval(&authority.lifetimes);
    async move {
        let (mut told, mut reminded) = (None, None);
        loop {
            let now = SystemTime::now();
            match authority.refresh(now) {
                Ok(changed) => {
                    told = None;
                    if changed {
                        tell(News::Renewed);
                    }
                }
                Err(error) => {
                    failures.inc();
                    let has_ended = now >= authority.ca().status().issuer_not_after;
                    let news = (has_ended, error);
                    if told.as_ref() != Some(&news) {
                        let (has_ended, why) = news.clone();
                        tracing::error!(
                            error = why,
                            has_ended,
                            "certificate authority not renewed; the present one stays"
                        );
                        tell(if has_ended { News::Invalid { why } } else { News::Kept { why } });
                        told = Some(news);
                    }
                }
            }
            let ca = authority.ca();
            let rests = reminded.is_some_and(|last| now < last + REMIND);
            if now >= ca.status().due && !rests {
                let left = |end: SystemTime| end.duration_since(now).unwrap_or_default();
                let Status { issuer_not_after, root_not_after, .. } = ca.status();
                tell(News::Due { issuer_left: left(*issuer_not_after), root_left: left(*root_not_after) });
                reminded = Some(now);
            }
            set(&root, ca.status().root_not_after);
            set(&issuer, ca.status().issuer_not_after);
            if stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_none() {
                return;
            }
        }
    }
}

fn set(gauge: &Gauge, time: SystemTime) {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(Duration::ZERO, |d| d).as_secs();
    gauge.set(i64::try_from(seconds).unwrap_or(i64::MAX));
}
