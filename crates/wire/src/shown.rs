//! Messages as people read them: JSON in the form that Linkerd's `diagnostics` prints.
//!
//! Fields have their names of the protocol and are left out where they say nothing; the case of a `oneof` stands in an object of its own.
//! Generated types have no reflection but their `Debug` form, which [`json`] reads; that it reads every message is tested.

use std::fmt::{Debug, Write};

/// Levels of nesting in a message.
const MAX_DEPTH: usize = 64;

#[derive(Debug, PartialEq)]
enum Value {
    /// A field that is not given.
    Absent,
    /// As it is written in JSON.
    Plain(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
    /// A case of a `oneof`.
    Case(String, Box<Value>),
}

/// The message, indented.
pub(crate) fn json(message: &impl Debug) -> String {
    let text = format!("{message:?}");
    let mut reader = Reader(&text);
    let mut out = String::new();
    match reader.value(MAX_DEPTH).filter(|_| reader.0.is_empty()) {
        Some(value) => write(&value, 0, &mut out),
        // It is shown all the same.
        None => quote(&text, &mut out),
    }
    out
}

/// Whether every part of a message is understood.
#[cfg(test)]
pub(crate) fn is_read(message: &impl Debug) -> bool {
    let text = format!("{message:?}");
    let mut reader = Reader(&text);
    reader.value(MAX_DEPTH).is_some() && reader.0.is_empty()
}

/// What is left of the text.
struct Reader<'t>(&'t str);

impl<'t> Reader<'t> {
    fn take(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }

    fn word(&mut self) -> &'t str {
        let end = self.0.find(|c: char| !(c.is_alphanumeric() || "_#.-+".contains(c))).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        if self.take("[").is_some() {
            return self.items("]", |reader| reader.value(depth)).map(Value::List);
        }
        if self.take("{").is_some() {
            let entries = self.items("}", |reader| {
                let key = reader.key()?;
                reader.take(": ")?;
                Some((key, reader.value(depth)?))
            });
            // A map has no order of its own.
            return entries.map(|mut entries| {
                entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                Value::Object(entries)
            });
        }
        if self.0.starts_with('"') {
            let mut text = String::new();
            quote(&self.text()?, &mut text);
            return Some(Value::Plain(text));
        }
        let word = self.word();
        match word {
            "" => return None,
            "None" => return Some(Value::Absent),
            "true" | "false" => return Some(Value::Plain(word.to_owned())),
            "inf" | "-inf" | "NaN" => return Some(Value::Plain(format!("\"{word}\""))),
            _ if word.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                return Some(Value::Plain(word.to_owned()));
            }
            _ => {}
        }
        if self.take(" { ").is_some() {
            let fields = self.items(" }", |reader| {
                let name = reader.word();
                reader.take(": ")?;
                let given = reader.0.starts_with("Some(");
                let value = reader.value(depth)?;
                Some((name.trim_start_matches("r#").to_owned(), value, given))
            })?;
            let said = fields.into_iter().filter(|(_, value, given)| *given || !says_nothing(value));
            return Some(Value::Object(said.map(|(name, value, _)| field(name, value)).collect()));
        }
        if self.take("(").is_some() {
            let inner = self.value(depth)?;
            self.take(")")?;
            return Some(if word == "Some" { inner } else { Value::Case(word.to_owned(), Box::new(inner)) });
        }
        // A message without fields; of values only the names of methods and schemes are words.
        let is_name = matches!(
            word,
            "Get" | "Post" | "Put" | "Delete" | "Patch" | "Options" | "Connect" | "Head" | "Trace" | "Http" | "Https"
        );
        Some(if is_name { Value::Plain(format!("\"{}\"", word.to_uppercase())) } else { Value::Object(vec![]) })
    }

    fn items<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = vec![];
        while self.take(end).is_none() {
            if !items.is_empty() {
                self.take(", ")?;
            }
            items.push(item(self)?);
        }
        Some(items)
    }

    fn key(&mut self) -> Option<String> {
        if self.0.starts_with('"') { self.text() } else { Some(self.word().to_owned()) }
    }

    /// A text with Rust's escapes.
    fn text(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut text = String::new();
        loop {
            let mut chars = self.0.chars();
            let next = chars.next()?;
            self.0 = chars.as_str();
            match next {
                '"' => return Some(text),
                '\\' => {
                    let mut chars = self.0.chars();
                    let escaped = chars.next()?;
                    self.0 = chars.as_str();
                    text.push(match escaped {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        '0' => '\0',
                        'u' => {
                            self.take("{")?;
                            let (digits, rest) = self.0.split_once('}')?;
                            self.0 = rest;
                            char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                        }
                        other => other,
                    });
                }
                other => text.push(other),
            }
        }
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Absent => true,
        Value::Plain(text) => matches!(text.as_str(), "0" | "0.0" | "false" | "\"\""),
        Value::List(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        Value::Case(..) => false,
    }
}

/// Go writes the field of a `oneof` with its own name, in capitals.
fn field(name: String, value: Value) -> (String, Value) {
    if !matches!(value, Value::Case(..)) {
        return (name, value);
    }
    let parts = name.split('_').map(|part| {
        let mut chars = part.chars();
        chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    });
    (parts.collect(), value)
}

fn write(value: &Value, indent: usize, out: &mut String) {
    let line = |out: &mut String, indent: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(indent));
    };
    match value {
        Value::Absent => out.push_str("null"),
        Value::Plain(text) => out.push_str(text),
        Value::List(items) if items.is_empty() => out.push_str("[]"),
        Value::List(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                line(out, indent + 1);
                write(item, indent + 1, out);
            }
            line(out, indent);
            out.push(']');
        }
        Value::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Value::Object(entries) => {
            out.push('{');
            for (i, (key, value)) in entries.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { "," });
                line(out, indent + 1);
                quote(key, out);
                out.push_str(": ");
                write(value, indent + 1, out);
            }
            line(out, indent);
            out.push('}');
        }
        Value::Case(name, value) => {
            out.push('{');
            line(out, indent + 1);
            quote(name, out);
            out.push_str(": ");
            write(value, indent + 1, out);
            line(out, indent);
            out.push('}');
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use linkerd2_proxy_api::{destination, http_types, inbound, net};
    use std::collections::HashMap;

    #[test]
    fn a_message_is_shown_as_linkerd_shows_it() {
        let profile = destination::DestinationProfile {
            fully_qualified_name: "web.\"ns\"\n\u{1}é".to_owned(),
            opaque_protocol: true,
            endpoint: Some(destination::WeightedAddr {
                addr: Some(net::TcpAddress {
                    ip: Some(net::IpAddress { ip: Some(net::ip_address::Ip::Ipv4(0)) }),
                    port: 8080,
                }),
                metric_labels: HashMap::from([("pod".to_owned(), "a{}, [b]".to_owned())]),
                protocol_hint: Some(destination::ProtocolHint {
                    protocol: Some(destination::protocol_hint::Protocol::H2(destination::protocol_hint::H2 {})),
                    opaque_transport: None,
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let expected = r#"{
  "fully_qualified_name": "web.\"ns\"\n\u0001é",
  "opaque_protocol": true,
  "endpoint": {
    "addr": {
      "ip": {
        "Ip": {
          "Ipv4": 0
        }
      },
      "port": 8080
    },
    "metric_labels": {
      "pod": "a{}, [b]"
    },
    "protocol_hint": {
      "Protocol": {
        "H2": {}
      }
    }
  }
}"#;
        assert_eq!(json(&profile), expected);
        let method = http_types::HttpMethod { r#type: Some(http_types::http_method::Type::Registered(1)) };
        assert!(json(&method).contains("\"Registered\": "), "{}", json(&method));
        assert!(is_read(&method));
        assert_eq!(json(&inbound::Server::default()), "{}");
    }
}
