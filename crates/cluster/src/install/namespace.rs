//! The control plane's namespace.

use super::Meta;
use crate::label;
use serde_json::{Value, json};

/// Its pods have their proxies already, and no webhook may keep them from starting.
pub(super) fn namespace(meta: &Meta<'_>) -> Value {
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": meta.of_the_cluster(meta.namespace, None),
    });
    object["metadata"]["annotations"]["linkerd.io/inject"] = json!("disabled");
    let labels = &mut object["metadata"]["labels"];
    labels[label::IS_CONTROL_PLANE] = json!("true");
    labels[label::ADMISSION_WEBHOOKS] = json!("disabled");
    // The init containers change the pods' networks.
    labels["pod-security.kubernetes.io/enforce"] = json!("privileged");
    object
}
