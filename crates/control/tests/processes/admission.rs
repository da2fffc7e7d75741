//! What the webhooks say of an object that is not to be taken, and that others are.
//!
//! Of each rule of control plane 3.6.3 and 3.6.4 that no definition looks after; the whole tables are pure, beside the rules.

use super::lab::{ApiServer, Fake, NAMESPACE, Replica};
use serde_json::{Value, json};

#[tokio::test]
async fn webhooks_say_what_is_wrong() {
    let api = Fake::start().await;
    let replica = Replica::start(&api, "admission").await;
    admission(&api, &replica).await;
    replica.stop().await;
}

/// Each object, with why it is refused; nothing if it is taken.
pub(crate) async fn admission(api: &impl ApiServer, replica: &Replica) {
    api.asks(replica).await;
    let mut wrong = vec![];
    for (version, kind, spec, expected) in policies().into_iter().chain(routes()).chain(profiles()) {
        let name = if kind == "ServiceProfile" { "web.ns.svc.cluster.local" } else { "a" };
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        let told = api.refuses(&object).await.unwrap_or_default();
        // Behind it stands what to do.
        let told = told.split("; ").next().unwrap_or_default();
        if told != expected {
            wrong.push(format!("{kind} {spec} is refused by\n  {told}\nand not by\n  {expected}"));
        }
    }
    api.asks_nobody().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A version and a kind, what such an object says, and what is wrong with it, if anything is.
type Row = (&'static str, &'static str, Value, &'static str);

fn policies() -> Vec<Row> {
    let server = |more: Value| merged(json!({"podSelector": {}, "port": 80}), more);
    let client = |client: Value| json!({"server": {"name": "s"}, "client": client});
    let of_server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
    let policy = |target: &Value, refs: Value| json!({"targetRef": target, "requiredAuthenticationRefs": refs});
    let authentication = |kind: &str| json!({"group": "policy.linkerd.io", "kind": kind, "name": "a"});
    let (mesh_tls, network) = (authentication("MeshTLSAuthentication"), authentication("NetworkAuthentication"));
    let account = json!({"kind": "ServiceAccount", "name": "web"});
    let limit = |more: Value| merged(json!({"targetRef": of_server, "total": {"requestsPerSecond": 5}}), more);
    let rate = |n: u32| json!({"requestsPerSecond": n});
    let overridden = |n: u32, of: &Value| json!({"overrides": [{"requestsPerSecond": n, "clientRefs": [of]}]});
    let networks = |cidr: &str, except: &[&str]| json!([{"cidr": cidr, "except": except}]);
    let egress = |networks: Value| json!({"trafficPolicy": "Deny", "networks": networks});
    let rows = vec![
        ("Server", server(json!({"proxyProtocol": "HTTP/1", "accessPolicy": "audit"})), ""),
        ("Server", server(json!({"proxyProtocol": "http/1"})), "spec.proxyProtocol: \"http/1\" is no protocol"),
        ("Server", server(json!({"accessPolicy": "open"})), "spec.accessPolicy: \"open\" is no policy"),
        (
            "ServerAuthorization",
            client(json!({"unauthenticated": true, "networks": networks("10.0.0.0/8", &["10.1.0.0/16"])})),
            "",
        ),
        (
            "ServerAuthorization",
            client(json!({"unauthenticated": true, "networks": networks("10.0.0.0/8", &["11.0.0.0/16"])})),
            "spec.client.networks[0].except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
        ),
        (
            "ServerAuthorization",
            client(json!({"unauthenticated": true, "meshTLS": {"identities": ["*"]}})),
            "spec.client.unauthenticated: whoever need not prove anything needs no meshTLS",
        ),
        (
            "ServerAuthorization",
            client(json!({"meshTLS": {"unauthenticatedTLS": true, "identities": ["*"]}})),
            "spec.client.meshTLS.unauthenticatedTLS: whoever needs no identity needs no identities or serviceAccounts",
        ),
        ("AuthorizationPolicy", policy(&of_server, json!([])), ""),
        ("AuthorizationPolicy", policy(&of_server, json!([mesh_tls, network])), ""),
        (
            "AuthorizationPolicy",
            policy(&json!({"group": "apps", "kind": "Deployment", "name": "a"}), json!([])),
            "spec.targetRef.kind: Deployment (apps) is no target of a policy",
        ),
        ("AuthorizationPolicy", policy(&json!({"kind": "Namespace", "name": "ns"}), json!([mesh_tls])), ""),
        (
            "AuthorizationPolicy",
            policy(&json!({"kind": "Namespace", "name": "other"}), json!([mesh_tls])),
            "spec.targetRef.name: a policy can have no other namespace than its own as target",
        ),
        (
            "AuthorizationPolicy",
            policy(&of_server, json!([mesh_tls, account])),
            "spec.requiredAuthenticationRefs[1]: it is the second of its sort",
        ),
        (
            "AuthorizationPolicy",
            policy(&of_server, json!([network, network])),
            "spec.requiredAuthenticationRefs[1]: it is the second of its sort",
        ),
        (
            "AuthorizationPolicy",
            policy(&of_server, json!([{"kind": "Secret", "name": "a"}])),
            "spec.requiredAuthenticationRefs[0].kind: Secret is nothing that a client could prove",
        ),
        ("MeshTLSAuthentication", json!({"identities": ["*", "*.ns", "spiffe://td/a"]}), ""),
        ("MeshTLSAuthentication", json!({"identities": ["a.*"]}), "spec.identities[0]: \"a.*\" is no identity"),
        (
            "MeshTLSAuthentication",
            json!({"identities": ["spiffe://"]}),
            "spec.identities[0]: \"spiffe://\" is no identity",
        ),
        (
            "MeshTLSAuthentication",
            json!({"identityRefs": [{"kind": "Namespace", "name": "a", "namespace": "b"}]}),
            "spec.identityRefs[0].namespace: a Namespace is in no namespace",
        ),
        ("NetworkAuthentication", json!({"networks": networks("::/0", &["fd00::1"])}), ""),
        (
            "NetworkAuthentication",
            json!({"networks": networks("10", &[])}),
            "spec.networks[0].cidr: \"10\" is no network",
        ),
        (
            "NetworkAuthentication",
            json!({"networks": networks("10.0.0.0/8", &["10.0.0.0/8"])}),
            "spec.networks[0].except[0]: 10.0.0.0/8 is not a part of 10.0.0.0/8",
        ),
        ("HTTPLocalRateLimitPolicy", limit(merged(json!({"identity": rate(5)}), overridden(5, &account))), ""),
        ("HTTPLocalRateLimitPolicy", limit(json!({"total": rate(0)})), "spec.total.requestsPerSecond: 0 is no rate"),
        (
            "HTTPLocalRateLimitPolicy",
            limit(json!({"identity": rate(6)})),
            "spec.identity.requestsPerSecond: 6 is more than the total",
        ),
        (
            "HTTPLocalRateLimitPolicy",
            limit(overridden(6, &account)),
            "spec.overrides[0].requestsPerSecond: 6 is more than the total",
        ),
        (
            "HTTPLocalRateLimitPolicy",
            limit(overridden(1, &json!({"kind": "Namespace", "name": "a"}))),
            "spec.overrides[0].clientRefs[0].kind: Namespace is no client",
        ),
        (
            "HTTPLocalRateLimitPolicy",
            limit(json!({"targetRef": {"group": "", "kind": "Service", "name": "a"}})),
            "spec.targetRef.kind: Service takes no requests",
        ),
        ("EgressNetwork", egress(networks("192.0.2.0/24", &["192.0.2.1"])), ""),
        ("EgressNetwork", egress(json!([])), "spec.networks: it has no network"),
        (
            "EgressNetwork",
            egress(networks("192.0.2.0/24", &["192.0.2.0/24"])),
            "spec.networks[0].except[0]: 192.0.2.0/24 is not a part of 192.0.2.0/24",
        ),
    ];
    let version = |kind: &str| match kind {
        "Server" => "policy.linkerd.io/v1beta3",
        "ServerAuthorization" => "policy.linkerd.io/v1beta1",
        _ => "policy.linkerd.io/v1alpha1",
    };
    rows.into_iter().map(|(kind, spec, expected)| (version(kind), kind, spec, expected)).collect()
}

fn routes() -> Vec<Row> {
    const OWN: &str = "policy.linkerd.io/v1beta3";
    const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";
    let service = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let network = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"});
    let gateway = json!({"name": "gateway"});
    let of = |parent: &Value, rule: Value| json!({"parentRefs": [parent], "rules": [rule]});
    let path = |value: &str| json!({"matches": [{"path": {"type": "PathPrefix", "value": value}}]});
    let lasts = |request: &str, each: &str| json!({"timeouts": {"request": request, "backendRequest": each}});
    let sent = |backend: Value| json!({"backendRefs": [backend]});
    vec![
        (OWN, "HTTPRoute", of(&service, path("/a")), ""),
        (OWN, "HTTPRoute", of(&service, path("a")), "spec.rules[0].matches[0].path.value: \"a\" does not begin with /"),
        (OWN, "HTTPRoute", of(&service, lasts("2s", "1s")), ""),
        (
            OWN,
            "HTTPRoute",
            of(&service, lasts("1s", "2s")),
            "spec.rules[0].timeouts.backendRequest: one attempt may take longer than the whole request",
        ),
        (
            OWN,
            "HTTPRoute",
            of(&network, path("/a")),
            "spec.parentRefs[0].port: a route of an EgressNetwork is for one port",
        ),
        (
            GATEWAY_API,
            "HTTPRoute",
            of(&service, path("/%61")),
            "spec.rules[0].matches[0].path.value: \"/%61\" has an escape that is none",
        ),
        (GATEWAY_API, "HTTPRoute", of(&gateway, path("/%61")), ""),
        (
            GATEWAY_API,
            "HTTPRoute",
            of(&network, path("/a")),
            "spec.parentRefs[0].port: a route of an EgressNetwork is for one port",
        ),
        (
            GATEWAY_API,
            "GRPCRoute",
            of(&network, json!({})),
            "spec.parentRefs[0].port: a route of an EgressNetwork is for one port",
        ),
        (
            "gateway.networking.k8s.io/v1alpha2",
            "TCPRoute",
            of(&network, sent(json!({"name": "web", "port": 80}))),
            "spec.parentRefs[0].port: a route of an EgressNetwork is for one port",
        ),
    ]
}

fn profiles() -> Vec<Row> {
    let route = |more: Value| json!({"routes": [merged(json!({"name": "r", "condition": {"method": "GET"}}), more)]});
    let on = |condition: Value| json!({"routes": [{"name": "r", "condition": condition}]});
    let class = |condition: Value| route(json!({"responseClasses": [{"condition": condition, "isFailure": true}]}));
    let budget =
        |ratio: f64, ttl: &str| json!({"retryBudget": {"retryRatio": ratio, "minRetriesPerSecond": 1, "ttl": ttl}});
    let rows = vec![
        (json!({}), ""),
        (route(json!({"timeout": "1h30m", "isRetryable": true})), ""),
        (on(json!({"all": [{"method": "GET"}, {"not": {"method": "PUT"}}]})), ""),
        (route(json!({"name": ""})), "spec.routes[0].name: the route has no name"),
        (route(json!({"timeout": "1"})), "spec.routes[0].timeout: \"1\" is no duration"),
        (on(json!({})), "spec.routes[0].condition: the condition is empty"),
        (
            on(json!({"pathRegex": "("})),
            "spec.routes[0].condition.pathRegex: \"(\" is no regular expression, or a too large one",
        ),
        (on(json!({"not": {}})), "spec.routes[0].condition.not: the condition is empty"),
        // One condition and no list, which Linkerd's definition has and its code does not.
        (on(json!({"any": [{"not": [{"method": "PUT"}]}]})), "spec.routes[0].condition.any[0].not[0]: it is an object"),
        (class(json!({})), "spec.routes[0].responseClasses[0].condition: the condition is empty"),
        (class(json!({"status": {"min": 500}})), ""),
        (
            class(json!({"status": {"min": 99}})),
            "spec.routes[0].responseClasses[0].condition.status: 99 to 0 is no range of statuses",
        ),
        (
            class(json!({"status": {"min": 500, "max": 400}})),
            "spec.routes[0].responseClasses[0].condition.status: 500 to 400 is no range of statuses",
        ),
        (budget(0.2, "10s"), ""),
        (budget(-0.1, "10s"), "spec.retryBudget.retryRatio: -0.1 is negative"),
        (budget(0.1, "10"), "spec.retryBudget.ttl: \"10\" is no duration"),
        (
            json!({"dstOverrides": [{"authority": "a b", "weight": 1}]}),
            "spec.dstOverrides[0].authority: \"a b\" is no target",
        ),
    ];
    rows.into_iter().map(|(spec, expected)| ("linkerd.io/v1alpha2", "ServiceProfile", spec, expected)).collect()
}

/// With these fields in place of its own.
fn merged(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}
