//! The index, and one snapshot per question, shared by all streams that ask it, with what is said of it to them.
//!
//! A stream holds only its place: a snapshot that was superseded before the stream came to it is never sent, and a reader that
//! does not read holds up nobody. Who lags behind for long is cut off: it connects again and begins with the newest.

use crate::steps::Steps;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use weft_cluster::{
    Event, Index, Token,
    index::{Question, Refusal, Settings, Subject, Versioned},
};
use weft_telemetry::{Counter, Gauge, Labels, Registry, Shard};

/// How long a call waits for the first list of objects.
const SYNC_WAIT: Duration = Duration::from_secs(2);
/// Questions asked at one moment, by all proxies together.
const MAX_QUESTIONS: usize = 100_000;
/// Of these, asked first by one identity: what it asks for it may invent, and others have questions, too.
const MAX_OF_ONE: usize = MAX_QUESTIONS / 2;
/// How long a stream may lag behind, …
const MAX_LAG: Duration = Duration::from_secs(30);
/// … and how often that is looked at.
const SWEEP: Duration = Duration::from_secs(5);

pub(crate) struct Hub {
    state: Mutex<State>,
    synced: watch::Sender<bool>,
    /// Told when a node is in another zone.
    zones: watch::Sender<()>,
    stop: CancellationToken,
    metrics: Metrics,
}

/// Who asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker {
    /// `None` for the pod's own processes.
    pub(crate) identity: Option<String>,
    /// Ends the connection at once.
    pub(crate) connection: CancellationToken,
}

struct State {
    index: Index,
    topics: HashMap<Arc<Question>, Topic>,
    /// Of those who asked first for what is followed.
    askers: HashMap<String, usize>,
    /// Which questions an event may touch.
    by_subject: HashMap<Subject, HashSet<Arc<Question>>>,
}

/// An answer, and the messages that were made of it.
pub(crate) struct Snapshot {
    pub(crate) versioned: Versioned,
    pub(crate) steps: Steps,
}

struct Topic {
    question: Arc<Question>,
    newest: watch::Sender<Arc<Snapshot>>,
    subjects: Vec<Subject>,
    places: Vec<Weak<Place>>,
    /// Who asked first.
    asker: Option<String>,
    /// Subscriptions that are not dropped yet; without any the question is forgotten.
    readers: usize,
}

/// How far a stream has come.
struct Place {
    /// The version that it took last.
    taken: AtomicU64,
    /// Since when the sweep sees it behind.
    behind_since: Mutex<Option<Instant>>,
    connection: CancellationToken,
}

struct Metrics {
    events: Counter,
    published: Counter,
    questions: Gauge,
    cut: Counter,
}

/// A stream's place. Dropping the last one of a question forgets the question.
pub(crate) struct Subscription {
    newest: watch::Receiver<Arc<Snapshot>>,
    question: Arc<Question>,
    hub: Arc<Hub>,
    place: Arc<Place>,
    first: bool,
}

impl Hub {
    pub(crate) fn new(settings: Settings, registry: &Registry, stop: CancellationToken) -> Self {
        let none = Labels::new();
        let metrics = Metrics {
            events: registry.counter("weft_control_events_total", "Events taken in.").with(Shard::ADMIN, &none),
            published: registry
                .counter("weft_control_snapshots_total", "Answers that changed and were published.")
                .with(Shard::ADMIN, &none),
            questions: registry
                .gauge("weft_control_questions", "Different questions that streams ask now.")
                .with(Shard::ADMIN, &none),
            cut: registry
                .counter("weft_control_streams_cut_total", "Streams cut off because they were not read.")
                .with(Shard::ADMIN, &none),
        };
        Self {
            state: Mutex::new(State {
                index: Index::new(settings),
                topics: HashMap::new(),
                askers: HashMap::new(),
                by_subject: HashMap::new(),
            }),
            synced: watch::Sender::new(false),
            zones: watch::Sender::new(()),
            stop,
            metrics,
        }
    }

    /// Takes in what belongs together: nobody sees a part of it.
    pub(crate) fn apply(&self, events: impl IntoIterator<Item = Event>) {
        let mut synced = false;
        let mut changed: HashSet<Subject> = HashSet::new();
        let mut state = self.state.lock();
        for event in events {
            self.metrics.events.inc();
            synced |= event == Event::Synced;
            changed.extend(state.index.apply(event));
        }
        let State { index, topics, by_subject, .. } = &*state;
        let touched: HashSet<&Arc<Question>> = changed.iter().filter_map(|s| by_subject.get(s)).flatten().collect();
        let mut touched: Vec<_> = touched.into_iter().collect();
        // What leads to endpoints comes before them: who takes a route away with its Service leaves nobody on the way to nowhere.
        touched.sort_by_key(|question| matches!(***question, Question::Destination(_)));
        for question in touched {
            let Some(topic) = topics.get(question) else { continue };
            let answer = index.answer(question);
            let published = topic.newest.send_if_modified(|newest| {
                let differs = newest.versioned.version != answer.version;
                if differs {
                    *newest = Snapshot::new(answer);
                }
                differs
            });
            if published {
                self.metrics.published.inc();
            }
        }
        drop(state);
        if changed.contains(&Subject::Zones) {
            self.zones.send_replace(());
        }
        if synced {
            self.synced.send_replace(true);
        }
    }

    /// Where a client on `node` is.
    pub(crate) fn place(&self, node: &str) -> weft_cluster::index::Place {
        self.state.lock().index.place(node)
    }

    /// Follows where nodes are.
    pub(crate) fn zones(&self) -> watch::Receiver<()> {
        self.zones.subscribe()
    }

    /// Begins to follow the answer to `question`. The asker's connection is cancelled if the stream is not read.
    ///
    /// # Errors
    /// The objects are not known yet, or there are too many questions, by all or by this asker.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        question: Question,
        Asker { identity, connection }: Asker,
    ) -> Result<Subscription, Status> {
        self.synced().await?;
        let mut state = self.state.lock();
        let State { index, topics, by_subject, askers } = &mut *state;
        if !topics.contains_key(&question) {
            if topics.len() >= MAX_QUESTIONS {
                return Err(Status::resource_exhausted("the control plane is asked too many different questions"));
            }
            if let Some(identity) = &identity {
                let asked = askers.entry(identity.clone()).or_default();
                if *asked >= MAX_OF_ONE {
                    let message = format!("{identity} asks the control plane too many different questions");
                    return Err(Status::resource_exhausted(message));
                }
                *asked += 1;
            }
            let subjects = index.subjects(&question);
            let question = Arc::new(question.clone());
            for subject in &subjects {
                by_subject.entry(subject.clone()).or_default().insert(question.clone());
            }
            let newest = watch::Sender::new(Snapshot::new(index.answer(&question)));
            let topic = Topic { question, newest, subjects, places: vec![], asker: identity, readers: 0 };
            topics.insert(topic.question.clone(), topic);
            self.metrics.questions.inc();
        }
        let Some(topic) = topics.get_mut(&question) else { return Err(Status::internal("the question was lost")) };
        let taken = AtomicU64::new(topic.newest.borrow().versioned.version);
        let place = Arc::new(Place { taken, behind_since: Mutex::new(None), connection });
        topic.places.push(Arc::downgrade(&place));
        topic.readers += 1;
        let (newest, question) = (topic.newest.subscribe(), topic.question.clone());
        Ok(Subscription { newest, question, hub: self.clone(), place, first: true })
    }

    /// Waits for the first list of objects: before it, "there is none" would be a guess.
    async fn synced(&self) -> Result<(), Status> {
        let mut synced = self.synced.subscribe();
        match tokio::time::timeout(SYNC_WAIT, synced.wait_for(|s| *s)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable("the control plane does not know the cluster yet")),
        }
    }

    /// Who holds the token with this SHA-256.
    ///
    /// # Errors
    /// The objects are not known yet.
    pub(crate) async fn token(&self, sha256: &str) -> Result<Option<Token>, Status> {
        self.synced().await?;
        Ok(self.state.lock().index.token(sha256).cloned())
    }

    /// Sweeps until the end.
    pub(crate) async fn watch_readers(self: Arc<Self>) {
        while self.stop.run_until_cancelled(tokio::time::sleep(SWEEP)).await.is_some() {
            self.sweep(Instant::now());
        }
    }

    /// Cuts off who has been behind since long before `now`.
    fn sweep(&self, now: Instant) {
        let mut state = self.state.lock();
        for (question, topic) in &mut state.topics {
            let newest = topic.newest.borrow().versioned.version;
            topic.places.retain(|place| {
                let Some(place) = place.upgrade() else { return false };
                let mut behind = place.behind_since.lock();
                if place.taken.load(Relaxed) == newest {
                    *behind = None;
                } else if now.saturating_duration_since(*behind.get_or_insert(now)) >= MAX_LAG {
                    tracing::warn!(?question, "stream is not read; its connection is cut off");
                    self.metrics.cut.inc();
                    place.connection.cancel();
                    return false;
                }
                true
            });
        }
    }

    /// One stream asks `question` no more.
    fn leave(&self, question: &Question) {
        let mut state = self.state.lock();
        let State { topics, by_subject, askers, .. } = &mut *state;
        if let Some(topic) = topics.get_mut(question) {
            topic.readers -= 1;
            if topic.readers > 0 {
                return;
            }
        }
        let Some(topic) = topics.remove(question) else { return };
        self.metrics.questions.dec();
        if let Some(Entry::Occupied(mut asked)) = topic.asker.map(|asker| askers.entry(asker)) {
            *asked.get_mut() -= 1;
            if *asked.get() == 0 {
                asked.remove();
            }
        }
        for subject in &topic.subjects {
            if let Some(questions) = by_subject.get_mut(subject) {
                questions.remove(question);
                if questions.is_empty() {
                    by_subject.remove(subject);
                }
            }
        }
    }
}

impl Snapshot {
    fn new(versioned: Versioned) -> Arc<Self> {
        Arc::new(Self { versioned, steps: Steps::default() })
    }
}

impl Subscription {
    /// The answer as it is now, and from then on each newer one. `None` when the control plane ends.
    pub(crate) async fn next(&mut self) -> Option<Arc<Snapshot>> {
        if !std::mem::take(&mut self.first) {
            let changed = self.hub.stop.run_until_cancelled(self.newest.changed()).await;
            changed?.ok()?;
        }
        let newest = self.newest.borrow_and_update().clone();
        self.place.taken.store(newest.versioned.version, Relaxed);
        *self.place.behind_since.lock() = None;
        Some(newest)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.leave(&self.question);
    }
}

/// What a refusal is in gRPC.
pub(crate) fn status(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::NotFound(text) => Status::not_found(text),
        Refusal::Invalid(text) => Status::invalid_argument(text),
        Refusal::Ambiguous(text) | Refusal::NotCarriedOut(text) => Status::failed_precondition(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_cluster::index::Target;
    use weft_cluster::{Object, k8s};

    fn asker(connection: &CancellationToken) -> Asker {
        Asker { identity: None, connection: connection.clone() }
    }

    #[tokio::test]
    async fn nobody_asks_for_all_of_it() {
        let hub = Arc::new(Hub::new(Settings::default(), &Registry::new(0, 100), CancellationToken::new()));
        hub.apply([Event::Synced]);
        let asks = async |who: &str, n: usize| {
            let target = Target::Addr("10.0.0.1:80".parse().unwrap());
            let question = Question::Profile { from: n.to_string(), target };
            hub.subscribe(question, Asker { identity: Some(who.to_owned()), ..Asker::default() }).await
        };
        let mut asked = vec![];
        for n in 0..MAX_OF_ONE {
            asked.push(asks("one", n).await.unwrap());
        }
        assert!(asks("one", MAX_OF_ONE).await.err().unwrap().message().starts_with("one asks"));
        assert!(asks("one", 0).await.is_ok(), "what is followed already costs nothing");
        let other = asks("other", MAX_OF_ONE).await.unwrap();
        assert!(asks("one", MAX_OF_ONE).await.is_ok(), "somebody else's question");
        asked.pop();
        asked.push(asks("one", MAX_OF_ONE + 1).await.unwrap());
        drop((asked, other));
        let state = hub.state.lock();
        assert!(state.topics.is_empty() && state.askers.is_empty());
    }

    /// Also when the last ones go at the same moment.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_nobody_asks_is_forgotten() {
        let hub = Arc::new(Hub::new(Settings::default(), &Registry::new(0, 100), CancellationToken::new()));
        hub.apply([Event::Synced]);
        let question = Question::Profile { from: String::new(), target: Target::Addr("10.0.0.1:80".parse().unwrap()) };
        for _ in 0..1_000 {
            let one = hub.subscribe(question.clone(), Asker::default()).await.unwrap();
            let other = hub.subscribe(question.clone(), Asker::default()).await.unwrap();
            let gone = tokio::spawn(async move { drop(one) });
            drop(other);
            gone.await.unwrap();
            let state = hub.state.lock();
            assert!(state.topics.is_empty() && state.by_subject.is_empty());
        }
    }

    #[tokio::test]
    async fn who_does_not_read_is_cut_off() {
        let hub = Arc::new(Hub::new(Settings::default(), &Registry::new(0, 100), CancellationToken::new()));
        hub.apply([Event::Synced]);
        let target = Target::Addr("10.0.0.1:80".parse().unwrap());
        let question = Question::Profile { from: String::new(), target };
        let (reads, sleeps) = (CancellationToken::new(), CancellationToken::new());
        let mut reader = hub.subscribe(question.clone(), asker(&reads)).await.unwrap();
        let mut sleeper = hub.subscribe(question, asker(&sleeps)).await.unwrap();
        for stream in [&mut reader, &mut sleeper] {
            stream.next().await.unwrap();
        }
        let start = Instant::now();
        hub.sweep(start);
        let service: k8s::api::core::v1::Service = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
            "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]},
        }))
        .unwrap();
        hub.apply([Event::Apply(Object::Service(Box::new(service)))]);
        hub.sweep(start);
        reader.next().await.unwrap();
        hub.sweep(start + MAX_LAG - Duration::from_millis(1));
        assert!(!reads.is_cancelled() && !sleeps.is_cancelled());
        hub.sweep(start + MAX_LAG);
        assert!(!reads.is_cancelled() && sleeps.is_cancelled());
    }
}
