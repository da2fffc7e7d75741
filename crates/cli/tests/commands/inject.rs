//! `weft inject --manual`: proxies as the cluster's own injector would write them.

use crate::lab::{Home, Told, fed};
use serde_json::{Value, json};
use std::fs;
use tokio::runtime::Runtime;
use weft_testkit::{api_server::FakeApi, ca::Ca};

const DEPLOYMENT: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "web:1"}]}}}}"#;

fn config_map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "metadata": {"name": name, "namespace": "mesh"}, "data": data})
}

fn anchors() -> String {
    Ca::new().unwrap().anchors_pem().to_owned()
}

fn proxy(told: &Told) -> Value {
    assert!(told.ok, "{told:?}");
    let object: Value = serde_json::from_str(&told.out).unwrap();
    let pod = &object["spec"]["template"]["spec"];
    let mut all = ["initContainers", "containers"].into_iter().flat_map(|list| pod[list].as_array().unwrap());
    all.find(|container| container["name"] == "linkerd-proxy").unwrap().clone()
}

fn variable<'p>(proxy: &'p Value, name: &str) -> &'p str {
    let env = proxy["env"].as_array().unwrap();
    env.iter().find(|variable| variable["name"] == name).unwrap()["value"].as_str().unwrap()
}

#[test]
fn proxies_written_by_hand_are_those_of_the_cluster() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    home.configure(&api);
    let inject = |words: &[&str]| {
        let words = [&["inject", "-", "--manual", "-o", "json", "-L", "mesh"], words].concat();
        fed(home.weft(&words), DEPLOYMENT.as_bytes())
    };
    let told = inject(&[]);
    assert!(
        !told.ok && told.err.contains("there is no control plane: the namespace mesh has no ConfigMap"),
        "{told:?}"
    );

    let values =
        "linkerdVersion: v7\nclusterDomain: example.org\nproxy: { logLevel: of-the-cluster, logFormat: json }\n";
    api.put(config_map("linkerd-config", json!({"values": values, "weft-version": "v7"})));
    let told = inject(&[]);
    assert!(
        !told.ok && told.err.contains("the ConfigMap linkerd-identity-trust-roots of the namespace mesh"),
        "{told:?}"
    );
    let (of_cluster, of_file) = (anchors(), anchors());
    api.put(config_map("linkerd-identity-trust-roots", json!({"ca-bundle.crt": of_cluster})));

    // No overrides are asked for: Helm leaves none.
    let made = proxy(&inject(&[]));
    assert!(made["image"].as_str().unwrap().ends_with(":v7"), "{made}");
    assert!(variable(&made, "LINKERD2_PROXY_LOG").starts_with("of-the-cluster,"), "{made}");
    assert_eq!(
        variable(&made, "LINKERD2_PROXY_DESTINATION_SVC_ADDR"),
        "linkerd-dst-headless.mesh.svc.example.org.:8086"
    );
    assert_eq!(variable(&made, "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"), of_cluster);

    // What is given lies above it.
    fs::write(home.0.join("values.yaml"), "proxy: { logLevel: of-the-file }\n").unwrap();
    fs::write(home.0.join("anchors.pem"), &of_file).unwrap();
    let files = ["-f", "values.yaml", "--identity-trust-anchors-file", "anchors.pem"];
    let made = proxy(&inject(&files));
    assert!(variable(&made, "LINKERD2_PROXY_LOG").starts_with("of-the-file,"), "{made}");
    assert_eq!(variable(&made, "LINKERD2_PROXY_LOG_FORMAT"), "json");
    assert_eq!(variable(&made, "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"), of_file);

    // A control plane of Linkerd's has values that are not carried out, and images of its own.
    let linkerds = format!("{values}cniEnabled: true\n");
    api.put(config_map("linkerd-config", json!({ "values": linkerds })));
    let told = inject(&[]);
    let version = format!(":{}", env!("CARGO_PKG_VERSION"));
    assert!(
        proxy(&told)["image"].as_str().unwrap().ends_with(&version) && told.err.contains("cniEnabled: "),
        "{told:?}"
    );

    // Without the cluster everything is given.
    api.put(config_map("linkerd-config", json!({"values": "- no values", "weft-version": "v7"})));
    let told = inject(&[]);
    assert!(!told.ok && told.err.contains("the key `values` of the ConfigMap linkerd-config"), "{told:?}");
    let without = [&["--ignore-cluster"], files.as_slice()].concat();
    assert_eq!(variable(&proxy(&inject(&without)), "LINKERD2_PROXY_LOG_FORMAT"), "plain");
    let told = inject(&["--ignore-cluster"]);
    assert!(!told.ok && told.out.is_empty() && told.err.contains("--identity-trust-anchors-file"), "{told:?}");
}

#[test]
fn standard_input_is_read_by_whoever_is_told_to_and_by_one_alone() {
    let home = Home::new();
    fs::write(home.0.join("web.json"), DEPLOYMENT).unwrap();
    fs::write(home.0.join("values.yaml"), "proxy: { logFormat: json }\n").unwrap();
    fs::write(home.0.join("anchors.pem"), anchors()).unwrap();
    let inject = |from: &str, values: &str, anchors: &str, input: &str| {
        let words = ["inject", from, "--manual", "--ignore-cluster", "-o", "json", "-f", values];
        fed(home.weft(&[&words[..], &["--identity-trust-anchors-file", anchors]].concat()), input.as_bytes())
    };
    let made = proxy(&inject("web.json", "-", "anchors.pem", "proxy: { logFormat: json }\n"));
    assert_eq!(variable(&made, "LINKERD2_PROXY_LOG_FORMAT"), "json");
    let of_input = anchors();
    let made = proxy(&inject("web.json", "values.yaml", "-", &of_input));
    assert_eq!(variable(&made, "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS"), of_input);
    for (from, values, anchors) in
        [("-", "-", "anchors.pem"), ("web.json", "-", "/dev/stdin"), ("-", "values.yaml", "-")]
    {
        let told = inject(from, values, anchors, DEPLOYMENT);
        assert!(!told.ok && told.out.is_empty(), "{told:?}");
        assert!(told.err.contains("standard input is named 2 times, and can be read once"), "{told:?}");
    }
}

/// What is cut off is no manifest.
#[test]
fn an_output_that_takes_no_more_is_a_failure() {
    let home = Home::new();
    for words in
        [&["install", "--ignore-cluster"][..], &["install", "--crds", "--ignore-cluster"], &["completion", "bash"]]
    {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let told: Told = home.weft(words).stdout(full).output().unwrap().into();
        assert!(!told.ok && told.err.contains("standard output takes no more"), "{words:?}: {told:?}");
    }
}

/// As Linkerd's command line is called, flags of the cluster in front.
#[test]
fn values_of_an_installation_come_by_standard_input_as_well() {
    let home = Home::new();
    let words = ["--linkerd-namespace", "mesh", "install", "--ignore-cluster=true", "--values=-"];
    let told = fed(home.weft(&words), b"controllerReplicas: 4\n");
    assert!(told.ok && told.out.contains("  replicas: 4\n") && told.out.contains("namespace: mesh\n"), "{}", told.err);
}
