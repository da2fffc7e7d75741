//! A JSON patch, made together with the object that it leads to: the two cannot differ.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One step of a JSON patch (RFC 6902).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    pub op: Op,
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Add,
    Remove,
}

/// The steps so far, and the object as it is after them.
pub(super) struct Patch {
    pub(super) object: Value,
    pub(super) operations: Vec<Operation>,
}

impl Patch {
    pub(super) fn new(object: Value) -> Self {
        Self { object, operations: vec![] }
    }

    /// Adds a field, or an item of a list: `-` at its end, a number in front of that item. What stands around it must be there.
    pub(super) fn add(&mut self, path: &str, value: Value) {
        let Some((parent, last)) = path.rsplit_once('/') else { return };
        let added = match self.object.pointer_mut(parent) {
            Some(Value::Object(map)) => {
                map.insert(unescaped(last), value.clone());
                true
            }
            Some(Value::Array(items)) => {
                let at = if last == "-" { Some(items.len()) } else { last.parse().ok().filter(|i| *i <= items.len()) };
                at.map(|at| items.insert(at, value.clone())).is_some()
            }
            _ => false,
        };
        if added {
            self.operations.push(Operation { op: Op::Add, path: path.to_owned(), value: Some(value) });
        }
    }

    /// Adds entries to a map, which is made if it is not there.
    pub(super) fn add_entries(&mut self, map: &str, entries: impl IntoIterator<Item = (String, String)>) {
        for (key, value) in entries {
            if self.object.pointer(map).and_then(|m| m.get(&key)).and_then(Value::as_str) != Some(&value) {
                if let Some((around, _)) = map.rsplit_once('/') {
                    self.ensure(around, Value::Object(Map::default()));
                }
                self.ensure(map, Value::Object(Map::default()));
                self.add(&format!("{map}/{}", escaped(&key)), Value::String(value));
            }
        }
    }

    /// Adds an item to a list, which is made if it is not there.
    pub(super) fn add_item(&mut self, list: &str, at: Place, item: Value) {
        self.ensure(list, Value::Array(vec![]));
        let at = match at {
            Place::First(at) => at.to_string(),
            Place::Last => "-".to_owned(),
        };
        self.add(&format!("{list}/{at}"), item);
    }

    fn ensure(&mut self, path: &str, empty: Value) {
        if !path.is_empty() && self.object.pointer(path).is_none_or(Value::is_null) {
            self.add(path, empty);
        }
    }

    /// Removes what is there.
    pub(super) fn remove(&mut self, path: &str) {
        let Some((parent, last)) = path.rsplit_once('/') else { return };
        let removed = match self.object.pointer_mut(parent) {
            Some(Value::Object(map)) => map.remove(&unescaped(last)).is_some(),
            Some(Value::Array(items)) => match last.parse::<usize>() {
                Ok(at) if at < items.len() => {
                    items.remove(at);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        if removed {
            self.operations.push(Operation { op: Op::Remove, path: path.to_owned(), value: None });
        }
    }

    /// Removes the entries of a map, or the items of a list, that `unwanted` names, and what is empty then. Says whether there
    /// were any.
    pub(super) fn remove_all(&mut self, path: &str, unwanted: impl Fn(&str, &Value) -> bool) -> bool {
        let mut found: Vec<String> = match self.object.pointer(path) {
            Some(Value::Object(map)) => map.iter().filter(|(k, v)| unwanted(k, v)).map(|(k, _)| escaped(k)).collect(),
            Some(Value::Array(items)) => {
                let name = |item: &Value| item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                items.iter().enumerate().filter(|(_, v)| unwanted(&name(v), v)).map(|(i, _)| i.to_string()).collect()
            }
            _ => vec![],
        };
        // From the end, so that the numbers of those before stay what they are.
        found.reverse();
        for last in &found {
            self.remove(&format!("{path}/{last}"));
        }
        let empty = match self.object.pointer(path) {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            _ => false,
        };
        if empty && !found.is_empty() {
            self.remove(path);
        }
        !found.is_empty()
    }
}

/// Where in a list.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// In front, behind so many items.
    First(usize),
    Last,
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescaped(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// Applies steps as the API server does; for tests and for whoever has only the patch.
pub fn apply(object: &Value, operations: &[Operation]) -> Value {
    let mut patch = Patch::new(object.clone());
    for Operation { op, path, value } in operations {
        match op {
            Op::Add => patch.add(path, value.clone().unwrap_or_default()),
            Op::Remove => patch.remove(path),
        }
    }
    patch.object
}
