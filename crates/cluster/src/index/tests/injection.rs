//! What injection takes an annotation for, the index takes it for.

use super::{slices::kubernetes, *};
use crate::{
    inject::{Annotations, Around, Mesh, admit},
    values::Values,
};

/// The pod `ns/a` of these containers as injection leaves it, and the index that knows it.
fn injected(own: Value, namespace: Value, spec: Value) -> (Value, Index) {
    let read = |annotations: Value| -> Annotations { serde_json::from_value(annotations).unwrap() };
    let values = Values::default();
    let mesh = Mesh { values: &values, namespace: "linkerd", anchors_pem: "", anchors_sha256: "" };
    let mut namespace = read(namespace);
    namespace.insert("linkerd.io/inject".to_owned(), "enabled".to_owned());
    let around = Around { namespace: "ns", namespace_annotations: &namespace, owner: None };
    let metadata = json!({"name": "a", "namespace": "ns", "annotations": own});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let pod = admit(&pod, around, mesh).unwrap().object;
    let index = kubernetes(vec![Object::Pod(typed(pod.clone()))]);
    (pod, index)
}

fn variable(pod: &Value, name: &str) -> String {
    let containers = ["containers", "initContainers"].into_iter().filter_map(|list| pod["spec"][list].as_array());
    let mut env = containers.flatten().flat_map(|c| c["env"].as_array().into_iter().flatten());
    let found = env.find(|v| v["name"] == format!("LINKERD2_PROXY_INBOUND_{name}")).unwrap();
    found["value"].as_str().unwrap().to_owned()
}

fn is_opaque(index: &Index, port: u16) -> bool {
    inbound(index, "a", port).unwrap().protocol == ServerProtocol::Opaque
}

#[test]
fn white_space_around_an_annotation_opens_no_pod() {
    let web = || json!({"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]});
    let of = |key: &str, value: &str| {
        let said = || json!({format!("config.linkerd.io/{key}"): value});
        [injected(said(), json!({}), web()), injected(json!({}), said(), web())]
    };
    for around in ["", "\n", " ", "\t", "\r\n"] {
        for policy in DefaultPolicy::ALL.map(DefaultPolicy::as_str) {
            for (pod, index) in of("default-inbound-policy", &format!("{around}{policy}{around}")) {
                assert_eq!(variable(&pod, "DEFAULT_POLICY"), policy);
                assert_eq!(inbound(&index, "a", 8080).unwrap().meta.name(), policy, "{around:?}");
            }
        }
        for (_, index) in of("proxy-require-identity-inbound-ports", &format!("{around}8080{around}")) {
            assert_eq!(inbound(&index, "a", 8080).unwrap().meta.name(), "all-authenticated", "{around:?}");
        }
        for port in ["8080", "http"] {
            for (pod, index) in of("opaque-ports", &format!("{around}{port}{around}")) {
                assert_eq!(variable(&pod, "PORTS_DISABLE_PROTOCOL_DETECTION"), "8080");
                assert!(is_opaque(&index, 8080), "{around:?}");
            }
        }
    }
}

#[test]
fn a_name_of_an_opaque_port_is_that_of_every_port_that_has_it() {
    let port =
        |name: &str, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "protocol": protocol});
    let spec = json!({
        "containers": [
            {"name": "web", "ports": [port("db", 5000, "TCP"), port("web", 5001, "TCP"), port("db", 5005, "UDP")]},
            {"name": "beside", "ports": [port("db", 5002, "TCP")]},
            {"name": "also", "ports": [port("db", 5001, "TCP")]},
        ],
        "initContainers": [{"name": "before", "ports": [port("db", 5003, "TCP"), port("other", 5004, "TCP")]}],
    });
    let (pod, index) = injected(json!({"config.linkerd.io/opaque-ports": "25,db"}), json!({}), spec);
    let opaque: Vec<String> = (5000..=5005).filter(|port| is_opaque(&index, *port)).map(|p| p.to_string()).collect();
    assert_eq!(opaque, ["5000", "5001", "5002", "5003"]);
    assert_eq!(variable(&pod, "PORTS_DISABLE_PROTOCOL_DETECTION"), format!("25,{}", opaque.join(",")));
}
