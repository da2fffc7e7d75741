//! PodMonitors, for who runs the Prometheus operator.

use super::Meta;
use crate::{kubernetes::Resource, label, manifest};
use serde_json::{Value, json};

pub(super) const PODMONITOR: Resource = Resource::new("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors");

pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let monitor = &meta.values.pod_monitor;
    if !monitor.enabled {
        return vec![];
    }
    let mut objects = vec![];
    if monitor.controller.enabled {
        let text = monitor.controller.namespace_selector.replace("{{ .Release.Namespace }}", meta.namespace);
        let namespaces = manifest::one_document(&text).ok().filter(Value::is_object);
        let endpoint = endpoint(
            meta,
            monitor.controller.honor_timestamps,
            json!([
                keep("__meta_kubernetes_pod_container_port_name", "(.*)-admin"),
                not_proxies(),
                replace("__meta_kubernetes_pod_container_name", "component"),
            ]),
        );
        objects.push(object(
            meta,
            "linkerd-controller",
            namespaces.unwrap_or_else(|| json!({ "any": true })),
            endpoint,
        ));
    }
    if monitor.service_mirror.enabled {
        let mirror = json!([
            keep(
                "__meta_kubernetes_pod_label_linkerd_io_control_plane_component",
                "(linkerd-service-mirror|controller)"
            ),
            keep("__meta_kubernetes_pod_container_port_name", "(.*)-admin"),
            not_proxies(),
            replace("__meta_kubernetes_pod_container_name", "component"),
        ]);
        let endpoint = endpoint(meta, monitor.service_mirror.honor_timestamps, mirror);
        objects.push(object(meta, "linkerd-multicluster-controller", json!({ "any": true }), endpoint));
    }
    if monitor.proxy.enabled {
        let endpoint = endpoint(meta, monitor.proxy.honor_timestamps, of_proxies(meta));
        objects.push(object(meta, "linkerd-proxy", json!({ "any": true }), endpoint));
    }
    objects
}

fn object(meta: &Meta<'_>, name: &str, namespaces: Value, endpoint: Value) -> Value {
    let mut metadata = meta.named(name, None);
    for (key, value) in &meta.values.pod_monitor.labels {
        metadata["labels"][key] = json!(&**value);
    }
    json!({
        "apiVersion": PODMONITOR.api_version(),
        "kind": PODMONITOR.kind,
        "metadata": metadata,
        "spec": { "namespaceSelector": namespaces, "selector": {}, "podMetricsEndpoints": [endpoint] },
    })
}

fn endpoint(meta: &Meta<'_>, honor_timestamps: bool, relabelings: Value) -> Value {
    let monitor = &meta.values.pod_monitor;
    json!({
        "interval": &*monitor.scrape_interval,
        "scrapeTimeout": &*monitor.scrape_timeout,
        "honorTimestamps": honor_timestamps,
        "relabelings": relabelings,
    })
}

fn keep(label: &str, regex: &str) -> Value {
    json!({ "sourceLabels": [label], "action": "keep", "regex": regex })
}

/// Whose own monitor scrapes them.
fn not_proxies() -> Value {
    json!({ "sourceLabels": ["__meta_kubernetes_pod_container_name"], "action": "drop", "regex": "linkerd-proxy" })
}

fn replace(label: &str, to: &str) -> Value {
    json!({ "sourceLabels": [label], "action": "replace", "targetLabel": to })
}

fn map(action: &str, regex: &str, replacement: Option<&str>) -> Value {
    let mut relabeling = json!({ "action": action, "regex": regex });
    if let Some(replacement) = replacement {
        relabeling["replacement"] = json!(replacement);
    }
    relabeling
}

/// From the labels of pods to those that Linkerd's dashboards ask for.
fn of_proxies(meta: &Meta<'_>) -> Value {
    let names = json!([
        "__meta_kubernetes_pod_container_name",
        "__meta_kubernetes_pod_container_port_name",
        format!("__meta_kubernetes_pod_label_{}", label::CONTROL_NAMESPACE.replace(['.', '/', '-'], "_")),
    ]);
    json!([
        { "sourceLabels": names, "action": "keep", "regex": format!("^linkerd-proxy;linkerd-admin;{}$", meta.namespace) },
        replace("__meta_kubernetes_namespace", "namespace"),
        replace("__meta_kubernetes_pod_name", "pod"),
        replace("__meta_kubernetes_pod_label_linkerd_io_proxy_job", "k8s_job"),
        map("labeldrop", "__meta_kubernetes_pod_label_linkerd_io_proxy_job", None),
        map("labelmap", "__meta_kubernetes_pod_label_linkerd_io_proxy_(.+)", None),
        map("labeldrop", "__meta_kubernetes_pod_label_linkerd_io_proxy_(.+)", None),
        map("labelmap", "__meta_kubernetes_pod_label_linkerd_io_(.+)", None),
        map("labelmap", "__meta_kubernetes_pod_label_(.+)", Some("__tmp_pod_label_$1")),
        map("labelmap", "__tmp_pod_label_linkerd_io_(.+)", Some("__tmp_pod_label_$1")),
        map("labeldrop", "__tmp_pod_label_linkerd_io_(.+)", None),
        map("labelmap", "__tmp_pod_label_(.+)", None),
    ])
}
