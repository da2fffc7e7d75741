//! The state folders of one user: each mesh writes its own down, so that the programs of all others are shown none of it.
//!
//! Needed where programs run as the caller, whose files they may read. The list lies in a folder of the caller's own, which
//! programs do not see either.

use crate::{client::Client, protocol::Question};
use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// It outlives a restart of the machine, as state folders do, and every user may write here.
const PLACE: &str = "/var/tmp";
/// Folders that are written down; what is gone is forgotten first.
const MAX_FOLDERS: usize = 256;
/// A mesh that does not hide a folder within this time hangs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The list of one user.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    dir: PathBuf,
}

impl Folders {
    /// # Errors
    /// The list cannot be kept, or somebody else has made a folder of its name.
    pub(crate) fn of(uid: u32) -> io::Result<Self> {
        Self::at(PathBuf::from(format!("{PLACE}/weft-{uid}")), uid)
    }

    fn at(dir: PathBuf, uid: u32) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let meta = dir.symlink_metadata()?;
        if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!("{} is not a folder of this user alone", dir.display())));
        }
        Ok(Self { dir })
    }

    /// Where the list is.
    pub(crate) fn list(&self) -> &Path {
        &self.dir
    }

    /// Writes a folder down.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        if self.all().len() >= MAX_FOLDERS {
            return Err(io::Error::other(format!("there are {MAX_FOLDERS} state folders already; remove some")));
        }
        let bytes = folder.as_os_str().as_bytes();
        let name = weft_control::sha256(bytes);
        // Whole or not at all for whoever reads just now.
        let new = self.dir.join(format!("{name}.{}", std::process::id()));
        fs::write(&new, bytes)?;
        fs::rename(new, self.dir.join(name))
    }

    /// All that are there; those that are gone are forgotten.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let folder = |entry: fs::DirEntry| {
            if entry.path().extension().is_some() {
                return None;
            }
            let folder = PathBuf::from(std::ffi::OsString::from_vec(fs::read(entry.path()).ok()?));
            if folder.is_dir() {
                return Some(folder);
            }
            // Another mesh may have been faster.
            let _ = fs::remove_file(entry.path());
            None
        };
        entries.filter_map(folder).collect()
    }

    pub(crate) fn others(&self, own: &Path) -> Vec<PathBuf> {
        self.all().into_iter().filter(|folder| folder != own).collect()
    }

    /// Writes `own` down, and has every mesh that runs hide it from the programs that it has started before. To be done before
    /// there is a secret in it.
    pub(crate) async fn announce(&self, own: &Path) -> io::Result<()> {
        self.write(own)?;
        for other in self.others(own) {
            let Ok(client) = Client::new(Some(other.clone())) else { continue };
            match tokio::time::timeout(PATIENCE, client.tell(&Question::Hide(own.to_owned()))).await {
                Ok(Ok(()) | Err(crate::Error::NotRunning { .. })) => {}
                Ok(Err(error)) => warn(&other, &error),
                Err(elapsed) => warn(&other, &elapsed),
            }
        }
        Ok(())
    }
}

fn warn(other: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(other = %other.display(), %error, "programs of another mesh may see the state folder of this one");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};
    use weft_testkit::folder::Folder;

    #[test]
    fn folders_are_remembered_while_they_are_there() {
        let base = Folder::new("folders").unwrap();
        let [one, two] = ["one", "two"].map(|name| base.join(name));
        for dir in [&one, &two] {
            fs::create_dir_all(dir).unwrap();
        }
        let uid = nix::unistd::geteuid().as_raw();
        let folders = Folders::at(base.join("list"), uid).unwrap();
        for folder in [&one, &two, &one] {
            folders.write(folder).unwrap();
        }
        assert_eq!(folders.all().len(), 2);
        assert_eq!(folders.others(&two), std::slice::from_ref(&one));
        fs::remove_dir(&one).unwrap();
        assert_eq!(folders.all(), [two]);
        assert_eq!(fs::read_dir(folders.list()).unwrap().count(), 1);

        // What is not the user's alone is no list.
        assert!(Folders::at(base.join("list"), uid + 1).is_err());
        fs::set_permissions(folders.list(), Permissions::from_mode(0o755)).unwrap();
        assert!(Folders::at(base.join("list"), uid).is_err());
        std::os::unix::fs::symlink(&*base, base.join("link")).unwrap();
        assert!(Folders::at(base.join("link"), uid).is_err());
    }
}
