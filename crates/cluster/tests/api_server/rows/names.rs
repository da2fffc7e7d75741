//! By which objects an answer is: what proxies show in metrics and logs.

use super::{super::lab::ApiServer, *};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn how_parents_and_routes_are_named() {
    names(&FakeApi::start().await.unwrap()).await;
}

/// Parts 6.4 and 6.5.
pub(crate) async fn names(api: &impl ApiServer) {
    let of_service = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let of_network = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let of_server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
    let route = |kind: &str, parent: &Value| {
        object(kind, "r", json!({"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}))
    };
    let of_gateway_api = |route: Value| merged(route, json!({"apiVersion": "gateway.networking.k8s.io/v1"}));
    let tls = |route: Value| merged(route, json!({"spec": {"hostnames": ["a.example"]}}));
    let served = |protocol: &str, more: Vec<Value>| {
        [vec![a(json!({})), server(json!({"proxyProtocol": protocol}))], more].concat()
    };
    let calls = object("GRPCRoute", "g", json!({"parentRefs": [of_server], "rules": []}));
    let open = object("HTTPRoute", "r", json!({"parentRefs": [of_server], "rules": [{}]}));
    let network =
        object("EgressNetwork", "out", json!({"trafficPolicy": "Deny", "networks": [{"cidr": "192.0.2.0/24"}]}));
    let at = |port: u16| sent(&format!("{SERVICE_IP}:{port}"));
    let away = || sent("192.0.2.1:443");
    let rows: Vec<Row> = vec![
        ("a Service, and its default route", behind(), at(80), "core/Service/ns/web:80 http"),
        ("of bytes", behind(), at(5432), "core/Service/ns/web:5432 opaq"),
        (
            "a route of the mesh's own",
            with([route("HTTPRoute", &of_service)]),
            at(80),
            "core/Service/ns/web:80 policy.linkerd.io/HTTPRoute/ns/r",
        ),
        (
            "one of the Gateway API",
            with([of_gateway_api(route("HTTPRoute", &of_service))]),
            at(80),
            "core/Service/ns/web:80 gateway.networking.k8s.io/HTTPRoute/ns/r",
        ),
        (
            "a GRPCRoute",
            with([route("GRPCRoute", &of_service)]),
            at(80),
            "core/Service/ns/web:80 gateway.networking.k8s.io/GRPCRoute/ns/r",
        ),
        (
            "a TLSRoute",
            with([tls(route("TLSRoute", &of_service))]),
            at(80),
            "core/Service/ns/web:80 gateway.networking.k8s.io/TLSRoute/ns/r",
        ),
        (
            "a TCPRoute",
            with([route("TCPRoute", &of_service)]),
            at(80),
            "core/Service/ns/web:80 gateway.networking.k8s.io/TCPRoute/ns/r",
        ),
        (
            "an EgressNetwork",
            vec![network.clone()],
            away(),
            "policy.linkerd.io/EgressNetwork/ns/out:443 http-egress-deny",
        ),
        (
            "its route",
            vec![network, web(json!({})), route("HTTPRoute", &of_network)],
            away(),
            "policy.linkerd.io/EgressNetwork/ns/out:443 policy.linkerd.io/HTTPRoute/ns/r http-egress-deny",
        ),
        ("what leaves the cluster", vec![], away(), "egress-fallback egress-fallback"),
        ("a pod without a Server", vec![a(json!({}))], port(8080), "all-unauthenticated default"),
        ("a Server", served("HTTP/1", vec![]), port(8080), "policy.linkerd.io/server//s default"),
        (
            "a route of it",
            served("HTTP/1", vec![open.clone()]),
            port(8080),
            "policy.linkerd.io/server//s policy.linkerd.io/HTTPRoute//r",
        ),
        (
            "one of the Gateway API of it",
            served("HTTP/1", vec![of_gateway_api(open)]),
            port(8080),
            "policy.linkerd.io/server//s gateway.networking.k8s.io/HTTPRoute//r",
        ),
        (
            "a GRPCRoute of it",
            served("gRPC", vec![calls]),
            port(8080),
            "policy.linkerd.io/server//s gateway.networking.k8s.io/GRPCRoute//g",
        ),
    ];
    hold_with(api, settings(), said::named, rows).await;
}
