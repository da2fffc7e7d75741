//! Manifests on disk: read at the start, read again when something changes.

use notify::{RecursiveMode, Watcher};
use std::{
    collections::{HashMap, hash_map::Entry},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Notify, time::MissedTickBehavior};
use weft_cluster::manifest::{self, Loaded, Located};

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);
/// Between looks at whether the folders are still those that are watched.
const LOOK: Duration = Duration::from_millis(500);

/// The newest reading, with what of earlier ones stays in force.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    paths: Vec<PathBuf>,
    in_force: Vec<Located>,
    last: Loaded,
}

impl Manifests {
    pub(crate) fn read(paths: Vec<PathBuf>) -> Self {
        let mut manifests = Self { paths, ..Self::default() };
        manifests.reload();
        manifests
    }

    /// Reads again; what is refused now stays as it was.
    pub(crate) fn reload(&mut self) {
        let loaded = manifest::load(&self.paths);
        self.in_force = loaded.keeping(&self.in_force);
        self.last = loaded;
    }

    pub(crate) fn in_force(&self) -> &[Located] {
        &self.in_force
    }

    pub(crate) fn last(&self) -> &Loaded {
        &self.last
    }
}

/// Watches files by their folders, since editors replace files. `changed` wakes after each burst of changes.
pub(crate) fn watch(paths: &[PathBuf], changed: Arc<Notify>) -> notify::Result<Watch> {
    let burst = Arc::new(Notify::new());
    let wake = burst.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files ourselves must not wake us.
        if !event.is_ok_and(|e| e.kind.is_access()) {
            wake.notify_one();
        }
    })?;
    let mut watched = Watched::default();
    watched.follow(paths, &mut watcher)?;
    let paths = paths.to_vec();
    let task = tokio::spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = burst.notified() => {}
                // A folder that was made anew is another one, of which the kernel tells nothing.
                _ = look.tick() => match watched.follow(&paths, &mut watcher) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    // It went again; looked at once more.
                    Err(error) => {
                        tracing::debug!(%error, "a folder of manifests is not watched");
                        continue;
                    }
                },
            }
            tokio::time::sleep(SETTLE).await;
            changed.notify_one();
        }
    });
    Ok(Watch(task))
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
    /// Watches the folders that are there now; true if one of them was not watched before.
    fn follow(&mut self, paths: &[PathBuf], watcher: &mut impl Watcher) -> notify::Result<bool> {
        let mut now = HashMap::new();
        for path in paths {
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
        let mut new = false;
        for (folder, id) in now {
            if let Entry::Vacant(unwatched) = self.0.entry(folder) {
                watcher.watch(unwatched.key(), RecursiveMode::NonRecursive)?;
                unwatched.insert(id);
                new = true;
            }
        }
        Ok(new)
    }
}
