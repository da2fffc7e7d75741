//! Fields that another version of an object has: an API server drops them, so that the object would say less there than here.
//! What there is of each version is told by the definitions that are installed.

use super::{
    document::{Node, Value},
    path::{Path, Step},
};
use crate::{Kind, install::crd, policy};
use serde_json::Value as Json;

/// A field that the object's version does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) path: Path,
    pub(super) remedy: String,
}

/// The routes of this group say what the mesh's own have no words for.
const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// Of kinds that Kubernetes or the Gateway API bring, nothing is known here.
pub(super) fn foreign(kind: Kind, api_version: &str, node: &Node) -> Vec<Foreign> {
    let (Some(of), Some(spec)) = (policy::definition(kind), node.get("spec")) else { return vec![] };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let Some((_, schema)) = crd::specs(of.group, of.kind).find(|(name, _)| *name == version) else { return vec![] };
    let mut paths = vec![];
    walk(spec, schema, &Path::default(), &mut paths);
    let remedy = |path: &Path| match crd::specs(of.group, of.kind).find(|(_, schema)| has(schema, path.steps())) {
        Some((newer, _)) => format!("use apiVersion: {}/{newer}", of.group),
        None if kind == Kind::MeshHttpRoute => format!("remove it, or use apiVersion: {GATEWAY_API}"),
        None => "remove it".to_owned(),
    };
    paths.iter().map(|path| Foreign { remedy: remedy(path), path: Path::default().key("spec").join(path) }).collect()
}

fn walk(node: &Node, schema: &Json, at: &Path, found: &mut Vec<Path>) {
    match &node.value {
        Value::Map(entries) => {
            // Without them its fields are anybody's names, such as labels.
            let Some(properties) = schema.get("properties") else { return };
            for (key, _, value) in entries {
                match properties.get(key) {
                    Some(inner) => walk(value, inner, &at.key(key), found),
                    None => found.push(at.key(key)),
                }
            }
        }
        Value::List(items) => {
            let Some(inner) = schema.get("items") else { return };
            items.iter().enumerate().for_each(|(i, item)| walk(item, inner, &at.index(i), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => {}
    }
}

fn has(schema: &Json, path: &[Step]) -> bool {
    let field = path.iter().try_fold(schema, |schema, step| match step {
        Step::Key(key) => schema.get("properties")?.get(key),
        Step::Index(_) => schema.get("items"),
    });
    field.is_some()
}
