//! Against the fake API server, which does whatever it is told.

use crate::{
    broken::{broken, edit},
    world::{Api, DAY, around, assert_command, failed, installed, material, options, pod},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    k8s::ByteString,
    kubernetes::{Client, Error, connect},
};
use weft_control::check::{ALL, LOCAL, Options, Outcome, Report, Severity, Told, What, run, table};
use weft_testkit::api_server::{Failure, FakeApi};

impl Api for FakeApi {
    fn put(&self, object: Value) {
        FakeApi::put(self, object);
    }

    fn delete(&self, kind: &str, namespace: &str, name: &str) {
        FakeApi::delete(self, kind, namespace, name);
    }

    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        FakeApi::get(self, kind, namespace, name)
    }

    fn forbid(&self, plural: &str) {
        FakeApi::forbid(self, plural);
    }

    fn goes(&self) {
        self.fail(Some(Failure::Close));
    }

    fn ages(&self) {
        self.release("v1.30.9");
    }
}

async fn world() -> FakeApi {
    let api = FakeApi::start().await.unwrap();
    for mut object in installed() {
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
    around().into_iter().for_each(|object| api.put(object));
    api
}

async fn client(api: &FakeApi) -> Result<Client, Error> {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("weft-checked-{}-{count}", std::process::id()));
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let client = connect(Some(&path)).await;
    std::fs::remove_file(&path).unwrap();
    client
}

async fn asked(api: &FakeApi, what: What, later: Duration) -> Report {
    run(client(api).await, &options(what), SystemTime::now() + later, &mut |_| {}).await
}

#[tokio::test]
async fn a_mesh_in_order_has_no_line_that_fails() {
    let api = world().await;
    let report = asked(&api, What::DataPlane(Some("shop".to_owned())), Duration::ZERO).await;
    assert_eq!(failed(&report), []);
    let lines: Vec<_> = report.0.iter().map(|line| line.check).collect();
    let elsewhere = [
        &table::NO_MESH,
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
    api.delete("ConfigMap", "linkerd", "linkerd-config");
    let before = api.all("ClusterRole");
    assert_eq!(failed(&asked(&api, What::Pre, Duration::ZERO).await), []);
    assert_eq!(api.all("ClusterRole"), before, "nothing is created");
    assert_eq!(api.all("Namespace").len(), 1);
}

/// A Service whose endpoints are in other clusters has none here, and is named.
#[tokio::test]
async fn a_service_of_other_clusters_is_named() {
    let api = world().await;
    let by = "multicluster.linkerd.io/remote-discovery";
    for (metadata, field) in [
        (json!({"annotations": {by: "far@east"}}), "annotations"),
        (json!({"labels": {by: "east"}}), "labels"),
        (json!({"annotations": {"multicluster.linkerd.io/local-discovery": "far"}}), "annotations"),
    ] {
        let mut service = json!({"kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}});
        (service["metadata"]["name"], service["metadata"]["namespace"]) = (json!("far"), json!("shop"));
        api.put(service);
        let report = asked(&api, What::DataPlane(None), Duration::ZERO).await;
        let line = report.0.iter().find(|line| line.check == &table::QUARANTINED).unwrap();
        let says = format!("Service shop/far: metadata.{field}[multicluster.linkerd.io/");
        assert!(line.error.as_ref().is_some_and(|error| error.contains(&says)), "{line:?}");
    }
    api.delete("Service", "shop", "far");
    assert_eq!(failed(&asked(&api, What::DataPlane(None), Duration::ZERO).await), []);
}

/// A policy that names what is not there lets nobody in, and is named with it.
#[tokio::test]
async fn a_policy_that_names_what_is_not_there_is_named() {
    let api = world().await;
    let targets = |group: &str, kind: &str, name: &str| {
        let required = json!([{"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "gone"}]);
        let target = json!({"group": group, "kind": kind, "name": name});
        let spec = json!({"targetRef": target, "requiredAuthenticationRefs": required});
        api.put(json!({"kind": "AuthorizationPolicy", "metadata": {"name": "all", "namespace": "shop"}, "spec": spec}));
    };
    targets("policy.linkerd.io", "Server", "web");
    for absent in ["Server shop/web", "MeshTLSAuthentication shop/gone"] {
        let report = asked(&api, What::ControlPlane, Duration::ZERO).await;
        let line = report.0.iter().find(|line| line.check == &table::QUARANTINED).unwrap();
        let says = format!("AuthorizationPolicy shop/all: {absent}, which it names, is not there");
        assert!(line.error.as_ref().is_some_and(|error| error.contains(&says)), "{line:?}");
        let kind = absent.split_once(' ').unwrap().0;
        let (name, spec) = match kind {
            "Server" => ("web", json!({"podSelector": {}, "port": 80})),
            _ => ("gone", json!({"identities": ["*"]})),
        };
        api.put(json!({"kind": kind, "metadata": {"name": name, "namespace": "shop"}, "spec": spec}));
    }
    assert_eq!(failed(&asked(&api, What::ControlPlane, Duration::ZERO).await), []);
    // A route of a gateway's is there, whoever carries it out.
    let group = "gateway.networking.k8s.io";
    targets(group, "HTTPRoute", "ingress");
    let report = asked(&api, What::ControlPlane, Duration::ZERO).await;
    assert!(failed(&report)[0].1.contains("HTTPRoute shop/ingress, which it names, is not there"), "{report:?}");
    api.put(json!({"apiVersion": format!("{group}/v1"), "kind": "HTTPRoute", "metadata": {"name": "ingress", "namespace": "shop"},
        "spec": {"parentRefs": [{"name": "ingress"}], "hostnames": ["shop.example.com"]}}));
    assert_eq!(failed(&asked(&api, What::ControlPlane, Duration::ZERO).await), []);
}

/// Nothing that is recommended takes a mesh away.
#[tokio::test]
async fn before_an_installation_a_mesh_is_carried_on_and_a_mere_namespace_is_not_deleted() {
    let api = world().await;
    let lines = async || {
        let report = asked(&api, What::Pre, Duration::ZERO).await;
        let of_place = [&table::NO_MESH, &table::FREE];
        let lines = report.0.into_iter().filter(|line| of_place.contains(&line.check));
        lines.map(|line| (line.check, line.error.is_none())).collect::<Vec<_>>()
    };
    assert_eq!(lines().await, [(&table::NO_MESH, false)], "of the namespace nothing is asked");
    // Linkerd's is one too, wherever it is.
    api.delete("ConfigMap", "linkerd", "linkerd-config");
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "mesh"}}));
    assert_eq!(lines().await, [(&table::NO_MESH, false)]);
    api.delete("ConfigMap", "mesh", "linkerd-config");
    assert_eq!(lines().await, [(&table::NO_MESH, true), (&table::FREE, false)]);
    // By whoever has installed it, and what another one's is said to be nobody's any more.
    let remedy = async || {
        let report = asked(&api, What::Pre, Duration::ZERO).await;
        report.0.into_iter().find(|line| line.check == &table::NO_MESH).unwrap().remedy
    };
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "mesh"}}));
    let upgrades = "weft upgrade -L mesh --crds | kubectl apply -f - && weft upgrade -L mesh | kubectl apply -f -";
    assert_eq!(remedy().await, upgrades);
    let helms = json!({"meta.helm.sh/release-name": "lcp", "meta.helm.sh/release-namespace": "mesh"});
    api.put(
        json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "mesh", "annotations": helms}}),
    );
    assert!(
        remedy().await.contains(" && helm upgrade lcp charts/linkerd-control-plane -n mesh "),
        "{}",
        remedy().await
    );
    api.delete("ConfigMap", "mesh", "linkerd-config");
    edit(&api, "ClusterRole", "", "linkerd-policy", |role| {
        role["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": "mesh"});
    });
    let command = "kubectl label ClusterRole linkerd-policy linkerd.io/control-plane-ns=linkerd --overwrite";
    assert_eq!(remedy().await, command);
    ALL.iter().for_each(|check| assert_command(&check.remedy.documented().0));
    let all = ALL.iter().chain(LOCAL).map(|check| check.remedy.documented().0);
    assert_eq!(all.filter(|remedy| remedy.contains("uninstall") || remedy.contains("delete -f")).count(), 0);
}

/// `weft install` is refused in a cluster that has a control plane, its first half too.
#[tokio::test]
async fn where_a_mesh_is_installed_its_definitions_are_made_anew() {
    let api = world().await;
    api.delete("CustomResourceDefinition", "", "servers.policy.linkerd.io");
    let told = async |namespace: &str| {
        let options = Options { namespace: namespace.to_owned(), ..options(What::Crds) };
        let report = run(client(&api).await, &options, SystemTime::now(), &mut |_| {}).await;
        let line = report.0.into_iter().find(|line| line.check == &table::DEFINED).unwrap();
        let why = line.error.unwrap();
        assert!(why.starts_with("the definition servers.policy.linkerd.io of version "), "{why}");
        assert!(!why.contains("weft install"), "{why}");
        (why, line.remedy)
    };
    // Whichever namespace is asked for.
    for namespace in ["linkerd", "nowhere"] {
        assert_eq!(told(namespace).await.1, "weft upgrade --crds | kubectl apply -f -");
    }
    let config = |annotations: Value| {
        let metadata = json!({"name": "linkerd-config", "namespace": "mesh", "annotations": annotations});
        json!({"kind": "ConfigMap", "metadata": metadata})
    };
    api.delete("ConfigMap", "linkerd", "linkerd-config");
    api.put(config(json!({})));
    assert_eq!(told("linkerd").await.1, "weft upgrade --crds -L mesh | kubectl apply -f -");
    api.put(config(json!({"meta.helm.sh/release-name": "lcp", "meta.helm.sh/release-namespace": "mesh"})));
    assert!(told("linkerd").await.1.starts_with("helm upgrade --install linkerd-crds charts/linkerd-crds -n mesh "));
    api.delete("ConfigMap", "mesh", "linkerd-config");
    let installs = "weft install --crds -L linkerd | kubectl apply -f -";
    assert_eq!(told("linkerd").await.1, installs);
    edit(&api, "ClusterRole", "", "linkerd-policy", |role| {
        role["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": "mesh"});
    });
    let taken = "kubectl label ClusterRole linkerd-policy linkerd.io/control-plane-ns=linkerd --overwrite";
    assert_eq!(told("linkerd").await.1, format!("{taken} && {installs}"));
    api.fail(Some(Failure::At("/api/v1/configmaps", 403)));
    let (why, remedy) = told("linkerd").await;
    assert!(why.contains("; whether a control plane is installed is not known: ") && why.contains("(403)"), "{why}");
    assert!(remedy.starts_with("kubectl auth can-i --list"), "{remedy}");
}

#[tokio::test]
async fn a_namespace_without_a_control_plane_is_told_with_the_one_that_has_it() {
    let api = world().await;
    let told = async || {
        let options = Options { namespace: "nowhere".to_owned(), ..options(What::ControlPlane) };
        let report = run(client(&api).await, &options, SystemTime::now(), &mut |_| {}).await;
        let line = report.0.into_iter().next_back().unwrap();
        assert_eq!(line.check, &table::VALUES);
        let why = line.error.unwrap();
        assert!(why.starts_with("there is no ConfigMap linkerd-config in the namespace nowhere"), "{why}");
        (why, line.remedy)
    };
    assert_eq!(told().await.1, "weft check -L linkerd, where a control plane is");
    api.fail(Some(Failure::At("/api/v1/configmaps", 403)));
    let (why, remedy) = told().await;
    assert!(why.contains("; whether a control plane is installed is not known: ") && why.contains("(403)"), "{why}");
    assert!(remedy.starts_with("kubectl auth can-i --list"), "{remedy}");
    api.fail(None);
    api.delete("ConfigMap", "linkerd", "linkerd-config");
    let installs =
        "weft install -L nowhere --crds | kubectl apply -f - && weft install -L nowhere | kubectl apply -f -";
    let (_, remedy) = told().await;
    // What the one that has gone has left is taken over first.
    assert!(remedy.starts_with("kubectl label ") && remedy.ends_with(&format!(" && {installs}")), "{remedy}");
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "Namespace",
    ] {
        for object in api.all(kind) {
            let name = object["metadata"]["name"].as_str().unwrap();
            if !name.ends_with("gateway.networking.k8s.io") {
                api.delete(kind, "", name);
            }
        }
    }
    assert_eq!(told().await.1, installs);
}

/// Whatever somebody has written, it is one word of the command.
#[tokio::test]
async fn what_a_shell_would_read_is_quoted() {
    let api = world().await;
    let exported = "mirror.linkerd.io/exported";
    for (value, word) in [
        ("true", format!("{exported}=true")),
        ("$(reboot)", format!("'{exported}=$(reboot)'")),
        ("it's; reboot", format!(r"'{exported}=it'\''s; reboot'")),
    ] {
        edit(&api, "Service", "shop", "web", |service| service["metadata"]["annotations"] = json!({exported: value}));
        let report = asked(&api, What::DataPlane(None), Duration::ZERO).await;
        let line = report.0.into_iter().find(|line| line.check == &table::SERVICE_ANNOTATIONS).unwrap();
        assert!(line.remedy.contains(&format!(" --overwrite service web {word} && ")), "{}", line.remedy);
    }
}

/// Nobody else sees that pods come without a proxy.
#[tokio::test]
async fn what_a_webhook_is_asked_otherwise_is_told() {
    let told = async |change: fn(&mut Value)| {
        let api = world().await;
        edit(&api, "MutatingWebhookConfiguration", "", "linkerd-proxy-injector-webhook-config", |config| {
            change(&mut config["webhooks"][0]);
        });
        let report = asked(&api, What::ControlPlane, Duration::ZERO).await;
        report.0.into_iter().find(|line| line.check == &table::CONFIGURED).unwrap().error.unwrap_or_default()
    };
    let same = [
        told(|hook| hook["rules"][0]["resources"] = json!(["services", "pods"])).await,
        told(|hook| hook["clientConfig"]["service"]["port"] = json!(443)).await,
        // Clouds do that.
        told(|hook| hook["namespaceSelector"]["matchLabels"]["of"] = json!("others")).await,
    ];
    assert_eq!(same, [""; 3]);
    for (told, says) in [
        (told(|hook| hook["rules"] = json!([])).await, "has no rule for CREATE of pods,services (core/v1, scope "),
        (told(|hook| hook["rules"][0]["operations"] = json!(["UPDATE"])).await, "; the Mutating"),
        (told(|hook| hook["rules"][0]["scope"] = json!("Cluster")).await, "has a rule for CREATE of pods,services ("),
        (
            told(|hook| hook["namespaceSelector"] = json!({"matchLabels": {"of": "others"}})).await,
            "has a namespaceSelector without nobody=asks",
        ),
        (told(|hook| hook["name"] = json!("other")).await, "has no webhook linkerd-proxy-injector.linkerd.io"),
        (
            told(|hook| hook["clientConfig"]["service"]["name"] = json!("other")).await,
            "asks the Service linkerd/other at port 443 for /, not the Service linkerd/linkerd-proxy-injector at port 443 for /",
        ),
        (
            told(|hook| hook["clientConfig"]["service"] = json!(null)).await,
            "asks no Service, not the Service linkerd/linkerd-proxy-injector",
        ),
    ] {
        assert!(told.contains(says), "{told}");
    }
}

#[tokio::test]
async fn every_line_fails_with_its_cause() {
    let mut told = String::new();
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
        let remedy = &report.0[at].remedy;
        assert!(
            !remedy.is_empty()
                && !["NAMESPACE", "KIND", "NETWORK", "{namespace}"].iter().any(|raw| remedy.contains(raw)),
            "{remedy}"
        );
        assert_command(remedy);
        told += &format!("{}\n    {remedy}\n", check.description);
        let is_warning = report.0[at].result() == Outcome::Warning;
        assert_eq!(is_warning, check.severity == Severity::Warning);
    }
    insta::assert_snapshot!("remedies", told);
    let none = Err(Error::NoCluster("no file".to_owned()));
    let report = run(none, &options(What::Pre), SystemTime::now(), &mut |_| {}).await;
    assert_eq!(failed(&report).len(), 1);
    assert!(!report.is_success() && failed(&report)[0].1.contains("no file"));
}

/// `weft upgrade` refuses an installation of Helm's.
#[tokio::test]
async fn what_helm_has_installed_is_mended_by_helm() {
    for check in ALL.iter().filter(|check| check.remedy.documented().1.is_some()) {
        let api = world().await;
        edit(&api, "ConfigMap", "linkerd", "linkerd-config", |map| {
            map["metadata"]["annotations"] = json!({"meta.helm.sh/release-name": "lcp"});
        });
        edit(&api, "CustomResourceDefinition", "", "servers.policy.linkerd.io", |definition| {
            let release = json!({"meta.helm.sh/release-name": "kinds", "meta.helm.sh/release-namespace": "linkerd"});
            definition["metadata"]["annotations"] = release;
        });
        let (what, later, says) = broken(check, &api);
        let report = asked(&api, what, later).await;
        let line = report.0.iter().find(|line| line.check == *check).unwrap();
        assert!(line.error.as_ref().unwrap().contains(says), "{line:?}");
        let by_hand = [&table::ANCHORS, &table::REPLICAS];
        assert!(line.remedy.contains("helm upgrade ") || by_hand.contains(check), "{line:?}");
        assert!(!line.remedy.contains("weft upgrade"), "{line:?}");
        assert_command(&line.remedy);
    }
}

/// The namespace is enabled; what the pod says means nothing, and keeps it from a proxy.
#[tokio::test]
async fn a_pod_that_says_nonsense_of_its_proxy_is_named() {
    let api = world().await;
    for (name, value) in [("web-2", "true"), ("web-3", "disabled")] {
        let mut pod = pod(name, "shop", json!({}), false);
        pod["metadata"]["annotations"] = json!({"linkerd.io/inject": value});
        api.put(pod);
    }
    let report = asked(&api, What::DataPlane(None), Duration::ZERO).await;
    let line = report.0.iter().find(|line| line.check == &table::UNMESHED).unwrap();
    let why = "pod shop/web-2 has no proxy: its annotation linkerd.io/inject is none of enabled, ingress and disabled";
    assert_eq!(line.error.as_deref(), Some(why));
    assert_eq!(line.remedy, "kubectl -n shop edit pod/web-2");
}

#[tokio::test]
async fn a_container_of_the_proxys_name_is_no_proxy() {
    let api = world().await;
    api.put(pod("web-2", "shop", json!({}), true));
    api.put(pod("web-3", "shop", json!({"linkerd.io/control-plane-ns": "linkerd"}), true));
    let report = asked(&api, What::DataPlane(None), Duration::ZERO).await;
    let line = report.0.iter().find(|line| line.check == &table::UNMESHED).unwrap();
    let why = "pod shop/web-2 has a container linkerd-proxy that is not the mesh's, and so no proxy";
    assert_eq!(line.error.as_deref(), Some(why));
    assert_eq!(line.remedy, "kubectl -n shop edit pod/web-2");
}

/// What somebody else makes an upgrade makes anew as it is.
#[tokio::test]
async fn a_webhooks_certificate_is_mended_where_it_comes_from() {
    for (path, secret, now, soon) in [
        ("proxyInjector", "linkerd-proxy-injector-k8s-tls", &table::INJECTOR, &table::INJECTOR_SOON),
        ("profileValidator", "linkerd-sp-validator-k8s-tls", &table::PROFILES, &table::PROFILES_SOON),
        ("policyValidator", "linkerd-policy-validator-k8s-tls", &table::POLICIES, &table::POLICIES_SOON),
    ] {
        for given in [
            r#"externalSecret: true, caBundle: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----""#,
            "externalSecret: true, injectCaFrom: certs/webhook",
            "externalSecret: true, injectCaFromSecret: certs/webhook",
            r#"caBundle: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----""#,
        ] {
            for (check, of_bundle) in [(now, true), (now, false), (soon, false)] {
                let api = world().await;
                edit(&api, "ConfigMap", "linkerd", "linkerd-config", |map| {
                    map["data"]["values"] = json!(format!("linkerdVersion: v1\n{path}: {{{given}}}\n"));
                });
                let later = match check == soon || of_bundle {
                    true => broken(check, &api).1,
                    false => {
                        edit(&api, "Secret", "linkerd", secret, |secret| secret["data"] = json!({}));
                        Duration::ZERO
                    }
                };
                let report = asked(&api, What::ControlPlane, later).await;
                let line = report.0.iter().find(|line| line.check == check).unwrap();
                let remedy = &line.remedy;
                assert_command(remedy);
                let is_injected = given.contains("inject");
                let has = |parts: &[&str]| assert!(parts.iter().all(|part| remedy.contains(part)), "{given}: {remedy}");
                match (is_injected, of_bundle) {
                    (true, true) => has(&["kubectl -n certs describe ", " webhook, whose CA cert-manager writes"]),
                    (true, false) => has(&[&format!("create secret tls {secret} "), "certificates.cert-manager.io"]),
                    (false, _) => has(&["openssl req -x509 ", "-addext subjectAltName=DNS:linkerd-"]),
                }
                match given.contains("externalSecret") {
                    true if is_injected => {}
                    true => has(&[
                        &format!("--set-file {path}.caBundle=ca.crt | kubectl apply -f - && kubectl "),
                        &format!(" create secret tls {secret} --cert=tls.crt --key=tls.key, unless "),
                    ]),
                    false => has(&[&format!("--set-file {path}.caBundle=ca.crt --set-file {path}.crtPEM=tls.crt ")]),
                }
            }
        }
    }
}

/// Of certificates of identity that somebody else writes.
#[tokio::test]
async fn whoever_writes_certificates_is_told_what_to_write() {
    for (values, days, written) in [
        ("identity: {issuer: {scheme: kubernetes.io/tls}}", 0, ["secret generic", "--type=kubernetes.io/tls"]),
        ("identity: {issuer: {scheme: kubernetes.io/tls}}", 366, ["secret generic", "--from-file=tls.key=issuer.key"]),
        ("identity: {issuer: {scheme: kubernetes.io/tls}}", 3651, ["configmap", "--from-file=tls.key=issuer.key"]),
        ("identity: {externalCA: true}", 3651, ["configmap", "--from-file=key.pem=issuer.key"]),
    ] {
        let api = world().await;
        edit(&api, "ConfigMap", "linkerd", "linkerd-config", |map| {
            map["data"]["values"] = json!(format!("linkerdVersion: v1\n{values}\n"));
        });
        if days == 0 {
            edit(&api, "Secret", "linkerd", "linkerd-identity-issuer", |secret| secret["data"] = json!({}));
        }
        let report = asked(&api, What::ControlPlane, days * DAY).await;
        let line = report.0.last().unwrap();
        assert!([&table::ANCHORS, &table::ANCHORS_NOW, &table::ISSUER_NOW].contains(&line.check), "{line:?}");
        assert_command(&line.remedy);
        // A Secret's type never changes, and whoever is there may be of another.
        let anew = "kubectl -n linkerd delete secret linkerd-identity-issuer --ignore-not-found && kubectl -n linkerd create secret generic";
        assert!(line.remedy.contains(anew), "{}", line.remedy);
        assert!(written.iter().all(|part| line.remedy.contains(part)), "{}", line.remedy);
    }
}

/// What the root signs is made by who has its key; who has lost the root takes another at once.
#[tokio::test]
async fn what_is_lost_of_identity_has_a_way_for_who_has_nothing() {
    let anew = "; where nobody has that: openssl req ";
    let remedy = async |api: &FakeApi, why: &str| {
        let report = asked(api, What::ControlPlane, Duration::ZERO).await;
        let line = report.0.last().unwrap();
        assert_eq!((line.check, line.error.as_deref()), (&table::ANCHORS, Some(why)));
        line.remedy.split("; where nobody has that: ").for_each(assert_command);
        line.remedy.clone()
    };
    for lost in [None, Some("key.pem")] {
        let api = world().await;
        let why = match lost {
            None => {
                api.delete("Secret", "linkerd", "linkerd-identity-issuer");
                "there is no Secret linkerd-identity-issuer".to_owned()
            }
            Some(part) => {
                edit(&api, "Secret", "linkerd", "linkerd-identity-issuer", |secret| {
                    secret["data"].as_object_mut().unwrap().remove(part);
                });
                format!("the Secret linkerd-identity-issuer has no key {part}")
            }
        };
        let told = remedy(&api, &why).await;
        assert!(told.starts_with("openssl req -x509 -CA root.crt -CAkey root.key ") && told.contains(anew), "{told}");
        assert!(told.contains("weft upgrade --force --identity-trust-anchors-file root.crt "), "{told}");
    }
    let api = world().await;
    api.delete("ConfigMap", "linkerd", "linkerd-identity-trust-roots");
    let why = "there is no ConfigMap linkerd-identity-trust-roots";
    let told = remedy(&api, why).await;
    assert!(told.starts_with("kubectl -n linkerd create configmap ") && told.contains(anew), "{told}");
    // Whom a proxy believes everybody did; one that believes others than sign now knows no better.
    for (other, says) in [(true, false), (false, true)] {
        edit(&api, "Pod", "shop", "web-1", |pod| {
            pod["spec"]["initContainers"][0]["env"] =
                json!([{"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": material(other).anchors_pem}]);
        });
        let told = remedy(&api, why).await;
        assert_eq!(
            told.starts_with("kubectl -n shop get pod web-1 -o 'jsonpath={.spec.initContainers"),
            says,
            "{told}"
        );
    }
}

#[tokio::test]
async fn who_asks_for_no_pods_is_told_how_to_ask_for_one() {
    let api = world().await;
    edit(&api, "Deployment", "linkerd", "linkerd-identity", |d| {
        d["spec"]["replicas"] = json!(0);
        d["status"] = json!({});
    });
    let report = asked(&api, What::ControlPlane, Duration::ZERO).await;
    let line = report.0.last().unwrap();
    let why = "the Deployment linkerd-identity asks for no pods";
    assert_eq!((line.check, line.error.as_deref()), (&table::REPLICAS, Some(why)));
    assert_eq!(line.remedy, "kubectl -n linkerd scale deployment linkerd-identity --replicas=1");
}

/// Nobody is ready without a certificate, and nothing behind this line is asked.
#[tokio::test]
async fn who_is_not_ready_for_want_of_a_certificate_is_told_so() {
    let api = world().await;
    edit(&api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({}));
    for (days, renewed) in [(0, false), (366, true)] {
        let report = asked(&api, What::ControlPlane, days * DAY).await;
        let line = report.0.last().unwrap();
        assert_eq!(line.check, &table::REPLICAS);
        let error = line.error.as_deref().unwrap();
        assert!(error.contains("of the Deployment linkerd-identity 0 of 1 replicas are ready"), "{error}");
        assert_eq!(error.starts_with("the Secret linkerd-identity-issuer (CN="), renewed, "{error}");
        assert_eq!(line.remedy.starts_with("openssl req "), renewed, "{}", line.remedy);
    }
}

#[tokio::test]
async fn what_may_come_true_is_waited_for() {
    let api = world().await;
    edit(&api, "Deployment", "linkerd", "linkerd-identity", |d| d["status"] = json!({}));
    let waiting = Options { wait: Duration::from_secs(60), ..options(What::ControlPlane) };
    let mut waited = BTreeSet::new();
    let client = client(&api).await;
    let report = run(client, &waiting, SystemTime::now(), &mut |told| {
        if let Told::Waiting(check, _) = told {
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
                    fatal one (×) ends the check. NAMESPACE, KIND, NAME, KEY, VALUE, NETWORK and LIST stand for those of what is wrong: `weft check` prints the \
                    command with them, for the namespace of the control plane and by who has installed it.\n"
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
        let (usual, of_helms) = check.remedy.documented();
        let of_helms = of_helms.map(|helm| format!("; of an installation of Helm's: `{helm}`")).unwrap_or_default();
        text += &format!(
            "\n<a id=\"{}\"></a>**{}** ({kind}{waits})\n\nTo mend it: `{usual}`{of_helms}\n",
            check.anchor, check.description
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
