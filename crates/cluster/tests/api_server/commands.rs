//! What commands ask before they print anything.

use crate::lab::ApiServer;
use serde_json::{Value, json};
use weft_cluster::{
    install::{By, NotReady, api_server_ports, crds, ready_for_control_plane, ready_for_crds},
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
    let told = async || ready_for_crds(&cluster, "linkerd").await.map_err(|e| e.to_string());
    let missing = told().await.unwrap_err();
    assert!(missing.contains("httproutes.gateway.networking.k8s.io is missing"), "{missing}");
    assert!(missing.contains("kubectl apply --server-side -f https://"), "{missing}");
    api.put(definition("httproutes.gateway.networking.k8s.io", &["v1", "v1beta1"]));
    api.put(definition("grpcroutes.gateway.networking.k8s.io", &["v1alpha2"]));
    let old = told().await.unwrap_err();
    assert!(old.contains("grpcroutes.gateway.networking.k8s.io does not serve the version v1"), "{old}");
    api.put(definition("grpcroutes.gateway.networking.k8s.io", &["v1"]));
    assert_eq!(told().await, Ok(()));
    api.put(json!({"kind": "ConfigMap", "metadata": {"name": "linkerd-config", "namespace": "linkerd"}}));
    assert!(told().await.unwrap_err().contains("installed in the namespace linkerd already"));
    assert!(ready_for_crds(&cluster, "other").await.is_ok());
    api.fail(Some(Failure::Status(503)));
    assert!(
        matches!(ready_for_crds(&cluster, "other").await, Err(NotReady::Cluster(_))),
        "who cannot be asked is not ready"
    );
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
    api.put(definition("servers.policy.linkerd.io", &["v1beta1", "unserved"]));
    let missing = ready_for_control_plane(&cluster, &values, "linkerd").await.unwrap_err().to_string();
    assert!(missing.contains("servers.policy.linkerd.io of version "), "{missing}");
}

#[tokio::test]
async fn the_ports_of_the_api_server_are_its_services_and_its_own() {
    let (api, cluster) = lab().await;
    assert_eq!(api_server_ports(&cluster).await.unwrap(), "443,6443");
    let ports = json!([{"name": "https", "port": 443, "targetPort": 16443}, {"port": 8443, "targetPort": "https"}]);
    api.put(json!({"kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"ports": ports}}));
    assert_eq!(api_server_ports(&cluster).await.unwrap(), "443,8443,16443");
}
