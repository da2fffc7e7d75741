//! Where in a document something stands.

use std::fmt;

/// The way from a document's top to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Of the form in which it is shown.
    pub(super) fn of_text(text: &str) -> Self {
        let (mut at, mut rest) = (Self::default(), text);
        while !rest.is_empty() {
            let bracketed = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let end = rest.char_indices().skip(1).find(|(_, c)| matches!(c, '.' | '[')).map_or(rest.len(), |(i, _)| i);
            let (part, after) = bracketed.unwrap_or_else(|| rest.split_at(end));
            at = match part.parse() {
                Ok(index) if bracketed.is_some() => at.index(index),
                _ => at.key(part),
            };
            rest = after.strip_prefix('.').unwrap_or(after);
        }
        at
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

    /// With another one below.
    #[must_use]
    pub(super) fn join(&self, below: &Self) -> Self {
        Self(self.0.iter().chain(&below.0).cloned().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_shown() {
        let top = Path::default();
        let annotation = top.keys(&["metadata", "annotations", "retry.linkerd.io/http"]);
        for path in [top.key("spec").key("networks").index(0).key("except").index(12), annotation, top.key("kind"), top]
        {
            assert_eq!(Path::of_text(&path.to_string()), path);
        }
        for odd in [".", "[", "a[", "a.[b", "a..b", "]"] {
            let _ = Path::of_text(odd);
        }
    }
}
