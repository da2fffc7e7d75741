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

/// One object that is too large must not end the stream, and with it every answer that changes: it is left out.
fn line(event: &Event) -> String {
    let line = source::encode(event);
    if line.len() <= source::MAX_LINE_BYTES {
        return line;
    }
    if let Event::Apply(object) = event {
        let key = object.key();
        tracing::error!(
            ?key,
            bytes = line.len(),
            "an object is too large for the control plane, which goes on without it"
        );
    }
    String::new()
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
        assert_eq!(line(&token("x".repeat(source::MAX_LINE_BYTES))), "");
    }
}
