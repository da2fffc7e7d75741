//! The cases on a real API server: etcd and kube-apiserver, without a node.

use super::{
    cases, examples,
    lab::{ApiServer, LONG, Lab, NAMESPACE},
    rows, statuses,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};
use weft_cluster::{
    Kind,
    install::{By, crds, text},
    kubernetes::{self, Client},
    values::Values,
};
use weft_testkit::kubernetes::Cluster;

struct Real {
    cluster: Cluster,
    client: Client,
}

impl Real {
    /// In the namespace of the cases.
    fn api(&self, kind: &str) -> Api<DynamicObject> {
        self.api_of(NAMESPACE, &resource(kind))
    }

    fn api_of(&self, namespace: &str, resource: &ApiResource) -> Api<DynamicObject> {
        match resource.kind.as_str() {
            "Namespace" | "Node" | "CustomResourceDefinition" => Api::all_with(self.client.clone(), resource),
            _ => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "Lease" => ("coordination.k8s.io", "v1"),
        "Server" | "HTTPRoute" => ("policy.linkerd.io", "v1beta3"),
        "ServerAuthorization" => ("policy.linkerd.io", "v1beta1"),
        "ExternalWorkload" => ("workload.linkerd.io", "v1beta1"),
        "AuthorizationPolicy"
        | "MeshTLSAuthentication"
        | "NetworkAuthentication"
        | "HTTPLocalRateLimitPolicy"
        | "EgressNetwork" => ("policy.linkerd.io", "v1alpha1"),
        "ServiceProfile" => ("linkerd.io", "v1alpha2"),
        "GRPCRoute" => ("gateway.networking.k8s.io", "v1"),
        // Of this version of the Gateway API, which has no `v1` of them.
        "TLSRoute" => ("gateway.networking.k8s.io", "v1alpha3"),
        "TCPRoute" => ("gateway.networking.k8s.io", "v1alpha2"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl ApiServer for Real {
    async fn client(&self) -> Client {
        self.client.clone()
    }

    async fn written(&self, mut object: Value) -> String {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let (of, usual) = (resource_of(&object), resource(object["kind"].as_str().unwrap()));
        let api = self.api_of(object["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE), &of);
        // The server says it itself, in whole seconds of the same clock.
        if object["metadata"].as_object_mut().unwrap().remove("creationTimestamp").is_some() {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            tokio::time::sleep(Duration::from_millis(1010 - u64::from(since.subsec_millis()))).await;
        }
        object["apiVersion"] = of.api_version.clone().into();
        // Gone, not null: a kind without a status would not take it.
        let status = object.as_object_mut().unwrap().remove("status");
        let mut there = if of == usual {
            api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await.unwrap()
        } else {
            // As by `kubectl apply`: what the version does not know is dropped, and not refused.
            api.create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
        };
        if let Some(status) = status {
            let status = json!({ "status": status });
            there = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        }
        there.metadata.resource_version.unwrap()
    }

    async fn remove_it(&self, object: &Value) {
        let named = |of: &str| object["metadata"][of].as_str().unwrap_or_default();
        let api = self.api_of(named("namespace"), &resource_of(object));
        let params = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = api.delete(named("name"), &params).await;
    }

    async fn all_of(&self, kind: &str) -> Vec<Value> {
        let list = self.api(kind).list(&Default::default()).await.unwrap();
        list.items.iter().map(|object| serde_json::to_value(object).unwrap()).collect()
    }

    async fn define_kinds(&self) {
        for definition in crds(&Values::default(), "linkerd", By::Cli) {
            self.write(definition).await;
        }
        // It is served a moment later.
        let serves = async {
            while self.api("Server").list(&Default::default()).await.is_err()
                || self.api("ServerAuthorization").list(&Default::default()).await.is_err()
                || self.api("ExternalWorkload").list(&Default::default()).await.is_err()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, serves).await.unwrap();
    }

    async fn token_for(&self, audience: &str) -> String {
        let asked = format!("create token web --namespace {NAMESPACE} --audience {audience}");
        self.cluster.ask(&asked).unwrap().trim().to_owned()
    }
}

/// For that admission refuses it.
async fn an_older_version_loses_what_a_workload_proves(real: &Real) {
    let older = ApiResource::from_gvk(&GroupVersionKind::gvk("workload.linkerd.io", "v1alpha1", "ExternalWorkload"));
    let older: Api<DynamicObject> = Api::namespaced_with(real.client.clone(), NAMESPACE, &older);
    let object = json!({"apiVersion": "workload.linkerd.io/v1alpha1", "kind": "ExternalWorkload", "metadata": {"name": "older"},
        "spec": {"meshTls": {"identity": "spiffe://root.local/vm", "serverName": "vm.local"}}});
    older.create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let kept = real.api("ExternalWorkload").get("older").await.unwrap();
    assert_eq!(kept.data["spec"], json!({}), "{kept:?}");
    real.remove("ExternalWorkload", "older").await;
}

/// As `weft install --crds --set installGatewayAPI=true` prints them: what their own project's rules forbid is refused. They are gone
/// again then.
async fn definitions_of_routes_that_weft_brings_hold(real: &Real) {
    let values = Values::from_layers([json!({"installGatewayAPI": true})]).unwrap();
    let of_routes = |definition: &Value| definition["spec"]["group"] == "gateway.networking.k8s.io";
    let definitions: Vec<Value> = crds(&values, "linkerd", By::Cli).into_iter().filter(of_routes).collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gateway-api.yaml");
    fs::write(&file, text(&definitions)).unwrap();
    // As people do, who apply them: the whole object has to fit into an annotation.
    real.cluster.ask(&format!("apply --filename {}", file.display())).unwrap();
    let names: Vec<&str> = definitions.iter().map(|of| of["metadata"]["name"].as_str().unwrap()).collect();
    let names = names.join(" ");
    real.cluster.ask(&format!("wait --for condition=established --timeout 60s crd {names}")).unwrap();
    let parent = json!({"group": "", "kind": "Service", "name": "web"});
    let backend = json!({"name": "web", "port": 80});
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}});
    let port = "Must have port for Service reference";
    for (kind, hostnames, forbidden, rule) in [
        (
            "HTTPRoute",
            true,
            json!({"filters": [redirect], "backendRefs": [backend]}),
            "RequestRedirect filter must not be used together with backendRefs",
        ),
        (
            "GRPCRoute",
            true,
            json!({"matches": [{"method": {"type": "Exact"}}], "backendRefs": [backend]}),
            "One or both of 'service' or 'method' must be specified",
        ),
        ("TLSRoute", true, json!({"backendRefs": [{"name": "web"}]}), port),
        ("TCPRoute", false, json!({"backendRefs": [{"name": "web"}]}), port),
    ] {
        let of = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(real.client.clone(), NAMESPACE, &of);
        let route = |name: &str, rule: &Value| {
            let mut spec = json!({"parentRefs": [parent], "rules": [rule]});
            if hostnames {
                spec["hostnames"] = json!(["a.example"]);
            }
            let object = json!({"apiVersion": of.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
            serde_json::from_value::<DynamicObject>(object).unwrap()
        };
        let taken = json!({"backendRefs": [backend]});
        let create = async || api.create(&Default::default(), &route("taken", &taken)).await;
        let served = async {
            // It is served a moment after it is established.
            while let Err(error) = create().await {
                assert!(matches!(&error, kube::Error::Api(status) if status.code == 404), "{kind}: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, served).await.unwrap();
        let refused = api.create(&Default::default(), &route("refused", &forbidden)).await.unwrap_err();
        assert!(matches!(&refused, kube::Error::Api(status) if status.reason == "Invalid"), "{kind}: {refused}");
        assert!(refused.to_string().contains(rule), "{kind}: {refused}");
    }
    helm_replaces_nobodys(real);
    real.cluster.ask(&format!("delete --timeout 60s crd {names}")).unwrap();
}

/// Weft's own definitions are there: Helm goes on with them, but not with one that is somebody else's by now.
fn helm_replaces_nobodys(real: &Real) {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/linkerd-crds");
    let helm = |words: &[&str]| {
        let mut helm = Command::new(real.cluster.program("helm"));
        helm.args(["template", "linkerd-crds"]).arg(&chart).args(["--namespace", "linkerd", "--dry-run=server"]);
        // Built from source, helm takes a cluster whose version it does not ask for an old one.
        helm.args(["--kube-version", "1.31.0"]);
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm"));
        }
        let output = helm.args(words).env("KUBECONFIG", &real.cluster.kubeconfig).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let asked = ["--set", "installGatewayAPI=true"];
    let (taken, told) = helm(&asked);
    assert!(taken, "{told}");
    let tcp = "tcproutes.gateway.networking.k8s.io";
    for other in
        ["linkerd.io/created-by-", "linkerd.io/created-by=linkerd/cli gateway.networking.k8s.io/channel=experimental"]
    {
        real.cluster.ask(&format!("annotate --overwrite crd {tcp} {other}")).unwrap();
        let (taken, told) = helm(&asked);
        let named = format!("definitions {tcp} stand in the cluster already and are not weft's");
        assert!(!taken && told.contains(&named) && told.contains("by --set enableTcpRoutes=false"), "{other}: {told}");
        let (taken, told) = helm(&[&asked[..], &["--set", "enableTcpRoutes=false"]].concat());
        assert!(taken, "{told}");
    }
}

/// The definitions of the kinds take what the pages show; nothing is kept. What is marked as refused the webhooks may be alone in refusing.
async fn the_examples_are_taken(real: &Real) {
    for name in ["shop", "edge"] {
        real.write(json!({"kind": "Namespace", "metadata": {"name": name}})).await;
    }
    let mut refused = vec![];
    for (page, text, mut object) in examples::taken() {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let of = match kind.as_str() {
            // In the version that is here.
            "TLSRoute" | "TCPRoute" => resource(&kind),
            _ => typed(&object),
        };
        object["apiVersion"] = of.api_version.clone().into();
        let (namespace, name) =
            (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str().unwrap());
        let api = match namespace {
            Some(namespace) => Api::<DynamicObject>::namespaced_with(real.client.clone(), namespace, &of),
            None => Api::all_with(real.client.clone(), &of),
        };
        let params = PatchParams::apply("test").force().dry_run().validation_strict();
        if let Err(error) = api.patch(name, &params, &Patch::Apply(&object)).await {
            refused.push(format!("{page}: {error}\n{text}"));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// Releases of the Gateway API differ in the versions that they serve: from one moment to the next it is another one alone.
async fn whichever_version_is_served_is_watched(real: &Real) {
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let spec = json!({"parentRefs": [parent], "hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]});
    for (kind, watched, plural) in
        [("TLSRoute", Kind::TlsRoute, "tlsroutes"), ("TCPRoute", Kind::TcpRoute, "tcproutes")]
    {
        let lab = Lab::of(real, &[watched]).await;
        let mut spec = spec.clone();
        if kind == "TCPRoute" {
            spec.as_object_mut().unwrap().remove("hostnames");
        }
        real.write(json!({"kind": kind, "metadata": {"name": "before", "namespace": NAMESPACE}, "spec": spec})).await;
        lab.until("an older version", |fed| fed.has(watched, "before")).await;

        let definitions = real.api("CustomResourceDefinition");
        let mut definition = definitions.get(&format!("{plural}.gateway.networking.k8s.io")).await.unwrap();
        let versions = definition.data["spec"]["versions"].as_array_mut().unwrap();
        let mut newest = versions.iter().find(|version| version["storage"] == true).unwrap().clone();
        for version in &mut *versions {
            (version["served"], version["storage"]) = (false.into(), false.into());
        }
        (newest["name"], newest["served"]) = ("v1".into(), true.into());
        versions.insert(0, newest);
        definitions.replace(&definition.name_any(), &Default::default(), &definition).await.unwrap();

        let served = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", kind));
        let api: Api<DynamicObject> = Api::namespaced_with(real.client.clone(), NAMESPACE, &served);
        let object =
            json!({"apiVersion": served.api_version, "kind": kind, "metadata": {"name": "behind"}, "spec": spec});
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let taken = async {
            while api.create(&Default::default(), &object).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(LONG, taken).await.unwrap();
        lab.until("v1", |fed| fed.has(watched, "behind") && fed.has(watched, "before")).await;
        api.delete("before", &Default::default()).await.unwrap();
        lab.until("what goes by v1", |fed| !fed.has(watched, "before")).await;
        lab.end().await;
    }
}

/// What an object is written as: what it says that it is, or else the newest.
fn resource_of(object: &Value) -> ApiResource {
    if object["apiVersion"].is_string() { typed(object) } else { resource(object["kind"].as_str().unwrap()) }
}

/// What an object says that it is.
fn typed(object: &Value) -> ApiResource {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

#[test]
fn the_cases_hold_on_a_real_api_server() {
    let cluster = Cluster::up("cluster-cases", &["--api-only"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = kubernetes::connect(Some(&cluster.kubeconfig)).await.unwrap();
        let real = Real { cluster, client };
        for name in rows::NAMESPACES {
            real.write(json!({"kind": "Namespace", "metadata": {"name": name}})).await;
        }
        real.write(json!({"kind": "ServiceAccount", "metadata": {"name": "web", "namespace": NAMESPACE}})).await;
        cases::answers(&real).await;
        real.write(cases::holder()).await;
        cases::leases(&real).await;
        real.remove_it(&cases::holder()).await;
        cases::tokens(&real).await;
        cases::policies(&real).await;
        cases::slices(&real).await;
        an_older_version_loses_what_a_workload_proves(&real).await;
        cases::history(&real, 60).await;
        for object in ["Pod", "Service", "EndpointSlice", "ExternalWorkload"] {
            for left in real.all_of(object).await {
                real.remove(object, left["metadata"]["name"].as_str().unwrap()).await;
            }
        }
        definitions_of_routes_that_weft_brings_hold(&real).await;
        let gateway_api = real.cluster.gateway_api("experimental").display().to_string();
        real.cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
        real.cluster.ask("wait --for condition=established --timeout 60s crd --all").unwrap();
        rows::endpoints(&real).await;
        rows::profiles(&real).await;
        rows::ports(&real).await;
        rows::traffic(&real).await;
        rows::labels(&real).await;
        rows::names(&real).await;
        rows::conditions(&real).await;
        rows::older(&real).await;
        statuses::statuses(&real).await;
        the_examples_are_taken(&real).await;
        whichever_version_is_served_is_watched(&real).await;
    });
}
