//! Servers and who may call them (control plane 6.4): a table for each row.

use super::{slices::kubernetes, *};
use crate::{Kind, policy};
use weft_model::policy::inbound::Authorization;

/// An object of the mesh's own kinds in the namespace `ns`.
pub(super) fn object(kind: Kind, name: &str, spec: Value, patch: Value) -> Object {
    let mut value = json!({"kind": kind.as_str(), "metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    merge(&mut value, patch);
    policy::read(kind, value).unwrap()
}

pub(super) fn server(name: &str, port: Value, patch: Value) -> Object {
    object(Kind::Server, name, json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": port}), patch)
}

fn created(day: u8) -> Value {
    json!({"metadata": {"creationTimestamp": format!("2026-01-{day:02}T00:00:00Z")}})
}

fn saz(name: &str, server: Value, client: Value) -> Object {
    object(Kind::ServerAuthorization, name, json!({"server": server, "client": client}), json!({}))
}

pub(super) fn policy_of(name: &str, target: Value, refs: Value) -> Object {
    let spec = json!({"targetRef": target, "requiredAuthenticationRefs": refs});
    object(Kind::AuthorizationPolicy, name, spec, json!({}))
}

fn of_server(name: &str) -> Value {
    json!({"group": "policy.linkerd.io", "kind": "Server", "name": name})
}

fn authn(kind: &str, name: &str) -> Value {
    json!({"group": "policy.linkerd.io", "kind": kind, "name": name})
}

pub(super) fn web(objects: Vec<Object>) -> Index {
    let mut all = vec![pod("a", "10.1.0.1", json!({}))];
    all.extend(objects);
    kubernetes(all)
}

/// One that is broken: it lets in whom nobody knows.
pub(super) fn broken(name: &str) -> Object {
    Object::Server(typed(json!({
        "metadata": {"name": name, "namespace": "ns"}, "spec": {"podSelector": {}, "port": 8080, "accessPolicy": "x"},
    })))
}

fn names(authorizations: &[Authorization]) -> Vec<String> {
    authorizations.iter().map(|a| format!("{}/{}", a.meta.kind(), a.meta.name())).collect()
}

#[test]
fn the_oldest_server_of_a_port_counts() {
    let of = |objects: Vec<Object>, port: u16| inbound(&web(objects), "a", port).unwrap().meta.name().to_owned();
    let default = "all-unauthenticated";
    assert_eq!(of(vec![server("s", json!(8080), json!({}))], 8080), "s");
    assert_eq!(of(vec![server("s", json!(8080), json!({}))], 8081), default);
    assert_eq!(of(vec![server("s", json!("http"), json!({}))], 8080), "s", "by the name of a container's port");
    assert_eq!(of(vec![server("s", json!("sql"), json!({}))], 8080), default);
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    assert_eq!(of(vec![server("s", json!(8080), elsewhere)], 8080), default, "of another namespace");
    let of_others = json!({"spec": {"podSelector": {"matchLabels": {"app": "api"}}}});
    assert_eq!(of(vec![server("s", json!(8080), of_others)], 8080), default);
    let two = |a: Value, b: Value| vec![server("a", json!(8080), a), server("b", json!("http"), b)];
    assert_eq!(of(two(json!({}), json!({})), 8080), "a", "by name");
    assert_eq!(of(two(created(2), created(1)), 8080), "b", "by age");
    assert_eq!(of(two(created(1), created(1)), 8080), "a");
    assert_eq!(of(two(json!({}), created(1)), 8080), "b", "what has no age is the youngest");
    // Objects on disk have no age, whatever is written in them.
    let on_disk = index([vec![pod("a", "10.1.0.1", json!({}))], two(created(2), created(1))].concat());
    assert_eq!(inbound(&on_disk, "a", 8080).unwrap().meta.name(), "a");
}

#[test]
fn a_server_says_what_its_port_speaks_and_nobody_may_call_it() {
    let of = |protocol: &str, port: u16| {
        let patch = json!({"spec": {"proxyProtocol": protocol, "port": port}});
        inbound(&web(vec![server("s", json!(1), patch)]), "a", port).unwrap()
    };
    for (protocol, routes) in [("unknown", 2), ("HTTP/1", 2), ("HTTP/2", 2)] {
        let policy = of(protocol, 8080);
        let found = match (&policy.protocol, protocol) {
            (ServerProtocol::Detect { routes, .. }, "unknown")
            | (ServerProtocol::Http1 { routes, .. }, "HTTP/1")
            | (ServerProtocol::Http2 { routes, .. }, "HTTP/2") => routes,
            other => panic!("{other:?}"),
        };
        assert_eq!(found.len(), routes, "{protocol}: the default and the pod's probe");
        assert_eq!(policy.authorizations, [], "{protocol}");
    }
    let ServerProtocol::Grpc { routes } = of("gRPC", 8080).protocol else { panic!() };
    assert_eq!((routes.len(), routes[0].meta.name()), (1, "default"));
    assert_eq!(of("opaque", 8080).protocol, ServerProtocol::Opaque);
    assert_eq!(of("TLS", 8080).protocol, ServerProtocol::Tls);
    // The annotation does not count beside a Server.
    assert!(matches!(of("unknown", 5432).protocol, ServerProtocol::Detect { .. }));
    let meta = of("TLS", 8080).meta;
    assert_eq!((meta.group(), meta.kind(), meta.name()), ("policy.linkerd.io", "server", "s"));
    for access in DefaultPolicy::ALL {
        let patch = json!({"spec": {"accessPolicy": access.as_str()}});
        let policy = inbound(&web(vec![server("s", json!(8080), patch)]), "a", 8080).unwrap();
        assert_eq!(policy.authorizations, access.authorizations(&Settings::default().cluster_networks));
    }
}

#[test]
fn server_authorizations_name_servers_and_clients() {
    let authorizations = |grant: Object| {
        let labelled = json!({"metadata": {"labels": {"tier": "front"}}});
        inbound(&web(vec![server("s", json!(8080), labelled), grant]), "a", 8080).unwrap().authorizations
    };
    let anybody = || json!({"unauthenticated": true});
    let by = |server: Value| authorizations(saz("z", server, anybody())).len();
    assert_eq!((by(json!({"name": "s"})), by(json!({"name": "t"}))), (1, 0));
    assert_eq!(by(json!({"selector": {}})), 1);
    let tier = |tier: &str| json!({"selector": {"matchLabels": {"tier": tier}}});
    assert_eq!((by(tier("front")), by(tier("back"))), (1, 0));

    let client = |client: Value| authorizations(saz("z", json!({"name": "s"}), client)).remove(0);
    let found = client(anybody());
    assert_eq!(found.networks.len(), Settings::default().cluster_networks.len(), "the cluster's");
    assert_eq!(names(&[found]), ["serverauthorization/z"]);
    let found =
        client(json!({"unauthenticated": true, "networks": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.1"]}]}));
    assert_eq!(format!("{:?}", found.networks), "[NetworkMatch { net: 192.0.2.0/24, except: [192.0.2.1/32] }]");
    assert_eq!(
        client(json!({"meshTLS": {"unauthenticatedTLS": true}})).authentication,
        Authentication::TlsUnauthenticated
    );
    let accounts = json!([{"name": "web"}, {"name": "api", "namespace": "other"}]);
    let found = client(json!({"meshTLS": {"identities": ["*.Example.org", "a.b"], "serviceAccounts": accounts}}));
    insta::assert_debug_snapshot!(found.authentication);
}

#[test]
fn authorization_policies_grant_when_all_that_they_require_is_there() {
    let granted = |objects: Vec<Object>| {
        let mut all = vec![server("s", json!(8080), json!({}))];
        all.extend(objects);
        names(&inbound(&web(all), "a", 8080).unwrap().authorizations)
    };
    let grant = |target: Value, refs: Value| policy_of("p", target, refs);
    let one = ["authorizationpolicy/p".to_owned()];
    assert_eq!(granted(vec![grant(of_server("s"), json!([]))]), one);
    assert_eq!(granted(vec![grant(of_server("t"), json!([]))]), Vec::<String>::new());
    assert_eq!(granted(vec![grant(json!({"kind": "Namespace", "name": "ns"}), json!([]))]), one);
    let identities = |namespace: &str| {
        let elsewhere = json!({"metadata": {"namespace": namespace}});
        object(Kind::MeshTlsAuthentication, "m", json!({"identities": ["*"]}), elsewhere)
    };
    let network = || object(Kind::NetworkAuthentication, "n", json!({"networks": [{"cidr": "10.0.0.0/8"}]}), json!({}));
    let both =
        || grant(of_server("s"), json!([authn("MeshTLSAuthentication", "m"), authn("NetworkAuthentication", "n")]));
    assert_eq!(granted(vec![both(), identities("ns"), network()]), one);
    assert_eq!(granted(vec![both(), identities("ns")]), Vec::<String>::new(), "half of it lets nobody in");
    assert_eq!(granted(vec![both(), identities("other"), network()]), Vec::<String>::new());
    let mut elsewhere = authn("MeshTLSAuthentication", "m");
    elsewhere["namespace"] = json!("other");
    assert_eq!(granted(vec![grant(of_server("s"), json!([elsewhere])), identities("other")]), one);
    assert_eq!(granted(vec![grant(of_server("s"), json!([{"kind": "ServiceAccount", "name": "x"}]))]), one);

    let refs = json!({"identityRefs": [
        {"kind": "ServiceAccount", "name": "web"}, {"kind": "ServiceAccount", "name": "web", "namespace": "other"},
        {"kind": "Namespace", "name": "third"}]});
    let of_refs = object(Kind::MeshTlsAuthentication, "m", refs, json!({}));
    let index = web(vec![
        server("s", json!(8080), json!({})),
        grant(of_server("s"), json!([authn("MeshTLSAuthentication", "m")])),
        of_refs,
    ]);
    insta::assert_debug_snapshot!(inbound(&index, "a", 8080).unwrap().authorizations);
}

#[test]
fn what_another_namespace_grants_counts_there_alone() {
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    let policy = json!({"targetRef": of_server("s"), "requiredAuthenticationRefs": []});
    let of_all = json!({"targetRef": {"kind": "Namespace", "name": "other"}, "requiredAuthenticationRefs": []});
    let authorization = json!({"server": {"selector": {}}, "client": {"unauthenticated": true}});
    let index = web(vec![
        server("s", json!(8080), json!({})),
        object(Kind::AuthorizationPolicy, "p", policy, elsewhere.clone()),
        object(Kind::AuthorizationPolicy, "q", of_all, elsewhere.clone()),
        object(Kind::ServerAuthorization, "z", authorization, elsewhere),
    ]);
    assert_eq!(inbound(&index, "a", 8080).unwrap().authorizations, []);
}

#[test]
fn a_cluster_without_networks_lets_nobody_in_from_them() {
    let mut index = Index::new(Settings { cluster_networks: vec![], ..Settings::default() });
    let open = json!({"spec": {"accessPolicy": "cluster-unauthenticated"}});
    for object in [
        pod("a", "10.1.0.1", json!({})),
        server("s", json!(8080), open),
        saz("z", json!({"name": "s"}), json!({"unauthenticated": true})),
    ] {
        index.apply(Event::Apply(object));
    }
    let policy = inbound(&index, "a", 8080).unwrap();
    assert_eq!((policy.meta.name(), policy.authorizations), ("s", vec![]));
}

#[test]
fn authorizations_stand_in_one_order() {
    let patch = json!({"spec": {"accessPolicy": "audit"}});
    let index = web(vec![
        policy_of("a", of_server("s"), json!([])),
        saz("z", json!({"name": "s"}), json!({"unauthenticated": true})),
        saz("b", json!({"name": "s"}), json!({"unauthenticated": true})),
        server("s", json!(8080), patch),
    ]);
    let found = names(&inbound(&index, "a", 8080).unwrap().authorizations);
    assert_eq!(found, ["serverauthorization/b", "serverauthorization/z", "authorizationpolicy/a", "default/audit"]);
}

#[test]
fn what_cannot_be_carried_out_counts_as_not_there() {
    let mut index = web(vec![server("s", json!(8080), json!({}))]);
    assert_eq!(inbound(&index, "a", 8080).unwrap().meta.name(), "s");
    index.apply(Event::Apply(broken("s")));
    assert_eq!(inbound(&index, "a", 8080).unwrap().meta.name(), "all-unauthenticated", "nor does what it said before");
}
