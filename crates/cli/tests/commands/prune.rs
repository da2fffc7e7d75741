//! `weft prune`.

use crate::lab::Home;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use weft_cluster::{
    install::{By, crds},
    k8s::ByteString,
    values::Values,
};
use weft_testkit::api_server::FakeApi;

/// A control plane that weft of a version has installed, and what is left of one before it.
pub(crate) fn installed(api: &FakeApi, version: &str) {
    let put = |kind: &str, name: &str, data: Value| {
        let labels = json!({"linkerd.io/control-plane-ns": "linkerd"});
        let metadata = json!({"name": name, "namespace": "linkerd", "labels": labels});
        api.put(json!({"kind": kind, "metadata": metadata, "data": data}));
    };
    put("ConfigMap", "linkerd-config", json!({"values": "clusterDomain: cluster.local\n", "weft-version": version}));
    put("ConfigMap", "linkerd-identity-trust-roots", json!({"ca-bundle.crt": "anchors"}));
    let overrides = json!(ByteString(b"{}".to_vec()));
    put("Secret", "linkerd-config-overrides", json!({"linkerd-config-overrides": overrides}));
    put("ConfigMap", "left-over", json!({}));
}

#[test]
fn what_another_version_has_made_is_not_pruned() {
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    home.configure(&api);
    for (version, flags) in [("v98", vec![]), (env!("CARGO_PKG_VERSION"), vec!["--expected-version=v99"])] {
        installed(&api, version);
        let told = home.runs(&[vec!["prune"], flags].concat());
        assert!(!told.ok && told.out.is_empty(), "{told:?}");
        for part in [
            &*format!("is of version {version}"),
            "`weft upgrade -L linkerd | kubectl apply -f -` first",
            "`--expected-version`",
        ] {
            assert!(told.err.contains(part), "{part}: {told:?}");
        }
    }
    for (version, flags) in [("v99", vec!["--expected-version=v99"]), (env!("CARGO_PKG_VERSION"), vec![])] {
        installed(&api, version);
        let told = home.runs(&[vec!["prune"], flags].concat());
        assert!(told.ok && told.out.contains("name: left-over") && !told.out.contains("linkerd-config"), "{told:?}");
    }
}

/// Where they were asked for is written down nowhere but on them: they go on with the others, and go with them.
#[test]
fn definitions_of_the_gateway_api_that_weft_has_brought_are_its_own() {
    const ROUTES: &str = "name: httproutes.gateway.networking.k8s.io";
    let runtime = Runtime::new().unwrap();
    let (home, api) = (Home::new(), runtime.block_on(FakeApi::start()).unwrap());
    home.configure(&api);
    installed(&api, env!("CARGO_PKG_VERSION"));
    let values = Values::from_layers([json!({"installGatewayAPI": true})]).unwrap();
    for definition in crds(&values, "linkerd", By::Cli) {
        api.put(definition);
    }
    let told = home.runs(&["upgrade", "--crds"]);
    assert!(told.ok && told.out.contains(ROUTES), "{}", told.err);
    let told = home.runs(&["upgrade", "--crds", "--set", "installGatewayAPI=false"]);
    assert!(told.ok && !told.out.contains(ROUTES), "{}", told.err);
    let told = home.runs(&["prune"]);
    assert!(told.ok && told.out.contains("name: left-over") && !told.err.contains("gateway"), "{told:?}");
    let told = home.runs(&["uninstall"]);
    assert!(told.ok && told.out.contains(ROUTES), "{told:?}");
    assert!(told.err.contains("goes every route of the cluster"), "{told:?}");
}
