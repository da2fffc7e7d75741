//! The two ways to the objects of an installation, and where they may differ.

use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};
use weft_cluster::{install::objects, values::Values};
use weft_testkit::kubernetes::{built, programs};

pub(crate) const CONTROL_PLANE: &str = "linkerd-control-plane";
pub(crate) const DEFINITIONS: &str = "linkerd-crds";

/// What an installation is given by: files, and words of `--set`.
#[derive(Clone, Default)]
pub(crate) struct Given {
    files: Vec<PathBuf>,
    words: Vec<String>,
}

impl Given {
    /// With values of a file, whose name is to be its own.
    pub(crate) fn file(mut self, name: &str, values: &Value) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("charts");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.yaml"));
        fs::write(&file, values.to_string()).unwrap();
        self.files.push(file);
        self
    }

    /// With a file of the chart.
    pub(crate) fn own_file(mut self, name: &str) -> Self {
        self.files.push(charts().join(CONTROL_PLANE).join(name));
        self
    }

    pub(crate) fn set(mut self, assignment: &str) -> Self {
        self.words.push(assignment.to_owned());
        self
    }

    fn apply(&self, command: &mut Command) {
        for file in &self.files {
            command.arg("--values").arg(file);
        }
        for word in &self.words {
            command.args(["--set", word]);
        }
        command.stdin(Stdio::null()).env_remove("KUBECONFIG");
    }

    pub(crate) fn helm(&self, chart: &str) -> Output {
        static HELM: OnceLock<PathBuf> = OnceLock::new();
        let helm = HELM.get_or_init(|| programs().unwrap().join("helm"));
        let mut command = Command::new(helm);
        command.args(["template", chart]).arg(charts().join(chart)).args(["--namespace", "linkerd"]);
        // Built from source, helm takes a cluster that it does not ask for an old one.
        command.args(["--kube-version", "1.31.0"]);
        // Nothing of the caller's own.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, Path::new(env!("CARGO_TARGET_TMPDIR")).join("charts/helm"));
        }
        self.apply(&mut command);
        command.output().unwrap()
    }

    pub(crate) fn weft(&self, words: &[&str]) -> Output {
        let mut command = Command::new(built("weft").unwrap());
        command.args(["install", "--ignore-cluster"]).args(words);
        self.apply(&mut command);
        command.output().unwrap()
    }
}

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts")
}

/// Objects by kind, namespace and name.
type Objects = BTreeMap<String, Value>;

fn read(output: &Output) -> Objects {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut found = Objects::new();
    for object in objects(&text).unwrap() {
        if object.is_null() {
            continue;
        }
        let meta = &object["metadata"];
        let key = format!("{} {} {}", object["kind"], meta["namespace"], meta["name"]).replace('"', "");
        assert!(found.insert(key.clone(), object).is_none(), "{key} stands twice");
    }
    found
}

/// What Helm does in another way, and why.
fn without_what_may_differ(mut objects: Objects, from_weft: bool) -> Objects {
    if from_weft {
        // Helm makes the namespace of a release itself (`--create-namespace`).
        assert!(objects.remove("Namespace null linkerd").is_some());
        // What was given is kept in Helm's release, and `helm upgrade` reads it there.
        assert!(objects.remove("Secret linkerd linkerd-config-overrides").is_some());
    }
    for (key, object) in &mut objects {
        // Who made it.
        let author = if from_weft { "linkerd/cli " } else { "linkerd/helm " };
        replace(object, author, "");
        // The text of the values is another writer's: what they say is the same.
        if key == "ConfigMap linkerd linkerd-config" {
            let values = Values::from_yaml(object["data"]["values"].as_str().unwrap()).unwrap();
            object["data"]["values"] = serde_json::to_value(values).unwrap();
        }
        *object = numbers(object.take());
    }
    objects
}

/// In annotations.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "linkerd.io/created-by" => *text = text.replace(from, to),
                    value => replace(value, from, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, from, to)),
        _ => {}
    }
}

/// Whole numbers and fractions are one.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, numbers(value))).collect(),
        other => other,
    }
}

/// The first difference of two values, with its path.
fn difference(path: &str, one: Option<&Value>, other: Option<&Value>) -> Option<String> {
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => one
            .keys()
            .chain(other.keys())
            .find_map(|key| difference(&format!("{path}.{key}"), one.get(key), other.get(key))),
        (Some(Value::Array(one)), Some(Value::Array(other))) => (0..one.len().max(other.len()))
            .find_map(|at| difference(&format!("{path}[{at}]"), one.get(at), other.get(at))),
        (one, other) => {
            let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
            (one != other).then(|| format!("{path}: helm {}, weft {}", shown(one), shown(other)))
        }
    }
}

/// Where both ways come to something else.
pub(crate) fn differences(helm: &Output, weft: &Output) -> Vec<String> {
    for (output, name) in [(helm, "helm"), (weft, "weft")] {
        if !output.status.success() {
            return vec![format!("{name}: {}", String::from_utf8_lossy(&output.stderr))];
        }
    }
    let helm = without_what_may_differ(read(helm), false);
    let weft = without_what_may_differ(read(weft), true);
    let keys: std::collections::BTreeSet<&String> = helm.keys().chain(weft.keys()).collect();
    keys.into_iter().filter_map(|key| difference(key, helm.get(key), weft.get(key))).collect()
}

/// The definitions of the mesh's kinds, which have neither namespace nor values.
pub(crate) fn definitions(output: &Output, author: &str) -> BTreeMap<String, Value> {
    let mut objects = read(output);
    for object in objects.values_mut() {
        replace(object, author, "");
        *object = numbers(object.take());
    }
    objects
}

/// Values with certificates of identity and of the webhooks, as somebody brings them. Each call makes others.
pub(crate) fn pems() -> Value {
    let made = read(&Given::default().weft(&[]));
    let text = |object: &str, field: &str, key: &str| made[object][field][key].as_str().unwrap().to_owned();
    let tls = |secret: &str| {
        let of = format!("Secret linkerd {secret}");
        json!({ "crtPEM": text(&of, "stringData", "tls.crt"), "keyPEM": text(&of, "stringData", "tls.key") })
    };
    let issuer = "Secret linkerd linkerd-identity-issuer";
    json!({
        "identityTrustAnchorsPEM": text("ConfigMap linkerd linkerd-identity-trust-roots", "data", "ca-bundle.crt"),
        "identity": { "issuer": { "tls": {
            "crtPEM": text(issuer, "stringData", "crt.pem"), "keyPEM": text(issuer, "stringData", "key.pem"),
        } } },
        "proxyInjector": tls("linkerd-proxy-injector-k8s-tls"),
        "profileValidator": tls("linkerd-sp-validator-k8s-tls"),
        "policyValidator": tls("linkerd-policy-validator-k8s-tls"),
    })
}
