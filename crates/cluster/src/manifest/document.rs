//! From text to documents that know the line of each field.

use super::path::{Path, Step};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;

/// Documents in one file.
pub(super) const MAX_DOCUMENTS: usize = 2_000;
/// Levels of nesting in one document, aliases written out. Kubernetes needs half as many.
const MAX_DEPTH: usize = 32;
/// Aliases inside of aliases.
const MAX_ALIAS_DEPTH: usize = 8;
/// The reader needs up to 40 KiB per level in a build without optimisation, more than a thread usually has: aliases multiply
/// the levels until they are counted.
const STACK: usize = 32 << 20;
/// Values in one document, as it is written: a list of three thousand Deployments, as kubectl prints it.
const MAX_NODES: usize = 500_000;
/// Aliases in one document.
const MAX_ALIASES: usize = 1_000;
/// Values that all aliases of one document stand for: a few lines may mean billions.
const MAX_ALIASED: usize = 10_000;

/// A value and the line where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: u32,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Node>),
    /// Each key with its line.
    Map(Vec<(String, u32, Node)>),
}

/// One document's text and how many lines stand before it in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunk<'t> {
    pub(super) text: &'t str,
    pub(super) lines_before: u32,
}

/// Why a document could not be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {message}; {remedy}")]
pub(crate) struct Unreadable {
    pub(crate) line: u32,
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
}

/// Splits at the document markers, which YAML knows at the beginning of a line only, so that a mistake in one document does
/// not hide the others. Documents without content are left out.
pub(super) fn split(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut chunks = vec![];
    let (mut begin, mut begin_line) = (0, 0);
    let (mut at, mut line) = (0, 0);
    for row in text.split_inclusive('\n') {
        let bare = row.trim_end();
        let marker = bare == "---" || row.starts_with("--- ") || row.starts_with("---\t");
        if marker || bare == "..." {
            chunks.push(Chunk { text: text.get(begin..at).unwrap_or_default(), lines_before: begin_line });
            // What stands behind the marker in its line belongs to the document.
            (begin, begin_line) = (at + 3, line);
        }
        at += row.len();
        line += 1;
    }
    chunks.push(Chunk { text: text.get(begin..).unwrap_or_default(), lines_before: begin_line });
    chunks.retain(|c| c.text.lines().any(has_content));
    chunks
}

fn has_content(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
}

pub(super) fn parse(chunk: &Chunk<'_>) -> Result<Node, Unreadable> {
    let unread = || Unreadable {
        line: chunk.lines_before.saturating_add(1),
        message: "the document could not be read".to_owned(),
        remedy: "simplify it",
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || read(chunk));
        reader.map_err(|_| unread())?.join().map_err(|_| unread())?
    })
}

fn read(chunk: &Chunk<'_>) -> Result<Node, Unreadable> {
    let options = serde_saphyr::options! {
        // As kubectl reads them: people write modes of files so, such as `defaultMode: 0644`.
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_recorded_anchor_events: MAX_ALIASED,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED,
            max_replay_stack_depth: MAX_ALIAS_DEPTH,
        },
    };
    let mut node: Node = serde_saphyr::from_str_with_options(chunk.text, options).map_err(|error| {
        let line = error.location().map_or(1, |l| u32::try_from(l.line()).unwrap_or(u32::MAX));
        let (message, remedy) = explained(error.without_snippet());
        Unreadable { line: line.saturating_add(chunk.lines_before), message, remedy }
    })?;
    node.shift(chunk.lines_before);
    if node.is_deeper_than(MAX_DEPTH) {
        let (message, remedy) = too_deep();
        return Err(Unreadable { line: node.line, message, remedy });
    }
    Ok(node)
}

fn too_deep() -> (String, &'static str) {
    (format!("nested too deeply: more than {MAX_DEPTH} levels"), "nest it less")
}

/// What is wrong with the text, and what to do.
fn explained(error: &serde_saphyr::Error) -> (String, &'static str) {
    use serde_saphyr::{Error, budget::BudgetBreach};
    match error {
        // Found where an alias stands.
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => explained(error),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => too_deep(),
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            format!(
                "too many nodes or aliases: a document may have {MAX_NODES} nodes and {MAX_ALIASES} aliases, which together \
                 stand for {MAX_ALIASED} nodes"
            ),
            "write out what the aliases stand for, or split the document",
        ),
        Error::DuplicateMappingKey { key: Some(key), .. } => (format!("the key `{key}` stands twice"), "remove one"),
        Error::DuplicateMappingKey { key: None, .. } => ("a key stands twice".to_owned(), "remove one"),
        other => {
            // The location is reported beside the message.
            let text = other.to_string();
            let message = text.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default();
            (message.to_owned(), "correct the YAML")
        }
    }
}

impl Node {
    fn shift(&mut self, lines: u32) {
        self.line = self.line.saturating_add(lines);
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|n| n.shift(lines)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, line, n)| {
                *line = line.saturating_add(lines);
                n.shift(lines);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
        }
    }

    fn is_deeper_than(&self, levels: usize) -> bool {
        let Some(below) = levels.checked_sub(1) else { return true };
        match &self.value {
            Value::List(items) => items.iter().any(|n| n.is_deeper_than(below)),
            Value::Map(entries) => entries.iter().any(|(.., n)| n.is_deeper_than(below)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => false,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, ..)| k == key).map(|(.., n)| n),
            _ => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether Kubernetes would take the value for "not given".
    pub(super) fn is_absent(&self) -> bool {
        match &self.value {
            Value::Null | Value::Bool(false) => true,
            Value::Bool(true) | Value::Number(_) => false,
            Value::Text(text) => text.is_empty(),
            Value::List(items) => items.is_empty(),
            Value::Map(entries) => entries.is_empty(),
        }
    }

    /// The line of the field at `path`, or of the nearest thing around it.
    pub(super) fn line_of(&self, path: &Path) -> u32 {
        let (mut node, mut line) = (self, self.line);
        for step in path.steps() {
            let next = match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    entries.iter().find(|(k, ..)| k == key).map(|(_, l, n)| (*l, n))
                }
                (Step::Index(index), Value::List(items)) => items.get(*index).map(|n| (n.line, n)),
                _ => None,
            };
            match next {
                Some((found, n)) => (line, node) = (found, n),
                None => break,
            }
        }
        line
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::Text(t) => Json::String(t.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => Json::Object(entries.iter().map(|(k, _, n)| (k.clone(), n.to_json())).collect()),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: u32::try_from(spanned.referenced.line()).unwrap_or(u32::MAX), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number is finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = vec![];
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, u32, Node)> = vec![];
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = u32::try_from(key.referenced.line()).unwrap_or(u32::MAX);
            entries.push((key.value, line, map.next_value()?));
        }
        if entries.len() > MAX_NODES {
            return Err(A::Error::custom("too many fields"));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let text = "%YAML 1.2\n---\n# only a comment\n---\na:\n  b:\n  - c: 1\n    d: x\n---\n\nz: [\"---\"]\n...\n";
        let chunks = split(text);
        assert_eq!(chunks.len(), 2);
        let first = parse(&chunks[0]).unwrap();
        assert_eq!(first.line_of(&Path::default().key("a")), 5);
        assert_eq!(first.line_of(&Path::default().keys(&["a", "b"]).index(0).key("d")), 8);
        assert_eq!(first.line_of(&Path::default().keys(&["a", "b"]).index(0).key("none")), 7);
        let second = parse(&chunks[1]).unwrap();
        assert_eq!(second.line_of(&Path::default().key("z")), 11);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line) in [("a: 1\nb: [\n", 2), ("a: 1\n\na: 2\n", 3), ("x:\n\t- y\n", 2)] {
            let chunks = split(text);
            let error = parse(&chunks[0]).unwrap_err();
            assert!(error.line.abs_diff(line) <= 1, "{text:?}: {error:?}");
            assert!(!error.message.is_empty());
        }
    }

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        use serde_json::json;
        for (text, expected) in [
            ("0644", json!(420)),
            ("-010", json!(-8)),
            ("0", json!(0)),
            ("0o17", json!(15)),
            ("0x1f", json!(31)),
            ("\"0644\"", json!("0644")),
            ("0644a", json!("0644a")),
            ("yes", json!(true)),
            ("Off", json!(false)),
            ("1:30", json!("1:30")),
            ("2020-01-01", json!("2020-01-01")),
            ("~", json!(null)),
        ] {
            let text = format!("a: {text}\n");
            assert_eq!(parse(&Chunk { text: &text, lines_before: 0 }).unwrap().to_json()["a"], expected, "{text}");
        }
        let merged = "base: &base { a: 1, b: 2 }\nover:\n  <<: *base\n  b: 3\n";
        assert_eq!(parse(&Chunk { text: merged, lines_before: 0 }).unwrap().to_json()["over"], json!({"a": 1, "b": 3}));
    }

    #[test]
    fn documents_are_bounded() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let before = format!("*a{},", i - 1).repeat(10);
            bomb += &format!("a{i}: &a{i} [{before}]\n");
        }
        let long = "a: 1\n".to_owned() + &"- x\n".repeat(10);
        for text in [deep.as_str(), &bomb, &long] {
            assert!(parse(&Chunk { text, lines_before: 0 }).is_err());
        }
    }

    /// In a build without optimisation, on a machine that does other things as well.
    #[test]
    fn a_bomb_is_refused_at_once_and_in_our_words() {
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..12 {
            let before = format!("*a{},", i - 1).repeat(10);
            bomb += &format!("a{i}: &a{i} [{before}]\n");
        }
        let wide = "a:\n".to_owned() + &"- x\n".repeat(MAX_NODES + 1);
        for (text, begins) in [
            (bomb.as_str(), "too many nodes or aliases: "),
            (&wide, "too many nodes or aliases: "),
            (&("[".repeat(100) + &"]".repeat(100)), "nested too deeply: "),
            ("kind: a\nkind: b\n", "the key `kind` stands twice"),
        ] {
            let error = parse(&Chunk { text, lines_before: 0 }).unwrap_err();
            assert!(error.message.starts_with(begins), "{error:?}");
        }
        // Levels that only aliases make, as many as there may be and more.
        for links in [8, 9, 70] {
            let deep = |inner: &str| "[".repeat(MAX_DEPTH - 3) + inner + &"]".repeat(MAX_DEPTH - 3);
            let mut chain = format!("a0: &a0 {}\n", deep("x"));
            for i in 1..links {
                chain += &format!("a{i}: &a{i} {}\n", deep(&format!("*a{}", i - 1)));
            }
            assert!(parse(&Chunk { text: &chain, lines_before: 0 }).is_err(), "{links}");
        }
        let start = std::time::Instant::now();
        assert!(parse(&Chunk { text: &bomb, lines_before: 0 }).is_err());
        assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
        // What people write goes through.
        let label = "l: &l {app: web, tier: front}\nuse: [*l, *l, *l]\n";
        assert!(parse(&Chunk { text: label, lines_before: 0 }).is_ok());
    }
}
