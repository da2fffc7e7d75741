//! From JSON values to the YAML that people read and `kubectl` applies.
//!
//! Fields stand in the order of their names, as Linkerd's and kubectl's own output has them. What another reader could take for
//! something else than a text is quoted: older ones make truth values of `yes`, and times of `1:30`.

use serde_json::Value;

/// One document, without a marker.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(items) if !items.is_empty() => block(value, 0, &mut out),
        scalar => {
            inline(scalar, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

/// The lines of a map or list that has entries.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (i, (key, value)) in map.iter().enumerate() {
                // The first line of a map in a list stands behind its dash.
                if i > 0 || out.is_empty() || out.ends_with('\n') {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                line(key, 0, out);
                out.push(':');
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        out.push('\n');
                        block(value, indent + 2, out);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        out.push('\n');
                        block(value, indent, out);
                    }
                    scalar => {
                        out.push(' ');
                        inline(scalar, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if i > 0 || out.is_empty() || out.ends_with('\n') {
                    out.extend(std::iter::repeat_n(' ', indent));
                }
                out.push_str("- ");
                match item {
                    Value::Object(map) if !map.is_empty() => block(item, indent + 2, out),
                    Value::Array(items) if !items.is_empty() => block(item, indent + 2, out),
                    scalar => {
                        inline(scalar, indent + 2, out);
                        out.push('\n');
                    }
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn inline(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) => line(text, indent, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.push_str(&value.to_string()),
    }
}

/// A text: plain, as a block of lines where `indent` allows one, or quoted.
fn line(text: &str, indent: usize, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else if indent > 0 && is_block(text) {
        out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
        for row in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            out.push('\n');
            if !row.is_empty() {
                out.extend(std::iter::repeat_n(' ', indent));
                out.push_str(row);
            }
        }
    } else {
        quoted(text, out);
    }
}

/// Whether every reader takes the text, as it is, for itself.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];
    let mut chars = text.chars();
    let begins = match (chars.next(), chars.next()) {
        // Three of them are the end of a document.
        (Some('-'), Some('-')) => chars.next().is_some_and(|third| third.is_ascii_alphabetic()),
        (Some('-'), Some(second)) => second.is_ascii_alphabetic(),
        (Some(first), _) => first.is_ascii_alphabetic() || matches!(first, '/' | '_' | '$'),
        (None, _) => false,
    };
    begins
        && !text.ends_with([':', ' '])
        && !text.contains(": ")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || " /_.$-:,@()+=~[]{}*%<>".contains(c))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text.trim_start_matches('-')))
}

/// Whether the text can stand as lines, each as it is.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    text.contains('\n')
        && !body.is_empty()
        && !body.starts_with(['\n', ' '])
        && !body.ends_with(['\n', ' '])
        && text.chars().all(|c| c == '\n' || is_printable(c))
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
}
