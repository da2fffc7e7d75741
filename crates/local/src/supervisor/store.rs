//! What exists: the objects of manifests, with what the mesh adds to them, and the pods that run.
//!
//! Followers get the whole list, then changes, those of one edit together: the control plane over a unix socket, names and rules in
//! this process.

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::Arc,
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::broadcast::{self, error::TryRecvError},
};
use weft_cluster::{
    Event, Key, Object,
    index::Settings,
    k8s::jiff::Timestamp,
    policy::status::{self, Patch, Statuses},
    source,
};

/// Changes that a follower may lag behind; then it begins anew.
const BACKLOG: usize = 4096;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Together>,
}

/// Changes that belong together.
type Together = Arc<[Event]>;

#[derive(Debug, Default)]
struct Inner {
    objects: BTreeMap<Key, Object>,
    /// Grows with each change.
    version: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), changes: broadcast::channel(BACKLOG).0 }
    }

    /// Nothing happens if the object is there already, as it is.
    pub(crate) fn apply(&self, object: Object) {
        self.change([Event::Apply(object)]);
    }

    pub(crate) fn delete(&self, key: &Key) {
        self.change([Event::Delete(key.clone())]);
    }

    /// Of those whose keys are of them, `objects` are all there are.
    pub(crate) fn replace(&self, objects: Vec<Object>, is_of_them: impl Fn(&Key) -> bool) {
        let keys: HashSet<Key> = objects.iter().map(Object::key).collect();
        let gone = |key: &Key| is_of_them(key) && !keys.contains(key);
        let gone: Vec<Key> = self.inner.lock().objects.keys().filter(|key| gone(key)).cloned().collect();
        self.change(objects.into_iter().map(Event::Apply).chain(gone.into_iter().map(Event::Delete)));
    }

    fn change(&self, events: impl IntoIterator<Item = Event>) {
        let mut inner = self.inner.lock();
        let kept = |event| match event {
            Event::Apply(object) => Event::Apply(status::replacing(inner.objects.get(&object.key()), object)),
            event => event,
        };
        let events: Vec<Event> = events.into_iter().map(kept).collect();
        self.put(&mut inner, events);
    }

    /// Followers are told of all of it together.
    fn put(&self, inner: &mut Inner, events: Vec<Event>) {
        let differs = |event: &Event| match event {
            Event::Apply(object) => inner.objects.insert(object.key(), object.clone()).as_ref() != Some(object),
            Event::Delete(key) => inner.objects.remove(key).is_some(),
            Event::Refused(_) | Event::Synced => false,
        };
        let changes: Together = events.into_iter().filter(differs).collect();
        if !changes.is_empty() {
            inner.version += 1;
            // Nobody follows: nobody needs to hear it. Sent under the lock, so that changes come in their order.
            let _ = self.changes.send(changes);
        }
    }

    /// The objects that are still there, with these statuses.
    fn report(&self, patches: &[Patch]) -> Vec<Event> {
        let mut inner = self.inner.lock();
        let written = |patch: &Patch| Some(status::written(inner.objects.get(&patch.key)?.clone(), patch));
        let written: Vec<Event> = patches.iter().filter_map(written).map(Event::Apply).collect();
        self.put(&mut inner, written.clone());
        written
    }

    pub(crate) fn objects(&self) -> Vec<Object> {
        self.inner.lock().objects.values().cloned().collect()
    }

    pub(crate) fn version(&self) -> u64 {
        self.inner.lock().version
    }

    /// What exists, and every change from then on.
    pub(crate) fn follow(&self) -> (Vec<Object>, broadcast::Receiver<Together>) {
        let inner = self.inner.lock();
        (inner.objects.values().cloned().collect(), self.changes.subscribe())
    }
}

/// Writes statuses, until dropped.
pub(crate) async fn write_statuses(store: Store, settings: Settings) {
    loop {
        let (objects, mut changes) = store.follow();
        let mut statuses = Statuses::new(settings.clone());
        for object in objects {
            statuses.apply(&Event::Apply(object));
        }
        let mut changed = true;
        loop {
            if changed {
                for event in store.report(&statuses.wanted(Timestamp::now())) {
                    statuses.apply(&event);
                }
            }
            // Whoever lags too far starts again.
            let Ok(together) = changes.recv().await else { break };
            let mut all = vec![together];
            let drained = loop {
                match changes.try_recv() {
                    Ok(together) => all.push(together),
                    Err(ended) => break ended,
                }
            };
            if drained != TryRecvError::Empty {
                break;
            }
            changed = false;
            for event in all.iter().flat_map(|together| together.iter()) {
                changed |= statuses.apply(event);
            }
        }
    }
}

/// Serves the events on a unix socket, until dropped.
pub(crate) async fn serve(store: Store, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(stream_to(store.clone(), stream))),
            Err(error) => {
                tracing::warn!(%error, "a follower of events was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

pub(crate) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    UnixListener::bind(path)
}

async fn stream_to(store: Store, mut stream: UnixStream) {
    let (objects, mut changes) = store.follow();
    let mut together: Together = objects.into_iter().map(Event::Apply).collect();
    loop {
        let lines: String = together.iter().map(line).chain([source::encode(&Event::Synced)]).collect();
        if stream.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
        // Whoever lags too far is cut off and starts again from a whole list.
        let Ok(next) = changes.recv().await else { return };
        together = next;
    }
}

/// One object that is too large must not end the stream, and with it every answer that changes: it is left out, and what it said
/// before goes, so that nobody is answered by what does not hold any more.
fn line(event: &Event) -> String {
    let line = source::encode(event);
    let Event::Apply(object) = event else { return line };
    if line.len() <= source::MAX_LINE_BYTES {
        return line;
    }
    let key = object.key();
    tracing::error!(
        ?key,
        bytes = line.len(),
        "an object is too large for the control plane, which goes on without it, and without what it said before"
    );
    source::encode(&Event::Delete(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_cluster::Token;

    #[test]
    fn what_changes_at_once_is_told_at_once() {
        let of = |name: &str, pod: &str| {
            let (sha256, pod) = (name.to_owned(), pod.to_owned());
            Object::Token(Token { sha256, namespace: "ns".to_owned(), service_account: "sa".to_owned(), pod })
        };
        let store = Store::new();
        let (_, mut changes) = store.follow();
        store.replace(vec![of("a", "1"), of("b", "1")], |_| true);
        store.replace(vec![of("a", "1"), of("c", "1")], |_| true);
        store.replace(vec![of("a", "1"), of("c", "1")], |_| true);
        store.replace(vec![of("a", "2")], |key| key.name == "a");
        let mut told = || changes.try_recv().map(|together| together.to_vec()).unwrap_or_default();
        assert_eq!(told(), [Event::Apply(of("a", "1")), Event::Apply(of("b", "1"))]);
        assert_eq!(told(), [Event::Apply(of("c", "1")), Event::Delete(of("b", "1").key())]);
        assert_eq!(told(), [Event::Apply(of("a", "2"))], "nothing is told of what is the same");
        assert_eq!(told(), []);
        assert_eq!(store.version(), 3);
    }

    #[test]
    fn an_object_that_is_too_large_does_not_end_the_stream() {
        let token = |pod: String| {
            let (sha256, namespace, service_account) = ("a".to_owned(), "ns".to_owned(), "sa".to_owned());
            Event::Apply(Object::Token(Token { sha256, namespace, service_account, pod }))
        };
        let mut resync = source::Resync::default();
        let fits = token("x".repeat(source::MAX_LINE_BYTES / 2));
        assert_eq!(heard(&mut resync, &fits), [fits, Event::Synced]);
        let too_large = token("x".repeat(source::MAX_LINE_BYTES));
        assert!(resync.line(line(&too_large).trim_end()).is_ok());
    }

    /// The control plane is told of an object, then of the same one, which has become too large.
    #[test]
    fn what_an_object_that_is_too_large_said_before_does_not_go_on() {
        let of = |pod: String| {
            let (sha256, namespace, service_account) = ("a".to_owned(), "ns".to_owned(), "sa".to_owned());
            Object::Token(Token { sha256, namespace, service_account, pod })
        };
        let (small, large) = (of("web".to_owned()), of("x".repeat(source::MAX_LINE_BYTES)));
        let key = small.key();
        assert_eq!(large.key(), key);
        let mut resync = source::Resync::default();
        let (small, large, gone) = (Event::Apply(small), Event::Apply(large), Event::Delete(key));
        for (told, means) in [(&small, &small), (&large, &gone), (&small, &small)] {
            assert_eq!(heard(&mut resync, told), [means.clone(), Event::Synced]);
        }
        // A list that is sent anew has it as little.
        resync.connected();
        assert_eq!(heard(&mut resync, &large), [gone.clone(), gone, Event::Synced]);
    }

    fn heard(resync: &mut source::Resync, event: &Event) -> Vec<Event> {
        assert_eq!(resync.line(line(event).trim_end()).unwrap(), []);
        resync.line(source::encode(&Event::Synced).trim_end()).unwrap()
    }
}
