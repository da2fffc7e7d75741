//! What the injector writes into pods is what `weft-proxy` starts with, and what `weft-init` takes.

use crate::{
    inject::{ANNOTATIONS, layers, map, mesh, pod, values},
    samples::{another, at, besides, leaves},
};
use serde_json::{Value, json};
use std::{process::Command, sync::OnceLock};
use weft_cluster::{
    inject::{Around, admit},
    values::{Values, highly_available},
};
use weft_proxy::config::check;
use weft_testkit::{ca::Ca, kubernetes::built};

/// What stands at the edge of what can be read, for any annotation and any text of the values.
const BORDERS: [&str; 22] = [
    "",
    "0",
    "1",
    "-1",
    "100",
    "0s",
    "1ms",
    "500us",
    "1m",
    "90s",
    "1.5h",
    "1m0.5s",
    "1d",
    "24h",
    "99999999999999h",
    "a b",
    "a.b",
    "off",
    "warn,linkerd=infoo",
    "http://c:4317",
    "1Gi",
    "☃",
];

/// A pod that is admitted with a proxy; nothing where it is refused, or gets none.
fn admitted(annotations: Value, values: &Values) -> Option<Value> {
    let namespace = map(&json!({"linkerd.io/inject": "enabled"}));
    let around = Around { namespace: "shop", namespace_annotations: &namespace, owner: None };
    let outcome = admit(&pod(annotations), around, mesh(values)).ok()?;
    outcome.report.is_injected().then_some(outcome.object)
}

fn container(object: &Value, name: &str) -> Value {
    let of = |list: &str| object["spec"][list].as_array().cloned().unwrap_or_default();
    let containers = [of("initContainers"), of("containers")].concat();
    containers.into_iter().find(|container| container["name"] == name).unwrap()
}

/// The environment that the kubelet makes of the proxy's container.
fn environment(object: &Value) -> Vec<(String, String)> {
    let proxy = container(object, "linkerd-proxy");
    let mut found: Vec<(String, String)> = vec![];
    for variable in proxy["env"].as_array().unwrap() {
        let mut value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("status.podIP") => "10.1.0.7",
            Some("status.podIPs") => "10.1.0.7,fd00::7",
            Some(
                "metadata.name" | "metadata.namespace" | "metadata.uid" | "spec.nodeName" | "spec.serviceAccountName",
            ) => "web",
            Some(other) => panic!("{other} is not known to this test"),
            None => variable["value"].as_str().unwrap_or("secret"),
        }
        .to_owned();
        for (name, before) in &found {
            value = value.replace(&format!("$({name})"), before);
        }
        found.push((variable["name"].as_str().unwrap().to_owned(), value));
    }
    // What the proxy looks at besides: a certificate, and a file that the kubelet makes.
    for (name, value) in &mut found {
        match name.as_str() {
            "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS" => trusted().clone_into(value),
            "LINKERD2_PROXY_IDENTITY_TOKEN_FILE" => env!("CARGO_MANIFEST_PATH").clone_into(value),
            _ => {}
        }
    }
    found
}

fn trusted() -> &'static str {
    static CA: OnceLock<Ca> = OnceLock::new();
    CA.get_or_init(|| Ca::new().unwrap()).anchors_pem()
}

/// Why the proxy of a pod would not start, or what of its environment it does not know; nothing of a pod that is refused.
fn wrong(annotations: Value, values: &Values) -> Option<String> {
    let object = admitted(annotations, values)?;
    match check(environment(&object), 4) {
        Err(problems) => Some(problems.iter().map(|problem| format!("{problem}; ")).collect()),
        Ok(checked) => (!checked.unknown.is_empty()).then(|| format!("it does not know {:?}", checked.unknown)),
    }
}

#[test]
fn no_annotation_keeps_a_proxy_from_starting() {
    let values = values(json!({}));
    assert_eq!(wrong(json!({}), &values), None);
    let mut told = vec![];
    for (key, good) in ANNOTATIONS {
        // Whoever writes variables writes them himself.
        let borders = BORDERS.iter().filter(|_| !key.ends_with("additional-env"));
        for value in std::iter::once(good).chain(borders) {
            told.extend(wrong(json!({*key: value}), &values).map(|wrong| format!("{key}: {value}: {wrong}")));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn no_value_keeps_a_proxy_from_starting() {
    let mut told = vec![];
    let mut see = |layers: Vec<Value>| {
        let given = json!(layers).to_string();
        if let Ok(values) = Values::from_layers(layers) {
            told.extend(wrong(json!({}), &values).map(|wrong| format!("{given}: {wrong}")));
        }
    };
    layers().into_iter().chain([highly_available()]).for_each(|layer| see(vec![layer]));
    let mut paths = vec![];
    leaves(&serde_json::to_value(Values::default()).unwrap(), "", &mut paths);
    for (path, default) in paths {
        let of_proxies = ["proxy.", "clusterDomain", "clusterNetworks", "identityTrustDomain"];
        if !of_proxies.iter().any(|begin| path.starts_with(begin)) {
            continue;
        }
        let texts = BORDERS.iter().map(|border| json!(border)).filter(|_| default.is_string());
        let numbers = [json!(0), json!(1), json!(100_000)].into_iter();
        for value in texts.chain(numbers).chain(another(&path, &default)) {
            see(vec![besides(&path), at(&path, value)]);
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// Linkerd-init looks at all that it is told before it changes anything.
#[test]
fn what_linkerd_init_is_told_it_takes() {
    let program = built("weft-init").unwrap();
    let take = |annotations: Value, layer: Value| {
        let told = format!("{annotations} {layer}");
        let object = admitted(annotations, &values(layer)).unwrap();
        let args = container(&object, "linkerd-init")["args"].as_array().unwrap().clone();
        let args = args.iter().map(|arg| arg.as_str().unwrap());
        let output = Command::new(&program).args(["linkerd2-proxy-init", "--simulate"]).args(args).output().unwrap();
        assert!(output.status.success(), "{told}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for layer in layers() {
        take(json!({}), layer);
    }
    for word in ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"] {
        take(json!({}), json!({"proxyInit": {"logLevel": word}}));
    }
    let init = ["skip-", "-port", "proxy-uid", "proxy-gid"];
    for (key, value) in ANNOTATIONS.iter().filter(|(key, _)| init.iter().any(|part| key.contains(part))) {
        take(json!({*key: value}), json!({}));
    }
    let privileged = json!({"proxyInit": {"runAsRoot": true, "privileged": true}});
    take(json!({"config.linkerd.io/close-wait-timeout": "1h"}), privileged);
}
