//! The one place that says that the process ends: a signal, a request, or a test pulls it.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Ends the process when pulled. Cheap to clone.
#[derive(Clone)]
pub(super) struct Trigger(watch::Sender<bool>);

/// Waits for the trigger.
#[derive(Clone)]
pub(super) struct Pulled(watch::Receiver<bool>);

pub(super) fn channel() -> (Trigger, Pulled) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Pulled(receiver))
}

impl Trigger {
    pub(super) fn pull(&self, why: &str) {
        if !self.0.send_replace(true) {
            tracing::info!(why, "Ending: no new connections, open ones may finish");
        }
    }
}

impl Pulled {
    #[cfg(test)]
    pub(super) fn is_pulled(&self) -> bool {
        *self.0.borrow()
    }

    /// Nobody left who could pull it counts as pulled.
    pub(super) async fn wait(&mut self) {
        let _ = self.0.wait_for(|pulled| *pulled).await;
    }
}

/// Pulls the trigger on SIGTERM and SIGINT.
pub(super) async fn on_signals(trigger: Trigger) -> std::io::Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    // Both arms may be dropped: a signal that is not seen here is the second one.
    tokio::select! {
        _ = term.recv() => trigger.pull("SIGTERM"),
        _ = int.recv() => trigger.pull("SIGINT"),
    }
    Ok(())
}
