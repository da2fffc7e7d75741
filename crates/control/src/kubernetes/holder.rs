//! What one of several replicas does: whoever holds a lease.

use std::{future::Future, time::Duration};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Changes that come within this are written about together.
const TOGETHER: Duration = Duration::from_millis(50);

/// Who writes into the cluster. It takes no input: each time it looks at what there is.
pub(super) trait Writing {
    /// Writes what is to be written, as long as `holds` is true, and says how long to wait for a change: the timer is the retry.
    fn write(&mut self, holds: &watch::Receiver<bool>) -> impl Future<Output = Duration> + Send;
}

/// Writes until `stop`, once everything is known: what was not listed yet would be taken for missing.
pub(super) async fn write_while_held(
    mut writing: impl Writing,
    changed: &Notify,
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
            let _ = tokio::time::timeout(wait, changed.notified()).await;
            tokio::time::sleep(TOGETHER).await;
        }
    };
    stop.run_until_cancelled(run).await;
}
