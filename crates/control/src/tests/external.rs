//! ExternalWorkloads, from the fake API server to proxies, and back into it as slices.

use super::{
    kubernetes::{Lab, destination},
    lab::patiently,
};
use crate::diagnostics::{Asking, Row};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use weft_cluster::index::WorkloadKind;
use weft_model::EndpointUpdate;
use weft_testkit::api_server::{Failure, FakeApi};

const DB: &str = "db.shop.svc.cluster.local:5432";

fn service() -> Value {
    json!({"kind": "Service", "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "selector": {"app": "db"},
            "ports": [{"name": "sql", "port": 5432, "targetPort": "sql", "protocol": "TCP"}]}})
}

fn workload(ip: &str, ready: &str) -> Value {
    json!({"kind": "ExternalWorkload", "metadata": {"name": "vm", "namespace": "shop", "labels": {"app": "db"}},
        "spec": {"meshTLS": {"identity": "spiffe://root.local/db", "serverName": "db.local"},
            "ports": [{"name": "sql", "port": 5433}], "workloadIPs": [{"ip": ip}]},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn objects(api: &FakeApi) {
    api.put(service());
    api.put(workload("192.0.2.1", "True"));
}

async fn ready(name: &str, api: FakeApi) -> Lab {
    let lab = Lab::start(name, api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    lab
}

/// The addresses of all slices, each with whether it is ready.
fn addresses(api: &FakeApi) -> Vec<(String, bool)> {
    let slices = api.all("EndpointSlice");
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let address = |endpoint: &Value| {
        (endpoint["addresses"][0].as_str().unwrap().to_owned(), endpoint["conditions"]["ready"] == true)
    };
    endpoints.map(address).collect()
}

/// Waits until there are these.
async fn led(api: &FakeApi, wanted: &[(&str, bool)]) {
    let wanted: Vec<(String, bool)> = wanted.iter().map(|(ip, ready)| ((*ip).to_owned(), *ready)).collect();
    patiently(async {
        while addresses(api) != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn writes(api: &FakeApi) -> usize {
    api.requests().iter().filter(|r| r.method != "GET" && r.path.contains("/endpointslices")).count()
}

#[tokio::test]
async fn a_service_leads_to_external_workloads_and_their_proxies_are_told_who_may_call() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let lab = ready("external", api).await;
    let mut client = weft_wire::destination::Client::new(lab.channel("destination").await);
    let mut stream = client.get(DB, r#"{"ns":"shop","pod":"web-1"}"#).await.unwrap();
    let endpoints = patiently(async {
        loop {
            // At first there may be no slice yet.
            if let EndpointUpdate::Add(endpoints) = stream.next().await.unwrap().unwrap() {
                return endpoints;
            }
        }
    })
    .await;
    let tls = endpoints[0].tls.as_ref().unwrap();
    assert_eq!(endpoints[0].addr.to_string(), "192.0.2.1:5433");
    assert_eq!((tls.identity.as_str(), tls.server_name.as_str()), ("spiffe://root.local/db", "db.local"));
    assert_eq!(endpoints[0].labels["external_workload"], "vm");
    let lease = lab.api.get("Lease", "linkerd", "linkerd-destination-endpoint-write").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "pod");
    assert_eq!(writes(&lab.api), 1);

    // People are told the same.
    let asking = async |name: &str| Asking::new(TcpStream::connect(lab.addr(name)).await.unwrap()).await.unwrap();
    let rows = patiently(async {
        loop {
            let asked = asking("destination").await;
            let rows = asked.endpoints(&[DB.to_owned()], "", Duration::from_secs(2)).await.unwrap();
            if !rows.is_empty() {
                return rows;
            }
        }
    })
    .await;
    let [Row { pod, port: 5433, .. }] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!(pod, "vm");
    let policy = asking("policy").await.inbound("shop", WorkloadKind::ExternalWorkload, "vm", 5433).await.unwrap();
    assert!(policy.contains("all-unauthenticated"), "{policy}");

    let mut policies = weft_wire::inbound::Client::new(lab.channel("policy").await);
    let mut inbound = policies.watch_port(r#"{"ns":"shop","external_workload":"vm"}"#, 5433).await.unwrap();
    assert_eq!(patiently(inbound.next()).await.unwrap().unwrap().meta.name(), "all-unauthenticated");
    lab.api.put(json!({"kind": "Server", "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"externalWorkloadSelector": {"matchLabels": {"app": "db"}}, "port": "sql"}}));
    let policy = patiently(inbound.next()).await.unwrap().unwrap();
    assert_eq!((policy.meta.name(), policy.authorizations.len()), ("db", 0));
    lab.api.put(json!({"kind": "ServerAuthorization", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"server": {"name": "db"}, "client": {"meshTLS": {"serviceAccounts": [{"name": "web"}]}}}}));
    assert_eq!(patiently(inbound.next()).await.unwrap().unwrap().authorizations.len(), 1);

    // While a mistake stands on it, it is behind no Service, and lets in nobody.
    let mut misspelt = workload("192.0.2.1", "True");
    misspelt["metadata"]["annotations"] = json!({"config.linkerd.io/default-inbound-policy": "denyy"});
    lab.api.put(misspelt);
    let policy = patiently(inbound.next()).await.unwrap().unwrap();
    assert_eq!((policy.meta.name(), policy.all_authorizations().count()), ("deny", 0));
    led(&lab.api, &[]).await;
    lab.api.put(workload("192.0.2.1", "True"));
    assert_eq!(patiently(inbound.next()).await.unwrap().unwrap().authorizations.len(), 1);
    led(&lab.api, &[("192.0.2.1", true)]).await;
    let before = writes(&lab.api);

    // It changes, is not ready, and is gone.
    lab.api.put(workload("192.0.2.2", "True"));
    led(&lab.api, &[("192.0.2.2", true)]).await;
    lab.api.put(workload("192.0.2.2", "False"));
    led(&lab.api, &[("192.0.2.2", false)]).await;
    // One that was planned from what was known before is refused, and made anew.
    let since = writes(&lab.api) - before;
    assert!((2..=5).contains(&since), "{since} writes for two changes");
    lab.api.delete("ExternalWorkload", "shop", "vm");
    led(&lab.api, &[]).await;
    assert!(lab.api.all("EndpointSlice").is_empty());
    let end = patiently(async {
        loop {
            if let Err(error) = inbound.next().await.unwrap() {
                return error;
            }
        }
    })
    .await;
    assert!(end.to_string().contains("there is no ExternalWorkload shop/vm"), "{end}");
}

#[tokio::test]
async fn slices_of_others_stay_and_what_is_put_into_ours_does_not() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let theirs = json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [], "endpoints": [{"addresses": ["192.0.2.99"],
        "conditions": {"ready": true}}], "metadata": {"name": "a", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "db", "endpointslice.kubernetes.io/managed-by": "somebody"}}});
    api.put(theirs);
    let lab = ready("slices", api).await;
    let both = [("192.0.2.99", true), ("192.0.2.1", true)];
    led(&lab.api, &both).await;
    let mut ours = lab.api.all("EndpointSlice").remove(1);
    ours["endpoints"] = json!([]);
    lab.api.put(ours);
    led(&lab.api, &both).await;
    lab.api.delete("Service", "shop", "db");
    led(&lab.api, &both[..1]).await;
}

#[tokio::test]
async fn what_cannot_be_written_is_tried_again() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let lab = ready("slices-again", api).await;
    led(&lab.api, &[("192.0.2.1", true)]).await;
    // The watches go on.
    lab.api.fail(Some(Failure::Status(500)));
    lab.api.put(workload("192.0.2.2", "True"));
    let failed = "weft_slice_writes_total{result=\"failed\"} ";
    let again = |_: u16, text: &str| {
        let count = text.lines().find_map(|line| line.strip_prefix(failed)?.parse::<u32>().ok());
        count.is_some_and(|count| count > 1)
    };
    lab.until("/metrics", again).await;
    lab.api.fail(None);
    led(&lab.api, &[("192.0.2.2", true)]).await;
}

#[tokio::test]
async fn who_does_not_hold_the_lease_writes_no_slice() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let lease = |holder: &str| {
        json!({"kind": "Lease", "metadata": {"name": "linkerd-destination-endpoint-write", "namespace": "linkerd"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3600}})
    };
    api.put(lease("another"));
    let lab = ready("no-lease-of-slices", api).await;
    let path = "/leases/linkerd-destination-endpoint-write";
    lab.api.asked(|r| r.method == "GET" && r.path.ends_with(path)).await.unwrap();
    // It answers all the same, from what another one has written.
    let mut policies = weft_wire::inbound::Client::new(lab.channel("policy").await);
    let mut inbound = policies.watch_port(r#"{"ns":"shop","external_workload":"vm"}"#, 5433).await.unwrap();
    patiently(inbound.next()).await.unwrap().unwrap();
    assert_eq!(writes(&lab.api), 0);
    lab.api.put(lease(""));
    led(&lab.api, &[("192.0.2.1", true)]).await;
    let asked = lab.api.requests();
    let taken = asked.iter().position(|r| r.method != "GET" && r.path.ends_with(path));
    let written = asked.iter().position(|r| r.method != "GET" && r.path.contains("/endpointslices"));
    assert!(taken.is_some() && taken < written, "{asked:?}");
}
