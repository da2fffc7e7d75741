//! What the CA is, and the file that holds it.

use super::Error;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The whole CA. One file, so that what belongs together is never half written.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// The oldest first; all are trusted.
    pub(super) roots: Vec<Root>,
    pub(super) issuer: Option<Issuer>,
    /// Roots made so far: the number of the next one.
    pub(super) roots_made: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    pub(super) number: u32,
    pub(super) pair: Pair,
    /// Since when the issuer is signed by it, in seconds of Unix time.
    pub(super) signs_since: Option<u64>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// The number of its root.
    pub(super) root: u32,
    pub(super) pair: Pair,
}

/// A certificate and its key. Times are in seconds of Unix time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pair {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
    /// When it was made; its validity begins a little earlier.
    pub(super) made: u64,
    pub(super) not_after: u64,
}

impl State {
    /// The issuer and the root that signed it.
    pub(super) fn signing(&self) -> Option<(&Issuer, &Root)> {
        let issuer = self.issuer.as_ref()?;
        Some((issuer, self.roots.iter().find(|r| r.number == issuer.root)?))
    }
}

impl Pair {
    pub(super) fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.not_after)
    }
}

/// A clock before 1970 counts as 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Where the CA is kept: a folder that only its owner may enter.
pub(super) struct Folder {
    dir: PathBuf,
    file: PathBuf,
}

impl Folder {
    pub(super) fn new(state_dir: &Path) -> Self {
        let dir = state_dir.join("ca");
        Self { file: dir.join("ca.json"), dir }
    }

    pub(super) fn broken(&self, reason: impl Into<String>) -> Error {
        Error::Broken { path: self.file.clone(), reason: reason.into() }
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |error| Error::Io { path, error }
    }

    /// Makes the folder if need be and locks it until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(Self::io(&self.dir))?;
        let path = self.dir.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(Self::io(&path))?;
        file.lock().map_err(Self::io(&path))?;
        Ok(file)
    }

    pub(super) fn read(&self) -> Result<Option<State>, Error> {
        match fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
                self.broken(format!("{e}; move the folder away to begin with a new certificate authority"))
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Self::io(&self.file)(e)),
        }
    }

    /// Writes beside the file and renames, so that a crash leaves the old one or the new one.
    pub(super) fn write(&self, state: &State) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(state).map_err(|e| self.broken(e.to_string()))?;
        let new = self.dir.join("ca.json.new");
        let written = || {
            // What a crash left behind may have other rights.
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &self.file)?;
            File::open(&self.dir)?.sync_all()
        };
        written().map_err(Self::io(&self.file))
    }
}
