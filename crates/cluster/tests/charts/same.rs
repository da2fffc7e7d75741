//! Both ways come to the same: with each value by itself, and with many together.

use crate::{
    both::{CONTROL_PLANE, DEFINITIONS, Given, definitions, differences, pems},
    samples::{another, at, besides, leaves},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};
use weft_cluster::values::Values;

/// What is run at a time: a process each.
const WORKERS: usize = 2;

/// Runs both ways for each case and tells where they differ.
fn differ(cases: &[(String, Given)]) -> Vec<String> {
    let (next, told) = (AtomicUsize::new(0), Mutex::new(vec![]));
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some((name, given)) = cases.get(next.fetch_add(1, Relaxed)) {
                    let found = differences(&given.helm(CONTROL_PLANE), &given.weft(&[]));
                    told.lock().unwrap().extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
                }
            });
        }
    });
    told.into_inner().unwrap()
}

/// A value as `--set` takes it; lists, maps and fractions want a file.
fn word(path: &str, value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.as_i64()?.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => return None,
    };
    let is_word = !text.is_empty() && !text.contains(['\n', '{', '}', '\\']);
    is_word.then(|| format!("{path}={}", text.replace(',', "\\,")))
}

fn all_leaves() -> Vec<(String, Value)> {
    let mut found = vec![];
    leaves(&serde_json::to_value(Values::default()).unwrap(), "", &mut found);
    assert!(found.len() > 120, "{}", found.len());
    found
}

/// What is given in every case, but for what would not go together with the value.
fn base(pems: &Value, path: &str) -> Value {
    let mut base = pems.clone();
    // Somebody else brings the issuer.
    if path == "identity.issuer.scheme" {
        base["identity"] = json!({});
    }
    // The certificate is made, or brought by somebody else.
    if let Some(webhook) =
        ["proxyInjector", "profileValidator", "policyValidator"].iter().find(|w| path.starts_with(**w))
        && (path.contains("njectCa") || path.ends_with("externalSecret") || path.ends_with("caBundle"))
    {
        base[*webhook]["externalSecret"] = json!(path.contains("njectCa"));
    }
    base
}

/// Each value once. Some are one: certificates are brought with their keys, and the issuer with its anchors.
#[test]
fn every_value_comes_to_the_same_by_helm_and_by_weft() {
    let (one, other) = (pems(), pems());
    let mut cases = vec![("no value".to_owned(), Given::default().file("given", &one))];
    let together = json!({"identityTrustAnchorsPEM": other["identityTrustAnchorsPEM"], "identity": other["identity"]});
    cases.push(("anchors and issuer".to_owned(), Given::default().file("given", &one).file("others", &together)));
    for webhook in ["proxyInjector", "profileValidator", "policyValidator"] {
        let pair = json!({ webhook: other[webhook] });
        let given = Given::default().file("given", &one).file(&format!("others-{webhook}"), &pair);
        cases.push((format!("certificate of {webhook}"), given));
    }
    for (path, value) in all_leaves() {
        if path.ends_with("PEM") {
            continue;
        }
        let value = another(&path, &value).unwrap();
        let mut given = Given::default().file(&format!("base-{path}"), &base(&one, &path));
        let besides = besides(&path);
        if besides != json!({}) {
            given = given.file(&format!("besides-{path}"), &besides);
        }
        let given = match word(&path, &value) {
            Some(word) => given.set(&word),
            None => given.file(&format!("value-{path}"), &at(&path, value)),
        };
        cases.push((path, given));
    }
    let told = differ(&cases);
    assert!(told.is_empty(), "{} of {} cases differ:\n{}", told.len(), cases.len(), told.join("\n"));
}

/// Many values at once, so that what one hides another shows: by a rule that gives the same ones every time.
#[test]
fn values_together_come_to_the_same_by_helm_and_by_weft() {
    const ROUNDS: usize = 16;
    let pems = pems();
    let mut seed = 1_u64;
    let mut draw = |of: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % of
    };
    let all = all_leaves();
    let mut cases = vec![];
    for round in 0..ROUNDS {
        let mut layers = vec![pems.clone()];
        for (path, value) in &all {
            if path.ends_with("PEM") || path == "identity.issuer.scheme" || draw(3) > 0 {
                continue;
            }
            let value = match value {
                Value::String(_) if draw(4) == 0 => json!(""),
                value => another(path, value).unwrap(),
            };
            layers.push(at(path, value));
            if Values::from_layers(layers.clone()).is_err() || !is_taken(path, layers.last().unwrap()) {
                layers.pop();
            }
        }
        assert!(layers.len() > 20, "{}", layers.len());
        cases.push((
            format!("round {round}"),
            Given::default().file(&format!("together-{round}"), &Values::given(layers)),
        ));
    }
    let told = differ(&cases);
    assert!(told.is_empty(), "{} differences:\n{}", told.len(), told.join("\n"));
}

/// Texts that must not be empty, which Helm refuses.
fn is_taken(path: &str, layer: &Value) -> bool {
    let mut leaf = layer;
    for step in path.split('.') {
        leaf = &leaf[step];
    }
    *leaf != "" || Values::from_layers([layer.clone()]).is_ok()
}

/// What Linkerd's chart has by default, highly available ones, and what is hard to write.
#[test]
fn unusual_values_come_to_the_same_by_helm_and_by_weft() {
    let pems = pems();
    let given = || Given::default().file("unusual", &pems);
    let harmless = json!({
        "cniEnabled": false, "enablePSP": false, "disableHeartBeat": true, "prometheusUrl": "", "enableEndpointSlices": true,
        "kubeAPI": {"clientQPS": 100, "clientBurst": 200}, "policyController": {"logLevel": "info", "resources": {"cpu": {"limit": ""}}},
        "spValidator": {"livenessProbe": {"timeoutSeconds": 1}}, "installGatewayAPI": false, "heartbeatResources": {},
    });
    let hard = json!({
        "commonLabels": {"linkerd.io/control-plane-ns": "beaten", "team": 7, "own": true},
        "podLabels": {"team": "special", "linkerd.io/workload-ns": "beaten"},
        "podAnnotations": {"quotes": "\" ' % %v {{ x }} \\ \u{e9}\n second", "linkerd.io/created-by": "beaten", "a": "general"},
        "identity": {"podAnnotations": {"a": "special"}},
        "proxy": {
            "logLevel": "warn,a\"%d\"=info,linkerd=info", "uid": 2_000_000, "securityContext": {"runAsUser": 7, "runAsNonRoot": false},
            "resources": {"memory": {"limit": 100_000_000, "request": "1e7"}, "cpu": {"request": "1500m", "limit": 2}},
            "additionalEnv": [{"name": "A", "value": "1\n2"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}],
            "runtime": {"workers": {"minimum": 0}},
        },
        "destinationProxyResources": {"cpu": {"limit": "3500m"}},
        "proxyInjectorProxyResources": {},
        "configReaders": [{"name": "one", "namespace": "tools"}, {"name": "own"}],
        "destinationController": {"additionalArgs": ["--one=1", "--two"]},
        "deploymentStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": "50%"}},
        "controller": {"podDisruptionBudget": {"maxUnavailable": "50%"}},
        "enablePodDisruptionBudget": true,
    });
    let taken_away = r"nodeSelector.kubernetes\.io/os=null,proxy.runtime.workers.maximumCPURatio=0.5";
    let cases = [
        ("taken away".to_owned(), given().set(taken_away)),
        ("highly available".to_owned(), given().own_file("values-ha.yaml")),
        ("Linkerd's defaults".to_owned(), given().file("harmless", &harmless)),
        ("hard to write".to_owned(), given().file("hard", &hard)),
    ];
    let told = differ(&cases);
    assert!(told.is_empty(), "{}", told.join("\n"));
    let (by_file, by_flag) = (given().own_file("values-ha.yaml").helm(CONTROL_PLANE), given().weft(&["--ha"]));
    let told = differences(&by_file, &by_flag);
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// With each state of each value of theirs, and each beside each state of the one that they beat.
#[test]
fn definitions_are_the_same_by_helm_and_by_weft() {
    let (http, tcp, tls) =
        (["grpcroutes", "httproutes"].as_slice(), ["tcproutes"].as_slice(), ["tlsroutes"].as_slice());
    let all = [http, tcp, tls].concat();
    let but = |left_out: &[&str]| all.iter().filter(|name| !left_out.contains(name)).copied().collect::<Vec<_>>();
    let mut cases = vec![
        (vec![], vec![]),
        (vec!["installGatewayAPI=false"], vec![]),
        (vec!["installGatewayAPI=true"], all.clone()),
    ];
    for (yes, no, null, of) in [
        ("enableHttpRoutes=true", "enableHttpRoutes=false", "enableHttpRoutes=null", http),
        ("enableTcpRoutes=true", "enableTcpRoutes=false", "enableTcpRoutes=null", tcp),
        ("enableTlsRoutes=true", "enableTlsRoutes=false", "enableTlsRoutes=null", tls),
    ] {
        cases.extend([(vec![yes], of.to_vec()), (vec![no], vec![]), (vec![null], vec![])]);
        let with = "installGatewayAPI=true";
        cases.extend([(vec![with, yes], all.clone()), (vec![with, no], but(of)), (vec![with, null], all.clone())]);
    }
    for (words, expected) in cases {
        let given = words.iter().fold(Given::default(), |given, word| given.set(word));
        let helm = definitions(&given.helm(DEFINITIONS), "linkerd/helm ");
        assert_eq!(helm, definitions(&given.weft(&["--crds"]), "linkerd/cli "), "{words:?}");
        let of = helm.values().filter(|object| object["spec"]["group"] == "gateway.networking.k8s.io");
        let names: Vec<&str> = of.map(|object| object["spec"]["names"]["plural"].as_str().unwrap()).collect();
        assert_eq!(names, expected, "{words:?}");
    }
}
