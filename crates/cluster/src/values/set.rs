//! `--set`: values on a command line, as Helm reads them.

use super::layer::{Problem, lay, problem};
use serde_json::{Map, Value};

/// Where the text of a value comes from, and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Numbers, truth values and `null` are what they look like.
    Typed,
    /// Always a text.
    Text,
}

/// A layer from `a.b=1,c={x,y}`. A backslash takes its meaning from a dot, a comma, an equals sign or a brace.
pub fn set(text: &str, how: Set) -> Result<Value, Problem> {
    let wrong = |message: &str| problem("", format!("--set {text}: {message}"), "write NAME.NAME=VALUE");
    let mut layer = Value::Object(Map::default());
    for assignment in split(text, ',') {
        let Some((name, value)) = cut(&assignment) else { return Err(wrong("there is no '=' in it")) };
        let value = match value.strip_prefix('{').and_then(|v| v.strip_suffix('}')) {
            Some("") => Value::Array(vec![]),
            Some(items) => split(items, ',').iter().map(|item| typed(&plain(item), how)).collect(),
            None => typed(&plain(value), how),
        };
        lay(&mut layer, nest(name, value).map_err(|message| wrong(&message))?);
    }
    Ok(layer)
}

/// A layer from a name and what a file holds.
pub fn set_to(name: &str, value: &str) -> Result<Value, Problem> {
    nest(name, value.into()).map_err(|message| problem(name, message, "write NAME.NAME=FILE"))
}

fn nest(name: &str, value: Value) -> Result<Value, String> {
    let mut nested = value;
    for key in split(name, '.').iter().rev() {
        let key = plain(key);
        if key.is_empty() {
            return Err("a name is empty".to_owned());
        }
        if key.contains('[') {
            return Err(format!(
                "{key}: items of a list have no names of their own: give the whole list, in a file of --values"
            ));
        }
        nested = Value::Object(Map::from_iter([(key, nested)]));
    }
    Ok(nested)
}

fn typed(text: &str, how: Set) -> Value {
    if how == Set::Text {
        return text.into();
    }
    match text {
        "true" => true.into(),
        "false" => false.into(),
        "null" => Value::Null,
        "0" => 0.into(),
        // A number that begins with 0 is somebody's text.
        _ if text.starts_with('0') || text.starts_with('+') => text.into(),
        _ => text.parse::<i64>().map_or_else(|_| text.into(), Value::from),
    }
}

/// At what is neither behind a backslash nor within braces.
fn split(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut escaped) = (vec![], String::new(), 0_u32, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if c == at && depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
}

/// At the first equals sign that is not behind a backslash.
fn cut(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    let at = text.char_indices().find(|(_, c)| {
        let found = *c == '=' && !escaped;
        escaped = *c == '\\' && !escaped;
        found
    });
    let (name, value) = text.split_at_checked(at?.0)?;
    Some((name, value.get(1..)?))
}

/// Without the backslashes.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_is_read_as_helm_reads_it() {
        for (text, expected) in [
            ("a=1", json!({"a": 1})),
            ("a.b.c=x,a.d=true", json!({"a": {"b": {"c": "x"}, "d": true}})),
            ("a=null,b=", json!({"a": null, "b": ""})),
            ("a=007,b=-7,c=1.5", json!({"a": "007", "b": -7, "c": "1.5"})),
            (r"nodeSelector.kubernetes\.io/os=linux", json!({"nodeSelector": {"kubernetes.io/os": "linux"}})),
            (r"a=1\,2,b=x=y", json!({"a": "1,2", "b": "x=y"})),
            ("a={x,2},b={}", json!({"a": ["x", 2], "b": []})),
        ] {
            assert_eq!(set(text, Set::Typed), Ok(expected), "{text}");
        }
        assert_eq!(set("a=true,b=1", Set::Text), Ok(json!({"a": "true", "b": "1"})));
        assert_eq!(set_to("a.b", "text,\n"), Ok(json!({"a": {"b": "text,\n"}})));
        for bad in ["", "a", "=1", ".a=1", "a[0]=1", "a=1,"] {
            assert!(set(bad, Set::Typed).is_err(), "{bad}");
        }
    }
}
