//! What holds on every API server.

use super::lab::{ApiServer, LONG, Lab, NAMESPACE, pod, server, service, settings, slice};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_cluster::{
    Event, Index, Kind, Object,
    external_workload::Change,
    index::{Question, Target, WorkloadKind},
    kubernetes::{self, AUDIENCE, Account, Tokens, Written, write_slice},
};
use weft_testkit::api_server::FakeApi;

/// Service `web` with one pod behind it.
pub(crate) async fn web(api: &impl ApiServer) {
    for object in [service(), pod("a", "10.1.0.1"), slice("web-1", &[("a", "10.1.0.1")])] {
        api.write(object).await;
    }
}

#[tokio::test]
async fn objects_become_answers() {
    answers(&FakeApi::start().await.unwrap()).await;
}

pub(crate) async fn answers(api: &impl ApiServer) {
    web(api).await;
    let lab = Lab::synced(api).await;
    assert_eq!(lab.fed.lock().addresses(), ["10.1.0.1:8080"]);
    let before = lab.fed.lock().batches.len();
    api.write(slice("web-1", &[("a", "10.1.0.1"), ("b", "10.1.0.2")])).await;
    lab.until("slice", |fed| fed.batches.len() > before).await;
    assert_eq!(lab.fed.lock().addresses(), ["10.1.0.1:8080"], "pod b is not known yet");
    api.write(pod("b", "10.1.0.2")).await;
    lab.until("pod b", |fed| fed.addresses() == ["10.1.0.1:8080", "10.1.0.2:8080"]).await;
    api.remove("Pod", "a").await;
    lab.until("pod a gone", |fed| fed.addresses() == ["10.1.0.2:8080"]).await;
    api.remove("Service", "web").await;
    lab.until("service gone", |fed| fed.addresses().is_empty()).await;
    assert_eq!(lab.fed.lock().synced, 1);
    for (kind, name) in [("Pod", "b"), ("EndpointSlice", "web-1")] {
        api.remove(kind, name).await;
    }
    lab.end().await;
}

#[tokio::test]
async fn the_index_ends_at_the_objects() {
    history(&FakeApi::start().await.unwrap(), 300).await;
}

/// Random changes: in the end only the objects count.
pub(crate) async fn history(api: &impl ApiServer, steps: u64) {
    let mut random: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = |n: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap_or(0) % n
    };
    web(api).await;
    let lab = Lab::synced(api).await;
    for _ in 0..steps {
        let name = ["a", "b", "c"][next(3)];
        let ip = format!("10.1.0.{}", 1 + next(3));
        match next(11) {
            0..5 => api.write(pod(name, &ip)).await,
            5..8 => api.remove("Pod", name).await,
            8..10 => api.write(slice(&format!("web-{}", next(2)), &[(name, &ip)])).await,
            _ => api.remove("EndpointSlice", "web-1").await,
        }
    }
    for object in [pod("mark", "10.9.0.9"), slice("mark", &[])] {
        api.write(object).await;
    }
    lab.until("all was seen", |fed| fed.has(Kind::EndpointSlice, "mark") && fed.addressed("mark")).await;
    compare(&lab).await;
    lab.end().await;
}

#[tokio::test]
async fn policies_hold_as_soon_as_their_kinds_are_known() {
    let api = FakeApi::start().await.unwrap();
    for kind in ["Server", "ServerAuthorization", "MeshTLSAuthentication"] {
        api.define(kind, &[]);
    }
    policies(&api).await;
}

/// At first the mesh's own kinds are not defined.
pub(crate) async fn policies(api: &impl ApiServer) {
    web(api).await;
    let lab = Lab::synced(api).await;
    let served = |name: &str, clients: usize| (name.to_owned(), clients);
    assert_eq!(lab.fed.lock().served(), served("all-unauthenticated", 1));
    api.define_kinds().await;
    api.write(server("web", "deny")).await;
    lab.until("the Server", |fed| fed.served() == served("web", 0)).await;
    api.write(server("web", "all-authenticated")).await;
    lab.until("another access", |fed| fed.served() == served("web", 1)).await;
    api.write(json!({"kind": "ServerAuthorization", "metadata": {"name": "z", "namespace": NAMESPACE},
        "spec": {"server": {"name": "web"}, "client": {"meshTLS": {"unauthenticatedTLS": true}}}}))
        .await;
    lab.until("the authorization", |fed| fed.served() == served("web", 2)).await;
    api.remove("Server", "web").await;
    lab.until("no Server", |fed| fed.served() == served("all-unauthenticated", 1)).await;
    api.remove("ServerAuthorization", "z").await;
    lab.end().await;
}

#[tokio::test]
async fn slices_lead_to_external_workloads() {
    slices(&FakeApi::start().await.unwrap()).await;
}

fn external(ip: &str, ready: bool) -> Value {
    json!({"kind": "ExternalWorkload", "metadata": {"name": "vm", "namespace": NAMESPACE, "labels": {"app": "web"}},
        "spec": {"meshTLS": {"identity": "spiffe://root.local/vm", "serverName": "vm.local"}, "ports": [{"port": 8080}],
            "workloadIPs": [{"ip": ip}]},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
}

/// What is planned from objects as the API server gives them is written, is what its slices are, and is then planned no more.
pub(crate) async fn slices(api: &impl ApiServer) {
    api.define_kinds().await;
    // Nothing else is behind it.
    for (kind, name) in [("Pod", "a"), ("EndpointSlice", "web-1")] {
        api.remove(kind, name).await;
    }
    api.write(service()).await;
    let (lab, client) = (Lab::synced(api).await, api.client().await);
    let planned = async |what: &str| {
        lab.until(what, |fed| !fed.slices.wanted().is_empty()).await;
        lab.planned().remove(0)
    };
    // Once the watch has told what was written.
    let settled = async |what: &str, addresses: &[&str]| {
        lab.until(what, |fed| fed.addresses() == addresses && fed.slices.wanted().is_empty()).await;
    };
    let written = async |change: &Change| write_slice(&client, change).await.0;
    // On a real server it is there before its status is: not ready either way.
    api.write(external("192.0.2.1", false)).await;
    let create = planned("the workload").await;
    assert!(matches!(create, Change::Create(_)), "{create:?}");
    assert_eq!(written(&create).await, Written::Done);
    settled("its slice", &[]).await;
    api.write(external("192.0.2.1", true)).await;
    assert_eq!(written(&planned("ready").await).await, Written::Done);
    settled("who is ready", &["192.0.2.1:8080"]).await;
    let [slice] = &api.all_of("EndpointSlice").await[..] else { panic!("one slice") };
    let metadata = &slice["metadata"];
    assert!(metadata["name"].as_str().unwrap().starts_with("linkerd-external-web-"), "{metadata}");
    let manager = &metadata["labels"]["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(*manager, json!("linkerd-external-workloads-controller"));

    api.write(external("192.0.2.2", true)).await;
    let stale = planned("another address").await;
    assert_eq!(written(&stale).await, Written::Done);
    settled("the address", &["192.0.2.2:8080"]).await;
    // Somebody was first, here we ourselves.
    assert_eq!(written(&stale).await, Written::Outdated);
    api.write(external("192.0.2.2", false)).await;
    assert_eq!(written(&planned("not ready").await).await, Written::Done);
    settled("nobody is ready", &[]).await;
    api.remove("ExternalWorkload", "vm").await;
    let delete = planned("the workload is gone").await;
    assert!(matches!(delete, Change::Delete { .. }), "{delete:?}");
    assert_eq!(written(&delete).await, Written::Done);
    settled("the slice is gone", &[]).await;
    assert!(api.all_of("EndpointSlice").await.is_empty());
    assert_eq!(written(&delete).await, Written::Done, "it is gone, whoever has deleted it");
    api.remove("Service", "web").await;
    lab.end().await;
}

#[tokio::test]
async fn one_of_several_holds_a_lease_and_gives_it_back() {
    let api = FakeApi::start().await.unwrap();
    let mut deployment = holder();
    deployment["metadata"]["uid"] = json!("0c9");
    api.put(deployment);
    leases(&api).await;
}

/// The Deployment whose pods hold the lease.
pub(crate) fn holder() -> Value {
    let labels = json!({"app": "holder"});
    let pod = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "holder", "image": "holder"}]}});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "holder", "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": pod}})
}

/// [`holder`] is there.
pub(crate) async fn leases(api: &impl ApiServer) {
    let client = api.client().await;
    let hold = |me: &str| {
        let lease =
            kubernetes::Lease { namespace: NAMESPACE.into(), name: "write".into(), me: me.into(), of: "holder".into() };
        let ((sender, holds), stop) = (watch::channel(false), CancellationToken::new());
        let task = tokio::spawn(kubernetes::hold(client.clone(), lease, sender, stop.clone()));
        (holds, stop, task)
    };
    let spec = async || api.all_of("Lease").await[0]["spec"].clone();
    let (mut first, stop_first, task_first) = hold("a");
    tokio::time::timeout(LONG, first.wait_for(|h| *h)).await.unwrap().unwrap();
    assert_eq!(spec().await["holderIdentity"], "a");
    // The cluster takes it away with the Deployment, whoever takes that away.
    let owner = api.all_of("Lease").await[0]["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["name"]), (&"Deployment".into(), &"holder".into()), "{owner}");
    assert!(owner["uid"].as_str().is_some_and(|uid| !uid.is_empty()), "{owner}");
    let (mut second, stop_second, task_second) = hold("b");
    stop_first.cancel();
    task_first.await.unwrap();
    assert!(!*first.borrow());
    tokio::time::timeout(LONG, second.wait_for(|h| *h)).await.unwrap().unwrap();
    assert_eq!((&spec().await["holderIdentity"], &spec().await["leaseTransitions"]), (&"b".into(), &3.into()));
    stop_second.cancel();
    task_second.await.unwrap();
    assert_eq!(spec().await["holderIdentity"], "");
}

#[tokio::test]
async fn tokens_are_worth_their_account_for_their_audience() {
    tokens(&FakeApi::start().await.unwrap()).await;
}

pub(crate) async fn tokens(api: &impl ApiServer) {
    let tokens = Tokens::new(api.client().await);
    let account = tokens.account(&api.token_for(AUDIENCE).await).await;
    assert_eq!(account, Ok(Account { namespace: NAMESPACE.into(), name: "web".into() }));
    for other in [api.token_for("https://kubernetes.default.svc").await, "guessed".to_owned()] {
        assert!(tokens.account(&other).await.is_err(), "{other}");
    }
}

/// The index that was fed answers as one that is told the final objects alone.
pub(crate) async fn compare<A: ApiServer>(lab: &Lab<'_, A>) {
    let mut fresh = Index::new(settings());
    for value in lab.api.all_of("Pod").await {
        fresh.apply(Event::Apply(Object::Pod(serde_json::from_value(value).unwrap())));
    }
    for value in lab.api.all_of("Service").await {
        fresh.apply(Event::Apply(Object::Service(serde_json::from_value(value).unwrap())));
    }
    for value in lab.api.all_of("EndpointSlice").await {
        fresh.apply(Event::Apply(Object::EndpointSlice(serde_json::from_value(value).unwrap())));
    }
    let mut questions = vec![Question::Destination("web.ns.svc.cluster.local:80".parse().unwrap())];
    for i in 1..4 {
        let target = Target::Addr(format!("10.1.0.{i}:8080").parse().unwrap());
        questions.push(Question::Profile { from: "ns".to_owned(), target });
    }
    for pod in ["a", "b", "c"] {
        questions.push(Question::Inbound {
            namespace: "ns".into(),
            of: WorkloadKind::Pod,
            name: pod.into(),
            port: 8080,
        });
    }
    let fed = lab.fed.lock();
    for question in questions {
        assert_eq!(fed.index.answer(&question), fresh.answer(&question), "{question:?}");
    }
}
