//! Objects in another version than the newest of their kind, and of the Gateway API's HTTPRoute.
//!
//! What an older schema does not have is dropped, and what the newest has besides is its default there.

use super::{super::lab::ApiServer, *};
use weft_testkit::api_server::FakeApi;

#[tokio::test]
async fn what_older_versions_come_to() {
    older(&FakeApi::start().await.unwrap()).await;
}

/// Part 3.6.
pub(crate) async fn older(api: &impl ApiServer) {
    let of = |version: &str, object: Value| merged(object, json!({"apiVersion": version}));
    let policy = |version: &str, object: Value| of(&format!("policy.linkerd.io/{version}"), object);
    let open = |protocol: &str| server(json!({"accessPolicy": "all-unauthenticated", "proxyProtocol": protocol}));
    let served = |more: Value| vec![a(json!({})), server(json!({"proxyProtocol": "HTTP/1"})), more];
    let saz = object("ServerAuthorization", "z", json!({"server": {"name": "s"}, "client": {"unauthenticated": true}}));
    let outside = object(
        "Server",
        "s",
        json!({"externalWorkloadSelector": {}, "port": 8080, "proxyProtocol": "HTTP/1", "accessPolicy": "audit"}),
    );
    let on_vm = Question::Inbound {
        namespace: NAMESPACE.to_owned(),
        of: WorkloadKind::ExternalWorkload,
        name: "vm".to_owned(),
        port: 8080,
    };
    // Of a policy's group, and every request, if nothing else is said.
    let of_server = object("HTTPRoute", "r", json!({"parentRefs": [{"kind": "Server", "name": "s"}]}));
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let backends = json!([
        {"name": "web", "port": 80, "weight": 3},
        {"name": "books", "namespace": OTHER, "port": 80, "weight": 2},
    ]);
    let route = |backends: &Value, rule: Value| {
        let rule = merged(json!({"backendRefs": backends}), rule);
        object("HTTPRoute", "r", json!({"parentRefs": [parent], "rules": [rule]}))
    };
    let books = json!({"selector": {"app": "books"}, "ports": [{"port": 80}]});
    let books = elsewhere(OTHER, object("Service", "books", books));
    let sent_by = |route: Value| with([route, books.clone()]);
    let at = || sent(&format!("{SERVICE_IP}:80"));
    let timed = json!({"timeouts": {"request": "9s"}});
    let mut here = backends.clone();
    here[0]["namespace"] = json!(NAMESPACE);
    let edits = json!({"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-a", "value": "1"}]}}]});
    let rewrites = json!({"filters": [{"type": "URLRewrite", "urlRewrite": {"hostname": "b.example"}}]});
    let gateway_of_server = |rule: Value| {
        let parent = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
        let route = object("HTTPRoute", "r", json!({"parentRefs": [parent], "rules": [rule]}));
        of("gateway.networking.k8s.io/v1", route)
    };
    let sp = json!({"routes": [{"name": "get", "condition": {"method": "GET"}}]});
    let sp = of("linkerd.io/v1alpha1", object("ServiceProfile", WEB, sp));
    let rows: Vec<Row> = vec![
        (
            "a Server of today says who may call",
            vec![a(json!({})), policy("v1beta3", open("HTTP/1"))],
            port(8080),
            "s http1(default) from(all-unauthenticated)",
        ),
        (
            "one of v1beta2 cannot",
            vec![a(json!({})), policy("v1beta2", open("HTTP/1"))],
            port(8080),
            "s http1(default) from()",
        ),
        (
            "one of v1beta1",
            vec![a(json!({})), policy("v1beta1", open("HTTP/2"))],
            port(8080),
            "s http2(default) from()",
        ),
        ("one of v1alpha1", vec![a(json!({})), policy("v1alpha1", open("TLS"))], port(8080), "s tls() from()"),
        (
            "and it speaks anything",
            vec![a(json!({})), policy("v1alpha1", server(json!({})))],
            port(8080),
            "s detect(default) from()",
        ),
        (
            "a Server of v1beta2 is of ExternalWorkloads too",
            vec![vm(json!([{"port": 8080}])).remove(1), policy("v1beta2", outside)],
            on_vm,
            "s http1(default) from()",
        ),
        (
            "clients see an older Server",
            with([policy("v1beta1", server(json!({"proxyProtocol": "opaque"})))]),
            destination(&format!("{WEB}:80")),
            "10.1.0.1:8080/opaque=web",
        ),
        (
            "an older ServerAuthorization",
            served(policy("v1alpha1", saz)),
            port(8080),
            "s http1(default) from(z@cluster)",
        ),
        (
            "a Server's route of v1alpha1",
            served(policy("v1alpha1", of_server.clone())),
            port(8080),
            "s http1(r) from()",
        ),
        ("of v1beta1", served(policy("v1beta1", of_server.clone())), port(8080), "s http1(r) from()"),
        ("of v1beta2", served(policy("v1beta2", of_server)), port(8080), "s http1(r) from()"),
        (
            "a route of today says how long",
            sent_by(policy("v1beta3", route(&backends, timed.clone()))),
            at(),
            "web detect r:web*3|books.other*2[request 9s]",
        ),
        (
            "one of v1beta2 cannot",
            sent_by(policy("v1beta2", route(&backends, timed.clone()))),
            at(),
            "web detect r:web*3|books.other*2",
        ),
        (
            "nor one of v1beta1",
            sent_by(policy("v1beta1", route(&backends, timed.clone()))),
            at(),
            "web detect r:web*3|books.other*2",
        ),
        (
            "backends of v1alpha1 have no weights",
            sent_by(policy("v1alpha1", route(&here, timed.clone()))),
            at(),
            "web detect r:web|books.other",
        ),
        (
            "and are in the namespace default",
            sent_by(policy("v1alpha1", route(&backends, timed.clone()))),
            at(),
            "web detect r:nobody|books.other",
        ),
        (
            "the Gateway API's HTTPRoute",
            sent_by(of("gateway.networking.k8s.io/v1", route(&backends, merged(timed.clone(), edits.clone())))),
            at(),
            "web detect r:web*3|books.other*2{answer x-a=1}[request 9s]",
        ),
        (
            "its version before",
            sent_by(of("gateway.networking.k8s.io/v1beta1", route(&backends, timed))),
            at(),
            "web detect r:web*3|books.other*2[request 9s]",
        ),
        ("a Server has one too", served(gateway_of_server(edits)), port(8080), "s http1(r) from()"),
        ("which cannot do all of it", served(gateway_of_server(rewrites)), port(8080), "s http1(r:!500) from()"),
        (
            "a ServiceProfile of v1alpha1",
            with([sp]),
            profiled(&format!("{SERVICE_IP}:80")),
            "web.ns.svc.cluster.local of Service web route get",
        ),
    ];
    hold(api, rows).await;
}
