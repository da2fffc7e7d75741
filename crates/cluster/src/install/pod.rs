//! The shape that all Deployments of the control plane share: a process without rights, beside a proxy.

use super::{Installation, Meta, meta, policy};
use crate::{
    inject::{self, Anchors, PROXY_VERSION, Sidecar, TRUST_ROOT_SHA256},
    label,
    values::{ProbeTimeout, Resources, Text, Values},
};
use k8s_openapi::api::{
    apps::v1::DeploymentStrategy,
    core::v1::{Capabilities, EnvVar},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use weft_model::names::annotation as names;

/// What tells one Deployment from the others.
pub(super) struct Part<'a> {
    /// Of the Deployment and of its ServiceAccount.
    pub(super) name: &'a str,
    /// The value of the label, which is also the container's name.
    pub(super) component: &'a str,
    /// Whether the Deployment finds its pods by their component alone. That cannot be changed, so it is as Linkerd's, whose
    /// installations are taken over.
    pub(super) is_selected_by_component: bool,
    pub(super) args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
    /// Names and numbers of the container's ports; the last is that of probes and metrics.
    pub(super) ports: &'a [(&'a str, u16)],
    pub(super) liveness: &'a ProbeTimeout,
    pub(super) readiness: &'a ProbeTimeout,
    pub(super) resources: Option<&'a Resources>,
    pub(super) proxy_resources: Option<&'a Resources>,
    /// Where volumes are mounted: name, folder, and the volume.
    pub(super) mounts: Vec<(&'a str, &'a str, Value)>,
    pub(super) pod_annotations: Vec<(&'a str, String)>,
    pub(super) extra_annotations: &'a BTreeMap<String, Text>,
    /// Values of the proxy that differ from those of other pods.
    pub(super) proxy: fn(&mut Values),
    /// Ports that the proxy treats as bytes.
    pub(super) opaque_ports: &'a str,
}

/// Where the process finds the API server's certificate and its own token.
const API_ACCESS: &str = "kube-api-access";
const API_ACCESS_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// As the API server itself projects it.
const TOKEN_SECONDS: i64 = 3607;
/// A process goes on for five seconds once it is told to end, and a review under way may take thirty: more the API server does not wait.
const GRACE_SECONDS: i64 = 45;

pub(super) fn deployment(part: &Part<'_>, installation: &Installation<'_>, meta: &Meta<'_>) -> Value {
    let values = meta.values;
    let mut labels = meta.labels(Some(part.component));
    labels.insert("app.kubernetes.io/name".to_owned(), json!(part.component));
    labels.insert("app.kubernetes.io/part-of".to_owned(), json!("Linkerd"));
    labels.insert("app.kubernetes.io/version".to_owned(), json!(&*values.linkerd_version));
    let mut metadata = meta.named(part.name, Some(part.component));
    metadata["labels"] = Value::Object(labels);
    let own = json!({
        label::COMPONENT: part.component,
        label::CONTROL_NAMESPACE: meta.namespace,
        deployment_label(): part.name,
    });
    let selector = match part.is_selected_by_component {
        true => json!({ label::COMPONENT: part.component }),
        false => own.clone(),
    };
    let mut pod_labels = meta::texts(&values.common_labels);
    pod_labels.extend(meta::texts(&values.pod_labels));
    pod_labels.extend(own.as_object().cloned().unwrap_or_default());
    pod_labels.insert(label::WORKLOAD_NAMESPACE.to_owned(), json!(meta.namespace));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": values.controller_replicas,
            "revisionHistoryLimit": values.revision_history_limit,
            "selector": { "matchLabels": selector },
            "strategy": strategy(values),
            "template": {
                "metadata": { "annotations": annotations(part, installation, meta), "labels": pod_labels },
                "spec": spec(part, meta),
            },
        },
    })
}

/// What replaces all pods at once rolls nothing, and the API server takes none of the two with the other.
fn strategy(values: &Values) -> DeploymentStrategy {
    let mut strategy = values.deployment_strategy.clone();
    if strategy.type_.as_deref() == Some("Recreate") {
        strategy.rolling_update = None;
    }
    strategy
}

fn deployment_label() -> String {
    format!("{}deployment", label::PROXY_PREFIX)
}

fn annotations(part: &Part<'_>, installation: &Installation<'_>, meta: &Meta<'_>) -> Map<String, Value> {
    let values = meta.values;
    let mut annotations = meta::texts(&values.pod_annotations);
    annotations.extend(meta::texts(part.extra_annotations));
    let version = values.proxy.image.version.or(&values.linkerd_version);
    for (key, value) in [
        (inject::CREATED_BY, meta.created_by()),
        (PROXY_VERSION, version.to_owned()),
        // The anchors stand in the proxy's environment, which is read once: others make other pods.
        (TRUST_ROOT_SHA256, installation.material.anchors_sha256.clone()),
        // A node's scaler may move pods with memory-backed volumes.
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true".to_owned()),
        (names::DEFAULT_INBOUND_POLICY, policy::REST.to_owned()),
    ]
    .into_iter()
    .chain(part.pod_annotations.iter().cloned())
    {
        annotations.insert(key.to_owned(), json!(value));
    }
    annotations
}

fn spec(part: &Part<'_>, meta: &Meta<'_>) -> Value {
    let mut values = meta.values.clone();
    (part.proxy)(&mut values);
    if let Some(resources) = part.proxy_resources {
        values.proxy.resources = resources.clone();
    }
    // Until the first answer of a control plane that is not there yet.
    values.proxy.default_inbound_policy = "all-unauthenticated".into();
    let ports: Vec<String> = part.ports.iter().map(|(_, port)| port.to_string()).collect();
    let token_mount =
        k8s_openapi::api::core::v1::VolumeMount { read_only: Some(true), ..inject::mount(API_ACCESS_DIR, API_ACCESS) };
    let none = Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() };
    let sidecar = Sidecar {
        values: &values,
        control_namespace: meta.namespace,
        component: Some(part.name),
        anchors: Anchors::ConfigMap,
        inbound_ports: &ports.join(","),
        opaque_ports: part.opaque_ports,
        trace_attributes: &BTreeMap::new(),
        ends: false,
        capabilities: Some(&none),
        token_mount: Some(&token_mount),
    };
    // The process asks the API server before its proxy has a certificate.
    let init = sidecar.init(Some(&values.proxy_init.kube_api_server_ports));
    let (proxy, own) = (sidecar.proxy(), container(part, meta, &token_mount));
    let (inits, containers) = match (values.proxy.native_sidecar, values.proxy.await_ready) {
        (true, _) => (vec![init, proxy], vec![own]),
        (false, true) => (vec![init], vec![proxy, own]),
        (false, false) => (vec![init], vec![own, proxy]),
    };
    let mut volumes: Vec<Value> = part
        .mounts
        .iter()
        .map(|(name, _, source)| {
            let mut volume = source.clone();
            volume["name"] = json!(name);
            volume
        })
        .collect();
    volumes.push(api_access());
    volumes.extend(sidecar.volumes());
    let mut spec = json!({
        "automountServiceAccountToken": false,
        "containers": containers,
        "initContainers": inits,
        "nodeSelector": meta::texts(&values.node_selector),
        "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } },
        "serviceAccountName": part.name,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "volumes": volumes,
    });
    placement(&mut spec, part, &values);
    spec
}

/// Where the pods may run.
fn placement(spec: &mut Value, part: &Part<'_>, values: &Values) {
    let mut affinity = Map::new();
    if let Some(node) = &values.node_affinity {
        affinity.insert("nodeAffinity".to_owned(), json!(node));
    }
    if values.enable_pod_anti_affinity {
        let of = |topology: &str| {
            json!({
                "labelSelector": {
                    "matchExpressions": [{ "key": label::COMPONENT, "operator": "In", "values": [part.component] }],
                },
                "topologyKey": topology,
            })
        };
        let anti = json!({
            "preferredDuringSchedulingIgnoredDuringExecution": [
                { "weight": 100, "podAffinityTerm": of("topology.kubernetes.io/zone") },
            ],
            "requiredDuringSchedulingIgnoredDuringExecution": [of("kubernetes.io/hostname")],
        });
        affinity.insert("podAntiAffinity".to_owned(), anti);
    }
    if !affinity.is_empty() {
        spec["affinity"] = Value::Object(affinity);
    }
    if !values.tolerations.is_empty() {
        spec["tolerations"] = json!(values.tolerations);
    }
    for (key, name) in
        [("priorityClassName", &values.priority_class_name), ("runtimeClassName", &values.runtime_class_name)]
    {
        if !name.is_empty() {
            spec[key] = json!(&**name);
        }
    }
}

fn container(part: &Part<'_>, meta: &Meta<'_>, token: &k8s_openapi::api::core::v1::VolumeMount) -> Value {
    let values = meta.values;
    let admin = part.ports.last().map_or(0, |(_, port)| *port);
    let mut mounts: Vec<Value> =
        part.mounts.iter().map(|(name, dir, _)| json!({ "mountPath": dir, "name": name, "readOnly": true })).collect();
    mounts.push(json!(token));
    let mut rights = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "runAsUser": values.controller_uid,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    if values.controller_gid >= 0 {
        rights["runAsGroup"] = json!(values.controller_gid);
    }
    let ports = part.ports.iter().map(|(name, port)| json!({ "containerPort": port, "name": name }));
    let version = values.controller_image_version.or(&values.linkerd_version);
    let mut container = json!({
        "name": part.component,
        "image": format!("{}:{version}", values.controller_image),
        "imagePullPolicy": &*values.image_pull_policy,
        "args": part.args,
        "ports": ports.collect::<Vec<_>>(),
        "livenessProbe": {
            "httpGet": { "path": "/ping", "port": admin },
            "initialDelaySeconds": 10,
            "timeoutSeconds": part.liveness.timeout_seconds,
        },
        // Everybody waits for it, so it is asked often; it is given up as late as Linkerd's.
        "readinessProbe": {
            "failureThreshold": 70,
            "httpGet": { "path": "/ready", "port": admin },
            "periodSeconds": 1,
            "timeoutSeconds": part.readiness.timeout_seconds,
        },
        "securityContext": rights,
        "volumeMounts": mounts,
    });
    if !part.env.is_empty() {
        container["env"] = json!(part.env);
    }
    if let Some(resources) = part.resources.and_then(inject::requirements) {
        container["resources"] = json!(resources);
    }
    container
}

/// What `automountServiceAccountToken` would give, seen by the two containers that need it and by no other.
fn api_access() -> Value {
    json!({
        "name": API_ACCESS,
        "projected": {
            "defaultMode": 420,
            "sources": [
                { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
                { "configMap": { "items": [{ "key": "ca.crt", "path": "ca.crt" }], "name": "kube-root-ca.crt" } },
                {
                    "downwardAPI": {
                        "items": [
                            { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" }, "path": "namespace" },
                        ],
                    },
                },
            ],
        },
    })
}
