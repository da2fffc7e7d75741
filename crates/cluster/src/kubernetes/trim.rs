//! What the index reads of an object, and whoever looks for pods without a proxy; the rest is let go before a list of all of them is held.

use crate::{index::runs_to_an_end, inject::is_of_a_mesh};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus, Probe,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use serde_json::{Value, json};

/// The variables of a container that say where its proxy listens.
const LISTENS: (&str, &str) = ("LINKERD2_PROXY_", "_LISTEN_ADDR");

/// Where kubectl keeps the whole object once more.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

pub(super) fn metadata(mut metadata: ObjectMeta) -> ObjectMeta {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(APPLIED);
    }
    ObjectMeta { managed_fields: None, ..metadata }
}

/// What the status of an object depends on that cannot be carried out.
pub(super) fn reported(object: &Value) -> Value {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    json!({
        "apiVersion": object["apiVersion"],
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"],
            "generation": metadata["generation"], "resourceVersion": metadata["resourceVersion"],
        },
        "spec": { "parentRefs": spec["parentRefs"], "targetRef": spec["targetRef"] },
        "status": object["status"],
    })
}

pub(super) fn pod(pod: Pod) -> Pod {
    let (spec, status) = (pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
    let ends = runs_to_an_end(spec.restart_policy.as_deref());
    let ended = |status: ContainerStatus| {
        let exit_code = status.state?.terminated?.exit_code;
        let terminated = ContainerStateTerminated { exit_code, ..ContainerStateTerminated::default() };
        let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
        Some(ContainerStatus { name: status.name, state: Some(state), ..ContainerStatus::default() })
    };
    Pod {
        metadata: metadata(pod.metadata),
        spec: Some(PodSpec {
            service_account_name: spec.service_account_name,
            host_network: spec.host_network,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            restart_policy: spec.restart_policy.filter(|_| ends),
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            host_ip: status.host_ip,
            host_ips: status.host_ips,
            conditions: status.conditions,
            container_statuses: status
                .container_statuses
                .filter(|_| ends)
                .map(|all| all.into_iter().filter_map(ended).collect()),
            ..PodStatus::default()
        }),
    }
}

fn container(container: Container) -> Container {
    let (start, end) = LISTENS;
    let env = container.env.into_iter().flatten().filter(|v| v.name.starts_with(start) && v.name.ends_with(end));
    let http = |probe: Option<Probe>| {
        probe.filter(|p| p.http_get.is_some()).map(|p| Probe { http_get: p.http_get, ..Probe::default() })
    };
    Container {
        name: container.name,
        image: container.image.filter(|image| is_of_a_mesh(image)),
        ports: container.ports,
        restart_policy: container.restart_policy,
        env: Some(env.collect()),
        readiness_probe: http(container.readiness_probe),
        liveness_probe: http(container.liveness_probe),
        startup_probe: http(container.startup_probe),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Index, Object, index::Settings, inject::Bare};

    #[test]
    fn answers_are_the_same_with_and_without_what_is_let_go() {
        let full: Pod = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "ns", "labels": {"app": "web", "linkerd.io/control-plane-ns": "linkerd"},
                "managedFields": [{"manager": "kubectl"}], "annotations": {"config.linkerd.io/opaque-ports": "9000", APPLIED: "{}"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true, "uid": ""}]},
            "spec": {"serviceAccountName": "web", "hostname": "a", "subdomain": "web", "nodeName": "n", "volumes": [{"name": "v"}],
                "containers": [
                    {"name": "web", "image": "web", "ports": [{"name": "http", "containerPort": 8080, "hostPort": 80}],
                        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 3},
                        "livenessProbe": {"tcpSocket": {"port": 1}}},
                    {"name": "linkerd-proxy", "env": [
                        {"name": "LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "value": "0.0.0.0:5143"},
                        {"name": "LINKERD2_PROXY_LOG", "value": "warn"}]}]},
            "status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}], "hostIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": []},
        }))
        .unwrap();
        let mut ends = full.clone();
        ends.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
        let terminated = json!([{"name": "web", "ready": false, "restartCount": 0, "image": "web", "imageID": "",
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "containerID": "containerd://1"}}}]);
        ends.status.as_mut().unwrap().container_statuses = serde_json::from_value(terminated).unwrap();
        let trimmed = pod(full.clone());
        assert!(serde_json::to_string(&trimmed).unwrap().len() < serde_json::to_string(&full).unwrap().len() - 200);
        let index = |pod: Pod| {
            let mut index = Index::new(Settings::default());
            index.apply(Event::Apply(Object::Pod(Box::new(pod))));
            index
        };
        assert_eq!(format!("{:?}", index(full)), format!("{:?}", index(trimmed)));
        let done = format!("{:?}", index(pod(ends.clone())));
        assert_eq!(format!("{:?}", index(ends)), done);
        assert!(done.contains("done: true"), "{done}");
    }

    /// By the images of other meshes as well, whatever their containers are called.
    #[test]
    fn who_has_no_proxy_is_the_same_with_and_without_what_is_let_go() {
        let of = |list: &str, image: &str| -> Pod {
            let mut spec = json!({"containers": [{"name": "web", "image": "web:1"}]});
            let container = json!({"name": "x", "image": image});
            match spec[list].as_array_mut() {
                Some(all) => all.push(container),
                None => spec[list] = json!([container]),
            }
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
        };
        let is_bare = |pod: &Pod| Bare::of(pod).is_some();
        for (image, in_containers, in_inits) in [
            ("cr.l5d.io/linkerd/proxy:v2", false, false),
            ("gcr.io/istio-release/proxyv2:1.20", false, false),
            ("cr.l5d.io/linkerd/proxy-init:v2", true, false),
            ("gcr.io/istio-release/proxy_init:1", true, false),
            ("example.com/cr.l5d.io/linkerd/proxy:v2", true, true),
        ] {
            for (list, expected) in [("containers", in_containers), ("initContainers", in_inits)] {
                let full = of(list, image);
                assert_eq!((is_bare(&full), is_bare(&pod(full))), (expected, expected), "{list} {image}");
            }
        }
        let trimmed = serde_json::to_string(&pod(of("containers", "example.com/large:1"))).unwrap();
        assert!(!trimmed.contains("image"), "{trimmed}");
    }
}
