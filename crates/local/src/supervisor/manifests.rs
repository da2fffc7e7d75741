//! Manifests on disk: read at the start, read again when something changes.
//!
//! Files are looked at and read on threads where they may be slow: nothing else of the mesh waits for them.

use notify::{RecursiveMode, Watcher};
use std::{
    collections::{HashMap, hash_map::Entry},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::MissedTickBehavior};
use weft_cluster::manifest::{self, Loaded, Located, Problem, Stamp, Text};

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Between looks at whether the folders are still those that are watched.
const LOOK: Duration = Duration::from_millis(500);

/// Where manifests are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    /// What was read already.
    pub(crate) texts: Vec<Text>,
    pub(crate) paths: Vec<PathBuf>,
}

impl Place {
    /// Reads everything, and says what the files looked like before.
    pub(crate) async fn read(&self) -> (Stamp, Loaded) {
        let place = self.clone();
        let read = move || (manifest::stamp(&place.paths), manifest::load(&place.texts, &place.paths));
        // It ends with the process alone, and never panics.
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| (manifest::stamp(&[]), Loaded::default()))
    }

    async fn stamp(&self) -> Stamp {
        let paths = self.paths.clone();
        tokio::task::spawn_blocking(move || manifest::stamp(&paths)).await.unwrap_or_else(|_| manifest::stamp(&[]))
    }
}

/// The newest reading, with what of earlier ones stays in force.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    in_force: Vec<Located>,
    last: Loaded,
}

impl Manifests {
    pub(crate) fn new(loaded: Loaded) -> Self {
        let mut manifests = Self::default();
        manifests.take(loaded);
        manifests
    }

    /// Takes a new reading; what it refuses stays as it was. Gives the problems that the last one did not have.
    pub(crate) fn take(&mut self, loaded: Loaded) -> Vec<Problem> {
        let new = loaded.problems.iter().filter(|p| !self.last.problems.contains(p)).cloned().collect();
        self.in_force = loaded.keeping(&self.in_force);
        self.last = loaded;
        new
    }

    pub(crate) fn in_force(&self) -> &[Located] {
        &self.in_force
    }

    pub(crate) fn last(&self) -> &Loaded {
        &self.last
    }
}

/// Watches files by their folders, since editors replace files, and looks at each now and then: what a link leads to changes
/// elsewhere. `stamp` is of the last reading; `changed` wakes after each burst of changes.
pub(crate) fn watch(place: Place, mut stamp: Stamp, changed: Arc<Notify>) -> Watch {
    let burst = Arc::new(Notify::new());
    let wake = burst.clone();
    let told = move |event: notify::Result<notify::Event>| {
        // Reading the files ourselves must not wake us.
        if !event.is_ok_and(|e| e.kind.is_access()) {
            wake.notify_one();
        }
    };
    let mut watcher = match notify::recommended_watcher(told) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "the kernel tells of no changes of manifests: they are looked at every {LOOK:?} instead");
            None
        }
    };
    let task = tokio::spawn(async move {
        let mut watched = Watched::default();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = burst.notified() => {}
                _ = look.tick() => {
                    let now = place.stamp().await;
                    // A folder that was made anew is another one, of which the kernel tells nothing.
                    watched.follow(&place.paths, &now, watcher.as_mut());
                    if now == stamp {
                        continue;
                    }
                }
            }
            tokio::time::sleep(SETTLE).await;
            stamp = place.stamp().await;
            watched.follow(&place.paths, &stamp, watcher.as_mut());
            changed.notify_one();
        }
    });
    Watch(task)
}

/// Watches until dropped.
#[derive(Debug)]
pub(crate) struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The folders that are watched, and which ones they were then: device and inode.
#[derive(Debug, Default)]
struct Watched(HashMap<PathBuf, (u64, u64)>);

impl Watched {
    /// Watches the folders that are there now: those of `stamp`, and those that single files are in.
    fn follow(&mut self, paths: &[PathBuf], stamp: &Stamp, watcher: Option<&mut impl Watcher>) {
        let Some(watcher) = watcher else { return };
        let mut now = HashMap::new();
        for path in paths.iter().chain(stamp.folders()) {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
            if let Some((folder, meta)) = folder.and_then(|f| Some((f, f.metadata().ok()?))) {
                now.insert(folder.to_owned(), (meta.dev(), meta.ino()));
            }
        }
        for folder in self.0.iter().filter(|(f, id)| now.get(*f) != Some(*id)).map(|(f, _)| f) {
            // The kernel forgets what is gone by itself.
            let _ = watcher.unwatch(folder);
        }
        self.0.retain(|folder, id| now.get(folder) == Some(id));
        for (folder, id) in now {
            if let Entry::Vacant(unwatched) = self.0.entry(folder) {
                match watcher.watch(unwatched.key(), RecursiveMode::NonRecursive) {
                    Ok(()) => drop(unwatched.insert(id)),
                    Err(error) => tracing::debug!(%error, "a folder of manifests is not watched"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_problem_that_stays_is_told_once() {
        let read = |text: &str| manifest::load_text(Path::new("m.yaml"), text);
        let mut manifests = Manifests::new(read("kind: A\napiVersion: v1\n"));
        assert_eq!(manifests.take(read("kind: A\napiVersion: v1\n")), []);
        assert_eq!(manifests.take(read("kind: B\napiVersion: v1\n")).len(), 1);
        assert_eq!(manifests.take(read("")), []);
        assert_eq!(manifests.take(read("kind: B\napiVersion: v1\n")).len(), 1, "it came again");
    }
}
