//! The files that the daemons read. What is here and not a flag has no flag.

use super::{CONTAINERD, Node};
use crate::cluster::{NODE, programs};
use serde_json::json;
use std::fs;

pub(super) const PODS: &str = "10.244.0.0/16";
pub(super) const PODS_V6: &str = "fd00:244::/56";
pub(super) const SERVICES: &str = "10.96.0.0/16";
pub(super) const SERVICES_V6: &str = "fd00:96::/112";
/// The Service of CoreDNS.
const NAMES: &str = "10.96.0.10";

pub(super) fn write(node: &Node) -> anyhow::Result<()> {
    let etc = node.home.etc();
    fs::create_dir_all(etc.join("cni"))?;
    fs::write(etc.join("containerd.toml"), containerd(node))?;
    fs::write(etc.join("cni/10-pods.conflist"), cni(node).to_string())?;
    fs::write(etc.join("kubelet.json"), kubelet(node).to_string())?;
    // What CoreDNS would ask; the machine's servers are out of reach.
    fs::write(etc.join("resolv.conf"), format!("nameserver {NODE}\n"))?;
    Ok(())
}

fn containerd(node: &Node) -> String {
    let cni = node.home.etc().join("cni");
    let pause = programs::PAUSE;
    // Without CAP_SYS_RESOURCE no process may be made less likely to be killed, hence restrict_oom_score_adj.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{}"
"#,
        cni.display()
    )
}

/// Pods are routed, each over a link of its own: on a bridge, answers of a Service's pod would go around the node's translation.
fn cni(node: &Node) -> serde_json::Value {
    // The node's share of the pods' networks is the first, since there is no other node.
    let mut ranges = vec![json!([{ "subnet": "10.244.0.0/24" }])];
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if node.dual_stack {
        ranges.push(json!([{ "subnet": "fd00:244::/64" }]));
        routes.push(json!({ "dst": "::/0" }));
    }
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": { "type": "host-local", "dataDir": "/run/cni-ipam", "ranges": ranges, "routes": routes },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn kubelet(node: &Node) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": node.home.pki().join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "clusterDNS": [NAMES],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "evictionHard": {},
        "failCgroupV1": false,
        "failSwapOn": false,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": false,
        "maxPods": 200,
        "oomScoreAdj": 0,
        "resolvConf": node.home.etc().join("resolv.conf"),
        // By when a pod has what is new in a Secret or a ConfigMap.
        "syncFrequency": "10s",
    })
}
