//! The proxy injector: real TLS on one side, the fake API server on the other.

use super::{
    kubernetes::{Lab, event, free},
    lab::patiently,
};
use crate::kubernetes::{Mode, ProxyInjector};
use serde_json::{Value, json};
use std::path::Path;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use weft_cluster::{inject::Operation, k8s::ByteString};
use weft_testkit::{
    api_server::{Failure, FakeApi},
    ca::Ca,
};
use weft_transport::tls::connect_unverified;

fn mode(dir: &Path) -> Mode {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["linkerd-proxy-injector.linkerd.svc".to_owned()]).unwrap();
    let tls = dir.join("tls");
    std::fs::create_dir_all(&tls).unwrap();
    std::fs::write(tls.join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(tls.join("tls.key"), key.serialize_pem()).unwrap();
    let (values, trust_roots) = (dir.join("values"), dir.join("ca-bundle.crt"));
    std::fs::write(&values, "linkerdVersion: v1\n").unwrap();
    std::fs::write(&trust_roots, Ca::new().unwrap().anchors_pem()).unwrap();
    Mode::ProxyInjector(ProxyInjector { addr: free(), tls, values, trust_roots })
}

fn namespace(api: &FakeApi, name: &str, annotations: Value) {
    api.put(json!({"kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}));
}

/// As the API server asks: a pod of a Deployment, before it has a name.
fn pod(namespace: &str) -> Value {
    json!({
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": namespace, "operation": "CREATE", "dryRun": false,
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "oldObject": null,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        "object": {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "web-5f8d-", "namespace": namespace, "labels": {"app": "web", "pod-template-hash": "5f8d"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5f8d", "uid": "rs", "controller": true}]},
            "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "image": "web:1",
                "ports": [{"containerPort": 8080}],
                "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}]}],
                "volumes": [{"name": "token", "projected": {"sources": []}}]},
            "status": {},
        },
    })
}

async fn start(name: &str, api: FakeApi) -> Lab {
    let lab = Lab::start(name, api, mode).await;
    lab.until("/ready", |status, _| status == 200).await;
    lab
}

/// The response of a review.
async fn review(lab: &Lab, request: &Value) -> Value {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string();
    let addr = lab.addr("webhook");
    let text = patiently(async {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let mut stream = connect_unverified(tcp, addr.ip()).await.unwrap();
        let length = body.len();
        let head =
            format!("POST /?timeout=10s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    })
    .await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{text}");
    let mut review: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&review["apiVersion"], &review["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(review["response"]["uid"], request["uid"]);
    review["response"].take()
}

/// The object as it is admitted.
fn admitted(response: &Value, request: &Value) -> Value {
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")), "{response}");
    let ByteString(patch) = serde_json::from_value(response["patch"].clone()).unwrap();
    let patch: Vec<Operation> = serde_json::from_slice(&patch).unwrap();
    weft_cluster::inject::apply(&request["object"], &patch)
}

fn names(containers: &Value) -> Vec<&str> {
    containers.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_pod_of_a_meshed_namespace_gets_a_proxy_and_its_workload_an_event() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "shop", json!({"linkerd.io/inject": "enabled", "config.linkerd.io/proxy-log-level": "debug"}));
    api.put(json!({"kind": "ReplicaSet", "metadata": {"name": "web-5f8d", "namespace": "shop", "uid": "rs",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}]}}));
    let lab = start("injects", api).await;
    let request = pod("shop");
    let pod = admitted(&review(&lab, &request).await, &request);
    assert_eq!(names(&pod["spec"]["containers"]), ["web"]);
    assert_eq!(names(&pod["spec"]["initContainers"]), ["linkerd-init", "linkerd-proxy"]);
    assert_eq!(pod["metadata"]["labels"]["linkerd.io/proxy-deployment"], "web");
    let env = pod["spec"]["initContainers"][1]["env"].as_array().unwrap();
    let log = env.iter().find(|v| v["name"] == "LINKERD2_PROXY_LOG").unwrap();
    assert!(log["value"].as_str().unwrap().starts_with("debug"), "{log}");
    event(&lab.api, |events| {
        events.iter().any(|e| {
            e["reason"] == "Injected"
                && e["type"] == "Normal"
                && e["involvedObject"]["kind"] == "Deployment"
                && e["involvedObject"]["name"] == "web"
                && e["metadata"]["namespace"] == "shop"
        })
    })
    .await;
    // Its ReplicaSet is asked for once.
    review(&lab, &request).await;
    let asked = lab.api.requests().iter().filter(|r| r.path.ends_with("/replicasets/web-5f8d")).count();
    assert_eq!(asked, 1);
    let metrics = lab.admin("/metrics").await.1;
    let labels = r#"owner_kind="deployment",namespace="shop",annotation_at="namespace",proxy_log_level="debug""#;
    for wanted in [
        format!("proxy_inject_admission_requests_total{{{labels}}} 2\n"),
        format!("proxy_inject_admission_responses_total{{{labels},skip=\"false\",skip_reason=\"\"}} 2\n"),
    ] {
        assert!(metrics.contains(&wanted), "{wanted} in {metrics}");
    }
}

#[tokio::test]
async fn what_its_namespace_says_counts_from_its_first_moment_and_changes_are_followed() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "old", json!({}));
    let lab = start("namespaces", api).await;
    let request = pod("old");
    let response = review(&lab, &request).await;
    assert_eq!(response, json!({"uid": request["uid"], "allowed": true}), "not asked for");
    // No watch tells of it yet.
    lab.api.hold(true);
    namespace(&lab.api, "new", json!({"linkerd.io/inject": "enabled"}));
    assert!(review(&lab, &pod("new")).await["patch"].is_string());
    // Nor can anybody be asked, or there is nothing to ask about: nobody comes in without a proxy unnoticed.
    let response = review(&lab, &pod("nowhere")).await;
    assert_eq!(response["allowed"], false);
    assert!(response["status"]["message"].as_str().unwrap().contains("there is no namespace nowhere"), "{response}");
    lab.api.fail(Some(Failure::Status(503)));
    let response = review(&lab, &pod("newer")).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(500)));
    // Who is known needs no API server.
    assert_eq!(review(&lab, &pod("old")).await["allowed"], true);
    lab.api.fail(None);
    lab.api.hold(false);
    namespace(&lab.api, "old", json!({"linkerd.io/inject": "enabled"}));
    patiently(async { while review(&lab, &pod("old")).await["patch"].is_null() {} }).await;
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_webhook_undecided_total{webhook=\"proxy-injector\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn mistakes_are_refused_or_told() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "shop", json!({"linkerd.io/inject": "enabled"}));
    let lab = start("mistakes", api).await;
    let with = |key: &str, value: &str| {
        let mut request = pod("shop");
        request["object"]["metadata"]["annotations"] = json!({ key: value });
        request
    };
    let response = review(&lab, &with("config.linkerd.io/skip-inbound-ports", "many")).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(400)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("config.linkerd.io/skip-inbound-ports"), "{message}");
    let response = review(&lab, &with("config.linkerd.io/proxy-log-levle", "debug")).await;
    assert!(response["allowed"] == true && response["patch"].is_string());
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("config.linkerd.io/proxy-log-levle: "), "{warning}");
    event(&lab.api, |events| events.iter().any(|e| e["reason"] == "InjectionWarning" && e["type"] == "Warning")).await;
    // Of the next pod it is the same event.
    let again = review(&lab, &with("config.linkerd.io/proxy-log-levle", "debug")).await;
    assert_eq!(again["allowed"], true);
    event(&lab.api, |events| {
        let told: Vec<_> = events.iter().filter(|e| e["reason"] == "InjectionWarning").collect();
        told.len() == 1 && told[0]["count"] == 2
    })
    .await;
    let wrong = review(&lab, &with("linkerd.io/inject", "yes")).await;
    assert!(wrong["allowed"] == true && wrong["warnings"][0].as_str().unwrap().starts_with("linkerd.io/inject: "));
    let about = |key: &str| {
        let begins = format!("{key}: ");
        move |e: &Value| e["reason"] == "InjectionWarning" && e["message"].as_str().unwrap().starts_with(&begins)
    };
    event(&lab.api, |events| events.iter().any(about("linkerd.io/inject"))).await;
    // A pod that nobody owns is told of itself.
    let mut alone = with("config.linkerd.io/proxy-log-levle", "debug");
    alone["object"]["metadata"]["name"] = json!("alone");
    alone["object"]["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    assert_eq!(review(&lab, &alone).await["allowed"], true);
    event(&lab.api, |events| events.iter().any(|e| e["involvedObject"]["name"] == "alone" && e["type"] == "Warning"))
        .await;
    // An owner that cannot be found is the ReplicaSet itself.
    event(&lab.api, |events| events.iter().any(|e| e["involvedObject"]["name"] == "web-5f8d")).await;
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("skip=\"true\",skip_reason=\"invalid_annotation\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn who_asked_and_gets_none_is_told_why_and_a_trial_leaves_nothing() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "shop", json!({"linkerd.io/inject": "enabled"}));
    let lab = start("skips", api).await;
    let mut request = pod("shop");
    request["dryRun"] = json!(true);
    assert!(review(&lab, &request).await["patch"].is_string());
    let mut request = pod("shop");
    request["object"]["spec"]["hostNetwork"] = json!(true);
    assert_eq!(review(&lab, &request).await["allowed"], true);
    event(&lab.api, |events| {
        let told = |e: &Value| e["message"].as_str().unwrap().contains("hostNetwork is enabled");
        events.iter().any(|e| e["reason"] == "InjectionSkipped" && told(e))
    })
    .await;
    assert!(lab.api.all("Event").iter().all(|e| e["reason"] != "Injected"), "of the trial");
    // A Service takes over which of its ports are opaque.
    let mut request = pod("shop");
    request["object"] = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"ports": [{"port": 3306, "targetPort": 3306}]}});
    let service = admitted(&review(&lab, &request).await, &request);
    assert_eq!(service["metadata"]["annotations"]["config.linkerd.io/opaque-ports"], "3306");
    let mut wrong = request.clone();
    wrong["object"]["metadata"]["annotations"] = json!({"config.linkerd.io/opaque-ports": "many ports"});
    let response = review(&lab, &wrong).await;
    assert_eq!((&response["allowed"], &response["status"]["code"]), (&json!(false), &json!(400)));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("metadata.annotations[config.linkerd.io/opaque-ports]: \"many ports\": "), "{message}");
    request["operation"] = json!("DELETE");
    assert_eq!(review(&lab, &request).await, json!({"uid": request["uid"], "allowed": true}));
}

#[tokio::test]
async fn values_are_followed_and_a_mistake_in_them_stops_no_pod() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "shop", json!({"linkerd.io/inject": "enabled"}));
    let lab = start("values", api).await;
    let request = pod("shop");
    let version = |pod: &Value| pod["spec"]["initContainers"][1]["image"].as_str().unwrap().to_owned();
    let values = lab.dir.join("values");
    assert!(version(&admitted(&review(&lab, &request).await, &request)).ends_with(":v1"));
    std::fs::write(&values, "linkerdVersion: v2\n").unwrap();
    assert!(version(&admitted(&review(&lab, &request).await, &request)).ends_with(":v2"));
    std::fs::write(&values, "linkerdVersoin: v3\n").unwrap();
    for _ in 0..2 {
        assert!(version(&admitted(&review(&lab, &request).await, &request)).ends_with(":v2"));
    }
    let metrics = lab.admin("/metrics").await.1;
    assert!(metrics.contains("weft_injector_values_kept_total 1\n"), "told once: {metrics}");
}

/// Nodes and the API server do not know at once that a pod goes, and a review that comes then may take seconds.
#[tokio::test]
async fn no_review_is_lost_when_the_process_is_told_to_end() {
    let api = FakeApi::start().await.unwrap();
    namespace(&api, "shop", json!({"linkerd.io/inject": "enabled"}));
    let mut lab = start("leaves", api).await;
    // The look-up of the owner gives up after four seconds.
    lab.api.hold_requests(Some("/replicasets/"));
    let (all, known) = tokio::sync::oneshot::channel::<()>();
    let leaving = lab.running.take().unwrap().leave(async move { drop(known.await) });
    let leaving = tokio::spawn(leaving);
    lab.until("/ready", |status, body| status == 503 && body == "not ready: end\n").await;
    let request = pod("shop");
    let stops = async {
        lab.api.asked(|request| request.path.contains("/replicasets/")).await.unwrap();
        all.send(()).unwrap();
    };
    let (response, ()) = tokio::join!(review(&lab, &request), stops);
    assert_eq!(names(&admitted(&response, &request)["spec"]["initContainers"]), ["linkerd-init", "linkerd-proxy"]);
    patiently(leaving).await.unwrap();
    patiently(async {
        while TcpStream::connect(lab.addr("webhook")).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
