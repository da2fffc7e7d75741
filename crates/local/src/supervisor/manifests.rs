//! Manifests on disk: read at the start, read again when something changes.

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Notify;
use weft_cluster::manifest::{self, Loaded, Located};

/// Editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);

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
pub(crate) fn watch(paths: &[PathBuf], changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let burst = Arc::new(Notify::new());
    let wake = burst.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files ourselves must not wake us.
        if !event.is_ok_and(|e| e.kind.is_access()) {
            wake.notify_one();
        }
    })?;
    let mut folders = HashSet::new();
    for path in paths {
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let folder = if path.is_dir() { Some(path.as_path()) } else { path.parent() };
        if let Some(folder) = folder.filter(|f| folders.insert(f.to_path_buf())) {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
    }
    tokio::spawn(async move {
        loop {
            burst.notified().await;
            tokio::time::sleep(SETTLE).await;
            changed.notify_one();
        }
    });
    Ok(watcher)
}
