//! A running proxy: watched until it ends, and how it ends.

use super::{
    shutdown::{Pulled, Trigger},
    start::Addrs,
    upgrade::Elder,
    workers::Shared,
};
use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use weft_telemetry::{Readiness, Registry};
use weft_transport::drain::{self, Drained};

/// How many asks for a sign of life in a row a worker may leave unanswered. Counted in asks, not in time: a process that was
/// stopped as a whole has missed none.
const UNANSWERED: u32 = 10;

/// How long threads may take to leave their loops when all is done.
const LEAVE: Duration = Duration::from_secs(1);

/// What the threads tell the one that waits.
pub(super) enum Event {
    WorkerDied(usize),
    AdminEnded(Option<io::Error>),
    Drained(Drained),
}

/// A fault for which the process must end.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error("worker {0} has died")]
    WorkerDied(usize),
    #[error("worker {worker} has not answered for {limit:?}")]
    WorkerHangs { worker: usize, limit: Duration },
    #[error("the admin server has ended: {0}")]
    AdminEnded(String),
    #[error("the admin thread has died")]
    AdminDied,
}

/// A running proxy. Dropping it ends it without waiting for open connections.
pub struct Handle {
    pub(super) addrs: Addrs,
    pub(super) trigger: Trigger,
    pub(super) readiness: Readiness,
    pub(super) registry: Registry,
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Receiver<Event>,
    /// How often workers are asked for a sign of life.
    pub(super) ask: Duration,
    /// The workers, and the admin thread last.
    pub(super) threads: Vec<JoinHandle<()>>,
}

impl Handle {
    /// Where it listens.
    pub fn addrs(&self) -> &Addrs {
        &self.addrs
    }

    /// Waits until it is certified and accepts connections.
    pub async fn ready(&self) {
        self.readiness.ready().await;
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.registry.encode()
    }

    /// Name, type and buckets of each family of metrics, also of those without series.
    pub fn metric_families(&self) -> Vec<(&'static str, &'static str, &'static [f64])> {
        self.registry.families()
    }

    /// Connections that are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open()
    }

    /// Begins to end: accepts nothing new; open connections may finish within the grace period.
    pub fn shutdown(&self) {
        self.trigger.pull("asked");
    }

    /// Watches the threads until the proxy has ended. Blocks.
    ///
    /// # Errors
    /// A thread has died or hangs: the process must end.
    pub fn wait(self) -> Result<Drained, ProcessError> {
        let drained = loop {
            match self.inbox.recv_timeout(self.ask) {
                Ok(Event::Drained(drained)) => break drained,
                Ok(Event::WorkerDied(worker)) => return Err(ProcessError::WorkerDied(worker)),
                Ok(Event::AdminEnded(error)) => {
                    let reason = error.map_or_else(|| "no reason".to_owned(), |e| e.to_string());
                    return Err(ProcessError::AdminEnded(reason));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ProcessError::AdminDied),
                Err(RecvTimeoutError::Timeout) => {
                    let (worker, unanswered) = self.shared.ask();
                    if unanswered >= u64::from(UNANSWERED) {
                        return Err(ProcessError::WorkerHangs { worker, limit: self.ask.saturating_mul(UNANSWERED) });
                    }
                    if self.threads.last().is_some_and(JoinHandle::is_finished) {
                        // It may have said just behind the wait that the drain is over.
                        match self.inbox.try_recv() {
                            Ok(Event::Drained(drained)) => break drained,
                            _ => return Err(ProcessError::AdminDied),
                        }
                    }
                }
            }
        };
        // The drain is over: threads leave their loops by themselves. One that hangs must not keep the process.
        let deadline = Instant::now() + LEAVE;
        while Instant::now() < deadline && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(drained)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.trigger.abandon();
    }
}

/// The main task of the admin thread: when the trigger is pulled it drains, and then the thread ends.
pub(super) struct Ending {
    pub(super) pulled: Pulled,
    pub(super) drain: drain::Signal,
    pub(super) shared: Arc<Shared>,
    pub(super) grace: Duration,
    /// How long open connections may stay after a hand-over.
    pub(super) stay: Duration,
    /// The process that this one has replaced, of which the next one hears through this one alone.
    pub(super) elder: Option<Arc<Elder>>,
}

impl Ending {
    pub(super) async fn run(self, events: Sender<Event>) {
        let Self { pulled, drain, shared, mut grace, stay, elder } = self;
        pulled.leaving().await;
        if !pulled.is_pulled() {
            drain.leave();
            let closed = async {
                shared.all_closed().await;
                if let Some(elder) = &elder {
                    elder.gone().await;
                }
            };
            // All that may be dropped here is waiting.
            tokio::select! {
                () = closed => {}
                () = pulled.wait() => {}
                () = tokio::time::sleep(stay) => grace = Duration::ZERO,
            }
        }
        // Whichever comes first: what is dropped here is only the waiting. Connections are counted by the workers, since
        // tasks that serve several of them may hold a watch for longer.
        let open = Cell::new(0);
        let note = || open.set(shared.open());
        let drained = tokio::select! {
            drained = drain.drain_noting(grace, note) => drained,
            () = shared.all_closed() => Drained::Done,
            () = pulled.abandoned() => {
                note();
                Drained::Deadline { remaining: open.get() }
            }
        };
        match drained {
            Drained::Done => tracing::info!("All connections are closed"),
            Drained::Deadline { .. } => {
                tracing::warn!(open = open.get(), "The grace period is over: open connections are cut off");
            }
        }
        // Nobody listens if the process ends for another reason.
        let _ = events.send(Event::Drained(drained));
    }
}
