//! The metadata of everything that is installed.

use super::By;
use crate::{
    inject::{self, CREATED_BY},
    label,
    values::{Text, Values},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What is the same for all objects.
#[derive(Clone, Copy)]
pub(super) struct Meta<'a> {
    pub(super) values: &'a Values,
    pub(super) namespace: &'a str,
    pub(super) by: By,
}

impl Meta<'_> {
    /// Of an object in the control plane's namespace.
    pub(super) fn named(&self, name: &str, component: Option<&str>) -> Value {
        let mut meta = self.of_the_cluster(name, component);
        meta["namespace"] = json!(self.namespace);
        meta
    }

    /// Of an object without a namespace.
    pub(super) fn of_the_cluster(&self, name: &str, component: Option<&str>) -> Value {
        json!({
            "name": name,
            "labels": self.labels(component),
            "annotations": { CREATED_BY: self.created_by() },
        })
    }

    /// The labels by which tools find and prune what belongs to the mesh.
    pub(super) fn labels(&self, component: Option<&str>) -> Map<String, Value> {
        let mut labels = texts(&self.values.common_labels);
        labels.insert(label::CONTROL_NAMESPACE.to_owned(), json!(self.namespace));
        if let Some(component) = component {
            labels.insert(label::COMPONENT.to_owned(), json!(component));
        }
        labels
    }

    pub(super) fn created_by(&self) -> String {
        match self.by {
            By::Cli => inject::created_by(self.values),
            By::Helm => format!("linkerd/helm {}", self.values.linkerd_version),
        }
    }
}

pub(super) fn texts(map: &BTreeMap<String, Text>) -> Map<String, Value> {
    map.iter().map(|(k, v)| (k.clone(), json!(&**v))).collect()
}
