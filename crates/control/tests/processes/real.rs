//! The cases on a real API server: etcd and kube-apiserver, without a node.

use super::{
    admission, cases,
    lab::{ApiServer, CONTROL, NAMESPACE, Replica, until},
};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::SystemTime,
};
use weft_cluster::{
    install::{self, By, Installation, crds},
    k8s::ByteString,
    kubernetes::{Client, connect},
    values::Values,
};
use weft_control::ca;
use weft_testkit::kubernetes::Cluster;

/// Whose rights the processes have.
const USER: &str = "process";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Kinds that are in no namespace.
const OF_THE_CLUSTER: [&str; 5] =
    ["Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration"];

struct Real {
    cluster: Cluster,
    client: Client,
}

/// Where the objects of a kind are.
fn folder(api_version: &str, kind: &str, namespace: &str) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let plural = match kind.to_lowercase() {
        kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        kind => format!("{kind}s"),
    };
    let within = if OF_THE_CLUSTER.contains(&kind) { String::new() } else { format!("namespaces/{namespace}/") };
    format!("/{root}/{api_version}/{within}{plural}")
}

fn folder_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    folder(&text(&object["apiVersion"]), &text(&object["kind"]), &text(&object["metadata"]["namespace"]))
}

fn path_of(object: &Value) -> String {
    format!("{}/{}", folder_of(object), object["metadata"]["name"].as_str().unwrap())
}

impl Real {
    /// The status and what is said.
    async fn asked(&self, method: &str, path: &str, content: &str, body: &Value) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", content);
        let request = request.body(body.to_string().into_bytes()).unwrap().map(Into::into);
        let response = self.client.send(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer = serde_json::from_slice(&body);
        (
            status,
            answer.unwrap_or_else(|e| panic!("{method} {path}: {status}, {e}: {}", String::from_utf8_lossy(&body))),
        )
    }

    async fn may_write_slices(&self) -> bool {
        let attributes = json!({"group": "discovery.k8s.io", "resource": "endpointslices", "verb": "update", "namespace": NAMESPACE});
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": USER, "resourceAttributes": attributes}});
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (_, answer) = self.asked("POST", path, "application/json", &review).await;
        answer["status"]["allowed"] == true
    }
}

impl ApiServer for Real {
    /// Of the processes' user, as whom an administrator may ask.
    fn kubeconfig(&self) -> String {
        let mut config: Value = serde_json::from_slice(&std::fs::read(&self.cluster.kubeconfig).unwrap()).unwrap();
        config["users"][0]["user"]["as"] = json!(USER);
        config.to_string()
    }

    async fn put(&self, object: Value) {
        let path = format!("{}?fieldManager=test&force=true", path_of(&object));
        let (status, answer) = self.asked("PATCH", &path, "application/apply-patch+yaml", &object).await;
        assert!(matches!(status, 200 | 201), "{object}: {answer}");
    }

    async fn remove(&self, object: &Value) {
        let path = format!("{}?gracePeriodSeconds=0", path_of(object));
        let (status, answer) = self.asked("DELETE", &path, "application/json", &json!({})).await;
        assert!(matches!(status, 200 | 202 | 404), "{path}: {answer}");
    }

    async fn all_of(&self, api_version: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let path = folder(api_version, kind, namespace);
        let (status, mut answer) = self.asked("GET", &path, "application/json", &Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        serde_json::from_value(answer["items"].take()).unwrap()
    }

    async fn lets_slices_be_written(&self, may: bool) {
        let binding = bound("slices");
        if may {
            self.put(binding).await
        } else {
            self.remove(&binding).await
        }
        until("the right to change", async || self.may_write_slices().await == may).await;
    }

    async fn asks(&self, replica: &Replica) {
        let mut configurations = configurations();
        for configuration in &mut configurations {
            let is_of_profiles = configuration["metadata"]["name"].as_str().unwrap().contains("-sp-");
            let webhook = if is_of_profiles { "profile-validator" } else { "policy-validator" };
            let door = self.cluster.network().unwrap().run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
            let door = door.unwrap();
            configuration["webhooks"][0]["clientConfig"] = json!({
                "url": format!("https://{}", door.local_addr().unwrap()),
                "caBundle": ByteString(replica.certificate.clone().into_bytes()),
            });
            lead(door, replica.addr(webhook));
            self.put(configuration.clone()).await;
        }
        // It notices a moment later.
        let object = |api_version: &str, kind: &str, spec: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "namespace": NAMESPACE}, "spec": spec});
        let server = object(
            "policy.linkerd.io/v1beta3",
            "Server",
            json!({"podSelector": {}, "port": 80, "accessPolicy": "open"}),
        );
        let profile =
            object("linkerd.io/v1alpha2", "ServiceProfile", json!({"routes": [{"name": "", "condition": {}}]}));
        for object in [server, profile] {
            until("the webhook to be asked", async || self.refuses(&object).await.is_some()).await;
        }
    }

    async fn refuses(&self, object: &Value) -> Option<String> {
        let path = format!("{}?dryRun=All", folder_of(object));
        let (status, answer) = self.asked("POST", &path, "application/json", object).await;
        let told = answer["message"].as_str().unwrap_or_default();
        // Before it stands which webhook says so.
        let told = told.split_once(" denied the request: ").map_or(told, |(_, told)| told);
        (status != 201).then(|| told.to_owned())
    }

    async fn asks_nobody(&self) {
        for configuration in configurations() {
            self.remove(&configuration).await;
        }
    }
}

/// From the node's network to a port of the host's.
fn lead(door: TcpListener, to: SocketAddr) {
    door.set_nonblocking(true).unwrap();
    let door = tokio::net::TcpListener::from_std(door).unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
}

/// By which the API server asks webhooks, as an installation has them; but nothing is taken where none answers.
fn configurations() -> Vec<Value> {
    let values = Values::from_layers([json!({"linkerdVersion": "v1", "webhookFailurePolicy": "Fail"})]).unwrap();
    let material = ca::material(&values, CONTROL, SystemTime::now()).unwrap();
    let installation =
        Installation { values: &values, namespace: CONTROL, by: By::Cli, material: &material, overrides: "" };
    let objects = install::control_plane(installation).into_iter();
    objects.filter(|object| object["kind"] == "ValidatingWebhookConfiguration").collect()
}

/// What the processes' user may by a role.
fn bound(role: &str) -> Value {
    json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}]})
}

/// Reads everything and holds leases; slices are written by leave.
async fn give_rights(real: &Real) {
    let role = |name: &str, rules: Value| json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let reads = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]});
    let leases = json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create", "update"]});
    let slices = json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create", "update", "delete"]});
    for object in [role("process", json!([reads, leases])), bound("process"), role("slices", json!([slices]))] {
        real.put(object).await;
    }
    real.lets_slices_be_written(true).await;
}

#[test]
fn the_processes_do_the_same_on_a_real_api_server() {
    let cluster = Cluster::up("cluster-processes", &["--api-only"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = connect(Some(&cluster.kubeconfig)).await.unwrap();
        let real = Real { cluster, client };
        for name in [CONTROL, NAMESPACE] {
            real.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        }
        for definition in crds(&Values::default(), CONTROL, By::Cli) {
            real.put(definition).await;
        }
        let gateway_api = real.cluster.gateway_api("experimental").display().to_string();
        real.cluster.ask(&format!("apply --server-side --filename {gateway_api}")).unwrap();
        real.cluster.ask("wait --for condition=established --timeout 60s crd --all").unwrap();
        give_rights(&real).await;
        let replicas = Replica::two(&real, ["a", "b"]).await;
        cases::workloads(&real, &replicas[1]).await;
        admission::admission(&real, &replicas[0]).await;
        cases::slices(&real, replicas).await;
    });
}
