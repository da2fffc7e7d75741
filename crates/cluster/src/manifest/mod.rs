//! Reads manifests: files and folders in, typed objects and everything that is wrong with them out.
//!
//! ```text
//! path ─► files (bounded) ─► document (lines kept) ─► kinds ─► typed (unknown fields) ─► fields (decisions) ─► check
//! ```
//!
//! What is wrong with one object never hides another: each is refused or accepted by itself. Nothing is written here and
//! nothing is run.

mod access;
mod check;
mod document;
mod fields;
mod files;
mod kinds;
mod mistyped;
mod path;
mod read;
mod typed;
mod version;

pub(crate) use document::Unreadable;
use files::Found;
pub use files::{Stamp, stamp};
pub(crate) use mistyped::{Mistyped, by_position, list_for_value, of_another_type};
pub(crate) use path::Path as FieldPath;
use read::{Place, Purpose};
pub(crate) use typed::of_type;

use crate::{Key, Object, object::DEFAULT_NAMESPACE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;
use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

/// What was read from manifests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// In the order of files and documents; no two have the same key.
    pub objects: Vec<Located>,
    pub problems: Vec<Problem>,
    pub ignored: Vec<Ignored>,
}

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    pub object: Object,
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 0 if the file could not be read.
    pub line: u32,
    /// The object that is refused; `None` if it could not be told, for example where the document is no YAML.
    pub object: Option<Key>,
    /// The path of the field, such as `spec.template.spec.containers[0].env[1].valueFrom`; empty for the whole document.
    pub field: String,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Whether what is refused says who may call whom, or what may leave, or may have: without it a mesh would let through what it
    /// keeps from going.
    #[serde(skip)]
    pub access: bool,
}

/// A known field that weft accepts and does not act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    pub file: PathBuf,
    pub line: u32,
    pub object: Key,
    pub field: String,
    /// What stands in for it.
    pub note: String,
}

/// `file:line: object: field: message; remedy`, without what is not known.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        f.write_str(" ")?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {} is ignored: {}", self.file.display(), self.line, self.object, self.field, self.note)
    }
}

/// A manifest that was read already, such as standard input, and what people call the place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub name: PathBuf,
    pub text: String,
}

/// What one manifest may have at most, wherever it is read from.
pub const MAX_MIB: usize = 10;
/// The same.
pub const MAX_BYTES: u64 = (MAX_MIB as u64) << 20;

/// Reads every text, then every path, to be run: a file, or a folder with the `.yaml`, `.yml` and `.json` files in it and in the folders
/// below it, in the order of their names. Anything but a regular file is a problem.
pub fn load(texts: &[Text], paths: &[PathBuf]) -> Loaded {
    load_for(Purpose::Run, DEFAULT_NAMESPACE, texts, paths)
}

/// Reads the same as what a cluster is to run, for questions about it: workloads of any kind, and what else says who may call whom. What
/// Kubernetes takes is taken, and what says nothing to the mesh is passed over. What names no namespace is in `namespace`.
pub fn load_to_ask(namespace: &str, texts: &[Text], paths: &[PathBuf]) -> Loaded {
    load_for(Purpose::Ask, namespace, texts, paths)
}

fn load_for(purpose: Purpose, namespace: &str, texts: &[Text], paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    for Text { name, text } in texts {
        read::text(Place { file: name, purpose, namespace }, text, &mut loaded);
    }
    // A file that is named twice, or by itself and by its folder, is read once.
    let mut seen = HashSet::new();
    for path in paths {
        let Found { files, unread, .. } = files::below(path, &mut seen);
        loaded.problems.extend(unread.into_iter().map(Problem::from));
        files.into_iter().for_each(|file| match files::read(&file) {
            Err(unread) => loaded.problems.push(unread.into()),
            Ok(text) => read::text(Place { file: &file, purpose, namespace }, &text, &mut loaded),
        });
    }
    loaded.finish()
}

/// What is hidden in folders, and so is not read, unless it is one of `paths` itself.
pub fn left_out(paths: &[PathBuf]) -> Vec<PathBuf> {
    let hidden = paths.iter().flat_map(|path| files::below(path, &mut HashSet::new()).hidden);
    let mut hidden: Vec<PathBuf> = hidden.filter(|hidden| !paths.contains(hidden)).collect();
    hidden.sort();
    hidden.dedup();
    hidden
}

/// The texts of a file, or of every manifest in a folder and in the folders below it, in the order of their names.
pub fn texts(path: &Path) -> Result<Vec<Text>, Box<Problem>> {
    let problem = |unread: files::Unread| Box::new(Problem::from(unread));
    let Found { files, unread, .. } = files::below(path, &mut HashSet::new());
    unread.into_iter().next().map_or(Ok(()), |unread| Err(problem(unread)))?;
    files.into_iter().map(|name| Ok(Text { text: files::read(&name).map_err(problem)?, name })).collect()
}

/// Reads one text as if it stood in `file`.
pub fn load_text(file: &Path, text: &str) -> Loaded {
    let mut loaded = Loaded::default();
    read::text(Place { file, purpose: Purpose::Run, namespace: DEFAULT_NAMESPACE }, text, &mut loaded);
    loaded.finish()
}

/// One document of a text, whatever it holds.
pub(crate) struct Document<'t>(document::Chunk<'t>);

impl<'t> Document<'t> {
    /// As it is written.
    pub(crate) fn text(&self) -> &'t str {
        self.0.text
    }

    /// Where it begins.
    pub(crate) fn line(&self) -> u32 {
        self.0.lines_before.saturating_add(1)
    }

    /// What it says, within the bounds that hold for manifests.
    pub(crate) fn value(&self) -> Result<serde_json::Value, Unreadable> {
        Ok(document::parse(&self.0)?.to_json())
    }
}

/// The documents of a text that have content.
pub(crate) fn documents(text: &str) -> Result<Vec<Document<'_>>, Unreadable> {
    let chunks = document::split(text);
    if chunks.len() > document::MAX_DOCUMENTS {
        let message = format!("the text has more than {} documents", document::MAX_DOCUMENTS);
        return Err(Unreadable { line: 1, message, remedy: "split it" });
    }
    Ok(chunks.into_iter().map(Document).collect())
}

/// What one document says, and where.
pub(crate) struct Typed<T> {
    pub(crate) value: T,
    pub(crate) lines: Lines,
}

/// The lines of a document's fields.
pub(crate) struct Lines(document::Node);

impl Lines {
    /// Of a field, such as `cases[1].client`, or of the nearest thing around it.
    pub(crate) fn of(&self, field: &str) -> u32 {
        self.0.line_of(&path::Path::of_text(field))
    }
}

/// The one document of a text, which has the fields of `T` and no others.
pub(crate) fn typed_document<T: DeserializeOwned + Serialize>(text: &str) -> Result<Typed<T>, Unreadable> {
    let documents = documents(text)?;
    let one = |count| Unreadable {
        line: 1,
        message: format!("there are {count} documents in it"),
        remedy: "write one document",
    };
    let [document] = documents.as_slice() else { return Err(one(documents.len())) };
    let node = document::parse(&document.0)?;
    let json = node.to_json();
    let wrong = |at: &path::Path, message: String, remedy| {
        let line = node.line_of(at);
        let message = match at.to_string() {
            at if at.is_empty() => message,
            at => format!("{at}: {message}"),
        };
        Unreadable { line, message, remedy }
    };
    let is_list = |at: &path::Path| wrong(at, "it is a list".to_owned(), "give an object, each field by its name");
    let value = serde_path_to_error::deserialize(&json).map_err(|error| {
        let at = path::Path::from(error.path());
        match error.into_inner().to_string() {
            told if mistyped::takes_list(&told) => is_list(&at),
            told => wrong(&at, told, "correct the field"),
        }
    })?;
    if let Some(at) = by_position(&json, &value) {
        return Err(is_list(&at));
    }
    Ok(Typed { value, lines: Lines(node) })
}

/// The value of a text with one document; none is `null`.
pub(crate) fn one_document(text: &str) -> Result<serde_json::Value, Unreadable> {
    match documents(text)?.as_slice() {
        [] => Ok(serde_json::Value::Null),
        [document] => document.value(),
        [..] => Err(Unreadable { line: 1, message: "there is more than one document".to_owned(), remedy: "use one" }),
    }
}

impl Loaded {
    /// Refuses what is there twice: the first stays.
    fn finish(mut self) -> Self {
        let mut first: HashMap<Key, (PathBuf, u32)> = HashMap::new();
        let mut kept = vec![];
        for located in self.objects {
            let key = located.object.key();
            if let Some((file, line)) = first.get(&key) {
                self.problems.push(Problem {
                    line: located.line,
                    field: "metadata.name".to_owned(),
                    message: format!("{key} is already defined in {}, line {line}", file.display()),
                    remedy: "remove one of them, or give it another name".to_owned(),
                    file: located.file,
                    // The first one is not refused.
                    object: None,
                    access: access::of_kind(key.kind.as_str()),
                });
            } else {
                first.insert(key, (located.file.clone(), located.line));
                kept.push(located);
            }
        }
        self.objects = kept;
        self
    }

    /// What should run after a change on disk: what is read now, and from `previous` what is refused now, so that a mistake
    /// does not stop what runs.
    #[must_use]
    pub fn keeping(&self, previous: &[Located]) -> Vec<Located> {
        let read: HashSet<Key> = self.objects.iter().map(|l| l.object.key()).collect();
        let refused: HashSet<&Key> = self.problems.iter().filter_map(|p| p.object.as_ref()).collect();
        // In a file with an unreadable part, or a folder that cannot be read, any of its objects may have been meant.
        let unclear: Vec<&Path> =
            self.problems.iter().filter(|p| p.object.is_none()).map(|p| p.file.as_path()).collect();
        let kept = previous.iter().filter(|l| {
            let key = l.object.key();
            !read.contains(&key) && (refused.contains(&key) || unclear.iter().any(|f| l.file.starts_with(f)))
        });
        self.objects.iter().chain(kept).cloned().collect()
    }
}

impl From<files::Unread> for Problem {
    fn from(unread: files::Unread) -> Self {
        Self {
            file: unread.file,
            line: 0,
            object: None,
            field: String::new(),
            message: unread.message,
            remedy: unread.remedy.to_owned(),
            // Whatever stands in it.
            access: true,
        }
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
