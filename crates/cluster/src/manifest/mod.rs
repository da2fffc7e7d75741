//! Reads manifests: files and folders in, typed objects and everything that is wrong with them out.
//!
//! ```text
//! path ─► files (bounded) ─► document (lines kept) ─► typed (unknown fields found) ─► fields (table of decisions) ─► check
//! ```
//!
//! What is wrong with one object never hides another: each is refused or accepted by itself. Nothing is written here and
//! nothing is run.

use crate::{Key, Object};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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

/// Reads every path: a file, or a folder with its `.yaml`, `.yml` and `.json` files, in the order of their names.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let _ = paths;
    Loaded::default()
}

/// Reads one text as if it stood in `file`.
pub fn load_text(file: &Path, text: &str) -> Loaded {
    let _ = (file, text);
    Loaded::default()
}

impl Loaded {
    /// What should run after a change on disk: what is read now, and from `previous` what is refused now, so that a mistake
    /// does not stop what runs.
    #[must_use]
    pub fn keeping(&self, previous: &[Located]) -> Vec<Located> {
        let _ = previous;
        self.objects.clone()
    }
}
