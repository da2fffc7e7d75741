//! Every line, true and false, against the fake API server.

use super::{ALL, Options, Outcome, Report, Severity, What, run, table};
use crate::ca;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::OnceLock,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    install::{self, By, Installation, Material},
    k8s::ByteString,
    kubernetes::{Client, Error, connect},
    values::Values,
};
use weft_testkit::api_server::{Failure, FakeApi};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn values() -> Values {
    Values::from_layers([json!({"linkerdVersion": "v1"})]).unwrap()
}

/// One of two installations' certificates.
fn material(other: bool) -> &'static Material {
    static MADE: OnceLock<[Material; 2]> = OnceLock::new();
    let made = MADE.get_or_init(|| [(); 2].map(|()| ca::material(&values(), "linkerd", SystemTime::now()).unwrap()));
    &made[usize::from(other)]
}

fn pod(name: &str, namespace: &str, labels: Value, proxied: bool) -> Value {
    let mut pod = json!({
        "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.244.0.7"}], "containerStatuses": [],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}]},
    });
    if proxied {
        pod["spec"]["initContainers"] = json!([{"name": "linkerd-proxy"}]);
        let status = json!({"name": "linkerd-proxy", "ready": true, "restartCount": 0, "image": "", "imageID": ""});
        pod["status"]["initContainerStatuses"] = json!([status]);
    }
    pod
}

/// A cluster with a mesh in order, and an app in it.
async fn world() -> FakeApi {
    let api = FakeApi::start().await.unwrap();
    let values = values();
    let installation = Installation {
        values: &values,
        namespace: "linkerd",
        by: By::Cli,
        material: material(false),
        overrides: "",
        validators: false,
    };
    let mut objects = install::crds(&values, "linkerd", By::Cli);
    objects.extend(install::control_plane(installation));
    for mut object in objects {
        if object["kind"] == "Role" {
            continue;
        }
        // As the API server does.
        if let Some(texts) = object["stringData"].as_object() {
            let bytes = |text: &Value| json!(ByteString(text.as_str().unwrap().as_bytes().to_vec()));
            object["data"] = texts.iter().map(|(key, text)| (key.clone(), bytes(text))).collect();
        }
        if object["kind"] == "Deployment" {
            object["status"] = json!({"readyReplicas": 1});
        }
        api.put(object);
    }
    for name in ["httproutes", "grpcroutes"] {
        api.put(json!({"kind": "CustomResourceDefinition", "metadata": {"name": format!("{name}.gateway.networking.k8s.io")},
            "spec": {"group": "gateway.networking.k8s.io", "scope": "Namespaced", "names": {"kind": "R", "plural": name},
                "versions": [{"name": "v1", "served": true, "storage": true}]}}));
    }
    api.put(json!({"kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDR": "10.244.0.0/24"}}));
    api.put(
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": {"linkerd.io/inject": "enabled"}}}),
    );
    api.put(json!({"kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}}));
    api.put(pod("web-1", "shop", json!({"linkerd.io/control-plane-ns": "linkerd"}), true));
    for component in ["destination", "identity", "proxy-injector"] {
        api.put(own(component));
    }
    api
}

fn own(component: &str) -> Value {
    let labels = json!({"linkerd.io/control-plane-component": component, "linkerd.io/control-plane-ns": "linkerd"});
    pod(component, "linkerd", labels, true)
}

async fn client(api: &FakeApi) -> Result<Client, Error> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("weft-check-{}-{count}", std::process::id()));
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let client = connect(Some(&path)).await;
    std::fs::remove_file(&path).unwrap();
    client
}

fn options(what: What) -> Options {
    Options { what, namespace: "linkerd".to_owned(), wait: Duration::ZERO, version: "v1".to_owned() }
}

async fn asked(api: &FakeApi, what: What, later: Duration) -> Report {
    run(client(api).await, &options(what), SystemTime::now() + later, &mut |_| {}).await
}

fn failed(report: &Report) -> Vec<(&str, &str)> {
    let failed = report.0.iter().filter_map(|line| Some((line.check.description, line.error.as_deref()?)));
    failed.collect()
}

#[tokio::test]
async fn a_mesh_in_order_has_no_line_that_fails() {
    let api = world().await;
    let report = asked(&api, What::DataPlane(Some("shop".to_owned())), Duration::ZERO).await;
    assert_eq!(failed(&report), []);
    let lines: Vec<_> = report.0.iter().map(|line| line.check).collect();
    let elsewhere = [&table::FREE, &table::DEFINED];
    let expected: Vec<_> = ALL.iter().copied().filter(|check| !elsewhere.contains(check)).collect();
    assert_eq!(lines, expected, "in the order of the table");
    assert_eq!(failed(&asked(&api, What::Crds, Duration::ZERO).await), []);
    api.delete("Namespace", "", "linkerd");
    assert_eq!(failed(&asked(&api, What::Pre, Duration::ZERO).await), []);
}

/// Changes what is there.
fn edit(api: &FakeApi, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = api.get(kind, namespace, name).unwrap();
    change(&mut object);
    api.put(object);
}

/// Breaks what one line is about; says what it is asked for, when, and what it then says.
fn broken(check: &table::Check, api: &FakeApi) -> (What, Duration, &'static str) {
    let usual = |says| (What::DataPlane(None), Duration::ZERO, says);
    let later = |days: u32, says| (What::ControlPlane, days * DAY, says);
    let network = |says| {
        edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
            map["data"]["values"] = json!("linkerdVersion: v1\nclusterNetworks: 192.168.0.0/16\n");
        });
        usual(says)
    };
    match check {
        c if c == &table::ANSWERS => {
            api.fail(Some(Failure::Close));
            usual("API server: ")
        }
        c if c == &table::MINIMUM => {
            api.release("v1.30.9");
            usual("the API server is v1.30.9, older than v1.31")
        }
        c if c == &table::GATEWAY_API => {
            api.delete("CustomResourceDefinition", "", "grpcroutes.gateway.networking.k8s.io");
            usual("grpcroutes.gateway.networking.k8s.io is missing")
        }
        c if c == &table::FREE => (What::Pre, Duration::ZERO, "the namespace linkerd exists"),
        c if c == &table::DEFINED => {
            api.delete("CustomResourceDefinition", "", "servers.policy.linkerd.io");
            (What::Crds, Duration::ZERO, "servers.policy.linkerd.io of version ")
        }
        c if c == &table::DEFINITIONS => {
            api.delete("CustomResourceDefinition", "", "servers.policy.linkerd.io");
            usual("servers.policy.linkerd.io of version ")
        }
        c if c == &table::VALUES => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| map["data"]["values"] = json!("nonsense: 1\n"));
            usual("nonsense: there is no such value")
        }
        c if c == &table::REPLICAS => {
            edit(api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({}));
            usual("of the Deployment linkerd-identity 0 of 1 replicas are ready")
        }
        c if c == &table::SCHEDULABLE => {
            edit(api, "Pod", "linkerd", "identity", |pod| {
                let condition = json!({"type": "PodScheduled", "status": "False", "message": "0/1 nodes"});
                pod["status"]["conditions"][0] = condition;
            });
            usual("pod identity: 0/1 nodes")
        }
        c if c == &table::READY => {
            edit(api, "Pod", "linkerd", "identity", |pod| pod["status"]["conditions"][1]["status"] = json!("False"));
            usual("pod identity is not ready")
        }
        c if c == &table::NODE_NETWORKS => network("node n1 has 10.244.0.0/24"),
        c if c == &table::POD_NETWORKS => network("has 10.244.0.7"),
        c if c == &table::SERVICE_NETWORKS => network("Service shop/web has 10.96.0.9"),
        c if c == &table::NAMESPACE => {
            api.delete("Namespace", "", "linkerd");
            usual("there is no Namespace linkerd")
        }
        c if c == &table::ROLES => {
            api.delete("ClusterRole", "", "linkerd-policy");
            usual("there is no ClusterRole linkerd-policy")
        }
        c if c == &table::BINDINGS => {
            api.delete("ClusterRoleBinding", "", "linkerd-destination-policy");
            usual("there is no ClusterRoleBinding linkerd-destination-policy")
        }
        c if c == &table::ACCOUNTS => {
            api.delete("ServiceAccount", "linkerd", "linkerd-identity");
            usual("there is no ServiceAccount linkerd-identity")
        }
        c if c == &table::MUTATING => {
            api.delete("MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config");
            usual("there is no MutatingWebhookConfiguration linkerd-proxy-injector-webhook-config")
        }
        c if c == &table::ANCHORS => {
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |s| s["data"]["key.pem"] = json!(null));
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |s| {
                s["data"].as_object_mut().unwrap().remove("key.pem");
            });
            usual("the Secret linkerd-identity-issuer has no key key.pem")
        }
        c if c == &table::ANCHORS_NOW => later(3651, "has expired"),
        c if c == &table::ANCHORS_SOON => later(3600, "days more"),
        c if c == &table::ISSUER_NOW => later(366, "has expired"),
        c if c == &table::ISSUER_SOON => later(310, "days more"),
        c if c == &table::ISSUED => {
            edit(api, "ConfigMap", "linkerd", "linkerd-identity-trust-roots", |map| {
                map["data"]["ca-bundle.crt"] = json!(material(true).anchors_pem);
            });
            usual("proxies would refuse what this issuer signs")
        }
        c if c == &table::INJECTOR => {
            edit(api, "MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config", |config| {
                let bundle = ByteString(material(true).proxy_injector.certificate.as_bytes().to_vec());
                config["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
            });
            usual("does not vouch for the Secret linkerd-proxy-injector-k8s-tls")
        }
        c if c == &table::INJECTOR_SOON => later(310, "days more"),
        c if c == &table::SAME_VERSION => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
                map["data"]["values"] = json!("linkerdVersion: v2\n");
            });
            usual("the control plane is v2, this command v1")
        }
        c if c == &table::PROXIES => {
            edit(api, "Pod", "linkerd", "identity", |p| {
                p["status"]["initContainerStatuses"][0]["ready"] = json!(false)
            });
            usual("the proxy of pod linkerd/identity is not ready")
        }
        c if c == &table::DATA_NAMESPACE => {
            (What::DataPlane(Some("nowhere".to_owned())), Duration::ZERO, "there is no namespace nowhere")
        }
        c if c == &table::DATA_PROXIES => {
            edit(api, "Pod", "shop", "web-1", |p| p["status"]["initContainerStatuses"][0]["ready"] = json!(false));
            usual("the proxy of pod shop/web-1 is not ready")
        }
        c if c == &table::UNMESHED => {
            api.put(pod("web-2", "shop", json!({}), false));
            usual("pod shop/web-2 has no proxy")
        }
        other => panic!("{other:?} has no test"),
    }
}

#[tokio::test]
async fn every_line_fails_with_its_cause() {
    for check in ALL.iter().filter(|check| ***check != table::CLIENT) {
        let api = world().await;
        let (what, later, says) = broken(check, &api);
        let report = asked(&api, what, later).await;
        let at = report.0.iter().position(|line| line.check == *check);
        let at = at.unwrap_or_else(|| panic!("{check:?} was not asked: {:?}", failed(&report)));
        let error = report.0[at].error.as_deref().unwrap_or_else(|| panic!("{check:?} did not fail"));
        assert!(error.contains(says), "{check:?}: {error}");
        if check.severity == Severity::Fatal {
            assert_eq!(at, report.0.len() - 1, "nothing is asked behind {check:?}");
        }
        let is_warning = report.0[at].result() == Outcome::Warning;
        assert_eq!(is_warning, check.severity == Severity::Warning);
    }
    let none = Err(Error::NoCluster("no file".to_owned()));
    let report = run(none, &options(What::Pre), SystemTime::now(), &mut |_| {}).await;
    assert_eq!(failed(&report).len(), 1);
    assert!(!report.is_success() && failed(&report)[0].1.contains("no file"));
}

#[tokio::test]
async fn what_may_come_true_is_waited_for() {
    let api = world().await;
    edit(&api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({}));
    let waiting = Options { wait: Duration::from_secs(60), ..options(What::ControlPlane) };
    let mut waited = BTreeSet::new();
    let client = client(&api).await;
    let report = run(client, &waiting, SystemTime::now(), &mut |told| {
        if let super::Told::Waiting(check, _) = told {
            waited.insert(check.description);
            edit(&api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({"readyReplicas": 1}));
        }
    })
    .await;
    assert_eq!(failed(&report), []);
    assert_eq!(waited, BTreeSet::from([table::REPLICAS.description]));
}

/// `docs/reference/check.md` is this table.
#[test]
fn the_reference_is_the_table() {
    let mut text = "# What `weft check` looks at\n\nGenerated by a test of `weft-control`. Each line with what mends it; a warning (‼) is no failure, a \
                    fatal one (×) ends the check.\n"
        .to_owned();
    let mut category = "";
    for check in ALL {
        if check.category != category {
            category = check.category;
            text += &format!("\n## {category}\n");
        }
        let kind = match check.severity {
            Severity::Fatal => "fatal",
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let waits = if check.retried { ", waited for" } else { "" };
        text += &format!(
            "\n<a id=\"{}\"></a>**{}** ({kind}{waits})\n\nTo mend it: `{}`\n",
            check.anchor, check.description, check.remedy
        );
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/check.md");
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "set WEFT_UPDATE=1 to write it anew");
}
