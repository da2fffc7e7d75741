//! The command line of each daemon. Ports are the usual ones: the network is the cluster's own.

use super::{
    Node,
    settings::{PODS, PODS_V6, SERVICES, SERVICES_V6},
    supervise::Daemon,
};
use crate::cluster::{API_PORT, NODE, NODE_V6};

/// Both families where the cluster has both.
fn families(node: &Node, v4: &str, v6: &str) -> String {
    if node.dual_stack { format!("{v4},{v6}") } else { v4.to_owned() }
}

fn file(node: &Node, flag: &str, name: &str) -> String {
    format!("--{flag}={}", node.home.pki().join(name).display())
}

fn kubeconfig(node: &Node, flag: &str, client: &str) -> String {
    format!("--{flag}={}", node.home.inner_kubeconfig(client).display())
}

pub(super) fn etcd() -> Daemon {
    Daemon::new(
        "etcd",
        "--data-dir=/var/lib/etcd --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
         --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
         --initial-cluster=default=http://127.0.0.1:2380 --unsafe-no-fsync --logger=zap --log-level=warn",
    )
}

pub(super) fn apiserver(node: &Node, alone: bool) -> Daemon {
    let daemon = Daemon::new(
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379 --authorization-mode=Node,RBAC --allow-privileged --enable-aggregator-routing \
         --service-account-issuer=https://kubernetes.default.svc.cluster.local --kubelet-preferred-address-types=InternalIP \
         --requestheader-allowed-names=front-proxy-client --requestheader-username-headers=X-Remote-User \
         --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
         --endpoint-reconciler-type=lease",
    )
    .arg(format!("--advertise-address={NODE}"))
    .arg(format!("--secure-port={API_PORT}"))
    .arg(format!("--service-cluster-ip-range={}", families(node, SERVICES, SERVICES_V6)))
    .arg(file(node, "client-ca-file", "ca.crt"))
    .arg(file(node, "tls-cert-file", "apiserver.crt"))
    .arg(file(node, "tls-private-key-file", "apiserver.key"))
    .arg(file(node, "service-account-key-file", "accounts.pub"))
    .arg(file(node, "service-account-signing-key-file", "accounts.key"))
    .arg(file(node, "kubelet-client-certificate", "kubelet-client.crt"))
    .arg(file(node, "kubelet-client-key", "kubelet-client.key"))
    .arg(file(node, "requestheader-client-ca-file", "ca.crt"))
    .arg(file(node, "proxy-client-cert-file", "front-proxy.crt"))
    .arg(file(node, "proxy-client-key-file", "front-proxy.key"));
    if alone {
        // Nobody makes the accounts that it would ask for.
        return daemon.arg("--disable-admission-plugins=ServiceAccount".to_owned());
    }
    daemon.arg("--enable-admission-plugins=NodeRestriction".to_owned())
}

pub(super) fn controller_manager(node: &Node) -> Daemon {
    Daemon::new(
        "kube-controller-manager",
        "--use-service-account-credentials --allocate-node-cidrs --leader-elect=false",
    )
    .arg(format!("--cluster-cidr={}", families(node, PODS, PODS_V6)))
    .arg(format!("--service-cluster-ip-range={}", families(node, SERVICES, SERVICES_V6)))
    .arg(kubeconfig(node, "kubeconfig", "controller-manager"))
    .arg(kubeconfig(node, "authentication-kubeconfig", "controller-manager"))
    .arg(kubeconfig(node, "authorization-kubeconfig", "controller-manager"))
    .arg(file(node, "root-ca-file", "ca.crt"))
    .arg(file(node, "service-account-private-key-file", "accounts.key"))
    .arg(file(node, "cluster-signing-cert-file", "ca.crt"))
    .arg(file(node, "cluster-signing-key-file", "ca.key"))
}

pub(super) fn scheduler(node: &Node) -> Daemon {
    Daemon::new("kube-scheduler", "--leader-elect=false")
        .arg(kubeconfig(node, "kubeconfig", "scheduler"))
        .arg(kubeconfig(node, "authentication-kubeconfig", "scheduler"))
        .arg(kubeconfig(node, "authorization-kubeconfig", "scheduler"))
}

pub(super) fn containerd(node: &Node) -> Daemon {
    Daemon::new("containerd", "--log-level=warn")
        .arg(format!("--config={}", node.home.etc().join("containerd.toml").display()))
}

pub(super) fn kubelet(node: &Node) -> Daemon {
    Daemon::new("kubelet", "--hostname-override=node1")
        .arg(format!("--node-ip={}", families(node, NODE, NODE_V6)))
        .arg(format!("--config={}", node.home.etc().join("kubelet.json").display()))
        .arg(kubeconfig(node, "kubeconfig", "kubelet"))
}

pub(super) fn proxy(node: &Node) -> Daemon {
    Daemon::new(
        "kube-proxy",
        "--proxy-mode=nftables --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s \
         --conntrack-tcp-timeout-close-wait=0s --hostname-override=node1 --oom-score-adj=0",
    )
    .arg(format!("--cluster-cidr={}", families(node, PODS, PODS_V6)))
    .arg(kubeconfig(node, "kubeconfig", "proxy"))
}
