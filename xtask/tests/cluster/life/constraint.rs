//! A cluster's own rule that pods are meshed, as a policy engine holds it against what the injector has made (ecosystem 7.1): with the
//! names that it was written with, and the values of today.

use serde_json::Value;
use weft_testkit::kubernetes::Cluster;

/// What the rule wants of the proxy's environment; of some only that it is there. Of the names that it was written with two are gone:
/// `DESTINATION_GET_SUFFIXES`, and `TAP_SVC_NAME`, which comes with the dashboard.
const ENVIRONMENT: [(&str, Option<&str>); 20] = [
    ("LINKERD2_PROXY_LOG", None),
    ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", Some("linkerd-dst-headless.linkerd.svc.cluster.local.:8086")),
    ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", Some("[::]:4190")),
    ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", Some("[::]:4191")),
    ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", Some("127.0.0.1:4140")),
    ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS", Some("127.0.0.1:4140,[::1]:4140")),
    ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", Some("[::]:4143")),
    ("LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES", Some("svc.cluster.local.")),
    ("LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE", Some("10000ms")),
    ("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", Some("10000ms")),
    ("LINKERD2_PROXY_DESTINATION_CONTEXT", None),
    ("LINKERD2_PROXY_IDENTITY_DIR", Some("/var/run/linkerd/identity/end-entity")),
    ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", None),
    ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", Some("/var/run/secrets/tokens/linkerd-identity-token")),
    ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", Some("linkerd-identity-headless.linkerd.svc.cluster.local.:8080")),
    ("_l5d_ns", Some("linkerd")),
    ("_l5d_trustdomain", Some("cluster.local")),
    ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", Some("$(_pod_sa).$(_pod_ns).serviceaccount.identity.linkerd.cluster.local")),
    (
        "LINKERD2_PROXY_IDENTITY_SVC_NAME",
        Some("linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local"),
    ),
    (
        "LINKERD2_PROXY_DESTINATION_SVC_NAME",
        Some("linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local"),
    ),
];

/// What the rule says about a pod; nothing if it lets it in.
fn violations(pod: &Value) -> Vec<String> {
    let mut found = vec![];
    for (name, value) in [("linkerd.io/inject", "enabled"), ("linkerd.io/identity-mode", "default")] {
        if pod["metadata"]["annotations"][name] != value {
            found.push(format!("the annotation {name} is not {value}"));
        }
    }
    if pod["spec"]["automountServiceAccountToken"] != true {
        found.push("automountServiceAccountToken is not true".to_owned());
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let all = containers.chain(pod["spec"]["initContainers"].as_array().into_iter().flatten());
    let Some(proxy) = all.into_iter().find(|container| container["name"] == "linkerd-proxy") else {
        found.push("there is no proxy".to_owned());
        return found;
    };
    for (name, value) in ENVIRONMENT {
        let variable = proxy["env"].as_array().into_iter().flatten().find(|variable| variable["name"] == name);
        match (variable, value) {
            (None, _) => found.push(format!("{name} is missing")),
            (Some(variable), Some(value)) if variable["value"] != value => {
                found.push(format!("{name} is {} instead of {value}", variable["value"]));
            }
            (Some(_), _) => {}
        }
    }
    found
}

/// What the API server would have made of a pod, and handed to the next of its webhooks.
fn admitted(cluster: &Cluster, annotations: &str) -> Value {
    let pod = format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: constrained
  namespace: trial
  annotations: {{ {annotations} }}
spec:
  automountServiceAccountToken: true
  containers:
  - {{ name: main, image: 'weft/demo:test' }}
"
    );
    serde_json::from_str(&cluster.tried(&pod).unwrap()).unwrap()
}

pub(super) fn holds(cluster: &Cluster) {
    let asked = "linkerd.io/inject: enabled, linkerd.io/identity-mode: default";
    for native in ["true", "false"] {
        let annotations = format!("{asked}, config.linkerd.io/proxy-enable-native-sidecar: '{native}'");
        let pod = admitted(cluster, &annotations);
        assert_eq!(violations(&pod), Vec::<String>::new(), "{pod:#}");
        // The rule of that time looked among the ordinary containers alone.
        let ordinary = pod["spec"]["containers"].to_string().contains("\"linkerd-proxy\"");
        assert_eq!(ordinary, native == "false");
    }
    let without = violations(&admitted(cluster, "linkerd.io/inject: disabled"));
    assert!(without.contains(&"there is no proxy".to_owned()), "{without:?}");
}
