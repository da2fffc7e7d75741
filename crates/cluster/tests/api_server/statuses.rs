//! Statuses that are planned from what an API server says, and written to it.

use super::lab::{ApiServer, Lab, NAMESPACE, server, service};
use serde_json::{Value, json};
use weft_cluster::{
    Key, Kind,
    k8s::jiff::Timestamp,
    kubernetes::{Written, write_status},
    policy::{
        KINDS,
        status::{CONTROLLER, Patch},
    },
};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn statuses_stand_on_their_objects() {
    statuses(&FakeApi::start().await.unwrap()).await;
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn route(kind: &str, name: &str, port: u16, backend: Value) -> Value {
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": port});
    object(kind, name, json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]}))
}

fn limit(name: &str, of: &str, second: u8) -> Value {
    let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": of});
    let mut limit =
        object("HTTPLocalRateLimitPolicy", name, json!({"targetRef": target, "total": {"requestsPerSecond": 9}}));
    limit["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{second:02}Z"));
    limit
}

fn egress(name: &str, net: &str) -> Value {
    object("EgressNetwork", name, json!({"trafficPolicy": "Allow", "networks": [{"cidr": net}]}))
}

/// A condition as others write it.
fn of_others(what: &str) -> Value {
    json!({"type": what, "status": "True", "reason": what, "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

/// The reasons of our conditions, each of which is of the object as it is now, of its parent as it is written.
fn reasons(object: &Value) -> Vec<String> {
    let (status, generation) = (&object["status"], object["metadata"]["generation"].as_i64().unwrap_or_default());
    let of = |conditions: &Value| {
        let ours = conditions.as_array().into_iter().flatten().filter(|condition| **condition != of_others("Ready"));
        let reason = |condition: &Value| {
            assert_eq!(condition["observedGeneration"], generation, "{object}");
            condition["reason"].as_str().unwrap().to_owned()
        };
        ours.map(reason).collect::<Vec<_>>()
    };
    let Some(parents) = status["parents"].as_array() else { return of(&status["conditions"]) };
    let ours: Vec<_> = parents.iter().filter(|entry| entry["controllerName"] == CONTROLLER).collect();
    let written: Vec<_> = ours.iter().map(|entry| entry["parentRef"].clone()).collect();
    assert_eq!(json!(written), object["spec"]["parentRefs"], "{object}");
    ours.iter().flat_map(|entry| of(&entry["conditions"])).collect()
}

async fn one(api: &impl ApiServer, kind: &str, name: &str) -> Value {
    let all = api.all_of(kind).await;
    all.into_iter().find(|object| object["metadata"]["name"] == name).unwrap()
}

/// What is planned from objects as the API server gives them is written, stands on them, and is then planned no more.
pub(crate) async fn statuses(api: &impl ApiServer) {
    let kinds: Vec<Kind> = [Kind::Service].into_iter().chain(KINDS).collect();
    let (lab, client) = (Lab::of(api, &kinds).await, api.client().await);
    let mut web = service();
    web["spec"]["ports"] = json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]);
    let known = json!({"name": "web", "port": 80});
    let mut lost = route("HTTPRoute", "lost", 80, json!({"name": "gone", "port": 80}));
    let theirs = json!({
        "parentRef": lost["spec"]["parentRefs"][0], "controllerName": "example.com/other", "conditions": [of_others("Ready")],
    });
    lost["status"] = json!({"parents": [theirs]});
    let mut inside = egress("inside", "10.0.0.0/8");
    inside["status"] = json!({"conditions": [of_others("Ready")]});
    let mine = object(
        "HTTPRoute",
        "mine",
        json!({"parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "s"}]}),
    );
    let mut older = object("HTTPRoute", "older", json!({"parentRefs": [{"kind": "Server", "name": "s"}]}));
    older["apiVersion"] = json!("policy.linkerd.io/v1alpha1");
    let objects: Vec<(Value, &[&str])> = vec![
        (web, &[]),
        (server("s", "deny"), &[]),
        (mine, &["Accepted"]),
        (older, &["Accepted"]),
        (lost.clone(), &["Accepted", "BackendNotFound"]),
        (
            route("HTTPRoute", "odd", 80, json!({"group": "example.com", "kind": "Bucket", "name": "b", "port": 80})),
            &["Accepted", "InvalidKind"],
        ),
        (route("GRPCRoute", "first", 81, known.clone()), &["Accepted", "ResolvedRefs"]),
        (route("HTTPRoute", "second", 81, known), &["RouteReasonConflicted", "ResolvedRefs"]),
        (limit("nobodys", "gone", 1), &["NoMatchingTarget"]),
        (limit("z", "s", 2), &["Accepted"]),
        (limit("a", "s", 3), &["RateLimitReasonAlreadyExists"]),
        (egress("outside", "192.0.2.0/24"), &["Accepted"]),
        (inside, &["EgressReasonNetworkOverlap"]),
    ];
    let mut versions = vec![];
    for (object, _) in &objects {
        versions.push(api.written(object.clone()).await);
    }
    lab.until("the objects", |fed| fed.has_versions(&versions)).await;
    let planned = || lab.fed.lock().statuses.wanted(Timestamp::now());
    let settled = || lab.until("what was written is there", |fed| fed.statuses.wanted(Timestamp::now()).is_empty());
    let plan = planned();
    let wanted = objects.iter().filter(|(_, reasons)| !reasons.is_empty()).count();
    assert_eq!(plan.len(), wanted, "{plan:#?}");

    // It is another object by now.
    let of_lost = |plan: Vec<Patch>| plan.into_iter().find(|patch| patch.key.name == "lost").unwrap();
    let stale = of_lost(plan);
    lost["spec"]["hostnames"] = json!(["web.example.com"]);
    let version = api.written(lost.clone()).await;
    lab.until("the change", |fed| fed.has_versions(std::slice::from_ref(&version))).await;
    assert_eq!(write_status(&client, &stale).await, Written::Outdated);
    assert_eq!(one(api, "HTTPRoute", "lost").await["status"], lost["status"], "nothing of it was written");

    for patch in planned() {
        assert_eq!(write_status(&client, &patch).await, Written::Done, "{patch:?}");
    }
    settled().await;
    for (object, expected) in &objects {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let found = one(api, kind, name).await;
        assert_eq!(reasons(&found), *expected, "{kind} {name}: {found}");
    }
    // What others say stays, word for word.
    assert_eq!(one(api, "HTTPRoute", "lost").await["status"]["parents"][0], lost["status"]["parents"][0]);
    assert_eq!(one(api, "EgressNetwork", "inside").await["status"]["conditions"][0], of_others("Ready"));

    // What a status depends on changes: it is written once more.
    let mut gone = service();
    (gone["metadata"]["name"], gone["spec"]["clusterIP"]) = (json!("gone"), json!("10.96.77.2"));
    let version = api.written(gone).await;
    lab.until("the backend", |fed| fed.has_versions(std::slice::from_ref(&version))).await;
    let [patch] = &planned()[..] else { panic!("one status: {:?}", planned()) };
    assert_eq!(write_status(&client, patch).await, Written::Done);
    settled().await;
    assert_eq!(reasons(&one(api, "HTTPRoute", "lost").await), ["Accepted", "ResolvedRefs"]);
    assert_eq!(write_status(&client, patch).await, Written::Outdated, "somebody was first, here we ourselves");

    for (kind, name) in [("HTTPRoute", "lost"), ("Service", "gone")] {
        api.remove(kind, name).await;
    }
    assert_eq!(write_status(&client, patch).await, Written::Outdated, "nobody is there");
    for (object, _) in &objects {
        api.remove(object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()).await;
    }
    lab.until("nothing is left", |fed| !fed.objects.keys().any(|key: &Key| key.namespace == NAMESPACE)).await;
    lab.end().await;
}
