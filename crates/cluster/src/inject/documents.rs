//! Manifests before and after: every document of a text, and every item of a `List`, by one function.

use super::{Annotations, Mesh, Outcome, Refusal, Report, Skip, Warning, annotate, manual, uninject};
use super::{subject::is_ours, uninject::uninject_for_another};
use crate::{
    manifest::{self, Unreadable},
    yaml,
};
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fmt;

/// What is done with each object.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Asks the webhook for proxies, with these annotations besides.
    Annotate(&'a Annotations),
    /// Writes proxies.
    Manual(&'a Annotations, Mesh<'a>),
    /// Takes them away.
    Uninject,
}

/// How documents are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yaml,
    /// One document per line.
    Json,
}

/// A text afterwards.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changed {
    pub text: String,
    /// One per object, in their order.
    pub reports: Vec<Report>,
    /// With the object that each is about.
    pub warnings: Vec<(String, Warning)>,
}

/// Why a text is not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// It is no YAML, or too large.
    Unreadable { line: u32, message: String, remedy: &'static str },
    /// Objects that cannot have what is asked for, each with every reason.
    Refused(Vec<(String, String)>),
}

impl From<Unreadable> for Unchanged {
    fn from(unread: Unreadable) -> Self {
        Self::Unreadable { line: unread.line, message: unread.message, remedy: unread.remedy }
    }
}

impl fmt::Display for Unchanged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { line, message, remedy } => write!(f, "line {line}: {message}; {remedy}"),
            Self::Refused(objects) => {
                for (i, (object, reason)) in objects.iter().enumerate() {
                    write!(f, "{}failed to inject {object}: {reason}", if i == 0 { "" } else { "\n" })?;
                }
                Ok(())
            }
        }
    }
}

/// Changes every object of a text. If one cannot be changed none is.
pub fn change(text: &str, what: Change<'_>, format: Format) -> Result<Changed, Unchanged> {
    let mut out = Out { changed: Changed::default(), refused: vec![] };
    for document in manifest::documents(text)? {
        for (lines_before, text) in values(document.text()) {
            out.document(text, what, format).map_err(|unread| Unreadable {
                line: unread.line.saturating_add(document.line() - 1).saturating_add(lines_before),
                ..unread
            })?;
        }
    }
    if out.refused.is_empty() { Ok(out.changed) } else { Err(Unchanged::Refused(out.refused)) }
}

/// Of JSON there may be several in a document, with nothing between them, as [`Format::Json`] writes them: each, with how many lines
/// stand before it, and what else there is behind them.
fn values(text: &str) -> Vec<(u32, &str)> {
    let mut values = vec![];
    let (mut rest, mut lines_before) = (text, 0);
    while rest.trim_start().starts_with('{') {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        let Some(Ok(_)) = stream.next() else { break };
        let (value, behind) = rest.split_at(stream.byte_offset());
        values.push((lines_before, value));
        lines_before += u32::try_from(value.matches('\n').count()).unwrap_or(u32::MAX);
        rest = behind;
    }
    let is_end = rest.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if values.len() < 2 && is_end {
        return vec![(0, text)];
    }
    values.push((lines_before, rest));
    values
}

fn as_written(text: &str) -> String {
    format!("{}\n---\n", text.trim_matches(['\n', '\r']))
}

/// What is said of a document that is visibly of a kind that the mesh does nothing with. It is not read: definitions of kinds
/// may be nested more deeply than anything that is.
fn foreign(text: &str) -> Option<Report> {
    let kind = text.lines().find_map(|line| line.strip_prefix("kind:"))?.trim();
    let word = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric());
    if !word || is_ours(kind) {
        return None;
    }
    let meta = text.lines().skip_while(|line| line.trim_end() != "metadata:").skip(1);
    let name = meta.take_while(|line| line.starts_with(' ')).find_map(|line| line.strip_prefix("  name:"));
    let name = name.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned();
    let skipped = vec![Skip::Unsupported];
    Some(Report { kind: kind.to_lowercase(), name, skipped, ..Report::default() })
}

struct Out {
    changed: Changed,
    refused: Vec<(String, String)>,
}

impl Out {
    fn document(&mut self, text: &str, what: Change<'_>, format: Format) -> Result<(), Unreadable> {
        if let (Format::Yaml, Some(report)) = (format, foreign(text)) {
            self.changed.reports.push(report);
            self.changed.text += &as_written(text);
            return Ok(());
        }
        let before = manifest::one_document(text)?;
        if before.is_null() {
            return Ok(());
        }
        // A page that says that something was not found, say. What has fields is passed on, as Linkerd's does.
        if !before.is_object() {
            return Err(Unreadable {
                line: 1,
                message: "the document is no object of Kubernetes: it has no fields".to_owned(),
                remedy: "take it out, or check that it is a manifest",
            });
        }
        let after = if before.get("kind").and_then(Value::as_str) == Some("List") {
            self.list(&before, what)
        } else {
            self.object(&before, what)
        };
        self.changed.text += &match format {
            Format::Json => format!("{after}\n"),
            // What is not changed stays as somebody wrote it.
            Format::Yaml if after == before => as_written(text),
            Format::Yaml => format!("{}---\n", yaml::text(&after)),
        };
        Ok(())
    }

    fn list(&mut self, list: &Value, what: Change<'_>) -> Value {
        let mut list = list.clone();
        if let Some(Value::Array(items)) = list.get_mut("items") {
            for item in items {
                *item = self.object(item, what);
            }
        }
        list
    }

    fn object(&mut self, object: &Value, what: Change<'_>) -> Value {
        match changed(object, what) {
            Ok(Outcome { object, report, warnings, .. }) => {
                let name = report.resource();
                // A proxy that is asked for and cannot be is a mistake, unless the pod says that it wants none.
                let wrong: Vec<&str> = match what {
                    Change::Uninject => vec![],
                    Change::Annotate(_) | Change::Manual(..) => {
                        report.skipped.iter().filter_map(|s| mistake(*s)).collect()
                    }
                };
                if !wrong.is_empty() {
                    self.refused.push((name.clone(), wrong.join(", ")));
                }
                self.changed.warnings.extend(warnings.into_iter().map(|w| (name.clone(), w)));
                self.changed.reports.push(report);
                object
            }
            Err(refusals) => {
                let texts: Vec<String> = refusals.iter().map(|r| format!("{}: {}", r.field, r.message)).collect();
                self.refused.push((resource(object), texts.join(", ")));
                object.clone()
            }
        }
    }
}

fn mistake(skip: Skip) -> Option<&'static str> {
    matches!(skip, Skip::HostNetwork | Skip::Sidecar).then(|| skip.explained())
}

/// Proxies are taken away before they are written, so that those of an older version do not stay.
fn changed(object: &Value, what: Change<'_>) -> Result<Outcome, Vec<Refusal>> {
    match what {
        Change::Uninject => uninject(object),
        Change::Annotate(annotations) => annotate(&uninject_for_another(object)?.object, annotations),
        Change::Manual(annotations, mesh) => manual(&uninject_for_another(object)?.object, annotations, mesh),
    }
}

fn resource(object: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let name = text(object.get("metadata").and_then(|m| m.get("name")));
    format!("{}/{name}", text(object.get("kind")).to_lowercase())
}
