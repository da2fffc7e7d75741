//! Which files are read, and their text. Only regular files are: a pipe could wait for its writer for ever.

use super::{MAX_BYTES, MAX_MIB};
use nix::fcntl::OFlag;
use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs::{self, FileType, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Files of one folder and of those below it.
const MAX_FILES: usize = 2_000;
/// The folder itself is one of them.
const MAX_FOLDERS: usize = 2_000;
/// Folders in each other.
const MAX_DEPTH: usize = 16;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What could not be read, and why.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) file: PathBuf,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// What a path stands for: a file, or a folder with all that is below it.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of their names.
    pub(super) files: Vec<PathBuf>,
    /// The folder and those in it.
    folders: Vec<PathBuf>,
    /// What would have been read if it were not hidden.
    pub(super) hidden: Vec<PathBuf>,
    pub(super) unread: Vec<Unread>,
}

/// The files that `path` stands for: itself, or those of the folder and of the folders in it, links followed. What several names lead to
/// counts once, and not at all if it is among `seen`. What is hidden is not meant: an editor's copies, the folders of version control.
pub(super) fn below(path: &Path, seen: &mut HashSet<PathBuf>) -> Found {
    let mut walk = Walk::default();
    match fs::metadata(path) {
        Err(error) => walk.found.unread.push(unread(path, &error)),
        Ok(meta) if meta.is_dir() => walk.all_of(path),
        Ok(_) => walk.files.push(Named::of(path)),
    }
    let Walk { mut files, mut found, .. } = walk;
    files.sort();
    found.files = files.into_iter().filter(|file| seen.insert(file.real.clone())).map(|file| file.path).collect();
    found
}

/// A name, and where it leads.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    path: PathBuf,
    real: PathBuf,
}

impl Named {
    fn of(path: &Path) -> Self {
        Self { real: path.canonicalize().unwrap_or_else(|_| path.to_owned()), path: path.to_owned() }
    }
}

#[derive(Default)]
struct Walk {
    files: Vec<Named>,
    /// All but the files.
    found: Found,
    /// Folders to look at, and how deep they are.
    open: Vec<(Named, usize)>,
    /// Those that links lead to: later, so that a folder has its own name where it has one here.
    linked: BTreeMap<Named, usize>,
}

impl Walk {
    fn all_of(&mut self, path: &Path) {
        let mut looked = HashSet::new();
        self.open.push((Named::of(path), 0));
        while let Some((folder, depth)) = self.open.pop().or_else(|| self.linked.pop_first()) {
            // A link may lead in a circle.
            if !looked.insert(folder.real.clone()) {
                continue;
            }
            match self.look(&folder, depth) {
                Ok(()) => {}
                // It was taken away since it was seen.
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => self.found.unread.push(unread(&folder.path, &error)),
            }
            self.found.folders.push(folder.path);
            let folders = self.found.folders.len() + self.open.len() + self.linked.len();
            let bounds = [
                (self.files.len() > MAX_FILES, format!("{MAX_FILES} manifests")),
                (folders > MAX_FOLDERS, format!("{MAX_FOLDERS} folders")),
                (depth > MAX_DEPTH, format!("{MAX_DEPTH} folders in each other")),
            ];
            if let Some((_, bound)) = bounds.into_iter().find(|(is_over, _)| *is_over) {
                let message = format!("the folder has more than {bound}");
                let remedy = "name the folders of it that are meant";
                self.files.clear();
                self.found.unread = vec![Unread { file: path.to_owned(), message, remedy }];
                return;
            }
        }
    }

    /// Takes the files of a folder, and the folders in it.
    fn look(&mut self, folder: &Named, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(&folder.path)? {
            let entry = entry?;
            let (path, name, kind) = (entry.path(), entry.file_name(), entry.file_type()?);
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            let is_dir = if kind.is_symlink() {
                match fs::metadata(&path) {
                    Ok(meta) => meta.is_dir(),
                    Err(error) if !is_hidden && error.kind() == io::ErrorKind::PermissionDenied => {
                        self.found.unread.push(unread(&path, &error));
                        continue;
                    }
                    // It leads nowhere, which matters of a manifest alone.
                    Err(_) => false,
                }
            } else {
                kind.is_dir()
            };
            let is_manifest = path.extension().is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)));
            if !is_dir && !is_manifest {
                continue;
            }
            if is_hidden {
                if self.found.hidden.len() < MAX_FILES && !is_never_meant(&folder.path, &name) {
                    self.found.hidden.push(path);
                }
                continue;
            }
            let named =
                if kind.is_symlink() { Named::of(&path) } else { Named { real: folder.real.join(&name), path } };
            match (is_dir, kind.is_symlink()) {
                (true, true) => drop(self.linked.insert(named, depth + 1)),
                (true, false) => self.open.push((named, depth + 1)),
                (false, _) => self.files.push(named),
            }
            if self.files.len() > MAX_FILES || self.open.len() + self.linked.len() > MAX_FOLDERS {
                break;
            }
        }
        Ok(())
    }
}

/// Of what is hidden: the folder of version control, and in a volume that Kubernetes has mounted what its links lead to.
fn is_never_meant(folder: &Path, name: &OsStr) -> bool {
    name == ".git" || name.as_encoded_bytes().starts_with(b"..") && folder.join("..data").is_symlink()
}

pub(super) fn read(file: &Path) -> Result<String, Unread> {
    let regular = |meta: &Metadata| match meta.is_file() {
        true => Ok(()),
        false => Err(Unread {
            file: file.to_owned(),
            message: format!("it is {}, not a regular file", kind(meta.file_type())),
            remedy: "put a regular file in its place, or take it away",
        }),
    };
    // Opening a device may do something already. What is opened is looked at again, since it may be another by now.
    regular(&fs::metadata(file).map_err(|e| unread(file, &e))?)?;
    let mut options = fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file).map_err(|e| unread(file, &e))?;
    regular(&opened.metadata().map_err(|e| unread(file, &e))?)?;
    let mut bytes = vec![];
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unread(file, &e))?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("the file has more than {MAX_MIB} MiB");
        return Err(Unread { file: file.to_owned(), message, remedy: "split the file" });
    }
    text(file, bytes)
}

/// Bytes as they stand in `file`.
fn text(file: &Path, bytes: Vec<u8>) -> Result<String, Unread> {
    String::from_utf8(bytes).map_err(|_| Unread {
        file: file.to_owned(),
        message: "the file is not UTF-8 text".to_owned(),
        remedy: "save it as UTF-8",
    })
}

fn kind(of: FileType) -> &'static str {
    match () {
        () if of.is_fifo() => "a named pipe",
        () if of.is_socket() => "a socket",
        () if of.is_dir() => "a folder",
        () => "a device",
    }
}

/// What tells one state of files from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    files: Vec<(PathBuf, Option<[i64; 7]>)>,
    folders: Vec<PathBuf>,
}

impl Stamp {
    /// Those that are given, and all below them.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }
}

/// What the files of these paths look like now, those that links lead to included: another stamp says that they must be read
/// again.
pub fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |meta: &Metadata| {
        let number = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
        let (device, inode, size) = (number(meta.dev()), number(meta.ino()), number(meta.size()));
        [device, inode, size, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]
    };
    let mut stamp = Stamp::default();
    let mut seen = HashSet::new();
    for Found { files, mut folders, hidden: _, unread } in paths.iter().map(|path| below(path, &mut seen)) {
        let all = files.into_iter().chain(unread.into_iter().map(|unread| unread.file));
        stamp.files.extend(all.map(|file| (fs::metadata(&file).ok().as_ref().map(of), file)).map(|(s, f)| (f, s)));
        folders.sort();
        stamp.folders.extend(folders);
    }
    stamp
}

fn unread(file: &Path, error: &io::Error) -> Unread {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "make it readable",
        _ => "check the file",
    };
    Unread { file: file.to_owned(), message: error.to_string(), remedy }
}
