//! An orderly end: whoever holds a [`Watch`] counts as work in progress, dropping it means done, a deadline ends the wait.
//!
//! Last in the life of a connection. It must not know what the work is.

use std::time::Duration;
use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    /// The deadline has passed: what remains is cut off.
    Closing,
}

/// Starts the end and waits for it.
#[derive(Debug)]
pub struct Signal(watch::Sender<Phase>);

/// Held by each piece of work; clone it for each connection.
#[derive(Clone, Debug)]
pub struct Watch(watch::Receiver<Phase>);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All work was done in time.
    Done,
    /// The deadline came first, with this many watches still held.
    Deadline { remaining: usize },
}

/// The two ends. The returned [`Watch`] counts too: drop it once nothing new is to be started.
pub fn channel() -> (Signal, Watch) {
    let (sender, receiver) = watch::channel(Phase::Serving);
    (Signal(sender), Watch(receiver))
}

impl Signal {
    /// A watch for another piece of work.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// How many watches are held.
    pub fn remaining(&self) -> usize {
        self.0.receiver_count()
    }

    /// Tells every watch to finish and waits until all are dropped, at most `deadline`; those that remain then
    /// see [`Watch::closing`].
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.0.send_replace(Phase::Draining);
        match tokio::time::timeout(deadline, self.0.closed()).await {
            Ok(()) => Drained::Done,
            Err(_) => {
                let remaining = self.0.receiver_count();
                self.0.send_replace(Phase::Closing);
                if remaining == 0 { Drained::Done } else { Drained::Deadline { remaining } }
            }
        }
    }
}

impl Watch {
    /// Resolves when work shall finish: accept nothing new, end keep-alive, let what runs come to its end. Cancel-safe.
    pub async fn signaled(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when the deadline has passed, or when nobody waits any more: stop at once. Cancel-safe.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    pub fn is_signaled(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    async fn reached(&self, phase: Phase) {
        // A clone, so that waiting needs no `&mut`; it ends with the future and never outlives `self`.
        // An error means that the signal is gone: the process has stopped waiting, which is the last phase.
        let _ = self.0.clone().wait_for(|now| *now >= phase).await;
    }
}
