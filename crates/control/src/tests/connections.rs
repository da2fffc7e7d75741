//! Routes of connections and EgressNetworks, from objects of an API server to what clients are told and to what statuses say.

use super::{
    kubernetes::{Lab, destination, objects},
    lab::patiently,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_stream::StreamExt;
use tonic::Code;
use weft_model::{
    ClientPolicy,
    policy::{
        outbound::{BackendKind, ClientProtocol, Distribution},
        route::Filter,
    },
};
use weft_testkit::api_server::FakeApi;
use weft_wire::{Error, Incoming, outbound::Target};

async fn start(name: &str) -> Lab {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let lab = Lab::start(name, api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    lab
}

async fn watch(lab: &Lab, target: Target) -> Incoming<ClientPolicy> {
    let mut policies = weft_wire::outbound::Client::new(lab.channel("policy").await);
    policies.watch(r#"{"ns":"emojivoto","pod":"web-1"}"#, target).await.unwrap()
}

/// The protocol, the name of the first route of connections, and where it goes: to how many, and whether it is forbidden.
async fn told(stream: &mut Incoming<ClientPolicy>) -> (&'static str, String, usize, bool) {
    let policy = patiently(stream.next()).await.unwrap().unwrap();
    let (protocol, route) = match policy.protocol {
        ClientProtocol::Detect { opaque: Some(route), .. } => ("detect", route),
        ClientProtocol::Opaque(Some(route)) => ("opaque", route),
        ClientProtocol::Tls(mut routes) => ("tls", routes.remove(0).route),
        other => panic!("{other:?}"),
    };
    let known = route.backends.iter().filter(|of| of.backend.kind != BackendKind::Missing).count();
    let forbidden = route.filters.contains(&Filter::Forbidden);
    (protocol, route.meta.name().to_owned(), known, forbidden)
}

fn is(protocol: &'static str, route: &str, known: usize, forbidden: bool) -> (&'static str, String, usize, bool) {
    (protocol, route.to_owned(), known, forbidden)
}

/// Waits until what `of` finds in an object's status is this.
async fn reports(lab: &Lab, kind: &str, name: &str, of: impl Fn(&Value) -> Value, expected: Value) {
    let report = async {
        loop {
            let status = lab.api.get(kind, "emojivoto", name).unwrap()["status"].clone();
            let found = of(&status);
            if found == expected {
                return;
            }
            tracing::debug!(%found, %expected, "not yet");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    patiently(report).await;
}

/// Of the first parent each reason.
fn reasons(status: &Value) -> Value {
    let conditions = status["parents"][0]["conditions"].as_array().into_iter().flatten();
    conditions.map(|condition| condition["reason"].clone()).collect()
}

fn route(kind: &str, parent: &Value, spec: Value, backend: Value) -> Value {
    let mut route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "own", "namespace": "emojivoto", "generation": 1}, "spec": spec});
    route["spec"]["parentRefs"] = json!([parent]);
    route["spec"]["rules"] = json!([{"backendRefs": [backend]}]);
    route
}

#[tokio::test]
async fn routes_of_connections_are_told_to_clients_and_say_what_became_of_them() {
    let lab = start("connections").await;
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let mut stream = watch(&lab, Target::Authority("web.emojivoto.svc.cluster.local:80".to_owned())).await;
    assert_eq!(told(&mut stream).await, is("detect", "opaq", 1, false));
    let known = json!({"name": "web", "port": 80});
    lab.api.put(route("TCPRoute", &parent, json!({}), known.clone()));
    assert_eq!(told(&mut stream).await, is("opaque", "own", 1, false));
    reports(&lab, "TCPRoute", "own", reasons, json!(["Accepted", "ResolvedRefs"])).await;
    // Those of TLS come before, and then those of requests.
    let names = json!({"hostnames": ["vault.example"]});
    lab.api.put(route("TLSRoute", &parent, names.clone(), json!({"name": "gone", "port": 80})));
    assert_eq!(told(&mut stream).await, is("tls", "own", 0, false));
    reports(&lab, "TLSRoute", "own", reasons, json!(["Accepted", "BackendNotFound"])).await;
    reports(&lab, "TCPRoute", "own", reasons, json!(["RouteReasonConflicted", "ResolvedRefs"])).await;
    // A port of bytes takes routes of connections alone.
    let mut service = lab.api.get("Service", "emojivoto", "web").unwrap();
    service["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "80"});
    lab.api.put(service.clone());
    assert_eq!(told(&mut stream).await, is("opaque", "own", 1, false));
    reports(&lab, "TLSRoute", "own", reasons, json!(["NoMatchingParent", "BackendNotFound"])).await;
    reports(&lab, "TCPRoute", "own", reasons, json!(["Accepted", "ResolvedRefs"])).await;
    service["metadata"].as_object_mut().unwrap().remove("annotations");
    lab.api.put(service);
    assert_eq!(told(&mut stream).await.0, "tls");
    lab.api.delete("TLSRoute", "emojivoto", "own");
    assert_eq!(told(&mut stream).await, is("opaque", "own", 1, false));
    // One that cannot be carried out has no effect, nor what it said before.
    let mut broken = route("TCPRoute", &parent, json!({}), known);
    broken["spec"]["rules"] = json!([]);
    broken["metadata"]["generation"] = json!(2);
    lab.api.put(broken);
    assert_eq!(told(&mut stream).await, is("detect", "opaq", 1, false));
    reports(&lab, "TCPRoute", "own", reasons, json!(["UnsupportedValue"])).await;
}

#[tokio::test]
async fn what_leaves_the_cluster_follows_egress_networks_and_their_routes() {
    let lab = start("egress").await;
    let network = |policy: &str, generation: i64, cidr: &str| {
        json!({"apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
            "metadata": {"name": "out", "namespace": "emojivoto", "generation": generation},
            "spec": {"trafficPolicy": policy, "networks": [{"cidr": cidr}]}})
    };
    let mut stream = watch(&lab, Target::Addr("192.0.2.1:443".parse().unwrap())).await;
    assert_eq!(told(&mut stream).await, is("detect", "egress-fallback", 1, false));
    let condition = |status: &Value| {
        let of = |field: &str| status["conditions"][0][field].clone();
        json!([of("type"), of("status"), of("reason"), of("observedGeneration")])
    };
    lab.api.put(network("Deny", 1, "192.0.2.0/24"));
    assert_eq!(told(&mut stream).await, is("detect", "tcp-egress-deny", 1, true));
    reports(&lab, "EgressNetwork", "out", condition, json!(["Accepted", "True", "Accepted", 1])).await;
    // What is let through goes where it was sent, and the rest does not.
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let itself = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"});
    lab.api.put(route("TLSRoute", &parent, json!({"hostnames": ["api.example"]}), itself.clone()));
    let policy = patiently(stream.next()).await.unwrap().unwrap();
    let ClientProtocol::Tls(routes) = policy.protocol else { panic!() };
    let names: Vec<&str> = routes.iter().map(|route| route.route.meta.name()).collect();
    assert_eq!((names, &routes[1].route.filters[..]), (vec!["own", "tls-egress-deny"], &[Filter::Forbidden][..]));
    let Distribution::RandomAvailable(to) = &routes[0].route.backends else { panic!() };
    assert!(matches!(&to[0].0.backend.kind, BackendKind::Forward(to) if to.addr.to_string() == "192.0.2.1:443"));
    reports(&lab, "TLSRoute", "own", reasons, json!(["Accepted", "ResolvedRefs"])).await;
    lab.api.delete("TLSRoute", "emojivoto", "own");
    assert_eq!(told(&mut stream).await, is("detect", "tcp-egress-deny", 1, true));
    lab.api.put(route("TCPRoute", &parent, json!({}), itself));
    assert_eq!(told(&mut stream).await, is("opaque", "own", 1, false));
    reports(&lab, "TCPRoute", "own", reasons, json!(["Accepted", "ResolvedRefs"])).await;
    lab.api.delete("TCPRoute", "emojivoto", "own");
    assert_eq!(told(&mut stream).await.1, "tcp-egress-deny");
    // Of the cluster's own networks it says that they are inside.
    lab.api.put(network("Allow", 2, "0.0.0.0/0"));
    assert_eq!(told(&mut stream).await, is("detect", "tcp-egress-allow", 1, false));
    let inside = json!(["Accepted", "False", "EgressReasonNetworkOverlap", 2]);
    reports(&lab, "EgressNetwork", "out", condition, inside).await;
    // It slips in, and counts as not there.
    lab.api.put(network("no", 3, "0.0.0.0/0"));
    assert_eq!(told(&mut stream).await, is("detect", "egress-fallback", 1, false));
    let refused = json!(["Accepted", "False", "UnsupportedValue", 3]);
    reports(&lab, "EgressNetwork", "out", condition, refused).await;
    lab.until("/metrics", |_, text| text.contains("weft_kubernetes_quarantined{kind=\"EgressNetwork\"} 1\n")).await;
    lab.api.delete("EgressNetwork", "emojivoto", "out");
    lab.until("/metrics", |_, text| text.contains("weft_kubernetes_quarantined{kind=\"EgressNetwork\"} 0\n")).await;
}

#[tokio::test]
async fn what_other_clusters_have_is_refused_as_a_precondition() {
    let lab = start("elsewhere").await;
    lab.api.put(json!({"kind": "Service",
        "metadata": {"name": "far", "namespace": "emojivoto", "annotations": {"multicluster.linkerd.io/remote-discovery": "far@east"}},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}));
    let mut destinations = weft_wire::destination::Client::new(lab.channel("destination").await);
    // Until it is known there is none.
    let refused = async {
        loop {
            match destinations.get("far.emojivoto.svc.cluster.local:80", "").await {
                Err(Error::Rpc(status)) if status.code() == Code::NotFound => {}
                Err(Error::Rpc(status)) => return status,
                other => panic!("{:?}", other.is_ok()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let status = patiently(refused).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("metadata.annotations[multicluster.linkerd.io/remote-discovery]"), "{status}");
}
