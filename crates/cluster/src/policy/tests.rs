//! Each rule of admission (control plane 3.6.4), kept and broken.

use super::*;
use serde_json::json;

pub(super) fn object(kind: Kind, spec: Value) -> Value {
    json!({"apiVersion": "policy.linkerd.io/v1", "kind": kind.as_str(), "metadata": {"name": "a", "namespace": "ns"}, "spec": spec})
}

/// The fields that are wrong.
fn wrong(kind: Kind, spec: &Value) -> Vec<String> {
    match read(kind, object(kind, spec.clone())) {
        Ok(_) => vec![],
        Err(mistakes) => mistakes.into_iter().map(|m| m.field).collect(),
    }
}

pub(super) fn right(kind: Kind, specs: Vec<Value>) {
    for spec in specs {
        assert_eq!(wrong(kind, &spec), Vec::<String>::new(), "{spec}");
    }
}

pub(super) fn all_wrong(kind: Kind, specs: Vec<(Value, &[&str])>) {
    for (spec, fields) in specs {
        assert_eq!(wrong(kind, &spec), fields, "{spec}");
    }
}

#[test]
fn servers() {
    let pods = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
        {"key": "a", "operator": "In", "values": ["b"]}, {"key": "c", "operator": "Exists"}]});
    let mut good = vec![
        json!({"podSelector": {}, "port": 80}),
        json!({"podSelector": pods, "port": "http", "proxyProtocol": "HTTP/1", "accessPolicy": "audit"}),
        json!({"podSelector": {}, "port": 80, "unknownField": 1}),
    ];
    for protocol in ["unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"] {
        good.push(json!({"podSelector": {}, "port": 80, "proxyProtocol": protocol}));
    }
    for access in weft_model::policy::inbound::DefaultPolicy::ALL {
        good.push(json!({"podSelector": {}, "port": 80, "accessPolicy": access.as_str()}));
    }
    right(Kind::Server, good);
    let selector = |expression: Value| json!({"podSelector": {"matchExpressions": [expression]}, "port": 80});
    all_wrong(
        Kind::Server,
        vec![
            (json!({"podSelector": {}}), &["spec.port"]),
            (json!({"port": 80}), &["spec.podSelector"]),
            (json!({"podSelector": {}, "port": 0}), &["spec.port"]),
            (json!({"podSelector": {}, "port": 65536}), &["spec.port"]),
            (json!({"podSelector": {}, "port": -1}), &["spec.port"]),
            (json!({"podSelector": {}, "port": "Http"}), &["spec.port"]),
            (json!({"podSelector": {}, "port": "8080"}), &["spec.port"]),
            (json!({"podSelector": {}, "port": 1.5}), &["spec.port"]),
            (json!({"podSelector": {}, "port": 80, "proxyProtocol": "http/1"}), &["spec.proxyProtocol"]),
            (json!({"podSelector": {}, "port": 80, "proxyProtocol": ""}), &["spec.proxyProtocol"]),
            (json!({"podSelector": {}, "port": 80, "accessPolicy": "allow"}), &["spec.accessPolicy"]),
            (json!({"podSelector": {}, "port": 80, "proxyProtocol": 1}), &["spec.proxyProtocol"]),
            (
                json!({"externalWorkloadSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}, "port": 80}),
                &["spec.externalWorkloadSelector.matchExpressions[0].values"],
            ),
            (
                json!({"podSelector": {}, "externalWorkloadSelector": {}, "port": 80}),
                &["spec.externalWorkloadSelector"],
            ),
            (json!({"podSelector": {}, "port": 0, "accessPolicy": "x"}), &["spec.port", "spec.accessPolicy"]),
            (selector(json!({"key": "a", "operator": "Has"})), &["spec.podSelector.matchExpressions[0].operator"]),
            (selector(json!({"key": "a", "operator": "In"})), &["spec.podSelector.matchExpressions[0].values"]),
            (
                selector(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
                &["spec.podSelector.matchExpressions[0].values"],
            ),
        ],
    );
    let mistakes = read(Kind::Server, object(Kind::Server, json!({"podSelector": {}, "port": 1, "accessPolicy": "x"})));
    assert_eq!(
        told(&mistakes.unwrap_err()),
        "spec.accessPolicy: \"x\" is no policy; use one of deny, all-authenticated, all-unauthenticated, \
         cluster-authenticated, cluster-unauthenticated, audit"
    );
    let quoted = read(Kind::Server, object(Kind::Server, json!({"podSelector": {}, "port": "8080"})));
    assert_eq!(
        told(&quoted.unwrap_err()),
        "spec.port: \"8080\" is a name, and no port has one of digits alone; write the number without quotes: port: 8080"
    );
}

#[test]
fn server_authorizations() {
    let of = |server: Value, client: Value| json!({"server": server, "client": client});
    let named = || json!({"name": "web"});
    let client = |client: Value| of(named(), client);
    let tls = |mesh_tls: Value| client(json!({"meshTLS": mesh_tls}));
    let net = |cidr: &str, except: &[&str]| {
        client(json!({"unauthenticated": true, "networks": [{"cidr": cidr, "except": except}]}))
    };
    right(
        Kind::ServerAuthorization,
        vec![
            client(json!({"unauthenticated": true})),
            of(json!({"selector": {"matchLabels": {"a": "b"}}}), json!({"unauthenticated": true})),
            tls(json!({"unauthenticatedTLS": true})),
            tls(json!({"identities": ["*", "*.ns.serviceaccount.identity.linkerd.cluster.local", "spiffe://td/a"]})),
            tls(json!({"serviceAccounts": [{"name": "web"}, {"name": "web", "namespace": "other"}]})),
            net("10.0.0.0/8", &["10.1.0.0/16", "10.2.2.2"]),
            net("10.0.0.1", &[]),
            net("fd00::/8", &["fd00::/16"]),
        ],
    );
    all_wrong(
        Kind::ServerAuthorization,
        vec![
            (of(json!({}), json!({"unauthenticated": true})), &["spec.server"]),
            (of(json!({"name": ""}), json!({"unauthenticated": true})), &["spec.server"]),
            (of(json!({"name": "a", "selector": {}}), json!({"unauthenticated": true})), &["spec.server"]),
            (client(json!({})), &["spec.client"]),
            (client(json!({"unauthenticated": false})), &["spec.client"]),
            (client(json!({"unauthenticated": true, "meshTLS": {}})), &["spec.client.unauthenticated"]),
            (tls(json!({})), &["spec.client.meshTLS"]),
            (tls(json!({"identities": []})), &["spec.client.meshTLS"]),
            (
                tls(json!({"unauthenticatedTLS": true, "identities": ["*"]})),
                &["spec.client.meshTLS.unauthenticatedTLS"],
            ),
            (tls(json!({"identities": ["*", "*web"]})), &["spec.client.meshTLS.identities[1]"]),
            (tls(json!({"serviceAccounts": [{"name": ""}]})), &["spec.client.meshTLS.serviceAccounts[0].name"]),
            (net("10.0.0.0/33", &[]), &["spec.client.networks[0].cidr"]),
            (net("10.0.0.0/8", &["11.0.0.0/16"]), &["spec.client.networks[0].except[0]"]),
            (net("10.0.0.0/8", &["10.0.0.0/8"]), &["spec.client.networks[0].except[0]"]),
            (net("10.0.0.0/8", &["0.0.0.0/0"]), &["spec.client.networks[0].except[0]"]),
            (net("10.0.0.0/8", &["fd00::/16"]), &["spec.client.networks[0].except[0]"]),
            (net("10.0.0.0/8", &["nonsense"]), &["spec.client.networks[0].except[0]"]),
        ],
    );
}

#[test]
fn authorization_policies() {
    let of = |target: Value, refs: Value| json!({"targetRef": target, "requiredAuthenticationRefs": refs});
    let server = || json!({"group": "policy.linkerd.io", "kind": "Server", "name": "web"});
    let mesh_tls = || json!({"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "a"});
    let network =
        || json!({"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "a", "namespace": "other"});
    let account = || json!({"kind": "ServiceAccount", "name": "a"});
    right(
        Kind::AuthorizationPolicy,
        vec![
            of(server(), json!([])),
            of(server(), json!([mesh_tls()])),
            of(server(), json!([network()])),
            of(server(), json!([mesh_tls(), network()])),
            of(server(), json!([network(), account()])),
            of(json!({"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "web"}), json!([])),
            of(json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}), json!([])),
            of(json!({"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "web"}), json!([])),
            of(json!({"kind": "Namespace", "name": "ns"}), json!([mesh_tls()])),
            of(json!({"group": "core", "kind": "namespace", "name": "ns"}), json!([mesh_tls()])),
        ],
    );
    let refs = |refs: Value| of(server(), refs);
    all_wrong(
        Kind::AuthorizationPolicy,
        vec![
            (json!({"targetRef": server()}), &["spec.requiredAuthenticationRefs"]),
            (of(json!({"kind": "Server", "name": "web"}), json!([])), &["spec.targetRef.kind"]),
            (of(json!({"group": "apps", "kind": "Deployment", "name": "web"}), json!([])), &["spec.targetRef.kind"]),
            (
                of(json!({"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "web"}), json!([])),
                &["spec.targetRef.kind"],
            ),
            (of(json!({"kind": "Namespace", "name": "other"}), json!([])), &["spec.targetRef.name"]),
            (
                of(json!({"group": "policy.linkerd.io", "kind": "Server", "name": "a", "namespace": "b"}), json!([])),
                &["spec.targetRef.namespace"],
            ),
            (
                of(json!({"group": "policy.linkerd.io", "kind": "Server", "name": ""}), json!([])),
                &["spec.targetRef.name"],
            ),
            (refs(json!([mesh_tls(), mesh_tls()])), &["spec.requiredAuthenticationRefs[1]"]),
            (refs(json!([mesh_tls(), account()])), &["spec.requiredAuthenticationRefs[1]"]),
            (refs(json!([network(), mesh_tls(), network()])), &["spec.requiredAuthenticationRefs[2]"]),
            (refs(json!([{"kind": "Secret", "name": "a"}])), &["spec.requiredAuthenticationRefs[0].kind"]),
            (
                refs(json!([{"kind": "MeshTLSAuthentication", "name": "a"}])),
                &["spec.requiredAuthenticationRefs[0].kind"],
            ),
            (refs(json!([{"kind": "ServiceAccount", "name": ""}])), &["spec.requiredAuthenticationRefs[0].name"]),
        ],
    );
}

#[test]
fn authentications() {
    let account = || json!({"kind": "ServiceAccount", "name": "web", "namespace": "other"});
    let namespace = || json!({"kind": "Namespace", "name": "other"});
    right(
        Kind::MeshTlsAuthentication,
        vec![
            json!({"identities": ["*"]}),
            json!({"identities": ["web.ns.serviceaccount.identity.linkerd.cluster.local", "spiffe://td/web"]}),
            json!({"identityRefs": [account(), namespace()]}),
        ],
    );
    all_wrong(
        Kind::MeshTlsAuthentication,
        vec![
            (json!({}), &["spec"]),
            (json!({"identities": []}), &["spec"]),
            (json!({"identities": ["*"], "identityRefs": [account()]}), &["spec"]),
            (json!({"identities": ["a b"]}), &["spec.identities[0]"]),
            (json!({"identities": ["*."]}), &["spec.identities[0]"]),
            (json!({"identities": ["a.*"]}), &["spec.identities[0]"]),
            (json!({"identities": ["spiffe://"]}), &["spec.identities[0]"]),
            (
                json!({"identityRefs": [{"kind": "Namespace", "name": "a", "namespace": "b"}]}),
                &["spec.identityRefs[0].namespace"],
            ),
            (json!({"identityRefs": [{"kind": "Namespace"}]}), &["spec.identityRefs[0].name"]),
            (json!({"identityRefs": [{"kind": "Pod", "name": "a"}]}), &["spec.identityRefs[0].kind"]),
        ],
    );
    right(
        Kind::NetworkAuthentication,
        vec![json!({"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0", "except": ["fd00::1"]}]})],
    );
    all_wrong(
        Kind::NetworkAuthentication,
        vec![
            (json!({}), &["spec.networks"]),
            (json!({"networks": []}), &["spec.networks"]),
            (json!({"networks": [{"cidr": "10.0.0.0/8"}, {"cidr": "10"}]}), &["spec.networks[1].cidr"]),
            (json!({"networks": [{"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}]}), &["spec.networks[0].except[0]"]),
        ],
    );
}

#[test]
fn every_kind_is_read_as_itself_alone() {
    let spec = json!({"podSelector": {}, "port": 80});
    let server = read(Kind::Server, object(Kind::Server, spec.clone())).unwrap();
    assert_eq!(server.key().to_string(), "Server ns/a");
    assert!(read(Kind::Pod, object(Kind::Server, spec)).is_err());
    let line = crate::source::encode(&crate::Event::Apply(server.clone()));
    assert_eq!(serde_json::from_str::<crate::Event>(&line).unwrap(), crate::Event::Apply(server));
}

#[test]
fn rate_limits() {
    let of = |more: Value| {
        let mut spec = json!({"targetRef": {"group": GROUP, "kind": "Server", "name": "web"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let rate = |n: i64| json!({"requestsPerSecond": n});
    let account = json!({"kind": "ServiceAccount", "name": "web"});
    let overridden = |n: i64, refs: Value| json!([{"requestsPerSecond": n, "clientRefs": refs}]);
    right(
        Kind::HttpLocalRateLimitPolicy,
        vec![
            of(json!({"total": rate(100)})),
            of(json!({"identity": rate(u32::MAX.into())})),
            of(json!({"total": rate(100), "identity": rate(100), "overrides": overridden(100, json!([account]))})),
            of(
                json!({"overrides": overridden(1, json!([{"group": "core", "kind": "ServiceAccount", "name": "a", "namespace": "b"}]))}),
            ),
        ],
    );
    all_wrong(
        Kind::HttpLocalRateLimitPolicy,
        vec![
            (of(json!({})), &["spec"]),
            (of(json!({"overrides": []})), &["spec"]),
            (of(json!({"total": rate(0)})), &["spec.total.requestsPerSecond"]),
            (of(json!({"total": rate(-1)})), &["spec.total.requestsPerSecond"]),
            (of(json!({"total": rate(1 << 32)})), &["spec.total.requestsPerSecond"]),
            (of(json!({"total": rate(1), "identity": rate(2)})), &["spec.identity.requestsPerSecond"]),
            (
                of(json!({"total": rate(1), "overrides": overridden(2, json!([account]))})),
                &["spec.overrides[0].requestsPerSecond"],
            ),
            (of(json!({"overrides": overridden(1, json!([]))})), &["spec.overrides[0].clientRefs"]),
            (
                of(json!({"overrides": overridden(1, json!([{"kind": "Namespace", "name": "a"}]))})),
                &["spec.overrides[0].clientRefs[0].kind"],
            ),
            (
                of(json!({"overrides": overridden(1, json!([{"kind": "ServiceAccount"}]))})),
                &["spec.overrides[0].clientRefs[0].name"],
            ),
            (of(json!({"total": rate(1), "targetRef": {"kind": "Service", "name": "a"}})), &["spec.targetRef.kind"]),
            (of(json!({"total": rate(1), "targetRef": {"group": GROUP, "kind": "Server"}})), &["spec.targetRef.name"]),
            (of(json!({"total": {}})), &["spec.total.requestsPerSecond"]),
        ],
    );
}
