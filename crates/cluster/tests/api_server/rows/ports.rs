//! How a port is served.

use super::{
    super::lab::{ApiServer, NAMESPACE},
    *,
};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn how_a_port_is_served() {
    ports(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.4.
pub(crate) async fn ports(api: &impl ApiServer) {
    let in_pod = |annotations: Value| vec![a(annotated(annotations))];
    let default = |policy: &str| in_pod(json!({"config.linkerd.io/default-inbound-policy": policy}));
    let served = |more: Vec<Value>| [vec![a(json!({})), server(json!({"proxyProtocol": "HTTP/1"}))], more].concat();
    let of_server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
    let authentication = |kind: &str, name: &str| json!({"group": "policy.linkerd.io", "kind": kind, "name": name});
    let policy = |target: Value, by: Value| {
        object("AuthorizationPolicy", "p", json!({"targetRef": target, "requiredAuthenticationRefs": by}))
    };
    let mesh_tls = object("MeshTLSAuthentication", "m", json!({"identities": ["*"]}));
    let network = object("NetworkAuthentication", "n", json!({"networks": [{"cidr": "10.0.0.0/8"}]}));
    let account = json!({"kind": "ServiceAccount", "name": "web"});
    let saz = object("ServerAuthorization", "z", json!({"server": {"name": "s"}, "client": {"unauthenticated": true}}));
    let route = object(
        "HTTPRoute",
        "r",
        json!({"parentRefs": [of_server], "rules": [{"matches": [{"path": {"value": "/a"}}]}]}),
    );
    let of_route = json!({"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "r"});
    let calls = object("GRPCRoute", "g", json!({"parentRefs": [of_server], "rules": []}));
    let does = |filter: Value| merged(route.clone(), json!({"spec": {"rules": [{"filters": [filter]}]}}));
    let header = |name: &str, value: &str| json!([{"name": name, "value": value}]);
    let edits = json!({"set": header("x-a", "1"), "add": header("x-b", "2"), "remove": ["x-c"]});
    let away = json!({"scheme": "https", "hostname": "b.example", "port": 8443});
    let limit =
        object("HTTPLocalRateLimitPolicy", "l", json!({"targetRef": of_server, "total": {"requestsPerSecond": 9}}));
    let named = |name: &str, object: Value| merged(object, json!({"metadata": {"name": name}}));
    let since = "2026-01-01T00:00:00Z";
    let refused = json!({"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "", "lastTransitionTime": since});
    let entry =
        json!({"parentRef": of_server, "controllerName": "linkerd.io/policy-controller", "conditions": [refused]});
    let refused = json!({"status": {"parents": [entry]}});
    let probe = json!([{"name": "web", "image": "web", "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}}}]);
    let namespace = json!({"kind": "Namespace", "name": NAMESPACE});
    let rows: Vec<Row> = vec![
        ("no pod", vec![], port(8080), "not found"),
        (
            "the default policy",
            vec![a(json!({}))],
            port(8080),
            "all-unauthenticated detect(default) from(all-unauthenticated)",
        ),
        ("nobody by default", default("deny"), port(8080), "deny detect(default) from()"),
        (
            "who proves an identity",
            default("all-authenticated"),
            port(8080),
            "all-authenticated detect(default) from(all-authenticated=*)",
        ),
        (
            "everybody",
            default("all-unauthenticated"),
            port(8080),
            "all-unauthenticated detect(default) from(all-unauthenticated)",
        ),
        (
            "who proves one in the cluster",
            default("cluster-authenticated"),
            port(8080),
            "cluster-authenticated detect(default) from(cluster-authenticated=*@cluster)",
        ),
        (
            "everybody in the cluster",
            default("cluster-unauthenticated"),
            port(8080),
            "cluster-unauthenticated detect(default) from(cluster-unauthenticated@cluster)",
        ),
        ("everybody, counted", default("audit"), port(8080), "audit detect(default) from(audit)"),
        (
            "an identity is required",
            in_pod(json!({"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"})),
            port(8080),
            "all-authenticated detect(default) from(all-authenticated=*)",
        ),
        (
            "opaque by annotation",
            in_pod(json!({"config.linkerd.io/opaque-ports": "8080"})),
            port(8080),
            "all-unauthenticated opaque() from(all-unauthenticated)",
        ),
        (
            "probes",
            vec![a(json!({"spec": {"containers": probe}}))],
            port(8080),
            "all-unauthenticated detect(default,probe:probe) from(all-unauthenticated)",
        ),
        ("a Server denies", served(vec![]), port(8080), "s http1(default) from()"),
        (
            "its access",
            vec![a(json!({})), server(json!({"accessPolicy": "audit", "proxyProtocol": "unknown"}))],
            port(8080),
            "s detect(default) from(audit)",
        ),
        (
            "bytes by a Server",
            vec![a(json!({})), server(json!({"proxyProtocol": "opaque"}))],
            port(8080),
            "s opaque() from()",
        ),
        ("a ServerAuthorization", served(vec![saz]), port(8080), "s http1(default) from(z@cluster)"),
        (
            "by mesh TLS",
            served(vec![policy(of_server.clone(), json!([authentication("MeshTLSAuthentication", "m")])), mesh_tls]),
            port(8080),
            "s http1(default) from(p=*)",
        ),
        (
            "by network",
            served(vec![policy(of_server.clone(), json!([authentication("NetworkAuthentication", "n")])), network]),
            port(8080),
            "s http1(default) from(p@10.0.0.0/8)",
        ),
        (
            "by account",
            served(vec![policy(of_server.clone(), json!([account]))]),
            port(8080),
            "s http1(default) from(p=web)",
        ),
        (
            "what is required is not there",
            served(vec![policy(of_server.clone(), json!([authentication("MeshTLSAuthentication", "m")]))]),
            port(8080),
            "s http1(default) from()",
        ),
        ("of the namespace", served(vec![policy(namespace, json!([]))]), port(8080), "s http1(default) from(p)"),
        ("a route", served(vec![route.clone()]), port(8080), "s http1(r) from()"),
        (
            "a policy of a route lets in there alone",
            served(vec![route.clone(), named("r2", route.clone()), policy(of_route, json!([]))]),
            port(8080),
            "s http1(r:p,r2) from()",
        ),
        (
            "its status says that it is not accepted",
            served(vec![merged(route.clone(), refused)]),
            port(8080),
            "s http1(r) from()",
        ),
        (
            "of several the oldest first",
            served(vec![
                aged(1, named("z", route.clone())),
                aged(2, named("a", route.clone())),
                named("b", route.clone()),
            ]),
            port(8080),
            "s http1(z,a,b) from()",
        ),
        (
            "of one age by name",
            served(vec![named("a", route.clone()), named("b", route.clone())]),
            port(8080),
            "s http1(a,b) from()",
        ),
        (
            "what a route does to requests",
            served(vec![does(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": edits}))]),
            port(8080),
            "s http1(r:{x-b+=2 x-a=1 -x-c}) from()",
        ),
        (
            "or answers itself",
            served(vec![does(json!({"type": "RequestRedirect", "requestRedirect": away}))]),
            port(8080),
            "s http1(r:{302 to https://b.example:8443}) from()",
        ),
        (
            "a route of gRPC",
            vec![a(json!({})), server(json!({"proxyProtocol": "gRPC"})), calls],
            port(8080),
            "s grpc(g) from()",
        ),
        (
            "of two Servers the oldest",
            vec![
                a(json!({})),
                aged(1, named("z", server(json!({})))),
                aged(2, server(json!({"proxyProtocol": "HTTP/1"}))),
            ],
            port(8080),
            "z detect(default) from()",
        ),
        ("a limit", served(vec![limit.clone()]), port(8080), "s http1(default) from() limited(l)"),
        (
            "of two limits the oldest",
            served(vec![aged(1, named("z", limit.clone())), aged(2, limit)]),
            port(8080),
            "s http1(default) from() limited(z)",
        ),
    ];
    hold(api, rows).await;
}
