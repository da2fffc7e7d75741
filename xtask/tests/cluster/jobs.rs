//! Pods that run to an end: their proxies end with them, with native sidecars and without.

use crate::mesh::{eventually, told};
use serde_json::Value;
use weft_testkit::kubernetes::Cluster;

/// Its namespace asks for proxies.
const NAMESPACE: &str = "trial";

/// A Job of one pod, whose proxy is a native sidecar or not.
fn job(name: &str, native: bool, restart_policy: &str, containers: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{ name: {name}, namespace: {NAMESPACE} }}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations: {{ config.alpha.linkerd.io/proxy-enable-native-sidecar: '{native}' }}
    spec:
      restartPolicy: {restart_policy}
      terminationGracePeriodSeconds: 1
      enableServiceLinks: false
      containers:
{containers}---
"
    )
}

fn container(name: &str, arguments: &str) -> String {
    format!("      - {{ name: {name}, image: 'weft/demo:test', imagePullPolicy: Never, args: [{arguments}] }}\n")
}

pub(crate) fn end(cluster: &Cluster) {
    let (ends, fails, serves) =
        (container("main", "--version"), container("main", "--nonsense"), container("server", "emoji"));
    let manifests = [
        job("native", true, "Never", &ends),
        job("plain", false, "OnFailure", &ends),
        job("failing", false, "Never", &fails),
        // One of its containers goes on, so it does.
        job("going-on", false, "Never", &(ends.clone() + &serves)),
    ];
    cluster.apply(&manifests.concat()).unwrap();
    for (name, expected) in [("native", "succeeded"), ("plain", "succeeded"), ("failing", "failed")] {
        let words = format!("--namespace {NAMESPACE} get job {name} --output jsonpath={{.status.{expected}}}");
        if let Err(error) = cluster.until(&words, |count| count == "1") {
            panic!("{error}\n{}", told(cluster, NAMESPACE));
        }
    }
    for name in ["plain", "failing"] {
        assert_eq!(exit_code(cluster, name, "linkerd-proxy"), 0, "the proxy of {name} ends in order");
    }
    eventually("the first container to end", || exit_code(cluster, "going-on", "main") == 0);
    assert_eq!(exit_code(cluster, "going-on", "linkerd-proxy"), Value::Null, "its proxy goes on");
    // With their pods, which others count.
    let jobs = "native plain failing going-on --cascade=foreground";
    cluster.ask(&format!("--namespace {NAMESPACE} delete job {jobs}")).unwrap();
}

/// `Null` while the container runs.
fn exit_code(cluster: &Cluster, app: &str, container: &str) -> Value {
    let pods = cluster.ask(&format!("--namespace {NAMESPACE} get pods --selector app={app} --output json")).unwrap();
    let pods: Value = serde_json::from_str(&pods).unwrap();
    let statuses = pods["items"][0]["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let status = statuses.iter().find(|status| status["name"] == container);
    status.map(|status| status["state"]["terminated"]["exitCode"].clone()).unwrap_or_default()
}
