//! Routes of Services and EgressNetworks as clients follow them (control plane 6.5): a table for each row.

use super::{
    outbound::{egress, http_of, seen_from, tcp_of},
    policies::object,
    slices::kubernetes,
    *,
};
use crate::Kind;
use std::time::Duration;
use weft_model::{
    Meta,
    policy::{
        outbound::{Breaker, Load, OutboundRule, Retry, RetryOn, RouteBackend, Timeouts},
        route::{GrpcRoute, HostMatch, HttpRoute, Mirror, PathReplacement, Ratio, Rewrite},
    },
};

const HTTP: [Kind; 2] = [Kind::MeshHttpRoute, Kind::HttpRoute];

pub(super) fn of_service(patch: Value) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": "web"});
    merge(&mut parent, patch);
    parent
}

fn of_egress(port: u16) -> Value {
    json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": port})
}

fn route(kind: Kind, name: &str, parent: Value, rules: Value, patch: Value) -> Object {
    object(kind, name, json!({"parentRefs": [parent], "rules": rules}), patch)
}

/// One of the Service `web` with one rule.
fn ruled(kind: Kind, rule: Value, patch: Value) -> Object {
    route(kind, "r", of_service(json!({})), json!([rule]), patch)
}

fn to(backends: Value) -> Value {
    json!({"backendRefs": backends})
}

fn elsewhere(namespace: &str) -> Value {
    json!({"metadata": {"namespace": namespace}})
}

fn created(second: u8) -> Value {
    json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}})
}

fn api() -> Object {
    service("api", json!({"spec": {"clusterIP": "10.96.0.2"}}))
}

fn web(more: Vec<Object>) -> Index {
    kubernetes([vec![service("web", json!({})), api()], more].concat())
}

fn grpc_of(policy: &ClientPolicy) -> &[GrpcRoute<OutboundRule>] {
    match &policy.protocol {
        ClientProtocol::Grpc { routes, .. } => routes,
        other => panic!("{other:?}"),
    }
}

fn names(policy: &ClientPolicy) -> Vec<&str> {
    http_of(policy).routes.iter().map(|route| route.meta.name()).collect()
}

/// What the one rule of HTTP does.
fn does(index: &Index) -> OutboundRule {
    let policy = outbound(index, "10.96.0.1:80").unwrap();
    let [HttpRoute { rules, .. }] = &http_of(&policy).routes[..] else { panic!("{policy:?}") };
    rules[0].does.clone()
}

/// Each backend by its weight, its kind and name, and what is done with its requests.
fn shares(does: &OutboundRule) -> Vec<(u32, String, Option<String>)> {
    let told = |weight: u32, RouteBackend { backend, filters }: &RouteBackend| {
        let failure = filters.iter().find_map(|filter| match filter {
            Filter::HttpFailure { status, message, .. } => Some(format!("{status} {message}")),
            Filter::GrpcFailure { code, message, .. } => Some(format!("{code} {message}")),
            _ => None,
        });
        assert_eq!(matches!(backend.kind, BackendKind::Missing), failure.is_some(), "{backend:?}");
        (weight, format!("{}/{}:{}", backend.meta.kind(), backend.meta.name(), backend.meta.port()), failure)
    };
    match &does.backends {
        Distribution::Empty => vec![],
        Distribution::FirstAvailable(all) => all.iter().map(|backend| told(1, backend)).collect(),
        Distribution::RandomAvailable(all) => all.iter().map(|(backend, weight)| told(*weight, backend)).collect(),
    }
}

#[test]
fn routes_of_the_services_namespace_are_everybodys_and_others_their_own() {
    for kind in HTTP {
        let all = vec![
            route(kind, "producer", of_service(json!({})), json!([{}]), json!({})),
            route(kind, "consumer", of_service(json!({"namespace": "ns"})), json!([{}]), elsewhere("other")),
            route(kind, "of-port", of_service(json!({"port": 81})), json!([{}]), json!({})),
            route(kind, "of-api", of_service(json!({"name": "api"})), json!([{}]), json!({})),
            route(kind, "of-another", of_service(json!({})), json!([{}]), elsewhere("third")),
        ];
        let index = web(all);
        let of = |from: &str, path: &str| {
            let policy = seen_from(&index, from, path).unwrap();
            names(&policy).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for host in ["10.96.0.1", "web.ns.svc.cluster.local"] {
            assert_eq!(of("ns", &format!("{host}:80")), ["producer"]);
            assert_eq!(of("third", &format!("{host}:80")), ["producer"]);
            assert_eq!(of("other", &format!("{host}:80")), ["consumer", "producer"]);
            assert_eq!(of("ns", &format!("{host}:81")), ["of-port", "producer"]);
        }
        assert_eq!(of("ns", "10.96.0.2:80"), ["of-api"]);
    }
}

#[test]
fn a_clients_own_routes_come_first_then_the_oldest_then_by_name() {
    let of = |name: &str, kind: Kind, patch: Value| {
        route(kind, name, of_service(json!({"namespace": "ns"})), json!([{}]), patch)
    };
    let mut young = elsewhere("other");
    merge(&mut young, created(9));
    let all = || {
        vec![
            of("e", Kind::HttpRoute, json!({})),
            of("d", Kind::MeshHttpRoute, json!({})),
            of("c", Kind::HttpRoute, created(1)),
            of("b", Kind::MeshHttpRoute, created(2)),
            of("a", Kind::HttpRoute, created(2)),
            of("y", Kind::HttpRoute, young.clone()),
            of("z", Kind::HttpRoute, elsewhere("other")),
        ]
    };
    let letters = |index: &Index, from: &str| names(&seen_from(index, from, "10.96.0.1:80").unwrap()).concat();
    let index = web(all());
    assert_eq!((letters(&index, "ns"), letters(&index, "other")), ("cabde".to_owned(), "yzcabde".to_owned()));
    // Objects on disk have no age, whatever is written in them.
    let on_disk = super::index([vec![service("web", json!({}))], all()].concat());
    assert_eq!(letters(&on_disk, "other"), "yzabcde");
}

/// Routes take the place of what holds without them, and the last one gives it back.
#[test]
fn what_a_port_speaks_decides_which_routes_are_followed() {
    let http = || route(Kind::HttpRoute, "h", of_service(json!({})), json!([{}]), json!({}));
    let grpc = || route(Kind::GrpcRoute, "g", of_service(json!({})), json!([{}]), json!({}));
    let of = |port: u16, routes: Vec<Object>| {
        let policy = outbound(&web(routes), &format!("10.96.0.1:{port}")).unwrap();
        match &policy.protocol {
            ClientProtocol::Grpc { routes, .. } => format!("grpc {}", routes[0].meta.name()),
            ClientProtocol::Opaque(Some(tcp)) => format!("opaque {}", tcp.meta.name()),
            ClientProtocol::Http1(routes) => format!("http1 {}", routes.routes[0].meta.name()),
            ClientProtocol::Http2(routes) => format!("http2 {}", routes.routes[0].meta.name()),
            ClientProtocol::Detect { http1, http2, opaque, .. } => {
                assert_eq!(http1, http2);
                format!("detect {} {}", http1.routes[0].meta.name(), opaque.as_ref().unwrap().meta.name())
            }
            ClientProtocol::Opaque(None) | ClientProtocol::Tls(_) => panic!("{policy:?}"),
        }
    };
    for (port, none, http_alone, grpc_alone, both) in [
        (80, "detect http opaq", "detect h opaq", "grpc g", "grpc g"),
        (81, "http1 http", "http1 h", "http1 http", "http1 h"),
        (82, "http2 http", "http2 h", "grpc g", "grpc g"),
        (83, "opaque opaq", "opaque opaq", "opaque opaq", "opaque opaq"),
        (84, "opaque opaq", "opaque opaq", "opaque opaq", "opaque opaq"),
        (5432, "opaque opaq", "opaque opaq", "opaque opaq", "opaque opaq"),
        (99, "opaque undefined-port", "opaque undefined-port", "opaque undefined-port", "opaque undefined-port"),
    ] {
        let found = [vec![], vec![http()], vec![grpc()], vec![http(), grpc()]].map(|routes| of(port, routes));
        assert_eq!(found, [none, http_alone, grpc_alone, both], "{port}");
    }
    let mut index = web(vec![http()]);
    let touched = [
        Subject::Service { namespace: "ns".to_owned(), name: "web".to_owned() },
        Subject::Address("10.96.0.1".parse().unwrap()),
    ];
    let before = outbound(&web(vec![]), "10.96.0.1:80").unwrap();
    assert_eq!(index.apply(Event::Apply(http())), [], "nothing new");
    assert_eq!(index.apply(Event::Delete(http().key())), touched);
    assert_eq!(outbound(&index, "10.96.0.1:80").unwrap(), before);
}

#[test]
fn connections_follow_routes_of_their_own() {
    let sending = |backends: Value| json!([{"backendRefs": backends}]);
    let shares = |backends: Value| {
        let route = route(Kind::TcpRoute, "t", of_service(json!({})), sending(backends), json!({}));
        let policy = outbound(&web(vec![route]), "10.96.0.1:80").unwrap();
        assert!(matches!(policy.protocol, ClientProtocol::Opaque(_)));
        let tcp = tcp_of(&policy);
        assert_eq!((tcp.meta.kind(), tcp.meta.name(), tcp.filters.len()), ("TCPRoute", "t", 0));
        let one = |b: &RouteBackend| match (&b.backend.kind, &b.filters[..]) {
            (BackendKind::Balance { target, load }, []) => {
                assert_eq!(*load, Load::LINKERD);
                target.to_string()
            }
            (BackendKind::Missing, [Filter::Invalid(why)]) => why.clone(),
            other => panic!("{other:?}"),
        };
        tcp.backends.iter().map(one).collect::<Vec<_>>()
    };
    let both = shares(json!([{"name": "api", "port": 80, "weight": 3}, {"name": "gone", "port": 80}]));
    assert_eq!(both, ["api.ns.svc.cluster.local:80", "there is no Service ns/gone"]);
    assert_eq!(shares(json!([{"name": "api", "port": 80, "weight": 0}])), ["no backend of the route has a weight"]);

    let named = |name: &str, host: &str, parent: Value, patch: Value| {
        let spec = json!({"parentRefs": [parent], "hostnames": [host], "rules": sending(json!([{"name": "api", "port": 80}]))});
        object(Kind::TlsRoute, name, spec, patch)
    };
    let policy = outbound(&web(vec![named("t", "*.a", of_service(json!({})), json!({}))]), "10.96.0.1:80").unwrap();
    let ClientProtocol::Tls(routes) = &policy.protocol else { panic!("{policy:?}") };
    assert_eq!((routes.len(), &routes[0].snis[..]), (1, &[HostMatch::Suffix(vec!["a".to_owned()])][..]));

    // By an EgressNetwork the rest goes, or not, as before.
    for (allowed, default) in [("Allow", "tls-egress-allow"), ("Deny", "tls-egress-deny")] {
        let net = egress("out", json!({"trafficPolicy": allowed}), json!({}));
        let of = |route: Object| outbound(&kubernetes(vec![net.clone(), api(), route]), "203.0.113.1:443").unwrap();
        let policy = of(named("t", "a.b", of_egress(443), json!({})));
        let ClientProtocol::Tls(routes) = &policy.protocol else { panic!("{policy:?}") };
        assert_eq!(routes.iter().map(|r| r.route.meta.name()).collect::<Vec<_>>(), ["t", default]);
        assert_eq!(routes[1].route.filters, if allowed == "Deny" { vec![Filter::Forbidden] } else { vec![] });
        let network = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"});
        let policy = of(route(Kind::TcpRoute, "t", of_egress(443), sending(json!([network])), json!({})));
        let tcp = tcp_of(&policy);
        assert_eq!((tcp.meta.name(), tcp.filters.len()), ("t", 0));
        let to = &tcp.backends.iter().next().unwrap().backend.kind;
        assert!(matches!(to, BackendKind::Forward(to) if to.addr == "203.0.113.1:443".parse().unwrap()));
    }
}

#[test]
fn a_rule_without_backends_sends_to_its_parent_and_others_by_weight() {
    for kind in HTTP {
        let found = does(&web(vec![ruled(kind, json!({}), json!({}))]));
        assert!(matches!(found.backends, Distribution::FirstAvailable(_)));
        assert_eq!(shares(&found), [(1, "Service/web:80".to_owned(), None)]);
        let backends = json!([
            {"name": "web", "port": 80, "weight": 90}, {"name": "api", "port": 81, "weight": 10},
            {"name": "api", "namespace": "other", "port": 80}, {"name": "api", "port": 82, "weight": 0},
        ]);
        let elsewhere = service("api", json!({"metadata": {"namespace": "other"}, "spec": {"clusterIP": "10.96.0.3"}}));
        let found = does(&web(vec![ruled(kind, to(backends), json!({})), elsewhere]));
        let weighted = [(90, "web:80"), (10, "api:81"), (1, "api:80"), (0, "api:82")];
        assert_eq!(shares(&found), weighted.map(|(weight, name)| (weight, format!("Service/{name}"), None)));
        let targets: Vec<String> = found
            .backends
            .iter()
            .map(|b| match &b.backend.kind {
                BackendKind::Balance { target, .. } => target.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = [("web.ns", 80), ("api.ns", 81), ("api.other", 80), ("api.ns", 82)];
        assert_eq!(targets, expected.map(|(name, port)| format!("{name}.svc.cluster.local:{port}")));
    }
}

/// Else those that are there would get more than what somebody wanted to send them.
#[test]
fn what_is_no_backend_keeps_its_share_and_fails() {
    let of = |kind: Kind, backends: Value| {
        let index = web(vec![ruled(kind, to(backends), json!({}))]);
        let policy = outbound(&index, "10.96.0.1:80").unwrap();
        let found = match kind {
            Kind::GrpcRoute => grpc_of(&policy)[0].rules[0].does.clone(),
            _ => http_of(&policy).routes[0].rules[0].does.clone(),
        };
        shares(&found)
    };
    let good = (9, "Service/api:80".to_owned(), None);
    for (kind, status) in [(Kind::MeshHttpRoute, 500), (Kind::HttpRoute, 500), (Kind::GrpcRoute, 14)] {
        let beside = |backend: Value| of(kind, json!([{"name": "api", "port": 80, "weight": 9}, backend]));
        let nobody = |name: &str, why: &str| vec![good.clone(), (1, name.to_owned(), Some(format!("{status} {why}")))];
        let gone = beside(json!({"name": "gone", "port": 80}));
        assert_eq!(gone, nobody("Service/gone:80", "there is no Service ns/gone"));
        let other = beside(json!({"name": "api", "namespace": "other", "port": 80}));
        assert_eq!(other, nobody("Service/api:80", "there is no Service other/api"));
        let thing = beside(json!({"group": "example.com", "kind": "Thing", "name": "x"}));
        assert_eq!(thing, nobody("default/invalid:0", "\"Thing\" of \"example.com\" is no backend"));
        let egress = beside(json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"}));
        assert_eq!(egress[1].1, "EgressNetwork/out:80");
        assert!(egress[1].2.is_some(), "an EgressNetwork is none for a Service, whether it is there or not");
        // Nobody at all.
        let none = of(kind, json!([{"name": "api", "port": 80, "weight": 0}]));
        assert_eq!(
            none,
            [(1, "default/invalid:0".to_owned(), Some(format!("{status} no backend of the route has a weight")))]
        );
    }
    let portless = of(Kind::MeshHttpRoute, json!([{"name": "api"}]));
    assert_eq!(portless[0].2.as_deref(), Some("500 the port of the Service ns/api is not given"));
}

#[test]
fn a_backend_that_comes_or_goes_is_told_to_who_sends_there() {
    let backends = json!([{"name": "api", "port": 80}]);
    for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
        let mut index = kubernetes(vec![service("web", json!({})), ruled(kind, to(backends.clone()), json!({}))]);
        let failing = |index: &Index| {
            let policy = outbound(index, "10.96.0.1:80").unwrap();
            format!("{policy:?}").contains("there is no Service")
        };
        let parent = Subject::Service { namespace: "ns".to_owned(), name: "web".to_owned() };
        let address = Subject::Address("10.96.0.1".parse().unwrap());
        assert!(failing(&index));
        let touched = index.apply(Event::Apply(api()));
        assert!(touched.contains(&parent) && touched.contains(&address), "{touched:?}");
        assert!(!failing(&index));
        let touched = index.apply(Event::Apply(service("api", json!({"spec": {"clusterIP": "10.96.0.9"}}))));
        assert!(!touched.contains(&parent), "how a backend is reached is no matter of the route: {touched:?}");
        let touched = index.apply(Event::Delete(api().key()));
        assert!(touched.contains(&parent) && touched.contains(&address), "{touched:?}");
        assert!(failing(&index));
    }
}

#[test]
fn a_backend_has_filters_of_its_own() {
    let modifier = |kind: &str, field: &str| json!({"type": kind, field: {"remove": ["x"]}});
    let request = || modifier("RequestHeaderModifier", "requestHeaderModifier");
    let response = || modifier("ResponseHeaderModifier", "responseHeaderModifier");
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}});
    let rule = json!({
        "filters": [redirect, response()],
        "backendRefs": [{"name": "api", "port": 80, "filters": [request(), response()]}],
    });
    let index = web(vec![ruled(Kind::HttpRoute, rule, json!({}))]);
    let policy = outbound(&index, "10.96.0.1:80").unwrap();
    let rule = &http_of(&policy).routes[0].rules[0];
    assert!(matches!(rule.filters[..], [Filter::Redirect(_), Filter::ResponseHeaders(_)]), "{:?}", rule.filters);
    let filters = &rule.does.backends.iter().next().unwrap().filters;
    assert!(matches!(filters[..], [Filter::RequestHeaders(_), Filter::ResponseHeaders(_)]), "{filters:?}");
}

#[test]
fn a_rule_and_a_backend_rewrite() {
    let rewrite = |host: &str| {
        let path = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": ""});
        json!({"type": "URLRewrite", "urlRewrite": {"hostname": host, "path": path}})
    };
    let modifier = || json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}});
    let rule = json!({
        "filters": [modifier(), rewrite("rule")],
        "backendRefs": [{"name": "api", "port": 80, "filters": [rewrite("backend"), modifier()]}],
    });
    let policy = outbound(&web(vec![ruled(Kind::HttpRoute, rule, json!({}))]), "10.96.0.1:80").unwrap();
    let rule = &http_of(&policy).routes[0].rules[0];
    for (filters, host) in [(&rule.filters, "rule"), (&rule.does.backends.iter().next().unwrap().filters, "backend")] {
        let [Filter::Rewrite(rewrite), Filter::RequestHeaders(_)] = &filters[..] else { panic!("{filters:?}") };
        let path = Some(PathReplacement::Prefix(String::new()));
        assert_eq!(*rewrite, Rewrite { host: Some(host.to_owned()), path });
    }
}

/// Copies for nobody are none, and come once there is somebody; the originals go on in either case.
#[test]
fn requests_are_mirrored_to_services_that_are_there() {
    let mirror = |name: &str| {
        let to = json!({"backendRef": {"name": name, "port": 80}, "percent": 10});
        json!({"type": "RequestMirror", "requestMirror": to})
    };
    for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
        let backends = json!([{"name": "api", "port": 80, "filters": [mirror("copy")]}]);
        let rule = json!({"filters": [mirror("api"), mirror("copy")], "backendRefs": backends});
        let mut index = web(vec![ruled(kind, rule, json!({}))]);
        let mirrors = |index: &Index| {
            let policy = outbound(index, "10.96.0.1:80").unwrap();
            let all = policy.filters().into_iter().flatten().map(|filter| match filter {
                Filter::Mirror(Mirror { meta, target, share }) => {
                    assert_eq!((*share, meta.port()), (Ratio { numerator: 10, denominator: 100 }, 80));
                    target.to_string()
                }
                other => panic!("{other:?}"),
            });
            let mut all: Vec<String> = all.collect();
            all.sort();
            all.dedup();
            all
        };
        let of = |name: &str| format!("{name}.ns.svc.cluster.local:80");
        assert_eq!(mirrors(&index), [of("api")]);
        index.apply(Event::Apply(service("copy", json!({"spec": {"clusterIP": "10.96.0.8"}}))));
        assert_eq!(mirrors(&index), [of("api"), of("copy")]);
    }
}

/// Without it requests would go on as if it had been done.
#[test]
fn what_no_proxy_carries_out_fails_its_requests() {
    let filters = [json!({"type": "CORS", "cors": {}}), json!({"type": "ExtensionRef", "extensionRef": {}})];
    let request = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}});
    for filter in &filters {
        let rule = json!({"filters": [request, filter]});
        let policy = outbound(&web(vec![ruled(Kind::HttpRoute, rule, json!({}))]), "10.96.0.1:80").unwrap();
        let found = &http_of(&policy).routes[0].rules[0].filters;
        let [Filter::HttpFailure { status: 500, message, .. }] = &found[..] else { panic!("{found:?}") };
        assert!(message.contains(filter["type"].as_str().unwrap()), "{message}");
        let backends = json!([{"name": "api", "port": 80, "filters": [request, filter]}]);
        let found = does(&web(vec![ruled(Kind::HttpRoute, to(backends), json!({}))]));
        let of_backend = &found.backends.iter().next().unwrap().filters;
        assert!(matches!(of_backend[..], [Filter::HttpFailure { status: 500, .. }]), "{of_backend:?}");
    }
    // The messages of gRPC have no such filter.
    let response = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["x"]}});
    for rule in [
        json!({"filters": [response]}),
        to(json!([{"name": "api", "port": 80, "filters": [response]}])),
        json!({"filters": [filters[1]]}),
    ] {
        let policy = outbound(&web(vec![ruled(Kind::GrpcRoute, rule.clone(), json!({}))]), "10.96.0.1:80").unwrap();
        let of_rule = &grpc_of(&policy)[0].rules[0];
        let all: Vec<_> = of_rule.filters.iter().chain(&of_rule.does.backends.iter().next().unwrap().filters).collect();
        assert!(matches!(all[..], [Filter::GrpcFailure { code: 12, .. }]), "{rule}: {all:?}");
    }
}

#[test]
fn a_route_asks_for_retries_and_timeouts_in_place_of_its_parent() {
    let s = |n| Some(Duration::from_secs(n));
    let service_asks = json!({
        "retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "3", "timeout.linkerd.io/request": "9s",
        "timeout.linkerd.io/idle": "8s", "balancer.linkerd.io/failure-accrual": "consecutive",
        "balancer.alpha.linkerd.io/penalize-failures": "true",
    });
    let of = |annotations: Value, timeouts: Value| {
        let mut rule = to(json!([{"name": "api", "port": 80}]));
        rule["timeouts"] = timeouts;
        let web = service("web", annotated(service_asks.clone()));
        let index = kubernetes(vec![web, api(), ruled(Kind::HttpRoute, rule, annotated(annotations))]);
        let policy = outbound(&index, "10.96.0.1:80").unwrap();
        assert!(
            matches!(http_of(&policy).breaker, Some(Breaker::Consecutive { .. })),
            "the parent's for every backend"
        );
        let does = http_of(&policy).routes[0].rules[0].does.clone();
        let BackendKind::Balance { load, .. } = does.backends.iter().next().unwrap().backend.kind else { panic!() };
        assert!(load.penalty.is_some());
        does
    };
    let retries = |does: OutboundRule| does.retry.map(|retry| (retry.max_retries, retry.on));
    let fives = || RetryOn::Statuses(vec![500..=599]);
    let parents = Timeouts { request: s(9), response: None, idle: s(8) };
    let none = json!({});
    assert_eq!(of(none.clone(), none.clone()).timeouts, parents);
    assert_eq!(retries(of(none.clone(), none.clone())), Some((3, fives())));
    // A group as a whole.
    let own = json!({"timeout.linkerd.io/response": "2s"});
    let timeouts = Timeouts { request: None, response: s(2), idle: None };
    assert_eq!(of(own.clone(), none.clone()).timeouts, timeouts);
    assert_eq!(retries(of(own, none.clone())), Some((3, fives())), "another group");
    let once = of(json!({"retry.linkerd.io/timeout": "1s"}), none.clone());
    assert_eq!(once.timeouts, parents);
    assert_eq!(once.retry, Some(Retry { timeout: s(1), ..Retry::LINKERD }), "no conditions of the parent's");
    assert_eq!(retries(of(json!({"retry.linkerd.io/limit": "0"}), none.clone())), None);
    assert_eq!(retries(of(json!({"retry.linkerd.io/limit": "many"}), none.clone())), Some((3, fives())), "unread");
    // The rule's own.
    let both = json!({"request": "3s", "backendRequest": "1s"});
    assert_eq!(of(none.clone(), both.clone()).timeouts, Timeouts { request: s(3), response: s(1), idle: None });
    let annotated = json!({"timeout.linkerd.io/request": "4s"});
    assert_eq!(of(annotated, both).timeouts, Timeouts { request: s(4), response: s(1), idle: None });
    assert_eq!(of(none.clone(), json!({"request": "0s"})).timeouts, Timeouts::default(), "none at all");

    // Of gRPC by other conditions.
    let asks = json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/grpc": "unavailable"});
    let web = service("web", super::annotated(asks));
    let index = kubernetes(vec![web, ruled(Kind::GrpcRoute, json!({}), json!({}))]);
    let policy = outbound(&index, "10.96.0.1:80").unwrap();
    assert_eq!(grpc_of(&policy)[0].rules[0].does.retry.as_ref().unwrap().on, RetryOn::GrpcCodes(vec![14]));
}

#[test]
fn routes_let_through_an_egress_network() {
    let net = |policy: &str| {
        egress("out", json!({"trafficPolicy": policy, "networks": [{"cidr": "203.0.113.0/24"}]}), json!({}))
    };
    let of = |policy: &str, routes: Vec<Object>| {
        outbound(&kubernetes([vec![net(policy), api()], routes].concat()), "203.0.113.1:80").unwrap()
    };
    let of_path = |kind: Kind, name: &str, port: u16| {
        route(kind, name, of_egress(port), json!([{"matches": [{"path": {"value": "/a"}}]}]), json!({}))
    };
    for (policy, default) in [("Allow", "http-egress-allow"), ("Deny", "http-egress-deny")] {
        let found = of(policy, vec![of_path(Kind::HttpRoute, "a", 80), of_path(Kind::MeshHttpRoute, "b", 443)]);
        assert_eq!(names(&found), ["a", default], "what no route is for goes as before");
        let [own, other] = &http_of(&found).routes[..] else { panic!() };
        assert_eq!(own.rules[0].filters, []);
        let denied = matches!(other.rules[0].filters[..], [Filter::HttpFailure { status: 403, .. }]);
        assert_eq!(denied, policy == "Deny");
        let [RouteBackend { backend, .. }] = &own.rules[0].does.backends.iter().collect::<Vec<_>>()[..] else {
            panic!()
        };
        assert!(matches!(&backend.kind, BackendKind::Forward(to) if to.addr == "203.0.113.1:80".parse().unwrap()));
        assert_eq!(tcp_of(&found).filters.is_empty(), policy == "Allow", "bytes follow no route of requests");

        let calls =
            route(Kind::GrpcRoute, "g", of_egress(80), json!([{"matches": [{"method": {"service": "a"}}]}]), json!({}));
        let found = of(policy, vec![calls]);
        let [own, other] = grpc_of(&found) else { panic!("{found:?}") };
        assert_eq!((own.meta.name(), other.meta.name()), ("g", default.replace("http", "grpc").as_str()));
        assert_eq!(matches!(other.rules[0].filters[..], [Filter::GrpcFailure { code: 7, .. }]), policy == "Deny");
    }
    let sending = |backends: Value| {
        let found = of("Deny", vec![route(Kind::HttpRoute, "r", of_egress(80), json!([to(backends)]), json!({}))]);
        shares(&http_of(&found).routes[0].rules[0].does)
    };
    let network = |name: &str| json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": name});
    let into = sending(json!([network("out"), {"name": "api", "port": 80}, network("gone")]));
    let there = |name: &str| (1, name.to_owned(), None);
    assert_eq!(into[..2], [there("EgressNetwork/out:80"), there("Service/api:80")]);
    assert_eq!(into[2].2.as_deref(), Some("500 there is no EgressNetwork ns/gone"));
    // Those of the client's namespace alone, where the network is everybody's.
    let everybodys = egress("out", json!({"trafficPolicy": "Deny"}), elsewhere("linkerd-egress"));
    let mut parent = of_egress(80);
    parent["namespace"] = json!("linkerd-egress");
    let index = kubernetes(vec![everybodys, route(Kind::HttpRoute, "r", parent, json!([{}]), json!({}))]);
    let of = |from: &str| names(&seen_from(&index, from, "198.51.100.1:80").unwrap()).len();
    assert_eq!((of("ns"), of("other")), (2, 1));
}

#[test]
fn the_object_itself_is_named_and_one_that_cannot_be_carried_out_is_not_there() {
    let mut index = web(vec![ruled(Kind::HttpRoute, json!({}), json!({}))]);
    let policy = outbound(&index, "10.96.0.1:80").unwrap();
    let Meta::Resource(of) = &http_of(&policy).routes[0].meta else { panic!() };
    let named = (of.group.as_str(), of.kind.as_str(), of.namespace.as_str(), of.name.as_str(), of.port);
    assert_eq!(named, ("gateway.networking.k8s.io", "HTTPRoute", "ns", "r", 0));
    let broken = json!({
        "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"parentRefs": [of_service(json!({}))], "rules": [{"matches": [{"path": {"value": "relative"}}]}]},
    });
    index.apply(Event::Apply(Object::HttpRoute(typed(broken))));
    assert_eq!(names(&outbound(&index, "10.96.0.1:80").unwrap()), ["http"], "nor does what it said before");
}

// The evaluator: from the text of 6.5, over the objects as they are written.

/// A route with the weights of its backends, and whether each is there.
type Naive = (String, String, String, Vec<(u64, bool)>);

/// The routes of these kinds that clients of the namespace `from` follow to a port of the Service `ns/web`.
fn naive(objects: &[&Value], kinds: &[Kind], from: &str, port: u64) -> Vec<Naive> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let namespace = |o: &Value| text(&o["metadata"]["namespace"]);
    let is_followed = |o: &&&Value| {
        let is_route = kinds.iter().any(|kind| o["kind"] == kind.as_str());
        let of_service = o["spec"]["parentRefs"].as_array().into_iter().flatten().any(|parent| {
            parent["kind"] == "Service"
                && parent["namespace"] == "ns"
                && parent["name"] == "web"
                && parent["port"].as_u64().is_none_or(|own| own == port)
        });
        is_route && of_service && (namespace(o) == "ns" || namespace(o) == from)
    };
    let mut routes: Vec<&Value> = objects.iter().filter(is_followed).copied().collect();
    routes.sort_by_key(|o| {
        let created = o["metadata"]["creationTimestamp"].as_str();
        let is_mesh = o["kind"] == Kind::MeshHttpRoute.as_str();
        (namespace(o) == "ns", created.is_none(), created, text(&o["metadata"]["name"]), !is_mesh)
    });
    let is_there = |backend: &Value| {
        backend["kind"].is_null()
            && objects.iter().any(|o| {
                let of = &o["metadata"];
                o["kind"] == "Service" && of["namespace"] == backend["namespace"] && of["name"] == backend["name"]
            })
    };
    let told = |o: &Value| {
        let backends = o["spec"]["rules"][0]["backendRefs"].as_array().into_iter().flatten();
        let shares = backends.map(|b| (b["weight"].as_u64().unwrap_or(1), is_there(b))).collect();
        (text(&o["kind"]), namespace(o), text(&o["metadata"]["name"]), shares)
    };
    routes.into_iter().map(told).collect()
}

/// What the index says of the same.
fn told<'p>(routes: impl Iterator<Item = (&'p Meta, &'p Distribution)>) -> Vec<Naive> {
    let of = |(meta, backends): (&Meta, &Distribution)| {
        let is_mesh = meta.group() == "policy.linkerd.io";
        let kind = if is_mesh { Kind::MeshHttpRoute.as_str() } else { meta.kind() };
        let is_there = |backend: &RouteBackend| !matches!(backend.backend.kind, BackendKind::Missing);
        let shares = match backends {
            Distribution::RandomAvailable(all) => all.iter().map(|(b, w)| (u64::from(*w), is_there(b))).collect(),
            // Its parent, or nobody where there is no weight.
            Distribution::FirstAvailable(one) if is_there(&one[0]) => vec![],
            _ => vec![(0, false)],
        };
        (kind.to_owned(), meta.namespace().to_owned(), meta.name().to_owned(), shares)
    };
    routes.map(of).collect()
}

fn written_as(object: &Object) -> Value {
    let Value::Object(tagged) = serde_json::to_value(object).unwrap() else { panic!() };
    tagged.into_iter().next().unwrap().1
}

/// `base` has the Services `ns/web` and `ns/api`, of which `always` is what is written.
fn wrong(base: &Index, always: &[Value], objects: &[&(Value, Object)], from: &str, port: u16) -> Option<String> {
    let mut index = base.clone();
    objects.iter().for_each(|(_, object)| drop(index.store.insert(object)));
    let written: Vec<&Value> = objects.iter().map(|(written, _)| written).chain(always).collect();
    let policy = seen_from(&index, from, &format!("web.ns.svc.cluster.local:{port}")).unwrap();
    let (followed, found) = match &policy.protocol {
        ClientProtocol::Grpc { routes, .. } => {
            ("grpc", told(routes.iter().map(|r| (&r.meta, &r.rules[0].does.backends))))
        }
        ClientProtocol::Tls(routes) => ("tls", told(routes.iter().map(|r| (&r.route.meta, &r.route.backends)))),
        ClientProtocol::Opaque(route) => ("tcp", told(route.iter().map(|r| (&r.meta, &r.backends)))),
        _ => ("http", told(http_of(&policy).routes.iter().map(|r| (&r.meta, &r.rules[0].does.backends)))),
    };
    // Of which kinds they may be, the first that has some first.
    let order: &[(&str, &[Kind])] =
        &[("grpc", &[Kind::GrpcRoute]), ("http", &HTTP), ("tls", &[Kind::TlsRoute]), ("tcp", &[Kind::TcpRoute])];
    let (order, default) = match port {
        80 => (order, ("http", "http")),
        81 => (&order[1..2], ("http", "http")),
        82 => (&order[..2], ("http", "http")),
        _ => (&order[3..], ("tcp", "opaq")),
    };
    let all = order.iter().map(|(of, kinds)| (*of, naive(&written, kinds, from, port.into())));
    let none = || (default.0, vec![("default".to_owned(), String::new(), default.1.to_owned(), vec![])]);
    let (of, mut expected) = all.into_iter().find(|(_, routes)| !routes.is_empty()).unwrap_or_else(none);
    if of == "tcp" {
        expected.truncate(1);
    }
    for (.., shares) in &mut expected {
        if !shares.is_empty() && shares.iter().all(|(weight, _)| *weight == 0) {
            *shares = vec![(0, false)];
        }
    }
    let fault = || format!("{from} {port}: {followed} {found:?} instead of {of} {expected:?}");
    ((followed, &found) != (of, &expected)).then(fault)
}

/// Clients follow what the text of 6.5 says, and send where it says.
#[test]
fn clients_follow_what_the_text_says() {
    let written = |object: Object| (written_as(&object), object);
    let routes: Vec<_> = chance::sample(&objects::client_routes(), 2_000).into_iter().map(written).collect();
    let others = ["web", "api"].map(|name| written(service(name, json!({"metadata": {"namespace": "other"}}))));
    let (base, always) = (web(vec![]), [service("web", json!({})), api()].map(|object| written_as(&object)));
    chance::try_all(|seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut named: BTreeMap<Key, &(Value, Object)> = BTreeMap::new();
        for _ in 0..rng.usize(1..6) {
            let route = chance::pick(&mut rng, &routes);
            named.insert(route.1.key(), route);
        }
        let mut objects: Vec<_> = named.into_values().collect();
        objects.extend(others.iter().filter(|_| rng.bool()));
        let from = *chance::pick(&mut rng, &["ns", "other", "third"]);
        let port = *chance::pick(&mut rng, &[80, 80, 81, 82, 83]);
        if wrong(&base, &always, &objects, from, port).is_none() {
            return Ok(());
        }
        let (objects, why) = chance::shortest(&objects, |objects| wrong(&base, &always, objects, from, port));
        let objects: String = objects.iter().map(|(written, _)| format!("  {written}\n")).collect();
        Err(format!("{why}, where there are\n{objects}"))
    });
}
