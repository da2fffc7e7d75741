//! What exists: the objects of manifests, with what the mesh adds to them, and the pods that run.
//!
//! Followers get the whole list, then changes: the control plane over a unix socket, names and rules in this process.

use parking_lot::Mutex;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    sync::broadcast,
};
use weft_cluster::{Event, Key, Object, source};

/// Changes that a follower may lag behind; then it begins anew.
const BACKLOG: usize = 4096;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Event>,
}

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
        let mut inner = self.inner.lock();
        let key = object.key();
        if inner.objects.get(&key) != Some(&object) {
            inner.version += 1;
            inner.objects.insert(key, object.clone());
            // Nobody follows: nobody needs to hear it. Sent under the lock, so that changes come in their order.
            let _ = self.changes.send(Event::Apply(object));
        }
    }

    pub(crate) fn delete(&self, key: &Key) {
        let mut inner = self.inner.lock();
        if inner.objects.remove(key).is_some() {
            inner.version += 1;
            let _ = self.changes.send(Event::Delete(key.clone()));
        }
    }

    pub(crate) fn objects(&self) -> Vec<Object> {
        self.inner.lock().objects.values().cloned().collect()
    }

    pub(crate) fn version(&self) -> u64 {
        self.inner.lock().version
    }

    /// What exists, and every change from then on.
    pub(crate) fn follow(&self) -> (Vec<Object>, broadcast::Receiver<Event>) {
        let inner = self.inner.lock();
        (inner.objects.values().cloned().collect(), self.changes.subscribe())
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
    let list: String = objects.into_iter().map(|o| line(&Event::Apply(o))).collect();
    let list = list + &source::encode(&Event::Synced);
    if stream.write_all(list.as_bytes()).await.is_err() {
        return;
    }
    // Whoever lags too far is cut off and starts again from a whole list.
    while let Ok(event) = changes.recv().await {
        if stream.write_all(line(&event).as_bytes()).await.is_err() {
            return;
        }
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
    fn an_object_that_is_too_large_does_not_end_the_stream() {
        let token = |pod: String| {
            let (sha256, namespace, service_account) = ("a".to_owned(), "ns".to_owned(), "sa".to_owned());
            Event::Apply(Object::Token(Token { sha256, namespace, service_account, pod }))
        };
        let mut resync = source::Resync::default();
        let fits = token("x".repeat(source::MAX_LINE_BYTES / 2));
        assert_eq!(resync.line(line(&fits).trim_end()).unwrap(), [fits]);
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
        let mut heard = |object: Object| resync.line(line(&Event::Apply(object)).trim_end()).unwrap();
        assert_eq!(heard(small.clone()), [Event::Apply(small.clone())]);
        assert_eq!(heard(large.clone()), [Event::Delete(key.clone())]);
        assert_eq!(heard(small.clone()), [Event::Apply(small)]);
        // A list that is sent anew has it as little.
        let mut resync = source::Resync::default();
        resync.connected();
        assert_eq!(resync.line(line(&Event::Apply(large)).trim_end()).unwrap(), [Event::Delete(key)]);
        assert_eq!(resync.line("\"synced\"").unwrap(), [Event::Synced]);
    }
}
