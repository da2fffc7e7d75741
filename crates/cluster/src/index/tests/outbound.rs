//! What Services and EgressNetworks ask of their clients (control plane 6.5, 6.6).

use super::{slices::kubernetes, *};
use crate::Kind;
use std::time::Duration;
use weft_model::policy::outbound::{Breaker, HttpRoutes, Load, Retry, RetryOn, RouteBackend, TcpRoute};

pub(super) fn egress(name: &str, spec: Value, patch: Value) -> Object {
    policies::object(Kind::EgressNetwork, name, spec, patch)
}

/// As a client in a namespace sees it.
pub(super) fn seen_from(index: &Index, from: &str, path: &str) -> Result<ClientPolicy, Refusal> {
    let target = path.parse().map_or_else(|_| Target::Name(name(path)), Target::Addr);
    match index.answer(&Question::Outbound { from: from.to_owned(), target }).answer? {
        Answer::Outbound(policy) => Ok(policy),
        other => panic!("{other:?}"),
    }
}

pub(super) fn http_of(policy: &ClientPolicy) -> &HttpRoutes {
    match &policy.protocol {
        ClientProtocol::Detect { http1, http2, .. } => {
            assert_eq!(http1, http2);
            http1
        }
        ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => routes,
        other => panic!("{other:?}"),
    }
}

pub(super) fn tcp_of(policy: &ClientPolicy) -> &TcpRoute {
    match &policy.protocol {
        ClientProtocol::Detect { opaque: Some(tcp), .. } | ClientProtocol::Opaque(Some(tcp)) => tcp,
        other => panic!("{other:?}"),
    }
}

fn load_of(backends: &Distribution) -> Load {
    let Distribution::FirstAvailable(backends) = backends else { panic!() };
    let [RouteBackend { backend, .. }] = &backends[..] else { panic!() };
    let BackendKind::Balance { load, .. } = backend.kind else { panic!() };
    load
}

#[test]
fn a_service_asks_by_annotations() {
    let of = |annotations: Value, port: u16| {
        let index = kubernetes(vec![service("web", annotated(annotations))]);
        outbound(&index, &format!("10.96.0.1:{port}")).unwrap()
    };
    let asks = || {
        json!({
            "retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "3", "timeout.linkerd.io/request": "2s",
            "balancer.linkerd.io/failure-accrual": "consecutive", "balancer.alpha.linkerd.io/penalize-failures": "true",
        })
    };
    for port in [80, 81, 82] {
        let policy = of(asks(), port);
        let HttpRoutes { routes, breaker } = http_of(&policy);
        let does = &routes[0].rules[0].does;
        let on = RetryOn::Statuses(vec![500..=599]);
        assert_eq!(does.retry, Some(Retry { max_retries: 3, on, ..Retry::LINKERD }), "{port}");
        assert_eq!(does.timeouts.request, Some(Duration::from_secs(2)));
        assert!(matches!(breaker, Some(Breaker::Consecutive { max_failures: 7, .. })), "{breaker:?}");
        assert!(load_of(&does.backends).penalty.is_some());
    }
    for port in [80, 83, 5432, 99] {
        assert_eq!(load_of(&tcp_of(&of(asks(), port)).backends), Load::LINKERD, "{port}: of bytes nothing fails");
    }
    // What cannot be read is not there, and costs nothing else.
    let policy = of(
        json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "many", "timeout.linkerd.io/idle": "1s"}),
        80,
    );
    let does = &http_of(&policy).routes[0].rules[0].does;
    assert_eq!((&does.retry, does.timeouts.idle), (&None, Some(Duration::from_secs(1))));
}

#[test]
fn an_egress_network_allows_or_denies() {
    let of = |policy: &str, patch: Value| {
        let net = egress("out", json!({"trafficPolicy": policy, "networks": [{"cidr": "203.0.113.0/24"}]}), patch);
        outbound(&kubernetes(vec![net]), "203.0.113.1:443").unwrap()
    };
    let allowed = of("Allow", json!({}));
    assert_eq!((allowed.meta.kind(), allowed.meta.name(), allowed.meta.port()), ("EgressNetwork", "out", 443));
    assert_eq!(http_of(&allowed).routes[0].meta.name(), "http-egress-allow");
    assert_eq!((tcp_of(&allowed).meta.name(), tcp_of(&allowed).filters.len()), ("tcp-egress-allow", 0));
    let denied = of("Deny", json!({}));
    insta::assert_debug_snapshot!(denied);
    let asks =
        annotated(json!({"timeout.linkerd.io/request": "1s", "balancer.linkerd.io/failure-accrual": "consecutive"}));
    let HttpRoutes { routes, breaker } = http_of(&of("Allow", asks)).clone();
    assert!(breaker.is_some() && routes[0].rules[0].does.timeouts.request.is_some());
}

#[test]
fn which_egress_network_an_address_is_of() {
    let net = |name: &str, namespace: &str, cidrs: &[&str], day: u8| {
        let networks: Vec<Value> = cidrs.iter().map(|cidr| json!({"cidr": cidr})).collect();
        let patch =
            json!({"metadata": {"namespace": namespace, "creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")}});
        egress(name, json!({"trafficPolicy": "Allow", "networks": networks}), patch)
    };
    let everywhere =
        egress("all", json!({"trafficPolicy": "Deny"}), json!({"metadata": {"namespace": "linkerd-egress"}}));
    let index = kubernetes(vec![
        everywhere,
        net("wide", "ns", &["203.0.0.0/16"], 1),
        net("young", "ns", &["203.0.113.0/24"], 3),
        net("old", "ns", &["203.0.113.0/24"], 2),
        net("other", "third", &["203.0.113.1"], 1),
        pod("a", "10.1.0.1", json!({})),
    ]);
    let of = |from: &str, path: &str| seen_from(&index, from, path).unwrap().meta.name().to_owned();
    assert_eq!(of("ns", "203.0.113.1:80"), "old", "the smallest network, then the oldest object");
    assert_eq!(of("ns", "203.0.1.1:80"), "wide");
    assert_eq!(of("ns", "[::ffff:203.0.1.1]:80"), "wide");
    assert_eq!(of("ns", "198.51.100.1:80"), "egress-fallback", "a namespace that has some has these alone");
    assert_eq!(of("else", "198.51.100.1:80"), "all");
    assert_eq!(of("", "[2001:db8::1]:80"), "all");
    // What is in the cluster does not leave it.
    assert!(matches!(seen_from(&index, "else", "10.2.0.1:80"), Err(Refusal::NotFound(_))));
    let inside = kubernetes(vec![net("in", "ns", &["10.0.0.0/8"], 1), pod("a", "10.1.0.1", json!({}))]);
    assert_eq!(seen_from(&inside, "ns", "10.2.0.1:80").unwrap().meta.name(), "in", "unless it is said so");
    assert!(matches!(seen_from(&inside, "ns", "10.1.0.1:80"), Err(Refusal::NotFound(_))), "but a pod is a pod");
    for phase in ["Succeeded", "Failed"] {
        let ended = pod("a", "10.1.0.1", json!({"status": {"phase": phase}}));
        let index = kubernetes(vec![net("in", "ns", &["10.0.0.0/8"], 1), ended.clone()]);
        assert_eq!(
            seen_from(&index, "ns", "10.1.0.1:80").unwrap().meta.name(),
            "in",
            "{phase}: its address is nobody's"
        );
        let alone = kubernetes(vec![ended]);
        assert!(matches!(seen_from(&alone, "ns", "10.1.0.1:80"), Err(Refusal::NotFound(_))));
    }
    // Names and Services are not asked of it.
    let with_service = kubernetes(vec![service("web", json!({})), net("in", "ns", &["10.0.0.0/8"], 1)]);
    assert_eq!(seen_from(&with_service, "ns", "10.96.0.1:80").unwrap().meta.kind(), "Service");
}

#[test]
fn applications_ask_by_headers_where_the_installation_lets_them() {
    for request_headers in [false, true] {
        let mut index = Index::new(Settings { request_headers, ..Settings::default() });
        index.apply(Event::Apply(service("web", json!({}))));
        for path in ["10.96.0.1:80", "10.96.0.1:81", "192.0.2.1:80"] {
            let (ClientProtocol::Detect { http1: http, .. } | ClientProtocol::Http1(http)) =
                outbound(&index, path).unwrap().protocol
            else {
                panic!("{path}")
            };
            let allowed: Vec<bool> =
                http.routes.iter().flat_map(|route| &route.rules).map(|rule| rule.does.allow_l5d_headers).collect();
            assert_eq!(allowed, [request_headers], "{path}");
        }
    }
}

#[test]
fn an_egress_network_has_opaque_ports() {
    let network = |annotations: Value| {
        let spec = json!({"trafficPolicy": "Deny", "networks": [{"cidr": "203.0.113.0/24"}]});
        policies::object(Kind::EgressNetwork, "out", spec, json!({"metadata": {"annotations": annotations}}))
    };
    let is_opaque = |index: &Index, port: u16| {
        matches!(outbound(index, &format!("203.0.113.1:{port}")).unwrap().protocol, ClientProtocol::Opaque(_))
    };
    let usual = kubernetes(vec![network(json!({}))]);
    assert!(is_opaque(&usual, 5432) && !is_opaque(&usual, 443), "the usual ones, where it says nothing");
    let said = kubernetes(vec![network(json!({"config.linkerd.io/opaque-ports": "8000-8010"}))]);
    assert!(!is_opaque(&said, 5432) && is_opaque(&said, 8001));
    let ClientProtocol::Opaque(Some(route)) = outbound(&said, "203.0.113.1:8001").unwrap().protocol else { panic!() };
    assert_eq!((route.meta.name(), &route.filters[..]), ("tcp-egress-deny", &[Filter::Forbidden][..]));
    // On one machine what its namespace says holds at once, and is told to who asks.
    let namespace = |ports: &str| namespace(json!({"config.linkerd.io/opaque-ports": ports}));
    let mut local = index(vec![network(json!({})), namespace("9000")]);
    assert!(is_opaque(&local, 9000));
    assert!(local.apply(Event::Apply(namespace("9001"))).contains(&Subject::Egress { namespace: "ns".to_owned() }));
    assert!(!is_opaque(&local, 9000) && is_opaque(&local, 9001));
    // On Kubernetes nobody need look again.
    let mut far = kubernetes(vec![network(json!({})), service("web", json!({})), pod("a", "10.1.0.1", json!({}))]);
    for ports in ["9000", "9001"] {
        assert_eq!(far.apply(Event::Apply(namespace(ports))), []);
        assert!(!is_opaque(&far, 9000));
    }
    assert_eq!(far.apply(Event::Delete(namespace("9000").key())), []);
}

#[test]
fn a_service_profile_is_the_clients_own_or_the_services() {
    let sp = |namespace: &str, route: &str| {
        let spec = json!({"routes": [{"name": route, "condition": {"method": "GET"}}],
            "dstOverrides": [{"authority": "api.ns.svc.cluster.local", "weight": "1"}]});
        policies::object(
            Kind::ServiceProfile,
            "web.ns.svc.cluster.local",
            spec,
            json!({"metadata": {"namespace": namespace}}),
        )
    };
    let mut index = kubernetes(vec![service("web", json!({})), sp("ns", "of-service"), sp("other", "of-client")]);
    let of = |index: &Index, from: &str, path: &str| {
        let target = path.parse().map_or_else(|_| Target::Name(name(path)), Target::Addr);
        match index.answer(&Question::Profile { from: from.to_owned(), target }).answer.unwrap() {
            Answer::Profile(profile) => profile,
            other => panic!("{other:?}"),
        }
    };
    let route = |profile: &Profile| profile.routes.first().map(|route| route.labels["route"].clone());
    for path in ["10.96.0.1:80", "web.ns.svc.cluster.local:80"] {
        for (from, expected) in
            [("ns", "of-service"), ("other", "of-client"), ("third", "of-service"), ("", "of-service")]
        {
            let profile = of(&index, from, path);
            assert_eq!(route(&profile).as_deref(), Some(expected), "{path} from {from}");
            assert_eq!(profile.targets[0].target.to_string(), "api.ns.svc.cluster.local:80");
            assert!(profile.retry_budget.is_some() && profile.followed(80).is_some());
            let origin = profile.origin.unwrap();
            let own = if from == "other" { "other" } else { "ns" };
            assert_eq!((origin.group(), origin.kind(), origin.namespace()), ("linkerd.io", "ServiceProfile", own));
            assert_eq!(origin.name(), "web.ns.svc.cluster.local");
        }
    }
    assert_eq!(of(&index, "ns", "10.96.0.1:99"), Profile::default(), "a port that is not declared");
    index.apply(Event::Delete(sp("other", "of-client").key()));
    assert_eq!(route(&of(&index, "other", "10.96.0.1:80")).as_deref(), Some("of-service"));
}
