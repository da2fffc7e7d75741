//! The processes of Kubernetes against the fake API server: the laboratory, and what `destination` does.

use super::{lab::patiently, webhook};
use crate::kubernetes::{self, Common, Destination, Mode, Running, Validator};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use weft_model::{
    EndpointUpdate,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::{BackendKind, ClientProtocol},
    },
};
use weft_testkit::api_server::{Failure, FakeApi, GATEWAY_HTTP_ROUTE, Request};
use weft_wire::{Error, outbound::Target, work::WorkSpec};

pub(super) struct Lab {
    pub(super) api: FakeApi,
    pub(super) dir: PathBuf,
    addresses: Vec<(&'static str, SocketAddr)>,
    /// Until a test ends it.
    pub(super) running: Option<Running>,
}

impl Lab {
    pub(super) async fn start(name: &str, api: FakeApi, mode: impl FnOnce(&Path) -> Mode) -> Self {
        let dir = std::env::temp_dir().join(format!("weft-kubernetes-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("kubeconfig"), api.kubeconfig()).unwrap();
        let common = Common {
            admin: free(),
            control_namespace: "linkerd".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            kubeconfig: Some(dir.join("kubeconfig")),
            instance: "pod".to_owned(),
        };
        let running = kubernetes::start(common, mode(&dir)).await.unwrap();
        Self { api, dir, addresses: running.addresses.clone(), running: Some(running) }
    }

    pub(super) fn addr(&self, name: &str) -> SocketAddr {
        self.addresses.iter().find(|(n, _)| *n == name).unwrap().1
    }

    pub(super) async fn channel(&self, name: &str) -> Channel {
        let uri = format!("http://{}", self.addr(name));
        patiently(tonic::transport::Endpoint::from_shared(uri).unwrap().connect()).await.unwrap()
    }

    pub(super) async fn admin(&self, path: &str) -> (u16, String) {
        let mut tcp = TcpStream::connect(self.addr("admin")).await.unwrap();
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if path == "/metrics" {
            assert_eq!(weft_testkit::exposition::mistakes(body), [""; 0], "{body}");
        }
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until the admin server says of `path` what `is` wants.
    pub(super) async fn until(&self, path: &str, is: impl Fn(u16, &str) -> bool) {
        patiently(async {
            loop {
                let (status, body) = self.admin(path).await;
                if is(status, &body) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(super) fn free() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(super) async fn event(api: &FakeApi, is: impl Fn(Vec<Value>) -> bool) {
    patiently(async {
        while !is(api.all("Event")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

pub(super) fn destination(dir: &Path) -> Mode {
    Mode::Destination(Destination {
        destination: free(),
        policy: free(),
        default_policy: DefaultPolicy::AllUnauthenticated,
        opaque_ports: vec![3306],
        cluster_networks: vec!["10.0.0.0/8".parse().unwrap()],
        probe_networks: vec!["0.0.0.0/0".parse().unwrap()],
        h2_upgrade: true,
        ipv6: false,
        zone_weights: false,
        request_headers: false,
        profile_validator: Some(validator(dir, "profiles")),
        policy_validator: Some(validator(dir, "policies")),
    })
}

fn validator(dir: &Path, name: &str) -> Validator {
    let tls = dir.join(name);
    std::fs::create_dir_all(&tls).unwrap();
    webhook::write(&tls, &webhook::pair());
    Validator { addr: free(), tls }
}

fn node(zone: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": zone}}})
}

pub(super) fn objects(api: &FakeApi) {
    api.put(node("east"));
    api.put(json!({"kind": "Service", "metadata": {"name": "web", "namespace": "emojivoto"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}}));
    api.put(json!({"kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "emojivoto", "labels": {"linkerd.io/control-plane-ns": "linkerd"},
            "annotations": {"config.linkerd.io/default-inbound-policy": "deny"}},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web"}]},
        "status": {"phase": "Running", "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}}));
    api.put(slice(&["10.1.0.1"]));
}

fn slice(ips: &[&str]) -> Value {
    let endpoints: Vec<Value> = ips
        .iter()
        .map(|ip| {
            json!({"addresses": [ip], "nodeName": "n1", "zone": "east",
            "targetRef": {"kind": "Pod", "namespace": "emojivoto", "name": "web-1"}})
        })
        .collect();
    json!({"kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
        "metadata": {"name": "web-x", "namespace": "emojivoto", "labels": {"kubernetes.io/service-name": "web"}}})
}

#[tokio::test]
async fn destination_and_policy_answer_from_the_api_server() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    api.fail(Some(Failure::Status(503)));
    let lab = Lab::start("destination", api, destination).await;
    assert_eq!(lab.admin("/live").await.0, 200);
    assert_eq!(lab.admin("/ping").await, (200, "pong\n".to_owned()));
    let (status, body) = lab.admin("/ready").await;
    assert_eq!((status, body.as_str()), (503, "not ready: watches\n"), "nothing is guessed before the first list");
    let mut client = weft_wire::destination::Client::new(lab.channel("destination").await);
    match client.get("web.emojivoto.svc.cluster.local:80", "").await {
        Err(Error::Rpc(status)) => assert_eq!(status.code(), Code::Unavailable),
        other => panic!("{:?}", other.is_ok()),
    }
    lab.api.fail(None);
    lab.until("/ready", |status, _| status == 200).await;

    let context = r#"{"ns":"emojivoto","nodeName":"n1","pod":"web-1"}"#;
    let mut stream = client.get("web.emojivoto.svc.cluster.local:80", context).await.unwrap();
    let EndpointUpdate::Add(endpoints) = patiently(stream.next()).await.unwrap().unwrap() else { panic!() };
    assert_eq!(endpoints[0].addr.to_string(), "10.1.0.1:8080");
    assert_eq!(endpoints[0].labels["zone_locality"], "local");
    assert!(endpoints[0].tls.is_some());
    // A node is told of its zone behind the pods that run there.
    lab.api.put(node("west"));
    let EndpointUpdate::Add(endpoints) = patiently(stream.next()).await.unwrap().unwrap() else { panic!() };
    assert_eq!(endpoints[0].labels["zone_locality"], "remote");
    lab.api.put(slice(&[]));
    assert_eq!(patiently(stream.next()).await.unwrap().unwrap(), EndpointUpdate::NoEndpoints { exists: true });

    let mut policies = weft_wire::inbound::Client::new(lab.channel("policy").await);
    let mut stream = policies.watch_port(r#"{"ns":"emojivoto","pod":"web-1"}"#, 8080).await.unwrap();
    assert_eq!(patiently(stream.next()).await.unwrap().unwrap().meta.name(), "deny");
    lab.api.put(json!({"kind": "Server", "metadata": {"name": "web", "namespace": "emojivoto"},
        "spec": {"podSelector": {}, "port": 8080, "accessPolicy": "all-authenticated"}}));
    let policy = patiently(stream.next()).await.unwrap().unwrap();
    assert_eq!((policy.meta.kind(), policy.meta.name(), policy.authorizations.len()), ("server", "web", 1));
    lab.api.delete("Server", "emojivoto", "web");
    assert_eq!(patiently(stream.next()).await.unwrap().unwrap().meta.name(), "deny");
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_kubernetes_objects{kind=\"Pod\"} 1\n"), "{metrics}");
}

/// A pod that runs to an end, whose main container has done so with this exit code.
fn job(uid: &str, policy: &str, ended: Option<i32>) -> Value {
    let state = match ended {
        Some(code) => json!({"terminated": {"exitCode": code}}),
        None => json!({"running": {}}),
    };
    let status = |name: &str, state: &Value| json!({"name": name, "state": state, "ready": false, "restartCount": 0, "image": "", "imageID": ""});
    let statuses = json!([status("main", &state), status("linkerd-proxy", &json!({"running": {}}))]);
    json!({"kind": "Pod",
        "metadata": {"name": "job-1", "namespace": "emojivoto", "uid": uid, "labels": {"linkerd.io/control-plane-ns": "linkerd"}},
        "spec": {"restartPolicy": policy, "containers": [{"name": "linkerd-proxy"}, {"name": "main"}]},
        "status": {"phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}], "containerStatuses": statuses}})
}

#[tokio::test]
async fn a_proxy_is_told_when_the_other_containers_have_ended_for_good() {
    let api = FakeApi::start().await.unwrap();
    api.put(job("first", "OnFailure", Some(1)));
    let lab = Lab::start("work", api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    let spec = |uid: &str| WorkSpec { workload: "emojivoto:job-1".to_owned(), uid: uid.to_owned() };
    let channel = lab.channel("policy").await;
    let watch = async |uid: &str| weft_wire::work::Client::new(channel.clone()).watch(&spec(uid)).await;
    let mut stream = watch("first").await.unwrap();
    let mut next = async || patiently(stream.next()).await.unwrap();
    // What has failed is tried again.
    assert!(!next().await.unwrap().done);
    lab.api.put(job("first", "OnFailure", None));
    lab.api.put(job("first", "OnFailure", Some(0)));
    assert!(next().await.unwrap().done);
    // Another pod of the same name is another, whose proxy goes on.
    lab.api.put(job("second", "Never", None));
    match next().await {
        Err(Error::Rpc(status)) => assert_eq!(status.code(), Code::NotFound),
        other => panic!("{other:?}"),
    }
    let mut stream = watch("second").await.unwrap();
    assert!(!patiently(stream.next()).await.unwrap().unwrap().done);
    lab.api.put(job("second", "Never", Some(1)));
    assert!(patiently(stream.next()).await.unwrap().unwrap().done);
    match watch("first").await.map(drop) {
        Err(Error::Rpc(status)) => assert_eq!(status.code(), Code::NotFound),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn pods_that_were_missed_by_the_webhook_are_named() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let named = |annotations: Value| json!({"kind": "Namespace", "metadata": {"name": "emojivoto", "annotations": annotations}});
    api.put(named(json!({"linkerd.io/inject": "enabled"})));
    let lab = Lab::start("missed", api, destination).await;
    let bare = "weft_control_unmeshed_pod{namespace=\"emojivoto\",pod=\"web-1\"} 1\n";
    lab.until("/metrics", |_, text| text.contains(bare) && text.contains("weft_control_unmeshed_pods 1\n")).await;
    // One with a proxy of another mesh is none of them, however its container is called.
    lab.api.put(
        json!({"kind": "Pod", "metadata": {"name": "theirs", "namespace": "emojivoto"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "sidecar", "image": "gcr.io/istio-release/proxyv2:1.20"}]}}),
    );
    lab.api.put(
        json!({"kind": "Pod", "metadata": {"name": "late", "namespace": "emojivoto"}, "status": {"phase": "Running"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}}),
    );
    lab.until("/metrics", |_, text| text.contains("pod=\"late\"} 1\n")).await;
    lab.until("/metrics", |_, text| text.contains("weft_control_unmeshed_pods 2\n") && !text.contains("theirs")).await;
    lab.api.delete("Pod", "emojivoto", "late");
    lab.api.put(named(json!({})));
    lab.until("/metrics", |_, text| text.contains("weft_control_unmeshed_pods 0\n") && !text.contains(bare)).await;
    lab.api.put(named(json!({"linkerd.io/inject": "ingress"})));
    lab.until("/metrics", |_, text| text.contains(bare)).await;
    lab.api.delete("Pod", "emojivoto", "web-1");
    lab.until("/metrics", |_, text| text.contains("weft_control_unmeshed_pods 0\n")).await;
}

#[tokio::test]
async fn validators_name_what_is_wrong() {
    let lab = Lab::start("validators", FakeApi::start().await.unwrap(), destination).await;
    let asked = async |name: &str, group: &str, kind: &str, object: Value| {
        let request = json!({"uid": "u", "kind": {"group": group, "version": "v1", "kind": kind}, "namespace": "ns", "object": object});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let (status, body) = webhook::post(lab.addr(name), &review.to_string()).await;
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&body).unwrap()["response"].clone()
    };
    let server = |access: &str| json!({"metadata": {"name": "a"}, "spec": {"podSelector": {}, "port": 80, "accessPolicy": access}});
    let group = "policy.linkerd.io";
    assert_eq!(asked("policy-validator", group, "Server", server("deny")).await["allowed"], true);
    let refused = asked("policy-validator", group, "Server", server("open")).await;
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("spec.accessPolicy: \"open\" is no policy; use one of deny, "), "{message}");
    assert_eq!((&refused["allowed"], &refused["status"]["code"]), (&json!(false), &json!(400)));
    let route = json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "a"}]}});
    let warned = asked("policy-validator", "gateway.networking.k8s.io", "UDPRoute", route).await;
    assert_eq!((&warned["allowed"], warned["warnings"].as_array().unwrap().len()), (&json!(true), 1));
    let profile = |spec: Value| json!({"metadata": {"name": "web.ns.svc.cluster.local"}, "spec": spec});
    assert_eq!(asked("profile-validator", "linkerd.io", "ServiceProfile", profile(json!({}))).await["allowed"], true);
    let refused = asked("profile-validator", "linkerd.io", "ServiceProfile", profile(json!({"routes": [{}]}))).await;
    assert_eq!(refused["allowed"], false);
}

fn route(generation: i64, path: &str) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "emojivoto", "generation": generation},
        "spec": {"parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "web"}],
            "rules": [{"matches": [{"path": {"type": "Exact", "value": path}}]}]}})
}

fn server() -> Value {
    json!({"kind": "Server", "metadata": {"name": "web", "namespace": "emojivoto"},
        "spec": {"podSelector": {}, "port": 8080, "proxyProtocol": "HTTP/1"}})
}

fn route_status(api: &FakeApi) -> Value {
    api.get(GATEWAY_HTTP_ROUTE, "emojivoto", "web").unwrap()["status"]["parents"].clone()
}

/// Waits until the status of the route `is` what the test waits for.
async fn reported(lab: &Lab, is: impl Fn(&Value) -> bool) -> Value {
    patiently(async {
        loop {
            let status = route_status(&lab.api);
            if is(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn patches(api: &FakeApi) -> usize {
    api.requests().iter().filter(|r| r.method == "PATCH" && r.path.ends_with("/status")).count()
}

#[tokio::test]
async fn routes_are_served_and_say_what_became_of_them() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    api.put(server());
    api.put(route(1, "/a"));
    let lab = Lab::start("routes", api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    let mut policies = weft_wire::inbound::Client::new(lab.channel("policy").await);
    let mut stream = policies.watch_port(r#"{"ns":"emojivoto","pod":"web-1"}"#, 8080).await.unwrap();
    let mut routes = async || match patiently(stream.next()).await.unwrap().unwrap().protocol {
        ServerProtocol::Http1 { routes, .. } => routes.iter().map(|r| r.meta.name().to_owned()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(routes().await, ["web"]);
    let status = reported(&lab, |status| status[0]["conditions"][0]["status"] == "True").await;
    assert_eq!(status[0]["parentRef"], route(1, "/a")["spec"]["parentRefs"][0], "as it is written");
    assert_eq!(status[0]["controllerName"], "linkerd.io/policy-controller");
    let condition = &status[0]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("Accepted"), &json!(1)));
    let lease = lab.api.get("Lease", "linkerd", "policy-controller-write").unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "pod");

    // Another writer's entry stays, and is no reason to write.
    let mut object = lab.api.get(GATEWAY_HTTP_ROUTE, "emojivoto", "web").unwrap();
    let theirs = json!({"parentRef": {"name": "gateway"}, "controllerName": "example.com/gateway", "conditions": []});
    object["status"]["parents"].as_array_mut().unwrap().insert(0, theirs.clone());
    lab.api.put(object);
    // One that cannot be carried out has no effect, nor what it said before, and says so.
    let mut broken = route(2, "relative");
    broken["status"] = json!({"parents": [theirs, status[0]]});
    lab.api.put(broken);
    assert_eq!(routes().await, ["default"]);
    let status = reported(&lab, |status| status[1]["conditions"][0]["status"] == "False").await;
    let condition = &status[1]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("UnsupportedValue"), &json!(2)));
    assert!(condition["message"].as_str().unwrap().starts_with("spec.rules[0].matches[0].path.value: "), "{condition}");
    assert_eq!(status[0], theirs);
    lab.until("/metrics", |_, text| text.contains("weft_kubernetes_quarantined{kind=\"HTTPRoute\"} 1\n")).await;
    assert_eq!(patches(&lab.api), 2);

    // It is mended, then its Server goes.
    let mut mended = route(3, "/b");
    mended["status"] = json!({"parents": status});
    lab.api.put(mended);
    assert_eq!(routes().await, ["web"]);
    reported(&lab, |status| status[1]["conditions"][0]["observedGeneration"] == 3).await;
    lab.api.delete("Server", "emojivoto", "web");
    let status = reported(&lab, |status| status[1]["conditions"][0]["status"] == "False").await;
    assert_eq!((&status[1]["conditions"][0]["reason"], &status[0]), (&json!("NoMatchingParent"), &theirs));
    assert_eq!(patches(&lab.api), 4, "once for each change");
}

#[tokio::test]
async fn routes_of_services_are_told_to_their_clients_and_say_what_became_of_them() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    let parent = json!({"group": "", "kind": "Service", "name": "web"});
    let modifier = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x"]}});
    let route = |backend: &str, generation: i64| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": "emojivoto", "generation": generation},
            "spec": {"parentRefs": [parent], "rules": [{
                "filters": [modifier], "backendRefs": [{"name": "web", "port": 80}, {"name": backend, "port": 80}]}]}})
    };
    api.put(route("gone", 1));
    let lab = Lab::start("client-routes", api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    let mut policies = weft_wire::outbound::Client::new(lab.channel("policy").await);
    let target = Target::Authority("web.emojivoto.svc.cluster.local:80".to_owned());
    let mut stream = policies.watch(r#"{"ns":"emojivoto","pod":"web-1"}"#, target).await.unwrap();
    // How many backends there are, and how many of them are none.
    let mut told = async || match patiently(stream.next()).await.unwrap().unwrap().protocol {
        ClientProtocol::Detect { http1, .. } => {
            let backends = &http1.routes[0].rules[0].does.backends;
            let none = backends.iter().filter(|b| b.backend.kind == BackendKind::Missing && b.filters.len() == 1);
            (http1.routes[0].meta.name().to_owned(), backends.iter().count(), none.count())
        }
        ClientProtocol::Grpc { routes, .. } => (routes[0].meta.name().to_owned(), 0, 0),
        other => panic!("{other:?}"),
    };
    assert_eq!(told().await, ("web".to_owned(), 2, 1));
    let reasons = |status: &Value| {
        let conditions = status[0]["conditions"].as_array().into_iter().flatten();
        conditions.map(|condition| condition["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let status = reported(&lab, |status| reasons(status) == ["Accepted", "BackendNotFound"]).await;
    assert_eq!(status[0]["parentRef"], parent, "as it is written");
    let mut there = lab.api.get("Service", "emojivoto", "web").unwrap();
    there["metadata"] = json!({"name": "gone", "namespace": "emojivoto"});
    there["spec"]["clusterIP"] = json!("None");
    there["spec"].as_object_mut().unwrap().remove("clusterIPs");
    lab.api.put(there);
    assert_eq!(told().await, ("web".to_owned(), 2, 0));
    reported(&lab, |status| reasons(status) == ["Accepted", "ResolvedRefs"]).await;
    // Routes of gRPC take the port for themselves, and what their messages cannot say costs the policy nothing else.
    let mut calls = route("gone", 1);
    calls["kind"] = json!("GRPCRoute");
    calls["metadata"]["name"] = json!("calls");
    lab.api.put(calls);
    assert_eq!(told().await, ("calls".to_owned(), 0, 0));
    reported(&lab, |status| reasons(status) == ["RouteReasonConflicted", "ResolvedRefs"]).await;
    lab.api.delete("GRPCRoute", "emojivoto", "calls");
    assert_eq!(told().await, ("web".to_owned(), 2, 0));
    lab.api.delete(GATEWAY_HTTP_ROUTE, "emojivoto", "web");
    assert_eq!(told().await.0, "http");
}

#[tokio::test]
async fn who_does_not_hold_the_lease_writes_no_status() {
    let api = FakeApi::start().await.unwrap();
    objects(&api);
    api.put(server());
    api.put(route(1, "/a"));
    let lease = |holder: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "policy-controller-write", "namespace": "linkerd"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 3600}})
    };
    api.put(lease("another"));
    let lab = Lab::start("no-lease", api, destination).await;
    lab.until("/ready", |status, _| status == 200).await;
    // It answers all the same.
    let mut policies = weft_wire::inbound::Client::new(lab.channel("policy").await);
    let mut stream = policies.watch_port(r#"{"ns":"emojivoto","pod":"web-1"}"#, 8080).await.unwrap();
    let ServerProtocol::Http1 { routes, .. } = patiently(stream.next()).await.unwrap().unwrap().protocol else {
        panic!()
    };
    assert_eq!(routes[0].meta.name(), "web");
    lab.api.asked(|r| r.method == "GET" && r.path.ends_with("/leases/policy-controller-write")).await.unwrap();
    assert_eq!(patches(&lab.api), 0);
    lab.api.put(lease(""));
    reported(&lab, |status| status[0]["conditions"][0]["status"] == "True").await;
    let asked = lab.api.requests();
    let first = |is: &dyn Fn(&Request) -> bool| asked.iter().position(is);
    let taken = first(&|r| r.method != "GET" && r.path.ends_with("/leases/policy-controller-write"));
    assert!(taken.is_some() && taken < first(&|r| r.method == "PATCH" && r.path.ends_with("/status")), "{asked:?}");
}
