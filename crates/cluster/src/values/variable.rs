//! Whether the API server takes an environment variable of a container. Names are those of Kubernetes 1.32 and later; 1.31 takes fewer.

use super::{Quantity, check::shown};
use crate::object::{is_annotation_key, is_label_key, is_subdomain};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ResourceFieldSelector};

/// Fields of a pod that a variable may have.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a container may have of a resource.
const AMOUNTS: [&str; 2] = ["limits.", "requests."];
const CPU: &str = "cpu";
const SIZES: [&str; 2] = ["memory", "ephemeral-storage"];
const HUGE_PAGES: &str = "hugepages-";
/// In what an amount may be counted.
const OF_CPU: [&str; 3] = ["0", "1", "1m"];
const OF_SIZES: [&str; 14] = ["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
/// Characters of the key of a ConfigMap or Secret.
const KEY: usize = 253;

/// What is wrong with a field of a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Of the variable, such as `valueFrom.fieldRef.fieldPath`.
    pub(crate) field: &'static str,
    pub(crate) message: String,
    pub(crate) remedy: &'static str,
}

fn wrong(field: &'static str, message: impl Into<String>, remedy: &'static str) -> Result<(), Wrong> {
    Err(Wrong { field, message: message.into(), remedy })
}

/// # Errors
/// The first thing that is wrong.
pub(crate) fn variable(variable: &EnvVar) -> Result<(), Wrong> {
    let EnvVar { name, value, value_from } = variable;
    if name.is_empty() || !name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        let message = format!("{} is no name of an environment variable", shown(name));
        return wrong("name", message, "use printable ASCII without '='");
    }
    let Some(from) = value_from else { return Ok(()) };
    if value.as_ref().is_some_and(|value| !value.is_empty()) {
        return wrong("value", "valueFrom is given as well", "give one of them");
    }
    source(from)
}

fn source(from: &EnvVarSource) -> Result<(), Wrong> {
    let EnvVarSource { config_map_key_ref, field_ref, resource_field_ref, secret_key_ref } = from;
    match (config_map_key_ref, field_ref, resource_field_ref, secret_key_ref) {
        (Some(of), None, None, None) => {
            key(&of.name, &of.key, ["valueFrom.configMapKeyRef.name", "valueFrom.configMapKeyRef.key"])
        }
        (None, Some(of), None, None) => {
            if of.api_version.as_deref().is_some_and(|version| !["", "v1"].contains(&version)) {
                return wrong("valueFrom.fieldRef.apiVersion", "pods have no such version", "use v1, or leave it out");
            }
            field(&of.field_path)
        }
        (None, None, Some(of), None) => resource(of),
        (None, None, None, Some(of)) => {
            key(&of.name, &of.key, ["valueFrom.secretKeyRef.name", "valueFrom.secretKeyRef.key"])
        }
        (None, None, None, None) => wrong(
            "valueFrom",
            "it names nothing",
            "give one of fieldRef, resourceFieldRef, configMapKeyRef and secretKeyRef",
        ),
        _ => wrong("valueFrom", "it names several", "give one of them"),
    }
}

/// Of a ConfigMap or a Secret.
fn key(name: &str, key: &str, [of_name, of_key]: [&'static str; 2]) -> Result<(), Wrong> {
    if !is_subdomain(name) {
        let message = format!("{} is no name of an object", shown(name));
        return wrong(of_name, message, "use lower-case letters, digits, '-' and '.'");
    }
    let is_key = (1..=KEY).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && key != "."
        && !key.starts_with("..");
    if is_key {
        return Ok(());
    }
    let message = format!("{} is no key of data", shown(key));
    wrong(of_key, message, "use at most 253 letters, digits, '-', '_' and '.', and no two dots at the beginning")
}

fn field(path: &str) -> Result<(), Wrong> {
    let subscript = |of: &str| path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']");
    let is_field = match (subscript("metadata.labels"), subscript("metadata.annotations")) {
        (Some(key), _) => is_label_key(key),
        (_, Some(key)) => is_annotation_key(key),
        // As pods once called it.
        (None, None) => FIELDS.contains(&path) || path == "spec.host",
    };
    if is_field {
        return Ok(());
    }
    wrong(
        "valueFrom.fieldRef.fieldPath",
        format!("{} is no field of a pod that a variable can have", shown(path)),
        "use metadata.name, .namespace, .uid, .labels['KEY'] or .annotations['KEY'], spec.nodeName or .serviceAccountName, \
         status.hostIP, .hostIPs, .podIP or .podIPs",
    )
}

fn resource(of: &ResourceFieldSelector) -> Result<(), Wrong> {
    let ResourceFieldSelector { container_name: _, divisor, resource } = of;
    let name = AMOUNTS.iter().find_map(|amount| resource.strip_prefix(amount)).unwrap_or_default();
    let units = match name {
        CPU => &OF_CPU[..],
        name if SIZES.contains(&name) || name.starts_with(HUGE_PAGES) => &OF_SIZES,
        _ => {
            return wrong(
                "valueFrom.resourceFieldRef.resource",
                format!("{} is no amount that a variable can have", shown(resource)),
                "use limits. or requests., and then cpu, memory, ephemeral-storage or hugepages-SIZE",
            );
        }
    };
    let read = |text: &str| text.parse::<Quantity>().ok();
    let Some(divisor) = divisor.as_ref().map(|divisor| divisor.0.trim()).filter(|divisor| !divisor.is_empty()) else {
        return Ok(());
    };
    if read(divisor).is_some_and(|divisor| units.iter().any(|unit| read(unit) == Some(divisor))) {
        return Ok(());
    }
    let message = format!("{} is nothing that {resource} is counted in", shown(divisor));
    wrong(
        "valueFrom.resourceFieldRef.divisor",
        message,
        "use 1, of cpu 1m as well, and of the others 1Ki or 1k, 1Mi or 1M, and so on",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(from: Value) -> Result<(), &'static str> {
        let of = json!({"name": "A", "valueFrom": from});
        variable(&serde_json::from_value(of).unwrap()).map_err(|wrong| wrong.field)
    }

    /// As the API server's own checks have it.
    #[test]
    fn forms_that_the_api_server_takes_are_taken() {
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let amount =
            |resource: &str, divisor: &str| json!({"resourceFieldRef": {"resource": resource, "divisor": divisor}});
        for path in FIELDS.iter().chain(&["metadata.labels['a.b/c']", "metadata.annotations['A.b/c']", "spec.host"]) {
            assert_eq!(asked(field(path)), Ok(()), "{path}");
        }
        for (resource, divisor) in [
            ("limits.cpu", ""),
            ("requests.cpu", "1000m"),
            ("limits.memory", "1Mi"),
            ("requests.ephemeral-storage", "1k"),
            ("limits.hugepages-2Mi", "1"),
        ] {
            assert_eq!(asked(amount(resource, divisor)), Ok(()), "{resource} {divisor}");
        }
        for of in ["configMapKeyRef", "secretKeyRef"] {
            assert_eq!(asked(json!({of: {"name": "n", "key": "a_B.c-1", "optional": true}})), Ok(()));
        }
        assert_eq!(asked(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}})), Ok(()));
    }

    #[test]
    fn forms_that_it_refuses_are_named() {
        let path = "valueFrom.fieldRef.fieldPath";
        for wrong in [
            "",
            "metadata.labels",
            "metadata.labels['']",
            "metadata.labels['a b']",
            "metadata.name['a']",
            "metadata.annotations[a]",
            "status.phase",
        ] {
            assert_eq!(asked(json!({"fieldRef": {"fieldPath": wrong}})), Err(path), "{wrong}");
        }
        let several = json!({"fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "n", "key": "k"}});
        for (from, field) in [
            (json!({}), "valueFrom"),
            (several, "valueFrom"),
            (json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}}), "valueFrom.fieldRef.apiVersion"),
            (json!({"secretKeyRef": {"key": "k"}}), "valueFrom.secretKeyRef.name"),
            (json!({"secretKeyRef": {"name": "N", "key": "k"}}), "valueFrom.secretKeyRef.name"),
            (json!({"secretKeyRef": {"name": "n"}}), "valueFrom.secretKeyRef.key"),
            (json!({"configMapKeyRef": {"name": "n", "key": "a/b"}}), "valueFrom.configMapKeyRef.key"),
            (json!({"configMapKeyRef": {"name": "n", "key": ".."}}), "valueFrom.configMapKeyRef.key"),
            (json!({"resourceFieldRef": {"resource": "cpu"}}), "valueFrom.resourceFieldRef.resource"),
            (json!({"resourceFieldRef": {"resource": "limits.gpu"}}), "valueFrom.resourceFieldRef.resource"),
            (
                json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}),
                "valueFrom.resourceFieldRef.divisor",
            ),
            (
                json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "3"}}),
                "valueFrom.resourceFieldRef.divisor",
            ),
        ] {
            assert_eq!(asked(from.clone()), Err(field), "{from}");
        }
    }
}
