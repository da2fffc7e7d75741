//! The values of `--ha`.

use serde_json::{Value, json};

/// A layer: three replicas apart from each other, bounded resources, and no pod of the mesh without a proxy.
pub fn highly_available() -> Value {
    let resources =
        |memory: &str| json!({ "cpu": { "request": "100m" }, "memory": { "limit": "250Mi", "request": memory } });
    json!({
        "enablePodAntiAffinity": true,
        "enablePodDisruptionBudget": true,
        "controllerReplicas": 3,
        "webhookFailurePolicy": "Fail",
        "highAvailability": true,
        "controller": { "podDisruptionBudget": { "maxUnavailable": 1 } },
        "deploymentStrategy": { "rollingUpdate": { "maxUnavailable": 1, "maxSurge": "25%" } },
        "proxy": { "resources": { "cpu": { "request": "100m" }, "memory": { "limit": "250Mi", "request": "20Mi" } } },
        "destinationResources": resources("50Mi"),
        "identityResources": resources("10Mi"),
        "proxyInjectorResources": resources("50Mi"),
    })
}
