//! Statuses: what is written, and what is left alone.

use super::{
    super::{GROUP, read, told},
    *,
};
use crate::policy::route::GATEWAY_API;

const NOW: &str = "2026-02-01T00:00:00Z";
const BEFORE: &str = "2026-01-01T00:00:00Z";

fn parent(name: &str) -> Value {
    json!({"group": GROUP, "kind": "Server", "name": name})
}

fn metadata() -> Value {
    json!({"name": "r", "namespace": "ns", "generation": 3, "resourceVersion": "7"})
}

fn written(kind: Kind, spec: Value, status: Value) -> Value {
    let of = definition(kind).unwrap();
    let version = of.versions[0];
    let mut value =
        json!({"apiVersion": format!("{}/{version}", of.group), "kind": of.kind, "metadata": metadata(), "spec": spec});
    if !status.is_null() {
        value["status"] = status;
    }
    value
}

fn apply(kind: Kind, value: Value) -> Event {
    Event::Apply(read(kind, value).unwrap())
}

fn server(name: &str, protocol: &str) -> Event {
    let spec = json!({"podSelector": {}, "port": 80, "proxyProtocol": protocol});
    let mut value = written(Kind::Server, spec, Value::Null);
    value["metadata"]["name"] = json!(name);
    apply(Kind::Server, value)
}

fn statuses(events: impl IntoIterator<Item = Event>) -> Statuses {
    let mut statuses = Statuses::default();
    for event in events {
        statuses.apply(&event);
    }
    statuses
}

/// The one status that is wanted.
fn wanted(statuses: &Statuses) -> Option<Value> {
    let mut patches = statuses.wanted(NOW.parse().unwrap());
    assert!(patches.len() < 2, "{patches:?}");
    patches.pop().map(|patch| patch.body["status"].clone())
}

fn accepted(status: &str, reason: &str, message: &str, since: &str) -> Value {
    json!([{"type": "Accepted", "status": status, "reason": reason, "message": message, "observedGeneration": 3,
        "lastTransitionTime": since}])
}

fn entry(parent: Value, conditions: Value) -> Value {
    json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": conditions})
}

#[test]
fn every_reason_stands_in_the_page() {
    let page = include_str!("../../../../../docs/reference/kinds/README.md");
    for reason in
        [ACCEPTED, RESOLVED, CONFLICTED, NOT_FOUND, NO_BACKEND, NO_PARENT, NO_TARGET, ALREADY_THERE, UNSUPPORTED]
    {
        assert!(page.contains(&format!("| `{reason}` |")), "{reason}");
    }
}

#[test]
fn a_route_is_accepted_while_its_server_is_there() {
    for kind in [Kind::MeshHttpRoute, Kind::HttpRoute] {
        let route = |status: Value| apply(kind, written(kind, json!({"parentRefs": [parent("s")]}), status));
        let mut statuses = statuses([route(Value::Null), server("s", "HTTP/1")]);
        let patch = statuses.wanted(NOW.parse().unwrap()).remove(0);
        assert_eq!((patch.key.kind, patch.version.as_str()), (kind, "7"));
        assert_eq!(patch.body["metadata"], json!({"name": "r", "resourceVersion": "7"}));
        let yes = json!({"parents": [entry(parent("s"), accepted("True", "Accepted", "", NOW))]});
        assert_eq!(patch.body["status"], yes);
        // It says so already, and has for a while.
        let said = json!({"parents": [entry(parent("s"), accepted("True", "Accepted", "", BEFORE))]});
        assert!(statuses.apply(&route(said.clone())));
        assert_eq!(wanted(&statuses), None);
        assert!(!statuses.apply(&route(said)), "nothing has changed");
        assert!(statuses.apply(&Event::Delete(Key::new(Kind::Server, "ns", "s"))));
        let no = accepted("False", "NoMatchingParent", "there is no Server ns/s", NOW);
        assert_eq!(wanted(&statuses), Some(json!({"parents": [entry(parent("s"), no)]})));
        assert!(statuses.apply(&server("s", "gRPC")));
        let message = wanted(&statuses).unwrap()["parents"][0]["conditions"][0]["message"].clone();
        assert!(message.as_str().unwrap().contains("speaks gRPC"), "{message}");
        assert!(statuses.apply(&Event::Delete(Key::new(kind, "ns", "r"))));
        assert_eq!(wanted(&statuses), None);
    }
}

#[test]
fn another_generation_is_observed_without_a_transition() {
    let mut said = json!({"parents": [entry(parent("s"), accepted("True", "Accepted", "", BEFORE))]});
    said["parents"][0]["conditions"][0]["observedGeneration"] = json!(2);
    let spec = json!({"parentRefs": [parent("s")]});
    let route = apply(Kind::GrpcRoute, written(Kind::GrpcRoute, spec, said));
    let yes = json!({"parents": [entry(parent("s"), accepted("True", "Accepted", "", BEFORE))]});
    assert_eq!(wanted(&statuses([route, server("s", "gRPC")])), Some(yes));
}

#[test]
fn entries_of_others_stay_and_ours_of_no_parent_go() {
    let gateway = json!({"name": "gateway", "group": GATEWAY_API, "kind": "Gateway"});
    let theirs =
        json!({"parentRef": gateway, "controllerName": "example.com/gateway", "conditions": [{"type": "Accepted"}]});
    // As somebody wrote it; another letter is another reference.
    let second = json!({"group": "Policy.Linkerd.io", "kind": "server", "name": "t", "namespace": "ns"});
    let spec = json!({"parentRefs": [parent("s"), gateway, second]});
    let of = |status: Value| {
        let route = apply(Kind::HttpRoute, written(Kind::HttpRoute, spec.clone(), status));
        wanted(&statuses([route, server("s", "HTTP/2"), server("t", "unknown")]))
    };
    let yes = |since: &str| accepted("True", "Accepted", "", since);
    let gone = entry(parent("gone"), yes(BEFORE));
    let old = json!({"parents": [gone, theirs, entry(second.clone(), yes(BEFORE))]});
    let new = json!({"parents": [theirs, entry(second, yes(BEFORE)), entry(parent("s"), yes(NOW))]});
    assert_eq!(of(old), Some(new.clone()));
    assert_eq!(of(new), None, "ours in whatever order");
    // One that has no parent of the mesh any more.
    let spec = json!({"parentRefs": [gateway]});
    let of =
        |status: Value| wanted(&statuses([apply(Kind::HttpRoute, written(Kind::HttpRoute, spec.clone(), status))]));
    assert_eq!(of(json!({"parents": [theirs, gone]})), Some(json!({"parents": [theirs]})));
    assert_eq!((of(json!({"parents": [theirs]})), of(Value::Null)), (None, None));
}

#[test]
fn what_cannot_be_carried_out_says_so() {
    let spec =
        json!({"parentRefs": [parent("s"), {"name": "gateway"}], "rules": [{"matches": [{"path": {"value": "a"}}]}]});
    let object = written(Kind::HttpRoute, spec, Value::Null);
    let why = told(&read(Kind::HttpRoute, object.clone()).unwrap_err());
    let refused = Refused { key: Key::new(Kind::HttpRoute, "ns", "r"), object, reason: why.clone() };
    let found = wanted(&statuses([server("s", "HTTP/1"), Event::Refused(Box::new(refused))]));
    let no = accepted("False", "UnsupportedValue", &why, NOW);
    assert_eq!(found, Some(json!({"parents": [entry(parent("s"), no)]})));
}

#[test]
fn what_a_rule_wants_in_vain_stands_in_its_status() {
    let spec =
        json!({"parentRefs": [parent("s")], "rules": [{"filters": [{"type": "ExtensionRef", "extensionRef": {}}]}]});
    let route = apply(Kind::HttpRoute, written(Kind::HttpRoute, spec, Value::Null));
    let found = wanted(&statuses([server("s", "HTTP/1"), route])).unwrap();
    let condition = &found["parents"][0]["conditions"][0];
    assert_eq!(condition["status"], "True");
    assert!(condition["message"].as_str().unwrap().starts_with("spec.rules[0].filters[0].type: "), "{condition}");
}

#[test]
fn of_several_limits_the_oldest_is_accepted() {
    let kind = Kind::HttpLocalRateLimitPolicy;
    let limit = |name: &str, created: Option<&str>, status: Value| {
        let target = json!({"group": GROUP, "kind": "Server", "name": "s"});
        let mut value = written(kind, json!({"targetRef": target, "total": {"requestsPerSecond": 1}}), status);
        value["metadata"]["name"] = json!(name);
        if let Some(created) = created {
            value["metadata"]["creationTimestamp"] = json!(created);
        }
        apply(kind, value)
    };
    let of = |events: Vec<Event>| {
        let patches = statuses(events).wanted(NOW.parse().unwrap());
        let said = |patch: &Patch| {
            let condition = &patch.body["status"]["conditions"][0];
            format!(
                "{} {} {}",
                patch.key.name,
                condition["status"].as_str().unwrap(),
                condition["reason"].as_str().unwrap()
            )
        };
        patches.iter().map(said).collect::<Vec<_>>()
    };
    let no = |name: &str| limit(name, None, Value::Null);
    assert_eq!(of(vec![no("a")]), ["a False NoMatchingTarget"]);
    assert_eq!(of(vec![server("s", "gRPC"), no("a")]), ["a False NoMatchingTarget"], "nobody limits it");
    let both = ["a False RateLimitReasonAlreadyExists", "b True Accepted"];
    assert_eq!(of(vec![server("s", "HTTP/1"), no("a"), limit("b", Some(BEFORE), Value::Null)]), both);
    assert_eq!(
        of(vec![server("s", "HTTP/1"), no("b"), no("a")]),
        ["a True Accepted", "b False RateLimitReasonAlreadyExists"]
    );
    let reference = json!({"group": GROUP, "kind": "Server", "name": "s"});
    let said = json!({"conditions": accepted("True", "Accepted", "", BEFORE), "targetRef": reference});
    assert_eq!(of(vec![server("s", "HTTP/1"), limit("a", None, said)]), Vec::<String>::new());
}

fn of_service(patch: Value) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": "web"});
    parent.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
    parent
}

fn service(name: &str, ip: &str) -> Event {
    let value = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"clusterIP": ip}});
    Event::Apply(Object::Service(Box::new(serde_json::from_value(value).unwrap())))
}

fn gone(kind: Kind, name: &str) -> Event {
    Event::Delete(Key::new(kind, "ns", name))
}

/// Of the first parent of the one route each condition: its status, its reason, and its message.
fn conditions(statuses: &Statuses) -> Vec<(String, String)> {
    let status = wanted(statuses).unwrap();
    let conditions = status["parents"][0]["conditions"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let told = conditions.map(|c| {
        assert_eq!(c["observedGeneration"], 3);
        (format!("{} {} {}", text(&c["type"]), text(&c["status"]), text(&c["reason"])), text(&c["message"]))
    });
    told.collect()
}

fn reasons(statuses: &Statuses) -> Vec<String> {
    conditions(statuses).into_iter().map(|(reason, _)| reason).collect()
}

const YES: &str = "Accepted True Accepted";
const ALL_THERE: &str = "ResolvedRefs True ResolvedRefs";

#[test]
fn a_route_of_a_service_is_accepted_while_it_is_there_and_has_an_address() {
    for kind in [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute] {
        let route = || apply(kind, written(kind, json!({"parentRefs": [of_service(json!({}))]}), Value::Null));
        let mut statuses = statuses([route(), service("web", "10.96.0.1")]);
        assert_eq!(reasons(&statuses), [YES, ALL_THERE], "{kind:?}");
        assert!(!statuses.apply(&service("web", "10.96.0.2")), "another address is no other status");
        for nowhere in ["None", ""] {
            assert!(statuses.apply(&service("web", nowhere)));
            let told = conditions(&statuses);
            assert_eq!(told[0].0, "Accepted False NoMatchingParent");
            assert!(told[0].1.contains("cluster IP"), "{told:?}");
            assert!(statuses.apply(&service("web", "10.96.0.1")));
        }
        assert!(statuses.apply(&gone(Kind::Service, "web")));
        let told = conditions(&statuses);
        let none = "there is no Service ns/web".to_owned();
        assert_eq!(told, [("Accepted False NoMatchingParent".to_owned(), none), (ALL_THERE.to_owned(), String::new())]);
    }
}

#[test]
fn a_route_of_an_egress_network_is_accepted_while_it_is_there() {
    let network = |policy: &str| {
        let kind = Kind::EgressNetwork;
        let mut value = written(kind, json!({"trafficPolicy": policy}), Value::Null);
        value["metadata"]["name"] = json!("out");
        value
    };
    let parent = json!({"group": GROUP, "kind": "EgressNetwork", "name": "out", "port": 443});
    let route = apply(Kind::HttpRoute, written(Kind::HttpRoute, json!({"parentRefs": [parent]}), Value::Null));
    let mut statuses = statuses([route]);
    assert_eq!(reasons(&statuses)[0], "Accepted False NoMatchingParent");
    assert!(statuses.apply(&apply(Kind::EgressNetwork, network("Deny"))));
    assert_eq!(reasons(&statuses), [YES, ALL_THERE]);
    // One that cannot be carried out is not there.
    let key = Key::new(Kind::EgressNetwork, "ns", "out");
    let refused = Refused { key, object: network("no"), reason: String::new() };
    assert!(statuses.apply(&Event::Refused(Box::new(refused))));
    assert_eq!(reasons(&statuses)[0], "Accepted False NoMatchingParent");
}

#[test]
fn what_a_route_sends_to_and_is_not_there_is_named() {
    let of = |backends: Value, events: Vec<Event>| {
        let spec = json!({"parentRefs": [of_service(json!({}))], "rules": [{"backendRefs": backends}]});
        let route = apply(Kind::HttpRoute, written(Kind::HttpRoute, spec, Value::Null));
        let told = conditions(&statuses([vec![service("web", "10.96.0.1"), route], events].concat()));
        assert_eq!(told[0].0, YES);
        told[1].clone()
    };
    let api = || json!({"name": "api", "port": 80});
    let no = |reason: &str, why: &str| (format!("ResolvedRefs False {reason}"), why.to_owned());
    assert_eq!(of(json!([api()]), vec![]), no("BackendNotFound", "there is no Service ns/api"));
    // By any address, or none.
    assert_eq!(of(json!([api()]), vec![service("api", "None")]).0, ALL_THERE);
    let gone = vec![service("api", "None"), gone(Kind::Service, "api")];
    assert_eq!(of(json!([api(), api()]), gone).0, "ResolvedRefs False BackendNotFound");
    let thing = json!({"group": "example.com", "kind": "Thing", "name": "x"});
    let why = "\"Thing\" of \"example.com\" is no backend | there is no Service ns/api";
    assert_eq!(of(json!([api(), thing]), vec![]), no("InvalidKind", why));
}

/// Nor is there a copy for somebody who is not there, be it of a rule's requests or of a backend's.
#[test]
fn a_mirror_that_is_not_there_is_named() {
    let mirror = json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "copy", "port": 80}}}]);
    for rule in [json!({"filters": mirror}), json!({"backendRefs": [{"name": "web", "port": 80, "filters": mirror}]})] {
        let spec = json!({"parentRefs": [of_service(json!({}))], "rules": [rule]});
        let route = apply(Kind::HttpRoute, written(Kind::HttpRoute, spec, Value::Null));
        let mut statuses = statuses([service("web", "10.96.0.1"), route]);
        let told = conditions(&statuses);
        assert_eq!((told[0].0.as_str(), told[0].1.as_str()), (YES, ""), "it is carried out");
        assert_eq!(
            told[1],
            ("ResolvedRefs False BackendNotFound".to_owned(), "there is no Service ns/copy".to_owned())
        );
        statuses.apply(&service("copy", "10.96.0.2"));
        assert_eq!(reasons(&statuses), [YES, ALL_THERE]);
    }
}

#[test]
fn of_several_kinds_of_routes_of_a_port_the_first_is_followed() {
    let kinds = [Kind::GrpcRoute, Kind::HttpRoute, Kind::TlsRoute, Kind::TcpRoute];
    let of = |kind: Kind| {
        let spec =
            json!({"parentRefs": [of_service(json!({}))], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]});
        apply(kind, written(kind, spec, Value::Null))
    };
    for (i, first) in kinds.into_iter().enumerate() {
        let events = [vec![service("web", "10.96.0.1")], kinds[i..].iter().map(|kind| of(*kind)).collect()].concat();
        for patch in statuses(events).wanted(NOW.parse().unwrap()) {
            let reason = &patch.body["status"]["parents"][0]["conditions"][0]["reason"];
            let expected = if patch.key.kind == first { "Accepted" } else { "RouteReasonConflicted" };
            assert_eq!(reason, expected, "{:?} beside {first:?}", patch.key.kind);
        }
    }
}

#[test]
fn routes_of_grpc_take_a_port_for_themselves() {
    let named = |kind: Kind, name: &str, namespace: &str, parent: Value| {
        let mut value = written(kind, json!({"parentRefs": [parent]}), Value::Null);
        value["metadata"]["name"] = json!(name);
        value["metadata"]["namespace"] = json!(namespace);
        apply(kind, value)
    };
    let of = |http: (&str, Value), grpc: (&str, Value)| {
        let parent = |patch: &Value| {
            let mut parent = of_service(json!({"namespace": "ns"}));
            parent.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
            parent
        };
        let events = [
            service("web", "10.96.0.1"),
            named(Kind::HttpRoute, "h", http.0, parent(&http.1)),
            named(Kind::GrpcRoute, "g", grpc.0, parent(&grpc.1)),
        ];
        let patches = statuses(events).wanted(NOW.parse().unwrap());
        let reason = |kind: Kind| {
            let patch = patches.iter().find(|patch| patch.key.kind == kind).unwrap();
            patch.body["status"]["parents"][0]["conditions"][0]["reason"].as_str().unwrap().to_owned()
        };
        assert_eq!(reason(Kind::GrpcRoute), "Accepted");
        reason(Kind::HttpRoute) == "RouteReasonConflicted"
    };
    let (all, one, other) = (json!({}), json!({"port": 80}), json!({"port": 81}));
    for (http, grpc, conflict) in
        [(&all, &all, true), (&one, &one, true), (&one, &all, true), (&all, &one, false), (&one, &other, false)]
    {
        assert_eq!(of(("ns", http.clone()), ("ns", grpc.clone())), conflict, "{http} {grpc}");
    }
    let (a, b) = (|namespace| (namespace, json!({})), |namespace| (namespace, json!({})));
    assert!(of(a("other"), b("other")) && of(a("other"), b("ns")));
    assert!(!of(a("ns"), b("other")), "others follow it");
    assert!(!of(a("third"), b("other")));
}
