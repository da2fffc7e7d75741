//! The state folder: one mesh per folder, readable by its owner alone.
//!
//! ```text
//! lock          held while a mesh runs; its process id
//! ca/           the certificate authority, of the control plane
//! logs/         per workload, kept
//! run/          of the running mesh: made anew by each, removed at its end
//!   api.sock      for `weft ps` and others
//!   events.sock   for the control plane
//!   pods/POD/     the proxy's key and token
//! ```

use crate::Error;
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

/// The longest path that a unix socket may have, without the byte that ends it.
const SOCKET_PATH: usize = 107;

/// A folder that this process has for itself.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: Flock<File>,
}

/// `$XDG_STATE_HOME/weft`, or `~/.local/state/weft`.
pub(crate) fn usual() -> Result<PathBuf, Error> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = set("XDG_STATE_HOME").filter(|p| p.is_absolute()).or_else(|| Some(set("HOME")?.join(".local/state")));
    Ok(base.ok_or(Error::NoStateFolder)?.join("weft"))
}

pub(crate) fn api_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("run/api.sock")
}

pub(crate) fn events_socket(state_dir: &Path) -> PathBuf {
    state_dir.join("run/events.sock")
}

pub(crate) fn logs(state_dir: &Path) -> PathBuf {
    state_dir.join("logs")
}

impl StateDir {
    /// Takes the folder and removes what a mesh left there that was killed.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let io = |what: &str, at: &Path| Error::io(format!("{what} {}", at.display()));
        make_private(path).map_err(io("creating", path))?;
        let path = path.canonicalize().map_err(io("reading", path))?;
        if api_socket(&path).as_os_str().len() > SOCKET_PATH - "events".len() {
            return Err(Error::Refused(format!(
                "the path of the state folder is too long for unix sockets: {}; name a shorter one with --state",
                path.display()
            )));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(io("protecting", &path))?;
        let lock = path.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&lock).map_err(io("opening", &lock))?;
        let mut pid = String::new();
        // Only for the text of an error.
        let _ = (&mut file).take(32).read_to_string(&mut pid);
        let mut held = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| Error::AlreadyRunning { state_dir: path.clone(), pid: pid.trim().to_owned() })?;
        held.relock(FlockArg::LockExclusiveNonblock).map_err(|e| Error::io("locking")(e.into()))?;
        let written = held.set_len(0).and_then(|()| {
            use std::io::Seek;
            held.rewind()?;
            held.write_all(format!("{}\n", std::process::id()).as_bytes())
        });
        written.map_err(io("writing", &lock))?;
        let state = Self { path, lock: held };
        state.clear();
        for dir in [state.path.join("run/pods"), state.path.join("logs")] {
            make_private(&dir).map_err(io("creating", &dir))?;
        }
        Ok(state)
    }

    /// Whether the folder is still the one that was taken. Once somebody has removed it another mesh may have it.
    pub(crate) fn is_ours(&self) -> bool {
        let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let (held, there) = (self.lock.metadata().map(id), fs::symlink_metadata(self.path.join("lock")).map(id));
        held.is_ok_and(|held| there.is_ok_and(|there| held == there))
    }

    /// Whether other processes can still ask this mesh.
    pub(crate) fn is_reachable(&self) -> bool {
        self.is_ours() && fs::symlink_metadata(self.api_socket()).is_ok()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn logs(&self) -> PathBuf {
        logs(&self.path)
    }

    pub(crate) fn api_socket(&self) -> PathBuf {
        api_socket(&self.path)
    }

    pub(crate) fn events_socket(&self) -> PathBuf {
        events_socket(&self.path)
    }

    /// Makes the folder of a pod's proxy with its token; `owner` is the user that the proxy runs as, where there is one.
    pub(crate) fn pod(&self, name: &str, token: &str, owner: Option<u32>) -> std::io::Result<PathBuf> {
        let dir = self.path.join("run/pods").join(name);
        make_private(&dir)?;
        let file = dir.join("token");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).open(&file)?.write_all(token.as_bytes())?;
        if owner.is_some() {
            chown(&file, owner, owner)?;
            chown(&dir, owner, owner)?;
        }
        Ok(dir)
    }

    pub(crate) fn remove_pod(&self, name: &str) {
        if !self.is_ours() {
            return;
        }
        // What stays is removed with the rest.
        let _ = fs::remove_dir_all(self.path.join("run/pods").join(name));
    }

    /// Removes what belongs to a running mesh.
    pub(crate) fn clear(&self) {
        if !self.is_ours() {
            return;
        }
        let _ = fs::remove_dir_all(self.path.join("run"));
    }
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_testkit::folder::Folder;

    #[test]
    fn one_mesh_per_folder() {
        let folder = Folder::new("state").unwrap();
        let dir = folder.join("mesh");
        let first = StateDir::take(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let pod = first.pod("web-0", "secret", None).unwrap();
        assert_eq!(fs::metadata(pod.join("token")).unwrap().permissions().mode() & 0o777, 0o600);
        match StateDir::take(&dir) {
            Err(Error::AlreadyRunning { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{other:?}"),
        }
        // Removed and made again by another, it is not this one's to clear.
        let moved = dir.with_extension("moved");
        assert!(first.is_ours());
        fs::rename(&dir, &moved).unwrap();
        assert!(!first.is_ours());
        let other = StateDir::take(&dir).unwrap();
        assert!(!first.is_ours() && other.is_ours());
        first.clear();
        assert!(dir.join("run/pods").exists(), "the other one's");
        drop(other);
        fs::remove_dir_all(&dir).unwrap();
        fs::rename(&moved, &dir).unwrap();
        assert!(first.is_ours() && !first.is_reachable());
        drop(first);
        let second = StateDir::take(&dir).unwrap();
        assert!(!pod.exists(), "what a killed mesh left is gone");
        drop(second);
    }
}
