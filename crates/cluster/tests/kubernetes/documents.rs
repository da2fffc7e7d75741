//! Manifests before and after `weft inject` and `weft uninject`, with what is said about them.

use serde_json::{Value, json};
use weft_cluster::{
    inject::{Annotations, Change, Format, Mesh, change, injected, uninjected},
    values::Values,
};

const MANIFESTS: &str = include_str!("testdata/manifests.yaml");

fn annotations(words: &[(&str, &str)]) -> Annotations {
    words.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn shown(text: &str, what: Change<'_>, verbose: bool) -> String {
    match change(text, what, Format::Yaml) {
        Ok(changed) => {
            let told =
                if matches!(what, Change::Uninject) { uninjected(&changed) } else { injected(&changed, verbose) };
            format!("{}==== standard error{told}", changed.text)
        }
        Err(unchanged) => format!("refused\n{unchanged}\n"),
    }
}

#[test]
fn the_webhook_is_asked_for_proxies() {
    insta::assert_snapshot!("annotated", shown(MANIFESTS, Change::Annotate(&Annotations::new()), false));
    let words = [
        ("config.linkerd.io/opaque-ports", "25,grpc"),
        ("config.linkerd.io/proxy-log-format", "neither"),
        ("linkerd.io/inject", "ingress"),
    ];
    insta::assert_snapshot!("annotated-verbose", shown(MANIFESTS, Change::Annotate(&annotations(&words)), true));
}

#[test]
fn proxies_are_written_and_taken_away() {
    let values = Values::from_layers([json!({"linkerdVersion": "VERSION", "proxy": {"logLevel": "debug"}})]).unwrap();
    let mesh = Mesh { values: &values, namespace: "linkerd", anchors_pem: "anchors\n", anchors_sha256: "5a5a" };
    let words = annotations(&[("config.linkerd.io/enable-debug-sidecar", "true")]);
    let what = Change::Manual(&words, mesh);
    insta::assert_snapshot!("by-hand", shown(MANIFESTS, what, false));
    let once = change(MANIFESTS, what, Format::Yaml).unwrap().text;
    // Injected again it is the same.
    assert_eq!(change(&once, what, Format::Yaml).unwrap().text, once);
    insta::assert_snapshot!("uninjected", shown(&once, Change::Uninject, false));
}

#[test]
fn ingress_mode_is_kept_until_it_is_taken_away() {
    let values = Values::default();
    let mesh = Mesh { values: &values, namespace: "linkerd", anchors_pem: "anchors\n", anchors_sha256: "5a5a" };
    let none = Annotations::new();
    let ingress = json!({"linkerd.io/inject": "ingress"});
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "edge", "annotations": ingress}});
    let pod =
        json!({"metadata": {"annotations": ingress}, "spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx"}, "spec": {"template": pod}});
    let after = |object: &Value, what: Change<'_>| -> Value {
        serde_json::from_str(&change(&object.to_string(), what, Format::Json).unwrap().text).unwrap()
    };
    for (object, at) in [(&namespace, "/metadata"), (&deployment, "/spec/template/metadata")] {
        let said = |object: &Value| object.pointer(at).unwrap()["annotations"]["linkerd.io/inject"].clone();
        let once = after(object, Change::Annotate(&none));
        assert_eq!((said(&once), &after(&once, Change::Annotate(&none))), (json!("ingress"), &once));
        let words = annotations(&[("linkerd.io/inject", "enabled")]);
        assert_eq!(said(&after(object, Change::Annotate(&words))), "enabled", "who names a mode gets it");
        assert_eq!(said(&after(&once, Change::Uninject)), Value::Null);
    }
    let once = after(&deployment, Change::Manual(&none, mesh));
    assert!(once.to_string().contains(r#"{"name":"LINKERD2_PROXY_INGRESS_MODE","value":"true"}"#), "{once}");
    assert_eq!(after(&once, Change::Manual(&none, mesh)), once);
}

#[test]
fn what_cannot_be_injected_is_named() {
    let none = Annotations::new();
    let what = Change::Annotate(&none);
    let text = MANIFESTS.replace("      containers:", "      hostNetwork: true\n      containers:");
    insta::assert_snapshot!("host-network", shown(&text, what, false));
    insta::assert_snapshot!("no-yaml", shown("kind: [\n", what, false));
    let nothing = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n---\nno: kind\n";
    insta::assert_snapshot!("nothing-to-inject", shown(nothing, what, false));
    let own = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: linkerd-identity}\nspec: {template: {metadata: {labels: \
               {linkerd.io/control-plane-component: identity}}, spec: {containers: []}}}\n";
    insta::assert_snapshot!("control-plane", shown(own, what, false));
    assert_eq!(change(own, Change::Uninject, Format::Yaml).unwrap().text, format!("{own}---\n"));
}

const AS_PEOPLE_WRITE: &str = "
base: &labels { app: web }
kind: Deployment
apiVersion: apps/v1
metadata:
  name: web
  annotations: { note: }
spec:
  selector: { matchLabels: *labels }
  template:
    metadata: { labels: { <<: *labels, tier: front }, creationTimestamp: null }
    spec:
      hostNetwork: no
      containers:
      - name: web
        resources: { limits: { cpu: 1, memory: 134217728 }, requests: { cpu: 0.5 } }
        volumeMounts: [{ name: files, mountPath: /files }]
      volumes:
      - { name: files, configMap: { name: files, defaultMode: 0644 } }
      - { name: scratch, emptyDir: { sizeLimit: 1024 } }
";

/// What kubectl applies is injected, and nothing else in it changes.
#[test]
fn manifests_are_read_as_kubectl_reads_them() {
    let values = Values::default();
    let mesh = Mesh { values: &values, namespace: "linkerd", anchors_pem: "anchors\n", anchors_sha256: "5a5a" };
    let none = Annotations::new();
    for what in [Change::Annotate(&none), Change::Manual(&none, mesh)] {
        let changed = change(AS_PEOPLE_WRITE, what, Format::Json).unwrap();
        assert!(changed.reports.iter().all(|report| report.is_injected()), "{:?}", changed.reports);
        let object: Value = serde_json::from_str(&changed.text).unwrap();
        let template = &object["spec"]["template"];
        let web = template["spec"]["containers"].as_array().unwrap().iter().find(|c| c["name"] == "web").unwrap();
        assert_eq!(web["resources"], json!({"limits": {"cpu": 1, "memory": 134_217_728}, "requests": {"cpu": 0.5}}));
        assert_eq!(template["spec"]["volumes"][0]["configMap"]["defaultMode"], 0o644);
        assert_eq!(template["metadata"]["labels"]["app"], "web");
        assert_eq!(object["metadata"]["annotations"], json!({"note": null}));
    }
    let wrong = AS_PEOPLE_WRITE.replace("note:", "note: true");
    let told = change(&wrong, Change::Annotate(&none), Format::Yaml).unwrap_err().to_string();
    assert_eq!(
        told,
        "failed to inject deployment/web: metadata.annotations.note: it is true: give a text, such as \"text\""
    );
}

#[test]
fn what_is_written_instead_of_an_object_is_told() {
    let text =
        "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec: { imagePullSecrets: [pull], containers: [] }\n";
    let told = change(text, Change::Annotate(&Annotations::new()), Format::Yaml).unwrap_err().to_string();
    assert!(told.ends_with(": it is the text \"pull\": give an object, such as {key: value}"), "{told}");
}

/// What pods of a Namespace would be refused for, or get nothing from, is told where the Namespace is annotated.
#[test]
fn a_namespace_says_nothing_that_its_pods_cannot_have() {
    let of = |annotation: &str| {
        let text =
            format!("apiVersion: v1\nkind: Namespace\nmetadata: {{ name: shop, annotations: {{ {annotation} }} }}\n");
        change(&text, Change::Annotate(&Annotations::new()), Format::Yaml)
    };
    let told = of("config.linkerd.io/proxy-uid: root").unwrap_err().to_string();
    let field = "metadata.annotations[config.linkerd.io/proxy-uid] of the Namespace shop: \"root\": ";
    assert!(told.starts_with(&format!("failed to inject namespace/shop: {field}")), "{told}");
    let warnings =
        of("config.linkerd.io/enable-debug-sidecar: \"true\", config.linkerd.io/proxyuid: \"7\"").unwrap().warnings;
    let keys: Vec<&str> = warnings.iter().map(|(_, warning)| warning.key.as_str()).collect();
    assert_eq!(keys, ["config.linkerd.io/enable-debug-sidecar", "config.linkerd.io/proxyuid"]);
    assert_eq!(of("config.linkerd.io/proxy-uid: \"7\"").unwrap().warnings, []);
}

#[test]
fn a_port_of_udp_is_told_and_no_mistake() {
    let text = |word: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: dns, annotations: {{linkerd.io/inject: {word}}}}}\n\
             spec: {{containers: [{{name: dns, image: dns, ports: [{{containerPort: 53, protocol: UDP}}]}}]}}\n"
        )
    };
    let said = |word: &str| {
        let changed = change(&text(word), Change::Annotate(&Annotations::new()), Format::Yaml).unwrap();
        injected(&changed, false)
    };
    assert!(said("enabled").contains("‼ pod/dns uses \"protocol: UDP\""), "{}", said("enabled"));
    assert!(said("enabled").contains("pod \"dns\" injected"), "{}", said("enabled"));
    assert!(said("disabled").contains("pod \"dns\" skipped"), "{}", said("disabled"));
}

#[test]
fn json_is_a_line_per_document() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"n\"}}\n---\nkind: Other\n";
    let changed = change(text, Change::Annotate(&Annotations::new()), Format::Json).unwrap();
    let lines: Vec<&str> = changed.text.lines().collect();
    let namespace = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"annotations":{"linkerd.io/inject":"enabled"},"name":"n"}}"#;
    assert_eq!(lines, [namespace, r#"{"kind":"Other"}"#]);
}

/// As it is written, and as other programs write it.
#[test]
fn json_needs_nothing_between_its_documents() {
    let none = Annotations::new();
    let once = change(MANIFESTS, Change::Annotate(&none), Format::Json).unwrap().text;
    assert!(once.lines().count() > 3);
    assert_eq!(change(&once, Change::Annotate(&none), Format::Json).unwrap().text, once);
    let undone = change(&once, Change::Uninject, Format::Json).unwrap();
    assert_eq!(
        (undone.text.lines().count(), undone.text.contains("linkerd.io/inject\":\"enabled")),
        (once.lines().count(), false)
    );

    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let pretty = |name: &str| serde_json::to_string_pretty(&namespace(name)).unwrap();
    let of = |text: &str| change(text, Change::Annotate(&none), Format::Yaml);
    for text in [
        format!("{}{}", namespace("a"), namespace("b")),
        format!("---\n{}\n\n{}\n# the end\n", pretty("a"), pretty("b")),
        format!("{}\n---\n{}", pretty("a"), pretty("b")),
        format!("{}\n{}\n---\napiVersion: v1\nkind: Secret\n", namespace("a"), pretty("b")),
    ] {
        let changed = of(&text).unwrap();
        let reports = changed.reports.iter().map(weft_cluster::inject::Report::resource).collect::<Vec<_>>();
        assert_eq!(reports[..2], ["namespace/a", "namespace/b"], "{text}");
        assert_eq!(changed.text.matches("linkerd.io/inject: enabled").count(), 2, "{text}");
    }
    // Nothing is passed over.
    let lines = pretty("a").lines().count();
    for (rest, line) in [("garbage", lines), ("\n\n, {}", lines + 2), ("{\"kind\":\n", lines + 1), ("[]", lines)] {
        let told = of(&format!("{}{rest}", pretty("a"))).unwrap_err().to_string();
        let (at, _) = told.strip_prefix("line ").unwrap().split_once(':').unwrap();
        assert!(at.parse::<usize>().unwrap().abs_diff(line) <= 1, "{rest}: {told}");
    }
}
