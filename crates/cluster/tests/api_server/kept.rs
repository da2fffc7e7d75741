//! What an API server keeps of an object that is written in an older version of its kind: for the fake, which converts nothing.
//!
//! The older version's schema says what may stand in it, and the one that is kept, what has a default there.

use serde_json::Value;
use weft_cluster::{
    install::{By, crds},
    values::Values,
};

/// One that says no version, or whose kind is not the mesh's own, is kept as it is.
pub(crate) fn kept(mut object: Value) -> Value {
    let Some((group, version)) = object["apiVersion"].as_str().and_then(|of| of.split_once('/')) else { return object };
    let (group, version) = (group.to_owned(), version.to_owned());
    let mut definitions = crds(&Values::default(), "linkerd", By::Cli).into_iter().map(|mut of| of["spec"].take());
    let Some(definition) = definitions.find(|of| of["group"] == group && of["names"]["kind"] == object["kind"]) else {
        return object;
    };
    let versions = definition["versions"].as_array().unwrap();
    let written = versions.iter().find(|of| of["name"] == version).unwrap();
    let stored = versions.iter().find(|of| of["storage"] == true).unwrap();
    for version in [written, stored] {
        shape(&mut object["spec"], &version["schema"]["openAPIV3Schema"]["properties"]["spec"]);
    }
    object
}

fn shape(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(fields) => {
            // Any fields.
            let Some(known) = schema["properties"].as_object() else { return };
            fields.retain(|name, _| known.contains_key(name));
            for (name, schema) in known {
                if let Some(default) = schema.get("default") {
                    fields.entry(name).or_insert_with(|| default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    shape(value, schema);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| shape(item, &schema["items"])),
        _ => {}
    }
}
