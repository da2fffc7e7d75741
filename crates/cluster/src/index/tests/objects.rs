//! Objects of every kind, each in a few states, and everything that one may ask about them.

use super::*;
use crate::{Kind, Token};

pub(super) const NODES: [&str; 2] = ["n1", "n2"];
pub(super) const TOKENS: [&str; 2] = ["aa", "bb"];

/// Everything that one may ask about the objects of [`object`].
pub(super) fn questions() -> Vec<Question> {
    let mut questions = vec![];
    let targets = [
        "10.96.0.1:80",
        "10.96.0.2:5432",
        "10.96.0.1:99",
        "[fd00:96::1]:80",
        "10.1.0.1:8080",
        "10.1.0.2:5432",
        "10.0.0.1:8080",
        "[fd00::1]:8080",
        "203.0.113.1:80",
    ];
    let names = [
        WEB,
        "web.ns.svc.cluster.local:5432",
        "web.ns.svc.cluster.local:99",
        "api.ns.svc.cluster.local:80",
        "web.other.svc.cluster.local:80",
        "web-0.web.ns.svc.cluster.local:80",
        "web.ns.svc:80",
    ];
    let targets = targets
        .into_iter()
        .map(|a| Target::Addr(a.parse().unwrap()))
        .chain(names.into_iter().map(|n| Target::Name(name(n))));
    for target in targets {
        for from in ["ns", "other", ""] {
            questions.push(Question::Profile { from: from.into(), target: target.clone() });
            questions.push(Question::Outbound { from: from.into(), target: target.clone() });
        }
        if let Target::Name(name) = target {
            questions.push(Question::Destination(name));
        }
    }
    for (namespace, pod) in [("ns", "a"), ("ns", "b"), ("other", "a")] {
        for (of, port) in [8080, 5432, 4191]
            .into_iter()
            .flat_map(|port| [WorkloadKind::Pod, WorkloadKind::ExternalWorkload].map(|of| (of, port)))
        {
            questions.push(Question::Inbound { namespace: namespace.into(), of, name: pod.into(), port });
        }
        questions.push(Question::Work { namespace: namespace.into(), pod: pod.into(), uid: "1".into() });
    }
    questions
}

/// One of a few objects in one of a few states.
pub(super) fn object() -> impl Strategy<Value = Object> {
    let annotations = prop_oneof![
        Just(json!({})),
        Just(json!({"config.linkerd.io/opaque-ports": "8080,http"})),
        Just(json!({"config.linkerd.io/default-inbound-policy": "deny"})),
        Just(json!({"config.linkerd.io/skip-inbound-ports": "8080"})),
        Just(json!({"retry.linkerd.io/http": "5xx", "balancer.linkerd.io/failure-accrual": "consecutive"})),
    ];
    let namespaces = || prop::sample::select(vec!["ns", "ns", "other"]);
    let ab = || prop::sample::select(vec!["a", "b"]);
    let flags = any::<[bool; 8]>();
    let meshes = prop::sample::select(vec!["linkerd", "linkerd", "linkerd", "mesh"]);
    let pods = (ab(), namespaces(), 1..3u8, flags, meshes, annotations.clone()).prop_map(
        |(name, namespace, ip, [unready, going, api, named, on_host, both, ends, young], mesh, annotations)| {
            let mut patch = annotated(annotations);
            let mut also = |wanted: bool, more: Value| {
                if wanted {
                    merge(&mut patch, more);
                }
            };
            also(true, json!({"metadata": {"namespace": namespace, "labels": {"linkerd.io/control-plane-ns": mesh}}}));
            also(unready, json!({"status": {"conditions": []}}));
            also(unready && going, json!({"status": {"phase": "Pending"}}));
            also(going, json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
            also(api, json!({"metadata": {"labels": {"app": "api"}}}));
            also(named, json!({"spec": {"hostname": "web-0", "subdomain": "web"}}));
            also(both, json!({"status": {"podIPs": [{"ip": format!("10.1.0.{ip}")}, {"ip": format!("fd00::{ip}")}]}}));
            let host = json!({"spec": {"hostNetwork": true}, "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}});
            also(on_host && !named, host);
            also(young, json!({"status": {"hostIP": "10.0.0.1"},
                "spec": {"containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080, "hostPort": 8080}]}]}}));
            also(ends, json!({"metadata": {"uid": "1"}, "spec": {"restartPolicy": "Never"}}));
            let ended = json!([{"name": "web", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"terminated": {"exitCode": 0}}}]);
            also(ends && young, json!({"status": {"containerStatuses": ended}}));
            pod(name, &format!("10.1.0.{ip}"), patch)
        },
    );
    let externals = (ab(), namespaces(), 1..3u8, any::<[bool; 6]>(), annotations.clone()).prop_map(
        |(name, namespace, ip, [both, api, portless, owned, moved, elsewhere], annotations)| {
            let mut patch = annotated(annotations);
            merge(&mut patch, json!({"metadata": {"namespace": namespace}}));
            if api {
                merge(&mut patch, json!({"metadata": {"labels": {"app": "api"}}}));
            }
            if owned {
                let owner = json!({"apiVersion": "v1", "kind": "Group", "name": "db", "uid": ""});
                merge(&mut patch, json!({"metadata": {"ownerReferences": [owner]}}));
            }
            if portless {
                merge(&mut patch, json!({"spec": {"ports": [{"name": "linkerd-proxy", "port": 5143}]}}));
            }
            if moved {
                merge(&mut patch, json!({"spec": {"meshTLS": {"identity": "spiffe://td/x"}}}));
            }
            let v4 = if elsewhere { format!("203.0.113.{ip}") } else { format!("10.1.0.{ip}") };
            let v6 = format!("fd00::{ip}");
            let ips = if both { vec![v4.as_str(), v6.as_str()] } else { vec![v4.as_str()] };
            externals::external(name, &ips, patch)
        },
    );
    let endpoints = (ab(), namespaces(), 1..3u8, any::<[bool; 5]>()).prop_map(
        |(pod, namespace, ip, [ready, referring, v6, hinted, external])| {
            let address = if v6 { format!("fd00::{ip}") } else { format!("10.1.0.{ip}") };
            let mut endpoint = json!({"addresses": [address], "conditions": {"ready": ready}, "hostname": "web-0"});
            if referring {
                let kind = if external && hinted { "ExternalWorkload" } else { "Pod" };
                endpoint["targetRef"] = json!({"kind": kind, "namespace": namespace, "name": pod});
            }
            if hinted {
                merge(
                    &mut endpoint,
                    json!({"nodeName": "n1", "zone": "east", "hints": {"forZones": [{"name": "east"}]}}),
                );
            }
            (v6, endpoint)
        },
    );
    let gateways = prop::sample::select(vec!["", "", "", "east", "west"]);
    let slices = (0..2u8, namespaces(), any::<bool>(), prop::collection::vec(endpoints, 0..3), gateways).prop_map(
        |(number, namespace, api, endpoints, gateway)| {
            let v6 = endpoints.first().is_some_and(|(v6, _)| *v6);
            let endpoints: Vec<Value> = endpoints.into_iter().filter(|(of, _)| *of == v6).map(|(_, e)| e).collect();
            let service = if api { "api" } else { "web" };
            let mut patch = json!({
                "metadata": {"namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
                "addressType": if v6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints,
            });
            if !gateway.is_empty() {
                merge(&mut patch, annotated(slices::of_gateway()));
                merge(&mut patch, json!({"metadata": {"labels": {"mirror.linkerd.io/cluster-name": gateway}}}));
            }
            slices::slice(&format!("s-{number}"), &[], patch)
        },
    );
    let services =
        (prop::sample::select(vec!["web", "api"]), namespaces(), 1..3u8, any::<[bool; 6]>(), annotations.clone())
            .prop_map(|(name, namespace, ip, [headless, both, local, unready, external, v6], annotations)| {
                let ips = match (both, v6) {
                    (true, _) => vec![format!("10.96.0.{ip}"), format!("fd00:96::{ip}")],
                    (false, true) => vec![format!("fd00:96::{ip}")],
                    (false, false) => vec![format!("10.96.0.{ip}")],
                };
                let ips = if headless { vec!["None".to_owned()] } else { ips };
                let mut patch = annotated(annotations);
                merge(
                    &mut patch,
                    json!({"metadata": {"namespace": namespace},
                        "spec": {"clusterIP": ips[0], "clusterIPs": ips, "selector": {"app": name},
                            "publishNotReadyAddresses": unready}}),
                );
                if local {
                    merge(&mut patch, json!({"spec": {"internalTrafficPolicy": "Local"}}));
                }
                if external && both {
                    merge(&mut patch, annotated(json!({"multicluster.linkerd.io/local-discovery": "x"})));
                }
                if external && unready {
                    merge(&mut patch, json!({"spec": {"type": "ExternalName"}}));
                }
                service(name, patch)
            });
    let nodes = (prop::sample::select(NODES.to_vec()), prop::sample::select(vec!["", "east", "west"]))
        .prop_map(|(name, zone)| slices::node(name, zone));
    let tokens = (prop::sample::select(TOKENS.to_vec()), ab()).prop_map(|(sha256, pod)| {
        Object::Token(Token {
            sha256: sha256.into(),
            namespace: "ns".into(),
            service_account: "web".into(),
            pod: pod.into(),
        })
    });
    let of_namespaces = (namespaces(), annotations).prop_map(|(name, annotations)| {
        let value =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}});
        Object::Namespace(typed(value))
    });
    let outside = prop::sample::select(vec![
        json!({}),
        json!({"networks": [{"cidr": "203.0.113.0/24"}]}),
        json!({"networks": [{"cidr": "203.0.0.0/16", "except": ["203.0.113.0/25"]}, {"cidr": "10.0.0.0/8"}]}),
    ]);
    let homes = prop::sample::select(vec!["ns", "other", "linkerd-egress"]);
    let egress =
        (ab(), homes, outside, any::<[bool; 3]>()).prop_map(|(name, namespace, mut spec, [deny, old, asks])| {
            spec["trafficPolicy"] = json!(if deny { "Deny" } else { "Allow" });
            let mut patch = json!({"metadata": {"namespace": namespace}});
            if old {
                merge(&mut patch, json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}));
            }
            if asks {
                merge(&mut patch, annotated(json!({"timeout.linkerd.io/request": "1s"})));
            }
            outbound::egress(name, spec, patch)
        });
    let profiles = (prop::sample::select(vec!["web", "api"]), namespaces(), namespaces(), any::<[bool; 2]>()).prop_map(
        |(service, of, namespace, [routes, overrides])| {
            let mut spec = json!({});
            if routes {
                spec["routes"] = json!([{"name": "all", "condition": {"method": "GET"}}]);
            }
            if overrides {
                spec["dstOverrides"] = json!([{"authority": "api.ns.svc.cluster.local", "weight": "1"}]);
            }
            let name = format!("{service}.{of}.svc.cluster.local");
            policies::object(Kind::ServiceProfile, &name, spec, json!({"metadata": {"namespace": namespace}}))
        },
    );
    let routes = client_routes();
    let policies = prop_oneof![
        9 => authorization::written().prop_map(|(kind, object)| crate::policy::read(kind, object).unwrap()),
        // What slipped in while nobody looked, and cannot be carried out.
        1 => ab().prop_map(policies::broken),
    ];
    prop_oneof![6 => pods, 2 => externals, 5 => slices, 4 => services, 1 => of_namespaces, 1 => nodes, 1 => tokens, 7 => policies, 2 => egress, 2 => profiles, 4 => routes]
}

/// Routes that clients follow, whose parents and backends come and go.
pub(super) fn client_routes() -> impl Strategy<Value = Object> {
    let http = [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::HttpRoute];
    let kinds = prop::sample::select([&http[..], &[Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute]].concat());
    let namespaces = || prop::sample::select(vec!["ns", "ns", "other"]);
    let services = || (prop::sample::select(vec!["web", "api"]), namespaces());
    let networks =
        || (prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["ns", "other", "linkerd-egress"]));
    let egress = |(name, namespace): (&str, &str)| json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "namespace": namespace, "name": name});
    let parents = prop_oneof![
        4 => (services(), any::<bool>()).prop_map(|((name, namespace), one_port)| {
            let mut parent = json!({"group": "", "kind": "Service", "namespace": namespace, "name": name});
            if one_port {
                parent["port"] = json!(80);
            }
            parent
        }),
        1 => networks().prop_map(move |id| {
            let mut parent = egress(id);
            parent["port"] = json!(80);
            parent
        }),
    ];
    let backends = prop_oneof![
        4 => (services(), 0..3u8).prop_map(|((name, namespace), weight)| {
            json!({"namespace": namespace, "name": name, "port": 80, "weight": weight})
        }),
        1 => networks().prop_map(egress),
    ];
    let lists = (prop::collection::vec(parents, 1..3), prop::collection::vec(backends, 0..3));
    (kinds, prop::sample::select(vec!["a", "b"]), namespaces(), lists, any::<[bool; 3]>()).prop_map(
        |(kind, name, namespace, (parents, backends), [old, asks, rewrites])| {
            let mut patch = json!({"metadata": {"namespace": namespace}});
            if old {
                merge(&mut patch, json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}));
            }
            if asks {
                merge(
                    &mut patch,
                    annotated(json!({"timeout.linkerd.io/request": "1s", "retry.linkerd.io/limit": "2"})),
                );
            }
            let mut rule = json!({"backendRefs": backends});
            if rewrites && !matches!(kind, Kind::TlsRoute | Kind::TcpRoute) {
                rule["filters"] = json!([{"type": "ExtensionRef", "extensionRef": {}}]);
            }
            policies::object(kind, name, json!({"parentRefs": parents, "rules": [rule]}), patch)
        },
    )
}
