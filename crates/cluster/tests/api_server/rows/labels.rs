//! What is told of an endpoint besides how it is reached.

use super::{
    super::lab::{ApiServer, settings},
    *,
};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn what_is_told_of_an_endpoint() {
    labels(&FakeApi::start().await.unwrap()).await;
}

/// Parts 6.2 and 6.3: the labels of its metrics, and its weight.
pub(crate) async fn labels(api: &impl ApiServer) {
    let at = || destination(&format!("{WEB}:80"));
    let zone = |zone: &str| json!({"zone": zone});
    let owned = |group: &str, kind: &str, name: &str| {
        let owner = json!({"apiVersion": group, "kind": kind, "name": name, "uid": "1", "controller": true});
        json!({"metadata": {"ownerReferences": [owner]}})
    };
    let of =
        |owner: Value, more: Value| vec![web(json!({})), a(owner), node("east"), slices(&[("a", "10.1.0.1", more)])];
    let template = json!({"metadata": {"labels": {"pod-template-hash": "7d9"}}});
    let mut vm_there = vm(json!([{"port": 8080}]));
    vm_there[2]["endpoints"][0]["zone"] = json!("east");
    vm_there.push(node("east"));
    let rows: Vec<Row> = vec![
        (
            "a pod of nobody",
            behind(),
            at(),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd namespace=ns pod=a service=web serviceaccount=web \
             zone_locality=unknown}",
        ),
        (
            "of a Deployment, in the client's zone",
            of(merged(owned("apps/v1", "ReplicaSet", "web-7d9"), template), zone("east")),
            at(),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd deployment=web namespace=ns pod=a pod_template_hash=7d9 \
             service=web serviceaccount=web zone=east zone_locality=local}",
        ),
        (
            "of a ReplicaSet, in another zone",
            of(owned("apps/v1", "ReplicaSet", "web-7d9"), zone("west")),
            at(),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd namespace=ns pod=a replicaset=web-7d9 service=web \
             serviceaccount=web zone=west zone_locality=remote}",
        ),
        (
            "of a Job",
            of(owned("batch/v1", "Job", "nightly"), json!({})),
            at(),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd k8s_job=nightly namespace=ns pod=a service=web \
             serviceaccount=web zone_locality=unknown}",
        ),
        (
            "of a StatefulSet",
            of(owned("apps/v1", "StatefulSet", "web"), json!({})),
            at(),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd namespace=ns pod=a service=web serviceaccount=web \
             statefulset=web zone_locality=unknown}",
        ),
        (
            "an ExternalWorkload",
            vm_there,
            at(),
            "192.0.2.1:8080/h2=spiffe://root.local/vm {external_workload=vm namespace=ns service=web zone=east \
             zone_locality=local}",
        ),
        (
            "a gateway of another cluster",
            gateway(),
            at(),
            "192.0.2.1:4143^none/h2=gateway@web.shop.svc.east.local:80 {namespace=ns service=web target_cluster=east \
             target_service=web target_service_namespace=shop zone_locality=unknown}",
        ),
        (
            "an address of a pod",
            behind(),
            profiled("10.1.0.1:8080"),
            "10.1.0.1:8080/h2=web {control_plane_ns=linkerd namespace=ns pod=a serviceaccount=web}",
        ),
        (
            "an address of an ExternalWorkload",
            vm(json!([{"port": 8080}])),
            profiled("192.0.2.1:8080"),
            "192.0.2.1:8080/h2=spiffe://root.local/vm {external_workload=vm namespace=ns}",
        ),
    ];
    hold_with(api, settings(), said::labelled, rows).await;

    let weighed = Settings { zone_weights: true, ..settings() };
    let hinted = |zone: &str| json!({"zone": zone, "hints": {"forZones": [{"name": "east"}]}});
    let rows: Vec<Row> = vec![
        (
            "a client's own zone weighs more",
            two(zone("east"), zone("west")),
            at(),
            "10.1.0.1:8080*100000/h2=web 10.1.0.2:8080/h2=web",
        ),
        (
            "of which there is none here",
            two(zone("north"), json!({})),
            at(),
            "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web",
        ),
        (
            "what hints leave",
            two(hinted("east"), hinted("west")),
            at(),
            "10.1.0.1:8080*100000/h2=web 10.1.0.2:8080/h2=web",
        ),
    ];
    hold_with(api, weighed, said::said, rows).await;
}
