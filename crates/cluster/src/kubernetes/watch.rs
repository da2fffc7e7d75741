//! One watch per kind: everything, then each change, then everything again wherever a change may have been missed.
//!
//! ```text
//! list (all pages) ─► what is there, what is gone ─► watch from the list's version ─► changes
//!   ▲                                                      │ ended, cut, silent: again from the last version seen
//!   └── expired (410), a change that cannot be read, or a version that is refused again and again ──┘
//! ```
//!
//! A list is handed on whole, so that nobody sees half of it. An object that cannot be read is quarantined: it alone counts as not
//! there, an earlier state of it included.

use super::{client, trim};
use crate::{Event, Key, Kind, Object};
use futures_util::{StreamExt, pin_mut};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, WatchEvent, WatchParams},
    core::DeserializeGuard,
};
use serde::de::DeserializeOwned;
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_telemetry::{Counter, Gauge, Labels, Registry, Shard};

/// Objects of one page of a list.
const PAGE: u32 = 500;
/// How long a page, or the beginning of a watch, may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the server keeps a watch, in seconds; it is asked for bookmarks, and sends one at the end. …
const WATCH: u32 = 50;
/// … A watch that says nothing for so long is dead, whatever TCP believes.
const SILENCE: Duration = Duration::from_secs(60);
/// A watch that ended earlier than this did no good.
const BRIEF: Duration = Duration::from_secs(1);
/// Watches that fail one after the other before the version that they begin at is doubted.
const DOUBT: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// Who takes in the events; those of one call belong together.
pub type Sink = Arc<dyn Fn(Vec<Event>) + Send + Sync>;

/// Watches `kinds` until `stop`. [`Event::Synced`] comes once, when each of them has been listed.
pub async fn watch(client: Client, kinds: &[Kind], registry: &Registry, sink: Sink, stop: CancellationToken) {
    let unlisted = Arc::new(AtomicUsize::new(kinds.len()));
    let mut tasks = tokio::task::JoinSet::new();
    for kind in kinds {
        let shared = Shared {
            kind: *kind,
            meters: Meters::new(registry, *kind),
            sink: sink.clone(),
            unlisted: unlisted.clone(),
        };
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(one(client, shared)).await });
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(client: Client, shared: Shared) {
    match shared.kind {
        Kind::Namespace => {
            let object = |mut o: Namespace| {
                o.metadata = trim::metadata(o.metadata);
                Object::Namespace(Box::new(o))
            };
            Watch::new(Api::all(client), shared, object).run().await;
        }
        Kind::Service => {
            let object = |mut o: Service| {
                o.metadata = trim::metadata(o.metadata);
                Object::Service(Box::new(o))
            };
            Watch::new(Api::all(client), shared, object).run().await;
        }
        Kind::EndpointSlice => {
            let object = |mut o: EndpointSlice| {
                o.metadata = trim::metadata(o.metadata);
                Object::EndpointSlice(Box::new(o))
            };
            Watch::new(Api::all(client), shared, object).run().await;
        }
        Kind::Node => {
            let object =
                |o: Node| Object::Node(Box::new(Node { metadata: trim::metadata(o.metadata), ..Node::default() }));
            Watch::new(Api::all(client), shared, object).run().await;
        }
        Kind::Pod => {
            Watch::new(Api::all(client), shared, |o: Pod| Object::Pod(Box::new(trim::pod(o)))).run().await;
        }
        // Nothing is answered from them.
        Kind::ServiceAccount | Kind::Deployment | Kind::Token => {}
    }
}

struct Shared {
    kind: Kind,
    meters: Meters,
    sink: Sink,
    /// Kinds that were never listed.
    unlisted: Arc<AtomicUsize>,
}

struct Watch<K> {
    api: Api<DeserializeGuard<K>>,
    shared: Shared,
    object: fn(K) -> Object,
    known: HashSet<Key>,
    /// What could not be read, and why.
    quarantined: HashMap<Key, String>,
    listed: bool,
    backoff: Duration,
    /// The server is known to be out of reach: that is told once.
    away: bool,
}

/// Why a list is needed.
enum Gap {
    /// The server has forgotten what came after the version.
    Expired,
    /// A change came that is none.
    Unreadable(String),
    /// The server refuses the version without saying why.
    Doubted,
}

impl Gap {
    fn explained(&self) -> String {
        match self {
            Self::Expired => "the server has forgotten what came after the last change seen".to_owned(),
            Self::Unreadable(error) => format!("a change cannot be read: {error}"),
            Self::Doubted => "the server refuses again and again to go on from the last change seen".to_owned(),
        }
    }
}

/// Why one watch ended.
enum Ended {
    Resume,
    Failed(String),
    Gap(Gap),
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    fn new(api: Api<DeserializeGuard<K>>, shared: Shared, object: fn(K) -> Object) -> Self {
        Self {
            api,
            shared,
            object,
            known: HashSet::new(),
            quarantined: HashMap::new(),
            listed: false,
            backoff: BACKOFF,
            away: false,
        }
    }

    async fn run(mut self) {
        loop {
            match self.list().await {
                Ok(version) => {
                    let since = Instant::now();
                    let gap = self.follow(version).await;
                    tracing::info!(kind = self.shared.kind.as_str(), why = gap.explained(), "listing anew");
                    if since.elapsed() < BRIEF {
                        self.pause().await;
                    }
                }
                Err(reason) => self.failed(&reason).await,
            }
        }
    }

    /// Takes in everything and returns the version of the list.
    async fn list(&mut self) -> Result<String, String> {
        self.shared.meters.lists.inc();
        let (mut events, mut listed) = (vec![], HashSet::new());
        let mut quarantined = HashMap::new();
        let mut page = ListParams::default().limit(PAGE);
        let version = loop {
            let list = match timeout(ANSWER, self.api.list(&page)).await {
                Ok(list) => list.map_err(|e| client::reason(&e))?,
                Err(_) => return Err(format!("a list was not answered within {ANSWER:?}")),
            };
            for DeserializeGuard(object) in list.items {
                match object {
                    Ok(object) => {
                        let object = (self.object)(object);
                        listed.insert(object.key());
                        events.push(Event::Apply(object));
                    }
                    Err(invalid) => drop(quarantined.insert(self.key(&invalid.metadata), invalid.error)),
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break list.metadata.resource_version.unwrap_or_default(),
            }
        };
        if version.is_empty() {
            return Err("a list has no version".to_owned());
        }
        for (key, reason) in &quarantined {
            if self.quarantined.get(key) != Some(reason) {
                self.tell_quarantine(key, reason);
            }
        }
        events.extend(self.known.difference(&listed).cloned().map(Event::Delete));
        (self.known, self.quarantined) = (listed, quarantined);
        if !std::mem::replace(&mut self.listed, true) && self.shared.unlisted.fetch_sub(1, Relaxed) == 1 {
            events.push(Event::Synced);
        }
        self.well();
        self.take_in(events);
        Ok(version)
    }

    /// Takes in changes from `version` on, until some may have been missed.
    async fn follow(&mut self, mut version: String) -> Gap {
        let mut failures = 0;
        loop {
            let (began, from) = (Instant::now(), version.clone());
            match self.changes(&mut version).await {
                Ended::Gap(gap) => return gap,
                Ended::Resume if version != from || began.elapsed() >= BRIEF => failures = 0,
                Ended::Resume => {
                    failures += 1;
                    self.pause().await;
                }
                Ended::Failed(reason) => {
                    failures = if version == from { failures + 1 } else { 1 };
                    self.failed(&reason).await;
                }
            }
            if failures >= DOUBT {
                return Gap::Doubted;
            }
        }
    }

    /// One watch.
    async fn changes(&mut self, version: &mut String) -> Ended {
        let params = WatchParams { timeout: Some(WATCH), bookmarks: true, ..WatchParams::default() };
        let stream = match timeout(ANSWER, self.api.watch(&params, version)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return ended(error),
            Err(_) => return Ended::Failed(format!("a watch was not answered within {ANSWER:?}")),
        };
        pin_mut!(stream);
        self.contact();
        loop {
            let event = match timeout(SILENCE, stream.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return ended(error),
                Ok(None) => return Ended::Resume,
                Err(_) => return Ended::Failed(format!("the watch said nothing for {SILENCE:?}")),
            };
            self.well();
            let (guard, applied) = match event {
                WatchEvent::Added(guard) | WatchEvent::Modified(guard) => (guard, true),
                WatchEvent::Deleted(guard) => (guard, false),
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return ended(kube::Error::Api(status)),
            };
            let Some(newer) = guard.meta().resource_version.clone().filter(|v| !v.is_empty()) else {
                return Ended::Gap(Gap::Unreadable("it has no version".to_owned()));
            };
            let event = if applied { self.applied(guard) } else { Some(self.gone(guard.meta())) };
            self.take_in(event.into_iter().collect());
            *version = newer;
        }
    }

    fn applied(&mut self, DeserializeGuard(object): DeserializeGuard<K>) -> Option<Event> {
        match object {
            Ok(object) => {
                let object = (self.object)(object);
                let key = object.key();
                self.quarantined.remove(&key);
                self.known.insert(key);
                Some(Event::Apply(object))
            }
            Err(invalid) => {
                let key = self.key(&invalid.metadata);
                self.tell_quarantine(&key, &invalid.error);
                self.quarantined.insert(key.clone(), invalid.error);
                self.known.remove(&key).then_some(Event::Delete(key))
            }
        }
    }

    fn gone(&mut self, metadata: &ObjectMeta) -> Event {
        let key = self.key(metadata);
        self.quarantined.remove(&key);
        self.known.remove(&key);
        Event::Delete(key)
    }

    fn key(&self, metadata: &ObjectMeta) -> Key {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let namespace = if self.shared.kind.is_namespaced() { text(&metadata.namespace) } else { String::new() };
        Key::new(self.shared.kind, namespace, text(&metadata.name))
    }

    fn take_in(&self, events: Vec<Event>) {
        let meters = &self.shared.meters;
        meters.events.add(events.len().try_into().unwrap_or(u64::MAX));
        meters.objects.set(self.known.len().try_into().unwrap_or(i64::MAX));
        meters.quarantined.set(self.quarantined.len().try_into().unwrap_or(i64::MAX));
        if !events.is_empty() {
            (self.shared.sink)(events);
        }
    }

    fn tell_quarantine(&self, key: &Key, reason: &str) {
        tracing::warn!(object = %key, reason, "object cannot be read and has no effect");
    }

    /// The server answers.
    fn well(&mut self) {
        self.backoff = BACKOFF;
        if std::mem::take(&mut self.away) {
            tracing::info!(kind = self.shared.kind.as_str(), "API server answers again");
        }
        self.contact();
    }

    fn contact(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.shared.meters.contact.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    async fn failed(&mut self, reason: &str) {
        self.shared.meters.failures.inc();
        let kind = self.shared.kind.as_str();
        if std::mem::replace(&mut self.away, true) {
            tracing::debug!(kind, reason, "watch failed");
        } else {
            tracing::warn!(kind, reason, "watch failed; what is known stays");
        }
        self.pause().await;
    }

    /// Waits longer each time until the server answers. Replicas do not come back at the same moment.
    async fn pause(&mut self) {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let jitter = self.backoff * (nanos % 1000) / 2000;
        tokio::time::sleep(self.backoff / 2 + jitter).await;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
    }
}

fn ended(error: kube::Error) -> Ended {
    match error {
        // In the answer or in the stream, as a code or as a reason: servers do all of it.
        kube::Error::Api(status) if status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") => {
            Ended::Gap(Gap::Expired)
        }
        kube::Error::SerdeError(error) => Ended::Gap(Gap::Unreadable(error.to_string())),
        other => Ended::Failed(client::reason(&other)),
    }
}

struct Meters {
    objects: Gauge,
    quarantined: Gauge,
    contact: Gauge,
    events: Counter,
    lists: Counter,
    failures: Counter,
}

impl Meters {
    fn new(registry: &Registry, kind: Kind) -> Self {
        let labels = Labels::new().with("kind", kind.as_str());
        let gauge = |name, help| registry.gauge(name, help).with(Shard::ADMIN, &labels);
        let counter = |name, help| registry.counter(name, help).with(Shard::ADMIN, &labels);
        Self {
            objects: gauge("weft_kubernetes_objects", "Objects that are known."),
            quarantined: gauge("weft_kubernetes_quarantined", "Objects that cannot be read and have no effect."),
            contact: gauge("weft_kubernetes_last_contact_seconds", "When the watch was last heard of, in Unix time."),
            events: counter("weft_kubernetes_events_total", "Changes taken in."),
            lists: counter("weft_kubernetes_lists_total", "Lists asked for: the first, and one after each gap."),
            failures: counter("weft_kubernetes_failures_total", "Lists and watches that failed."),
        }
    }
}
