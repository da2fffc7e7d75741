//! The schema of the values, by which Helm refuses what is none before any template is read.

use super::{
    form::{self, Form},
    kind::{self, Kind},
    refused,
};
use serde_json::{Map, Value, json};
use std::ops::RangeInclusive;

/// JSON Schema. What is refused by name has no type: the templates refuse it, with what to use instead.
pub fn schema() -> Value {
    let mut root = closed();
    for (path, kind, default) in kind::kinds() {
        let of = of(&path, &kind, &default);
        let required = !default.is_null();
        put(&mut root, &path, of, required);
    }
    for (path, remedy) in refused::all() {
        put(&mut root, path, json!({ "description": format!("weft does not carry it out; {remedy}") }), false);
    }
    // What Helm itself puts among the values of a chart within another.
    put(&mut root, "global", json!({ "type": "object" }), false);
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root
}

fn closed() -> Value {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

/// Who takes a default away by `null` gets told so: what has one is required.
fn put(root: &mut Value, path: &str, schema: Value, required: bool) {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut at = root;
    for step in parents.split('.').filter(|step| !step.is_empty()) {
        if required {
            require(at, step);
        }
        at = &mut at["properties"][step];
        if !at.is_object() {
            *at = closed();
        }
    }
    if required {
        require(at, last);
    }
    at["properties"][last] = schema;
}

fn require(at: &mut Value, name: &str) {
    let Some(map) = at.as_object_mut() else { return };
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Some(names) = required.as_array_mut().filter(|names| !names.contains(&json!(name))) {
        names.push(json!(name));
    }
}

/// YAML makes a number of `25` and a truth value of `true`; both are texts where a text is wanted.
fn text() -> Value {
    json!({ "type": ["string", "number", "boolean"] })
}

/// A text that may have to have a form.
fn text_at(path: &str, may_be_empty: bool) -> Value {
    let mut text = text();
    if !may_be_empty {
        text["minLength"] = json!(1);
    }
    let Some(form) = form::form(path) else { return text };
    let pattern = form.pattern();
    text["pattern"] = json!(if may_be_empty { format!("^$|{pattern}") } else { pattern });
    // A number has no unit.
    if !matches!(form, Form::Version | Form::Filter | Form::Levels) {
        text["type"] = json!("string");
    }
    if form == Form::PositiveGoTime {
        text["not"] = json!({ "pattern": "^[^1-9]+$" });
    }
    text
}

fn within(bounds: &RangeInclusive<i64>) -> Value {
    json!({ "type": "integer", "minimum": bounds.start(), "maximum": bounds.end() })
}

fn of(path: &str, kind: &Kind, default: &Value) -> Value {
    let types = if default.is_null() { json!(["object", "null"]) } else { json!("object") };
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::FlagOrNone => json!({ "type": ["boolean", "null"] }),
        Kind::Text => text_at(path, kind::may_be_empty(path, default)),
        Kind::Choice(texts) => json!({ "enum": texts }),
        Kind::Yaml => json!({ "type": "string" }),
        Kind::Number => within(&kind::bounds(path, default)),
        Kind::Port => within(&kind::PORTS),
        Kind::Share => json!({ "type": ["integer", "string"], "minimum": 0, "pattern": "^[0-9]+%$" }),
        Kind::Count => json!({ "type": ["integer", "null"], "minimum": 0 }),
        // `--set` makes a text of a fraction.
        Kind::Ratio => {
            let pattern = r"^(0?\.[0-9]*[1-9][0-9]*|1(\.0*)?)$";
            json!({ "type": ["number", "string", "null"], "exclusiveMinimum": 0, "maximum": 1, "pattern": pattern })
        }
        Kind::Texts => json!({ "type": "object", "additionalProperties": text() }),
        Kind::SecurityContext => security_context(),
        Kind::TextList => json!({ "type": "array", "items": text() }),
        Kind::Objects(fields) => json!({ "type": "array", "items": fields_of(fields, &json!("object")) }),
        Kind::Records(fields) => {
            let properties: Map<String, Value> = fields.iter().map(|name| ((*name).to_owned(), text())).collect();
            let item = json!({ "type": "object", "additionalProperties": false, "properties": properties });
            json!({ "type": "array", "items": item })
        }
        Kind::Resources => {
            let amounts = || {
                json!({ "type": "object", "additionalProperties": false,
                "properties": { "limit": text(), "request": text() } })
            };
            let properties = json!({ "cpu": amounts(), "ephemeral-storage": amounts(), "memory": amounts() });
            json!({ "type": types, "additionalProperties": false, "properties": properties })
        }
        Kind::Object(_, fields) => fields_of(fields, &types),
    }
}

/// Kubernetes' own type, with what its fields are.
fn security_context() -> Value {
    let flag = || json!({ "type": "boolean" });
    let id = || json!({ "type": "integer", "minimum": 0, "maximum": i32::MAX });
    let object = || json!({ "type": "object" });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "allowPrivilegeEscalation": flag(),
            "appArmorProfile": object(),
            "capabilities": object(),
            "privileged": flag(),
            "procMount": { "type": "string" },
            "readOnlyRootFilesystem": flag(),
            "runAsGroup": id(),
            "runAsNonRoot": flag(),
            "runAsUser": id(),
            "seLinuxOptions": object(),
            "seccompProfile": object(),
            "windowsOptions": object(),
        },
    })
}

/// Kubernetes' own type: who applies it looks further.
fn fields_of(fields: &[&str], types: &Value) -> Value {
    let properties: Map<String, Value> = fields.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
    json!({ "type": types, "additionalProperties": false, "properties": properties })
}
