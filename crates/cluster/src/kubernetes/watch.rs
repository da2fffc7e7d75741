//! One watch per kind: everything, then each change, then everything again wherever a change may have been missed.
//!
//! ```text
//! list (all pages) ─► what is there, what is gone ─► watch from the list's version ─► changes
//!   ▲                                                      │ ended, cut, silent: again from the last version seen
//!   └── expired (410), a change that cannot be read, or a version that is refused again and again ──┘
//! ```
//!
//! A list is handed on whole, so that nobody sees half of it, and what belongs to what another watch says waits for that one
//! ([`together`]). The first one goes on page by page: nobody is answered before its end, and all of it at once takes several times the
//! room of what the index keeps. An object that cannot be read is quarantined: it alone counts as not there, an earlier state of it
//! included.
//!
//! The mesh's own kinds are defined by somebody, later perhaps, or in other versions: a list takes the newest version that is served.
//! A kind that is not defined has no objects, and is looked for again. One that may be listed and not watched is listed from time to time.
//!
//! [`together`]: super::together

use super::{client, together::Together, trim};
use crate::{Event, Key, Kind, Object, Refused, index::Gateway, policy};
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
    core::{ApiResource, DeserializeGuard, DynamicObject, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};
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
/// A watch that ended earlier than this did no good. One that is as old has said what had happened before it began.
const BRIEF: Duration = Duration::from_secs(1);
/// How often a kind that is not defined is looked for.
const UNDEFINED: Duration = Duration::from_secs(5);
/// Watches that fail one after the other before the version that they begin at is doubted.
const DOUBT: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(200);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// Of a watch that is refused while lists are not: somebody has to allow it first.
const MAX_REFUSED: Duration = Duration::from_secs(60);

/// Who takes in the events; those of one call belong together.
pub type Sink = Arc<dyn Fn(Vec<Event>) + Send + Sync>;

/// Watches `kinds` until `stop`. [`Event::Synced`] comes once, when each of them has been listed.
pub async fn watch(client: Client, kinds: &[Kind], registry: &Registry, sink: Sink, stop: CancellationToken) {
    let unlisted = Arc::new(AtomicUsize::new(kinds.len()));
    let together = Arc::new(Together::new(sink, kinds, registry));
    let mut tasks = tokio::task::JoinSet::new();
    for kind in kinds {
        let shared = Shared {
            kind: *kind,
            meters: Meters::new(registry, *kind),
            together: together.clone(),
            client: client.clone(),
            unlisted: unlisted.clone(),
        };
        let stop = stop.clone();
        tasks.spawn(async move { stop.run_until_cancelled(one(shared)).await });
    }
    while tasks.join_next().await.is_some() {}
}

async fn one(shared: Shared) {
    let client = shared.client.clone();
    if let Some(definition) = policy::definition(shared.kind) {
        return Watch::new(served(&client, definition), shared, policy_object).run().await;
    }
    match shared.kind {
        Kind::Namespace => {
            let object = |_, mut o: Namespace| {
                o.metadata = trim::metadata(o.metadata);
                Ok(Object::Namespace(Box::new(o)))
            };
            Watch::new(vec![Api::all(client)], shared, object).run().await;
        }
        Kind::Service => {
            let object = |_, mut o: Service| {
                o.metadata = trim::metadata(o.metadata);
                Ok(Object::Service(Box::new(o)))
            };
            Watch::new(vec![Api::all(client)], shared, object).run().await;
        }
        Kind::EndpointSlice => {
            let object = |_, mut o: EndpointSlice| {
                Gateway::of(&o.metadata).map_err(|reason| Rejected { reason, written: None })?;
                o.metadata = trim::metadata(o.metadata);
                Ok(Object::EndpointSlice(Box::new(o)))
            };
            Watch::new(vec![Api::all(client)], shared, object).run().await;
        }
        Kind::Node => {
            let object = |_, o: Node| {
                Ok(Object::Node(Box::new(Node { metadata: trim::metadata(o.metadata), ..Node::default() })))
            };
            Watch::new(vec![Api::all(client)], shared, object).run().await;
        }
        Kind::Pod => {
            let object = |_, o: Pod| Ok(Object::Pod(Box::new(trim::pod(o))));
            Watch::new(vec![Api::all(client)], shared, object).run().await;
        }
        // Nothing is answered from them.
        _ => {}
    }
}

/// Where a kind may be served, the newest version first.
fn served(
    client: &Client,
    policy::Definition { group, kind, plural, versions }: policy::Definition,
) -> Vec<Api<DeserializeGuard<DynamicObject>>> {
    let resource = |version| ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    versions.iter().map(|version| Api::all_with(client.clone(), &resource(version))).collect()
}

fn policy_object(kind: Kind, mut object: DynamicObject) -> Result<Object, Rejected> {
    object.metadata = trim::metadata(object.metadata);
    let object = serde_json::to_value(object)?;
    // Whose status is ours to write is kept for that; and the proxy of an ExternalWorkload is to know that it is there.
    let is_told = kind == Kind::ExternalWorkload || policy::status::KINDS.contains(&kind);
    let written = is_told.then(|| trim::reported(&object));
    policy::read(kind, object).map_err(|mistakes| Rejected { reason: policy::told(&mistakes), written })
}

/// Why an object has no effect, and what was written of it, if that is to be told there.
struct Rejected {
    reason: String,
    written: Option<Value>,
}

impl From<serde_json::Error> for Rejected {
    fn from(error: serde_json::Error) -> Self {
        Self { reason: error.to_string(), written: None }
    }
}

struct Shared {
    kind: Kind,
    meters: Meters,
    together: Arc<Together>,
    client: Client,
    /// Kinds that were never listed.
    unlisted: Arc<AtomicUsize>,
}

struct Watch<K> {
    /// Of each version; the first that is served is used.
    apis: Vec<Api<DeserializeGuard<K>>>,
    /// The one that answered last, if any did.
    api: Option<usize>,
    shared: Shared,
    object: fn(Kind, K) -> Result<Object, Rejected>,
    known: HashSet<Key>,
    /// What could not be read, and why.
    quarantined: HashMap<Key, String>,
    /// What objects say in vain, though they have an effect.
    in_vain: HashMap<Key, String>,
    listed: bool,
    /// How often its kind was not served although there were objects.
    missed: u32,
    backoff: Duration,
    /// It fails, which is told once.
    failing: bool,
    /// The server refuses it again and again from whichever version on: lists are no sign that it is well.
    refused: bool,
    /// The server is known to be out of reach, since so many outages were over.
    away: Option<u64>,
    /// Outages of any kind that are over.
    returns: watch::Receiver<u64>,
}

/// Why a list is needed.
enum Gap {
    /// The server has forgotten what came after the version.
    Expired,
    /// A change came that is none.
    Unreadable(String),
    /// The watches since the last change that was seen have failed, and the version may be why.
    Doubted,
    /// The last one was refused by the server, which answers.
    Refused,
    /// The kind, or this version of it, is not served any more, or a newer one is.
    Redefined,
}

impl Gap {
    fn explained(&self) -> String {
        match self {
            Self::Expired => "the server has forgotten what came after the last change seen".to_owned(),
            Self::Unreadable(error) => format!("a change cannot be read: {error}"),
            Self::Redefined => "the kind was defined anew".to_owned(),
            Self::Doubted | Self::Refused => {
                "the server refuses again and again to go on from the last change seen".to_owned()
            }
        }
    }
}

/// Why one watch ended.
enum Ended {
    Resume,
    /// The server was away for another kind, and whether this watch is still alive is not known.
    Doubted,
    Failed(String),
    /// The server answers, and does not watch this kind: for others that means nothing.
    Refused(String),
    Gap(Gap),
}

impl<K> Watch<K>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    fn new(
        apis: Vec<Api<DeserializeGuard<K>>>,
        shared: Shared,
        object: fn(Kind, K) -> Result<Object, Rejected>,
    ) -> Self {
        Self {
            returns: shared.together.returns(),
            apis,
            api: None,
            shared,
            object,
            known: HashSet::new(),
            quarantined: HashMap::new(),
            in_vain: HashMap::new(),
            listed: false,
            missed: 0,
            backoff: BACKOFF,
            failing: false,
            refused: false,
            away: None,
        }
    }

    async fn run(mut self) {
        loop {
            match self.list().await {
                Ok(None) => {
                    // It may have been defined while the server was away, or it is later.
                    let _ = timeout(UNDEFINED, self.returns.changed()).await;
                }
                Ok(Some(version)) => {
                    let since = Instant::now();
                    let gap = self.follow(version).await;
                    if !self.refused {
                        tracing::info!(kind = self.shared.kind.as_str(), why = gap.explained(), "listing anew");
                    }
                    self.refused |= matches!(gap, Gap::Refused);
                    self.shared.together.left(self.shared.kind);
                    if since.elapsed() < BRIEF {
                        self.pause().await;
                    }
                }
                Err(reason) => self.out_of_reach(&reason).await,
            }
        }
    }

    /// Takes in everything and returns the version of the list; `None` where the kind is not defined, and has no objects.
    async fn list(&mut self) -> Result<Option<String>, String> {
        self.shared.meters.lists.inc();
        self.returns.mark_unchanged();
        let before = self.api.take();
        for i in 0..self.apis.len() {
            if let Some(list) = self.pages(i).await? {
                self.api = Some(i);
                if before.is_some_and(|before| before != i) {
                    tracing::info!(kind = self.shared.kind.as_str(), "another version is served");
                }
                let version = list.version.clone();
                self.replace(list);
                return Ok(Some(version));
            }
        }
        // Kubernetes' own kinds are always there. Of others all objects go before their definition: to have them and not it is to be
        // asked once more, lest somebody's slip opens what they closed.
        let is_own = policy::definition(self.shared.kind).is_none();
        if is_own || (!self.known.is_empty() && self.missed < DOUBT) {
            self.missed += 1;
            self.api = before;
            return Err("the kind is not served".to_owned());
        }
        // The first time nothing is known of what there may be.
        if !self.listed && self.is_defined().await? {
            return Err("the kind is defined, and not served yet".to_owned());
        }
        if before.is_some() || !self.listed {
            tracing::info!(kind = self.shared.kind.as_str(), "kind is not defined");
        }
        self.replace(Listed::default());
        Ok(None)
    }

    /// All pages, each of which is read before the next is asked for; `None` where there is no such kind.
    async fn pages(&mut self, api: usize) -> Result<Option<Listed>, String> {
        let Some(api) = self.apis.get(api).cloned() else { return Ok(None) };
        let mut listed = Listed::default();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = match timeout(ANSWER, api.list(&page)).await {
                Ok(Ok(list)) => list,
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(None),
                Ok(Err(error)) => return Err(client::reason(&error)),
                Err(_) => return Err(format!("a list was not answered within {ANSWER:?}")),
            };
            listed.objects.extend(list.items.into_iter().map(|guard| self.read(guard)));
            if !self.listed {
                self.take_in_early(&mut listed);
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => {
                    listed.version = list.metadata.resource_version.unwrap_or_default();
                    if listed.version.is_empty() {
                        return Err("a list has no version".to_owned());
                    }
                    return Ok(Some(listed));
                }
            }
        }
    }

    /// Takes in what was read so far. Should the rest not come, the next list says what of it is gone.
    fn take_in_early(&mut self, listed: &mut Listed) {
        let mut events = vec![];
        for read in std::mem::take(&mut listed.objects) {
            match read {
                Ok(object) => {
                    self.see(&object);
                    self.known.insert(object.key());
                    listed.taken_in.insert(object.key());
                    events.push(Event::Apply(object));
                }
                refused => listed.objects.push(refused),
            }
        }
        self.take_in(events);
    }

    /// What there is, is all there is.
    fn replace(&mut self, Listed { taken_in: mut listed, objects, .. }: Listed) {
        self.missed = 0;
        let (mut events, mut refused, mut quarantined) = (vec![], vec![], HashMap::new());
        for read in objects {
            match read {
                Ok(object) => {
                    self.see(&object);
                    listed.insert(object.key());
                    events.push(Event::Apply(object));
                }
                Err((key, Rejected { reason, written })) => {
                    refused.extend(written.map(|object| refusal(&key, object, &reason)));
                    quarantined.insert(key, reason);
                }
            }
        }
        for (key, reason) in &quarantined {
            if self.quarantined.get(key) != Some(reason) {
                self.tell_quarantine(key, reason);
            }
        }
        let gone = self.known.iter().chain(self.quarantined.keys()).filter(|key| !listed.contains(*key));
        events.extend(
            gone.filter(|key| !quarantined.contains_key(*key) || self.known.contains(*key)).cloned().map(Event::Delete),
        );
        events.extend(refused);
        (self.known, self.quarantined) = (listed, quarantined);
        self.in_vain.retain(|key, _| self.known.contains(key));
        if !std::mem::replace(&mut self.listed, true) && self.shared.unlisted.fetch_sub(1, Relaxed) == 1 {
            events.push(Event::Synced);
        }
        self.well();
        self.take_in(events);
        // Else it may be older than what others say since then.
        if !self.returns.has_changed().unwrap_or_default() {
            self.shared.together.is_whole(self.shared.kind);
        }
    }

    /// Whether the server says that there is such a kind, in a version that is read.
    async fn is_defined(&self) -> Result<bool, String> {
        let Some(policy::Definition { group, kind: _, plural, versions }) = policy::definition(self.shared.kind) else {
            return Ok(true);
        };
        for version in versions {
            let version = format!("{group}/{version}");
            match timeout(ANSWER, self.shared.client.list_api_group_resources(&version)).await {
                Ok(Ok(found)) if found.resources.iter().any(|resource| resource.name == plural) => return Ok(true),
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
                Ok(Err(error)) => return Err(client::reason(&error)),
                Err(_) => return Err(format!("what is defined was not said within {ANSWER:?}")),
            }
        }
        Ok(false)
    }

    fn read(&self, DeserializeGuard(object): DeserializeGuard<K>) -> Read {
        let object = object
            .map_err(|invalid| (self.key(&invalid.metadata), Rejected { reason: invalid.error, written: None }))?;
        let key = self.key(object.meta());
        (self.object)(self.shared.kind, object).map_err(|reason| (key, reason))
    }

    /// Whether a newer version is served than the one that is watched.
    async fn is_superseded(&self) -> bool {
        for api in self.apis.iter().take(self.api.unwrap_or_default()) {
            let one = ListParams::default().limit(1);
            if let Ok(Ok(_)) = timeout(ANSWER, api.list(&one)).await {
                return true;
            }
        }
        false
    }

    /// Takes in changes from `version` on, until some may have been missed.
    async fn follow(&mut self, mut version: String) -> Gap {
        let mut failures = 0;
        loop {
            if self.is_superseded().await {
                return Gap::Redefined;
            }
            let (began, from) = (Instant::now(), version.clone());
            match self.changes(&mut version).await {
                Ended::Gap(gap) => return gap,
                Ended::Doubted => {}
                Ended::Resume if version != from || began.elapsed() >= BRIEF => failures = 0,
                Ended::Resume => {
                    failures += 1;
                    self.pause().await;
                }
                Ended::Failed(reason) => {
                    failures = if version == from { failures + 1 } else { 1 };
                    self.out_of_reach(&reason).await;
                }
                Ended::Refused(reason) => {
                    failures = if version == from { failures + 1 } else { 1 };
                    self.failed(&reason).await;
                    if self.refused || failures >= DOUBT {
                        return Gap::Refused;
                    }
                }
            }
            if failures >= DOUBT {
                return Gap::Doubted;
            }
        }
    }

    /// One watch.
    async fn changes(&mut self, version: &mut String) -> Ended {
        let Some(api) = self.api.and_then(|i| self.apis.get(i)) else { return Ended::Gap(Gap::Redefined) };
        // Whatever was away before is asked from here on.
        self.returns.mark_unchanged();
        let params = WatchParams { timeout: Some(WATCH), bookmarks: true, ..WatchParams::default() };
        let stream = match timeout(ANSWER, api.watch(&params, version)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return ended(error),
            Err(_) => return Ended::Failed(format!("a watch was not answered within {ANSWER:?}")),
        };
        pin_mut!(stream);
        self.contact();
        let told = tokio::time::Instant::now() + BRIEF;
        let mut whole = false;
        loop {
            if !whole && tokio::time::Instant::now() >= told {
                self.refused = false;
                self.well();
                self.shared.together.is_whole(self.shared.kind);
                whole = true;
            }
            let by = if whole { tokio::time::Instant::now() + SILENCE } else { told };
            // Cancel-safe: a stream keeps what it has not handed out, and a count is looked at again.
            let next = tokio::select! {
                next = timeout_at(by, stream.next()) => next,
                Ok(()) = self.returns.changed() => return Ended::Doubted,
            };
            let event = match next {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return ended(error),
                Ok(None) => return Ended::Resume,
                Err(_) if !whole => continue,
                Err(_) => return Ended::Failed(format!("the watch said nothing for {SILENCE:?}")),
            };
            if !matches!(event, WatchEvent::Error(_)) {
                self.refused = false;
                self.well();
            }
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

    fn applied(&mut self, guard: DeserializeGuard<K>) -> Option<Event> {
        match self.read(guard) {
            Ok(object) => {
                self.see(&object);
                let key = object.key();
                self.quarantined.remove(&key);
                self.known.insert(key);
                Some(Event::Apply(object))
            }
            Err((key, Rejected { reason, written })) => {
                self.in_vain.remove(&key);
                self.tell_quarantine(&key, &reason);
                let was_known = self.known.remove(&key);
                let refused = written.map(|object| refusal(&key, object, &reason));
                self.quarantined.insert(key.clone(), reason);
                refused.or_else(|| was_known.then_some(Event::Delete(key)))
            }
        }
    }

    fn gone(&mut self, metadata: &ObjectMeta) -> Event {
        let key = self.key(metadata);
        self.quarantined.remove(&key);
        self.in_vain.remove(&key);
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
        meters.in_vain.set(self.in_vain.len().try_into().unwrap_or(i64::MAX));
        if !events.is_empty() {
            self.shared.together.take_in(self.shared.kind, events);
        }
    }

    fn tell_quarantine(&self, key: &Key, reason: &str) {
        tracing::warn!(object = %key, reason, "object cannot be read and has no effect");
    }

    /// Tells what an object says in vain, once.
    fn see(&mut self, object: &Object) {
        let mistakes = policy::said_in_vain(object);
        if mistakes.is_empty() {
            if !self.in_vain.is_empty() {
                self.in_vain.remove(&object.key());
            }
            return;
        }
        let (key, reason) = (object.key(), policy::told(&mistakes));
        if self.in_vain.get(&key) != Some(&reason) {
            tracing::warn!(object = %key, reason, "a part of the object has no effect");
            self.in_vain.insert(key, reason);
        }
    }

    /// The server answers.
    fn well(&mut self) {
        if !self.refused {
            self.backoff = BACKOFF;
            if std::mem::take(&mut self.failing) {
                tracing::info!(kind = self.shared.kind.as_str(), "API server answers again");
            }
        }
        if let Some(returns) = self.away.take() {
            // Unless another kind has said so meanwhile.
            if *self.returns.borrow() == returns {
                self.shared.together.returned();
                self.returns.mark_unchanged();
            }
        }
        self.contact();
    }

    fn contact(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        self.shared.meters.contact.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    async fn out_of_reach(&mut self, reason: &str) {
        self.away = Some(*self.returns.borrow());
        self.failed(reason).await;
    }

    async fn failed(&mut self, reason: &str) {
        self.shared.meters.failures.inc();
        self.shared.together.left(self.shared.kind);
        let kind = self.shared.kind.as_str();
        if std::mem::replace(&mut self.failing, true) {
            tracing::debug!(kind, reason, "watch failed");
        } else {
            tracing::warn!(kind, reason, "watch failed; what is known stays");
        }
        self.pause().await;
    }

    /// Waits longer each time until the server answers, be it of another kind. Replicas do not come back at the same moment.
    async fn pause(&mut self) {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
        let jitter = self.backoff * (nanos % 1000) / 2000;
        match timeout(self.backoff / 2 + jitter, self.returns.changed()).await {
            Ok(_) => self.backoff = BACKOFF,
            Err(_) => self.backoff = (self.backoff * 2).min(if self.refused { MAX_REFUSED } else { MAX_BACKOFF }),
        }
    }
}

fn refusal(key: &Key, object: Value, reason: &str) -> Event {
    Event::Refused(Box::new(Refused { key: key.clone(), object, reason: reason.to_owned() }))
}

/// An object as the index takes it, or why there is none.
type Read = Result<Object, (Key, Rejected)>;

/// Everything of a version, and where to watch from.
#[derive(Default)]
struct Listed {
    version: String,
    /// What was taken in before the list ended.
    taken_in: HashSet<Key>,
    /// The others.
    objects: Vec<Read>,
}

fn ended(error: kube::Error) -> Ended {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ended::Gap(Gap::Redefined),
        // In the answer or in the stream, as a code or as a reason: servers do all of it.
        kube::Error::Api(status) if status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") => {
            Ended::Gap(Gap::Expired)
        }
        kube::Error::SerdeError(error) => Ended::Gap(Gap::Unreadable(error.to_string())),
        refused @ kube::Error::Api(_) => Ended::Refused(client::reason(&refused)),
        other => Ended::Failed(client::reason(&other)),
    }
}

struct Meters {
    objects: Gauge,
    quarantined: Gauge,
    in_vain: Gauge,
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
            in_vain: gauge("weft_kubernetes_in_vain", "Objects of which a part cannot be read and has no effect."),
            contact: gauge("weft_kubernetes_last_contact_seconds", "When the watch was last heard of, in Unix time."),
            events: counter("weft_kubernetes_events_total", "Changes taken in."),
            lists: counter("weft_kubernetes_lists_total", "Lists asked for: the first, and one after each gap."),
            failures: counter("weft_kubernetes_failures_total", "Lists and watches that failed."),
        }
    }
}
