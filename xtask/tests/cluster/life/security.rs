//! Pod Security, as the API server enforces it: at each of its levels, which of the mesh's pods it admits, and what exactly it does not.
//!
//! | level | pods of the mesh |
//! |---|---|
//! | `privileged` | come in; the control plane's own namespace has this level |
//! | `baseline`, `restricted` | do not, for `linkerd-init` alone, which sets rules; without it all of them would |

use super::{PARTS, pods, rolled_out, told};
use serde_json::{Value, json};
use weft_testkit::kubernetes::Cluster;

const LEVEL: &str = "pod-security.kubernetes.io/enforce";
/// Of the namespace that is named like it, which asks for proxies; and what is wrong with a pod there, but at the first.
const LEVELS: [(&str, &str); 3] = [("privileged", ""), ("baseline", "non-default"), ("restricted", "unrestricted")];
/// All that is wrong with any pod of the mesh.
const INIT: &str =
    r#"container "linkerd-init" must not include "NET_ADMIN", "NET_RAW" in securityContext.capabilities.add"#;

/// An application that asks for nothing, which every level admits.
const APP: &str = "apiVersion: apps/v1
kind: Deployment
metadata: { name: modest, namespace: privileged }
spec:
  selector: { matchLabels: { app: modest } }
  template:
    metadata: { labels: { app: modest } }
    spec:
      enableServiceLinks: false
      securityContext: { runAsNonRoot: true, seccompProfile: { type: RuntimeDefault } }
      containers:
      - name: modest
        image: weft/demo:test
        imagePullPolicy: Never
        args: [emoji]
        ports: [{ containerPort: 8080 }]
        readinessProbe: { grpc: { port: 8080 }, periodSeconds: 1 }
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: [ALL] } }
";

pub(super) fn is_kept_but_for_linkerd_init(cluster: &Cluster) {
    let label = LEVEL.replace('.', "\\.");
    let level = cluster.ask(&format!("get namespace linkerd --output jsonpath={{.metadata.labels.{label}}}")).unwrap();
    assert_eq!(level, "privileged");
    for (level, _) in LEVELS {
        let metadata =
            json!({ "name": level, "labels": { LEVEL: level }, "annotations": { "linkerd.io/inject": "enabled" } });
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }).to_string()).unwrap();
    }
    cluster.apply(APP).unwrap();
    the_control_planes_pods(cluster);
    pods_that_the_injector_has_made(cluster);
    rolled_out(cluster, "privileged", &["modest"]);
    let pods = pods(cluster, "privileged", "app=modest");
    let are_meshed = pods.iter().all(|pod| pod.to_string().contains("\"linkerd-proxy\""));
    assert!(!pods.is_empty() && are_meshed, "{}", told(cluster, "privileged"));
    cluster.ask(&format!("delete namespace {} --wait=false", LEVELS.map(|(level, _)| level).join(" "))).unwrap();
}

/// As they run, but that they are asked for anew and in another namespace.
fn the_control_planes_pods(cluster: &Cluster) {
    for part in PARTS {
        let component = part.trim_start_matches("linkerd-");
        let pod = pods(cluster, "linkerd", &format!("linkerd.io/control-plane-component={component}")).remove(0);
        let mut spec = pod["spec"].clone();
        for given in ["nodeName", "serviceAccount", "serviceAccountName"] {
            spec.as_object_mut().unwrap().remove(given);
        }
        comes_in_but_for_linkerd_init(cluster, part, &asked("disabled", &[], &spec));
        spec["initContainers"].as_array_mut().unwrap().retain(|container| container["name"] != "linkerd-init");
        assert_eq!(admitted(cluster, "restricted", &asked("disabled", &[], &spec)), Ok(()), "{part}");
    }
}

/// Of a pod that asks for nothing.
fn pods_that_the_injector_has_made(cluster: &Cluster) {
    let rights = json!({ "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    let spec = json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "modest", "image": "weft/demo:test", "securityContext": rights }],
    });
    for native in ["true", "false"] {
        let pod = asked("enabled", &[("proxy-enable-native-sidecar", native)], &spec);
        comes_in_but_for_linkerd_init(cluster, &format!("native sidecar: {native}"), &pod);
    }
    assert_eq!(admitted(cluster, "restricted", &asked("disabled", &[], &spec)), Ok(()));
    // What looks into a pod gives up no right.
    let debug = asked("enabled", &[("enable-debug-sidecar", "true")], &spec);
    let told = admitted(cluster, "restricted", &debug).unwrap_err();
    assert!(
        told.contains(r#"container "linkerd-debug" must set securityContext.allowPrivilegeEscalation=false"#),
        "{told}"
    );
}

/// At each level, what stands in its way is that it may set rules, and nothing else.
fn comes_in_but_for_linkerd_init(cluster: &Cluster, what: &str, pod: &Value) {
    for (level, check) in LEVELS {
        let wanted = if check.is_empty() { Ok(()) } else { Err(format!("{check} capabilities ({INIT})")) };
        assert_eq!(admitted(cluster, level, pod), wanted, "{what} at {level}");
    }
}

fn asked(inject: &str, more: &[(&str, &str)], spec: &Value) -> Value {
    let mut annotations = json!({ "linkerd.io/inject": inject });
    for (name, value) in more {
        annotations[format!("config.linkerd.io/{name}")] = json!(value);
    }
    let metadata = json!({ "name": "asked", "annotations": annotations });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// Whether the API server would admit a pod into the namespace, or what it says against it.
fn admitted(cluster: &Cluster, namespace: &str, pod: &Value) -> Result<(), String> {
    let mut pod = pod.clone();
    pod["metadata"]["namespace"] = json!(namespace);
    let Err(told) = cluster.tried(&pod.to_string()) else { return Ok(()) };
    let told = told.to_string();
    let said = told.split_once("violates PodSecurity ").and_then(|(_, said)| said.split_once(": "));
    Err(said.map_or(told.clone(), |(_, said)| said.to_owned()))
}
