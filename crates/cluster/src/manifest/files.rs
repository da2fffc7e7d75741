//! Which files are read, and their text. Only regular files are: a pipe could wait for its writer for ever.

use super::{MAX_BYTES, MAX_MIB};
use nix::fcntl::OFlag;
use std::{
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
    pub(super) unread: Vec<Unread>,
}

/// The files that `path` stands for: itself, or those of the folder and of the folders in it. A link to a folder is not followed:
/// it could lead in a circle. What is hidden is not meant: an editor's copies, the folders of version control.
pub(super) fn below(path: &Path) -> Found {
    let mut found = Found::default();
    match fs::metadata(path) {
        Err(error) => found.unread.push(unread(path, &error)),
        Ok(meta) if meta.is_dir() => found.walk(path),
        Ok(_) => found.files.push(path.to_owned()),
    }
    found.files.sort();
    found
}

impl Found {
    fn walk(&mut self, path: &Path) {
        let mut open = vec![(path.to_owned(), 0)];
        while let Some((folder, depth)) = open.pop() {
            match self.look(&folder) {
                Ok(folders) => open.extend(folders.into_iter().map(|folder| (folder, depth + 1))),
                // It was taken away since it was seen.
                Err(error) if depth > 0 && error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => self.unread.push(unread(&folder, &error)),
            }
            self.folders.push(folder);
            let bounds = [
                (self.files.len() > MAX_FILES, format!("{MAX_FILES} manifests")),
                (self.folders.len() + open.len() > MAX_FOLDERS, format!("{MAX_FOLDERS} folders")),
                (depth > MAX_DEPTH, format!("{MAX_DEPTH} folders in each other")),
            ];
            if let Some((_, bound)) = bounds.into_iter().find(|(is_over, _)| *is_over) {
                let message = format!("the folder has more than {bound}");
                let remedy = "name the folders of it that are meant";
                self.files.clear();
                self.unread = vec![Unread { file: path.to_owned(), message, remedy }];
                return;
            }
        }
    }

    /// Takes the files of a folder, and gives the folders in it.
    fn look(&mut self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut folders = vec![];
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let wanted = path.extension().is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)));
            if kind.is_dir() {
                folders.push(path);
            } else if wanted && !path.is_dir() {
                self.files.push(path);
            }
            if self.files.len() > MAX_FILES || folders.len() > MAX_FOLDERS {
                break;
            }
        }
        Ok(folders)
    }
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
    for Found { files, mut folders, unread } in paths.iter().map(|path| below(path)) {
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
