//! Every line, true and false, against the fake API server.

use super::{ALL, LOCAL, Options, Outcome, Report, Severity, What, run, table};
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
    let installation =
        Installation { values: &values, namespace: "linkerd", by: By::Cli, material: material(false), overrides: "" };
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
        "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "selector": {"app": "web"},
            "ports": [{"name": "db", "port": 80, "targetPort": 8080}]}}));
    api.put(pod("web-1", "shop", json!({"linkerd.io/control-plane-ns": "linkerd", "app": "web"}), true));
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
    let elsewhere = [
        &table::FREE,
        &table::CLUSTER_OBJECTS,
        &table::CREATE_ACCOUNTS,
        &table::CREATE_SERVICES,
        &table::CREATE_DEPLOYMENTS,
        &table::CREATE_CONFIG_MAPS,
        &table::CREATE_SECRETS,
        &table::READ_SECRETS,
        &table::CLOCK,
        &table::DEFINED,
        &table::SEVERAL,
    ];
    let expected: Vec<_> = ALL.iter().copied().filter(|check| !elsewhere.contains(check)).collect();
    assert_eq!(lines, expected, "in the order of the table");
    assert_eq!(failed(&asked(&api, What::Crds, Duration::ZERO).await), []);
    api.delete("Namespace", "", "linkerd");
    let before = api.all("ClusterRole");
    assert_eq!(failed(&asked(&api, What::Pre, Duration::ZERO).await), []);
    assert_eq!(api.all("ClusterRole"), before, "nothing is created");
    assert_eq!(api.all("Namespace").len(), 1);
}

/// Changes what is there.
fn edit(api: &FakeApi, kind: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
    let mut object = api.get(kind, namespace, name).unwrap();
    change(&mut object);
    api.put(object);
}

fn may_not(api: &FakeApi, plural: &str, says: &'static str) -> (What, Duration, &'static str) {
    api.forbid(plural);
    (What::Pre, Duration::ZERO, says)
}

/// A certificate and its key of a kind that Linkerd's proxies do not take.
fn p384() -> (String, String) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = rcgen::CertificateParams::new(vec!["identity.linkerd.cluster.local".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
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
        c if c == &table::CLUSTER_OBJECTS => {
            api.forbid("clusterrolebindings");
            (What::Pre, Duration::ZERO, "cannot create ClusterRoleBinding linkerd-linkerd-destination: ")
        }
        c if c == &table::CREATE_ACCOUNTS => may_not(api, "serviceaccounts", "may not create serviceaccounts"),
        c if c == &table::CREATE_SERVICES => may_not(api, "services", "may not create services"),
        c if c == &table::CREATE_DEPLOYMENTS => may_not(api, "deployments", "may not create deployments"),
        c if c == &table::CREATE_CONFIG_MAPS => may_not(api, "configmaps", "may not create configmaps"),
        c if c == &table::CREATE_SECRETS => may_not(api, "secrets", "may not create secrets"),
        c if c == &table::READ_SECRETS => may_not(api, "secrets", "may not get secrets in the namespace linkerd"),
        c if c == &table::CLOCK => {
            edit(api, "Node", "", "n1", |node| {
                let condition = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"});
                node["status"] = json!({"conditions": [condition]});
            });
            (What::Pre, Duration::ZERO, "the clock of node n1 and this machine's")
        }
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
        c if c == &table::RUN_AS_ROOT => {
            edit(api, "Node", "", "n1", |node| {
                let mut info = json!({"containerRuntimeVersion": "docker://20.10.0"});
                for other in [
                    "architecture",
                    "bootID",
                    "kernelVersion",
                    "kubeProxyVersion",
                    "kubeletVersion",
                    "machineID",
                    "operatingSystem",
                    "osImage",
                    "systemUUID",
                ] {
                    info[other] = json!("");
                }
                node["status"] = json!({"nodeInfo": info});
            });
            usual("node n1 runs Docker")
        }
        c if c == &table::ANCHORS_ALGORITHM => {
            edit(api, "ConfigMap", "linkerd", "linkerd-identity-trust-roots", |map| {
                map["data"]["ca-bundle.crt"] = json!(p384().0);
            });
            usual("the ConfigMap linkerd-identity-trust-roots")
        }
        c if c == &table::ISSUER_ALGORITHM => {
            edit(api, "Secret", "linkerd", "linkerd-identity-issuer", |secret| {
                let (certificate, key) = p384();
                secret["data"]["crt.pem"] = json!(ByteString(certificate.into_bytes()));
                secret["data"]["key.pem"] = json!(ByteString(key.into_bytes()));
            });
            usual("is not signed with ECDSA or RSA and SHA-256")
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
        c if c == &table::TRUSTED => {
            edit(api, "Pod", "shop", "web-1", |pod| {
                pod["spec"]["initContainers"][0]["env"] =
                    json!([{"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": material(true).anchors_pem}]);
            });
            usual("the proxy of pod shop/web-1 trusts other roots")
        }
        c if c == &table::PROXIES_VERSION => {
            edit(api, "Pod", "linkerd", "identity", |pod| {
                pod["metadata"]["annotations"] = json!({"linkerd.io/proxy-version": "v0"});
            });
            usual("the proxy of pod linkerd/identity is v0, not v1")
        }
        c if c == &table::DATA_VERSION => {
            edit(api, "Pod", "shop", "web-1", |pod| {
                pod["metadata"]["annotations"] = json!({"linkerd.io/proxy-version": "v0"});
            });
            usual("the proxy of pod shop/web-1 is v0, not v1")
        }
        c if c == &table::POD_LABELS => {
            edit(api, "Pod", "shop", "web-1", |pod| pod["metadata"]["labels"]["linkerd.io/inject"] = json!("enabled"));
            usual("pod shop/web-1 has the label linkerd.io/inject")
        }
        c if c == &table::SERVICE_LABELS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["labels"] = json!({"config.linkerd.io/opaque-ports": "80"});
            });
            usual("Service shop/web has the label config.linkerd.io/opaque-ports")
        }
        c if c == &table::SERVICE_ANNOTATIONS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["annotations"] = json!({"mirror.linkerd.io/exported": "true"});
            });
            usual("Service shop/web has the annotation mirror.linkerd.io/exported")
        }
        c if c == &table::OPAQUE_PORTS => {
            edit(api, "Service", "shop", "web", |service| {
                service["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "db"});
            });
            usual(
                "port 80 of Service shop/web is opaque, and port 8080 of pod shop/web-1, which it leads to, is not opaque",
            )
        }
        c if c == &table::SEVERAL => {
            edit(api, "ConfigMap", "linkerd", "linkerd-config", |map| {
                map["data"]["values"] = json!("linkerdVersion: v1\nhighAvailability: true\n");
            });
            usual("of the Deployment linkerd-destination 0 replicas are available")
        }
        c if c == &table::EXTENSIONS => {
            for name in ["viz", "viz-2"] {
                api.put(
                    json!({"kind": "Namespace", "metadata": {"name": name, "labels": {"linkerd.io/extension": "viz"}}}),
                );
            }
            usual("the namespaces viz, viz-2 have the extension viz")
        }
        c if c == &table::INJECTOR_SOON || c == &table::PROFILES_SOON || c == &table::POLICIES_SOON => {
            later(310, "days more")
        }
        c if c == &table::PROFILES || c == &table::POLICIES => {
            let name = if c == &table::PROFILES { "linkerd-sp-validator" } else { "linkerd-policy-validator" };
            edit(api, "ValidatingWebhookConfiguration", "", &format!("{name}-webhook-config"), |config| {
                config["webhooks"][0]["clientConfig"]["caBundle"] = json!("");
            });
            usual("does not vouch for the Secret linkerd-")
        }
        c if c == &table::VALIDATING => {
            api.delete("ValidatingWebhookConfiguration", "", "linkerd-policy-validator-webhook-config");
            usual("there is no ValidatingWebhookConfiguration linkerd-policy-validator-webhook-config")
        }
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
        c if c == &table::SERVERS => {
            api.delete("Server", "linkerd", "linkerd-identity-grpc");
            usual("there is no Server linkerd-identity-grpc")
        }
        c if c == &table::SERVER_AUTHORIZATIONS => {
            api.delete("ServerAuthorization", "linkerd", "linkerd-identity-grpc");
            usual("there is no ServerAuthorization linkerd-identity-grpc")
        }
        c if c == &table::QUARANTINED => {
            api.put(json!({"kind": "Server", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"podSelector": {}, "port": 0}}));
            usual("Server shop/web: spec.port: it is no port; use 1 to 65535")
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
    for check in ALL.iter().chain(LOCAL) {
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
    text += "\n## What Linkerd's has besides\n\n\
        | Linkerd's | why it is not here |\n|---|---|\n\
        | can create CronJobs; the heartbeat's ServiceAccount | weft never calls out: there is no heartbeat |\n\
        | can read extension-apiserver-authentication configmap | nothing of weft is an aggregated API server |\n\
        | linkerd-version; control plane and proxies are up-to-date | weft asks nobody for the newest version; versions are compared with this \
        command's |\n\
        | linkerd-cni-plugin | there is no CNI plugin: `cniEnabled` is refused by name |\n\
        | extensions' own checks (`linkerd-NAME check` of PATH) | weft has no extensions that are programs of their own |\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/check.md");
    if std::env::var_os("WEFT_UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "set WEFT_UPDATE=1 to write it anew");
}
