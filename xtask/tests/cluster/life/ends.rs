//! Pods that run to an end: their proxies end with them, with native sidecars and without.

use super::{eventually, pods, told};
use serde_json::Value;
use weft_testkit::kubernetes::Cluster;

/// A Job of one pod, whose proxy is a native sidecar or not.
fn job(name: &str, native: bool, restart_policy: &str, containers: &str) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{ name: {name}, namespace: trial }}
spec:
  backoffLimit: 0
  template:
    metadata:
      labels: {{ app: {name} }}
      annotations: {{ config.alpha.linkerd.io/proxy-enable-native-sidecar: '{native}' }}
    spec:
      restartPolicy: {restart_policy}
      enableServiceLinks: false
      containers:
{containers}---
"
    )
}

fn container(name: &str, arguments: &str) -> String {
    format!("      - {{ name: {name}, image: 'weft/demo:test', imagePullPolicy: Never, args: [{arguments}] }}\n")
}

pub(super) fn jobs_end(cluster: &Cluster) {
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
        let words = format!("--namespace trial get job {name} --output jsonpath={{.status.{expected}}}");
        if let Err(error) = cluster.until(&words, |count| count == "1") {
            panic!("{error}\n{}", told(cluster, "trial"));
        }
    }
    for name in ["plain", "failing"] {
        assert_eq!(exit_code(cluster, name, "linkerd-proxy"), 0, "the proxy of {name} ends in order");
    }
    eventually("the first container to end", || exit_code(cluster, "going-on", "main") == 0);
    assert_eq!(exit_code(cluster, "going-on", "linkerd-proxy"), Value::Null, "its proxy goes on");
    cluster.ask("--namespace trial delete job native plain failing going-on --wait=false").unwrap();
}

fn exit_code(cluster: &Cluster, app: &str, container: &str) -> Value {
    let pods = pods(cluster, "trial", &format!("app={app}"));
    let statuses = pods[0]["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let status = statuses.iter().find(|status| status["name"] == container);
    status.map(|status| status["state"]["terminated"]["exitCode"].clone()).unwrap_or_default()
}
