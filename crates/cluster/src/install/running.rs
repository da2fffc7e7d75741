//! The pods of a mesh, as far as people ask of them.

use crate::{
    inject::{PROXY, PROXY_VERSION},
    k8s::api::core::v1::{ContainerStatus, Pod},
    kubernetes::{Cluster, Error},
    label, object,
};
use jiff::Timestamp;
use serde::Serialize;

/// A pod of the mesh that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    pub namespace: String,
    pub name: String,
    pub ready: bool,
    /// As kubectl has it: the phase, or what keeps it from running.
    pub status: String,
    /// Of all its containers.
    pub restarts: u64,
    pub started: Option<Timestamp>,
    /// Whether it has a proxy.
    pub meshed: bool,
    /// Of the proxy.
    pub version: Option<String>,
    pub ips: Vec<String>,
    pub node: Option<String>,
}

/// Pods of the mesh, in one namespace or in all, in the order of their names.
///
/// # Errors
/// As [`Cluster::config_map`].
pub async fn running(cluster: &Cluster, namespace: &str, of: Option<&str>) -> Result<Vec<Running>, Error> {
    let mut running: Vec<Running> = pods(cluster, namespace, of).await?.iter().map(told).collect();
    running.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(running)
}

/// The objects themselves.
pub(super) async fn pods(cluster: &Cluster, namespace: &str, of: Option<&str>) -> Result<Vec<Pod>, Error> {
    let mut pods = cluster.pods(of, &format!("{}={namespace}", label::CONTROL_NAMESPACE)).await?;
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    Ok(pods)
}

fn told(pod: &Pod) -> Running {
    let (meta, spec, status) = (&pod.metadata, pod.spec.as_ref(), pod.status.as_ref());
    let containers: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()))
        .collect();
    let waits = containers.iter().find_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let phase = status.and_then(|s| s.phase.clone()).unwrap_or_else(|| "Unknown".to_owned());
    let conditions = status.and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let proxies = spec.into_iter().flat_map(object::containers);
    Running {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        ready: conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        status: if meta.deletion_timestamp.is_some() { "Terminating".to_owned() } else { waits.unwrap_or(phase) },
        restarts: containers.iter().map(|c| u64::try_from(c.restart_count).unwrap_or(0)).sum(),
        started: status.and_then(|s| s.start_time.as_ref()).map(|time| time.0),
        meshed: proxies.into_iter().any(|c| c.name == PROXY),
        version: meta.annotations.as_ref().and_then(|all| all.get(PROXY_VERSION).cloned()),
        ips: status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.clone()).collect(),
        node: spec.and_then(|s| s.node_name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(pod: serde_json::Value) -> Running {
        told(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_is_told_as_kubectl_tells_it() {
        let container = |name: &str, restarts: u32, state: serde_json::Value| json!({"name": name, "ready": true, "restartCount": restarts, "image": "", "imageID": "", "state": state});
        let mut pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "annotations": {"linkerd.io/proxy-version": "v1"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "web"}], "initContainers": [{"name": "linkerd-proxy"}]},
            "status": {"phase": "Running", "startTime": "2026-11-26T08:00:00Z", "podIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [container("web", 2, json!({"running": {}}))],
                "initContainerStatuses": [container("linkerd-proxy", 1, json!({"running": {}}))]},
        });
        let expected = Running {
            namespace: "shop".to_owned(),
            name: "web-1".to_owned(),
            ready: true,
            status: "Running".to_owned(),
            restarts: 3,
            started: Some("2026-11-26T08:00:00Z".parse().unwrap()),
            meshed: true,
            version: Some("v1".to_owned()),
            ips: vec!["10.0.0.7".to_owned(), "fd00::7".to_owned()],
            node: Some("n1".to_owned()),
        };
        assert_eq!(of(pod.clone()), expected);
        pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(of(pod.clone()).status, "CrashLoopBackOff");
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-26T08:00:00Z");
        assert_eq!(of(pod).status, "Terminating");
        assert_eq!(of(json!({"metadata": {}})).status, "Unknown");
    }
}
