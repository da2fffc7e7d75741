//! Where in a document something stands.

use std::fmt;

/// The way from a document's top to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Of the form in which it is shown, of keys without dots.
    pub(super) fn of_text(text: &str) -> Self {
        let parts = text.split(['.', '[']).filter(|part| !part.is_empty());
        parts.fold(Self::default(), |at, part| match part.strip_suffix(']').and_then(|i| i.parse().ok()) {
            Some(index) => at.index(index),
            None => at.key(part),
        })
    }

    #[must_use]
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    #[must_use]
    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// Several keys at once.
    #[must_use]
    pub(super) fn keys(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |path, key| path.key(key))
    }

    fn then(&self, step: Step) -> Self {
        let mut path = self.clone();
        path.0.push(step);
        path
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                // A key with dots or slashes, such as an annotation's, stands in brackets.
                Step::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]")?,
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

impl From<&serde_ignored::Path<'_>> for Path {
    fn from(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path as P;
        match path {
            P::Root => Self::default(),
            P::Seq { parent, index } => Self::from(*parent).index(*index),
            P::Map { parent, key } => Self::from(*parent).key(key),
            P::Some { parent } | P::NewtypeStruct { parent } | P::NewtypeVariant { parent } => Self::from(*parent),
        }
    }
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as S;
        path.iter().fold(Self::default(), |at, segment| match segment {
            S::Seq { index } => at.index(*index),
            S::Map { key } => at.key(key),
            S::Enum { variant } => at.key(variant),
            S::Unknown => at,
        })
    }
}
