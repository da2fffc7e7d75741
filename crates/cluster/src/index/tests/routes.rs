//! Routes of Servers, who may use them, and how many requests a Server takes (control plane 6.4).

use super::{
    policies::{object, policy_of, server, web},
    *,
};
use crate::{Kind, policy};
use weft_model::{
    decide::{
        admit::{Admission, admit},
        authorize::{Client, ClientTls},
        route::RequestView,
    },
    policy::{
        inbound::{InboundRule, RateLimit},
        route::{GrpcRoute, HttpRoute},
    },
};

fn parent() -> Value {
    json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"})
}

/// A route of the Server `s` with one path.
fn route(kind: Kind, name: &str, path: &str, patch: Value) -> Object {
    let spec = json!({"parentRefs": [parent()], "rules": [{"matches": [{"path": {"value": path}}]}]});
    object(kind, name, spec, patch)
}

fn grpc(name: &str, service: &str) -> Object {
    let rules = json!([{"matches": [{"method": {"service": service}}]}]);
    object(Kind::GrpcRoute, name, json!({"parentRefs": [parent()], "rules": rules}), json!({}))
}

fn spoken(protocol: &str) -> Object {
    server("s", json!(8080), json!({"spec": {"proxyProtocol": protocol}}))
}

fn created(second: u8) -> Value {
    json!({"metadata": {"creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")}})
}

fn routes(index: &Index) -> Vec<HttpRoute<InboundRule>> {
    match inbound(index, "a", 8080).unwrap().protocol {
        ServerProtocol::Detect { routes, .. }
        | ServerProtocol::Http1 { routes, .. }
        | ServerProtocol::Http2 { routes, .. } => routes,
        other => panic!("{other:?}"),
    }
}

fn calls(index: &Index) -> Vec<GrpcRoute<InboundRule>> {
    match inbound(index, "a", 8080).unwrap().protocol {
        ServerProtocol::Grpc { routes } => routes,
        other => panic!("{other:?}"),
    }
}

fn named(index: &Index) -> Vec<String> {
    routes(index).iter().map(|r| format!("{}/{}/{}", r.meta.group(), r.meta.kind(), r.meta.name())).collect()
}

const DEFAULTS: [&str; 2] = ["/default/default", "/default/probe"];

#[test]
fn routes_take_the_place_of_the_default_ones_while_there_are_any() {
    for protocol in ["unknown", "HTTP/1", "HTTP/2"] {
        let mut index = web(vec![spoken(protocol)]);
        assert_eq!(named(&index), DEFAULTS, "{protocol}");
        let policies = [Subject::Policies { namespace: "ns".to_owned() }];
        assert_eq!(index.apply(Event::Apply(route(Kind::HttpRoute, "r", "/a", json!({})))), policies);
        assert_eq!(named(&index), ["gateway.networking.k8s.io/HTTPRoute/r"]);
        assert_eq!(routes(&index)[0].meta.namespace(), "");
        // Nothing that the answer depends on.
        let unchanged = route(Kind::HttpRoute, "r", "/a", json!({"status": {"parents": []}}));
        assert_eq!(index.apply(Event::Apply(unchanged)), []);
        assert_eq!(index.apply(Event::Apply(route(Kind::MeshHttpRoute, "r", "/b", json!({})))), policies);
        assert_eq!(named(&index), ["policy.linkerd.io/HTTPRoute/r", "gateway.networking.k8s.io/HTTPRoute/r"]);
        assert_eq!(index.apply(Event::Delete(Key::new(Kind::HttpRoute, "ns", "r"))), policies);
        assert_eq!(index.apply(Event::Delete(Key::new(Kind::MeshHttpRoute, "ns", "r"))), policies);
        assert_eq!(named(&index), DEFAULTS, "what was before");
    }
    // Of another Server, of another namespace, and of no Server.
    let other = json!({"spec": {"parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "t"}]}});
    let service = json!({"spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "s"}]}});
    for patch in [other, service, json!({"metadata": {"namespace": "other"}})] {
        let index = web(vec![spoken("HTTP/1"), route(Kind::HttpRoute, "r", "/", patch.clone())]);
        assert_eq!(named(&index), DEFAULTS, "{patch}");
    }
}

#[test]
fn routes_stand_in_the_order_of_their_age_and_then_of_their_names() {
    let of = |name: &str, kind: Kind, patch: Value| route(kind, name, "/", patch);
    let all = || {
        vec![
            of("e", Kind::HttpRoute, json!({})),
            of("d", Kind::MeshHttpRoute, json!({})),
            of("c", Kind::HttpRoute, created(1)),
            of("b", Kind::MeshHttpRoute, created(2)),
            of("a", Kind::HttpRoute, created(2)),
        ]
    };
    let names = |index: &Index| routes(index).iter().map(|r| r.meta.name().to_owned()).collect::<String>();
    let objects = || [vec![spoken("HTTP/1")], all()].concat();
    assert_eq!(names(&web(objects())), "cabde");
    // Objects on disk have no age, whatever is written in them.
    let pod = pod("a", "10.1.0.1", json!({}));
    assert_eq!(names(&index([vec![pod], objects()].concat())), "abcde");
}

#[test]
fn a_route_of_grpc_is_for_servers_of_grpc_and_others_are_not() {
    let all = || vec![grpc("g", "emoji.V1"), route(Kind::HttpRoute, "r", "/", json!({}))];
    let index = web([vec![spoken("gRPC")], all()].concat());
    let found = calls(&index);
    assert_eq!((found.len(), found[0].meta.name(), found[0].meta.kind()), (1, "g", "GRPCRoute"));
    assert_eq!(found[0].rules[0].matches[0].service, "emoji.V1");
    let index = web([vec![spoken("HTTP/2")], all()].concat());
    assert_eq!(named(&index), ["gateway.networking.k8s.io/HTTPRoute/r"]);
    let index = web(vec![spoken("gRPC")]);
    assert_eq!(calls(&index)[0].meta.name(), "default");
    for protocol in ["opaque", "TLS"] {
        let policy = inbound(&web([vec![spoken(protocol)], all()].concat()), "a", 8080).unwrap();
        assert!(matches!(policy.protocol, ServerProtocol::Opaque | ServerProtocol::Tls), "{policy:?}");
    }
}

struct Get<'a>(&'a str);

impl RequestView for Get<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> Option<&str> {
        Some("web")
    }

    fn path(&self) -> &str {
        self.0
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        false
    }

    fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

#[test]
fn a_policy_of_a_route_lets_in_there_alone() {
    let target = |group: &str, kind: &str, name: &str| json!({"group": group, "kind": kind, "name": name});
    let account = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let mesh = "policy.linkerd.io";
    let gateway = "gateway.networking.k8s.io";
    let mut index = web(vec![
        spoken("HTTP/1"),
        route(Kind::MeshHttpRoute, "open", "/open", json!({})),
        route(Kind::HttpRoute, "open", "/shut", json!({})),
        route(Kind::HttpRoute, "web", "/web", json!({})),
        policy_of("p", target(mesh, "HTTPRoute", "open"), json!([])),
        policy_of("q", target(gateway, "HTTPRoute", "web"), account.clone()),
    ]);
    let web = "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
    let asked = |index: &Index, path: &str, tls: ClientTls<'_>| {
        let policy = inbound(index, "a", 8080).unwrap();
        let client = Client { addr: "10.2.0.1".parse().unwrap(), tls };
        match admit(&policy, &client, &Get(path)) {
            Admission::Permitted { by, .. } => by.name().to_owned(),
            Admission::Denied { route } => format!("403 {}", route.name()),
            Admission::NoRoute => "404".to_owned(),
        }
    };
    let of = |path: &str, tls: ClientTls<'_>| asked(&index, path, tls);
    assert_eq!(of("/open", ClientTls::None), "p");
    assert_eq!(of("/shut", ClientTls::None), "403 open", "of the other group");
    assert_eq!((of("/web", ClientTls::None), of("/web", ClientTls::Identity(&web))), ("403 web".into(), "q".into()));
    assert_eq!(of("/", ClientTls::Identity(&web)), "404");
    assert_eq!(of("/ready", ClientTls::None), "404", "probes are let in no longer by themselves");
    // Nor whoever writes a path in another way.
    assert_eq!(of("//open", ClientTls::None), "404");
    assert_eq!(of("/open/../shut", ClientTls::None), "403 open");

    // Whom the Server lets in may use every route; of another namespace a policy is nothing.
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    let spec = json!({"targetRef": target(gateway, "HTTPRoute", "open"), "requiredAuthenticationRefs": []});
    index.apply(Event::Apply(object(Kind::AuthorizationPolicy, "o", spec, elsewhere)));
    assert_eq!(asked(&index, "/shut", ClientTls::None), "403 open");
    index.apply(Event::Apply(policy_of("s", target(mesh, "Server", "s"), account)));
    assert_eq!(asked(&index, "/shut", ClientTls::Identity(&web)), "s");

    let calls_of = |target: Value| {
        let index = super::policies::web(vec![spoken("gRPC"), grpc("g", "a.B"), policy_of("p", target, json!([]))]);
        calls(&index)[0].rules[0].does.authorizations.len()
    };
    assert_eq!((calls_of(target(gateway, "GRPCRoute", "g")), calls_of(target(gateway, "HTTPRoute", "g"))), (1, 0));
}

#[test]
fn what_a_proxy_cannot_do_it_refuses_instead_of_leaving_it_out() {
    let of = |filters: Value| {
        let patch = json!({"spec": {"rules": [{"filters": filters}]}});
        let index = web(vec![spoken("HTTP/1"), route(Kind::HttpRoute, "r", "/", patch)]);
        routes(&index).remove(0).rules.remove(0).filters
    };
    let modifier = |kind: &str, field: &str| json!({"type": kind, field: {"remove": ["x"]}});
    let request = modifier("RequestHeaderModifier", "requestHeaderModifier");
    let response = modifier("ResponseHeaderModifier", "responseHeaderModifier");
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}});
    let found = of(json!([request, response, redirect]));
    assert!(matches!(found[..], [Filter::RequestHeaders(_), Filter::Redirect(_)]), "{found:?}");
    for filter in [
        json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a"}}),
        json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 1}}}),
        json!({"type": "ExtensionRef", "extensionRef": {}}),
    ] {
        let found = of(json!([request, filter]));
        let [Filter::HttpFailure { status: 500, message, .. }] = &found[..] else { panic!("{found:?}") };
        assert!(message.contains(filter["type"].as_str().unwrap()), "{message}");
    }
    let extension = json!([{"type": "ExtensionRef", "extensionRef": {}}]);
    let patch = json!({"spec": {"rules": [{"filters": extension}]}});
    let mut object = grpc("g", "a.B");
    if let Object::GrpcRoute(route) = &object {
        let mut value = serde_json::to_value(route).unwrap();
        merge(&mut value, patch);
        object = policy::read(Kind::GrpcRoute, value).unwrap();
    }
    let filters = calls(&web(vec![spoken("gRPC"), object])).remove(0).rules.remove(0).filters;
    assert!(matches!(filters[..], [Filter::GrpcFailure { code: 12, .. }]), "{filters:?}");
}

#[test]
fn a_route_that_cannot_be_carried_out_counts_as_not_there() {
    let mut index = web(vec![spoken("HTTP/1"), route(Kind::HttpRoute, "r", "/", json!({}))]);
    assert_eq!(named(&index).len(), 1);
    let broken = json!({
        "metadata": {"name": "r", "namespace": "ns"},
        "spec": {"parentRefs": [parent()], "rules": [{"matches": [{"path": {"value": "relative"}}]}]},
    });
    index.apply(Event::Apply(Object::HttpRoute(typed(broken))));
    assert_eq!(named(&index), DEFAULTS, "nor does what it said before");
}

#[test]
fn the_oldest_limit_of_a_server_counts() {
    let limit = |name: &str, total: u32, patch: Value| {
        let spec = json!({"targetRef": parent(), "total": {"requestsPerSecond": total}});
        object(Kind::HttpLocalRateLimitPolicy, name, spec, patch)
    };
    let of = |protocol: &str, limits: Vec<Object>| {
        let index = web([vec![spoken(protocol)], limits].concat());
        inbound(&index, "a", 8080).unwrap().protocol.rate_limit().cloned()
    };
    let whole = json!({"spec": {
        "identity": {"requestsPerSecond": 10},
        "overrides": [{"requestsPerSecond": 20, "clientRefs": [
            {"kind": "ServiceAccount", "name": "web"}, {"kind": "ServiceAccount", "name": "api", "namespace": "other"}]}],
    }});
    let RateLimit { meta, total, identity, overrides } = of("unknown", vec![limit("l", 100, whole)]).unwrap();
    assert_eq!((meta.kind(), meta.name(), total, identity), ("HTTPLocalRateLimitPolicy", "l", Some(100), Some(10)));
    let names = ["web.ns", "api.other"].map(|n| format!("{n}.serviceaccount.identity.linkerd.cluster.local"));
    assert_eq!(overrides, [(20, names.map(|n| n.parse().unwrap()).to_vec())]);

    let name = |protocol: &str, limits: Vec<Object>| of(protocol, limits).map(|limit| limit.meta.name().to_owned());
    let two = |a: Value, b: Value| vec![limit("a", 1, a), limit("b", 1, b)];
    for protocol in ["unknown", "HTTP/1", "HTTP/2"] {
        assert_eq!(name(protocol, two(created(2), created(1))).as_deref(), Some("b"), "{protocol}");
    }
    assert_eq!(name("HTTP/1", two(json!({}), json!({}))).as_deref(), Some("a"));
    for protocol in ["gRPC", "opaque", "TLS"] {
        assert_eq!(name(protocol, two(json!({}), json!({}))), None, "{protocol}");
    }
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    let other = json!({"spec": {"targetRef": {"name": "t"}}});
    assert_eq!(name("HTTP/1", vec![limit("a", 1, elsewhere), limit("b", 1, other)]), None);
}
