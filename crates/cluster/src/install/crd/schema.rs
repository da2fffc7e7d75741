//! OpenAPI schemas in a few words.

use serde::Serialize;
use serde_json::{Value, json};

/// One schema.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    pub(super) fn text() -> Self {
        Self(json!({ "type": "string" }))
    }

    pub(super) fn flag() -> Self {
        Self(json!({ "type": "boolean" }))
    }

    pub(super) fn number() -> Self {
        Self(json!({ "type": "integer" }))
    }

    pub(super) fn fraction() -> Self {
        Self(json!({ "type": "number" }))
    }

    /// As Kubernetes reads amounts: `500m`, or a number.
    pub(super) fn quantity() -> Self {
        Self(json!({ "x-kubernetes-int-or-string": true }))
    }

    pub(super) fn port() -> Self {
        Self(json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535 }))
    }

    pub(super) fn port_or_name() -> Self {
        Self(json!({ "x-kubernetes-int-or-string": true }))
    }

    pub(super) fn time() -> Self {
        Self(json!({ "type": "string", "format": "date-time" }))
    }

    pub(super) fn one_of(texts: &[&str]) -> Self {
        Self(json!({ "type": "string", "enum": texts }))
    }

    pub(super) fn list(items: Schema) -> Self {
        Self(json!({ "type": "array", "items": items }))
    }

    /// Any names, with texts.
    pub(super) fn texts() -> Self {
        Self(json!({ "type": "object", "additionalProperties": { "type": "string" } }))
    }

    pub(super) fn object<'n>(properties: impl IntoIterator<Item = (&'n str, Schema)>) -> Self {
        let properties: serde_json::Map<String, Value> =
            properties.into_iter().map(|(name, Schema(schema))| (name.to_owned(), schema)).collect();
        match properties.is_empty() {
            true => Self(json!({ "type": "object" })),
            false => Self(json!({ "type": "object", "properties": properties })),
        }
    }

    /// An object whose fields are not looked into here: a condition of conditions has no end.
    pub(super) fn open() -> Self {
        Self(json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }))
    }

    pub(super) fn required(mut self, names: &[&str]) -> Self {
        self.0["required"] = json!(names);
        self
    }

    pub(super) fn default(mut self, value: impl Into<Value>) -> Self {
        self.0["default"] = value.into();
        self
    }

    pub(super) fn items(mut self, least: usize, most: Option<usize>) -> Self {
        if least > 0 {
            self.0["minItems"] = json!(least);
        }
        if let Some(most) = most {
            self.0["maxItems"] = json!(most);
        }
        self
    }

    pub(super) fn length(mut self, least: usize, most: usize) -> Self {
        self.0["minLength"] = json!(least);
        self.0["maxLength"] = json!(most);
        self
    }

    pub(super) fn at_least(mut self, least: i64) -> Self {
        self.0["minimum"] = json!(least);
        self
    }

    pub(super) fn between(mut self, least: i64, most: i64) -> Self {
        self.0["minimum"] = json!(least);
        self.0["maximum"] = json!(most);
        self
    }

    /// Exactly one of the fields is given.
    pub(super) fn exactly_one(mut self, names: &[&str]) -> Self {
        self.0["oneOf"] = names.iter().map(|name| json!({ "required": [name] })).collect();
        self
    }
}

/// A label selector.
pub(super) fn selector() -> Schema {
    let requirement = Schema::object([
        ("key", Schema::text()),
        ("operator", Schema::one_of(&["In", "NotIn", "Exists", "DoesNotExist"])),
        ("values", Schema::list(Schema::text())),
    ]);
    Schema::object([
        ("matchLabels", Schema::texts()),
        ("matchExpressions", Schema::list(requirement.required(&["key", "operator"]))),
    ])
}

/// Networks with what is left out of them.
pub(super) fn networks() -> Schema {
    let network = Schema::object([("cidr", Schema::text()), ("except", Schema::list(Schema::text()))]);
    Schema::list(network.required(&["cidr"]))
}

/// A reference to an object.
pub(super) fn reference() -> Schema {
    Schema::object([
        ("group", Schema::text().length(0, 253)),
        ("kind", Schema::text().length(1, 63)),
        ("name", Schema::text().length(1, 253)),
        ("namespace", Schema::text().length(1, 63)),
    ])
}

pub(super) fn condition() -> Schema {
    Schema::object([
        ("type", Schema::text().length(1, 316)),
        ("status", Schema::one_of(&["True", "False", "Unknown"])),
        ("reason", Schema::text().length(1, 1024)),
        ("message", Schema::text().length(0, 32768)),
        ("lastTransitionTime", Schema::time()),
        ("observedGeneration", Schema::number().at_least(0)),
    ])
    .required(&["lastTransitionTime", "message", "reason", "status", "type"])
}
