//! A control plane on free ports, what feeds it, and clients of it.

use crate::{Addresses, Config, Lifetimes, Ports, Running, ca, token_sha256};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
    sync::mpsc,
    task::JoinSet,
};
use tonic::transport::{Channel, Endpoint};
use weft_cluster::{Event, Key, Kind, Object, Token, source};
use weft_model::{DnsName, Identity, endpoint::ServerTls};
use weft_transport::tls::{Key as PrivateKey, Store};
use weft_wire::identity::Certificate;

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Lab {
    pub(super) addresses: Addresses,
    pub(super) dir: PathBuf,
    api: Arc<Api>,
    running: Option<Running>,
    tasks: JoinSet<()>,
}

/// The fake API server: what exists, and who listens.
#[derive(Default)]
struct Api {
    objects: Mutex<BTreeMap<Key, Object>>,
    listeners: Mutex<Vec<mpsc::UnboundedSender<Event>>>,
}

impl Lab {
    /// A control plane that has been told nothing yet.
    pub(super) fn unsynced(name: &str, edit: impl FnOnce(&mut Config)) -> Self {
        let dir = std::env::temp_dir().join(format!("weft-control-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut config = Config::new([127, 0, 0, 1].into(), dir.join("state"), dir.join("events"));
        config.ports = Ports { identity: 0, destination: 0, policy: 0, admin: 0 };
        edit(&mut config);
        let running = crate::start(config).unwrap();
        Self { addresses: running.addresses, dir, api: Arc::default(), running: Some(running), tasks: JoinSet::new() }
    }

    /// A control plane that knows `objects`.
    pub(super) async fn new(name: &str, objects: Vec<Object>) -> Self {
        let mut lab = Self::unsynced(name, |_| {});
        lab.api.objects.lock().extend(objects.into_iter().map(|o| (o.key(), o)));
        lab.serve_events();
        lab.ready().await;
        lab
    }

    /// Begins to serve events, to whoever connects.
    pub(super) fn serve_events(&mut self) {
        let _ = std::fs::remove_file(self.dir.join("events"));
        let listener = UnixListener::bind(self.dir.join("events")).unwrap();
        let api = self.api.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (sender, mut events) = mpsc::unbounded_channel();
                {
                    let objects = api.objects.lock();
                    objects.values().for_each(|o| sender.send(Event::Apply(o.clone())).unwrap());
                    sender.send(Event::Synced).unwrap();
                    api.listeners.lock().push(sender);
                }
                connections.spawn(async move {
                    while let Some(event) = events.recv().await {
                        if stream.write_all(source::encode(&event).as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// Kills the event stream, as when the supervisor dies.
    pub(super) async fn kill_events(&mut self) {
        self.tasks.shutdown().await;
        self.api.listeners.lock().clear();
    }

    pub(super) fn apply(&self, object: Object) {
        self.api.objects.lock().insert(object.key(), object.clone());
        self.send(Event::Apply(object));
    }

    pub(super) fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let key = Key::new(kind, namespace, name);
        self.api.objects.lock().remove(&key);
        self.send(Event::Delete(key));
    }

    fn send(&self, event: Event) {
        self.api.listeners.lock().retain(|l| l.send(event.clone()).and_then(|()| l.send(Event::Synced)).is_ok());
    }

    pub(super) async fn ready(&self) {
        patiently(async {
            while self.admin("/ready").await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// Status and body.
    pub(super) async fn admin(&self, path: &str) -> (u16, String) {
        let mut tcp = TcpStream::connect(self.addresses.admin).await.unwrap();
        tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        if path == "/metrics" {
            assert_eq!(weft_testkit::exposition::mistakes(body), [""; 0], "{body}");
        }
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub(super) fn anchors(&self) -> String {
        ca::status(&self.dir.join("state")).unwrap().anchors_pem
    }

    /// A workload's TLS state without a certificate.
    pub(super) fn stranger(&self, account: &str) -> Store {
        let identity = identity(account);
        let Identity::Dns(name) = identity.clone() else { unreachable!() };
        Store::new(&self.anchors(), name, identity).unwrap()
    }

    /// The same with a certificate, got with the workload's token.
    pub(super) async fn member(&self, account: &str) -> Store {
        let (store, key) = (self.stranger(account), PrivateKey::generate().unwrap());
        let certificate = self.certify(&store, &key, account, &secret(account)).await.unwrap();
        let intermediates: Vec<Vec<u8>> = certificate.intermediates.iter().map(|i| i.to_vec()).collect();
        store.set_certificate(&key, &certificate.leaf, &intermediates).unwrap();
        store
    }

    /// Asks for a certificate of `account` with the token `secret`.
    pub(super) async fn certify(
        &self,
        store: &Store,
        key: &PrivateKey,
        account: &str,
        secret: &str,
    ) -> Result<Certificate, weft_wire::Error> {
        let channel = channel(store, self.addresses.identity, "linkerd-identity").await.unwrap();
        let csr = key.csr(&identity(account)).unwrap();
        let token = Bytes::from(secret.to_owned());
        patiently(weft_wire::identity::Client::new(channel).certify(&identity(account), token, csr.into())).await
    }

    pub(super) async fn destination(&self, store: &Store) -> weft_wire::destination::Client<Channel> {
        let channel = channel(store, self.addresses.destination, "linkerd-destination").await.unwrap();
        weft_wire::destination::Client::new(channel)
    }

    pub(super) async fn policy(&self, store: &Store) -> Channel {
        channel(store, self.addresses.policy, "linkerd-destination").await.unwrap()
    }

    pub(super) async fn stop(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(super) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

/// A gRPC channel over one mTLS connection, made as a proxy makes it.
pub(super) async fn channel(
    store: &Store,
    addr: SocketAddr,
    account: &str,
) -> Result<Channel, tonic::transport::Error> {
    let name = format!("{account}.linkerd.serviceaccount.identity.linkerd.cluster.local");
    channel_to(store, addr, &name).await
}

/// The same to who has this name.
pub(super) async fn channel_to(
    store: &Store,
    addr: SocketAddr,
    name: &str,
) -> Result<Channel, tonic::transport::Error> {
    let server_name: DnsName = name.parse().unwrap();
    let tls = ServerTls { identity: Identity::Dns(server_name.clone()), server_name };
    let store = store.clone();
    let connector = tower::service_fn(move |_| {
        let (store, tls) = (store.clone(), tls.clone());
        async move {
            let tcp = TcpStream::connect(addr).await?;
            let (stream, _) = store.connect(tcp, &tls, false).await.map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://control.test").connect_with_connector(connector).await
}

pub(super) fn identity(account: &str) -> Identity {
    Identity::of_service_account(account, "emojivoto", "linkerd", "cluster.local").unwrap()
}

pub(super) fn secret(account: &str) -> String {
    format!("the secret of {account}")
}

pub(super) fn token(account: &str) -> Object {
    Object::Token(Token {
        sha256: token_sha256(secret(account).as_bytes()),
        namespace: "emojivoto".to_owned(),
        service_account: account.to_owned(),
        pod: format!("{account}-1"),
    })
}

pub(super) fn service(name: &str, ip: &str, port: u16) -> Object {
    Object::Service(typed(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "emojivoto"},
        "spec": {"clusterIP": ip, "selector": {"app": name}, "ports": [{"port": port}]},
    })))
}

pub(super) fn pod(app: &str, name: &str, ip: &str) -> Object {
    Object::Pod(typed(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "emojivoto",
            "labels": {"app": app, "linkerd.io/control-plane-ns": "linkerd"}},
        "spec": {"serviceAccountName": app, "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    })))
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Lifetimes of seconds, so that renewals can be watched.
pub(super) fn hasty() -> Lifetimes {
    let seconds = Duration::from_secs;
    Lifetimes { root: seconds(6), issuer: seconds(4), leaf: seconds(1), announce: seconds(1), skew: seconds(1) }
}
