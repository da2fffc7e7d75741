//! From layers of texts to the typed tree, with the path of everything that is wrong.

use super::{Values, kind};
use crate::manifest;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::fmt;

/// A value that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `proxy.ports.admin`; empty for the whole text.
    pub path: String,
    pub message: String,
    pub remedy: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}; {}", self.path, self.message, self.remedy)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

pub(super) fn problem(path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { path: path.into(), message: message.into(), remedy: remedy.into() }
}

pub(super) fn from_yaml(text: &str) -> Result<Value, Problems> {
    let whole = |message: String, remedy: &str| Problems(vec![problem("", message, remedy)]);
    match manifest::one_document(text).map_err(|e| whole(format!("line {}: {}", e.line, e.message), e.remedy))? {
        Value::Null => Ok(Value::Object(Map::default())),
        Value::Object(map) => Ok(Value::Object(map)),
        _ => Err(whole("values are no map".to_owned(), "write names and values")),
    }
}

/// Lays `above` over `below`.
pub(super) fn lay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(old) => lay(old, value),
                    None => drop(below.insert(key, value)),
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// Takes the value at a path, such as `proxy.ports.admin`, out of a tree.
pub(crate) fn remove(tree: &mut Value, path: &str) -> Option<Value> {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = parents.split('.').filter(|s| !s.is_empty()).try_fold(tree, |at, step| at.get_mut(step))?;
    parent.as_object_mut()?.remove(last)
}

/// Maps that have entries by default, each of which somebody may take away.
const WITH_ENTRIES: [&str; 2] = ["nodeSelector", "proxy.tracing.labels"];

/// What was given, on top of the defaults, with every key that is no value and every value of another type. Of all that an installation
/// has, an entry that is not there was taken away.
pub(super) fn typed(given: Value, is_all: bool) -> Result<Values, Vec<Problem>> {
    let mut tree = serde_json::to_value(Values::default()).unwrap_or_default();
    for path in WITH_ENTRIES.into_iter().filter(|_| is_all) {
        if given.pointer(&format!("/{}", path.replace('.', "/"))).is_some() {
            remove(&mut tree, path);
        }
    }
    lay(&mut tree, given);
    without_nulls(&mut tree);
    read_as(tree)
}

/// A tree as a type, with the path of everything that is none of its fields or of another type.
pub(super) fn read_as<T: DeserializeOwned + Serialize>(tree: Value) -> Result<T, Vec<Problem>> {
    let mut unknown = vec![];
    let mut see = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    let read = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(&tree, &mut see));
    let mut problems: Vec<Problem> = unknown
        .into_iter()
        .map(|path| problem(path.replace(".?", ""), "there is no such value", "correct the spelling, or remove it"))
        .collect();
    match read {
        Ok(values) => match manifest::by_position(&tree, &values) {
            Some(path) => {
                let (message, remedy) = manifest::list_for_value();
                problems.push(Problem { path: path.to_string(), message, remedy });
            }
            None if problems.is_empty() => return Ok(values),
            None => {}
        },
        Err(error) => {
            let path = error.path().to_string();
            let error = error.into_inner();
            let (message, remedy) = manifest::of_another_type(&error)
                .map(|(message, remedy)| {
                    (message, kind::wanted(&path).map_or(remedy, |wanted| format!("give {wanted}")))
                })
                .unwrap_or_else(|| (error.to_string(), "give what docs/reference/values.md says".to_owned()));
            problems.push(Problem { path, message, remedy });
        }
    }
    Err(problems)
}

/// `null` takes away what was given, or an entry of a map; of a value the default is left.
fn without_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(without_nulls);
    }
}
