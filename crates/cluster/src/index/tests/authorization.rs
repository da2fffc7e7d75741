//! Who may call (control plane 6.4): an evaluator written from its text, over the objects as they are written.

use super::{
    chance::{self, pick},
    externals, *,
};
use crate::{Kind, policy};
use std::net::IpAddr;
use weft_model::{
    Identity, Meta,
    decide::{
        authorize::{Client, ClientTls, permit},
        cidr::Cidr,
    },
    policy::route::{HttpMatch, PathMatch},
};

struct Asks<'a> {
    addr: IpAddr,
    /// `None` is plaintext, the empty text TLS without a certificate.
    identity: Option<&'a str>,
}

/// What holds besides the objects of policy, as it is written.
#[derive(Debug)]
struct Around {
    default_policy: DefaultPolicy,
    cluster_networks: &'static [&'static str],
    probe_networks: &'static [&'static str],
    /// Of the workload that is asked of.
    annotations: Value,
    /// The containers of the pod, if that is a pod.
    spec: Value,
}

const OF_DEFAULT_POLICY: &str = "config.linkerd.io/default-inbound-policy";
const OF_REQUIRED_IDENTITY: &str = "config.linkerd.io/proxy-require-identity-inbound-ports";
const OF_OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

impl Around {
    fn any(rng: &mut fastrand::Rng) -> Self {
        let clusters: [&[&str]; 4] =
            [&["10.0.0.0/8", "fd00::/8"], &["192.0.2.0/24"], &["10.2.0.0/16", "2001::/16"], &[]];
        let probing: [&[&str]; 4] = [&["0.0.0.0/0", "::/0"], &["10.1.0.0/16"], &["192.0.2.7/32", "fd00::/8"], &[]];
        let mut annotations = json!({});
        if rng.bool() {
            annotations[OF_DEFAULT_POLICY] = json!(pick(rng, &DefaultPolicy::ALL).as_str());
        }
        if rng.bool() {
            annotations[OF_REQUIRED_IDENTITY] =
                json!(pick(rng, &["8080", "9000,8000-8100", "8081", "1-8079,8081-65535"]));
        }
        if rng.bool() {
            annotations[OF_OPAQUE_PORTS] =
                json!(pick(rng, &["8080", "http", "sql,8000-8100", "8081,sql", "1-8079,8081-65535", ""]));
        }
        let web = |probes: Value| {
            let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "sql", "containerPort": 5432}]);
            let mut web = json!({"name": "web", "ports": ports});
            merge(&mut web, probes);
            web
        };
        let get = |path: &str, port: Value| json!({"httpGet": {"path": path, "port": port}});
        let socket = json!({"tcpSocket": {"port": 8080}});
        let specs = [
            json!({"containers": [web(json!({}))]}),
            json!({"containers": [web(json!({"readinessProbe": get("/ready", json!("http")), "livenessProbe": get("/live", json!(8080))}))]}),
            json!({"containers": [web(json!({"livenessProbe": get("/live", json!("sql")), "startupProbe": socket}))]}),
            json!({
                "containers": [web(json!({})), {"name": "beside", "startupProbe": get("/start", json!(8080)), "livenessProbe": get("/x", json!(8081))}],
                "initContainers": [{"name": "before", "livenessProbe": get("/before", json!(8080))}],
            }),
            json!({"containers": [
                {"name": "beside", "ports": [{"name": "http", "containerPort": 8081}, {"name": "more", "containerPort": 8080}],
                    "readinessProbe": get("/beside", json!("http")), "livenessProbe": get("/more", json!("more"))},
                web(json!({"readinessProbe": get("/ready", json!("http")), "livenessProbe": get("/none", json!("more"))})),
            ]}),
        ];
        Self {
            default_policy: *pick(rng, &DefaultPolicy::ALL),
            cluster_networks: *pick(rng, &clusters),
            probe_networks: *pick(rng, &probing),
            annotations,
            spec: pick(rng, &specs).clone(),
        }
    }

    /// Of the workloads that [`naive`] is asked of.
    fn index(&self) -> Index {
        let read = |networks: &[&str]| -> Vec<Cidr> { networks.iter().map(|net| net.parse().unwrap()).collect() };
        let mut index = Index::new(Settings {
            platform: Platform::Kubernetes,
            default_policy: DefaultPolicyName(self.default_policy),
            cluster_networks: read(self.cluster_networks),
            probe_networks: read(self.probe_networks),
            ..Settings::default()
        });
        let mut of_pod = annotated(self.annotations.clone());
        merge(&mut of_pod, json!({"spec": self.spec.clone()}));
        let external = externals::external("a", &["192.0.2.1"], annotated(self.annotations.clone()));
        for object in [pod("a", "10.1.0.1", of_pod), external] {
            index.apply(Event::Apply(object));
        }
        index
    }

    fn is_of_cluster(&self, addr: IpAddr) -> bool {
        self.cluster_networks.iter().any(|network| inside(network, addr))
    }

    /// Whether a default policy lets in a client.
    fn lets_in(&self, policy: &str, client: &Asks<'_>) -> bool {
        match policy {
            "deny" => false,
            "all-unauthenticated" | "audit" => true,
            "all-authenticated" => client.proves(),
            "cluster-unauthenticated" => self.is_of_cluster(client.addr),
            "cluster-authenticated" => self.is_of_cluster(client.addr) && client.proves(),
            other => panic!("{other}"),
        }
    }

    /// Whether clients of port 8080 must prove who they are wherever no Server selects it.
    fn requires_identity(&self) -> bool {
        self.names_the_port(OF_REQUIRED_IDENTITY)
    }

    /// Whether an annotation names port 8080, by its number or by its name.
    fn names_the_port(&self, annotation: &str) -> bool {
        let ranges = self.annotations[annotation].as_str().into_iter().flat_map(|list| list.split(','));
        ranges.map(|range| range.split_once('-').unwrap_or((range, range))).any(|(first, last)| {
            let number = |text: &str| text.parse::<u16>().ok();
            first == "http"
                || number(first).zip(number(last)).is_some_and(|(first, last)| (first..=last).contains(&8080))
        })
    }

    /// What a port speaks that no Server selects, or that `server` does.
    fn spoken<'v>(&self, server: Option<&'v Value>) -> &'v str {
        match server {
            Some(server) => server["spec"]["proxyProtocol"].as_str().unwrap(),
            None if self.names_the_port(OF_OPAQUE_PORTS) => "opaque",
            None => "unknown",
        }
    }

    /// The paths by which the pod's containers are probed on port 8080, each once.
    fn probes(&self) -> Vec<String> {
        let containers = ["containers", "initContainers"].map(|list| self.spec[list].as_array());
        let probed = containers.into_iter().flatten().flatten().flat_map(|container| {
            ["livenessProbe", "readinessProbe", "startupProbe"]
                .map(move |probe| (container, &container[probe]["httpGet"]))
        });
        let mut paths: Vec<String> = probed
            .filter(|(container, get)| {
                // A name is of the container's own ports.
                let own = container["ports"].as_array().into_iter().flatten();
                let named = own.filter(|port| port["name"] == get["port"]).map(|port| &port["containerPort"]);
                get.is_object() && named.chain([&get["port"]]).any(|port| *port == 8080)
            })
            .map(|(_, get)| get["path"].as_str().unwrap().to_owned())
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }
}

impl Asks<'_> {
    fn proves(&self) -> bool {
        self.identity.is_some_and(|identity| !identity.is_empty())
    }
}

/// Whether `client` may use port 8080, which is named `http`, of the pod or the ExternalWorkload `ns/a`, which is labelled app=web.
fn naive(objects: &[&Value], around: &Around, of_pod: bool, client: &Asks<'_>) -> bool {
    if client.addr.is_loopback() {
        return true;
    }
    let of = |kind: &'static str| {
        objects.iter().copied().filter(move |o| o["kind"] == kind && o["metadata"]["namespace"] == "ns")
    };
    let mut servers: Vec<&Value> = of("Server")
        .filter(|s| s["spec"]["port"] == 8080 || s["spec"]["port"] == "http")
        .filter(|s| {
            let selector = &s["spec"][if of_pod { "podSelector" } else { "externalWorkloadSelector" }];
            selector.is_object() && labelled(selector, "web")
        })
        .collect();
    servers.sort_by_key(|s| {
        let created = s["metadata"]["creationTimestamp"].as_str();
        (created.is_none(), created.unwrap_or_default(), s["metadata"]["name"].as_str())
    });
    let Some(server) = servers.first() else {
        let policy = around.annotations[OF_DEFAULT_POLICY].as_str().unwrap_or(around.default_policy.as_str());
        return around.lets_in(policy, client) && (client.proves() || !around.requires_identity());
    };
    let name = &server["metadata"]["name"];
    let by_itself = around.lets_in(server["spec"]["accessPolicy"].as_str().unwrap_or("deny"), client);
    let by_server_authorization = of("ServerAuthorization").any(|saz| {
        let (of, who) = (&saz["spec"]["server"], &saz["spec"]["client"]);
        let is_of = match of.get("name") {
            Some(wanted) => wanted == name,
            None => labelled(&of["selector"], server["metadata"]["labels"]["app"].as_str().unwrap_or_default()),
        };
        let from = who
            .get("networks")
            .map_or_else(|| around.is_of_cluster(client.addr), |networks| in_networks(networks, client.addr));
        let tls = &who["meshTLS"];
        let proves = who["unauthenticated"] == true
            || tls["unauthenticatedTLS"] == true && client.identity.is_some()
            || is_one_of(&tls["identities"], client)
            || tls["serviceAccounts"].as_array().into_iter().flatten().any(|a| is_account(a, "ns", client));
        is_of && from && proves
    });
    let is_target =
        |target: &Value| target["kind"] == "Namespace" || target["kind"] == "Server" && target["name"] == *name;
    by_itself || by_server_authorization || granted(objects, client, is_target)
}

/// Whether an AuthorizationPolicy of the namespace `ns` with such a target lets in `client`.
fn granted(objects: &[&Value], client: &Asks<'_>, is_target: impl Fn(&Value) -> bool) -> bool {
    let of =
        |kind: &'static str| objects.iter().filter(move |o| o["kind"] == kind && o["metadata"]["namespace"] == "ns");
    client.addr.is_loopback()
        || of("AuthorizationPolicy").any(|policy| {
            let is_target = is_target(&policy["spec"]["targetRef"]);
            let required = policy["spec"]["requiredAuthenticationRefs"].as_array().unwrap();
            is_target
                && required.iter().all(|required| {
                    let namespace = required["namespace"].as_str().unwrap_or("ns");
                    let found = objects.iter().find(|o| {
                        o["kind"] == required["kind"]
                            && o["metadata"]["namespace"] == namespace
                            && o["metadata"]["name"] == required["name"]
                    });
                    match required["kind"].as_str().unwrap() {
                        "ServiceAccount" => is_account(required, "ns", client),
                        "NetworkAuthentication" => {
                            found.is_some_and(|found| in_networks(&found["spec"]["networks"], client.addr))
                        }
                        _ => found.is_some_and(|found| {
                            let refs = found["spec"]["identityRefs"].as_array().into_iter().flatten();
                            is_one_of(&found["spec"]["identities"], client)
                                || refs.into_iter().any(|r| match r["kind"].as_str() {
                                    Some("Namespace") => {
                                        let end = format!(
                                            ".{}.serviceaccount.identity.linkerd.cluster.local",
                                            r["name"].as_str().unwrap()
                                        );
                                        client.identity.is_some_and(|identity| identity.ends_with(&end))
                                    }
                                    _ => is_account(r, namespace, client),
                                })
                        }),
                    }
                })
        })
}

/// The kinds and names of the routes of a Server, of requests of HTTP or of gRPC, in their order.
fn attached(objects: &[&Value], server: &str, grpc: bool) -> Vec<(String, String)> {
    let is_route =
        |o: &Value| o["kind"].as_str().is_some_and(|kind| kind.contains("Route")) && o["metadata"]["namespace"] == "ns";
    let mut routes: Vec<&Value> = objects
        .iter()
        .copied()
        .filter(|o| is_route(o) && (o["kind"] == "GRPCRoute") == grpc)
        .filter(|o| o["spec"]["parentRefs"].as_array().unwrap().iter().any(|parent| parent["name"] == server))
        .collect();
    routes.sort_by_key(|r| {
        let created = r["metadata"]["creationTimestamp"].as_str();
        // Of two kinds the mesh's own comes first.
        (created.is_none(), created, r["metadata"]["name"].as_str(), r["kind"] != Kind::MeshHttpRoute.as_str())
    });
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    routes.into_iter().map(|r| (text(&r["kind"]), text(&r["metadata"]["name"]))).collect()
}

fn labelled(selector: &Value, app: &str) -> bool {
    let by_labels = selector["matchLabels"]["app"].as_str().is_none_or(|wanted| wanted == app);
    by_labels
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|e| {
            let listed = e["values"].as_array().is_some_and(|values| values.iter().any(|v| v == app));
            match e["operator"].as_str() {
                Some("In") => listed,
                Some("NotIn") => !listed,
                Some("Exists") => !app.is_empty(),
                _ => app.is_empty(),
            }
        })
}

/// By the written form of addresses, which in these networks ends at a whole byte.
fn inside(network: &str, addr: IpAddr) -> bool {
    // An address alone is of IPv4 here.
    let (net, length) = network.split_once('/').unwrap_or((network, "32"));
    let (net, length): (IpAddr, usize) = (net.parse().unwrap(), length.parse().unwrap());
    let bytes = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    net.is_ipv4() == addr.is_ipv4() && bytes(net)[..length / 8] == bytes(addr)[..length / 8]
}

fn in_networks(networks: &Value, addr: IpAddr) -> bool {
    networks.as_array().unwrap().iter().any(|network| {
        let left_out = network["except"].as_array().into_iter().flatten();
        inside(network["cidr"].as_str().unwrap(), addr)
            && !left_out.into_iter().any(|e| inside(e.as_str().unwrap(), addr))
    })
}

fn is_one_of(identities: &Value, client: &Asks<'_>) -> bool {
    let Some(own) = client.identity.filter(|own| !own.is_empty()) else { return false };
    identities.as_array().into_iter().flatten().any(|wanted| match wanted.as_str().unwrap() {
        "*" => true,
        wanted => match wanted.strip_prefix('*') {
            Some(end) => own.ends_with(end) && own.len() > end.len(),
            None => own == wanted,
        },
    })
}

fn is_account(account: &Value, own: &str, client: &Asks<'_>) -> bool {
    let namespace = account["namespace"].as_str().unwrap_or(own);
    let name =
        format!("{}.{namespace}.serviceaccount.identity.linkerd.cluster.local", account["name"].as_str().unwrap());
    client.identity == Some(name.as_str())
}

fn any_of(values: &[Value]) -> impl Strategy<Value = Value> + Clone + use<> {
    prop::sample::select(values.to_vec())
}

fn network() -> impl Strategy<Value = Value> {
    any_of(&[
        json!({"cidr": "0.0.0.0/0"}),
        json!({"cidr": "10.0.0.0/8"}),
        json!({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}),
        json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.7"]}),
        json!({"cidr": "::/0", "except": ["fd00::/8"]}),
    ])
}

fn identity_texts() -> impl Strategy<Value = Value> {
    any_of(&[
        json!(["*"]),
        json!(["web.ns.serviceaccount.identity.linkerd.cluster.local"]),
        json!(["*.ns.serviceaccount.identity.linkerd.cluster.local"]),
        json!(["*.cluster.local", "spiffe://td/x"]),
        json!(["nobody.example"]),
    ])
}

fn account() -> impl Strategy<Value = Value> {
    any_of(&[
        json!({"kind": "ServiceAccount", "name": "web"}),
        json!({"kind": "ServiceAccount", "name": "web", "namespace": "other"}),
        json!({"kind": "ServiceAccount", "name": "api", "namespace": "ns"}),
    ])
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = |operator: &str, values: &[&str]| {
        let mut e = json!({"key": "app", "operator": operator});
        if !values.is_empty() {
            e["values"] = json!(values);
        }
        json!({"matchExpressions": [e]})
    };
    any_of(&[
        json!({}),
        json!({"matchLabels": {"app": "web"}}),
        json!({"matchLabels": {"app": "api"}}),
        expression("In", &["web", "x"]),
        expression("NotIn", &["web"]),
        expression("Exists", &[]),
        expression("DoesNotExist", &[]),
    ])
}

fn spec() -> impl Strategy<Value = (Kind, Value)> {
    let servers = (
        prop_oneof![3 => Just("podSelector"), 1 => Just("externalWorkloadSelector")],
        selector(),
        any_of(&[json!(8080), json!("http"), json!(8081)]),
        prop::option::of(prop::sample::select(DefaultPolicy::ALL.to_vec())),
        any_of(&[json!("unknown"), json!("HTTP/2"), json!("gRPC"), json!("opaque")]),
    )
        .prop_map(|(of, selector, port, access, protocol)| {
            let mut spec = json!({of: selector, "port": port, "proxyProtocol": protocol});
            if let Some(access) = access {
                spec["accessPolicy"] = json!(access.as_str());
            }
            (Kind::Server, spec)
        });
    let clients = prop_oneof![
        Just(json!({"unauthenticated": true})),
        Just(json!({"meshTLS": {"unauthenticatedTLS": true}})),
        identity_texts().prop_map(|texts| json!({"meshTLS": {"identities": texts}})),
        account().prop_map(|account| json!({"meshTLS": {"serviceAccounts": [account]}})),
    ];
    let server_refs = prop_oneof![
        any_of(&[json!({"name": "a"}), json!({"name": "b"})]),
        selector().prop_map(|s| json!({"selector": s}))
    ];
    let server_authorizations =
        (server_refs, clients, prop::option::of(network())).prop_map(|(server, mut client, net)| {
            if let Some(net) = net {
                client["networks"] = json!([net]);
            }
            (Kind::ServerAuthorization, json!({"server": server, "client": client}))
        });
    let namespaces = prop::option::of(any_of(&[json!("ns"), json!("other")]));
    let names = any_of(&[json!("a"), json!("b")]);
    let refer = |kind: &'static str| {
        (names.clone(), namespaces.clone()).prop_map(move |(name, namespace)| {
            let mut reference = json!({"group": "policy.linkerd.io", "kind": kind, "name": name});
            if let Some(namespace) = namespace {
                reference["namespace"] = namespace;
            }
            reference
        })
    };
    let identity = prop::option::of(prop_oneof![3 => refer("MeshTLSAuthentication"), 1 => account()]);
    let targets = prop_oneof![
        names.clone().prop_map(|name| json!({"group": "policy.linkerd.io", "kind": "Server", "name": name})),
        Just(json!({"kind": "Namespace", "name": "ns"})),
        (any_of(&[json!("policy.linkerd.io"), json!("gateway.networking.k8s.io")]), names.clone())
            .prop_map(|(group, name)| json!({"group": group, "kind": "HTTPRoute", "name": name})),
        names.clone().prop_map(|name| json!({"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": name})),
    ];
    let policies = (targets, identity, prop::option::of(refer("NetworkAuthentication"))).prop_map(
        |(target, identity, network)| {
            let required: Vec<Value> = identity.into_iter().chain(network).collect();
            (Kind::AuthorizationPolicy, json!({"targetRef": target, "requiredAuthenticationRefs": required}))
        },
    );
    let of_namespace = json!({"kind": "Namespace", "name": "other"});
    let mesh_tls = prop_oneof![
        identity_texts().prop_map(|texts| json!({"identities": texts})),
        prop_oneof![2 => account(), 1 => Just(of_namespace)].prop_map(|r| json!({"identityRefs": [r]})),
    ]
    .prop_map(|spec| (Kind::MeshTlsAuthentication, spec));
    let networks = prop::collection::vec(network(), 1..3)
        .prop_map(|networks| (Kind::NetworkAuthentication, json!({"networks": networks})));
    let kinds = prop::sample::select(vec![Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute]);
    let servers_of = prop::collection::vec(names.clone(), 1..3);
    let routes = (kinds, servers_of, any::<bool>()).prop_map(|(kind, servers, filtered)| {
        let parent = |name: &Value| json!({"group": "policy.linkerd.io", "kind": "Server", "name": name});
        let mut spec = json!({"parentRefs": servers.iter().map(parent).collect::<Vec<_>>()});
        if filtered {
            let filter = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}});
            spec["rules"] = json!([{"filters": [filter]}]);
        }
        (kind, spec)
    });
    let limits = (names.clone(), 1..3u32).prop_map(|(server, rate)| {
        let target = json!({"group": "policy.linkerd.io", "kind": "Server", "name": server});
        (Kind::HttpLocalRateLimitPolicy, json!({"targetRef": target, "total": {"requestsPerSecond": rate}}))
    });
    prop_oneof![
        3 => servers, 2 => server_authorizations, 4 => policies, 2 => mesh_tls, 2 => networks, 2 => routes, 1 => limits
    ]
}

/// An object as it is written, which can be carried out.
pub(super) fn written() -> impl Strategy<Value = (Kind, Value)> {
    (spec(), 0..2u8, any::<bool>(), prop::option::of(1..3u8), any::<bool>()).prop_map(
        |((kind, mut spec), name, elsewhere, day, label)| {
            let namespace = if elsewhere { "other" } else { "ns" };
            if spec["targetRef"]["kind"] == "Namespace" {
                spec["targetRef"]["name"] = json!(namespace);
            }
            let name = if name == 0 { "a" } else { "b" };
            let mut metadata = json!({"name": name, "namespace": namespace});
            if let Some(day) = day {
                metadata["creationTimestamp"] = json!(format!("2026-01-{day:02}T00:00:00Z"));
            }
            if label {
                metadata["labels"] = json!({"app": "web"});
            }
            (kind, json!({"kind": kind.as_str(), "metadata": metadata, "spec": spec}))
        },
    )
}

const ADDRESSES: [&str; 9] = [
    "127.0.0.1",
    "10.1.2.3",
    "10.2.0.1",
    "192.0.2.7",
    "192.0.2.8",
    "203.0.113.1",
    "fd00::1",
    "2001:db8::1",
    // As a socket of IPv6 shows a client of IPv4.
    "::ffff:10.2.0.1",
];
const IDENTITIES: [&str; 8] = [
    "",
    "web.ns.serviceaccount.identity.linkerd.cluster.local",
    "api.ns.serviceaccount.identity.linkerd.cluster.local",
    "web.other.serviceaccount.identity.linkerd.cluster.local",
    // Of other namespaces and accounts whose names end alike.
    "web.another.serviceaccount.identity.linkerd.cluster.local",
    "x.web.ns.serviceaccount.identity.linkerd.cluster.local",
    "spiffe://td/x",
    "cluster.local",
];

/// What is wrong with who is let in where these objects are and nothing else; each client is a place in [`ADDRESSES`] and one in
/// [`IDENTITIES`], behind which none stands for plaintext.
fn wrong(
    around: &Around,
    asked: &Question,
    objects: &[&(Value, Object)],
    clients: &[(usize, usize)],
) -> Option<String> {
    let mut index = around.index();
    objects.iter().for_each(|(_, object)| drop(index.store.insert(object)));
    let written: Vec<&Value> = objects.iter().map(|(written, _)| written).collect();
    let of_pod = matches!(asked, Question::Inbound { of: WorkloadKind::Pod, .. });
    let Ok(Answer::Inbound(policy)) = index.reply(asked) else { panic!() };
    let server = if policy.meta.kind() == "server" { policy.meta.name() } else { "" };
    let named = |o: &&Value| {
        let (meta, kind) = (&o["metadata"], &o["kind"]);
        *kind == "Server" && meta["namespace"] == "ns" && meta["name"] == server
    };
    let expected = around.spoken(written.iter().copied().find(named));
    let spoken = match &policy.protocol {
        ServerProtocol::Detect { .. } => "unknown",
        ServerProtocol::Http1 { .. } => "HTTP/1",
        ServerProtocol::Http2 { .. } => "HTTP/2",
        ServerProtocol::Grpc { .. } => "gRPC",
        ServerProtocol::Opaque => "opaque",
        ServerProtocol::Tls => "TLS",
    };
    if spoken != expected {
        return Some(format!("the port speaks {spoken} instead of {expected}"));
    }
    let of = |meta: &Meta| match (meta.group(), meta.kind()) {
        ("policy.linkerd.io", "HTTPRoute") => (Kind::MeshHttpRoute.as_str().to_owned(), meta.name().to_owned()),
        (_, kind) => (kind.to_owned(), meta.name().to_owned()),
    };
    let probes = if of_pod && !around.probe_networks.is_empty() { around.probes() } else { vec![] };
    let default = |name: &str| ("default".to_owned(), name.to_owned());
    // Where no route is attached there is the default one, and in HTTP that of probes.
    let (routes, defaults): (Vec<_>, Vec<_>) = match &policy.protocol {
        ServerProtocol::Grpc { routes } => {
            (routes.iter().map(|r| (of(&r.meta), &r.rules[0].does.authorizations)).collect(), vec![default("default")])
        }
        ServerProtocol::Detect { routes, .. }
        | ServerProtocol::Http1 { routes, .. }
        | ServerProtocol::Http2 { routes, .. } => {
            let of_probes = routes.iter().find(|r| of(&r.meta) == default("probe"));
            let found: Option<Vec<HttpMatch>> =
                of_probes.map(|r| r.rules.iter().flat_map(|rule| rule.matches.clone()).collect());
            let exact = |path: &String| HttpMatch {
                path: Some(PathMatch::Exact(path.clone())),
                method: Some("GET".to_owned()),
                ..HttpMatch::default()
            };
            let expected: Vec<HttpMatch> = probes.iter().map(exact).collect();
            if found.as_ref().is_some_and(|found| *found != expected) {
                return Some(format!("probes are {found:?} instead of {expected:?}"));
            }
            let of_probes = (!probes.is_empty()).then(|| default("probe"));
            (
                routes.iter().map(|r| (of(&r.meta), &r.rules[0].does.authorizations)).collect(),
                [default("default")].into_iter().chain(of_probes).collect(),
            )
        }
        ServerProtocol::Opaque | ServerProtocol::Tls => (vec![], vec![]),
    };
    if !matches!(policy.protocol, ServerProtocol::Opaque) {
        let found: Vec<_> = routes.iter().map(|(id, _)| id.clone()).collect();
        let attached = attached(&written, server, matches!(policy.protocol, ServerProtocol::Grpc { .. }));
        let expected = if attached.is_empty() { defaults } else { attached };
        if found != expected {
            return Some(format!("the routes are {found:?} instead of {expected:?}"));
        }
    }
    clients.iter().find_map(|(addr, identity)| {
        let addr: IpAddr = ADDRESSES[*addr].parse().unwrap();
        let text = IDENTITIES.get(*identity).copied();
        let identity: Option<Identity> = text.filter(|t| !t.is_empty()).map(|t| t.parse().unwrap());
        let tls = match (&text, &identity) {
            (None, _) => ClientTls::None,
            (Some(_), None) => ClientTls::Unauthenticated,
            (Some(_), Some(identity)) => ClientTls::Identity(identity),
        };
        let asks = || Asks { addr: addr.to_canonical(), identity: text };
        let by: Option<&Meta> = permit(&policy.authorizations, &Client { addr, tls });
        if by.is_some() != naive(&written, around, of_pod, &asks()) {
            return Some(format!("{addr} {text:?} is let in by {by:?}"));
        }
        routes.iter().find_map(|((kind, name), authorizations)| {
            let by = permit(*authorizations, &Client { addr, tls });
            let is_target = |target: &Value| {
                let target_kind = target["kind"].as_str().unwrap();
                let own =
                    if target["group"] == "policy.linkerd.io" { Kind::MeshHttpRoute.as_str() } else { target_kind };
                target_kind.ends_with("Route") && own == kind && target["name"] == *name
            };
            let probes = (kind.as_str(), name.as_str()) == ("default", "probe")
                && around.probe_networks.iter().any(|network| inside(network, asks().addr));
            let expected = probes || granted(&written, &asks(), is_target);
            (by.is_some() != expected).then(|| format!("{addr} {text:?} is let in to {kind} {name} by {by:?}"))
        })
    })
}

/// What the index lets in, the text of 6.4 lets in, and nobody else.
#[test]
fn authorization_is_what_its_text_says() {
    let asked = |of| Question::Inbound { namespace: "ns".into(), of, name: "a".into(), port: 8080 };
    let read = |(kind, written): (Kind, Value)| (written.clone(), policy::read(kind, written).unwrap());
    let all: Vec<(Value, Object)> = chance::sample(&written(), 2_000).into_iter().map(read).collect();
    chance::try_all(|seed| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let asked = asked(if rng.u8(..4) == 0 { WorkloadKind::ExternalWorkload } else { WorkloadKind::Pod });
        let around = Around::any(&mut rng);
        // One object of each name.
        let mut named: BTreeMap<Key, &(Value, Object)> = BTreeMap::new();
        for _ in 0..rng.usize(..12) {
            let object = pick(&mut rng, &all);
            named.insert(object.1.key(), object);
        }
        let objects: Vec<_> = named.into_values().collect();
        let clients: Vec<_> = (0..8).map(|_| (rng.usize(..ADDRESSES.len()), rng.usize(..=IDENTITIES.len()))).collect();
        if wrong(&around, &asked, &objects, &clients).is_none() {
            return Ok(());
        }
        let (objects, why) = chance::shortest(&objects, |objects| wrong(&around, &asked, objects, &clients));
        let objects: String = objects.iter().map(|(written, _)| format!("  {written}\n")).collect();
        Err(format!("{why}, where there are {around:?} and\n{objects}"))
    });
}
