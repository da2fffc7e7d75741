//! How the admin thread reads what workers have recorded: it sends each a question and gathers the answers. What it refuses itself
//! it sends to the first one.

use super::{Query, Records, Refused, Told};
use parking_lot::Mutex;
use std::{
    cmp::Reverse,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for one worker; more are not asked.
const MAX_ASKS: usize = 8;
/// Refusals of the admin server that may wait to be recorded; more are not.
const MAX_REFUSED: usize = 64;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reaches every worker that has registered. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Readers(Arc<Mutex<Vec<Worker>>>);

struct Worker {
    asks: mpsc::Sender<Ask>,
    refused: mpsc::Sender<Refused>,
}

struct Ask {
    query: Query,
    answer: oneshot::Sender<Vec<Told>>,
}

/// What the workers had to say.
pub(crate) struct Found {
    /// The newest first.
    pub(crate) records: Vec<Told>,
    /// Workers that did not answer in time.
    pub(crate) missing: usize,
}

impl Readers {
    /// Answers questions about `records` on the thread of the worker with this number, as long as it lives. Called in its
    /// local set.
    pub(crate) fn register(&self, worker: usize, records: &Rc<Records>) {
        let (asks, mut asked) = mpsc::channel(MAX_ASKS);
        let (refused, mut to_keep) = mpsc::channel(MAX_REFUSED);
        self.0.lock().push(Worker { asks, refused });
        let (records, keeping) = (Rc::clone(records), Rc::clone(records));
        tokio::task::spawn_local(async move {
            while let Some(refused) = to_keep.recv().await {
                keeping.refused(refused);
            }
        });
        tokio::task::spawn_local(async move {
            while let Some(Ask { query, answer }) = asked.recv().await {
                // Who asked may have left.
                let _ = answer.send(records.find(&query, worker));
            }
        });
    }

    /// Has a refusal of the admin server recorded, if there is room.
    pub(crate) fn keep(&self, refused: Refused) {
        if let Some(worker) = self.0.lock().first() {
            let _ = worker.refused.try_send(refused);
        }
    }

    /// The newest records of all workers that `query` asks for.
    pub(crate) async fn find(&self, query: &Query) -> Found {
        let asked: Vec<_> = self.0.lock().iter().map(|worker| ask(&worker.asks, query.clone())).collect();
        let deadline = tokio::time::Instant::from_std(Instant::now() + PATIENCE);
        let (mut records, mut missing) = (vec![], 0);
        for answer in asked {
            match tokio::time::timeout_at(deadline, async { answer?.await.ok() }).await {
                Ok(Some(found)) => records.extend(found),
                _ => missing += 1,
            }
        }
        records.sort_by_key(|told: &Told| Reverse(told.began));
        records.truncate(query.limit);
        Found { records, missing }
    }
}

/// `None` if the worker has too many questions already.
fn ask(worker: &mpsc::Sender<Ask>, query: Query) -> Option<oneshot::Receiver<Vec<Told>>> {
    let (answer, answered) = oneshot::channel();
    worker.try_send(Ask { query, answer }).ok().map(|()| answered)
}
