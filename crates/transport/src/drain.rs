//! An orderly end: whoever holds a [`Watch`] counts as work in progress, dropping it means done, a deadline ends the wait.
//!
//! Last in the life of a connection. It must not know what the work is.

use crate::lifetime::Life;
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicU8,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};
use tokio::sync::watch;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Another process takes what is new; every connection may finish in its own time.
    Leaving,
    Draining,
    /// The deadline has passed: what remains is cut off.
    Closing,
}

/// Starts the end and waits for it.
#[derive(Debug)]
pub struct Signal {
    phase: watch::Sender<Phase>,
    shared: Arc<Shared>,
}

/// Held by each piece of work; clone it for each connection.
#[derive(Clone, Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    /// A connection may have an end of its own.
    life: Option<Life>,
    shared: Arc<Shared>,
}

/// Shared by the watches, to count them: receivers are more, since one that waits makes another.
#[derive(Debug)]
struct Shared {
    /// The same phase, for who only looks, as each request does on every worker: a look at the other one takes a lock. It is
    /// never behind that one.
    seen: AtomicU8,
}

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
    let shared = Arc::new(Shared { seen: AtomicU8::new(Phase::Serving as u8) });
    let signal = Signal { phase: watch::Sender::new(Phase::Serving), shared };
    let watch = signal.watch();
    (signal, watch)
}

impl Signal {
    /// A watch for another piece of work.
    pub fn watch(&self) -> Watch {
        Watch { phase: self.phase.subscribe(), life: None, shared: self.shared.clone() }
    }

    /// How many watches are held.
    pub fn remaining(&self) -> usize {
        Arc::strong_count(&self.shared) - 1
    }

    /// Tells every watch that nothing new comes here: connections take one more request, and then end in order.
    pub fn leave(&self) {
        self.advance(Phase::Leaving);
    }

    /// Tells every watch to finish and waits until all are dropped, at most `deadline`; those that remain then
    /// see [`Watch::closing`].
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.drain_noting(deadline, || {}).await
    }

    /// The same; `late` is called at the deadline, before anybody sees it.
    pub async fn drain_noting(self, deadline: Duration, late: impl FnOnce()) -> Drained {
        self.advance(Phase::Draining);
        match tokio::time::timeout(deadline, self.phase.closed()).await {
            Ok(()) => Drained::Done,
            Err(_) => {
                let remaining = self.remaining();
                late();
                self.advance(Phase::Closing);
                if remaining == 0 { Drained::Done } else { Drained::Deadline { remaining } }
            }
        }
    }

    /// Never back.
    fn advance(&self, to: Phase) {
        // First, so that who was woken and then looks sees it.
        self.shared.seen.fetch_max(to as u8, Release);
        self.phase.send_if_modified(|phase| {
            let forward = *phase < to;
            if forward {
                *phase = to;
            }
            forward
        });
    }
}

impl Watch {
    /// A watch for a connection that also ends with its own life.
    #[must_use]
    pub fn with(&self, life: Option<Life>) -> Self {
        Self { life, ..self.clone() }
    }

    /// Resolves when the process takes nothing new any more. Cancel-safe.
    pub async fn leaving(&self) {
        self.reached(Phase::Leaving).await;
    }

    /// Resolves as [`Watch::leaving`] does, or when the connection's own life is ending: tell the peer that it shall take
    /// another connection for what is new. Cancel-safe.
    pub async fn ending(&self) {
        match &self.life {
            None => self.leaving().await,
            Some(life) => tokio::select! {
                () = self.leaving() => {}
                () = life.ending() => {}
            },
        }
    }

    /// Resolves when work shall finish: accept nothing new, end keep-alive, let what runs come to its end. Cancel-safe.
    pub async fn signaled(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when the deadline has passed, or when nobody waits any more: stop at once. Cancel-safe.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Whether what runs is the last that the connection takes: after the signal, or because its own life is ending.
    pub fn is_signaled(&self) -> bool {
        self.life.as_ref().is_some_and(Life::is_ending) || self.has_reached(Phase::Leaving)
    }

    /// Whether the process is ending: who waits for something new does not any more.
    pub fn is_draining(&self) -> bool {
        self.has_reached(Phase::Draining)
    }

    /// Whether the deadline has passed: who stops now has not come to its end.
    pub fn is_closing(&self) -> bool {
        self.has_reached(Phase::Closing)
    }

    /// Takes no lock.
    fn has_reached(&self, phase: Phase) -> bool {
        self.shared.seen.load(Acquire) >= phase as u8
    }

    async fn reached(&self, phase: Phase) {
        // A clone, so that waiting needs no `&mut`; it ends with the future and never outlives `self`.
        // An error means that the signal is gone: the process has stopped waiting, which is the last phase.
        let _ = self.phase.clone().wait_for(|now| *now >= phase).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_ends_in_time() {
        let (signal, watch) = channel();
        let work = watch.clone();
        assert!(!work.is_signaled());
        let work = async move {
            work.signaled().await;
            assert!(work.is_signaled());
            tokio::time::sleep(Duration::from_secs(3)).await;
        };
        drop(watch);
        let began = tokio::time::Instant::now();
        let (drained, ()) = tokio::join!(signal.drain(Duration::from_secs(10)), work);
        assert_eq!((drained, began.elapsed()), (Drained::Done, Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_is_cut_off() {
        let (signal, watch) = channel();
        let (one, two) = (watch.clone(), signal.watch());
        drop(watch);
        assert_eq!(signal.remaining(), 2);
        assert!(!one.is_closing());
        let work = async move {
            one.closing().await;
            drop(one);
        };
        let (drained, ()) = tokio::join!(signal.drain(Duration::from_secs(10)), work);
        assert_eq!(drained, Drained::Deadline { remaining: 2 });
        assert!(two.is_closing());
        // The signal is gone: what is left must not wait for ever.
        two.closing().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_remains_is_noted_before_it_is_cut_off() {
        let (signal, watch) = channel();
        let mut noted = None;
        signal.drain_noting(Duration::from_secs(1), || noted = Some(watch.is_closing())).await;
        assert_eq!((noted, watch.is_closing()), (Some(false), true));
    }

    /// The lock of those who wait is held meanwhile.
    #[test]
    fn who_only_looks_takes_no_lock() {
        let (signal, watch) = channel();
        let (tell, told) = std::sync::mpsc::channel();
        signal.phase.send_if_modified(|_| {
            std::thread::spawn(move || tell.send([watch.is_signaled(), watch.is_draining(), watch.is_closing()]));
            assert_eq!(told.recv_timeout(Duration::from_secs(60)), Ok([false; 3]));
            false
        });
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_told_sees_it_too() {
        let (signal, watch) = channel();
        let seen = || [watch.is_signaled(), watch.is_draining(), watch.is_closing()];
        signal.leave();
        watch.leaving().await;
        assert_eq!(seen(), [true, false, false]);
        let phases = async {
            watch.signaled().await;
            assert_eq!(seen(), [true, true, false]);
            watch.closing().await;
            assert_eq!(seen(), [true; 3]);
        };
        tokio::join!(signal.drain(Duration::from_secs(1)), phases);
    }

    #[tokio::test]
    async fn nothing_to_wait_for() {
        let (signal, watch) = channel();
        drop(watch);
        assert_eq!(signal.drain(Duration::from_secs(3600)).await, Drained::Done);
        let (signal, watch) = channel();
        drop(signal);
        watch.signaled().await;
    }
}
