//! What commands ask before they print anything.

use crate::lab::ApiServer;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::io::Write;
use weft_cluster::{
    Kind,
    install::{
        Author, By, NotReady, NotStored, Replaced, Source, Trusting, api_server_ports, crds, gateway_api,
        keep_gateway_api, left, proxy_versions, ready_for_control_plane, ready_for_crds, remains, stored, trusting,
        unclaimed, users,
    },
    kubernetes::Cluster,
    values::Values,
};
use weft_testkit::api_server::{Failure, FakeApi};

fn definition(name: &str, versions: &[&str]) -> Value {
    let (plural, group) = name.split_once('.').unwrap();
    let versions: Vec<Value> =
        versions.iter().map(|v| json!({"name": v, "served": *v != "unserved", "storage": true})).collect();
    json!({"kind": "CustomResourceDefinition", "metadata": {"name": name},
        "spec": {"group": group, "scope": "Namespaced", "versions": versions, "names": {"kind": "Some", "plural": plural}}})
}

async fn lab() -> (FakeApi, Cluster) {
    let api = FakeApi::start().await.unwrap();
    let cluster = Cluster::new(api.client().await);
    (api, cluster)
}

#[tokio::test]
async fn definitions_want_the_gateway_apis_and_no_control_plane() {
    let (api, cluster) = lab().await;
    let values = Values::default();
    let told = async || ready_for_crds(&cluster, &values, "linkerd").await.map_err(|e| e.to_string());
    let missing = told().await.unwrap_err();
    assert!(missing.contains("httproutes.gateway.networking.k8s.io is missing"), "{missing}");
    for remedy in ["kubectl apply --server-side -f https://", "--set installGatewayAPI=true"] {
        assert!(missing.contains(remedy), "{missing}");
    }
    api.put(definition("httproutes.gateway.networking.k8s.io", &["v1", "v1beta1"]));
    api.put(definition("grpcroutes.gateway.networking.k8s.io", &["v1alpha2"]));
    let old = told().await.unwrap_err();
    assert!(old.contains("grpcroutes.gateway.networking.k8s.io does not serve the version v1"), "{old}");
    api.put(definition("grpcroutes.gateway.networking.k8s.io", &["v1"]));
    assert_eq!(told().await, Ok(()));
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"}}));
    assert!(told().await.unwrap_err().contains("installed in the namespace linkerd already"));
    let elsewhere = ready_for_crds(&cluster, &values, "other").await.unwrap_err().to_string();
    assert!(elsewhere.contains("installed in the namespace linkerd already"), "{elsewhere}");
    assert!(elsewhere.contains("`weft upgrade -L linkerd | kubectl apply -f -`"), "{elsewhere}");
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "other"}}));
    let own = ready_for_crds(&cluster, &values, "other").await.unwrap_err().to_string();
    assert!(own.contains("installed in the namespace other already"), "the one that is meant: {own}");
    api.fail(Some(Failure::Status(503)));
    assert!(
        matches!(ready_for_crds(&cluster, &values, "other").await, Err(NotReady::Cluster(_))),
        "who cannot be asked is not ready"
    );
}

/// What stands in a cluster and is not weft's is left alone; what is, goes on.
#[tokio::test]
async fn definitions_of_the_gateway_api_are_brought_where_nobody_has_brought_them() {
    let (api, cluster) = lab().await;
    let values = |given: Value| Values::from_layers([given]).unwrap();
    let asked = values(json!({"installGatewayAPI": true}));
    let route = |plural: &str| format!("{plural}.gateway.networking.k8s.io");
    let told = async |values: &Values| ready_for_crds(&cluster, values, "linkerd").await.map_err(|e| e.to_string());
    let kept = async || {
        let mut values = Values::default();
        keep_gateway_api(&cluster, &mut values).await.unwrap();
        [values.enable_http_routes, values.enable_tcp_routes, values.enable_tls_routes]
    };
    assert_eq!(told(&asked).await, Ok(()), "nobody has");
    assert_eq!(kept().await, [None; 3]);
    // One is left out, and missed.
    let without = values(json!({"installGatewayAPI": true, "enableHttpRoutes": false}));
    assert!(told(&without).await.unwrap_err().contains("httproutes.gateway.networking.k8s.io is missing"));

    let channel = |channel: &str| json!({"gateway.networking.k8s.io/channel": channel});
    let mut linkerds = channel("experimental");
    linkerds["linkerd.io/created-by"] = json!("linkerd/cli edge-25.9.4");
    for annotations in [json!({}), channel("standard"), linkerds] {
        for plural in ["httproutes", "grpcroutes"] {
            let mut of_others = definition(&route(plural), &["v1"]);
            of_others["metadata"]["annotations"] = annotations.clone();
            api.put(of_others);
        }
        let refused = told(&asked).await.unwrap_err();
        let named = "definitions grpcroutes.gateway.networking.k8s.io, httproutes.gateway.networking.k8s.io stand in the cluster already";
        assert!(refused.contains(named), "{annotations}: {refused}");
        assert!(refused.ends_with("by --set enableHttpRoutes=false"), "{refused}");
        assert_eq!(told(&without).await, Ok(()), "the remedy");
        assert!(gateway_api(&cluster, &asked).await.is_err(), "of an upgrade");
        assert_eq!(kept().await, [None; 3], "{annotations}");
    }
    let of_routes = |definition: &Value| definition["spec"]["group"] == "gateway.networking.k8s.io";
    for brought in crds(&asked, "linkerd", By::Cli).into_iter().filter(of_routes) {
        api.put(brought);
    }
    assert_eq!(told(&asked).await, Ok(()), "they are weft's own");
    assert_eq!(kept().await, [Some(true); 3]);
    let mut said = values(json!({"enableTcpRoutes": false}));
    keep_gateway_api(&cluster, &mut said).await.unwrap();
    assert_eq!((said.enable_tcp_routes, said.enable_tls_routes), (Some(false), Some(true)), "what is said holds");
    // And they bear its label: nothing is taken from another control plane, and all of them go with their own.
    let elsewhere = ready_for_crds(&cluster, &asked, "other").await.unwrap_err().to_string();
    assert!(elsewhere.contains("httproutes.gateway.networking.k8s.io"), "{elsewhere}");
    let goes = remains(&cluster, "linkerd").await.unwrap().objects;
    let is_route = |object: &&Value| object["metadata"]["name"].as_str().unwrap().ends_with(&route("")[1..]);
    assert_eq!(goes.iter().filter(is_route).count(), 4);
    let own = left(&cluster, "linkerd", &crds(&asked, "linkerd", By::Cli)).await.unwrap();
    assert!(own.definitions.is_empty(), "{own:?}");
}

/// As an installation labels it.
fn of(namespace: &str, mut object: Value) -> Value {
    object["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": namespace});
    object
}

#[tokio::test]
async fn nothing_of_another_control_plane_is_taken_from_it() {
    let (api, cluster) = lab().await;
    for name in ["httproutes", "grpcroutes"] {
        api.put(definition(&format!("{name}.gateway.networking.k8s.io"), &["v1"]));
    }
    defined(&api);
    let webhook = "linkerd-proxy-injector-webhook-config";
    for (object, told) in [
        (definition("servers.policy.linkerd.io", &["v1beta3"]), "CustomResourceDefinition servers.policy.linkerd.io"),
        (
            json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": webhook}}),
            "MutatingWebhookConfiguration linkerd-proxy-injector-webhook-config",
        ),
        (json!({"kind": "ClusterRole", "metadata": {"name": "linkerd-policy"}}), "ClusterRole linkerd-policy"),
    ] {
        let values = Values::default();
        let (kind, name) = (object["kind"].clone(), object["metadata"]["name"].clone());
        api.put(of("linkerd", object));
        for refused in [
            ready_for_crds(&cluster, &values, "weft").await.unwrap_err().to_string(),
            ready_for_control_plane(&cluster, &values, "weft").await.unwrap_err().to_string(),
        ] {
            assert!(refused.starts_with(&format!("the {told} belongs to a control plane in the namespace linkerd")));
            let label = format!("`kubectl label {told} linkerd.io/control-plane-ns=weft --overwrite`");
            assert!(refused.contains(&label), "{refused}");
        }
        // Nor by an upgrade of another one.
        let rendered = crds(&values, "weft", By::Cli);
        let is_definition = kind == "CustomResourceDefinition";
        assert_eq!(unclaimed(&cluster, "weft", &rendered).await.is_err(), is_definition);
        ready_for_crds(&cluster, &values, "linkerd").await.unwrap();
        api.delete(kind.as_str().unwrap(), "", name.as_str().unwrap());
        defined(&api);
    }
    // All of them at once.
    for name in ["servers", "httproutes"] {
        api.put(of("linkerd", definition(&format!("{name}.policy.linkerd.io"), &["v1beta3"])));
    }
    api.put(of("linkerd", json!({"kind": "ClusterRole", "metadata": {"name": "linkerd-policy"}})));
    let refused = ready_for_crds(&cluster, &Values::default(), "weft").await.unwrap_err();
    let commands = "kubectl label ClusterRole linkerd-policy linkerd.io/control-plane-ns=weft --overwrite && \
                    kubectl label CustomResourceDefinition httproutes.policy.linkerd.io servers.policy.linkerd.io \
                    linkerd.io/control-plane-ns=weft --overwrite";
    assert_eq!(refused.remedy().as_deref(), Some(commands));
    api.delete("ClusterRole", "", "linkerd-policy");
    defined(&api);
    // An extension has webhooks of its own.
    api.put(of(
        "linkerd",
        json!({"kind": "MutatingWebhookConfiguration", "metadata": {"name": "linkerd-tap-injector-webhook-config"}}),
    ));
    ready_for_crds(&cluster, &Values::default(), "weft").await.unwrap();
}

#[tokio::test]
async fn who_is_taken_away_takes_nothing_of_another_and_nobody_who_is_meshed() {
    let (api, cluster) = lab().await;
    let pod = |namespace: &str, name: &str, of: &str| {
        json!({"kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"linkerd.io/control-plane-ns": of}},
            "spec": {"containers": [{"name": "app"}, {"name": "linkerd-proxy"}]}, "status": {"phase": "Running"}})
    };
    let config =
        |namespace: &str| json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": namespace}});
    let role = |name: &str| json!({"kind": "ClusterRole", "metadata": {"name": name}});
    api.put(config("weft"));
    api.put(pod("weft", "identity", "weft"));
    api.put(of("weft", role("linkerd-weft-identity")));
    api.put(of("weft", definition("servers.policy.linkerd.io", &["v1beta3"])));
    assert!(users(&cluster, "weft").await.unwrap().is_empty());
    let kinds = async || {
        let found = remains(&cluster, "weft").await.unwrap();
        let kinds: Vec<String> = found.objects.iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect();
        (kinds, found.others)
    };
    let expected = ["ClusterRole".to_owned(), "CustomResourceDefinition".to_owned()];
    assert_eq!(kinds().await, (expected.to_vec(), vec![]));

    api.put(pod("app", "web", "linkerd"));
    assert_eq!(users(&cluster, "weft").await.unwrap(), ["pod app/web"], "it lives by these definitions");
    api.put(config("linkerd"));
    api.put(of("linkerd", role("linkerd-linkerd-identity")));
    assert!(users(&cluster, "weft").await.unwrap().is_empty(), "the definitions stay, and the pod is another's");
    api.put(pod("app", "own", "weft"));
    assert_eq!(users(&cluster, "weft").await.unwrap(), ["pod app/own"]);
    assert_eq!(kinds().await, (vec!["ClusterRole".to_owned()], vec!["linkerd".to_owned()]));
}

/// All kinds of the mesh's own, in all versions.
fn defined(api: &FakeApi) {
    for wanted in crds(&Values::default(), "linkerd", By::Cli) {
        let versions = wanted["spec"]["versions"].as_array().unwrap();
        let names: Vec<&str> = versions.iter().map(|v| v["name"].as_str().unwrap()).collect();
        api.put(definition(wanted["metadata"]["name"].as_str().unwrap(), &names));
    }
}

#[tokio::test]
async fn a_kind_that_is_defined_is_waited_for_until_it_is_served() {
    let (api, cluster) = lab().await;
    defined(&api);
    api.define("Server", &[]);
    let is_looked_for = api.asked(|request| request.path == "/apis/policy.linkerd.io/v1beta3/servers");
    let serve = async {
        is_looked_for.await.unwrap();
        api.define("Server", &["v1beta3"]);
    };
    let values = Values::default();
    let (ready, ()) = tokio::join!(ready_for_control_plane(&cluster, &values, "linkerd"), serve);
    ready.unwrap();
}

#[tokio::test]
async fn a_control_plane_wants_every_version_of_every_kind() {
    let (api, cluster) = lab().await;
    let values = Values::default();
    let all = crds(&values, "linkerd", By::Cli);
    assert!(all.len() > 5);
    for definition in all.iter().rev() {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let missing = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
        assert!(missing.contains("is missing; run `weft install --crds | kubectl apply -f -` first"), "{missing}");
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let names: Vec<&str> = versions.iter().map(|v| v["name"].as_str().unwrap()).collect();
        api.put(self::definition(name, &names));
    }
    ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap();
    // Docker gives no capabilities of files to who is not root.
    let mut info = json!({"containerRuntimeVersion": "docker://27.0"});
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
    api.put(json!({"kind": "Node", "metadata": {"name": "n1"}, "status": {"nodeInfo": info}}));
    let told = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
    assert!(told.contains("Docker (n1)") && told.contains("--set proxyInit.runAsRoot=true"), "{told}");
    let as_root = Values::from_layers([json!({"proxyInit": {"runAsRoot": true}})]).unwrap();
    ready_for_control_plane(&cluster, &as_root, "linkerd").await.unwrap();
    api.delete("Node", "", "n1");
    let monitored = Values::from_layers([json!({"podMonitor": {"enabled": true}})]).unwrap();
    let missing = ready_for_control_plane(&cluster, &monitored, "linkerd").await.unwrap_err().to_string();
    assert!(
        missing.contains("podmonitors.monitoring.coreos.com is missing; install the Prometheus operator"),
        "{missing}"
    );
    api.put(self::definition("podmonitors.monitoring.coreos.com", &["v1alpha1"]));
    let old = ready_for_control_plane(&cluster, &monitored, "linkerd").await.unwrap_err().to_string();
    assert!(old.contains("does not serve the version v1"), "{old}");
    api.put(self::definition("podmonitors.monitoring.coreos.com", &["v1"]));
    ready_for_control_plane(&cluster, &monitored, "linkerd").await.unwrap();
    let object =
        |kind: &str| json!({"kind": kind, "metadata": {"name": "web", "namespace": "shop"}, "spec": {"port": 80}});
    let mut server = object("Server");
    server["spec"]["podSelector"] = json!({});
    api.put(server);
    ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap();
    api.put(object("Server"));
    let unheeded = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
    assert!(unheeded.contains("does not carry out (Server shop/web): "), "{unheeded}");
    api.delete("Server", "shop", "web");
    api.put(object("HTTPRoute"));
    let unheeded = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
    assert!(unheeded.contains("does not carry out (HTTPRoute.policy.linkerd.io shop/web): "), "{unheeded}");
    api.put(definition("servers.policy.linkerd.io", &["v1beta1", "unserved"]));
    let missing = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
    assert!(missing.contains("servers.policy.linkerd.io of version "), "{missing}");
}

/// An installation that has lost its configuration still has proxies that believe its anchors alone.
#[tokio::test]
async fn no_anchors_are_replaced_by_an_installation() {
    let (api, cluster) = lab().await;
    let values = Values::default();
    for definition in crds(&values, "linkerd", By::Cli) {
        let versions = definition["spec"]["versions"].as_array().unwrap();
        let names: Vec<&str> = versions.iter().map(|v| v["name"].as_str().unwrap()).collect();
        api.put(self::definition(definition["metadata"]["name"].as_str().unwrap(), &names));
    }
    let roots = |labels: Value| {
        json!({"kind": "ConfigMap", "data": {"ca-bundle.crt": "anchors\n"},
        "metadata": {"name": "linkerd-identity-trust-roots", "namespace": "linkerd", "labels": labels}})
    };
    api.put(roots(json!({})));
    ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap();
    api.put(roots(json!({"linkerd.io/control-plane-ns": "linkerd"})));
    let refused = async || ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err();
    let told = refused().await;
    let keeps = "weft install -L linkerd --identity-trust-anchors-file root.crt --identity-issuer-certificate-file issuer.crt \
                 --identity-issuer-key-file issuer.key | kubectl apply -f -";
    assert!(told.remedy().unwrap().ends_with(keeps), "{told}");
    let mut same = values.clone();
    same.identity_trust_anchors_pem = "anchors".into();
    ready_for_control_plane(&cluster, &same, "linkerd").await.unwrap();
    api.put(
        json!({"kind": "Secret", "metadata": {"name": "linkerd-config-overrides", "namespace": "linkerd"}, "data": {}}),
    );
    let told = refused().await;
    let upgrades =
        "weft upgrade -L linkerd --crds | kubectl apply -f - && weft upgrade -L linkerd | kubectl apply -f -";
    assert_eq!(told.remedy().unwrap(), upgrades);
    assert!(told.to_string().contains("`kubectl -n linkerd delete configmap linkerd-identity-trust-roots`"), "{told}");
}

#[tokio::test]
async fn the_ports_of_the_api_server_are_its_services_and_its_own() {
    let (api, cluster) = lab().await;
    assert_eq!(api_server_ports(&cluster).await.unwrap(), "443,6443");
    let ports = json!([{"name": "https", "port": 443, "targetPort": 16443}, {"port": 8443, "targetPort": "https"}]);
    api.put(json!({"kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"ports": ports}}));
    assert_eq!(api_server_ports(&cluster).await.unwrap(), "443,8443,16443");
}

#[tokio::test]
async fn only_left_overs_of_this_installation_are_pruned() {
    let (api, cluster) = lab().await;
    let object = |kind: &str, namespace: Option<&str>, name: &str| {
        let mut object =
            json!({"kind": kind, "metadata": {"name": name, "labels": {"linkerd.io/control-plane-ns": "linkerd"}}});
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object
    };
    let rendered = [object("Service", Some("linkerd"), "linkerd-dst"), object("ClusterRole", None, "linkerd-policy")];
    for object in &rendered {
        api.put(object.clone());
    }
    // What another installation, another namespace, somebody else or a controller has made, and what the mesh lives by.
    let mut others = object("ConfigMap", Some("linkerd"), "others");
    others["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": "mesh"});
    let mut unlabelled = object("ConfigMap", Some("linkerd"), "kube-root-ca.crt");
    unlabelled["metadata"]["labels"] = json!({});
    let mut owned = object("Secret", Some("linkerd"), "owned");
    owned["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "1"}]);
    for kept in [
        others,
        unlabelled,
        owned,
        object("Secret", Some("app"), "of-an-app"),
        object("Secret", Some("linkerd"), "linkerd-identity-issuer"),
        object("Secret", Some("linkerd"), "linkerd-proxy-injector-k8s-tls"),
        object("Secret", Some("linkerd"), "linkerd-sp-validator-k8s-tls"),
        object("Secret", Some("linkerd"), "linkerd-policy-validator-k8s-tls"),
        object("ConfigMap", Some("linkerd"), "linkerd-identity-trust-roots"),
        object("Pod", Some("linkerd"), "linkerd-destination-1"),
        object("Namespace", None, "linkerd"),
    ] {
        api.put(kept);
    }
    assert_eq!(left(&cluster, "linkerd", &rendered).await.unwrap(), Default::default());

    for old in [
        object("CronJob", Some("linkerd"), "linkerd-heartbeat"),
        object("ValidatingWebhookConfiguration", None, "linkerd-sp-validator-webhook-config"),
        object("Role", Some("kube-system"), "linkerd-auth-reader"),
        object("Secret", Some("linkerd"), "linkerd-tap-k8s-tls"),
    ] {
        api.put(old);
    }
    let mut old = definition("links.multicluster.linkerd.io", &["v1alpha3"]);
    old["metadata"]["labels"] = json!({"linkerd.io/control-plane-ns": "linkerd"});
    api.put(old);
    let found = left(&cluster, "linkerd", &rendered).await.unwrap();
    let names: Vec<String> =
        found.objects.iter().map(|o| format!("{} {} {}", o["apiVersion"], o["kind"], o["metadata"])).collect();
    let expected = [
        r#""admissionregistration.k8s.io/v1" "ValidatingWebhookConfiguration" {"name":"linkerd-sp-validator-webhook-config"}"#,
        r#""rbac.authorization.k8s.io/v1" "Role" {"name":"linkerd-auth-reader","namespace":"kube-system"}"#,
        r#""batch/v1" "CronJob" {"name":"linkerd-heartbeat","namespace":"linkerd"}"#,
        r#""v1" "Secret" {"name":"linkerd-tap-k8s-tls","namespace":"linkerd"}"#,
    ];
    assert_eq!(names, expected);
    assert_eq!(found.definitions, ["links.multicluster.linkerd.io"], "whose objects would go with it");
    api.fail(Some(Failure::Status(403)));
    assert!(left(&cluster, "linkerd", &rendered).await.is_err(), "who may not see all deletes nothing");
}

#[tokio::test]
async fn running_proxies_are_known_by_what_they_trust() {
    let (api, cluster) = lab().await;
    let pod = |name: &str, phase: &str, containers: Value| {
        json!({"kind": "Pod", "metadata": {"name": name, "namespace": "app", "labels": {"linkerd.io/control-plane-ns": "linkerd"}},
            "spec": {"containers": [{"name": "app"}], "initContainers": containers}, "status": {"phase": phase}})
    };
    let proxy = |variable: Value| json!([{"name": "linkerd-proxy", "env": [variable]}]);
    let trusts = |anchors: &str| proxy(json!({"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", "value": anchors}));
    let of_the_config_map = proxy(json!({"name": "LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS",
        "valueFrom": {"configMapKeyRef": {"name": "linkerd-identity-trust-roots", "key": "ca-bundle.crt"}}}));
    let mut first = pod("one", "Running", trusts("old"));
    first["metadata"]["annotations"] = json!({"linkerd.io/proxy-version": "v1"});
    api.put(first);
    api.put(pod("two", "Pending", trusts("old")));
    api.put(pod("three", "Running", trusts("new")));
    api.put(pod("own", "Running", of_the_config_map));
    api.put(pod("done", "Succeeded", trusts("older")));
    api.put(pod("unmeshed", "Running", json!([])));
    let proxies = |anchors: Option<&str>, pods: &[&str]| Trusting {
        anchors_pem: anchors.map(str::to_owned),
        pods: pods.iter().map(|pod| format!("app/{pod}")).collect(),
    };
    let expected = [proxies(None, &["own"]), proxies(Some("new"), &["three"]), proxies(Some("old"), &["one", "two"])];
    assert_eq!(trusting(&cluster, "linkerd").await.unwrap(), expected);
    let versions = proxy_versions(&cluster, "linkerd", None).await.unwrap();
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [("v1".to_owned(), 1)]);
    assert!(proxy_versions(&cluster, "linkerd", Some("other")).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_installation_is_read_from_the_cluster() {
    let (api, cluster) = lab().await;
    let read = async || stored(Source::Cluster(&cluster), "linkerd", Replaced::default()).await;
    let given =
        json!({"identityTrustAnchorsPEM": "anchors", "identity": {"issuer": {"tls": {"crtPEM": "c", "keyPEM": "k"}}}});
    let replaced = Replaced::by(&[given]);
    let read_replaced = async || stored(Source::Cluster(&cluster), "linkerd", replaced).await.unwrap();
    assert!(matches!(read().await, Err(NotStored::Nothing(_))));
    let put = |kind: &str, name: &str, data: Value| {
        api.put(json!({"kind": kind, "metadata": {"name": name, "namespace": "linkerd"}, "data": data}));
    };
    let bytes = |text: &str| json!(weft_cluster::k8s::ByteString(text.as_bytes().to_vec()));
    put("ConfigMap", "linkerd-config", json!({"values": "clusterDomain: example.org\n", "weft-version": "v1"}));
    put("ConfigMap", "linkerd-identity-trust-roots", json!({"ca-bundle.crt": "anchors"}));
    let told = read().await.unwrap_err().to_string();
    assert!(told.contains("the Secret linkerd-config-overrides of the namespace linkerd: it is not there"), "{told}");
    let overrides = bytes("clusterDomain: example.org\nlinkerdVersion: v1\n");
    put("Secret", "linkerd-config-overrides", json!({"linkerd-config-overrides": &overrides}));
    put("Secret", "linkerd-identity-issuer", json!({"tls.crt": bytes("certificate"), "tls.key": bytes("key")}));
    let found = read().await.unwrap();
    assert_eq!(found.given, json!({"clusterDomain": "example.org"}));
    assert_eq!((found.trust_domain.as_str(), found.anchors_pem.as_str()), ("example.org", "anchors"));
    assert_eq!(found.issuer.unwrap().key, "key", "of a Secret that somebody else makes");
    // Of an issuer nothing is made anew.
    put("Secret", "linkerd-identity-issuer", json!({"tls.crt": bytes("certificate")}));
    let told = read().await.unwrap_err().to_string();
    let named = "the key tls.key of the Secret linkerd-identity-issuer of the namespace linkerd: it is missing";
    let command = "`kubectl -n linkerd delete secret linkerd-identity-issuer && kubectl -n linkerd create secret generic \
                   linkerd-identity-issuer --from-file=tls.crt=issuer.crt ";
    assert!(told.starts_with(named) && told.contains(command), "{told}");
    assert_eq!(read_replaced().await.issuer, None, "another is given");
    api.delete("Secret", "linkerd", "linkerd-identity-issuer");
    // What is made anew, or given, keeps nobody from an upgrade.
    put("Secret", "linkerd-proxy-injector-k8s-tls", json!({"tls.key": bytes("key")}));
    put("ConfigMap", "linkerd-config", json!({"values": "[no: {values", "weft-version": "v1"}));
    let found = read().await.unwrap();
    assert_eq!((found.issuer, found.proxy_injector, &*found.trust_domain), (None, None, "example.org"));
    put("ConfigMap", "linkerd-config", json!({"weft-version": "v1"}));
    assert!(read().await.is_ok());
    api.delete("ConfigMap", "linkerd", "linkerd-config");
    let found = read().await.unwrap();
    assert_eq!((found.anchors_pem.as_str(), &*found.trust_domain), ("anchors", "example.org"), "it is made anew");
    assert_eq!(found.by, Author::Linkerd, "whose overrides say nothing of who made them");
    api.put(
        json!({"kind": "Secret", "data": {"linkerd-config-overrides": &overrides}, "metadata": {"namespace": "linkerd",
        "name": "linkerd-config-overrides", "annotations": {"linkerd.io/created-by": "linkerd/cli v1"}}}),
    );
    assert_eq!(read().await.unwrap().by, Author::Weft);
    // It may be Linkerd's as well.
    put("ConfigMap", "linkerd-config", json!({}));
    let told = read().await.unwrap_err().to_string();
    assert!(
        told.starts_with("the key `values` of the ConfigMap linkerd-config of the namespace linkerd: it is missing"),
        "{told}"
    );
    put("ConfigMap", "linkerd-config", json!({"values": "[no: {values", "weft-version": "v1"}));
    // What cannot be known without somebody is told with what it takes.
    for (kind, name, data, command) in [
        (
            "Secret",
            "linkerd-config-overrides",
            json!({"linkerd-config-overrides": bytes("- a list")}),
            "create secret generic linkerd-config-overrides ",
        ),
        (
            "ConfigMap",
            "linkerd-identity-trust-roots",
            json!({}),
            "create configmap linkerd-identity-trust-roots --from-file=ca-bundle.crt=root.crt ",
        ),
    ] {
        put(kind, name, data);
        let told = read().await.unwrap_err().to_string();
        let named = format!("the {kind} {name} of the namespace linkerd: ");
        assert!(told.starts_with(&named) && told.contains(&format!("`kubectl -n linkerd {command}")), "{told}");
        put("Secret", "linkerd-config-overrides", json!({"linkerd-config-overrides": overrides}));
    }
    assert_eq!(read_replaced().await.anchors_pem, "", "others are given");
    put("ConfigMap", "linkerd-identity-trust-roots", json!({"ca-bundle.crt": "anchors"}));
    api.fail(Some(Failure::Status(403)));
    assert!(matches!(read().await, Err(NotStored::Cluster(_))), "who may not read is told so");
}

/// As Helm writes it: compressed JSON, in base64 within the Secret's.
fn release(revision: u32, status: &str, config: &Value) -> Value {
    let mut packed = GzEncoder::new(vec![], Compression::default());
    packed.write_all(json!({"name": "lcp", "config": config, "manifest": "..."}).to_string().as_bytes()).unwrap();
    secret(revision, status, &packed.finish().unwrap())
}

fn secret(revision: u32, status: &str, packed: &[u8]) -> Value {
    let bytes = |bytes: &[u8]| json!(weft_cluster::k8s::ByteString(bytes.to_vec()));
    let text = bytes(packed);
    let labels = json!({"owner": "helm", "name": "lcp", "status": status, "version": revision.to_string()});
    json!({"kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": {"name": format!("sh.helm.release.v1.lcp.v{revision}"), "namespace": "linkerd", "labels": labels},
        "data": {"release": bytes(text.as_str().unwrap().as_bytes())}})
}

#[tokio::test]
async fn an_installation_of_helms_is_told_how_helm_goes_on() {
    let (api, cluster) = lab().await;
    let text = |text: &str| json!(weft_cluster::k8s::ByteString(text.as_bytes().to_vec()));
    let of_release = |mut object: Value| {
        object["metadata"]["annotations"] =
            json!({"meta.helm.sh/release-name": "lcp", "meta.helm.sh/release-namespace": "linkerd"});
        object
    };
    let config = |data: Value| {
        of_release(
            json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"}, "data": data}),
        )
    };
    let anchors = |pem: &str| {
        api.put(
            json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-identity-trust-roots", "namespace": "linkerd"},
            "data": {"ca-bundle.crt": pem}}),
        );
    };
    let told = async || match stored(Source::Cluster(&cluster), "linkerd", Replaced::default()).await {
        Err(NotStored::OfHelm(told)) => told,
        other => panic!("{other:?}"),
    };
    let (crds, upgrade) = (
        "helm upgrade --install linkerd-crds charts/linkerd-crds -n linkerd --take-ownership".to_owned(),
        "helm upgrade lcp charts/linkerd-control-plane -n linkerd --reset-then-reuse-values".to_owned(),
    );
    // Ours wants no more.
    api.put(config(json!({"values": "{}", "weft-version": "v1"})));
    assert_eq!(told().await.commands(), [crds.clone(), upgrade.clone()]);

    // Linkerd's, with definitions of a release.
    api.put(of_release(definition("servers.policy.linkerd.io", &["v1beta3"])));
    let crds = "helm upgrade lcp charts/linkerd-crds -n linkerd --reset-then-reuse-values".to_owned();
    api.put(config(json!({"values": "clusterDomain: cluster.local"})));
    anchors("root\n");
    let unread = told().await;
    assert_eq!(unread.commands(), [crds.clone(), upgrade.clone()]);
    assert!(unread.to_string().contains("no Secret of Helm's says that the release is in force"), "{unread}");

    let given = json!({"identityTrustAnchorsPEM": "root", "identity": {"issuer": {"tls": {"crtPEM": "issuer", "keyPEM": "key"}}},
        "heartbeatSchedule": "13 7 * * *", "controllerReplicas": 3, "linkerdVersion": "edge-1",
        "podAnnotations": {"example.org/a": "b"}, "proxy": {"image": {"name": "r/proxy"}, "logLevel": "debug"}});
    api.put(release(9, "deployed", &json!({"cniEnabled": true})));
    api.put(release(10, "deployed", &given));
    api.put(release(11, "failed", &json!({"cniEnabled": true})));
    let found = told().await;
    let taken_back = "--set linkerdVersion=null,heartbeatSchedule=null,proxy.image.name=null";
    assert_eq!(found.commands(), [crds.clone(), format!("{upgrade} {taken_back}")]);
    let text_of = found.to_string();
    for part in [
        "is Linkerd's, of Helm's release lcp, and is upgraded by helm",
        "* heartbeatSchedule: ",
        "* proxy.image.name: ",
    ] {
        assert!(text_of.contains(part), "{part}: {text_of}");
    }

    // Helm knows others than the cluster, which would come back.
    anchors("other");
    api.put(json!({"kind": "Secret", "metadata": {"name": "linkerd-identity-issuer", "namespace": "linkerd"},
        "data": {"crt.pem": text("new"), "key.pem": text("new key")}}));
    let commands = told().await.commands();
    assert_eq!(commands.len(), 5, "{commands:?}");
    assert!(
        commands[0].ends_with("> anchors.crt") && commands[2].ends_with("| base64 -d > issuer.key"),
        "{commands:?}"
    );
    for option in ["identityTrustAnchorsPEM=anchors.crt", "crtPEM=issuer.crt", "keyPEM=issuer.key", taken_back] {
        assert!(commands[4].contains(option), "{option}: {commands:?}");
    }

    // What cannot be read is said to be so.
    for (packed, reason) in [(&b"no gzip"[..], "cannot be unpacked"), (&[0x1f, 0x8b][..], "cannot be unpacked")] {
        api.put(secret(12, "deployed", packed));
        let told = told().await;
        assert!(told.to_string().contains(reason), "{told}");
    }
    let mut bomb = GzEncoder::new(vec![], Compression::fast());
    for _ in 0..40 {
        bomb.write_all(&vec![b' '; 1024 * 1024]).unwrap();
    }
    api.put(secret(13, "deployed", &bomb.finish().unwrap()));
    let told = told().await;
    assert!(told.to_string().contains("is larger than "), "{told}");
}

#[tokio::test]
async fn policies_are_those_of_the_newest_version_that_is_served() {
    let (api, cluster) = lab().await;
    let asked = |version: &str| {
        let path = format!("/apis/policy.linkerd.io/{version}/servers");
        api.requests().iter().filter(|request| request.path == path).count()
    };
    api.define("Server", &["v1beta2", "v1beta1"]);
    assert_eq!(cluster.policies(Kind::Server).await.unwrap(), [Value::Null; 0]);
    assert_eq!((asked("v1beta3"), asked("v1beta2")), (1, 1));
    assert_eq!(asked("v1beta1"), 0, "that there is none has been said");
    api.define("Server", &["v1beta1"]);
    api.put(json!({"kind": "Server", "metadata": {"name": "web", "namespace": "ns"}, "spec": {}}));
    assert_eq!(cluster.policies(Kind::Server).await.unwrap().len(), 1);
    api.define("Server", &[]);
    assert_eq!(cluster.policies(Kind::Server).await.unwrap(), [Value::Null; 0]);
}
