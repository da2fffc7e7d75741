//! The processes of Kubernetes against the fake API server.

use super::{
    lab::{identity, patiently},
    webhook,
};
use crate::kubernetes::{self, Common, Destination, Identity, Mode, Running, Validator};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_stream::StreamExt;
use tonic::{Code, transport::Channel};
use weft_cluster::kubernetes::AUDIENCE;
use weft_model::{
    EndpointUpdate,
    policy::{
        inbound::{DefaultPolicy, ServerProtocol},
        outbound::{BackendKind, ClientProtocol},
    },
};
use weft_testkit::{
    api_server::{Failure, FakeApi, GATEWAY_HTTP_ROUTE, Request},
    ca::Ca,
};
use weft_transport::tls::{Key, Store};
use weft_wire::{Error, identity::Certificate, outbound::Target, work::WorkSpec};

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

fn issuer(lab_dir: &Path) -> (PathBuf, PathBuf) {
    (lab_dir.join("issuer"), lab_dir.join("ca-bundle.crt"))
}

/// Puts a CA where the identity process reads it, the names of the files those of the Secret's type.
fn mount(dir: &Path, ca: &Ca, names: [&str; 2]) {
    let (issuer, roots) = issuer(dir);
    std::fs::create_dir_all(&issuer).unwrap();
    std::fs::write(roots, ca.anchors_pem()).unwrap();
    let (certificate, key) = ca.issuer_pem();
    std::fs::write(issuer.join(names[0]), certificate).unwrap();
    std::fs::write(issuer.join(names[1]), key).unwrap();
}

fn identity_mode(dir: &Path) -> Mode {
    let (issuer, trust_roots) = issuer(dir);
    let (issuance_lifetime, clock_skew_allowance) = (Duration::from_secs(3600), Duration::from_secs(20));
    Mode::Identity(Identity { addr: free(), issuer, trust_roots, issuance_lifetime, clock_skew_allowance })
}

async fn certify(lab: &Lab, account: &str, token: &str) -> Result<(Key, Certificate), (Code, String)> {
    let key = Key::generate().unwrap();
    let csr = key.csr(&identity(account)).unwrap();
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    match patiently(client.certify(&identity(account), token.to_owned().into(), csr.into())).await {
        Ok(certificate) => Ok((key, certificate)),
        Err(Error::Rpc(status)) => Err((status.code(), status.message().to_owned())),
        Err(Error::Invalid(invalid)) => panic!("{invalid}"),
    }
}

/// Whether a proxy that trusts `ca` takes the certificate.
fn takes(ca: &Ca, account: &str, (key, certificate): &(Key, Certificate)) -> bool {
    let weft_model::Identity::Dns(name) = identity(account) else { unreachable!() };
    let store = Store::new(ca.anchors_pem(), name, identity(account)).unwrap();
    let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
    store.set_certificate(key, &certificate.leaf, &intermediates).is_ok()
}

fn tokens(api: &FakeApi) {
    api.token("web's", "system:serviceaccount:emojivoto:web", &[AUDIENCE]);
    api.token("voting's", "system:serviceaccount:emojivoto:voting", &[AUDIENCE]);
    api.token("for the API server", "system:serviceaccount:emojivoto:web", &["https://kubernetes.default.svc"]);
    api.token("a user's", "alice", &[AUDIENCE]);
}

#[tokio::test]
async fn the_api_server_says_whose_a_token_is() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("identity", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let first = certify(&lab, "web", "web's\n").await.unwrap();
    assert!(takes(&ca, "web", &first));
    let second = certify(&lab, "web", "web's").await.unwrap();
    assert_ne!(first.1.leaf, second.1.leaf);
    for (token, code) in [
        ("voting's", Code::FailedPrecondition),
        ("for the API server", Code::InvalidArgument),
        ("a user's", Code::FailedPrecondition),
        ("guessed", Code::InvalidArgument),
        ("", Code::InvalidArgument),
    ] {
        assert_eq!(certify(&lab, "web", token).await.unwrap_err().0, code, "{token}");
    }
    // Who cannot be asked has not said yes.
    lab.api.fail(Some(Failure::Close));
    assert_eq!(certify(&lab, "web", "web's").await.unwrap_err().0, Code::Unavailable);
    lab.api.fail(None);
    assert!(certify(&lab, "web", "web's").await.is_ok());
    lab.api.asked(|r| r.method == "POST" && r.path == "/api/v1/namespaces/emojivoto/events").await.unwrap();
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("issuer_cert_ttl_seconds "), "{metrics}");
}

/// How often the API server was asked about a token.
fn reviews(api: &FakeApi) -> usize {
    api.requests().iter().filter(|request| request.path.ends_with("/tokenreviews")).count()
}

/// Tokens that prove nothing, by many who claim the same, and nobody answers.
#[tokio::test]
async fn a_flood_of_junk_keeps_no_good_token_out() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    api.hold_reviews(true);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("flood", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let key = Key::generate().unwrap();
    let mut flood = JoinSet::new();
    let send = async |flood: &mut JoinSet<Result<(), Error>>, account: &str, junk: String| {
        let (identity, csr) = (identity(account), key.csr(&identity(account)).unwrap());
        let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
        flood.spawn(async move { client.certify(&identity, junk.into(), csr.into()).await.map(drop) });
    };
    for junk in 0..50 {
        send(&mut flood, "web", format!("junk {junk}")).await;
    }
    patiently(async {
        while reviews(&lab.api) < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(takes(&ca, "voting", &certify(&lab, "voting", "voting's").await.unwrap()), "others are not kept waiting");
    assert_eq!(reviews(&lab.api), 4 + 1, "at a time, of those who claim one name");
    // By those who claim many names.
    for other in 0..40 {
        send(&mut flood, &format!("other-{other}"), format!("other junk {other}")).await;
    }
    patiently(async {
        while reviews(&lab.api) < 32 + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    lab.api.hold_reviews(false);
    while let Some(refused) = patiently(flood.join_next()).await {
        assert!(matches!(refused.unwrap(), Err(Error::Rpc(_))));
    }
    assert!(certify(&lab, "web", "web's").await.is_ok());
    // What was refused a moment ago is not asked about again, nor is what asks for something else than it claims.
    assert_eq!(certify(&lab, "web", "once more").await.unwrap_err().0, Code::InvalidArgument);
    let before = reviews(&lab.api);
    assert_eq!(certify(&lab, "web", "once more").await.unwrap_err().0, Code::InvalidArgument);
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    let csr = key.csr(&identity("voting")).unwrap();
    let other = patiently(client.certify(&identity("web"), "web's".to_owned().into(), csr.into())).await;
    assert!(matches!(other, Err(Error::Rpc(status)) if status.code() == Code::FailedPrecondition));
    assert_eq!(reviews(&lab.api), before);
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_control_token_reviews_total{outcome=\"remembered\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn an_identity_over_its_limit_is_told_so_and_the_api_server_is_not_asked() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let ca = Ca::new().unwrap();
    let lab = Lab::start("limit", api, |dir| {
        mount(dir, &ca, ["crt.pem", "key.pem"]);
        identity_mode(dir)
    })
    .await;
    lab.until("/ready", |status, _| status == 200).await;
    let key = Key::generate().unwrap();
    let mut client = weft_wire::identity::Client::new(lab.channel("identity").await);
    let mut ask = async |account: &str| {
        let csr = key.csr(&identity(account)).unwrap();
        let token = format!("{account}'s");
        match patiently(client.certify(&identity(account), token.into(), csr.into())).await {
            Ok(_) => Code::Ok,
            Err(Error::Rpc(status)) => status.code(),
            Err(Error::Invalid(invalid)) => panic!("{invalid}"),
        }
    };
    // A burst of 200, and what is refilled meanwhile: two a second, of which each takes some of the time.
    let mut given = 0;
    while ask("web").await == Code::Ok {
        given += 1;
        assert!(given < 2_000, "there is no limit");
    }
    assert!(given >= 200);
    assert_eq!(reviews(&lab.api), given, "who is over the limit costs no review");
    assert_eq!(ask("voting").await, Code::Ok, "it is each identity's own");
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_control_certify_total{outcome=\"ResourceExhausted\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn the_issuer_follows_its_files_if_proxies_would_take_it() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let (old, new, stranger) = (Ca::new().unwrap(), Ca::new().unwrap(), Ca::new().unwrap());
    // Nothing is mounted yet.
    let lab = Lab::start("issuer", api, identity_mode).await;
    assert_eq!(lab.admin("/ready").await, (503, "not ready: issuer\n".to_owned()));
    let names = ["tls.crt", "tls.key"];
    mount(&lab.dir, &old, names);
    lab.until("/ready", |status, _| status == 200).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));

    // An issuer that no anchor vouches for, then one whose key is another's: the present one stays.
    let (issuer, roots) = issuer(&lab.dir);
    std::fs::write(issuer.join("tls.crt"), stranger.issuer_pem().0).unwrap();
    std::fs::write(issuer.join("tls.key"), stranger.issuer_pem().1).unwrap();
    let reasons = |wanted: &'static str| {
        move |events: Vec<Value>| {
            events
                .iter()
                .any(|e| e["reason"] == "IssuerUpdateSkipped" && e["message"].as_str().unwrap().contains(wanted))
        }
    };
    event(&lab.api, reasons("proxies would refuse")).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));
    std::fs::write(issuer.join("tls.key"), new.issuer_pem().1).unwrap();
    event(&lab.api, reasons("not its certificate's")).await;
    assert!(takes(&old, "web", &certify(&lab, "web", "web's").await.unwrap()));

    // A rotation: both roots, then the new issuer.
    std::fs::write(roots, format!("{}{}", old.anchors_pem(), new.anchors_pem())).unwrap();
    mount_issuer(&lab.dir, &new, names);
    event(&lab.api, |events| events.iter().any(|e| e["reason"] == "IssuerUpdated")).await;
    patiently(async {
        while !takes(&new, "web", &certify(&lab, "web", "web's").await.unwrap()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Who watches the bundle has both roots.
    let mut bundles = weft_wire::trust::Client::new(lab.channel("identity").await);
    let mut stream = patiently(bundles.watch()).await.unwrap();
    let bundle = patiently(stream.next()).await.unwrap().unwrap();
    assert_eq!(bundle.pem.matches("BEGIN CERTIFICATE").count(), 2);
}

/// Nobody changes anything: it ends where it is.
#[tokio::test]
async fn an_issuer_that_ends_in_its_place_is_told_of() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let lab = Lab::start("ends-here", api, identity_mode).await;
    let invalid = |wanted: &'static str| {
        move |events: Vec<Value>| {
            events.iter().any(|e| {
                let about = &e["involvedObject"];
                e["reason"] == "IssuerValidationFailed"
                    && (&about["kind"], &about["name"]) == (&"Deployment".into(), &"linkerd-identity".into())
                    && e["message"].as_str().unwrap().contains(wanted)
            })
        }
    };
    // Nothing is mounted, so that nobody can be given anything.
    event(&lab.api, invalid("No such file")).await;
    // Long enough to be taken up, however slow the machine is.
    let mut life = Duration::from_secs(4);
    loop {
        let now = SystemTime::now();
        mount(&lab.dir, &Ca::valid(now - Duration::from_secs(3600), now + life).unwrap(), ["crt.pem", "key.pem"]);
        while lab.admin("/ready").await.0 != 200 && SystemTime::now() < now + life {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if lab.admin("/ready").await.0 == 200 {
            break;
        }
        life *= 4;
    }
    event(&lab.api, invalid("the issuer's certificate is not valid now")).await;
    let (code, told) = certify(&lab, "web", "web's").await.unwrap_err();
    assert!(code == Code::Unavailable && told.contains("weft check") && !told.contains("weft ps"), "{told}");
    assert!(lab.api.all("Event").iter().all(|e| e["reason"] != "IssuerUpdateSkipped"), "nobody tried to change it");
    // The next one is taken up where it ended.
    mount(&lab.dir, &Ca::new().unwrap(), ["crt.pem", "key.pem"]);
    patiently(async { while certify(&lab, "web", "web's").await.is_err() {} }).await;
}

/// Roots that others have made, and keys as openssl writes them.
#[tokio::test]
async fn issuers_below_roots_of_rsa_and_keys_in_either_form_sign() {
    let api = FakeApi::start().await.unwrap();
    tokens(&api);
    let lab = Lab::start("forms", api, identity_mode).await;
    let mut serials = std::collections::BTreeSet::new();
    for bits in [None, Some(rcgen::RsaKeySize::_2048), Some(rcgen::RsaKeySize::_4096)] {
        let ca = match bits {
            None => Ca::new().unwrap(),
            Some(bits) => Ca::below_rsa(bits).unwrap(),
        };
        for in_sec1 in [false, true] {
            mount(&lab.dir, &ca, ["crt.pem", "key.pem"]);
            if in_sec1 {
                let key = ca.issuer_sec1().unwrap();
                assert!(key.contains("BEGIN EC PARAMETERS") && key.contains("BEGIN EC PRIVATE KEY"));
                std::fs::write(issuer(&lab.dir).0.join("key.pem"), key).unwrap();
            }
            lab.until("/ready", |status, _| status == 200).await;
            let signed = patiently(async {
                loop {
                    match certify(&lab, "web", "web's").await {
                        Ok(signed) if takes(&ca, "web", &signed) => break signed,
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
            })
            .await;
            assert!(serials.insert(signed.1.leaf.to_vec()));
        }
    }
    assert!(lab.api.all("Event").iter().all(|e| e["reason"] != "IssuerUpdateSkipped"));
}

#[tokio::test]
async fn an_issuer_that_ends_soon_is_told_of() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    for (left, is_told) in [(59, true), (61, false)] {
        let api = FakeApi::start().await.unwrap();
        tokens(&api);
        let lab = Lab::start(&format!("ends-{left}"), api, identity_mode).await;
        mount(&lab.dir, &Ca::valid(now - 400 * DAY, now + left * DAY).unwrap(), ["crt.pem", "key.pem"]);
        lab.until("/ready", |status, _| status == 200).await;
        assert!(certify(&lab, "web", "web's").await.is_ok());
        // What was told of the certificate came behind what would have been.
        let of = |events: &[Value], reason: &str| events.iter().find(|e| e["reason"] == reason).cloned();
        event(&lab.api, |events| of(&events, "IssuedLeafCertificate").is_some()).await;
        if is_told {
            event(&lab.api, |events| of(&events, "IssuerEndsSoon").is_some()).await;
        }
        let told = of(&lab.api.all("Event"), "IssuerEndsSoon");
        assert_eq!(told.is_some(), is_told, "{left} days");
        assert!(told.is_none_or(|event| event["message"].as_str().unwrap().contains("58 days more")));
    }
}

fn mount_issuer(dir: &Path, ca: &Ca, names: [&str; 2]) {
    let (issuer, _) = issuer(dir);
    std::fs::write(issuer.join(names[0]), ca.issuer_pem().0).unwrap();
    std::fs::write(issuer.join(names[1]), ca.issuer_pem().1).unwrap();
}

pub(super) async fn event(api: &FakeApi, is: impl Fn(Vec<Value>) -> bool) {
    patiently(async {
        while !is(api.all("Event")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
