//! By which addresses a pod is reached, and what is in vain there.

use super::*;

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
