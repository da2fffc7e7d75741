//! How traffic behaves.

use super::{super::lab::ApiServer, *};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn how_traffic_behaves() {
    traffic(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.5.
pub(crate) async fn traffic(api: &impl ApiServer) {
    let of = |kind: &str, name: &str, parent: Value, backends: Value| {
        object(kind, name, json!({"parentRefs": [parent], "rules": [{"backendRefs": backends}]}))
    };
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let known = json!([{"name": "web", "port": 80}]);
    let route = |kind: &str| of(kind, "r", parent.clone(), known.clone());
    let at = |port: u16| sent(&format!("{SERVICE_IP}:{port}"));
    let gone = json!([{"name": "web", "port": 80, "weight": 9}, {"name": "gone", "port": 80}]);
    let shares = json!([
        {"name": "web", "port": 80, "weight": 3},
        {"name": "books", "namespace": OTHER, "port": 80, "weight": 2},
    ]);
    let weighed = of("HTTPRoute", "r", parent.clone(), shares);
    let books = json!({"selector": {"app": "books"}, "ports": [{"port": 80}]});
    let books = elsewhere(OTHER, object("Service", "books", books));
    let asks = annotated(json!({
        "retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "2", "timeout.linkerd.io/request": "9s",
    }));
    let accrual = annotated(json!({"balancer.linkerd.io/failure-accrual": "consecutive"}));
    let unified = annotated(json!({
        "balancer.linkerd.io/failure-accrual": "unified",
        "balancer.linkerd.io/failure-accrual-consecutive-max-failures": "3",
        "balancer.linkerd.io/failure-accrual-consecutive-min-penalty": "2s",
        "balancer.linkerd.io/failure-accrual-consecutive-max-penalty": "4s",
        "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio": "0.1",
        "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold": "0.5",
        "balancer.alpha.linkerd.io/failure-accrual-success-rate-window": "1m",
        "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests": "9",
        "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after": "true",
    }));
    let unread = annotated(json!({"balancer.linkerd.io/failure-accrual-consecutive-max-failures": "few"}));
    let unread = merged(accrual.clone(), unread);
    let penalty = |more: Value| annotated(merged(json!({"balancer.alpha.linkerd.io/penalize-failures": "true"}), more));
    let asked = |annotations: Value, timeouts: Value| {
        let rules = json!([{"backendRefs": known.clone(), "timeouts": timeouts}]);
        let route = object("HTTPRoute", "r", json!({"parentRefs": [parent.clone()], "rules": rules}));
        vec![web(asks.clone()), merged(route, annotated(annotations))]
    };
    let far = |backend: Value| merged(backend, json!({"namespace": NAMESPACE}));
    let own = of("HTTPRoute", "z", far(parent.clone()), json!([far(known[0].clone())]));
    let own = elsewhere(OTHER, own);
    let opaque = annotated(json!({"config.linkerd.io/opaque-ports": "80"}));
    let egress = |policy: &str, annotations: Value| {
        let network = json!({"trafficPolicy": policy, "networks": [{"cidr": "192.0.2.0/24"}]});
        merged(object("EgressNetwork", "out", network), annotated(annotations))
    };
    let network = |name: &str, net: &str| {
        object("EgressNetwork", name, json!({"trafficPolicy": "Allow", "networks": [{"cidr": net}]}))
    };
    let for_all = elsewhere("linkerd-egress", network("all", "192.0.2.0/28"));
    let out = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let itself = json!([{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"}]);
    let away = |port: u16| sent(&format!("192.0.2.1:{port}"));
    let rows: Vec<Row> = vec![
        ("no Service", vec![], sent(&format!("{WEB}:80")), "not found"),
        ("a Service by its name", behind(), sent(&format!("{WEB}:80")), "web detect http:web"),
        ("by its address", behind(), at(80), "web detect http:web"),
        ("a port that is not declared", behind(), at(99), "web opaque undefined-port:web!forbidden"),
        ("appProtocol http", behind(), at(81), "web http1 http:web"),
        ("appProtocol h2c", behind(), at(82), "web http2 http:web"),
        ("another appProtocol", behind(), at(83), "web opaque opaq:web"),
        ("a usual opaque port", behind(), at(5432), "web opaque opaq:web"),
        ("opaque by annotation", vec![web(opaque)], at(80), "web opaque opaq:web"),
        ("an HTTPRoute", with([route("HTTPRoute")]), at(80), "web detect r:web"),
        ("of one port alone", with([route("HTTPRoute")]), at(81), "web http1 http:web"),
        ("a GRPCRoute", with([route("GRPCRoute")]), at(80), "web grpc r:web"),
        (
            "which comes first",
            with([route("HTTPRoute"), of("GRPCRoute", "g", parent.clone(), known.clone())]),
            at(80),
            "web grpc g:web",
        ),
        (
            "a TLSRoute",
            with([merged(route("TLSRoute"), json!({"spec": {"hostnames": ["a.example"]}}))]),
            at(80),
            "web tls r:web",
        ),
        ("a TCPRoute", with([route("TCPRoute")]), at(80), "web opaque r:web"),
        (
            "a backend that is not there",
            with([of("HTTPRoute", "r", parent.clone(), gone)]),
            at(80),
            "web detect r:web*9|nobody",
        ),
        ("backends by weight", with([weighed.clone(), books.clone()]), at(80), "web detect r:web*3|books.other*2"),
        ("what a Service asks for", vec![web(asks.clone())], at(80), "web detect http:web+2[request 9s]"),
        ("and its route does not", asked(json!({}), json!({})), at(80), "web detect r:web+2[request 9s]"),
        (
            "a route's own retries",
            asked(json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "5"}), json!({})),
            at(80),
            "web detect r:web+5[request 9s]",
        ),
        (
            "its own timeouts, by annotation",
            asked(json!({"timeout.linkerd.io/response": "3s"}), json!({})),
            at(80),
            "web detect r:web+2[response 3s]",
        ),
        (
            "or by the rule",
            asked(json!({}), json!({"backendRequest": "4s"})),
            at(80),
            "web detect r:web+2[response 4s]",
        ),
        (
            "0 is none",
            asked(json!({"retry.linkerd.io/limit": "0"}), json!({"request": "0s"})),
            at(80),
            "web detect r:web",
        ),
        (
            "retries after other answers",
            vec![web(annotated(json!({"retry.linkerd.io/http": "gateway-error,429"})))],
            at(80),
            "web detect http:web+1(502-504,429-429)",
        ),
        (
            "of tries that take long",
            vec![web(annotated(json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/timeout": "400ms"})))],
            at(80),
            "web detect http:web+1<400ms",
        ),
        (
            "of gRPC",
            vec![web(annotated(json!({"retry.linkerd.io/grpc": "unavailable,cancelled"}))), route("GRPCRoute")],
            at(80),
            "web grpc r:web+1(14,1)",
        ),
        (
            "who fails is left out",
            vec![web(accrual.clone())],
            at(80),
            "web detect(7 in a row, 1s to 60s ~0.5) http:web",
        ),
        (
            "in gRPC",
            vec![web(accrual.clone()), route("GRPCRoute")],
            at(80),
            "web grpc(7 in a row, 1s to 60s ~0.5) r:web",
        ),
        ("not of bytes", vec![web(accrual.clone())], at(5432), "web opaque opaq:web"),
        (
            "by all that may be said",
            vec![web(unified)],
            at(80),
            "web detect(0.5 of 9 in 60s, 3 in a row, 2s to 4s ~0.1, or as told) http:web",
        ),
        ("one value cannot be read", vec![web(unread)], at(80), "web detect http:web"),
        (
            "a backend says nothing of it",
            with([weighed, merged(books, merged(accrual, penalty(json!({}))))]),
            at(80),
            "web detect r:web*3|books.other*2",
        ),
        (
            "of an EgressNetwork",
            vec![egress("Allow", json!({"balancer.linkerd.io/failure-accrual": "consecutive"}))],
            away(443),
            "out detect(7 in a row, 1s to 60s ~0.5) http-egress-allow:itself",
        ),
        ("failures count as slow", vec![web(penalty(json!({})))], at(80), "web detect http:web~5s to 300s"),
        (
            "as slow as is said",
            vec![web(penalty(json!({
                "balancer.alpha.linkerd.io/load-biaser-penalty": "1s",
                "balancer.alpha.linkerd.io/load-biaser-max-retry-after": "9s",
            })))],
            at(80),
            "web detect http:web~1s to 9s",
        ),
        ("bytes do not fail", vec![web(penalty(json!({})))], at(5432), "web opaque opaq:web"),
        (
            "a client's own routes come first",
            with([aged(1, route("HTTPRoute")), aged(2, own.clone())]),
            sent_from(OTHER, &format!("{SERVICE_IP}:80")),
            "web detect z:web r:web",
        ),
        ("and are nobody else's", with([aged(1, route("HTTPRoute")), aged(2, own)]), at(80), "web detect r:web"),
        ("outside of the cluster", vec![], away(443), "egress-fallback detect egress-fallback:itself"),
        ("inside of it, and nobody", vec![], sent("10.1.9.9:80"), "not found"),
        ("an EgressNetwork allows", vec![egress("Allow", json!({}))], away(443), "out detect http-egress-allow:itself"),
        (
            "the smallest of several",
            vec![aged(1, network("a", "192.0.2.0/24")), aged(2, network("z", "192.0.2.0/28"))],
            away(443),
            "z detect http-egress-allow:itself",
        ),
        (
            "of one size the oldest",
            vec![aged(1, network("z", "192.0.2.0/24")), aged(2, network("a", "192.0.2.0/24"))],
            away(443),
            "z detect http-egress-allow:itself",
        ),
        ("the one for all", vec![for_all.clone()], away(443), "all detect http-egress-allow:itself"),
        (
            "but where there is an own one",
            vec![for_all, network("own", "192.0.2.0/24")],
            away(443),
            "own detect http-egress-allow:itself",
        ),
        ("or denies", vec![egress("Deny", json!({}))], away(443), "out detect http-egress-deny:itself!403"),
        (
            "opaque by annotation",
            vec![egress("Deny", json!({"config.linkerd.io/opaque-ports": "443"}))],
            away(443),
            "out opaque tcp-egress-deny:itself!forbidden",
        ),
        (
            "and its routes let through",
            vec![egress("Deny", json!({})), of("HTTPRoute", "r", out.clone(), itself.clone())],
            away(443),
            "out detect r:itself http-egress-deny:itself!403",
        ),
        (
            "of TLS",
            vec![
                egress("Deny", json!({})),
                merged(of("TLSRoute", "r", out.clone(), itself.clone()), json!({"spec": {"hostnames": ["a.example"]}})),
            ],
            away(443),
            "out tls r:itself tls-egress-deny:itself!forbidden",
        ),
        (
            "of bytes",
            vec![egress("Deny", json!({})), of("TCPRoute", "r", out, itself)],
            away(443),
            "out opaque r:itself",
        ),
    ];
    hold(api, rows).await;
}
