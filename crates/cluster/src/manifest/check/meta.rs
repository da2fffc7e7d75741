//! Names, labels and annotations.

use super::{super::path::Path, Reading};
use crate::{
    annotation::{self, Owner, PortList, PortRanges},
    inject,
    object::{KEY_REMEDY, LABEL_TEXT_REMEDY, is_annotation_key, is_label, is_label_key, is_label_text, is_subdomain},
    policy::client,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_model::{names::annotation as names, policy::inbound::DefaultPolicy};

/// The rule for a name.
#[derive(Clone, Copy)]
pub(super) struct NameRule {
    valid: fn(&str) -> bool,
    remedy: &'static str,
}

pub(super) const LABEL: NameRule =
    NameRule { valid: is_label, remedy: "use 1 to 63 lower-case letters, digits and '-', not at the ends" };
pub(super) const SERVICE_LABEL: NameRule = NameRule {
    valid: |name| is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
    remedy: "use 1 to 63 lower-case letters, digits and '-', beginning with a letter",
};
pub(super) const SUBDOMAIN: NameRule =
    NameRule { valid: is_subdomain, remedy: "use lower-case letters, digits, '-' and '.'" };

/// What an annotation stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum On {
    Namespace,
    /// A pod template.
    Pod,
    Service,
    /// A workload's own metadata, which the mesh does not read.
    Workload,
}

pub(super) fn name(meta: &ObjectMeta, rule: NameRule, reading: &mut Reading<'_>) {
    let at = Path::default().key("metadata");
    match meta.name.as_deref().unwrap_or_default() {
        "" => reading.problem(&at.key("name"), "the object has no name", "give metadata.name"),
        name if !(rule.valid)(name) => {
            reading.problem(&at.key("name"), format!("{name:?} is no valid name"), rule.remedy)
        }
        _ => {}
    }
    if let Some(namespace) = meta.namespace.as_deref().filter(|n| !n.is_empty() && !is_label(n)) {
        reading.problem(&at.key("namespace"), format!("{namespace:?} is no valid namespace"), LABEL.remedy);
    }
}

/// The syntax of labels and of annotations' keys.
pub(super) fn maps(meta: &ObjectMeta, at: &Path, reading: &mut Reading<'_>) {
    let at = at.key("metadata");
    for (key, value) in meta.labels.iter().flatten() {
        let path = at.key("labels").key(key);
        if !is_label_key(key) {
            reading.problem(&path, format!("{key:?} is no valid label key"), KEY_REMEDY);
        }
        if !value.is_empty() && !is_label_text(value) {
            reading.problem(&path, format!("{value:?} is no valid label value"), LABEL_TEXT_REMEDY);
        }
    }
    for key in meta.annotations.iter().flatten().map(|(k, _)| k).filter(|k| !is_annotation_key(k)) {
        reading.problem(&at.key("annotations").key(key), format!("{key:?} is no valid annotation key"), KEY_REMEDY);
    }
}

/// The annotations of the mesh: values, places, spelling.
pub(super) fn annotations(meta: &ObjectMeta, at: &Path, on: On, reading: &mut Reading<'_>) {
    for (key, value) in meta.annotations.iter().flatten() {
        let path = at.keys(&["metadata", "annotations", key]);
        if annotation::owner(key) == Owner::Other {
            continue;
        }
        if on == On::Workload {
            reading.ignored(&path, "it belongs to spec.template.metadata.annotations");
            continue;
        }
        let error = match key.as_str() {
            names::INJECT => inject(value, reading.is_run()),
            names::SKIP_INBOUND_PORTS | names::SKIP_OUTBOUND_PORTS | annotation::REQUIRE_IDENTITY_PORTS => {
                annotation::read::<PortRanges>(value).err().map(|e| (e.to_string(), PORTS_REMEDY))
            }
            // Told of what a Service says in vain.
            names::OPAQUE_PORTS if on == On::Service => None,
            names::OPAQUE_PORTS => annotation::read::<PortList>(value).err().map(|e| (e.to_string(), PORTS_REMEDY)),
            names::DEFAULT_INBOUND_POLICY => {
                annotation::read::<DefaultPolicy>(value).err().map(|e| (e.to_string(), "use one of the six names"))
            }
            client::HONOR_RETRY_AFTER if on == On::Service => {
                reading.ignored(&path, "proxies are told, and none acts on it yet");
                None
            }
            _ if client::is_of_clients(key) => {
                if on != On::Service {
                    reading.ignored(&path, "it belongs to a Service, an EgressNetwork or a route");
                }
                None
            }
            _ if annotation::owner(key) == Owner::LaterParts || inject::is_known(key) => {
                reading.ignored(&path, "weft does not act on this annotation yet");
                None
            }
            _ => Some((format!("there is no annotation {key}"), "correct the spelling, or remove it")),
        };
        match error {
            Some((message, remedy)) => reading.problem(&path, message, remedy),
            None if on == On::Service && annotation::is_of_pods(key) => {
                reading.ignored(&path, "it belongs to a pod template or a Namespace");
            }
            None => {}
        }
    }
}

const PORTS_REMEDY: &str = "use ports and ranges, such as 25,4000-4100";

fn inject(value: &str, is_run: bool) -> Option<(String, &'static str)> {
    let remedy = if is_run { "use enabled or disabled" } else { "use enabled, ingress or disabled" };
    match value {
        "enabled" | "disabled" => None,
        "ingress" if !is_run => None,
        "ingress" => Some(("ingress mode is not supported on one machine yet".to_owned(), remedy)),
        other => Some((format!("{other:?} is no injection mode"), remedy)),
    }
}
