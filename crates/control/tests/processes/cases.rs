//! Who asks of a port, and who writes the slices of ExternalWorkloads.

use super::lab::{ApiServer, Fake, NAMESPACE, Replica, patiently, until};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::Code;
use weft_wire::{Error, inbound};

const SLICES: &str = "discovery.k8s.io/v1";

fn object(api_version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut object =
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}});
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

fn machine(name: &str, ip: &str) -> Value {
    let tls = json!({"identity": "spiffe://root.local/vm", "serverName": "vm.local"});
    let spec = json!({"meshTLS": tls, "ports": [{"port": 8080}], "workloadIPs": [{"ip": ip}]});
    let mut machine = object("workload.linkerd.io/v1beta1", "ExternalWorkload", name, json!({"spec": spec}));
    machine["metadata"]["labels"] = json!({"app": "vm"});
    machine
}

#[tokio::test]
async fn a_workload_is_said_in_three_ways() {
    let api = Fake::start().await;
    let replica = Replica::start(&api, "workloads").await;
    workloads(&api, &replica).await;
    replica.stop().await;
}

/// A pod and a machine of one name, each of a Server of its own.
pub(crate) async fn workloads(api: &impl ApiServer, replica: &Replica) {
    let server = |name: &str, selector: &str| {
        let spec = json!({"spec": {selector: {}, "port": 8080, "accessPolicy": "deny"}});
        object("policy.linkerd.io/v1beta3", "Server", name, spec)
    };
    let pod = object("v1", "Pod", "web", json!({"spec": {"containers": [{"name": "web", "image": "web"}]}}));
    let objects = [
        pod,
        machine("web", "192.0.2.9"),
        server("pods", "podSelector"),
        server("machines", "externalWorkloadSelector"),
    ];
    for object in &objects {
        api.put(object.clone()).await;
    }
    let client = inbound::Client::new(replica.channel("policy").await);
    let asked = async |workload: &str| {
        let mut stream = match client.clone().watch_port(workload, 8080).await {
            Ok(stream) => stream,
            Err(Error::Rpc(status)) => return Err(status.code()),
            Err(error) => panic!("{error}"),
        };
        Ok(patiently(stream.next()).await.unwrap().unwrap().meta.name().to_owned())
    };
    for (workload, server) in [
        (r#"{"ns":"ns","pod":"web"}"#, "pods"),
        ("ns:web", "pods"),
        (r#"{"ns":"ns","external_workload":"web"}"#, "machines"),
    ] {
        // What was written is known a moment later.
        until("the Server to be told", async || asked(workload).await.as_deref() == Ok(server)).await;
    }
    for (workload, code) in [
        (r#"{"ns":"ns","pod":"nobody"}"#, Code::NotFound),
        ("ns:nobody", Code::NotFound),
        ("other:web", Code::NotFound),
        (r#"{"ns":"ns","external_workload":"nobody"}"#, Code::NotFound),
        ("web", Code::InvalidArgument),
        (r#"{"ns":"ns"}"#, Code::InvalidArgument),
        (r#"{"ns":"ns","pod":"web","external_workload":"web"}"#, Code::InvalidArgument),
    ] {
        assert_eq!(asked(workload).await, Err(code), "{workload}");
    }
    for object in &objects {
        api.remove(object).await;
    }
}

#[tokio::test]
async fn one_of_two_replicas_leads_to_external_workloads() {
    let api = Fake::start().await;
    let replicas = Replica::two(&api, ["first", "second"]).await;
    slices(&api, replicas).await;
}

/// No watch tells that it is gone.
#[tokio::test]
async fn a_slice_that_others_delete_before_a_watch_has_seen_it_is_made_anew() {
    let fake = Fake::start().await;
    let replica = Replica::start(&fake, "gap").await;
    replica.leads(&fake).await;
    let spec = json!({"selector": {"app": "vm"}, "ports": [{"port": 80, "targetPort": 8080}]});
    let service = object("v1", "Service", "vm", json!({"spec": spec}));
    let led = async |to: &[&str]| until(&format!("{to:?}"), async || addresses(&fake).await == to).await;
    fake.put(machine("vm", "192.0.2.1")).await;
    fake.put(service.clone()).await;
    led(&["192.0.2.1"]).await;
    fake.remove(&service).await;
    led(&[]).await;
    // Lists and watches of slices are not answered, and what is written is.
    fake.api.hold_requests(Some("v1/endpointslices"));
    fake.api.cut();
    fake.put(service.clone()).await;
    led(&["192.0.2.1"]).await;
    fake.remove(&fake.api.all("EndpointSlice")[0]).await;
    fake.api.compact();
    fake.api.hold_requests(None);
    led(&["192.0.2.1"]).await;
    replica.stop().await;
}

/// The addresses of all slices.
async fn addresses(api: &impl ApiServer) -> Vec<String> {
    let slices = api.all_of(SLICES, "EndpointSlice", NAMESPACE).await;
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let mut all: Vec<String> = endpoints.map(|of| of["addresses"][0].as_str().unwrap().to_owned()).collect();
    all.sort();
    all
}

/// Of the two the first writes, until it ends.
pub(crate) async fn slices(api: &impl ApiServer, [first, second]: [Replica; 2]) {
    let of = |name: &str, manager: &str, ip: &str| {
        let endpoints = json!([{"addresses": [ip], "conditions": {"ready": true}}]);
        let mut slice =
            object(SLICES, "EndpointSlice", name, json!({"addressType": "IPv4", "ports": [], "endpoints": endpoints}));
        slice["metadata"]["labels"] =
            json!({"kubernetes.io/service-name": "vm", "endpointslice.kubernetes.io/managed-by": manager});
        slice
    };
    let spec =
        json!({"clusterIP": "10.96.77.7", "selector": {"app": "vm"}, "ports": [{"port": 80, "targetPort": 8080}]});
    let service = object("v1", "Service", "vm", json!({"spec": spec}));
    let theirs = of("theirs", "somebody", "192.0.2.99");
    let found = async |is_theirs: bool| {
        let all = api.all_of(SLICES, "EndpointSlice", NAMESPACE).await;
        all.into_iter().find(|slice| (slice["metadata"]["name"] == "theirs") == is_theirs).unwrap()
    };
    let led = async |ip: &str| {
        until(&format!("{ip} to be written"), async || addresses(api).await == [ip, "192.0.2.99"]).await
    };
    for object in [&theirs, &service, &machine("vm", "192.0.2.1")] {
        api.put(object.clone()).await;
    }
    led("192.0.2.1").await;
    let at_first = found(true).await;

    // What others put into ours does not stay.
    let name = found(false).await["metadata"]["name"].as_str().unwrap().to_owned();
    api.put(of(&name, "linkerd-external-workloads-controller", "192.0.2.66")).await;
    led("192.0.2.1").await;

    api.lets_slices_be_written(false).await;
    api.put(machine("vm", "192.0.2.2")).await;
    until("the first to fail again", async || first.writes("failed").await > 1).await;
    api.lets_slices_be_written(true).await;
    led("192.0.2.2").await;
    for result in ["written", "outdated", "failed"] {
        assert_eq!(second.writes(result).await, 0, "{result}: it does not have the lease");
    }

    first.stop().await;
    second.leads(api).await;
    api.put(machine("vm", "192.0.2.3")).await;
    led("192.0.2.3").await;
    assert!(second.writes("written").await > 0);
    api.remove(&machine("vm", "")).await;
    until("the first address to go", async || addresses(api).await == ["192.0.2.99"]).await;
    assert_eq!(found(true).await, at_first, "nobody has written it");
    for object in [&theirs, &service] {
        api.remove(object).await;
    }
    second.stop().await;
}
