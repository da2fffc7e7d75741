//! Plans: what is written for which objects, and that any history ends at the same slices.

use super::*;
use crate::policy;
use serde_json::{Value, json};

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
    Box::new(serde_json::from_value(value).unwrap())
}

fn merge(value: &mut Value, patch: Value) {
    match (value, patch) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
        }
        (into, from) => *into = from,
    }
}

fn service(patch: Value) -> Object {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "u1", "labels": {"team": "data"}},
        "spec": {"clusterIP": "10.96.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "db"}, "ports": [
            {"name": "sql", "port": 5432, "targetPort": "sql", "protocol": "TCP"},
            {"name": "web", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        ]},
    });
    merge(&mut value, patch);
    Object::Service(typed(value))
}

fn workload(name: &str, ips: &[&str], patch: Value) -> Object {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": format!("of-{name}"), "labels": {"app": "db"}},
        "spec": {
            "meshTLS": {"identity": "spiffe://root.local/db", "serverName": "db.local"},
            "ports": [{"name": "sql", "port": 5433}, {"port": 8080}, {"name": "linkerd-proxy", "port": 4143}],
            "workloadIPs": ips,
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut value, patch);
    policy::read(Kind::ExternalWorkload, value).unwrap()
}

/// The API server, as far as it holds slices: it names what is created, and numbers what is written.
#[derive(Default)]
struct Server {
    plan: Slices,
    held: BTreeMap<String, EndpointSlice>,
    writes: usize,
}

impl Server {
    fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut server = Self::default();
        for object in objects {
            server.plan.apply(&Event::Apply(object));
        }
        server
    }

    /// Makes all changes, which says how many there were; after them there is nothing left to do.
    fn settle(&mut self) -> usize {
        let before = self.writes;
        for change in self.plan.wanted().into_values().flatten() {
            self.writes += 1;
            let event = match change {
                Change::Create(mut slice) => {
                    let name = format!("{}{}", slice.metadata.generate_name.as_deref().unwrap(), self.writes);
                    slice.metadata.name = Some(name);
                    slice.metadata.uid = Some(self.writes.to_string());
                    self.hold(*slice)
                }
                Change::Replace(slice) => {
                    let held = &self.held[slice.metadata.name.as_ref().unwrap()];
                    assert_eq!(held.metadata.resource_version, slice.metadata.resource_version);
                    assert_eq!(held.address_type, slice.address_type, "it is for good");
                    self.hold(*slice)
                }
                Change::Delete { namespace, name, uid, version } => {
                    let gone = self.held.remove(&name).unwrap().metadata;
                    assert_eq!((gone.uid, gone.resource_version), (uid, version));
                    Event::Delete(Key::new(Kind::EndpointSlice, namespace, name))
                }
            };
            assert!(self.plan.apply(&event));
        }
        assert!(self.plan.wanted().is_empty(), "{:#?}", self.plan.wanted());
        self.writes - before
    }

    fn hold(&mut self, mut slice: EndpointSlice) -> Event {
        assert!((1..=MAX_ENDPOINTS).contains(&slice.endpoints.len()));
        slice.metadata.resource_version = Some(self.writes.to_string());
        self.held.insert(slice.metadata.name.clone().unwrap(), slice.clone());
        Event::Apply(Object::EndpointSlice(Box::new(slice)))
    }

    fn apply(&mut self, object: Object) -> usize {
        self.plan.apply(&Event::Apply(object));
        self.settle()
    }

    fn delete(&mut self, kind: Kind, name: &str) -> usize {
        self.plan.apply(&Event::Delete(Key::new(kind, "ns", name)));
        self.settle()
    }

    fn only(&self) -> Value {
        assert_eq!(self.held.len(), 1);
        serde_json::to_value(self.held.values().next().unwrap()).unwrap()
    }

    /// Each endpoint, with its ports.
    fn endpoints(&self) -> Vec<String> {
        let mut all: Vec<String> = vec![];
        for slice in self.held.values() {
            let ports =
                slice.ports.iter().flatten().map(|p| format!("{}={}", p.name.as_deref().unwrap(), p.port.unwrap()));
            let ports = ports.collect::<Vec<_>>().join(",");
            let ready = |e: &Endpoint| e.conditions.as_ref().unwrap().ready.unwrap();
            all.extend(slice.endpoints.iter().map(|e| format!("{} {ports} {}", e.addresses.join("+"), ready(e))));
        }
        all.sort();
        all
    }
}

#[test]
fn a_service_has_the_workloads_that_it_selects() {
    let zone = json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "east"}}});
    let mut server = Server::of([service(json!({})), workload("vm", &["192.0.2.1"], zone)]);
    let Some(Change::Create(slice)) = server.plan.wanted().into_values().flatten().next() else { panic!() };
    let expected = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": "linkerd-external-db-", "namespace": "ns",
            "labels": {"team": "data", "kubernetes.io/service-name": "db",
                "endpointslice.kubernetes.io/managed-by": "linkerd-external-workloads-controller"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "db", "uid": "u1", "controller": true}],
        },
        "addressType": "IPv4",
        "ports": [{"name": "sql", "port": 5433, "protocol": "TCP"}, {"name": "web", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["192.0.2.1"], "zone": "east",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "ExternalWorkload", "namespace": "ns", "name": "vm", "uid": "of-vm"},
        }],
    });
    assert_eq!(serde_json::to_value(&slice).unwrap(), expected);
    assert_eq!(server.settle(), 1);
    // It stays in its slice whatever becomes of it.
    let unready =
        workload("vm", &["192.0.2.2"], json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}));
    assert_eq!(server.apply(unready), 1);
    assert_eq!(server.endpoints(), ["192.0.2.2 sql=5433,web=8080 false"]);
    assert_eq!(server.delete(Kind::ExternalWorkload, "vm"), 1);
    assert!(server.held.is_empty());
}

#[test]
fn only_what_is_selected_and_reached_is_there() {
    let found = |service_patch: Value, workload: Object| {
        let mut server = Server::of([service(service_patch), workload]);
        server.settle();
        server.endpoints()
    };
    let vm = |patch: Value| workload("vm", &["192.0.2.1", "2001:db8::1"], patch);
    let (v4, v6) = ("192.0.2.1 sql=5433,web=8080 true", "2001:db8::1 sql=5433,web=8080 true");
    assert_eq!(found(json!({}), vm(json!({}))), [v4]);
    assert_eq!(found(json!({"spec": {"ipFamilies": ["IPv6"]}}), vm(json!({}))), [v6]);
    for both in [json!(["IPv6", "IPv4"]), json!([])] {
        assert_eq!(found(json!({"spec": {"ipFamilies": both}}), vm(json!({}))), [v4, v6]);
    }
    let none: [&str; 0] = [];
    assert_eq!(found(json!({}), workload("vm", &[], json!({}))), none);
    assert_eq!(found(json!({}), vm(json!({"metadata": {"labels": {"app": "web"}}}))), none);
    assert_eq!(found(json!({}), vm(json!({"metadata": {"namespace": "other"}}))), none, "of another namespace");
    assert_eq!(found(json!({"spec": {"selector": null}}), vm(json!({}))), none, "it selects nothing");
    assert_eq!(found(json!({"spec": {"type": "ExternalName"}}), vm(json!({}))), none);
    assert_eq!(found(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), vm(json!({}))), none);
    let system = json!({"metadata": {"namespace": "kube-system"}});
    assert_eq!(found(system.clone(), vm(system)), none);
    // Ports have their protocol, and are declared.
    let ports = |ports: Value| vm(json!({"spec": {"ports": ports}}));
    assert_eq!(found(json!({}), ports(json!([{"port": 8080}]))), ["192.0.2.1 web=8080 true"]);
    assert_eq!(found(json!({}), ports(json!([{"name": "sql", "port": 1, "protocol": "UDP"}]))), none);
    let udp = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    assert_eq!(found(udp, ports(json!([{"port": 53, "protocol": "UDP"}]))), ["192.0.2.1 =53 true"]);
    // A headless one needs none.
    let headless = json!({"spec": {"clusterIP": "None", "ports": null}});
    assert_eq!(found(headless, vm(json!({}))), ["192.0.2.1  true"]);
}

#[test]
fn a_workload_has_a_name_in_a_headless_service() {
    let hostname = |name: &str, ip: &str| {
        let mut server =
            Server::of([service(json!({"spec": {"clusterIP": ip}})), workload(name, &["192.0.2.1"], json!({}))]);
        server.settle();
        let slice = server.only();
        let headless = slice["metadata"]["labels"].get(HEADLESS).is_some();
        (slice["endpoints"][0]["hostname"].as_str().map(str::to_owned), headless)
    };
    assert_eq!(hostname("vm", "None"), (Some("vm".to_owned()), true));
    assert_eq!(hostname("vm", "10.96.0.1"), (None, false));
    assert_eq!(hostname("vm.local", "None"), (None, true), "which is no name of one host");
}

#[test]
fn many_workloads_are_in_several_slices_of_which_few_are_written() {
    let name = |i: usize| format!("vm-{i:03}");
    let of = |i: usize, patch: Value| workload(&name(i), &[&format!("192.0.2.{}", i % 256)], patch);
    let mut server = Server::of((0..250).map(|i| of(i, json!({}))).chain([service(json!({}))]));
    assert_eq!(server.settle(), 3);
    let sizes = |server: &Server| {
        let mut sizes: Vec<usize> = server.held.values().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&server), [50, 100, 100]);
    assert_eq!(server.apply(of(120, json!({"status": {"conditions": []}}))), 1);
    assert_eq!(server.apply(of(300, json!({}))), 1, "where there is room");
    assert_eq!(sizes(&server), [51, 100, 100]);
    for i in 0..100 {
        assert_eq!(server.delete(Kind::ExternalWorkload, &name(i)), 1);
    }
    assert_eq!(server.held.len(), 2, "none is empty");
    // Other ports: the slice is written anew in its place, and nobody is missing meanwhile.
    assert_eq!(
        server.apply(service(json!({"spec": {"ports": [{"name": "sql", "port": 5432, "targetPort": "sql"}]}}))),
        2
    );
    assert_eq!(server.endpoints().len(), 151);
}

#[test]
fn endpoints_are_there_again_before_they_are_gone() {
    let mut server = Server::of([
        service(json!({})),
        workload("a", &["192.0.2.1"], json!({})),
        workload("b", &["192.0.2.2"], json!({})),
    ]);
    server.settle();
    // It leaves for a slice of its own.
    let other = json!({"spec": {"ports": [{"name": "sql", "port": 1}]}});
    server.plan.apply(&Event::Apply(workload("b", &["192.0.2.2"], other)));
    let changes: Vec<Change> = server.plan.wanted().into_values().flatten().collect();
    assert!(matches!(changes.as_slice(), [Change::Create(_), Change::Replace(_)]), "{changes:?}");
    server.settle();
    assert_eq!(server.endpoints(), ["192.0.2.1 sql=5433,web=8080 true", "192.0.2.2 sql=1 true"]);
}

#[test]
fn what_is_another_ones_is_left_alone() {
    let mut server = Server::of([service(json!({})), workload("vm", &["192.0.2.1"], json!({}))]);
    server.settle();
    let ours = server.held.values().next().unwrap().clone();
    let changed = |edit: &dyn Fn(&mut Value)| {
        let mut value = serde_json::to_value(&ours).unwrap();
        edit(&mut value);
        Object::EndpointSlice(typed(value))
    };
    let planned = |object: Object| {
        let mut plan = Slices::default();
        for object in [service(json!({})), workload("vm", &["192.0.2.1"], json!({})), object] {
            plan.apply(&Event::Apply(object));
        }
        plan.wanted().into_values().flatten().collect::<Vec<_>>()
    };
    assert_eq!(planned(changed(&|_| {})), []);
    // Labels and annotations of others are no reason to write, nor the order in which they have put things.
    assert_eq!(planned(changed(&|slice| slice["metadata"]["labels"]["x"] = json!("y"))), []);
    assert_eq!(planned(changed(&|slice| slice["metadata"]["annotations"] = json!({"x": "y"}))), []);
    let manager = |of: &'static str| move |slice: &mut Value| slice["metadata"]["labels"][MANAGED_BY] = json!(of);
    let theirs = planned(changed(&manager("endpointslice-controller.k8s.io")));
    assert!(matches!(theirs.as_slice(), [Change::Create(_)]), "{theirs:?}");
    // One of an earlier Service of the name goes, and is not taken over: its own end may be on its way.
    let earlier = planned(changed(&|slice| slice["metadata"]["ownerReferences"][0]["uid"] = json!("u0")));
    assert!(matches!(earlier.as_slice(), [Change::Create(_), Change::Delete { .. }]), "{earlier:?}");
    // What somebody has put in ours, or taken from it, does not stay.
    for edit in [
        &(|slice: &mut Value| slice["endpoints"][0]["addresses"] = json!(["192.0.2.9"])) as &dyn Fn(&mut Value),
        &|slice: &mut Value| slice["endpoints"][0]["targetRef"]["name"] = json!("gone"),
        &|slice: &mut Value| slice["ports"][0]["port"] = json!(1),
        &|slice: &mut Value| slice["metadata"]["labels"]["team"] = json!("other"),
        &|slice: &mut Value| {
            let again = slice["endpoints"][0].clone();
            slice["endpoints"].as_array_mut().unwrap().push(again);
        },
    ] {
        let mended = planned(changed(edit));
        assert!(matches!(mended.as_slice(), [Change::Replace(slice)] if slice.endpoints.len() == 1), "{mended:?}");
    }
    let annotated = changed(&|slice| {
        slice["metadata"]["annotations"] = json!({"x": "y"});
        slice["ports"][0]["port"] = json!(1);
    });
    let Change::Replace(mended) = planned(annotated).remove(0) else { panic!() };
    assert!(mended.metadata.annotations.is_some(), "what is not ours to say stays");
}

#[test]
fn slices_go_with_their_service() {
    let mut server = Server::of([service(json!({})), workload("vm", &["192.0.2.1"], json!({}))]);
    server.settle();
    assert_eq!(server.apply(service(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))), 0);
    assert_eq!(server.delete(Kind::Service, "db"), 1);
    assert!(server.held.is_empty());
    server.apply(service(json!({})));
    assert_eq!(server.held.len(), 1);
    assert_eq!(server.apply(service(json!({"spec": {"selector": null}}))), 1);
    assert!(server.held.is_empty());
}

#[test]
fn what_no_watch_has_told_of_may_be_gone_again() {
    let planned = || Server::of([service(json!({})), workload("vm", &["192.0.2.1"], json!({}))]);
    let mut server = planned();
    server.settle();
    assert_eq!(server.plan.untold(), [], "a watch has told");
    let slice = server.held.values().next().unwrap().clone();
    let id = ("ns".to_owned(), slice.metadata.name.clone().unwrap());
    let there = Event::Apply(Object::EndpointSlice(Box::new(slice)));
    let mut plan = planned().plan;
    for _ in 0..2 {
        plan.wrote(&there);
        assert_eq!(plan.untold(), std::slice::from_ref(&id), "however often it was found");
    }
    let mut told = plan.clone();
    told.apply(&there);
    told.wrote(&there);
    assert_eq!(told.untold(), [], "whoever was first");
    assert!(plan.wanted().is_empty());
    plan.wrote(&Event::Delete(Key::new(Kind::EndpointSlice, &id.0, &id.1)));
    assert_eq!(plan.untold(), []);
    assert!(matches!(plan.wanted().into_values().flatten().next(), Some(Change::Create(_))));
}

/// Whatever happened before, the slices say in the end what the objects say, and no more is written.
#[test]
fn slices_end_at_the_objects_whatever_happened() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..300 {
        let mut server = Server::default();
        let mut held: BTreeMap<Key, Object> = BTreeMap::new();
        for _ in 0..40 {
            let object = random(&mut rng);
            let key = object.key();
            if rng.u8(..4) == 0 {
                held.remove(&key);
                server.plan.apply(&Event::Delete(key));
            } else {
                held.insert(key, object.clone());
                server.plan.apply(&Event::Apply(object));
            }
            if rng.bool() {
                server.settle();
            }
        }
        server.settle();
        let mut fresh = Server::of(held.into_values());
        fresh.settle();
        assert_eq!(server.endpoints(), fresh.endpoints());
    }
}

fn random(rng: &mut fastrand::Rng) -> Object {
    let mut flag = || rng.bool();
    let [a, b, c, d] = [flag(), flag(), flag(), flag()];
    if a && b {
        let mut patch = json!({"spec": {"ipFamilies": if c { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) }}});
        if d {
            merge(&mut patch, json!({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}}));
        }
        return service(patch);
    }
    let mut patch = json!({});
    if b {
        merge(&mut patch, json!({"spec": {"ports": [{"port": 8080}]}}));
    }
    if d && c {
        merge(&mut patch, json!({"metadata": {"labels": {"app": "other"}}}));
    }
    let ips: &[&str] = if c { &["192.0.2.1", "2001:db8::1"] } else { &["192.0.2.2"] };
    workload(&format!("vm-{}", rng.u8(..6)), ips, patch)
}
