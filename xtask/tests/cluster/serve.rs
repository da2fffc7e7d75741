//! What a cluster does while it is there.

use crate::{app, cluster};
use std::{path::Path, process::Command};

#[test]
fn pods_of_our_image_serve_by_name_and_address() {
    let Some(cluster) = cluster() else { return };
    cluster.apply(&app("serve", "")).unwrap();
    // Web's answers need the others by their names, from the node over the Service's addresses of both families.
    for (workload, replicas) in [("emoji", "1"), ("voting", "1"), ("web", "2")] {
        let ask = format!("--namespace serve get deployment {workload} --output jsonpath={{.status.readyReplicas}}");
        cluster.until(&ask, |ready| ready == replicas).unwrap();
    }
    let addresses = cluster.ask("--namespace serve get service web --output jsonpath={.spec.clusterIPs[*]}").unwrap();
    assert_eq!(addresses.split(' ').count(), 2, "{addresses}");
    for address in addresses.split(' ') {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        // A Ready pod is not at once behind the Service's address: the node's rules follow.
        let url = format!("http://{host}/api/list");
        let patient = ["--retry", "60", "--retry-delay", "1", "--retry-all-errors"];
        let mut ask = vec!["curl", "--silent", "--show-error", "--fail", "--max-time", "60", &url];
        ask.extend(patient);
        let output = cluster.on_node(&ask).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{address}: {output:?}");
    }
    // What people do with a pod.
    cluster
        .until("--namespace serve exec deployment/web -- /weft-demo --version", |told| told.contains("weft-demo"))
        .unwrap();
    cluster.until("--namespace serve logs deployment/web", |log| !log.is_empty()).unwrap();
    cluster.ask("delete namespace serve --wait=false").unwrap();
}

#[test]
fn nothing_leads_out() {
    let Some(cluster) = cluster() else { return };
    let links = cluster.on_node(&["ip", "-brief", "link"]).output().unwrap();
    let links = String::from_utf8(links.stdout).unwrap();
    let links: Vec<_> = links.lines().filter_map(|line| line.split_whitespace().next()).collect();
    // The node's own and those of pods, whose other ends are in pods.
    assert!(links.iter().all(|link| ["lo", "node0"].contains(link) || link.starts_with("veth")), "{links:?}");
}

#[test]
fn an_image_may_have_the_name_that_a_manifest_asks_for() {
    let Some(cluster) = cluster() else { return };
    // As a third party's manifest may, which nobody changes.
    let name = "registry.example:5000/others/app:v3";
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("images/demo.tar");
    let suite = cluster.kubeconfig.parent().unwrap().file_name().unwrap();
    let mut chore = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = chore.args(["cluster", "load", "--as", name, "--name"]).arg(suite).arg(archive).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    cluster.ask(&format!("run named --image={name} --restart=Never -- --version")).unwrap();
    cluster.until("get pod named --output jsonpath={.status.phase}", |phase| phase == "Succeeded").unwrap();
    cluster.ask("delete pod named --wait=false").unwrap();
}

#[test]
fn the_gateway_apis_definitions_are_there() {
    let Some(cluster) = cluster() else { return };
    cluster.ask(&format!("apply --server-side --filename {}", cluster.gateway_api("standard").display())).unwrap();
    let names = cluster
        .until("api-resources --api-group=gateway.networking.k8s.io --output name", |n| n.contains("httproutes"));
    assert!(names.unwrap().contains("grpcroutes"));
}
