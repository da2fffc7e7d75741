//! Pods that were to get a proxy, and were made while the webhook was away.

use super::{eventually, pods, restarted, rolled_out, weft, wire::metrics};
use weft_testkit::kubernetes::Cluster;

const INJECTOR: &str = "linkerd-proxy-injector";

pub(super) fn are_named(cluster: &Cluster) {
    let scale = |replicas: u32| format!("--namespace linkerd scale deployment {INJECTOR} --replicas={replicas}");
    cluster.ask(&scale(0)).unwrap();
    eventually("the webhook to be away", || {
        pods(cluster, "linkerd", "linkerd.io/control-plane-component=proxy-injector").is_empty()
    });
    let bare = "apiVersion: apps/v1
kind: Deployment
metadata: { name: bare, namespace: trial }
spec:
  selector: { matchLabels: { app: bare } }
  template:
    metadata: { labels: { app: bare } }
    spec:
      enableServiceLinks: false
      containers:
      - { name: bare, image: 'weft/demo:test', imagePullPolicy: Never, args: [emoji] }
";
    cluster.apply(bare).unwrap();
    rolled_out(cluster, "trial", &["bare"]);
    let pod = &pods(cluster, "trial", "app=bare")[0];
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert!(!pod.to_string().contains("linkerd-proxy"), "it was meshed: {pod}");
    cluster.ask(&scale(1)).unwrap();
    rolled_out(cluster, "linkerd", &[INJECTOR]);

    let destination = || metrics(cluster, "linkerd", "linkerd.io/control-plane-component=destination", 9996);
    let series = format!("weft_control_unmeshed_pod{{namespace=\"trial\",pod=\"{name}\"}} 1\n");
    eventually("the metric to name it", || destination().contains(&series));
    let output = weft(cluster, &["check", "--proxy", "--expected-version=test"]);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && told.contains(&format!("pod trial/{name} has no proxy")), "{output:?}");
    // What the check says to do about it.
    assert!(told.contains("kubectl -n trial rollout restart deployment/bare"), "{told}");
    eventually("the webhook to be asked again", || {
        restarted(cluster, "trial", &["bare"]);
        pods(cluster, "trial", "app=bare").iter().all(|pod| pod.to_string().contains("linkerd-proxy"))
    });
    eventually("the metric to name nobody", || destination().contains("weft_control_unmeshed_pods 0\n"));
    cluster.ask("--namespace trial delete deployment bare --wait=false").unwrap();
}
