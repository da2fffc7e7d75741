//! Which files are read, and their text. Only regular files are: a pipe could wait for its writer for ever.

use super::{MAX_BYTES, MAX_MIB};
use nix::fcntl::OFlag;
use std::{
    fs::{self, FileType, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Files of one folder.
const MAX_FILES: usize = 2_000;
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What could not be read, and why.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) file: PathBuf,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// The files that `path` stands for: itself, or those of the folder (not of folders in it) in the order of their names.
pub(super) fn list(path: &Path) -> Result<Vec<PathBuf>, Unread> {
    let unread = |error: &io::Error| unread(path, error);
    if !fs::metadata(path).map_err(|e| unread(&e))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = vec![];
    for entry in fs::read_dir(path).map_err(|e| unread(&e))? {
        let file = entry.map_err(|e| unread(&e))?.path();
        let wanted = file.extension().is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)));
        // An editor's hidden copies are not meant.
        let hidden = file.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if wanted && !hidden && !file.is_dir() {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            let message = format!("the folder has more than {MAX_FILES} manifests");
            return Err(Unread { file: path.to_owned(), message, remedy: "split the folder" });
        }
    }
    files.sort();
    Ok(files)
}

/// Folders in each other.
const MAX_FOLDERS: usize = 16;

/// The same with the folders in it. A link to a folder is not followed: it could lead in a circle.
pub(super) fn below(path: &Path) -> Result<Vec<PathBuf>, Unread> {
    let (mut files, mut folders) = (list(path)?, vec![]);
    if files.as_slice() != [path] {
        folders.push((path.to_owned(), 0));
    }
    while let Some((folder, depth)) = folders.pop() {
        let unread = |error: &io::Error| unread(&folder, error);
        for entry in fs::read_dir(&folder).map_err(|e| unread(&e))? {
            let entry = entry.map_err(|e| unread(&e))?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && entry.file_type().map_err(|e| unread(&e))?.is_dir() {
                files.extend(list(&entry.path())?);
                folders.push((entry.path(), depth + 1));
            }
        }
        if depth > MAX_FOLDERS || files.len() > MAX_FILES {
            let message =
                format!("it has more than {MAX_FILES} manifests, or more than {MAX_FOLDERS} folders in each other");
            return Err(Unread { file: path.to_owned(), message, remedy: "name the folders one by one" });
        }
    }
    files.sort();
    Ok(files)
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

/// What tells one state of a file from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, Option<[i64; 7]>)>);

/// What the files of these paths look like now, those that links lead to included: another stamp says that they must be read
/// again.
pub fn stamp(paths: &[PathBuf]) -> Stamp {
    let of = |meta: &Metadata| {
        let number = |n: u64| i64::from_ne_bytes(n.to_ne_bytes());
        let (device, inode, size) = (number(meta.dev()), number(meta.ino()), number(meta.size()));
        [device, inode, size, meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()]
    };
    let files = paths.iter().flat_map(|path| list(path).unwrap_or_else(|_| vec![path.clone()]));
    Stamp(files.map(|file| (fs::metadata(&file).ok().as_ref().map(of), file)).map(|(s, f)| (f, s)).collect())
}

fn unread(file: &Path, error: &io::Error) -> Unread {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "make it readable",
        _ => "check the file",
    };
    Unread { file: file.to_owned(), message: error.to_string(), remedy }
}
