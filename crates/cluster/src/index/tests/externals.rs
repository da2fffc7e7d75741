//! ExternalWorkloads: how they are reached, and what their proxies are told (control plane 6.2 to 6.4).

use super::{
    policies::{object, policy_of},
    slices::{kubernetes, slice},
    *,
};
use crate::Kind;
use weft_model::{Identity, policy::route::PathMatch};

/// An ExternalWorkload of the namespace `ns` at these addresses.
pub(super) fn external(name: &str, ips: &[&str], patch: Value) -> Object {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut value = json!({
        "apiVersion": "workload.linkerd.io/v1beta1", "kind": "ExternalWorkload",
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}},
        "spec": {
            "meshTLS": {"identity": format!("spiffe://root.local/{name}"), "serverName": format!("{name}.external.local")},
            "ports": [{"name": "http", "port": 8080}, {"port": 5432, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "workloadIPs": ips,
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut value, patch);
    crate::policy::read(Kind::ExternalWorkload, value).unwrap()
}

/// A slice of Service `web` that names an ExternalWorkload.
fn naming(name: &str, ip: &str, patch: Value) -> Object {
    let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
    let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": true}, "zone": "east",
        "targetRef": {"kind": "ExternalWorkload", "namespace": "ns", "name": name}});
    merge(&mut endpoint, patch);
    slice(&format!("linkerd-external-web-{family}"), &[], json!({"addressType": family, "endpoints": [endpoint]}))
}

fn behind(objects: Vec<Object>, path: &str) -> Vec<Endpoint> {
    let index = kubernetes([vec![service("web", json!({}))], objects].concat());
    destination(&index, path).unwrap()
}

const IP: &str = "192.0.2.1";

#[test]
fn an_external_workload_is_reached_by_what_it_says_that_it_proves() {
    let owner = json!({"metadata": {"ownerReferences": [{"apiVersion": "x/v1", "kind": "MachineSet", "name": "db", "uid": ""}]}});
    let found = behind(vec![external("vm", &[IP], owner), naming("vm", IP, json!({}))], WEB);
    assert_eq!(addrs(&found), ["192.0.2.1:8080"]);
    let Endpoint { tls, hint, transport_port, http2, labels, .. } = &found[0];
    let tls = tls.as_ref().unwrap();
    assert_eq!(tls.identity, "spiffe://root.local/vm".parse::<Identity>().unwrap());
    assert_eq!((tls.server_name.as_str(), *hint), ("vm.external.local", ProtocolHint::H2));
    assert_eq!((*transport_port, http2.keep_alive.is_some()), (Some(4143), true));
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("external_workload", "vm"),
        ("machineset", "db"),
        ("namespace", "ns"),
        ("service", "web"),
        ("zone", "east"),
        ("zone_locality", "unknown"),
    ];
    assert_eq!(labels, expected);
}

#[test]
fn the_hint_is_its_own_and_ports_may_be_opaque() {
    let plain = Settings { platform: Platform::Kubernetes, hint: ProtocolHint::Unknown, ..Settings::default() };
    let hint = |patch: Value, more: Vec<Object>, path: &str| {
        let mut index = Index::new(plain.clone());
        let objects =
            [vec![service("web", json!({})), external("vm", &[IP], patch), naming("vm", IP, json!({}))], more];
        objects.concat().into_iter().for_each(|object| drop(index.apply(Event::Apply(object))));
        destination(&index, path).unwrap()[0].hint
    };
    let (http, db) = (WEB, "web.ns.svc.cluster.local:5432");
    assert_eq!(hint(json!({}), vec![], http), ProtocolHint::H2, "whatever the mesh's is");
    assert_eq!(hint(json!({}), vec![], db), ProtocolHint::Opaque, "a usual opaque port");
    let said = annotated(json!({"config.linkerd.io/opaque-ports": "http"}));
    assert_eq!(hint(said.clone(), vec![], http), ProtocolHint::Opaque);
    assert_eq!(hint(said, vec![], db), ProtocolHint::H2);
    let speaks =
        |of: &str| object(Kind::Server, "s", json!({of: {}, "port": 8080, "proxyProtocol": "opaque"}), json!({}));
    assert_eq!(hint(json!({}), vec![speaks("externalWorkloadSelector")], http), ProtocolHint::Opaque);
    assert_eq!(hint(json!({}), vec![speaks("podSelector")], http), ProtocolHint::H2, "a Server of pods");
    // Nothing is known of how the machine's own ports are redirected.
    let skipped = annotated(json!({"config.linkerd.io/skip-inbound-ports": "8080"}));
    assert_eq!(hint(skipped, vec![], http), ProtocolHint::H2);
}

#[test]
fn its_proxy_is_where_it_says() {
    let ports = json!({"spec": {"ports": [{"name": "http", "port": 8080}, {"name": "linkerd-proxy", "port": 5143}]}});
    let found = behind(vec![external("vm", &[IP], ports), naming("vm", IP, json!({}))], WEB);
    assert_eq!(found[0].transport_port, Some(5143));
}

#[test]
fn an_endpoint_counts_while_its_workload_has_the_address() {
    let found = |objects: Vec<Object>| addrs(&behind(objects, WEB));
    let here = ["192.0.2.1:8080".to_owned()];
    let vm = || external("vm", &[IP], json!({}));
    assert_eq!(found(vec![vm(), naming("vm", IP, json!({}))]), here);
    assert_eq!(found(vec![naming("vm", IP, json!({}))]), [""; 0], "it would be reached in plaintext");
    assert_eq!(found(vec![external("vm", &["192.0.2.2"], json!({})), naming("vm", IP, json!({}))]), [""; 0]);
    assert_eq!(found(vec![vm(), naming("vm", IP, json!({"conditions": {"ready": false}}))]), [""; 0]);
    // Of another namespace, whatever the slice says.
    let elsewhere = json!({"metadata": {"namespace": "other"}});
    let reference = json!({"targetRef": {"kind": "ExternalWorkload", "namespace": "other", "name": "vm"}});
    assert_eq!(found(vec![external("vm", &[IP], elsewhere), naming("vm", IP, reference)]), [""; 0]);
    // A pod of its name is another.
    assert_eq!(found(vec![pod("vm", IP, json!({})), naming("vm", IP, json!({}))]), [""; 0]);
    // One is one endpoint, however many families it has.
    let both = external("vm", &[IP, "2001:db8::1"], json!({}));
    let slices = vec![naming("vm", IP, json!({})), naming("vm", "2001:db8::1", json!({}))];
    assert_eq!(found([vec![both], slices].concat()), ["[2001:db8::1]:8080"]);
}

#[test]
fn an_address_of_a_declared_port_is_the_workload() {
    let index = kubernetes(vec![
        external("vm", &[IP, "2001:db8::1"], json!({})),
        external("twin-a", &["192.0.2.7"], json!({})),
        external("twin-b", &["192.0.2.7"], json!({"spec": {"ports": [{"port": 8080}, {"port": 9090}]}})),
        external("shadow", &["10.1.0.1"], json!({})),
        pod("a", "10.1.0.1", json!({})),
    ]);
    let of = |path: &str| profile(&index, path).unwrap();
    for path in ["192.0.2.1:8080", "[2001:db8::1]:8080", "[::ffff:192.0.2.1]:8080"] {
        let endpoint = of(path).endpoint.unwrap();
        assert_eq!(endpoint.tls.unwrap().identity.as_str(), "spiffe://root.local/vm", "{path}");
        assert_eq!((&*endpoint.labels["external_workload"], &*endpoint.labels["namespace"]), ("vm", "ns"));
    }
    assert!(!of("192.0.2.1:8080").opaque && of("192.0.2.1:5432").opaque);
    for plain in ["192.0.2.1:22", "192.0.2.1:53", "192.0.2.9:8080"] {
        assert_eq!(of(plain).endpoint, Some(Endpoint::plain(plain.parse().unwrap())), "{plain}: not behind its proxy");
    }
    assert!(matches!(profile(&index, "192.0.2.7:8080"), Err(Refusal::Ambiguous(_))));
    assert!(of("192.0.2.7:9090").endpoint.unwrap().tls.is_some());
    assert_eq!(of("10.1.0.1:8080").endpoint.unwrap().labels["pod"], "a", "a pod's address is the pod's");
}

#[test]
fn an_instance_of_a_headless_service_may_be_a_workload() {
    let index = kubernetes(vec![
        service("web", json!({"spec": {"clusterIP": "None"}})),
        external("vm", &[IP], json!({})),
        naming("vm", IP, json!({"hostname": "vm"})),
    ]);
    let name = |instance: &str| format!("{instance}.web.ns.svc.cluster.local:80");
    assert_eq!(addrs(&destination(&index, &name("vm")).unwrap()), ["192.0.2.1:8080"]);
    assert_eq!(destination(&index, &name("other")).unwrap(), []);
    let by_name = profile(&index, "vm.web.ns.svc.cluster.local:8080").unwrap().endpoint.unwrap();
    assert_eq!(by_name.labels["external_workload"], "vm");
    assert!(matches!(profile(&index, &name("other")), Err(Refusal::NotFound(_))));
}

#[test]
fn its_proxy_gets_policies_of_its_own() {
    let of = |objects: Vec<Object>, name: &str, port: u16| {
        let index =
            kubernetes([vec![external("vm", &[IP], json!({})), pod("vm", "10.1.0.1", json!({}))], objects].concat());
        inbound_of(&index, WorkloadKind::ExternalWorkload, name, port)
    };
    let named = |objects: Vec<Object>, port: u16| of(objects, "vm", port).unwrap().meta.name().to_owned();
    let default = "all-unauthenticated";
    assert_eq!(named(vec![], 8080), default);
    assert!(matches!(of(vec![], "a", 8080), Err(Refusal::NotFound(text)) if text.contains("ExternalWorkload ns/a")));
    let server = |of: &str, port: Value| {
        object(Kind::Server, "s", json!({of: {"matchLabels": {"app": "web"}}, "port": port}), json!({}))
    };
    let own = "externalWorkloadSelector";
    assert_eq!(named(vec![server(own, json!(8080))], 8080), "s");
    assert_eq!(named(vec![server(own, json!("http"))], 8080), "s", "by the name that it gives the port");
    assert_eq!(named(vec![server(own, json!("dns"))], 53), default, "of another protocol");
    assert_eq!(named(vec![server("podSelector", json!(8080))], 8080), default, "of pods");
    let index =
        kubernetes(vec![external("vm", &[IP], json!({})), pod("vm", "10.1.0.1", json!({})), server(own, json!(8080))]);
    assert_eq!(inbound(&index, "vm", 8080).unwrap().meta.name(), default, "the pod of its name is not selected");

    // Nobody is let in but whom a grant names.
    let grants = |objects: Vec<Object>| {
        let policy = of([vec![server(own, json!(8080))], objects].concat(), "vm", 8080).unwrap();
        policy.authorizations.iter().map(|a| a.meta.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(grants(vec![]), [""; 0]);
    let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
    let account = json!([{"kind": "ServiceAccount", "name": "web"}]);
    assert_eq!(grants(vec![policy_of("p", target, account)]), ["p"]);
    let client = json!({"server": {"name": "s"}, "client": {"meshTLS": {"identities": ["spiffe://root.local/other"]}}});
    assert_eq!(grants(vec![object(Kind::ServerAuthorization, "z", client, json!({}))]), ["z"]);
}

#[test]
fn annotations_of_a_workload_are_its_own() {
    let of = |annotations: Value, port: u16| {
        let index = kubernetes(vec![external("vm", &[IP], annotated(annotations))]);
        inbound_of(&index, WorkloadKind::ExternalWorkload, "vm", port).unwrap()
    };
    assert_eq!(of(json!({"config.linkerd.io/default-inbound-policy": "deny"}), 8080).meta.name(), "deny");
    let proven = json!({"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"});
    assert_eq!(of(proven.clone(), 8080).meta.name(), "all-authenticated");
    assert_eq!(of(proven, 8081).meta.name(), "all-unauthenticated");
    let opaque = json!({"config.linkerd.io/opaque-ports": "8080"});
    assert_eq!(of(opaque, 8080).protocol, ServerProtocol::Opaque);
    assert!(
        matches!(of(json!({}), 5432).protocol, ServerProtocol::Detect { .. }),
        "nobody has written the usual ports"
    );
}

#[test]
fn one_that_cannot_be_carried_out_counts_as_not_there_and_lets_in_nobody() {
    let mut index =
        kubernetes(vec![service("web", json!({})), external("vm", &[IP], json!({})), naming("vm", IP, json!({}))]);
    assert_eq!(destination(&index, WEB).unwrap().len(), 1);
    let mut broken = external("vm", &[IP], json!({}));
    if let Object::ExternalWorkload(workload) = &mut broken {
        workload.spec.mesh_tls.identity = "nobody".to_owned();
    }
    index.apply(Event::Apply(broken));
    assert_eq!(destination(&index, WEB).unwrap(), []);
    let of = |index: &Index| inbound_of(index, WorkloadKind::ExternalWorkload, "vm", 8080);
    let is_closed =
        |index: &Index| of(index).is_ok_and(|p| p.meta.name() == "deny" && p.all_authorizations().next().is_none());
    assert!(is_closed(&index), "its proxy would fall back on what it is told on its machine");
    // By its annotations as well, whatever Servers select it.
    let everybody = object(
        Kind::Server,
        "s",
        json!({"externalWorkloadSelector": {}, "port": 8080, "accessPolicy": "all-unauthenticated"}),
        json!({}),
    );
    index.apply(Event::Apply(everybody));
    let mut misspelt = external("vm", &[IP], json!({}));
    index.apply(Event::Apply(misspelt.clone()));
    assert!(!is_closed(&index));
    let key = misspelt.key();
    if let Object::ExternalWorkload(workload) = &mut misspelt {
        let said = [("config.linkerd.io/default-inbound-policy".to_owned(), "denyy".to_owned())];
        workload.metadata.annotations = Some(BTreeMap::from(said));
    }
    let subject = Subject::ExternalWorkload { namespace: "ns".to_owned(), name: "vm".to_owned() };
    assert!(index.apply(Event::Apply(misspelt)).contains(&subject));
    assert!(is_closed(&index) && destination(&index, WEB).unwrap().is_empty());
    assert_eq!(index.apply(Event::Delete(key.clone())), std::slice::from_ref(&subject));
    assert!(of(&index).is_err());
    let refused = crate::Refused { key, object: Value::Null, reason: String::new() };
    assert_eq!(index.apply(Event::Refused(Box::new(refused.clone()))), [subject]);
    assert_eq!(index.apply(Event::Refused(Box::new(refused))), [], "nothing new");
    assert!(is_closed(&index));
    // But for what is asked of its proxy, which would be started again and again.
    let admin = inbound_of(&index, WorkloadKind::ExternalWorkload, "vm", 4191).unwrap();
    let ServerProtocol::Detect { routes, .. } = &admin.protocol else { panic!("{admin:?}") };
    let [_, probe] = routes.as_slice() else { panic!("{routes:?}") };
    let paths: Vec<_> = probe.rules[0].matches.iter().map(|of| of.path.clone().unwrap()).collect();
    assert_eq!(paths, ["/live", "/ready"].map(|path| PathMatch::Exact(path.to_owned())));
    assert_eq!((admin.meta.name(), admin.all_authorizations().count()), ("deny", 1));
}
