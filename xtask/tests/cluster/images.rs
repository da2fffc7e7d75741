//! Each image runs in the cluster, and the proxy's as Linkerd's own injector would use it.

use crate::cluster;
use weft_testkit::kubernetes::Cluster;

/// The init container of Linkerd's patch, with every optional argument; the image is ours.
const LINKERD_INIT: &str = include_str!("linkerd_init.yaml");

/// A pod of one container that runs to its end.
fn pod(name: &str, image: &str, container: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  containers:
  - name: main
    image: weft/{image}:test
    imagePullPolicy: Never
{container}"
    )
}

/// Runs a pod to its end, which must be one of success, and returns what its container said.
fn ends_well(cluster: &Cluster, name: &str, manifest: &str) -> String {
    cluster.apply(manifest).unwrap();
    let phase = cluster
        .until(&format!("get pod {name} --output jsonpath={{.status.phase}}"), |p| p == "Succeeded" || p == "Failed")
        .unwrap();
    let logs = cluster.ask(&format!("logs {name} --all-containers")).unwrap();
    assert_eq!(phase, "Succeeded", "{logs}\n{}", cluster.ask(&format!("describe pod {name}")).unwrap());
    cluster.ask(&format!("delete pod {name} --wait=false")).unwrap();
    logs
}

#[test]
fn the_controller_runs_as_its_user_without_rights() {
    let manifest = pod(
        "controller",
        "controller",
        "    args: [--version]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: { drop: [ALL] }
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      runAsUser: 2103
      seccompProfile: { type: RuntimeDefault }
",
    );
    let Some(cluster) = cluster() else { return };
    let told = ends_well(cluster, "controller", &manifest);
    assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
}

#[test]
fn the_demo_runs_as_the_user_of_its_image() {
    let Some(cluster) = cluster() else { return };
    let told = ends_well(cluster, "demo", &pod("demo", "demo", "    args: [--version]\n"));
    assert!(told.contains(env!("CARGO_PKG_VERSION")), "{told}");
}

/// A pod that Linkerd's injector has patched, and behind the rules a helper that proves them.
fn injected(name: &str, mounts: &str) -> String {
    let volumes = "  volumes:
  - { name: linkerd-proxy-init-xtables-lock, emptyDir: {} }
  - { name: no-program, downwardAPI: { items: [{ path: nft, fieldRef: { fieldPath: metadata.name } }] } }
";
    let validator = "  - name: linkerd-network-validator
    image: weft/proxy:test
    imagePullPolicy: Never
    command: [/usr/lib/linkerd/linkerd2-network-validator]
    args: [--log-format, plain, --log-level, debug, --connect-addr, '1.1.1.1:20001', --listen-addr, '0.0.0.0:4140', --timeout, 60s]
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: { drop: [ALL] }
      readOnlyRootFilesystem: true
      runAsGroup: 65534
      runAsNonRoot: true
      runAsUser: 65534
      seccompProfile: { type: RuntimeDefault }
";
    pod(name, "proxy", "    command: [/bin/sleep, '0']\n")
        + "  initContainers:\n"
        + &LINKERD_INIT.replace("    # MOUNTS\n", mounts)
        + validator
        + volumes
}

#[test]
fn linkerds_patch_redirects_with_our_image() {
    let Some(cluster) = cluster() else { return };
    let told = ends_well(cluster, "injected", &injected("injected", ""));
    assert!(told.contains("redirected by nft"), "{told}");
}

#[test]
fn linkerds_patch_redirects_by_iptables_where_nft_does_not_work() {
    let hidden = "    - { mountPath: /usr/sbin/nft, name: no-program, subPath: nft }\n";
    let Some(cluster) = cluster() else { return };
    let told = ends_well(cluster, "by-iptables", &injected("by-iptables", hidden));
    assert!(told.contains("redirected by iptables-nft"), "{told}");
}

#[test]
fn the_proxys_entrypoint_is_the_proxy() {
    let Some(cluster) = cluster() else { return };
    cluster.apply(&pod("proxy", "proxy", "")).unwrap();
    // Without an environment it says what it misses, and ends.
    cluster.until("get pod proxy --output jsonpath={.status.phase}", |phase| phase == "Failed").unwrap();
    let told = cluster.ask("logs proxy").unwrap();
    assert!(told.contains("LINKERD2_PROXY_"), "{told}");
    cluster.ask("delete pod proxy --wait=false").unwrap();
}
