//! What annotations do to a pod that the API server has made: probes pass where nobody else does, and mistakes are told.

use super::{eventually, rolled_out};
use weft_testkit::kubernetes::Cluster;

/// Nobody is let in, two things are said wrongly, and the pod is Ready only if the kubelet's probes get through. It can be looked into.
const STRICT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: strict, namespace: trial }
spec:
  selector: { matchLabels: { app: strict } }
  template:
    metadata:
      labels: { app: strict }
      annotations:
        config.linkerd.io/default-inbound-policy: deny
        config.linkerd.io/proxy-log-format: yaml
        config.linkerd.io/no-such-thing: 'true'
        config.linkerd.io/enable-debug-sidecar: 'true'
    spec:
      enableServiceLinks: false
      containers:
      - name: strict
        image: weft/demo:test
        imagePullPolicy: Never
        args: [web, '--emoji=emoji.meshed:80', '--voting=voting.meshed:80']
        ports: [{ containerPort: 8080, name: http }]
        startupProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
        readinessProbe: { httpGet: { path: /leaderboard, port: 8080 }, periodSeconds: 1 }
        livenessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
";

pub(super) fn pods_do_as_they_are_told(cluster: &Cluster) {
    cluster.apply(STRICT).unwrap();
    rolled_out(cluster, "trial", &["strict"]);
    let address = "--namespace trial get pods --selector app=strict --output jsonpath={.items[0].status.podIP}";
    let address = cluster.ask(address).unwrap();
    let mut stranger = cluster.on_node(&["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    let answer = stranger.arg(format!("http://{address}:8080/api/list")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "403", "who is no probe is refused");
    // Beside it stands who sees that: by its log, and by what is run there.
    let debug = "deployment/strict --container linkerd-debug";
    let seen = format!("> {address}.8080:");
    cluster.until(&format!("--namespace trial logs {debug}"), |log| log.contains(&seen)).unwrap();
    let listening = cluster.ask(&format!("--namespace trial exec {debug} -- ss -Hltn")).unwrap();
    assert!(listening.contains(":4143 "), "{listening}");
    let events = "--namespace trial get events --field-selector reason=InjectionWarning,involvedObject.name=strict --output \
                  jsonpath={.items[*].message}";
    for key in ["config.linkerd.io/proxy-log-format", "config.linkerd.io/no-such-thing"] {
        eventually(&format!("an Event about {key}"), || cluster.ask(events).is_ok_and(|told| told.contains(key)));
    }
    cluster.ask("--namespace trial delete deployment strict --wait=false").unwrap();
    let root = "apiVersion: v1
kind: Pod
metadata: { name: root, namespace: trial, annotations: { config.linkerd.io/proxy-uid: '0' } }
spec: { containers: [{ name: main, image: 'weft/demo:test' }] }
";
    let refused = cluster.apply(root).unwrap_err().to_string();
    assert!(refused.contains("metadata.annotations[config.linkerd.io/proxy-uid]"), "{refused}");
}
