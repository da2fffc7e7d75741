//! Replicas of the destination process, and what a test asks of the API server that they follow.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};
use weft_control::kubernetes::{self, Common, Destination, Mode, Running, Validator};
use weft_model::policy::inbound::DefaultPolicy;
use weft_testkit::{
    api_server::{Failure, FakeApi},
    folder::Folder,
};
use weft_transport::tls::connect_unverified;

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(10);
/// The lease of who writes slices, in the namespace of the control plane.
const LEASE: &str = "linkerd-destination-endpoint-write";
pub(crate) const CONTROL: &str = "linkerd";
/// That of the cases.
pub(crate) const NAMESPACE: &str = "ns";

/// What a case asks of an API server.
pub(crate) trait ApiServer {
    /// By which processes find it.
    fn kubeconfig(&self) -> String;
    /// Creates or replaces an object, which says its `apiVersion`, with its status.
    async fn put(&self, object: Value);
    async fn remove(&self, object: &Value);
    /// Those of a namespace.
    async fn all_of(&self, api_version: &str, kind: &str, namespace: &str) -> Vec<Value>;
    /// Whether processes may write slices, from now on.
    async fn lets_slices_be_written(&self, may: bool);
    /// Has this replica's webhooks say what is taken, from now on.
    async fn asks(&self, replica: &Replica);
    /// Why an object would not be taken, if it would not: what a webhook says.
    async fn refuses(&self, object: &Value) -> Option<String>;
    /// No webhook is asked any more.
    async fn asks_nobody(&self);
}

/// The fake API server, which has no admission of its own: what it would ask is asked here.
pub(crate) struct Fake {
    pub(crate) api: FakeApi,
    /// Of profiles, and of policies.
    webhooks: parking_lot::Mutex<Option<[SocketAddr; 2]>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self { api: FakeApi::start().await.unwrap(), webhooks: parking_lot::Mutex::default() }
    }
}

impl ApiServer for Fake {
    fn kubeconfig(&self) -> String {
        self.api.kubeconfig()
    }

    async fn put(&self, object: Value) {
        self.api.put(object);
    }

    async fn remove(&self, object: &Value) {
        let named = |of: &str| object["metadata"][of].as_str().unwrap_or_default();
        self.api.delete(object["kind"].as_str().unwrap(), named("namespace"), named("name"));
    }

    async fn all_of(&self, _: &str, kind: &str, namespace: &str) -> Vec<Value> {
        let all = self.api.all(kind).into_iter();
        all.filter(|object| object["metadata"]["namespace"] == namespace).collect()
    }

    async fn lets_slices_be_written(&self, may: bool) {
        self.api.fail((!may).then_some(Failure::Of("endpointslices", 403)));
    }

    async fn asks(&self, replica: &Replica) {
        let webhooks = ["profile-validator", "policy-validator"].map(|name| replica.addr(name));
        *self.webhooks.lock() = Some(webhooks);
    }

    async fn refuses(&self, object: &Value) -> Option<String> {
        let [profiles, policies] = self.webhooks.lock().unwrap();
        let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
        let kind = json!({"group": group, "version": version, "kind": object["kind"]});
        let request = json!({"uid": "u", "kind": kind, "namespace": object["metadata"]["namespace"], "object": object});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let answer = posted(if group == "linkerd.io" { profiles } else { policies }, &review.to_string()).await;
        let response = serde_json::from_str::<Value>(&answer).unwrap()["response"].take();
        (response["allowed"] != true).then(|| response["status"]["message"].as_str().unwrap().to_owned())
    }

    async fn asks_nobody(&self) {
        *self.webhooks.lock() = None;
    }
}

/// The body of the answer.
async fn posted(addr: SocketAddr, body: &str) -> String {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let mut stream = connect_unverified(tcp, addr.ip()).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    body_of(&mut stream).await
}

async fn body_of(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut text = String::new();
    patiently(stream.read_to_string(&mut text)).await.unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

/// Waits until it holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waits = async {
        while !holds().await {
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
}

/// A running destination process, a pod by its name.
pub(crate) struct Replica {
    name: String,
    _folder: Folder,
    /// Of its webhooks, as PEM.
    pub(crate) certificate: String,
    running: Running,
}

impl Replica {
    /// It knows all objects.
    pub(crate) async fn start(api: &impl ApiServer, name: &str) -> Self {
        let folder = Folder::new(&format!("processes-{name}")).unwrap();
        std::fs::write(folder.join("kubeconfig"), api.kubeconfig()).unwrap();
        let certificate = webhook_certificate(&folder);
        let common = Common {
            admin: free(),
            control_namespace: CONTROL.to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            kubeconfig: Some(folder.join("kubeconfig")),
            instance: name.to_owned(),
        };
        let validator = || Some(Validator { addr: free(), tls: folder.to_owned() });
        let destination = Destination {
            destination: free(),
            policy: free(),
            default_policy: DefaultPolicy::AllUnauthenticated,
            opaque_ports: vec![],
            cluster_networks: vec!["10.0.0.0/8".parse().unwrap()],
            probe_networks: vec![],
            h2_upgrade: true,
            ipv6: false,
            zone_weights: false,
            request_headers: false,
            profile_validator: validator(),
            policy_validator: validator(),
        };
        let running = kubernetes::start(common, Mode::Destination(destination)).await.unwrap();
        let this = Self { name: name.to_owned(), _folder: folder, certificate, running };
        until("it to be ready", async || this.told("/ready").await == "ready\n").await;
        this
    }

    /// Two, of which the first writes.
    pub(crate) async fn two(api: &impl ApiServer, names: [&str; 2]) -> [Self; 2] {
        let first = Self::start(api, names[0]).await;
        first.leads(api).await;
        [first, Self::start(api, names[1]).await]
    }

    /// Waits until it has the lease of who writes slices.
    pub(crate) async fn leads(&self, api: &impl ApiServer) {
        until(&format!("{} to lead", self.name), async || {
            let leases = api.all_of("coordination.k8s.io/v1", "Lease", CONTROL).await;
            let lease = leases.iter().find(|lease| lease["metadata"]["name"] == LEASE);
            lease.is_some_and(|lease| lease["spec"]["holderIdentity"] == self.name)
        })
        .await;
    }

    pub(crate) fn addr(&self, name: &str) -> SocketAddr {
        self.running.addresses.iter().find(|(of, _)| *of == name).unwrap().1
    }

    pub(crate) async fn channel(&self, name: &str) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr(name))).unwrap();
        patiently(endpoint.connect()).await.unwrap()
    }

    /// How many slices it has written, or tried to, with this result.
    pub(crate) async fn writes(&self, result: &str) -> u64 {
        let series = format!("weft_slice_writes_total{{result=\"{result}\"}} ");
        let metrics = self.told("/metrics").await;
        metrics.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap()
    }

    async fn told(&self, path: &str) -> String {
        let mut tcp = TcpStream::connect(self.addr("admin")).await.unwrap();
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        body_of(&mut tcp).await
    }

    /// Ends it, as a pod is ended.
    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// For webhooks that are asked by address.
fn webhook_certificate(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![Ipv4Addr::LOCALHOST.to_string()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    std::fs::write(folder.join("tls.crt"), &certificate).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    certificate
}
