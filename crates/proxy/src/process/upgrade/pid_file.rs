//! Says in a file which process accepts connections: who started the first one finds the others by it.

use std::path::Path;

/// Names this process. Replaced at one moment, so that nobody reads half of it.
pub(in crate::process) fn write(path: &Path) {
    let new = path.with_extension("new");
    let written = std::fs::write(&new, format!("{}\n", std::process::id())).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = written {
        tracing::error!(path = %path.display(), %error, "The pid file cannot be written: who started this proxy does not know it");
    }
}
