//! A table for each row of the control plane's parts 6.2 to 6.5, and the index against its own history.

use super::*;
use crate::{Event, Key, Object};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use weft_model::{
    ClientPolicy, Endpoint, NameAddr, Profile, ProtocolHint, ServerPolicy,
    policy::{
        inbound::{Authentication, DefaultPolicy, ServerProtocol},
        outbound::{BackendKind, ClientProtocol, Distribution},
        route::Filter,
    },
    profile::RetryBudget,
};

mod authorization;
mod chance;
mod client_routes;
mod externals;
mod histories;
mod injection;
mod objects;
mod outbound;
mod policies;
mod routes;
mod slices;

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

fn service(name: &str, patch: Value) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "db", "port": 5432},
            {"name": "api", "port": 81, "targetPort": 8081, "appProtocol": "http"},
            {"name": "grpc", "port": 82, "appProtocol": "kubernetes.io/h2c"},
            {"name": "raw", "port": 83, "appProtocol": "linkerd.io/tcp"},
            {"name": "odd", "port": 84, "appProtocol": "example.com/odd"},
            {"name": "web-db", "port": 3306, "appProtocol": "http"},
        ]},
    });
    merge(&mut value, patch);
    Object::Service(typed(value))
}

fn pod(name: &str, ip: &str, patch: Value) -> Object {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "ns", "labels": {
                "app": "web", "linkerd.io/control-plane-ns": "linkerd", "pod-template-hash": "6d5f",
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d5f", "controller": true, "uid": ""},
            ],
        },
        "spec": {"serviceAccountName": "web", "containers": [{
            "name": "web",
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "sql", "containerPort": 5432}],
            "readinessProbe": {"httpGet": {"path": "ready?x=1", "port": "http"}},
        }]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut value, patch);
    Object::Pod(typed(value))
}

fn namespace(annotations: Value) -> Object {
    let value =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "annotations": annotations}});
    Object::Namespace(typed(value))
}

fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn index(objects: Vec<Object>) -> Index {
    let mut index = Index::new(Settings::default());
    objects.into_iter().for_each(|o| drop(index.apply(Event::Apply(o))));
    index
}

fn name(path: &str) -> NameAddr {
    path.parse().unwrap()
}

fn destination(index: &Index, path: &str) -> Result<Vec<Endpoint>, Refusal> {
    match index.answer(&Question::Destination(name(path))).answer? {
        Answer::Destination(set) => Ok(set.seen_from(&Place::default()).into_values().collect()),
        other => panic!("{other:?}"),
    }
}

fn profile(index: &Index, path: &str) -> Result<Profile, Refusal> {
    let target = path.parse().map_or_else(|_| Target::Name(name(path)), Target::Addr);
    match index.answer(&Question::Profile { from: "ns".to_owned(), target }).answer? {
        Answer::Profile(profile) => Ok(profile),
        other => panic!("{other:?}"),
    }
}

fn inbound(index: &Index, pod: &str, port: u16) -> Result<ServerPolicy, Refusal> {
    inbound_of(index, WorkloadKind::Pod, pod, port)
}

fn inbound_of(index: &Index, of: WorkloadKind, name: &str, port: u16) -> Result<ServerPolicy, Refusal> {
    match index.answer(&Question::Inbound { namespace: "ns".into(), of, name: name.into(), port }).answer? {
        Answer::Inbound(policy) => Ok(policy),
        other => panic!("{other:?}"),
    }
}

fn outbound(index: &Index, path: &str) -> Result<ClientPolicy, Refusal> {
    let target = path.parse().map_or_else(|_| Target::Name(name(path)), Target::Addr);
    match index.answer(&Question::Outbound { from: "ns".to_owned(), target }).answer? {
        Answer::Outbound(policy) => Ok(policy),
        other => panic!("{other:?}"),
    }
}

fn addrs(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(|e| e.addr.to_string()).collect()
}

const WEB: &str = "web.ns.svc.cluster.local:80";

#[test]
fn endpoints_are_ready_pods_with_their_identity() {
    let index = index(vec![
        service("web", json!({})),
        pod("a", "10.1.0.1", json!({})),
        pod("not-ready", "10.1.0.2", json!({"status": {"conditions": []}})),
        pod("going", "10.1.0.3", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        pod("other", "10.1.0.4", json!({"metadata": {"labels": {"app": "other"}}})),
        pod("elsewhere", "10.1.0.5", json!({"metadata": {"namespace": "other"}})),
        pod("portless", "10.1.0.6", json!({"spec": {"containers": []}})),
    ]);
    let endpoints = destination(&index, WEB).unwrap();
    assert_eq!(addrs(&endpoints), ["10.1.0.1:8080"]);
    insta::assert_debug_snapshot!(endpoints[0]);
    // A number that the Service maps, and one that it does not know.
    assert!(addrs(&destination(&index, "web.ns.svc.cluster.local:81").unwrap()).contains(&"10.1.0.6:8081".into()));
    assert!(addrs(&destination(&index, "web.ns.svc.cluster.local:99").unwrap()).contains(&"10.1.0.1:99".into()));
}

#[test]
fn names_that_have_no_endpoints() {
    let index = index(vec![
        service("web", json!({"spec": {"selector": null}})),
        service("ext", json!({"spec": {"type": "ExternalName", "externalName": "example.com"}})),
    ]);
    assert_eq!(destination(&index, WEB).unwrap(), []);
    assert!(matches!(destination(&index, "none.ns.svc.cluster.local:80"), Err(Refusal::NotFound(_))));
    assert!(matches!(destination(&index, "ext.ns.svc.cluster.local:80"), Err(Refusal::Invalid(_))));
    for bad in ["10.1.0.1:80", "example.com:80", "web.ns.svc.other:80", "web.ns.pod.cluster.local:80"] {
        assert!(matches!(destination(&index, bad), Err(Refusal::Invalid(_))), "{bad}");
    }
}

#[test]
fn hints_say_how_to_reach_each_port() {
    let hint = |patch: Value, port: u16| {
        let index =
            index(vec![service("web", json!({"spec": {"ports": [{"port": port}]}})), pod("a", "10.1.0.1", patch)]);
        let endpoint = destination(&index, &format!("web.ns.svc.cluster.local:{port}")).unwrap().remove(0);
        (endpoint.tls.is_some(), endpoint.hint, endpoint.transport_port)
    };
    let (h2, opaque, unknown) = (ProtocolHint::H2, ProtocolHint::Opaque, ProtocolHint::Unknown);
    assert_eq!(hint(json!({}), 8080), (true, h2, Some(4143)));
    assert_eq!(hint(json!({}), 5432), (true, opaque, Some(4143)), "a usual opaque port");
    assert_eq!(hint(annotated(json!({"config.linkerd.io/opaque-ports": "8080"})), 5432), (true, h2, Some(4143)));
    assert_eq!(hint(annotated(json!({"config.linkerd.io/opaque-ports": "http"})), 8080), (true, opaque, Some(4143)));
    let skipped = annotated(json!({"config.linkerd.io/skip-inbound-ports": "8000-8100"}));
    assert_eq!(hint(skipped, 8080), (false, unknown, None), "its proxy does not see the port");
    assert_eq!(hint(json!({}), 4191), (true, h2, None), "the proxy's own port");
    for other in ["", "another-linkerd"] {
        let unmeshed = json!({"metadata": {"labels": {"linkerd.io/control-plane-ns": other}}});
        assert_eq!(hint(unmeshed, 8080), (false, unknown, None));
    }
}

#[test]
fn headless_services_families_and_instances() {
    let both = json!({"status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
    let found = |patch: Value| {
        let index = index(vec![service("web", patch), pod("a", "10.1.0.1", both.clone())]);
        addrs(&destination(&index, WEB).unwrap())
    };
    assert_eq!(found(json!({"spec": {"clusterIP": "None"}})), ["10.1.0.1:8080"]);
    assert_eq!(found(json!({"spec": {"clusterIP": "None", "ipFamilies": ["IPv6"]}})), ["[fd00::1]:8080"]);
    assert_eq!(found(json!({"spec": {"clusterIP": "fd00:96::1"}})), ["[fd00::1]:8080"]);
    assert_eq!(found(json!({"spec": {"clusterIPs": ["10.96.0.1", "fd00:96::1"]}})), ["[fd00::1]:8080"]);

    let named = json!({"spec": {"hostname": "web-0", "subdomain": "web"}});
    let index = index(vec![
        service("web", json!({"spec": {"clusterIP": "None", "publishNotReadyAddresses": true}})),
        pod("a", "10.1.0.1", named),
        pod("b", "10.1.0.2", json!({"status": {"conditions": []}})),
    ]);
    assert_eq!(addrs(&destination(&index, WEB).unwrap()), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    assert_eq!(addrs(&destination(&index, "web-0.web.ns.svc.cluster.local:80").unwrap()), ["10.1.0.1:8080"]);
    assert_eq!(destination(&index, "web-1.web.ns.svc.cluster.local:80").unwrap(), []);
    assert!(profile(&index, "web-0.web.ns.svc.cluster.local:8080").unwrap().endpoint.is_some());
    assert!(matches!(profile(&index, "web-1.web.ns.svc.cluster.local:8080"), Err(Refusal::NotFound(_))));
}

#[test]
fn profiles_say_what_an_address_is() {
    let index = index(vec![service("web", json!({})), pod("a", "10.1.0.1", json!({}))]);
    let of = |path: &str| {
        let p = profile(&index, path).unwrap();
        (p.name.map(|n| n.to_string()), p.opaque, p.endpoint.map(|e| (e.addr.to_string(), e.tls.is_some())))
    };
    let web = Some("web.ns.svc.cluster.local".to_owned());
    assert_eq!(of("10.96.0.1:80"), (web.clone(), false, None));
    assert_eq!(of("[::ffff:10.96.0.1]:80"), (web.clone(), false, None), "the same address in another form");
    assert_eq!(of("WEB.ns.svc.cluster.local.:80"), (web.clone(), false, None));
    assert_eq!(of("10.96.0.1:5432"), (web.clone(), true, None));
    assert_eq!(of("10.96.0.1:3306"), (web, false, None), "appProtocol says HTTP");
    assert_eq!(of("10.96.0.1:99"), (None, false, None), "not declared");
    assert_eq!(of("10.1.0.1:8080"), (None, false, Some(("10.1.0.1:8080".into(), true))));
    assert_eq!(of("10.1.0.1:5432"), (None, true, Some(("10.1.0.1:5432".into(), true))));
    assert_eq!(of("192.0.2.1:3306"), (None, true, Some(("192.0.2.1:3306".into(), false))));
    let parent = profile(&index, "10.96.0.1:80").unwrap().parent.unwrap();
    assert_eq!(
        (parent.group(), parent.kind(), parent.namespace(), parent.name(), parent.port()),
        ("core", "Service", "ns", "web", 80)
    );
    for path in ["10.96.0.1:80", "10.1.0.1:8080", "192.0.2.1:3306"] {
        assert_eq!(profile(&index, path).unwrap().retry_budget, Some(RetryBudget::LINKERD), "{path}");
    }
    assert_eq!(profile(&index, "10.96.0.1:99").unwrap(), Profile::default(), "nothing is said of what is not declared");
    let endpoint = profile(&index, "10.1.0.1:8080").unwrap().endpoint.unwrap();
    assert_eq!(endpoint.labels.get("namespace").map(String::as_str), Some("ns"));
    assert!(matches!(profile(&index, "example.com:80"), Err(Refusal::Invalid(_))));
    assert!(matches!(profile(&index, "none.ns.svc.cluster.local:80"), Err(Refusal::NotFound(_))));
}

#[test]
fn shared_addresses() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let host = json!({"spec": {"hostNetwork": true}});
    let with = |more: Vec<Object>| {
        let mut objects = vec![service("web", json!({})), pod("a", "10.1.0.1", json!({}))];
        objects.extend(more);
        index(objects)
    };
    let twice = with(vec![service("web2", json!({})), pod("b", "10.1.0.1", json!({}))]);
    assert!(matches!(profile(&twice, "10.96.0.1:80"), Err(Refusal::Ambiguous(_))));
    assert!(matches!(outbound(&twice, "10.96.0.1:80"), Err(Refusal::Ambiguous(_))));
    assert!(matches!(profile(&twice, "10.1.0.1:80"), Err(Refusal::Ambiguous(_))));
    // Who is about to go, and who has the host's address, do not count.
    let reused = with(vec![pod("b", "10.1.0.1", going.clone()), pod("c", "10.1.0.1", host)]);
    assert!(profile(&reused, "10.1.0.1:80").is_ok());
    // Until it is gone it is reached with its identity.
    let leaving = index(vec![pod("a", "10.1.0.1", going)]);
    assert!(profile(&leaving, "10.1.0.1:80").unwrap().endpoint.unwrap().tls.is_some());
}

#[test]
fn inbound_policies_follow_annotations() {
    let of = |ns: Value, patch: Value, port: u16| {
        let policy = inbound(&index(vec![namespace(ns), pod("a", "10.1.0.1", patch)]), "a", port).unwrap();
        let opaque = matches!(policy.protocol, ServerProtocol::Opaque);
        (policy.meta.name().to_owned(), policy.authorizations.len(), opaque)
    };
    let policy = |name: &str| json!({"config.linkerd.io/default-inbound-policy": name});
    assert_eq!(of(json!({}), json!({}), 8080), ("all-unauthenticated".into(), 1, false));
    assert_eq!(of(policy("deny"), json!({}), 8080), ("deny".into(), 0, false));
    assert_eq!(
        of(policy("deny"), annotated(policy("all-authenticated")), 8080),
        ("all-authenticated".into(), 1, false)
    );
    assert_eq!(of(json!({}), annotated(policy("nonsense")), 8080), ("all-unauthenticated".into(), 1, false));
    for default in DefaultPolicy::ALL {
        assert_eq!(of(policy(default.as_str()), json!({}), 8080).0, default.as_str());
    }
    assert_eq!(of(json!({}), json!({}), 5432), ("all-unauthenticated".into(), 1, true));
    let opaque = json!({"config.linkerd.io/opaque-ports": "http,9000-9100"});
    assert!(
        of(opaque.clone(), json!({}), 8080).2
            && of(opaque.clone(), json!({}), 9050).2
            && !of(opaque, json!({}), 5432).2
    );
    let required = json!({"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"});
    assert_eq!(of(json!({}), annotated(required.clone()), 8080).0, "all-authenticated");
    assert_eq!(of(json!({}), annotated(required.clone()), 8081).0, "all-unauthenticated");
    assert_eq!(of(policy("deny"), annotated(required), 8080).0, "deny");
    let none = index(vec![]);
    assert!(matches!(inbound(&none, "a", 80), Err(Refusal::NotFound(_))));
    assert!(matches!(inbound(&none, "a", 0), Err(Refusal::Invalid(_))));
}

#[test]
fn probes_are_let_in() {
    let deny = annotated(json!({"config.linkerd.io/default-inbound-policy": "deny"}));
    let index = index(vec![pod("a", "10.1.0.1", deny)]);
    let routes = |port| match inbound(&index, "a", port).unwrap().protocol {
        ServerProtocol::Detect { routes, .. } => routes,
        other => panic!("{other:?}"),
    };
    let [default, probe] = routes(8080).try_into().unwrap();
    assert_eq!((default.meta.name(), default.rules[0].does.authorizations.len()), ("default", 0));
    assert_eq!(probe.meta.name(), "probe");
    assert_eq!(format!("{:?}", probe.rules[0].matches[0].path), r#"Some(Exact("/ready"))"#);
    assert_eq!(probe.rules[0].matches[0].method.as_deref(), Some("GET"));
    assert_eq!(probe.rules[0].does.authorizations[0].authentication, Authentication::Unauthenticated);
    assert_eq!(routes(8081).len(), 1);
    let [_, of_proxy] = routes(4191).try_into().unwrap();
    assert_eq!(of_proxy.rules[0].matches.len(), 2, "/live and /ready of the proxy itself");
}

#[test]
fn the_mesh_itself_scrapes_whatever_the_policy_is() {
    let deny = annotated(json!({"config.linkerd.io/default-inbound-policy": "deny"}));
    let settings = Settings { scrape_networks: vec!["10.1.255.254/32".parse().unwrap()], ..Settings::default() };
    let mut index = Index::new(settings);
    index.apply(Event::Apply(pod("a", "10.1.0.1", deny)));
    let let_in = |port| inbound(&index, "a", port).unwrap().authorizations;
    assert_eq!(let_in(4191).iter().map(|a| a.meta.name()).collect::<Vec<_>>(), ["scrape"]);
    assert!(let_in(8080).is_empty());
}

#[test]
fn outbound_policies_follow_the_service() {
    let index = index(vec![service("web", json!({}))]);
    let kind = |path: &str| match outbound(&index, path).unwrap().protocol {
        ClientProtocol::Detect { .. } => "detect",
        ClientProtocol::Http1(_) => "http1",
        ClientProtocol::Http2(_) => "http2",
        ClientProtocol::Opaque(Some(route)) if route.filters == [Filter::Forbidden] => "forbidden",
        ClientProtocol::Opaque(Some(_)) => "opaque",
        other => panic!("{other:?}"),
    };
    for (port, expected) in [
        (80, "detect"),
        (5432, "opaque"),
        (81, "http1"),
        (82, "http2"),
        (83, "opaque"),
        (84, "opaque"),
        (3306, "http1"),
        (99, "forbidden"),
    ] {
        assert_eq!(kind(&format!("10.96.0.1:{port}")), expected, "{port}");
        assert_eq!(kind(&format!("web.ns.svc:{port}")), expected, "{port}");
        assert_eq!(kind(&format!("web.ns.svc.cluster.local:{port}")), expected, "{port}");
    }
    let policy = outbound(&index, "10.96.0.1:80").unwrap();
    insta::assert_debug_snapshot!(policy);
    for unknown in ["10.96.0.2:80", "[fd00::9]:80", "example.com:80", "web.ns:80", "none.ns.svc:80"] {
        assert!(matches!(outbound(&index, unknown), Err(Refusal::NotFound(_))), "{unknown}");
    }
}

#[test]
fn what_leaves_the_cluster_goes_where_it_was_sent() {
    let policy = outbound(&index(vec![]), "203.0.113.1:443").unwrap();
    assert_eq!(policy.meta.name(), "egress-fallback");
    let ClientProtocol::Detect { http1, opaque: Some(tcp), .. } = policy.protocol else { panic!() };
    for distribution in [&http1.routes[0].rules[0].does.backends, &tcp.backends] {
        let Distribution::FirstAvailable(backends) = distribution else { panic!() };
        assert_eq!(backends[0].backend.kind, BackendKind::Forward(Endpoint::plain("203.0.113.1:443".parse().unwrap())));
    }
}

#[test]
fn namespaces_do_not_see_each_other() {
    let before = index(vec![service("web", json!({})), pod("a", "10.1.0.1", json!({}))]);
    let mut after = before.clone();
    for object in [
        service("web", json!({"metadata": {"namespace": "other"}, "spec": {"clusterIP": "10.96.0.9", "ports": []}})),
        pod(
            "a",
            "10.1.0.9",
            json!({"metadata": {"namespace": "other", "annotations": {"linkerd.io/inject": "disabled"}}}),
        ),
        externals::external("a", &["10.1.0.9"], json!({"metadata": {"namespace": "other"}})),
        Object::Namespace(typed(json!({"apiVersion": "v1", "kind": "Namespace", "metadata":
            {"name": "other", "annotations": {"config.linkerd.io/default-inbound-policy": "deny"}}}))),
    ] {
        after.apply(Event::Apply(object));
    }
    for question in objects::questions().into_iter().filter(|q| !about_other(q)) {
        let of_other = |s: &Subject| matches!(s, Subject::Address(ip) if ip.to_string().ends_with(".9"));
        if !before.subjects(&question).iter().any(of_other) {
            assert_eq!(before.answer(&question), after.answer(&question), "{question:?}");
        }
    }
}

fn about_other(question: &Question) -> bool {
    match question {
        Question::Inbound { namespace, .. } | Question::Work { namespace, .. } => namespace == "other",
        Question::Destination(name)
        | Question::Profile { target: Target::Name(name), .. }
        | Question::Outbound { target: Target::Name(name), .. } => name.name.as_str().contains(".other."),
        Question::Profile { from, .. } | Question::Outbound { from, .. } => from == "other",
    }
}

#[test]
fn tokens_are_known_by_their_hash() {
    let token =
        crate::Token { sha256: "ab".into(), namespace: "ns".into(), service_account: "web".into(), pod: "a".into() };
    let mut index = index(vec![Object::Token(token.clone())]);
    assert_eq!(index.token("ab"), Some(&token));
    index.apply(Event::Delete(Object::Token(token).key()));
    assert_eq!(index.token("ab"), None);
}
