//! The one place that says that the process ends: a signal, a request, or a test pulls it.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// How far the end has come. It only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Another process takes what is new; what is open stays here in its own time.
    Leaving,
    /// Open connections may finish.
    Draining,
    /// They may not.
    Abandoned,
}

/// Ends the process when pulled. Cheap to clone.
#[derive(Clone)]
pub(super) struct Trigger(watch::Sender<Phase>);

/// Waits for the trigger.
#[derive(Clone)]
pub(super) struct Pulled(watch::Receiver<Phase>);

pub(super) fn channel() -> (Trigger, Pulled) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (Trigger(sender), Pulled(receiver))
}

impl Trigger {
    /// Begins to end.
    pub(super) fn pull(&self, why: &str) {
        if self.advance(Phase::Draining) {
            tracing::info!(why, "Ending: no new connections, open ones may finish");
        }
    }

    /// Takes nothing new any more.
    pub(super) fn leave(&self) {
        self.advance(Phase::Leaving);
    }

    /// Ends without waiting for anybody.
    pub(super) fn abandon(&self) {
        self.advance(Phase::Abandoned);
    }

    fn advance(&self, to: Phase) -> bool {
        self.0.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        })
    }
}

impl Pulled {
    pub(super) fn is_pulled(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Waits until nothing new shall be taken. Cancel-safe.
    pub(super) async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Waits until the process shall end. Cancel-safe.
    pub(super) async fn wait(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until it shall end at once. Cancel-safe.
    pub(super) async fn abandoned(&self) {
        self.reached(Phase::Abandoned).await;
    }

    /// Nobody left who could pull it counts as pulled.
    async fn reached(&self, phase: Phase) {
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
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
