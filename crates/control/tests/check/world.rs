//! What a check looks at: a mesh in order, and an app in it; and who holds it.

use serde_json::{Value, json};
use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    install::{self, By, Installation, Material},
    values::Values,
};
use weft_control::{
    ca,
    check::{Options, Report, What},
};

/// Who holds objects, and may be told to misbehave.
pub(crate) trait Api {
    /// Creates or replaces an object, with its status.
    fn put(&self, object: Value);
    fn delete(&self, kind: &str, namespace: &str, name: &str);
    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value>;
    /// Nobody may create such objects.
    fn forbid(&self, plural: &str);
    /// Answers nobody any more.
    fn goes(&self);
    /// Is too old.
    fn ages(&self);
}

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn values() -> Values {
    Values::from_layers([json!({"linkerdVersion": "v1"}), given()]).unwrap()
}

/// Nobody is there who would answer the API server.
pub(crate) fn given() -> Value {
    let nobody = json!({"namespaceSelector": {"matchLabels": {"nobody": "asks"}}});
    json!({"proxyInjector": nobody, "profileValidator": nobody, "policyValidator": nobody})
}

/// One of two installations' certificates.
pub(crate) fn material(other: bool) -> &'static Material {
    static MADE: OnceLock<[Material; 2]> = OnceLock::new();
    let made = MADE.get_or_init(|| [(); 2].map(|()| ca::material(&values(), "linkerd", SystemTime::now()).unwrap()));
    &made[usize::from(other)]
}

pub(crate) fn pod(name: &str, namespace: &str, labels: Value, proxied: bool) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIP": "10.244.0.7", "podIPs": [{"ip": "10.244.0.7"}], "containerStatuses": [],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]},
    });
    if proxied {
        pod["spec"]["initContainers"] = json!([{"name": "linkerd-proxy", "image": "none"}]);
        let status = json!({"name": "linkerd-proxy", "ready": true, "restartCount": 0, "image": "", "imageID": ""});
        pod["status"]["initContainerStatuses"] = json!([status]);
    }
    pod
}

/// What an installation makes.
pub(crate) fn installed() -> Vec<Value> {
    let (values, overrides) = (values(), given().to_string());
    let by = By::Cli;
    let installation =
        Installation { values: &values, namespace: "linkerd", by, material: material(false), overrides: &overrides };
    let mut objects = install::crds(&values, "linkerd", By::Cli);
    objects.extend(install::control_plane(installation));
    objects
}

/// What stands around it: a node, an app, and the pods of both.
pub(crate) fn around() -> Vec<Value> {
    let mut objects = vec![
        json!({"kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}}),
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"linkerd.io/inject": "enabled"}}}),
    ];
    for namespace in ["shop", "linkerd"] {
        objects.push(json!({"kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}));
    }
    objects.push(json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "selector": {"app": "web"},
            "ports": [{"name": "db", "port": 80, "targetPort": 8080}]}}));
    objects.push(pod("web-1", "shop", json!({"linkerd.io/control-plane-ns": "linkerd", "app": "web"}), true));
    objects.extend(["destination", "identity", "proxy-injector"].map(own));
    objects
}

fn own(component: &str) -> Value {
    let labels = json!({"linkerd.io/control-plane-component": component, "linkerd.io/control-plane-ns": "linkerd"});
    pod(component, "linkerd", labels, true)
}

pub(crate) fn options(what: What) -> Options {
    Options { what, namespace: "linkerd".to_owned(), wait: Duration::ZERO, version: "v1".to_owned() }
}

pub(crate) fn failed(report: &Report) -> Vec<(&str, &str)> {
    let failed = report.0.iter().filter_map(|line| Some((line.check.description, line.error.as_deref()?)));
    failed.collect()
}

/// Whether a remedy begins with commands: what is behind the first comma is said to people.
pub(crate) fn assert_command(remedy: &str) {
    let command = remedy.split(", ").next().unwrap();
    let parsed = std::process::Command::new("bash").args(["-n", "-c", command]).output().unwrap();
    assert!(parsed.status.success(), "{remedy}: {}", String::from_utf8_lossy(&parsed.stderr));
    for one in simple_commands(command) {
        let mut words = one.iter().map(String::as_str);
        match words.next() {
            Some("kubectl") => of_kubectl(&words.collect::<Vec<_>>()).unwrap_or_else(|why| panic!("{remedy}: {why}")),
            Some("weft" | "helm" | "openssl" | "cat" | "cp" | "awk" | "echo" | "base64" | "sudo" | "kubeadm") => {}
            other => panic!("{remedy}: {other:?} is no command"),
        }
    }
}

/// What kubectl would refuse: objects that are named in two ways, and words where there are to be none.
fn of_kubectl(words: &[&str]) -> Result<(), String> {
    let mut named = vec![];
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "-n" | "-l" | "-f" | "-o" => drop(rest.next()),
            ">" | ">>" => drop(rest.next()),
            option if option.starts_with('-') => {}
            word => named.push(word),
        }
    }
    let Some((verb, named)) = named.split_first() else { return Err("it is told nothing".to_owned()) };
    let slashes = named.iter().filter(|word| word.contains('/')).count();
    match *verb {
        "apply" if !named.is_empty() => Err(format!("{named:?}")),
        "describe" | "get" | "edit" | "delete" if slashes != 0 && slashes != named.len() => Err(format!("{named:?}")),
        "describe" | "get" | "edit" | "delete" if named.is_empty() => Err(format!("{verb} what?")),
        _ => Ok(()),
    }
}

/// The words of each command between `&&` and `|`.
fn simple_commands(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut word, mut is_quoted) = (vec![vec![]], String::new(), false);
    for char in text.chars().chain([' ']) {
        match char {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => match std::mem::take(&mut word).as_str() {
                "" => {}
                "&&" | "|" => all.push(vec![]),
                word => all.last_mut().unwrap().push(word.to_owned()),
            },
            other => word.push(other),
        }
    }
    all
}
