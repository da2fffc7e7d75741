//! The rows of the control plane's parts 6.2 to 6.5, each from objects of an API server to an answer.
//!
//! Each row writes its objects, waits until all of them are known, compares the answer, and takes them away again: nothing of it is left
//! to the next one.

mod conditions;
mod destination;
mod labels;
mod names;
mod older;
mod ports;
mod said;
mod traffic;

pub(crate) use conditions::conditions;
pub(crate) use destination::{endpoints, profiles};
pub(crate) use labels::labels;
pub(crate) use names::names;
pub(crate) use older::older;
pub(crate) use ports::ports;
pub(crate) use traffic::traffic;

use super::lab::{ApiServer, Lab, NAMESPACE, pod, service, settings, slice};
use serde_json::{Value, json};
use weft_cluster::{
    Index, Key, Kind,
    index::{Question, Settings, Target, WorkloadKind},
    policy::KINDS,
};

/// What a row is about, its objects, the question, and the answer in short.
type Row<'a> = (&'static str, Vec<Value>, Question, &'a str);

/// What a row's question is about.
const WEB: &str = "web.ns.svc.cluster.local";
const SERVICE_IP: &str = "10.96.77.1";

/// Of the rows' objects: that of the cases, one of others, and the one whose EgressNetworks are for all.
pub(crate) const NAMESPACES: [&str; 3] = [NAMESPACE, OTHER, "linkerd-egress"];
const OTHER: &str = "other";

async fn hold(api: &impl ApiServer, rows: Vec<Row<'_>>) {
    hold_with(api, settings(), said::said, rows).await;
}

/// With other settings of the mesh, and answers in other words.
async fn hold_with(
    api: &impl ApiServer,
    settings: Settings,
    said: fn(&Index, &Question) -> String,
    rows: Vec<Row<'_>>,
) {
    let mut kinds = vec![Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Node];
    kinds.extend(KINDS);
    let lab = Lab::with(api, &kinds, settings).await;
    for (what, objects, question, expected) in rows {
        let mut versions = vec![];
        for object in &objects {
            versions.push(api.written(object.clone()).await);
        }
        lab.until(what, |fed| fed.has_versions(&versions)).await;
        assert_eq!(said(&lab.fed.lock().index, &question), expected, "{what}");
        for object in objects.iter().rev() {
            api.remove_it(object).await;
        }
        let is_of_row = |key: &Key| NAMESPACES.contains(&key.namespace.as_str()) || key.kind == Kind::Node;
        lab.until("the objects of the row to be gone", |fed| !fed.objects.keys().any(is_of_row)).await;
    }
    lab.end().await;
}

fn merged(mut object: Value, patch: Value) -> Value {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, from) => *into = from,
        }
    }
    merge(&mut object, patch);
    object
}

/// The Service `web`, which has several ports.
fn web(patch: Value) -> Value {
    let port = |name: &str, port: u16, target: Value, protocol: Option<&str>| {
        let mut value = json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
        if let Some(protocol) = protocol {
            value["appProtocol"] = json!(protocol);
        }
        value
    };
    let ports = json!([
        port("http", 80, json!("http"), None),
        port("db", 5432, json!(5432), None),
        port("plain", 81, json!(8080), Some("http")),
        port("h2c", 82, json!(8080), Some("kubernetes.io/h2c")),
        port("odd", 83, json!(8080), Some("example.com/odd")),
    ]);
    merged(merged(service(), json!({"spec": {"ports": ports}})), patch)
}

/// Pod `a`, which listens on 8080 under the name `http`.
fn a(patch: Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    let containers = json!([{"name": "web", "image": "web", "ports": ports}]);
    merged(merged(pod("a", "10.1.0.1"), json!({"spec": {"containers": containers}})), patch)
}

/// The slice of both, with an endpoint per pod and as much more of each.
fn slices(endpoints: &[(&str, &str, Value)]) -> Value {
    let mut slice = slice("web-1", &endpoints.iter().map(|(pod, ip, _)| (*pod, *ip)).collect::<Vec<_>>());
    slice["ports"] = json!([{"name": "http", "port": 8080}, {"name": "db", "port": 5432}]);
    for (i, (.., patch)) in endpoints.iter().enumerate() {
        slice["endpoints"][i] = merged(slice["endpoints"][i].clone(), patch.clone());
    }
    slice
}

fn behind() -> Vec<Value> {
    vec![web(json!({})), a(json!({})), slices(&[("a", "10.1.0.1", json!({}))])]
}

/// With a second pod `b`, and a node; as much more of each endpoint.
fn two(first: Value, second: Value) -> Vec<Value> {
    let slice = slices(&[("a", "10.1.0.1", first), ("b", "10.1.0.2", second)]);
    vec![web(json!({})), a(json!({})), pod("b", "10.1.0.2"), node("east"), slice]
}

/// An ExternalWorkload with these ports behind the Service.
fn vm(ports: Value) -> Vec<Value> {
    let tls = json!({"identity": "spiffe://root.local/vm", "serverName": "vm.local"});
    let spec = json!({"meshTLS": tls, "ports": ports, "workloadIPs": [{"ip": "192.0.2.1"}]});
    let naming = json!({"targetRef": {"kind": "ExternalWorkload", "namespace": NAMESPACE, "name": "vm"}});
    vec![web(json!({})), object("ExternalWorkload", "vm", spec), slices(&[("vm", "192.0.2.1", naming)])]
}

/// A gateway of another cluster behind the Service.
fn gateway() -> Vec<Value> {
    let mut gateway = slice("web-1", &[("a", "192.0.2.1")]);
    gateway["endpoints"][0].as_object_mut().unwrap().remove("targetRef");
    gateway["ports"] = json!([{"name": "http", "port": 4143}]);
    gateway["metadata"]["labels"]["mirror.linkerd.io/cluster-name"] = json!("east");
    gateway["metadata"]["annotations"] = json!({
        "mirror.linkerd.io/remote-svc-fq-name": "web.shop.svc.east.local",
        "mirror.linkerd.io/remote-gateway-identity": "gateway.mc.serviceaccount.identity.linkerd.east.local",
    });
    vec![web(json!({})), gateway]
}

fn with(more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    behind().into_iter().chain(more).collect()
}

fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// It is created in this second: of several in a row those of later ones stand behind.
fn aged(second: u8, object: Value) -> Value {
    merged(object, json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}}))
}

fn elsewhere(namespace: &str, object: Value) -> Value {
    merged(object, json!({"metadata": {"namespace": namespace}}))
}

fn node(zone: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": zone}}})
}

fn destination(path: &str) -> Question {
    Question::Destination(path.parse().unwrap())
}

fn target(path: &str) -> Target {
    path.parse().map_or_else(|_| Target::Name(path.parse().unwrap()), Target::Addr)
}

fn profiled(path: &str) -> Question {
    Question::Profile { from: NAMESPACE.to_owned(), target: target(path) }
}

fn port(port: u16) -> Question {
    Question::Inbound { namespace: NAMESPACE.to_owned(), of: WorkloadKind::Pod, name: "a".to_owned(), port }
}

fn sent(path: &str) -> Question {
    sent_from(NAMESPACE, path)
}

fn sent_from(namespace: &str, path: &str) -> Question {
    Question::Outbound { from: namespace.to_owned(), target: target(path) }
}

fn server(spec: Value) -> Value {
    object("Server", "s", merged(json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080}), spec))
}
