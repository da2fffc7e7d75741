//! By which addresses a pod is reached, and what is in vain there.

use super::*;
use std::collections::BTreeSet;

fn web(name: &str, ips: &[&str]) -> Object {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips});
    pod(name, "", &json!({"/status": status}))
}

fn service(name: &str, ips: &[&str]) -> Object {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    let spec = json!({"clusterIP": ips[0], "clusterIPs": ips, "selector": {"app": "web"}, "ports": ports});
    let service = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    Object::Service(Box::new(serde_json::from_value(service).unwrap()))
}

fn networks(name: &str, networks: &[&str]) -> [Object; 2] {
    let networks: Vec<Value> = networks.iter().map(|cidr| json!({"cidr": cidr})).collect();
    let group = "policy.linkerd.io";
    [
        object(crate::Kind::NetworkAuthentication, name, &json!({"networks": networks})),
        object(
            crate::Kind::AuthorizationPolicy,
            name,
            &json!({"targetRef": {"group": group, "kind": "Server", "name": "web"},
                "requiredAuthenticationRefs": [{"group": group, "kind": "NetworkAuthentication", "name": name}]}),
        ),
    ]
}

/// A policy of one family says nothing to who comes by the other.
#[test]
fn who_is_called_is_called_from_an_address_of_the_family_by_which_it_is_reached() {
    let both = ["10.0.0.1", "fd00::1"];
    let caller = pod(
        "bot-0",
        "",
        &json!({"/metadata/labels": {"app": "bot", "linkerd.io/control-plane-ns": "linkerd"},
            "/status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]}}),
    );
    let index = |ipv6: bool, of: Vec<Object>| {
        let server = json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": "http"});
        let mut objects = vec![
            caller.clone(),
            object(crate::Kind::Server, "web", &server),
            service("v4", &["10.96.0.1"]),
            service("v6", &["fd01::1"]),
            service("both", &["10.96.0.2", "fd01::2"]),
        ];
        objects.extend(networks("some", &["10.0.0.0/8"]));
        objects.extend(of);
        of_objects(objects, Settings { platform: Platform::Kubernetes, ipv6, ..Settings::default() })
    };
    let dual = index(true, vec![web("web-0", &both)]);
    for (index, target, verdict) in [
        (&dual, "po/web-0:8080", Verdict::Unknown),
        (&dual, "10.0.0.1:8080", Verdict::Allowed),
        (&dual, "[fd00::1]:8080", Verdict::Denied),
        (&dual, "svc/v4:80", Verdict::Allowed),
        (&dual, "svc/v6:80", Verdict::Denied),
        // Of two, the proxies take IPv6.
        (&dual, "svc/both:80", Verdict::Denied),
        (&index(true, vec![web("web-0", &["10.0.0.1"])]), "po/web-0:8080", Verdict::Allowed),
        (&index(true, vec![web("web-0", &["10.0.0.1"])]), "svc/both:80", Verdict::Allowed),
        (&index(true, vec![web("web-0", &["fd00::1"])]), "po/web-0:8080", Verdict::Denied),
    ] {
        let told = asks(index, "po/bot-0", target, "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{target}: {told}");
        // Only a part of the cluster's networks is let in.
        let anywhere = asks(index, "sa/web", target, "GET /", None).unwrap().verdict;
        let expected = if verdict == Verdict::Denied { Verdict::Denied } else { Verdict::Unknown };
        assert_eq!(anywhere, expected, "{target}");
    }
    let told = asks(&dual, "10.0.0.9", "[fd00::1]:8080", "GET /", None).unwrap();
    let why = told.answers[0].why.as_deref();
    assert_eq!(
        (told.verdict, why),
        (Verdict::Unknown, Some("the client has no address of the family by which the pod is reached"))
    );
}

/// Nobody is told of whom the Service does not lead to.
#[test]
fn who_has_no_address_of_the_family_is_not_behind_the_service() {
    let index = |ipv6: bool, ips: &[&[&str]]| {
        let mut objects = vec![
            service("v4", &["10.96.0.1"]),
            service("v6", &["fd01::1"]),
            service("both", &["10.96.0.2", "fd01::2"]),
            service("named", &["None"]),
            object(crate::Kind::Server, "web", &json!({"podSelector": {}, "port": "http"})),
            pod("plain", "10.0.0.9", &json!({"/metadata/labels": {"app": "plain"}})),
        ];
        if let Some(Object::Service(named)) = objects.get_mut(3) {
            named.spec.as_mut().unwrap().ip_families = Some(vec!["IPv6".to_owned()]);
        }
        objects.extend(ips.iter().enumerate().map(|(i, ips)| web(&format!("web-{i}"), ips)));
        of_objects(objects, Settings { platform: Platform::Kubernetes, ipv6, ..Settings::default() })
    };
    let all: [&[&str]; 3] = [&["10.0.0.1"], &["fd00::1"], &["10.0.0.2", "fd00::2"]];
    let (every, on_v4, on_v6) = (
        &["shop/web-0", "shop/web-1", "shop/web-2"][..],
        &["shop/web-0", "shop/web-2"][..],
        &["shop/web-1", "shop/web-2"][..],
    );
    // By the client's proxy, and, without one, by the node.
    for (target, balanced, by_node) in [
        ("svc/v4:80", on_v4, on_v4),
        ("svc/v6:80", on_v6, on_v6),
        ("svc/both:80", every, every),
        ("svc/named:80", on_v6, on_v6),
        ("10.96.0.2:80", every, on_v4),
        ("[fd01::2]:80", every, on_v6),
    ] {
        for (client, pods) in [("sa/web", balanced), ("po/plain", by_node)] {
            let told = asks(&index(true, &all), client, target, "GET /", None).unwrap();
            let found: BTreeSet<&str> =
                told.answers.iter().flat_map(|answer| answer.pods.iter().map(String::as_str)).collect();
            assert_eq!(found.into_iter().collect::<Vec<_>>(), pods, "{client} {target}: {told}");
        }
    }
    let refused = asks(&index(true, &all[1..2]), "po/plain", "svc/v4:80", "GET /", None).unwrap_err();
    assert!(refused.message.contains("svc/v4 in the namespace shop has an address of the family"), "{refused}");
    // Proxies are told of none.
    let refused = asks(&index(false, &all[1..2]), "sa/web", "svc/both:80", "GET /", None).unwrap_err();
    assert!(refused.remedy.contains("disableIPv6"), "{refused}");
}

/// They have their node's address, and are others all the same.
#[test]
fn who_shares_an_address_is_not_taken_for_the_one_that_is_called() {
    let host = |name: &str| {
        let Object::Pod(mut pod) = web(name, &["10.0.0.100"]) else { unreachable!() };
        pod.spec.as_mut().unwrap().host_network = Some(true);
        Object::Pod(pod)
    };
    let server = object(crate::Kind::Server, "web", &json!({"podSelector": {}, "port": "http"}));
    let index = of_cluster(vec![host("host-0"), host("host-1"), service("web", &["10.96.0.1"]), server]);
    for (client, target, allowed) in [
        ("po/host-0", "po/host-1:8080", &[][..]),
        ("po/host-0", "po/host-0:8080", &["shop/host-0"]),
        ("po/host-0", "svc/web:80", &["shop/host-0"]),
        // Whoever of the node's it is.
        ("10.0.0.100", "po/host-1:8080", &[]),
    ] {
        let told = asks(&index, client, target, "GET /", None).unwrap();
        let of = told.answers.iter().filter(|answer| answer.verdict == Verdict::Allowed);
        let pods: Vec<&str> = of.flat_map(|answer| answer.pods.iter().map(String::as_str)).collect();
        assert_eq!(pods, allowed, "{client} {target}: {told}");
        let expected = if target == "po/host-0:8080" { Verdict::Allowed } else { Verdict::Denied };
        assert_eq!(told.verdict, expected, "{client} {target}: {told}");
    }
}

/// The kernel brings a pod to its own address without a proxy's seeing it.
#[test]
fn a_pod_comes_to_itself_past_its_proxy() {
    let server = json!({"podSelector": {}, "port": "http"});
    let Object::Pod(mut skips) = web("skips", &["10.0.0.3"]) else { unreachable!() };
    let skipped = ("config.linkerd.io/skip-outbound-ports".to_owned(), "80".to_owned());
    skips.metadata.annotations.get_or_insert_default().extend([skipped]);
    let objects = vec![
        web("web-0", &["10.0.0.1"]),
        web("web-1", &["10.0.0.2"]),
        Object::Pod(skips),
        service("web", &["10.96.0.1"]),
        object(crate::Kind::Server, "web", &server),
    ];
    let index = of_cluster(objects);
    for (client, target, own, other) in [
        ("po/web-0", "svc/web:80", &["shop/web-0"][..], &["shop/skips", "shop/web-1"][..]),
        ("po/web-0", "po/web-0:8080", &["shop/web-0"], &[]),
        ("10.0.0.1", "10.0.0.1:8080", &["shop/web-0"], &[]),
        ("po/web-0", "po/web-1:8080", &[], &["shop/web-1"]),
        // Past its proxy to a Service, it comes back from the node.
        ("po/skips", "svc/web:80", &[], &["shop/skips", "shop/web-0", "shop/web-1"]),
        ("sa/web", "po/web-1:8080", &[], &["shop/web-1"]),
    ] {
        let told = asks(&index, client, target, "GET /", None).unwrap();
        let pods = |wanted: Verdict| {
            let of = told.answers.iter().filter(|answer| answer.verdict == wanted);
            of.flat_map(|answer| answer.pods.iter().map(String::as_str)).collect::<Vec<_>>()
        };
        assert_eq!(
            (pods(Verdict::Allowed).as_slice(), pods(Verdict::Denied).as_slice()),
            (own, other),
            "{client} {target}: {told}"
        );
    }
}

/// A policy that would let in somebody, were there what it names.
#[test]
fn what_is_in_vain_is_told_with_what_is_missing() {
    let [authentication, policy] = networks("some", &["10.0.0.0/8"]);
    let server = object(crate::Kind::Server, "web", &json!({"podSelector": {}, "port": "http"}));
    let namespaced = object(
        crate::Kind::AuthorizationPolicy,
        "all",
        &json!({"targetRef": {"kind": "Namespace", "name": "shop"},
            "requiredAuthenticationRefs": [{"group": "policy.linkerd.io", "kind": "MeshTLSAuthentication", "name": "gone", "namespace": "other"}]}),
    );
    let all = [web("web-0", &["10.0.0.1"]), server, policy, namespaced, authentication];
    let whys = |count: usize| {
        let index = of_cluster(all[..count].to_vec());
        let told = asks(&index, "192.0.2.1", "po/web-0:8080", "GET /", None).unwrap();
        assert_eq!(told.verdict, Verdict::Denied);
        let in_vain: Vec<String> = index.in_vain().map(|((_, name), absent)| format!("{name}: {absent}")).collect();
        (told.answers[0].why.clone().unwrap_or_default(), in_vain)
    };
    let some = "AuthorizationPolicy/some lets nobody in: NetworkAuthentication shop/some, which it requires, is not there or is quarantined";
    let every = "AuthorizationPolicy/all lets nobody in: MeshTLSAuthentication other/gone, which it requires, is not there or is quarantined";
    let (of_some, of_all) =
        ("some: NetworkAuthentication shop/some".to_owned(), "all: MeshTLSAuthentication other/gone".to_owned());
    assert_eq!(whys(2), ("nothing lets anybody in there".to_owned(), vec![]));
    assert_eq!(whys(3), (some.to_owned(), vec![of_some.clone()]));
    assert_eq!(whys(4), (format!("{every}; {some}"), vec![of_all.clone(), of_some]));
    assert_eq!(whys(5), (every.to_owned(), vec![of_all]));
    // What it is said to be for is not there.
    let index = of_cluster(networks("some", &["10.0.0.0/8"]).to_vec());
    let in_vain: Vec<String> = index.in_vain().map(|(_, absent)| absent.to_string()).collect();
    assert_eq!(in_vain, ["Server shop/web"]);
}
