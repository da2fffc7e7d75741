//! What an API server says more than manifests: EndpointSlices, zones, nodes, other ports of proxies (control plane 6.2 to 6.4).

use super::*;

pub(super) fn kubernetes(objects: Vec<Object>) -> Index {
    let mut index = Index::new(Settings { platform: Platform::Kubernetes, ..Settings::default() });
    objects.into_iter().for_each(|o| drop(index.apply(Event::Apply(o))));
    index
}

/// A slice of Service `web` with one endpoint per pod.
pub(super) fn slice(name: &str, pods: &[(&str, &str)], patch: Value) -> Object {
    let endpoint = |(pod, ip): &(&str, &str)| {
        json!({"addresses": [ip], "conditions": {"ready": true, "serving": true, "terminating": false}, "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": pod}})
    };
    let mut value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "db", "port": 5432}, {"name": "api", "port": 8081}],
        "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
    });
    merge(&mut value, patch);
    Object::EndpointSlice(typed(value))
}

/// The one endpoint of a slice, changed.
fn one(patch: Value) -> Object {
    let mut endpoint = json!({"addresses": ["10.1.0.1"], "targetRef": {"kind": "Pod", "namespace": "ns", "name": "a"}});
    merge(&mut endpoint, patch);
    slice("web-1", &[], json!({"endpoints": [endpoint]}))
}

fn seen(index: &Index, node: &str) -> Vec<String> {
    match index.answer(&Question::Destination(name(WEB))).answer.unwrap() {
        Answer::Destination(set) => set.seen_from(&index.place(node)).keys().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

pub(super) fn node(name: &str, zone: &str) -> Object {
    let labels = json!({"topology.kubernetes.io/zone": zone});
    Object::Node(typed(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})))
}

#[test]
fn slices_say_what_is_behind_a_service() {
    let index = kubernetes(vec![
        service("web", json!({})),
        pod("a", "10.1.0.1", json!({"status": {"conditions": []}})),
        pod("selected-only", "10.1.0.2", json!({})),
        slice("web-1", &[("a", "10.1.0.1")], json!({})),
        slice(
            "other",
            &[("selected-only", "10.1.0.2")],
            json!({"metadata": {"labels": {"kubernetes.io/service-name": "other"}}}),
        ),
        slice("far", &[("a", "10.1.0.1")], json!({"metadata": {"namespace": "far"}})),
        slice("fqdn", &[("a", "a.example")], json!({"addressType": "FQDN"})),
    ]);
    let endpoints = destination(&index, WEB).unwrap();
    assert_eq!(addrs(&endpoints), ["10.1.0.1:8080"], "the slice is ready, whatever the pod's own condition is");
    assert!(endpoints[0].tls.is_some());
    assert_eq!(endpoints[0].labels["zone_locality"], "unknown");
    // Ports by the Service's name for them; what the Service does not declare is used as it is.
    for (port, found) in
        [(5432, vec!["10.1.0.1:5432"]), (81, vec!["10.1.0.1:8081"]), (82, vec![]), (99, vec!["10.1.0.1:99"])]
    {
        assert_eq!(addrs(&destination(&index, &format!("web.ns.svc.cluster.local:{port}")).unwrap()), found, "{port}");
    }
}

#[test]
fn an_endpoint_counts_while_its_pod_has_the_address() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let with = |slice: Object, pods: Vec<Object>| {
        let index = kubernetes([vec![service("web", json!({})), slice], pods].concat());
        destination(&index, WEB).unwrap().into_iter().map(|e| (e.addr.to_string(), e.tls.is_some())).collect::<Vec<_>>()
    };
    let a = || vec![pod("a", "10.1.0.1", json!({}))];
    let meshed = vec![("10.1.0.1:8080".to_owned(), true)];
    assert_eq!(with(one(json!({})), a()), meshed);
    assert_eq!(with(one(json!({})), vec![]), [], "the pod is not known: it would be reached in plaintext");
    assert_eq!(
        with(one(json!({})), vec![pod("a", "10.1.0.2", json!({}))]),
        [],
        "the pod of that name has another address"
    );
    assert_eq!(with(one(json!({})), vec![pod("a", "10.1.0.1", going)]), [], "it is about to go");
    assert_eq!(with(one(json!({"conditions": {"ready": false, "serving": true}})), a()), []);
    assert_eq!(with(one(json!({"conditions": {}})), a()), meshed, "what is not said counts as ready");
    // Without a pod there is no identity: an external server.
    let external = vec![("10.1.0.1:8080".to_owned(), false)];
    assert_eq!(with(one(json!({"targetRef": null})), a()), external);
    assert_eq!(with(one(json!({"targetRef": {"kind": "Node", "name": "n"}})), a()), external);
    // A pod of the host is reached at the host's address, and has no proxy.
    let host = json!({"metadata": {"labels": {"linkerd.io/control-plane-ns": ""}}, "spec": {"hostNetwork": true}});
    assert_eq!(with(one(json!({})), vec![pod("a", "10.1.0.1", host)]), external);
}

#[test]
fn instances_and_families_of_slices() {
    let both = json!({"status": {"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
    let v6 = slice("v6", &[("a", "fd00::1")], json!({"addressType": "IPv6"}));
    let objects = vec![
        service("web", json!({"spec": {"clusterIP": "None"}})),
        pod("a", "10.1.0.1", both),
        pod("b", "10.1.0.2", json!({})),
        slice("v4", &[("a", "10.1.0.1"), ("b", "10.1.0.2")], json!({})),
        v6,
    ];
    assert_eq!(addrs(&destination(&kubernetes(objects.clone()), WEB).unwrap()), ["10.1.0.2:8080", "[fd00::1]:8080"]);
    let mut v4_only = Index::new(Settings { platform: Platform::Kubernetes, ipv6: false, ..Settings::default() });
    objects.into_iter().for_each(|o| drop(v4_only.apply(Event::Apply(o))));
    assert_eq!(addrs(&destination(&v4_only, WEB).unwrap()), ["10.1.0.1:8080", "10.1.0.2:8080"]);

    let named = kubernetes(vec![
        service("web", json!({"spec": {"clusterIP": "None"}})),
        pod("a", "10.1.0.1", json!({"spec": {"hostname": "web-0", "subdomain": "web"}})),
        one(json!({"hostname": "web-0"})),
    ]);
    assert_eq!(addrs(&destination(&named, "web-0.web.ns.svc.cluster.local:80").unwrap()), ["10.1.0.1:8080"]);
    assert_eq!(destination(&named, "web-1.web.ns.svc.cluster.local:80").unwrap(), []);
    assert!(profile(&named, "web-0.web.ns.svc.cluster.local:8080").unwrap().endpoint.is_some());
}

#[test]
fn hints_and_local_policies_depend_on_the_clients_place() {
    let hinted = |first: Value, second: Value, policy: &str| {
        let endpoint = |pod: &str, ip: &str, node: &str, zone: &str, hints: Value| {
            json!({"addresses": [ip], "nodeName": node, "zone": zone, "hints": hints,
                "targetRef": {"kind": "Pod", "namespace": "ns", "name": pod}})
        };
        let endpoints =
            [endpoint("a", "10.1.0.1", "n1", "east", first), endpoint("b", "10.1.0.2", "n2", "west", second)];
        kubernetes(vec![
            service("web", json!({"spec": {"internalTrafficPolicy": policy}})),
            pod("a", "10.1.0.1", json!({})),
            pod("b", "10.1.0.2", json!({})),
            slice("web-1", &[], json!({"endpoints": endpoints})),
            node("n1", "east"),
            node("n2", "west"),
            node("n3", "north"),
        ])
    };
    let zones = |zone: &str| json!({"forZones": [{"name": zone}]});
    let (a, b) = ("10.1.0.1:8080", "10.1.0.2:8080");
    let index = hinted(zones("east"), zones("west"), "Cluster");
    assert_eq!(seen(&index, "n1"), [a]);
    assert_eq!(seen(&index, "n2"), [b]);
    for unknown in ["n3", "n4", ""] {
        assert_eq!(seen(&index, unknown), [a, b], "no endpoint is meant for {unknown}");
    }
    assert_eq!(seen(&hinted(zones("east"), Value::Null, "Cluster"), "n1"), [a, b], "one has no hint");
    let local = hinted(Value::Null, Value::Null, "Local");
    assert_eq!(seen(&local, "n1"), [a]);
    assert_eq!(seen(&local, "n2"), [b]);
    for elsewhere in ["n3", ""] {
        assert_eq!(seen(&local, elsewhere), Vec::<String>::new());
    }
    let Ok(Answer::Destination(set)) = index.answer(&Question::Destination(name(WEB))).answer else { panic!() };
    let localities = |node: &str| {
        set.seen_from(&index.place(node))
            .values()
            .map(|e| (e.labels["zone"].clone(), e.labels["zone_locality"].clone()))
            .collect::<Vec<_>>()
    };
    let pair = |zone: &str, locality: &str| (zone.to_owned(), locality.to_owned());
    assert_eq!(localities("n1"), [pair("east", "local")]);
    assert_eq!(localities("n3"), [pair("east", "remote"), pair("west", "remote")]);
    assert_eq!(localities(""), [pair("east", "unknown"), pair("west", "unknown")]);
}

#[test]
fn a_zone_has_weight_where_that_is_asked_for() {
    let weights = |zone_weights: bool, at: &str| -> Vec<u32> {
        let mut index = Index::new(Settings { platform: Platform::Kubernetes, zone_weights, ..Settings::default() });
        let endpoint = |pod: &str, ip: &str, zone: &str| json!({"addresses": [ip], "zone": zone, "targetRef": {"kind": "Pod", "namespace": "ns", "name": pod}});
        let endpoints = [endpoint("a", "10.1.0.1", "east"), endpoint("b", "10.1.0.2", "west")];
        let objects = [
            service("web", json!({})),
            pod("a", "10.1.0.1", json!({})),
            pod("b", "10.1.0.2", json!({})),
            slice("web-1", &[], json!({"endpoints": endpoints})),
            node("n1", "east"),
        ];
        objects.into_iter().for_each(|o| drop(index.apply(Event::Apply(o))));
        let Ok(Answer::Destination(set)) = index.answer(&Question::Destination(name(WEB))).answer else { panic!() };
        set.seen_from(&index.place(at)).values().map(|e| e.weight).collect()
    };
    assert_eq!(weights(false, "n1"), [10_000, 10_000]);
    assert_eq!(weights(true, "n1"), [100_000, 10_000]);
    assert_eq!(weights(true, "elsewhere"), [10_000, 10_000]);
}

/// What a mirror's slice says of a gateway.
pub(super) fn of_gateway() -> Value {
    json!({
        "mirror.linkerd.io/remote-svc-fq-name": "web.shop.svc.east.local",
        "mirror.linkerd.io/remote-gateway-identity": "gw.linkerd-multicluster.serviceaccount.identity.linkerd.east.local",
    })
}

#[test]
fn a_gateway_of_another_cluster_is_asked_by_the_name_there() {
    let mirrored = |annotations: Value| {
        let labels = json!({"kubernetes.io/service-name": "web", "mirror.linkerd.io/cluster-name": "east"});
        let endpoint = json!({"addresses": ["192.0.2.1"]});
        let metadata = json!({"labels": labels, "annotations": annotations});
        slice(
            "web-1",
            &[],
            json!({"metadata": metadata, "ports": [{"name": "http", "port": 4143}], "endpoints": [endpoint]}),
        )
    };
    let of = |annotations: Value| {
        let index = kubernetes(vec![service("web", json!({})), mirrored(annotations)]);
        destination(&index, WEB).unwrap()
    };
    let [endpoint] = of(of_gateway()).try_into().unwrap();
    assert_eq!(endpoint.addr.to_string(), "192.0.2.1:4143");
    assert_eq!(endpoint.authority_override.as_deref(), Some("web.shop.svc.east.local:80"));
    assert_eq!((endpoint.hint, endpoint.transport_port), (ProtocolHint::H2, None));
    let proven = endpoint.tls.unwrap().identity.to_string();
    assert_eq!(proven, "gw.linkerd-multicluster.serviceaccount.identity.linkerd.east.local");
    let label = |name: &str| endpoint.labels.get(name).map(String::as_str);
    for (name, is) in [
        ("service", "web"),
        ("namespace", "ns"),
        ("target_cluster", "east"),
        ("target_service", "web"),
        ("target_service_namespace", "shop"),
    ] {
        assert_eq!(label(name), Some(is), "{name}");
    }
    let [unproven] = of(json!({"mirror.linkerd.io/remote-svc-fq-name": "web.shop.svc.east.local"})).try_into().unwrap();
    assert_eq!((unproven.tls, unproven.hint), (None, ProtocolHint::Unknown));
    assert!(unproven.authority_override.is_some());
    // Who says a name that is none is sent nothing, rather than something in plaintext.
    for key in ["mirror.linkerd.io/remote-svc-fq-name", "mirror.linkerd.io/remote-gateway-identity"] {
        assert_eq!(of(json!({key: "no name"})), [], "{key}");
    }
}

#[test]
fn proxies_are_reached_where_they_listen() {
    let env = |name: &str, port: u16| json!({"name": format!("LINKERD2_PROXY_{name}_LISTEN_ADDR"), "value": format!("0.0.0.0:{port}")});
    let proxy =
        json!({"name": "linkerd-proxy", "env": [env("INBOUND", 5143), env("ADMIN", 5191), env("CONTROL", 5190)]});
    for place in ["containers", "initContainers"] {
        let mut patch = json!({"spec": {"containers": [{"name": "web"}]}});
        patch["spec"][place] = json!([proxy]);
        let index = kubernetes(vec![pod("a", "10.1.0.1", patch)]);
        let transport =
            |port: u16| profile(&index, &format!("10.1.0.1:{port}")).unwrap().endpoint.unwrap().transport_port;
        assert_eq!(
            (transport(8080), transport(4191), transport(5191), transport(5190)),
            (Some(5143), Some(5143), None, None)
        );
    }
}

#[test]
fn a_host_port_leads_to_its_pod() {
    let with_port = |port: Value| {
        json!({"spec": {"containers": [{"name": "web", "ports": [port]}]},
            "status": {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00:1::1"}]}})
    };
    let port = |ip: &str| json!({"containerPort": 8080, "hostPort": 80, "hostIP": ip});
    let index = kubernetes(vec![
        pod("a", "10.1.0.1", with_port(port(""))),
        pod("b", "10.1.0.2", with_port(json!({"containerPort": 9000, "hostPort": 90}))),
        pod("c", "10.1.0.3", with_port(json!({"containerPort": 9000, "hostPort": 90}))),
        pod("d", "10.1.0.4", with_port(json!({"containerPort": 9001, "hostPort": 91, "hostIP": "10.0.0.9"}))),
    ]);
    let of = |path: &str| profile(&index, path).unwrap().endpoint.unwrap();
    for at in ["10.0.0.1:80", "[fd00:1::1]:80", "[::ffff:10.0.0.1]:80"] {
        assert_eq!((of(at).addr.to_string(), of(at).tls.is_some()), ("10.1.0.1:8080".to_owned(), true), "{at}");
    }
    assert!(matches!(profile(&index, "10.0.0.1:90"), Err(Refusal::Ambiguous(_))));
    assert_eq!(of("10.0.0.9:91").addr.to_string(), "10.1.0.4:9001");
    // Other ports of the node, a NodePort among them, are the node's: whoever listens there gets what comes.
    for plain in ["10.0.0.1:81", "10.0.0.1:30080", "10.0.0.1:91"] {
        assert_eq!((of(plain).addr.to_string(), of(plain).tls.is_some()), (plain.to_owned(), false));
    }
}

#[test]
fn a_server_says_what_clients_take_a_port_for() {
    let speaks = |protocol: &str, port: u16| {
        let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": port, "proxyProtocol": protocol});
        policies::object(crate::Kind::Server, &format!("s-{port}"), spec, json!({}))
    };
    let with = |more: Vec<Object>| {
        let mut all = vec![
            service("web", json!({})),
            pod("a", "10.1.0.1", json!({})),
            slice("web-1", &[("a", "10.1.0.1")], json!({})),
        ];
        all.extend(more);
        kubernetes(all)
    };
    let of = |index: &Index, port: u16| {
        let profile = profile(index, &format!("10.1.0.1:{port}")).unwrap();
        let hint = profile.endpoint.unwrap().hint;
        assert_eq!(hint == ProtocolHint::Opaque, profile.opaque);
        profile.opaque
    };
    let plain = with(vec![]);
    assert!(!of(&plain, 8080) && of(&plain, 5432));
    let said = with(vec![speaks("opaque", 8080), speaks("HTTP/1", 5432)]);
    assert!(of(&said, 8080) && !of(&said, 5432), "whatever annotations and usual ports say");
    let destination = destination(&said, WEB).unwrap();
    assert_eq!(destination[0].hint, ProtocolHint::Opaque);
    let mut elsewhere = speaks("opaque", 8080);
    elsewhere.metadata_mut().unwrap().namespace = Some("other".to_owned());
    assert!(!of(&with(vec![elsewhere]), 8080));
}

#[test]
fn what_other_clusters_have_is_not_looked_up() {
    let annotation = |key: &str| json!({"metadata": {"annotations": {key: "web@east"}}});
    let label = json!({"metadata": {"labels": {"multicluster.linkerd.io/remote-discovery": "east"}}});
    for patch in [
        annotation("multicluster.linkerd.io/remote-discovery"),
        annotation("multicluster.linkerd.io/local-discovery"),
        label,
    ] {
        let index = kubernetes(vec![service("web", patch.clone()), pod("a", "10.1.0.1", json!({}))]);
        assert!(matches!(destination(&index, WEB), Err(Refusal::NotCarriedOut(_))), "{patch}");
        assert!(profile(&index, "10.96.0.1:80").is_ok() && outbound(&index, "10.96.0.1:80").is_ok());
    }
}

#[test]
fn annotations_hold_where_they_stand() {
    let of_namespace = json!({
        "config.linkerd.io/opaque-ports": "8080", "config.linkerd.io/default-inbound-policy": "deny",
        "config.linkerd.io/skip-inbound-ports": "8080",
    });
    let objects = || vec![namespace(of_namespace.clone()), service("web", json!({})), pod("a", "10.1.0.1", json!({}))];
    let (local, cluster) = (index(objects()), kubernetes(objects()));
    assert_eq!(inbound(&local, "a", 8080).unwrap().meta.name(), "deny");
    assert_eq!(inbound(&cluster, "a", 8080).unwrap().meta.name(), "all-unauthenticated", "the pod was made before");
    assert!(profile(&cluster, "10.1.0.1:8080").unwrap().endpoint.unwrap().tls.is_some(), "its proxy does see the port");
    // The usual opaque ports: for servers by their annotation alone, for clients also without.
    let opaque = |index: &Index, port| matches!(inbound(index, "a", port).unwrap().protocol, ServerProtocol::Opaque);
    assert!(!opaque(&cluster, 5432) && profile(&cluster, "10.1.0.1:5432").unwrap().opaque);
    let annotated =
        kubernetes(vec![pod("a", "10.1.0.1", annotated(json!({"config.linkerd.io/opaque-ports": "5432"})))]);
    assert!(opaque(&annotated, 5432));
}
