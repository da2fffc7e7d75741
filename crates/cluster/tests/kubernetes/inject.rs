//! Objects before and after injection: a golden file per kind of workload, per annotation and per mistake.

use serde_json::{Value, json};
use std::fmt::Write as _;
use weft_cluster::{
    inject::{
        Annotations, Around, Change, Format, Mesh, Outcome, Owner, Refusal, admit, annotate, apply, change, manual,
        uninject,
    },
    values::{Values, highly_available},
    yaml,
};

pub(crate) const ANCHORS: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

pub(crate) fn values(layer: Value) -> Values {
    let mut values = Values::from_layers([layer]).unwrap();
    values.linkerd_version = "VERSION".into();
    values
}

pub(crate) fn mesh(values: &Values) -> Mesh<'_> {
    Mesh { values, namespace: "linkerd", anchors_pem: ANCHORS, anchors_sha256: "5a5a" }
}

pub(crate) fn map(value: &Value) -> Annotations {
    serde_json::from_value(value.clone()).unwrap()
}

/// What the webhook sees: the API server has defaulted the pod.
pub(crate) fn pod(annotations: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "web-6d5f-",
            "annotations": annotations,
            "labels": {"app": "web"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d5f", "uid": "1"}],
        },
        "spec": {
            "serviceAccountName": "web",
            "containers": [{
                "name": "web",
                "image": "web:1",
                "ports": [{"name": "http", "containerPort": 80}, {"name": "memcached", "containerPort": 11211}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 9990}},
                "volumeMounts": [
                    {"mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "name": "kube-api-access", "readOnly": true},
                ],
            }],
            "volumes": [{"name": "kube-api-access", "emptyDir": {}}],
            "aFieldOfTomorrow": {"kept": true},
        },
    })
}

fn admitted(object: &Value, namespace: Value, values: &Values) -> Result<Outcome, Vec<Refusal>> {
    let namespace = map(&namespace);
    let owner = Some(Owner { kind: "deployment", name: "web" });
    let around = Around { namespace: "shop", namespace_annotations: &namespace, owner };
    let outcome = admit(object, around, mesh(values));
    if let Ok(outcome) = &outcome {
        assert_eq!(apply(object, &outcome.patch), outcome.object, "the patch leads elsewhere");
        // Again, as an API server may ask: what is done is done.
        let again = admit(&outcome.object, around, mesh(values)).unwrap();
        assert_eq!(again.patch, [], "the second time something changes");
    }
    outcome
}

fn shown(outcome: &Result<Outcome, Vec<Refusal>>) -> String {
    match outcome {
        Err(refusals) => refusals.iter().map(|r| format!("refused: {}: {}\n", r.field, r.message)).collect(),
        Ok(outcome) => {
            let warnings = outcome.warnings.iter().map(|w| format!("# warning: {}: {}\n", w.key, w.message));
            let skipped =
                outcome.report.skipped.iter().map(|s| format!("# skipped: {}: {}\n", s.as_str(), s.explained()));
            skipped.chain(warnings).collect::<String>() + &yaml::text(&outcome.object)
        }
    }
}

/// The lines of `after` that `before` has not, and the other way round.
fn difference(before: &str, after: &str) -> String {
    let (before, after) = (lines(before), lines(after));
    let count = |line: &String, of: &[String]| of.iter().filter(|l| *l == line).count();
    let surplus = |sign: &str, own: &[String], other: &[String]| -> String {
        own.iter().filter(|l| count(l, own) > count(l, other)).map(|l| format!("{sign} {l}\n")).collect()
    };
    surplus("-", &before, &after) + &surplus("+", &after, &before)
}

/// A variable and its value are one line.
fn lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for line in text.lines() {
        match lines.last_mut() {
            Some(last) if line.trim_start().starts_with("value: ") => *last += &format!(" {}", line.trim()),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

#[test]
fn a_pod_gets_a_proxy() {
    let values = values(json!({}));
    let outcome = admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled"}), &values);
    insta::assert_snapshot!("pod", shown(&outcome));
    let patch = serde_json::to_string_pretty(&outcome.unwrap().patch[..6]).unwrap();
    insta::assert_snapshot!("patch-begins", patch);
}

#[test]
fn without_native_sidecars_the_proxy_stands_in_front() {
    let outcome = admitted(
        &pod(json!({})),
        json!({"linkerd.io/inject": "enabled"}),
        &values(json!({"proxy": {"nativeSidecar": false}})),
    );
    insta::assert_snapshot!("pod-without-native-sidecar", shown(&outcome));
}

#[test]
fn a_pod_that_runs_to_an_end_says_so_to_its_proxy() {
    let uid = json!({"name": "WEFT_PROXY_SHUTDOWN_WITH_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}});
    for (policy, native, told) in [
        ("Never", false, true),
        ("OnFailure", false, true),
        ("Always", false, false),
        // The kubelet ends it.
        ("Never", true, false),
    ] {
        let mut object = pod(json!({"config.alpha.linkerd.io/proxy-enable-native-sidecar": native.to_string()}));
        object["spec"]["restartPolicy"] = json!(policy);
        let outcome = admitted(&object, json!({"linkerd.io/inject": "enabled"}), &values(json!({}))).unwrap();
        let spec = &outcome.object["spec"];
        let containers = if native { &spec["initContainers"] } else { &spec["containers"] };
        let proxy = containers.as_array().unwrap().iter().find(|c| c["name"] == "linkerd-proxy").unwrap();
        assert_eq!(proxy["env"].as_array().unwrap().contains(&uid), told, "{policy} {native}");
    }
}

/// What an installation may say of its proxies.
pub(crate) fn layers() -> Vec<Value> {
    vec![
        json!({"disableIPv6": false}),
        json!({"clusterDomain": "example.org", "identityTrustDomain": "trust.org", "clusterNetworks": "10.0.0.0/8"}),
        json!({"imagePullPolicy": "Always"}),
        json!({"proxy": {"image": {"name": "r/p", "version": "v", "pullPolicy": "Never"}}}),
        json!({"proxy": {"await": false}}),
        json!({"proxy": {"nativeSidecar": false, "await": false}}),
        json!({"proxy": {"nativeSidecar": false, "waitBeforeExitSeconds": 7}}),
        json!({"proxy": {"cores": 3}}),
        json!({"proxy": {"runtime": {"workers": {"minimum": 2, "maximum": 5, "maximumCPURatio": 0.5}}}}),
        json!({"proxy": {"resources": {"cpu": {"request": "1500m", "limit": "3"}, "memory": {"limit": "1Gi"}, "ephemeral-storage": {"request": "1M"}}}}),
        json!({"proxy": {"uid": 3000, "gid": 4000, "ports": {"admin": 1, "control": 2, "inbound": 3, "outbound": 4}}}),
        json!({"proxy": {"securityContext": {"readOnlyRootFilesystem": false, "seLinuxOptions": {"type": "t"}}}}),
        json!({"proxy": {"livenessProbe": {"initialDelaySeconds": 20, "timeoutSeconds": 9}, "readinessProbe": {"timeoutSeconds": 9}, "startupProbe": {"periodSeconds": 2, "failureThreshold": 5, "initialDelaySeconds": 3}}}),
        json!({"proxy": {"control": {"streams": {"initialTimeout": "1s", "idleTimeout": "2m", "lifetime": "3h"}}}}),
        json!({"proxy": {"inbound": {"server": {"http2": {"keepAliveInterval": "1s"}}}, "outbound": {"server": {"http2": {"keepAliveTimeout": "9s"}}}}}),
        json!({"proxy": {"isGateway": true, "isIngress": true, "requireTLSOnInboundPorts": "443"}}),
        json!({"proxy": {"additionalEnv": [{"name": "A", "value": "b"}], "experimentalEnv": [{"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}),
        json!({"proxy": {"tracing": {"enabled": true, "traceServiceName": "svc", "collector": {"endpoint": "c.obs:4317", "meshIdentity": {"serviceAccountName": "c", "namespace": "obs"}}}}}),
        json!({"proxyInit": {"privileged": true, "runAsRoot": true, "closeWaitTimeoutSecs": 5}}),
        json!({"proxyInit": {"logLevel": "debug", "logFormat": "json", "skipSubnets": "10.1.0.0/16", "runAsUser": 7, "runAsGroup": 8, "xtMountPath": {"name": "lock", "mountPath": "/lock"}}}),
        json!({"proxyInit": {"ignoreInboundPorts": "", "ignoreOutboundPorts": ""}}),
    ]
}

#[test]
fn everything_else_an_installation_may_say_reaches_the_pod() {
    let plain = shown(&admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled"}), &values(json!({}))));
    let mut golden = String::new();
    for layer in layers() {
        let with = shown(&admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled"}), &values(layer.clone())));
        let difference = difference(&plain, &with);
        assert!(!difference.is_empty(), "{layer} changes nothing");
        let _ = writeln!(golden, "{layer}\n{difference}");
    }
    insta::assert_snapshot!(golden);
}

/// One line per annotation and value: what it changes in the pod.
pub(crate) const ANNOTATIONS: &[(&str, &str)] = &[
    ("linkerd.io/inject", "ingress"),
    ("config.linkerd.io/proxy-image", "r/p"),
    ("config.linkerd.io/proxy-version", "v9"),
    ("config.linkerd.io/image-pull-policy", "Always"),
    ("config.linkerd.io/enable-debug-sidecar", "true"),
    ("config.linkerd.io/control-port", "1"),
    ("config.linkerd.io/admin-port", "2"),
    ("config.linkerd.io/inbound-port", "3"),
    ("config.linkerd.io/outbound-port", "4"),
    ("config.linkerd.io/pod-inbound-ports", "80"),
    ("config.linkerd.io/skip-inbound-ports", "25,1000-2000"),
    ("config.linkerd.io/skip-outbound-ports", "26"),
    ("config.linkerd.io/skip-subnets", "10.0.0.0/8,fd00::/8"),
    ("config.linkerd.io/opaque-ports", "80,memcached"),
    ("config.linkerd.io/proxy-require-identity-inbound-ports", "80"),
    ("config.linkerd.io/default-inbound-policy", "deny"),
    ("config.linkerd.io/enable-external-profiles", "true"),
    ("config.linkerd.io/proxy-cpu-request", "1500m"),
    ("config.linkerd.io/proxy-cpu-limit", "2"),
    ("config.linkerd.io/proxy-memory-request", "10Mi"),
    ("config.linkerd.io/proxy-memory-limit", "1Gi"),
    ("config.linkerd.io/proxy-ephemeral-storage-request", "1M"),
    ("config.linkerd.io/proxy-ephemeral-storage-limit", "2M"),
    ("config.linkerd.io/proxy-cpu-ratio-limit", "0.1"),
    ("config.linkerd.io/proxy-uid", "3000"),
    ("config.linkerd.io/proxy-gid", "3001"),
    ("config.linkerd.io/proxy-log-level", "debug"),
    ("config.linkerd.io/proxy-log-format", "json"),
    ("config.linkerd.io/proxy-log-http-headers", "insecure"),
    ("config.linkerd.io/access-log", "apache"),
    ("config.linkerd.io/proxy-metrics-hostname-labels", "true"),
    ("config.linkerd.io/proxy-outbound-connect-timeout", "2s"),
    ("config.linkerd.io/proxy-inbound-connect-timeout", "1m0.5s"),
    ("config.linkerd.io/proxy-outbound-discovery-cache-unused-timeout", "1m"),
    ("config.linkerd.io/proxy-inbound-discovery-cache-unused-timeout", "1500ms"),
    ("config.linkerd.io/proxy-disable-outbound-protocol-detect-timeout", "true"),
    ("config.linkerd.io/proxy-disable-inbound-protocol-detect-timeout", "true"),
    ("config.linkerd.io/proxy-admin-shutdown", "enabled"),
    ("config.linkerd.io/shutdown-grace-period", "30s"),
    ("config.linkerd.io/proxy-await", "disabled"),
    ("config.alpha.linkerd.io/proxy-enable-native-sidecar", "false"),
    ("config.beta.linkerd.io/proxy-enable-native-sidecar", "false"),
    ("config.linkerd.io/proxy-enable-native-sidecar", "false"),
    ("config.alpha.linkerd.io/proxy-wait-before-exit-seconds", "5"),
    ("config.linkerd.io/close-wait-timeout", "5s"),
    ("config.linkerd.io/enable-gateway", "true"),
    ("config.linkerd.io/proxy-additional-env", "[{\"name\":\"A\",\"value\":\"b\"}]"),
    ("config.linkerd.io/proxy-memroy-limit", "1Gi"),
];

#[test]
fn every_annotation_does_what_it_says() {
    let values = values(json!({}));
    let plain = shown(&admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled"}), &values));
    let mut golden = String::new();
    for (key, value) in ANNOTATIONS {
        let with = shown(&admitted(&pod(json!({*key: value})), json!({"linkerd.io/inject": "enabled"}), &values));
        let _ = writeln!(golden, "{key}: {value}\n{}", difference(&plain, &with));
        // From the namespace it does the same, or, if it is not inherited, nothing, and a warning says so.
        let from_namespace = admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled", *key: value}), &values);
        let from_namespace = shown(&from_namespace);
        if ["enable-debug-sidecar", "proxy-cpu-ratio-limit", "enable-gateway", "memroy"].iter().any(|o| key.contains(o))
        {
            let (warning, rest) = from_namespace.split_once('\n').unwrap();
            assert_eq!(rest, plain, "{key}");
            let _ = writeln!(golden, "{warning}\n");
        } else if *key != "linkerd.io/inject" {
            assert_eq!(from_namespace.replace("on the Namespace shop: ", ""), with, "{key}");
        }
    }
    insta::assert_snapshot!(golden);
}

#[test]
fn the_debug_containers_image_can_be_chosen() {
    let annotations = json!({
        "config.linkerd.io/enable-debug-sidecar": "true",
        "config.linkerd.io/debug-image": "r/d",
        "config.linkerd.io/debug-image-version": "v2",
        "config.linkerd.io/debug-image-pull-policy": "Never",
    });
    let outcome = admitted(&pod(annotations), json!({"linkerd.io/inject": "enabled"}), &values(json!({}))).unwrap();
    insta::assert_snapshot!(yaml::text(&outcome.object["spec"]["containers"][1]));
}

#[test]
fn an_own_annotation_beats_the_namespaces_and_the_stable_name_the_older_ones() {
    let values = values(
        json!({"proxy": {"additionalEnv": [{"name": "A", "value": "values"}, {"name": "B", "value": "values"}]}}),
    );
    let own = json!({
        "config.linkerd.io/proxy-log-level": "debug",
        "config.linkerd.io/proxy-enable-native-sidecar": "false",
        "config.alpha.linkerd.io/proxy-enable-native-sidecar": "true",
        "config.linkerd.io/proxy-additional-env": r#"[{"name":"C","value":"pod"},{"name":"D","value":"pod"}]"#,
    });
    let namespace = json!({
        "linkerd.io/inject": "enabled",
        "config.linkerd.io/proxy-log-level": "error",
        "config.beta.linkerd.io/proxy-enable-native-sidecar": "true",
        "config.linkerd.io/proxy-additional-env": r#"[{"name":"B","value":"ns"},{"name":"C","value":"ns"}]"#,
    });
    let object = admitted(&pod(own), namespace, &values).unwrap().object;
    let proxy = &object["spec"]["containers"][0];
    assert_eq!(proxy["name"], "linkerd-proxy");
    let variable = |name: &str| {
        let env = proxy["env"].as_array().unwrap();
        env.iter().find(|e| e["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert!(variable("LINKERD2_PROXY_LOG").starts_with("debug,"));
    assert_eq!(["A", "B", "C", "D"].map(variable), ["values", "ns", "pod", "pod"]);
    assert!(object["metadata"]["annotations"].get("config.beta.linkerd.io/proxy-enable-native-sidecar").is_none());
}

#[test]
fn what_would_open_a_pod_is_refused_and_the_rest_is_told() {
    let values = values(json!({}));
    let mut golden = String::new();
    // What the proxy would not start with, and what no image or pod could have.
    let borders = [
        ("config.linkerd.io/proxy-log-level", "warn,linkerd=infoo"),
        ("config.linkerd.io/proxy-log-level", ""),
        ("config.linkerd.io/proxy-inbound-connect-timeout", "0s"),
        ("config.linkerd.io/proxy-outbound-connect-timeout", "500us"),
        ("config.linkerd.io/proxy-version", "v1 beta"),
        ("config.linkerd.io/proxy-image", "r/p:v1"),
        ("config.linkerd.io/debug-image", "R/d"),
        ("config.linkerd.io/debug-image-version", "-1"),
        ("config.linkerd.io/proxy-additional-env", r#"[{"name":"A"},{"name":"B=C","value":"1"}]"#),
        ("config.linkerd.io/proxy-additional-env", r#"[{"value":"1"}]"#),
        ("config.linkerd.io/proxy-additional-env", r#"[{"name":"A","valueFrom":{}}]"#),
        (
            "config.linkerd.io/proxy-additional-env",
            r#"[{"name":"A","value":"1","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]"#,
        ),
        (
            "config.linkerd.io/proxy-additional-env",
            r#"[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"status.phase"}}}]"#,
        ),
        ("config.linkerd.io/proxy-additional-env", r#"[{"name":"A","valueFrom":{"secretKeyRef":{"name":"s"}}}]"#),
    ];
    for (key, wrong) in ANNOTATIONS.iter().map(|(key, _)| (*key, "☃")).chain(borders) {
        let outcome = admitted(&pod(json!({key: wrong})), json!({"linkerd.io/inject": "enabled"}), &values);
        let told = match &outcome {
            Err(refusals) => {
                refusals.iter().map(|r| format!("refused: {}: {}\n", r.field, r.message)).collect::<String>()
            }
            Ok(outcome) => outcome.warnings.iter().map(|w| format!("warning: {}: {}\n", w.key, w.message)).collect(),
        };
        assert!(!told.is_empty(), "{key}: {wrong}");
        golden += &told;
    }
    // The proxy's own ports, each of which has to be another: whichever two are the same, both are named.
    for (own, namespace) in [
        (json!({"config.linkerd.io/admin-port": "4143"}), json!({})),
        (json!({"config.linkerd.io/inbound-port": "5000", "config.linkerd.io/outbound-port": "5000"}), json!({})),
        (json!({"config.linkerd.io/admin-port": "5000"}), json!({"config.linkerd.io/control-port": "5000"})),
    ] {
        let mut namespace = namespace;
        namespace["linkerd.io/inject"] = json!("enabled");
        golden += &shown(&admitted(&pod(own), namespace, &values));
    }
    let moved = json!({"config.linkerd.io/admin-port": "4190", "config.linkerd.io/control-port": "4191"});
    assert!(admitted(&pod(moved), json!({"linkerd.io/inject": "enabled"}), &values).is_ok());
    // What the Namespace says wrongly is corrected there.
    for wrong in [
        json!({"linkerd.io/inject": "enabled", "config.linkerd.io/skip-inbound-ports": "many"}),
        json!({"linkerd.io/inject": "enabled", "config.linkerd.io/opaque-ports": "many ports"}),
        json!({"linkerd.io/inject": "enabled", "config.linkerd.io/admin-port": "4143"}),
        json!({"linkerd.io/inject": "enabled", "config.linkerd.io/proxy-memory-limit": "much"}),
    ] {
        let told = shown(&admitted(&pod(json!({})), wrong, &values));
        golden.extend(told.lines().filter(|l| l.contains("Namespace")).map(|l| format!("{l}\n")));
    }
    // Whoever asks for nothing may have meant to.
    for (own, namespace) in [
        (json!({"linkerd.io/inject": ""}), json!({})),
        (
            json!({"linkerd.io/Inject": "enabled", "config.linkerd.io/foo": "1"}),
            json!({"linkerd.io/injekt": "enabled"}),
        ),
        (json!({}), json!({"linkerd.io/inject": ""})),
        // The port of the pod's own.
        (json!({"config.linkerd.io/admin-port": "11211"}), json!({"linkerd.io/inject": "enabled"})),
        // A list that names what is not there.
        (json!({"config.linkerd.io/opaque-ports": "4000,nope"}), json!({"linkerd.io/inject": "enabled"})),
    ] {
        let told = shown(&admitted(&pod(own), namespace, &values));
        golden.extend(told.lines().filter(|l| l.starts_with("# warning")).map(|l| format!("{l}\n")));
    }
    // Of requests and limits too those of the installation hold.
    let highly_available = self::values(highly_available());
    let plain = shown(&admitted(&pod(json!({})), json!({"linkerd.io/inject": "enabled"}), &highly_available));
    for annotations in [
        json!({"config.linkerd.io/proxy-memory-request": "300Mi"}),
        json!({"config.linkerd.io/proxy-cpu-limit": "50m"}),
        json!({"config.linkerd.io/proxy-ephemeral-storage-request": "2M", "config.linkerd.io/proxy-ephemeral-storage-limit": "1M"}),
    ] {
        let mut namespace = json!({"linkerd.io/inject": "enabled"});
        for (own, above) in [(annotations.clone(), json!({})), (json!({}), annotations.clone())] {
            namespace.as_object_mut().unwrap().extend(above.as_object().unwrap().clone());
            let told = shown(&admitted(&pod(own), namespace.clone(), &highly_available));
            golden.extend(told.lines().filter(|l| l.starts_with("# ")).map(|l| format!("{l}\n")));
            let resources = |text: &str| {
                let begin = text.split_once("name: linkerd-proxy\n").unwrap().1.split_once("resources:").unwrap().1;
                begin.split_once("securityContext:").unwrap().0.to_owned()
            };
            assert_eq!(resources(&told), resources(&plain), "{annotations}");
        }
    }
    let mut same_user = pod(json!({}));
    same_user["spec"]["securityContext"] = json!({"runAsUser": 2102});
    let outcome = admitted(&same_user, json!({"linkerd.io/inject": "enabled"}), &values).unwrap();
    golden += &outcome.warnings.iter().map(|w| format!("warning: {}: {}\n", w.key, w.message)).collect::<String>();
    insta::assert_snapshot!(golden);
}

#[test]
fn who_gets_a_proxy() {
    let values = values(json!({}));
    let mut golden = String::new();
    let words = [None, Some("enabled"), Some("ingress"), Some("disabled"), Some("Enabled")];
    for namespace in words {
        for own in words {
            let annotation = |word: Option<&str>| word.map_or(json!({}), |word| json!({"linkerd.io/inject": word}));
            let outcome = admitted(&pod(annotation(own)), annotation(namespace), &values).unwrap();
            let result = match outcome.report.skipped.as_slice() {
                [] => {
                    let ingress = outcome.object.to_string().contains("INGRESS_MODE");
                    format!(
                        "injected{} (by {})",
                        if ingress { " for ingress" } else { "" },
                        outcome.report.at.unwrap().as_str()
                    )
                }
                skipped => skipped.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "),
            };
            let _ = writeln!(golden, "{:9} {:9} {result}", namespace.unwrap_or("-"), own.unwrap_or("-"));
        }
    }
    for (name, change) in [
        ("host network", json!({"hostNetwork": true})),
        ("another mesh", json!({"containers": [{"name": "istio-proxy"}]})),
        (
            "another mesh's image",
            json!({"initContainers": [{"name": "x", "image": "cr.l5d.io/linkerd/proxy-init:v2"}]}),
        ),
    ] {
        let mut object = pod(json!({}));
        object["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let outcome = admitted(&object, json!({"linkerd.io/inject": "enabled"}), &values).unwrap();
        let skipped: Vec<_> = outcome.report.skipped.iter().map(|s| s.as_str()).collect();
        let _ = writeln!(golden, "{name}: {}", skipped.join(", "));
    }
    insta::assert_snapshot!(golden);
}

/// A Deployment may have a name of 253 characters, the value of a label 63: pods with a longer one would be refused.
#[test]
fn a_workload_with_a_name_that_no_label_can_have_starts() {
    let values = values(json!({}));
    let (fits, long) = ("w".repeat(63), "w".repeat(64));
    let mut golden = String::new();
    for (kind, name) in [("deployment", &*fits), ("deployment", &long), ("my kind", "web"), (&*long, "web")] {
        let around = Around {
            namespace: "shop",
            namespace_annotations: &map(&json!({"linkerd.io/inject": "enabled"})),
            owner: Some(Owner { kind, name }),
        };
        let outcome = admit(&pod(json!({})), around, mesh(&values)).unwrap();
        let _ = writeln!(golden, "{}", outcome.object["metadata"]["labels"]);
        golden.extend(outcome.warnings.iter().map(|w| format!("warning: {}: {}\n", w.key, w.message)));
        assert!(outcome.report.is_injected());
    }
    let mut deployment = workload("Deployment");
    deployment["metadata"]["name"] = json!(long);
    let outcome = manual(&deployment, &Annotations::new(), mesh(&values)).unwrap();
    let _ = writeln!(golden, "{}", outcome.object["spec"]["template"]["metadata"]["labels"]);
    golden.extend(outcome.warnings.iter().map(|w| format!("warning: {}: {}\n", w.key, w.message)));
    insta::assert_snapshot!(golden);
}

#[test]
fn the_control_planes_own_pods_are_left_alone() {
    let mut object = pod(json!({}));
    object["metadata"]["labels"]["linkerd.io/control-plane-component"] = json!("identity");
    object["spec"]["containers"][0]["ports"] = json!([]);
    let outcome = admitted(&object, json!({"linkerd.io/inject": "enabled"}), &values(json!({}))).unwrap();
    assert_eq!(outcome.patch, []);
}

#[test]
fn opaque_ports_are_handed_down() {
    let values = values(json!({"proxy": {"opaquePorts": "25,3300-3310,11211"}}));
    let service = |ports: Value, annotations: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "annotations": annotations}, "spec": {"ports": ports}});
    let ports = json!([
        {"port": 25}, {"port": 80, "targetPort": 3306}, {"port": 3301, "targetPort": 8080}, {"port": 11211, "targetPort": "cache"},
    ]);
    let annotation = |object: &Value, namespace: Value| {
        let outcome = admitted(object, namespace, &values).unwrap();
        outcome.object["metadata"]["annotations"].get("config.linkerd.io/opaque-ports").cloned().unwrap_or_default()
    };
    let given = json!({"config.linkerd.io/opaque-ports": "1,db"});
    assert_eq!(annotation(&service(ports.clone(), json!({})), json!({})), "25,80");
    assert_eq!(annotation(&service(ports.clone(), json!({})), given.clone()), "1,db");
    assert_eq!(annotation(&service(ports.clone(), given.clone()), json!({})), "1,db");
    assert_eq!(annotation(&service(json!([{"port": 80}]), json!({})), json!({})), Value::Null);
    // A Service without any annotation gets its map.
    assert_eq!(annotation(&service(ports.clone(), Value::Null), json!({})), "25,80");
    // What its clients are told of by annotations is looked at, and stops nobody.
    let told = service(
        ports.clone(),
        json!({"timeout.linkerd.io/request": "soon", "retry.linkerd.io/htpp": "5xx", "else.example/x": "?",
            "config.linkerd.io/opaque-port": "80"}),
    );
    let warnings = admitted(&told, json!({}), &values).unwrap().warnings;
    let keys: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["config.linkerd.io/opaque-port", "timeout.linkerd.io/request", "retry.linkerd.io/htpp"]);
    assert!(
        warnings[2]
            .message
            .ends_with("there is no annotation retry.linkerd.io/htpp; correct the spelling, or remove it")
    );
    // What says nothing is refused where it stands, as it is on pods.
    let wrong = json!({"config.linkerd.io/opaque-ports": "many ports"});
    let field = |outcome: Result<Outcome, Vec<Refusal>>| outcome.unwrap_err()[0].field.clone();
    let at = "metadata.annotations[config.linkerd.io/opaque-ports]";
    let own = service(ports.clone(), wrong.clone());
    assert_eq!(field(admitted(&own, json!({}), &values)), at);
    assert_eq!(field(annotate(&own, &Annotations::new())), at);
    let above = admitted(&service(ports.clone(), json!({})), wrong.clone(), &values);
    assert_eq!(field(above), format!("{at} of the Namespace shop"));
    assert!(admitted(&service(ports.clone(), given.clone()), wrong, &values).is_ok(), "its own word counts");
    // Pods as well, injected or not.
    assert_eq!(annotation(&pod(json!({})), json!({})), "11211");
    assert_eq!(annotation(&pod(json!({})), json!({"linkerd.io/inject": "enabled"})), "11211");
}

fn workload(kind: &str) -> Value {
    let template = json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1", "securityContext": {"capabilities": {"add": ["SYS_TIME"], "drop": ["ALL", "NET_RAW"]}}}]},
    });
    let api_version = match kind {
        "Pod" | "ReplicationController" => "v1",
        "Job" | "CronJob" => "batch/v1",
        _ => "apps/v1",
    };
    let spec = match kind {
        "Pod" => template["spec"].clone(),
        "CronJob" => json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"template": template}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": spec})
}

const KINDS: [&str; 8] =
    ["CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "ReplicationController", "StatefulSet"];

#[test]
fn every_kind_of_workload_is_injected_by_hand() {
    let values = values(json!({}));
    for kind in KINDS {
        let object = workload(kind);
        let outcome = manual(&object, &Annotations::new(), mesh(&values)).unwrap();
        insta::assert_snapshot!(kind, yaml::text(&outcome.object));
        assert_eq!(apply(&object, &outcome.patch), outcome.object);
        // A second time nothing changes; taken away and injected again it is the same; taken away it is as it was.
        let again = manual(&outcome.object, &Annotations::new(), mesh(&values)).unwrap();
        assert_eq!((again.patch.as_slice(), again.object), ([].as_slice(), outcome.object.clone()));
        let without = uninject(&outcome.object).unwrap();
        assert!(without.report.uninjected);
        assert_eq!(apply(&outcome.object, &without.patch), without.object);
        let mut bare = without.object.clone();
        let at = if kind == "CronJob" { "/spec/jobTemplate/spec/template" } else { "/spec/template" };
        let at = if kind == "Pod" { "" } else { at };
        bare.pointer_mut(&format!("{at}/metadata")).unwrap().as_object_mut().unwrap().retain(|_, v| *v != json!({}));
        assert_eq!(bare, object, "{kind}");
        assert_eq!(manual(&without.object, &Annotations::new(), mesh(&values)).unwrap().object, outcome.object);
        assert!(!uninject(&object).unwrap().report.uninjected);
    }
}

#[test]
fn what_an_installation_names_otherwise_is_taken_away_with_the_proxy() {
    let collector = json!({"endpoint": "collector.tracing:4317", "meshIdentity": {"serviceAccountName": "collector", "namespace": "tracing"}});
    let given = json!({
        "proxyInit": {"xtMountPath": {"name": "lock"}},
        "proxy": {"tracing": {"enabled": true, "collector": collector}},
    });
    let mut object = workload("Deployment");
    // As in a pod that runs: the proxy has the token of the program.
    let mounts = json!([{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]);
    object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts;
    object["spec"]["template"]["spec"]["volumes"] = json!([{"name": "token"}, {"name": "own"}]);
    let injected = manual(&object, &Annotations::new(), mesh(&values(given))).unwrap().object;
    let volumes = |object: &Value| -> Vec<String> {
        let all = object["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        all.iter().map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
    };
    for named in ["lock", "linkerd-podinfo", "linkerd-identity-token"] {
        assert!(volumes(&injected).iter().any(|volume| volume == named), "{named}");
    }
    assert_eq!(volumes(&uninject(&injected).unwrap().object), ["token", "own"]);
    // A label alone is something as well.
    let mut labelled = workload("Deployment");
    labelled["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": "linkerd"});
    assert!(uninject(&labelled).unwrap().report.uninjected);
}

#[test]
fn a_manifest_is_annotated() {
    let asked = map(&json!({"config.linkerd.io/proxy-log-level": "debug", "config.linkerd.io/opaque-ports": "1"}));
    let mut golden = String::new();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {}});
    for object in [workload("Deployment"), workload("CronJob"), workload("Pod"), service, namespace, other] {
        let outcome = annotate(&object, &asked).unwrap();
        let report = &outcome.report;
        let _ = writeln!(
            golden,
            "# {} injected={} annotated={}",
            report.resource(),
            report.is_injected(),
            report.annotated
        );
        let _ = writeln!(golden, "{}", yaml::text(&outcome.object));
        assert_eq!(annotate(&outcome.object, &asked).unwrap().patch, []);
    }
    insta::assert_snapshot!(golden);
    let mut disabled = workload("Deployment");
    disabled["spec"]["template"]["metadata"]["annotations"] = json!({"linkerd.io/inject": "disabled"});
    assert_eq!(annotate(&disabled, &asked).unwrap().patch, []);
    let wrong = map(&json!({"config.linkerd.io/proxy-uid": "0"}));
    assert!(annotate(&workload("Deployment"), &wrong).is_err());
}

#[test]
fn an_object_that_cannot_be_read_is_refused_by_its_field() {
    let mut object = workload("Deployment");
    object["spec"]["template"]["spec"]["containers"][0]["ports"] = json!([{"containerPort": "eighty"}]);
    let refusals = annotate(&object, &Annotations::new()).unwrap_err();
    insta::assert_snapshot!(refusals[0].field, @"spec.template.spec.containers[0].ports[0].containerPort");
}

/// Written anew with WEFT_UPDATE=1.
#[test]
fn the_reference_of_annotations_follows_the_table() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/annotations.md");
    let page = weft_cluster::inject::reference();
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(file, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(file).unwrap_or_default(), page, "write it anew with WEFT_UPDATE=1");
    for (key, _) in ANNOTATIONS.iter().filter(|(key, _)| !key.contains("memroy") && key.starts_with("config")) {
        assert!(page.contains(&format!("`{key}`")), "{key}");
    }
    // Each row of the table is tried above.
    let tried = |key: &str| ANNOTATIONS.iter().any(|(k, _)| *k == key) || key.contains("/debug-image");
    let rows = page.lines().filter_map(|l| l.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key);
    assert_eq!(rows.filter(|key| !tried(key)).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn documents_of_other_kinds_are_not_read() {
    let deep = format!(
        "kind: CustomResourceDefinition\nmetadata:\n  name: deep\nspec: {}{}\n",
        "{a: ".repeat(100),
        "}".repeat(100)
    );
    let text = format!("{deep}---\n{}", yaml::text(&workload("Deployment")));
    let changed = change(&text, Change::Annotate(&Annotations::new()), Format::Yaml).unwrap();
    assert!(changed.text.starts_with(&deep) && changed.text.contains("linkerd.io/inject: enabled"));
    let reports: Vec<String> =
        changed.reports.iter().map(|r| format!("{} {}", r.resource(), r.is_injected())).collect();
    assert_eq!(reports, ["customresourcedefinition/deep false", "deployment/web true"]);
    // As JSON it would have to be.
    assert!(change(&text, Change::Annotate(&Annotations::new()), Format::Json).is_err());
}
