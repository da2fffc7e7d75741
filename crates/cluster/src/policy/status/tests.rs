//! Statuses: what is written, and what is left alone.

use super::{
    super::{GROUP, read, told},
    *,
};
use crate::{
    Index,
    index::{Answer, Question, Target},
    policy::route::GATEWAY_API,
};
use weft_model::policy::outbound::ClientProtocol;

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
    let mut statuses = Statuses::new(Settings { platform: Platform::Kubernetes, ..Settings::default() });
    for event in events {
        statuses.apply(&event);
    }
    statuses
}

/// The one status that is wanted, of EgressNetworks aside.
fn wanted(statuses: &Statuses) -> Option<Value> {
    let mut patches = statuses.wanted(NOW.parse().unwrap());
    patches.retain(|patch| patch.key.kind != Kind::EgressNetwork);
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
    for reason in [
        ACCEPTED,
        RESOLVED,
        CONFLICTED,
        NOT_FOUND,
        NO_BACKEND,
        NO_PARENT,
        NO_TARGET,
        ALREADY_THERE,
        INSIDE,
        UNSUPPORTED,
    ] {
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
    served(name, ip, json!([{"name": "http", "port": 80}, {"name": "more", "port": 81}]), json!({}))
}

fn served(name: &str, ip: &str, ports: Value, annotations: Value) -> Event {
    let metadata = json!({"name": name, "namespace": "ns", "annotations": annotations});
    let value = json!({"metadata": metadata, "spec": {"clusterIP": ip, "ports": ports}});
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

/// As the index has it: what a file says of an object's age is nothing.
#[test]
fn of_several_limits_on_disk_the_first_by_name_is_accepted() {
    let kind = Kind::HttpLocalRateLimitPolicy;
    let limit = |name: &str, created: Value| {
        let target = json!({"group": GROUP, "kind": "Server", "name": "s"});
        let mut value = written(kind, json!({"targetRef": target, "total": {"requestsPerSecond": 1}}), Value::Null);
        value["metadata"]["name"] = json!(name);
        value["metadata"]["creationTimestamp"] = created;
        apply(kind, value)
    };
    // What is said to each; nothing to the one that is accepted.
    let told = |platform: Platform, created: [Value; 2]| {
        let mut statuses = Statuses::new(Settings { platform, ..Settings::default() });
        let [a, b] = created;
        for event in [server("s", "HTTP/1"), limit("a", a), limit("b", b)] {
            statuses.apply(&event);
        }
        let patches = statuses.wanted(NOW.parse().unwrap());
        let message = |patch: &Patch| patch.body["status"]["conditions"][0]["message"].as_str().unwrap().to_owned();
        patches.iter().map(|patch| (patch.key.name.clone(), message(patch))).collect::<Vec<_>>()
    };
    let by_name = "a comes before it by its name, and limits the Server s";
    for (platform, created, a, b) in [
        (Platform::Manifests, [Value::Null, json!(BEFORE)], "", by_name),
        (Platform::Kubernetes, [Value::Null, json!(BEFORE)], "b is older, and limits the Server s", ""),
        (Platform::Kubernetes, [json!(BEFORE), json!(NOW)], "", "a is older, and limits the Server s"),
        (Platform::Kubernetes, [json!(BEFORE), json!(BEFORE)], "", by_name),
    ] {
        let expected = [("a", a), ("b", b)].map(|(name, said)| (name.to_owned(), said.to_owned()));
        assert_eq!(told(platform, created.clone()), expected, "{created:?}");
    }
}

/// The status that is wanted of the one EgressNetwork.
fn wanted_of_egress(statuses: &Statuses) -> Option<Value> {
    let mut patches = statuses.wanted(NOW.parse().unwrap());
    patches.retain(|patch| patch.key.kind == Kind::EgressNetwork);
    assert!(patches.len() < 2, "{patches:?}");
    patches.pop().map(|patch| patch.body["status"].clone())
}

#[test]
fn an_egress_network_says_what_became_of_it() {
    let kind = Kind::EgressNetwork;
    let network = |spec: Value, status: Value| apply(kind, written(kind, spec, status));
    let outside = json!({"trafficPolicy": "Deny", "networks": [{"cidr": "203.0.113.0/24"}]});
    let yes = |since: &str| json!({"conditions": accepted("True", "Accepted", "", since)});
    let mut statuses = statuses([network(outside.clone(), Value::Null)]);
    assert_eq!(wanted_of_egress(&statuses), Some(yes(NOW)));
    statuses.apply(&network(outside.clone(), yes(BEFORE)));
    assert_eq!(wanted_of_egress(&statuses), None, "it says so already");
    // An earlier generation was observed; what others say stays.
    let mut earlier = yes(BEFORE);
    earlier["conditions"][0]["observedGeneration"] = json!(2);
    let others = json!({"type": "example.com/Seen", "status": "True"});
    earlier["conditions"].as_array_mut().unwrap().push(others.clone());
    statuses.apply(&network(outside, earlier));
    let both = json!({"conditions": [others, accepted("True", "Accepted", "", BEFORE)[0]]});
    assert_eq!(wanted_of_egress(&statuses), Some(both));
    // All of it without what is in the cluster is all that is outside.
    statuses.apply(&network(json!({"trafficPolicy": "Allow"}), Value::Null));
    assert_eq!(wanted_of_egress(&statuses), Some(yes(NOW)));
    statuses.apply(&network(json!({"trafficPolicy": "Allow", "networks": [{"cidr": "0.0.0.0/0"}]}), Value::Null));
    let told = wanted_of_egress(&statuses).unwrap()["conditions"][0].clone();
    assert_eq!((&told["status"], &told["reason"]), (&json!("False"), &json!("EgressReasonNetworkOverlap")));
    assert!(told["message"].as_str().unwrap().contains("10.0.0.0/8: leave them out by except"), "{told}");
    let object = written(kind, json!({"trafficPolicy": "no"}), Value::Null);
    let refused = Refused { key: Key::new(kind, "ns", "r"), object, reason: "why".to_owned() };
    statuses.apply(&Event::Refused(Box::new(refused)));
    let no = accepted("False", "UnsupportedValue", "why", NOW);
    assert_eq!(wanted_of_egress(&statuses), Some(json!({"conditions": no})));
    assert!(statuses.apply(&gone(kind, "r")));
    assert_eq!(wanted_of_egress(&statuses), None);
}

const KINDS_OF_ROUTES: [Kind; 5] =
    [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute];

/// Whether clients of port `port` of the Service follow a route.
fn is_followed(events: &[Event], port: u16) -> bool {
    let mut index = Index::new(Settings { platform: Platform::Kubernetes, ..Settings::default() });
    events.iter().cloned().for_each(|event| drop(index.apply(event)));
    let target = Target::Name(format!("web.ns.svc.cluster.local:{port}").parse().unwrap());
    let Ok(Answer::Outbound(policy)) = index.answer(&Question::Outbound { from: "ns".to_owned(), target }).answer
    else {
        panic!("{events:?}")
    };
    let names: Vec<String> = match policy.protocol {
        ClientProtocol::Detect { http1: http, .. } | ClientProtocol::Http1(http) | ClientProtocol::Http2(http) => {
            http.routes.iter().map(|route| route.meta.name().to_owned()).collect()
        }
        ClientProtocol::Grpc { routes, .. } => routes.iter().map(|route| route.meta.name().to_owned()).collect(),
        ClientProtocol::Tls(routes) => routes.iter().map(|route| route.route.meta.name().to_owned()).collect(),
        ClientProtocol::Opaque(route) => route.iter().map(|route| route.meta.name().to_owned()).collect(),
    };
    names.contains(&"r".to_owned())
}

/// Whoever is told that a route is accepted follows it, and whoever is not does not.
#[test]
fn a_route_is_accepted_where_a_port_speaks_what_it_is_of() {
    let route = |kind: Kind, port: Value| {
        let rule = json!({"backendRefs": [{"name": "web", "port": 80}]});
        let spec = json!({"parentRefs": [of_service(json!({"port": port}))], "rules": [rule]});
        apply(kind, written(kind, spec, Value::Null))
    };
    let (http, h2c) = (json!({"appProtocol": "http"}), json!({"appProtocol": "kubernetes.io/h2c"}));
    for (name, of_port, annotations) in [
        ("detected", json!({}), json!({})),
        ("http", http, json!({"config.linkerd.io/opaque-ports": "90"})),
        ("h2c", h2c, json!({})),
        ("unknown", json!({"appProtocol": "example.com/x"}), json!({})),
        ("tcp", json!({"appProtocol": "linkerd.io/tcp"}), json!({})),
        ("opaque by number", json!({}), json!({"config.linkerd.io/opaque-ports": "90"})),
        ("opaque by name", json!({}), json!({"config.linkerd.io/opaque-ports": "the-port"})),
    ] {
        let mut port = json!({"name": "the-port", "port": 90});
        port.as_object_mut().unwrap().extend(of_port.as_object().unwrap().clone());
        let service = || served("web", "10.96.0.1", json!([port]), annotations.clone());
        for kind in KINDS_OF_ROUTES {
            let events = [service(), route(kind, json!(90))];
            let told = conditions(&statuses(events.clone())).remove(0);
            assert_eq!(told.0 == YES, is_followed(&events, 90), "{kind:?} on a port that is {name}: {told:?}");
            assert!(told.0 == YES || told.1.contains("port 90 speaks "), "{told:?}");
            // Beside a port that it is for it is accepted, and says where it is in vain.
            let more = served("web", "10.96.0.1", json!([port, {"name": "other", "port": 91}]), annotations.clone());
            let beside = conditions(&statuses([more, route(kind, Value::Null)])).remove(0);
            let expected = if told.0 == YES { "" } else { "it is not for each port: port 90 speaks " };
            assert!(beside.0 == YES && beside.1.starts_with(expected), "{kind:?} {name}: {beside:?}");
            assert_eq!(beside.1.is_empty(), told.0 == YES);
        }
    }
    let of = |port: Value| conditions(&statuses([service("web", "10.96.0.1"), route(Kind::HttpRoute, port)])).remove(0);
    let no = "Accepted False NoMatchingParent".to_owned();
    assert_eq!(of(json!(99)), (no.clone(), "the Service web has no port 99".to_owned()));
    assert_eq!(of(json!(81)).0, YES);
    let without = [served("web", "10.96.0.1", json!([]), json!({})), route(Kind::HttpRoute, Value::Null)];
    assert_eq!(conditions(&statuses(without)).remove(0), (no, "the Service web has no port of TCP".to_owned()));
}

/// A route that comes before another one does so where both are for what the port speaks.
#[test]
fn routes_take_only_what_they_are_for() {
    let route = |kind: Kind, name: &str| {
        let rule = json!({"backendRefs": [{"name": "web", "port": 80}]});
        let mut value = written(kind, json!({"parentRefs": [of_service(json!({}))], "rules": [rule]}), Value::Null);
        value["metadata"]["name"] = json!(name);
        apply(kind, value)
    };
    for (protocol, first, second, both) in [
        (json!("linkerd.io/opaque"), Kind::HttpRoute, Kind::TcpRoute, ["NoMatchingParent", "Accepted"]),
        (json!("http"), Kind::GrpcRoute, Kind::HttpRoute, ["NoMatchingParent", "Accepted"]),
        (json!("kubernetes.io/h2c"), Kind::GrpcRoute, Kind::HttpRoute, ["Accepted", "RouteReasonConflicted"]),
        (Value::Null, Kind::HttpRoute, Kind::TcpRoute, ["Accepted", "RouteReasonConflicted"]),
    ] {
        let service = served("web", "10.96.0.1", json!([{"port": 90, "appProtocol": protocol}]), json!({}));
        let statuses = statuses([service, route(first, "first"), route(second, "second")]);
        let mut patches = statuses.wanted(NOW.parse().unwrap());
        patches.sort_by_key(|patch| patch.key.name.clone());
        let told: Vec<_> = patches
            .iter()
            .map(|patch| patch.body["status"]["parents"][0]["conditions"][0]["reason"].as_str().unwrap())
            .collect();
        assert_eq!(told, both, "{protocol}");
    }
}

/// On one machine what a namespace says holds for its Services at once.
#[test]
fn ports_are_opaque_by_their_namespace_where_it_says_so() {
    let namespace = |ports: &str| {
        let metadata = json!({"name": "ns", "annotations": {"config.linkerd.io/opaque-ports": ports}});
        let value = json!({"metadata": metadata});
        Event::Apply(Object::Namespace(Box::new(serde_json::from_value(value).unwrap())))
    };
    let kind = Kind::HttpRoute;
    let route = || apply(kind, written(kind, json!({"parentRefs": [of_service(json!({"port": 80}))]}), Value::Null));
    for (platform, reason) in [(Platform::Manifests, "Accepted False NoMatchingParent"), (Platform::Kubernetes, YES)] {
        let mut statuses = Statuses::new(Settings { platform, ..Settings::default() });
        for event in [namespace("80"), service("web", "10.96.0.1"), route()] {
            statuses.apply(&event);
        }
        assert_eq!(reasons(&statuses)[0], reason);
        statuses.apply(&namespace("90"));
        assert_eq!(reasons(&statuses)[0], YES);
    }
}
