//! The rows of the control plane's parts 6.2 to 6.5, each from objects of an API server to an answer.
//!
//! Each row writes its objects, waits for the one answer, and takes them away again: nothing of it is left to the next one.

use super::lab::{ApiServer, Lab, NAMESPACE, pod, service, slice};
use serde_json::{Value, json};
use weft_cluster::{
    Index, Key, Kind,
    index::{Answer, Question, Refusal, Target, WorkloadKind},
    policy::KINDS,
};
use weft_model::{
    ClientPolicy, Endpoint, Profile, ProtocolHint, ServerPolicy,
    policy::{
        inbound::ServerProtocol,
        outbound::{BackendKind, ClientProtocol, Distribution, OutboundRule, TcpRoute},
        route::{Filter, Rule},
    },
};
use weft_testkit::api_server::FakeApi;

/// What a row is about, its objects, the question, and the answer in short.
type Row = (&'static str, Vec<Value>, Question, &'static str);

/// What a row's question is about.
const WEB: &str = "web.ns.svc.cluster.local";
const SERVICE_IP: &str = "10.96.77.1";

async fn hold(api: &impl ApiServer, rows: Vec<Row>) {
    let mut kinds = vec![Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Node];
    kinds.extend(KINDS);
    let lab = Lab::of(api, &kinds).await;
    for (what, objects, question, expected) in rows {
        for object in &objects {
            api.write(object.clone()).await;
        }
        lab.until_said(what, &question, expected, said).await;
        for object in objects.iter().rev() {
            api.remove(object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap()).await;
        }
        let is_of_row = |key: &Key| key.namespace == NAMESPACE || key.kind == Kind::Node;
        lab.until("the objects of the row to be gone", |fed| !fed.objects.keys().any(is_of_row)).await;
    }
    lab.end().await;
}

fn said(index: &Index, question: &Question) -> String {
    match index.answer(question).answer {
        Err(Refusal::NotFound(_)) => "not found".to_owned(),
        Err(Refusal::Invalid(_)) => "invalid".to_owned(),
        Err(Refusal::Ambiguous(_)) => "ambiguous".to_owned(),
        Err(Refusal::NotCarriedOut(_)) => "not carried out".to_owned(),
        Ok(Answer::Destination(set)) => {
            let all: Vec<String> = set.seen_from(&index.place("n1")).values().map(endpoint).collect();
            all.join(" ")
        }
        Ok(Answer::Profile(told)) => profile(&told),
        Ok(Answer::Inbound(policy)) => inbound(&policy),
        Ok(Answer::Outbound(policy)) => outbound(&policy),
        Ok(Answer::Work { done }) => format!("{done}"),
    }
}

/// Its address, how it is reached, as whom, and by which name.
fn endpoint(Endpoint { addr, hint, tls, authority_override, .. }: &Endpoint) -> String {
    let hint = match hint {
        ProtocolHint::Unknown => "",
        ProtocolHint::H2 => "/h2",
        ProtocolHint::Opaque => "/opaque",
    };
    let tls = tls.iter().map(|tls| format!("={}", tls.identity.to_string().split('.').next().unwrap_or_default()));
    let named = authority_override.iter().map(|name| format!("@{name}"));
    format!("{addr}{hint}{}", tls.chain(named).collect::<String>())
}

fn profile(Profile { name, opaque, endpoint: at, routes, parent, .. }: &Profile) -> String {
    let name = name.iter().map(ToString::to_string);
    let parent = parent.iter().map(|parent| format!("of {} {}", parent.kind(), parent.name()));
    let opaque = opaque.then(|| "opaque".to_owned());
    let routes = routes.iter().map(|route| format!("route {}", route.labels["route"]));
    let all: Vec<String> = name.chain(parent).chain(opaque).chain(at.as_ref().map(endpoint)).chain(routes).collect();
    all.join(" ")
}

/// By which object, what is spoken, by which routes, and who may call.
fn inbound(ServerPolicy { meta, protocol, authorizations }: &ServerPolicy) -> String {
    let (spoken, routes, limited) = match protocol {
        ServerProtocol::Detect { routes, rate_limit, .. } => {
            ("detect", names(routes.iter().map(|r| &r.meta)), rate_limit.is_some())
        }
        ServerProtocol::Http1 { routes, rate_limit } => {
            ("http1", names(routes.iter().map(|r| &r.meta)), rate_limit.is_some())
        }
        ServerProtocol::Http2 { routes, rate_limit } => {
            ("http2", names(routes.iter().map(|r| &r.meta)), rate_limit.is_some())
        }
        ServerProtocol::Grpc { routes } => ("grpc", names(routes.iter().map(|r| &r.meta)), false),
        ServerProtocol::Opaque => ("opaque", String::new(), false),
        ServerProtocol::Tls => ("tls", String::new(), false),
    };
    let who = names(authorizations.iter().map(|a| &a.meta));
    let limited = if limited { " limited" } else { "" };
    format!("{} {spoken}({routes}) from({who}){limited}", meta.name())
}

fn names<'m>(metas: impl Iterator<Item = &'m weft_model::Meta>) -> String {
    metas.map(weft_model::Meta::name).collect::<Vec<_>>().join(",")
}

/// By which object, what is spoken, and by which routes, each with where it goes.
fn outbound(ClientPolicy { meta, protocol }: &ClientPolicy) -> String {
    let (spoken, routes): (_, Vec<String>) = match protocol {
        ClientProtocol::Detect { http1, .. } => {
            ("detect", http1.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Http1(http) => {
            ("http1", http.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Http2(http) => {
            ("http2", http.routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Grpc { routes, .. } => {
            ("grpc", routes.iter().map(|r| of_rules(r.meta.name(), &r.rules)).collect())
        }
        ClientProtocol::Tls(routes) => ("tls", routes.iter().map(|r| of_connections(&r.route)).collect()),
        ClientProtocol::Opaque(route) => ("opaque", route.iter().map(of_connections).collect()),
    };
    format!("{} {spoken} {}", meta.name(), routes.join(" "))
}

fn of_rules<M>(name: &str, rules: &[Rule<M, OutboundRule>]) -> String {
    let rules = rules.iter().map(|rule| {
        let retry = rule.does.retry.as_ref().map_or(String::new(), |retry| format!("+{}", retry.max_retries));
        format!("{}{}{retry}", to(&rule.does.backends), ends(&rule.filters))
    });
    format!("{name}:{}", rules.collect::<Vec<_>>().join(","))
}

fn of_connections(route: &TcpRoute) -> String {
    format!("{}:{}{}", route.meta.name(), to(&route.backends), ends(&route.filters))
}

fn to(backends: &Distribution) -> String {
    let each = backends.iter().map(|of| match &of.backend.kind {
        BackendKind::Balance { target, .. } => target.name.as_str().split('.').next().unwrap_or_default().to_owned(),
        BackendKind::Forward(_) => "itself".to_owned(),
        BackendKind::Missing => "nobody".to_owned(),
    });
    each.collect::<Vec<_>>().join("|")
}

/// What becomes of requests that go nowhere.
fn ends(filters: &[Filter]) -> &'static str {
    match filters.first() {
        Some(Filter::Forbidden) => "!forbidden",
        Some(Filter::HttpFailure { status: 403, .. }) => "!403",
        Some(Filter::GrpcFailure { code: 7, .. }) => "!7",
        _ => "",
    }
}

fn merged(mut object: Value, patch: Value) -> Value {
    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
            }
            (into, from) => *into = from,
        }
    }
    merge(&mut object, patch);
    object
}

/// The Service `web`, which has several ports.
fn web(patch: Value) -> Value {
    let port = |name: &str, port: u16, target: Value, protocol: Option<&str>| {
        let mut value = json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP"});
        if let Some(protocol) = protocol {
            value["appProtocol"] = json!(protocol);
        }
        value
    };
    let ports = json!([
        port("http", 80, json!("http"), None),
        port("db", 5432, json!(5432), None),
        port("plain", 81, json!(8080), Some("http")),
        port("h2c", 82, json!(8080), Some("kubernetes.io/h2c")),
        port("odd", 83, json!(8080), Some("example.com/odd")),
    ]);
    merged(merged(service(), json!({"spec": {"ports": ports}})), patch)
}

/// Pod `a`, which listens on 8080 under the name `http`.
fn a(patch: Value) -> Value {
    let ports = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    let containers = json!([{"name": "web", "image": "web", "ports": ports}]);
    merged(merged(pod("a", "10.1.0.1"), json!({"spec": {"containers": containers}})), patch)
}

/// The slice of both, with an endpoint per pod and as much more of each.
fn slices(endpoints: &[(&str, &str, Value)]) -> Value {
    let mut slice = slice("web-1", &endpoints.iter().map(|(pod, ip, _)| (*pod, *ip)).collect::<Vec<_>>());
    slice["ports"] = json!([{"name": "http", "port": 8080}, {"name": "db", "port": 5432}]);
    for (i, (.., patch)) in endpoints.iter().enumerate() {
        slice["endpoints"][i] = merged(slice["endpoints"][i].clone(), patch.clone());
    }
    slice
}

fn behind() -> Vec<Value> {
    vec![web(json!({})), a(json!({})), slices(&[("a", "10.1.0.1", json!({}))])]
}

fn with(more: impl IntoIterator<Item = Value>) -> Vec<Value> {
    behind().into_iter().chain(more).collect()
}

fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

fn node(zone: &str) -> Value {
    json!({"kind": "Node", "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": zone}}})
}

fn destination(path: &str) -> Question {
    Question::Destination(path.parse().unwrap())
}

fn target(path: &str) -> Target {
    path.parse().map_or_else(|_| Target::Name(path.parse().unwrap()), Target::Addr)
}

fn profiled(path: &str) -> Question {
    Question::Profile { from: NAMESPACE.to_owned(), target: target(path) }
}

fn port(port: u16) -> Question {
    Question::Inbound { namespace: NAMESPACE.to_owned(), of: WorkloadKind::Pod, name: "a".to_owned(), port }
}

fn sent(path: &str) -> Question {
    Question::Outbound { from: NAMESPACE.to_owned(), target: target(path) }
}

fn server(spec: Value) -> Value {
    object("Server", "s", merged(json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": 8080}), spec))
}

#[tokio::test]
async fn what_is_behind_a_name() {
    endpoints(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.2.
pub(crate) async fn endpoints(api: &impl ApiServer) {
    let at = |port: u16| destination(&format!("{WEB}:{port}"));
    let headless = json!({"spec": {"clusterIP": "None"}});
    let two = |first: Value, second: Value| {
        vec![
            web(json!({})),
            a(json!({})),
            pod("b", "10.1.0.2"),
            node("east"),
            slices(&[("a", "10.1.0.1", first), ("b", "10.1.0.2", second)]),
        ]
    };
    let zone = |zone: &str| json!({"zone": zone, "hints": {"forZones": [{"name": zone}]}});
    let local = |policy: &str| {
        let mut all = two(json!({"nodeName": "n1"}), json!({"nodeName": "n2"}));
        all[0] = web(json!({"spec": {"internalTrafficPolicy": policy}}));
        all
    };
    let families = json!({"status": {"podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]}});
    let mut six = slice("web-6", &[("a", "fd00::1")]);
    (six["addressType"], six["ports"]) = (json!("IPv6"), json!([{"name": "http", "port": 8080}]));
    let mut gateway = slice("web-1", &[("a", "192.0.2.1")]);
    gateway["endpoints"][0].as_object_mut().unwrap().remove("targetRef");
    gateway["ports"] = json!([{"name": "http", "port": 4143}]);
    gateway["metadata"]["annotations"] = json!({
        "mirror.linkerd.io/remote-svc-fq-name": "web.shop.svc.east.local",
        "mirror.linkerd.io/remote-gateway-identity": "gateway.mc.serviceaccount.identity.linkerd.east.local",
    });
    let discovered = json!({"multicluster.linkerd.io/remote-discovery": "web@east"});
    let named = json!({"spec": {"hostname": "web-0", "subdomain": "web"}});
    let label = json!({"metadata": {"labels": {"linkerd.io/control-plane-ns": "another"}}});
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let mut outside = web(external);
    for field in ["clusterIP", "selector"] {
        outside["spec"].as_object_mut().unwrap().remove(field);
    }
    let in_pod = |annotations: Value| vec![web(json!({})), a(annotated(annotations)), behind().remove(2)];
    let rows: Vec<Row> = vec![
        ("no Service", vec![], at(80), "not found"),
        ("no name of a Service", vec![], destination("example.com:80"), "invalid"),
        ("only another name", vec![outside], at(80), "invalid"),
        ("in other clusters", vec![web(annotated(discovered))], at(80), "not carried out"),
        ("a port by its name", behind(), at(80), "10.1.0.1:8080/h2=web"),
        ("a port that is not declared", behind(), at(99), "10.1.0.1:99/h2=web"),
        ("a usual opaque port", behind(), at(5432), "10.1.0.1:5432/opaque=web"),
        (
            "opaque by annotation",
            in_pod(json!({"config.linkerd.io/opaque-ports": "http"})),
            at(80),
            "10.1.0.1:8080/opaque=web",
        ),
        ("opaque by a Server", with([server(json!({"proxyProtocol": "opaque"}))]), at(80), "10.1.0.1:8080/opaque=web"),
        (
            "not opaque by a Server",
            with([server(json!({"port": 5432, "proxyProtocol": "HTTP/1"}))]),
            at(5432),
            "10.1.0.1:5432/h2=web",
        ),
        ("past its proxy", in_pod(json!({"config.linkerd.io/skip-inbound-ports": "8080"})), at(80), "10.1.0.1:8080"),
        ("of another mesh", vec![web(json!({})), a(label), behind().remove(2)], at(80), "10.1.0.1:8080"),
        ("not ready", two(json!({"conditions": {"ready": false}}), json!({})), at(80), "10.1.0.2:8080/h2=web"),
        (
            "headless",
            vec![web(headless.clone()), a(json!({})), slices(&[("a", "10.1.0.1", json!({}))])],
            at(80),
            "10.1.0.1:8080/h2=web",
        ),
        (
            "one pod of a StatefulSet",
            vec![
                web(headless),
                a(named),
                pod("b", "10.1.0.2"),
                slices(&[
                    ("a", "10.1.0.1", json!({"hostname": "web-0"})),
                    ("b", "10.1.0.2", json!({"hostname": "web-1"})),
                ]),
            ],
            destination(&format!("web-0.{WEB}:80")),
            "10.1.0.1:8080/h2=web",
        ),
        ("hints", two(zone("east"), zone("west")), at(80), "10.1.0.1:8080/h2=web"),
        ("not all have hints", two(zone("east"), json!({})), at(80), "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web"),
        (
            "hints for nobody here",
            two(zone("north"), zone("west")),
            at(80),
            "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web",
        ),
        ("the node's own", local("Local"), at(80), "10.1.0.1:8080/h2=web"),
        ("of every node", local("Cluster"), at(80), "10.1.0.1:8080/h2=web 10.1.0.2:8080/h2=web"),
        (
            "both families",
            vec![web(json!({})), a(families), slices(&[("a", "10.1.0.1", json!({}))]), six],
            at(80),
            "[fd00::1]:8080/h2=web",
        ),
        (
            "a gateway of another cluster",
            vec![web(json!({})), gateway],
            at(80),
            "192.0.2.1:4143/h2=gateway@web.shop.svc.east.local:80",
        ),
    ];
    hold(api, rows).await;
}

#[tokio::test]
async fn what_an_address_is() {
    profiles(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.3.
pub(crate) async fn profiles(api: &impl ApiServer) {
    let host_port = json!([{"name": "http", "containerPort": 8080, "hostPort": 9090, "protocol": "TCP"}]);
    let containers = json!([{"name": "web", "image": "web", "ports": host_port}]);
    let on_node =
        json!({"spec": {"containers": containers}, "status": {"hostIP": "10.0.0.9", "hostIPs": [{"ip": "10.0.0.9"}]}});
    let condition = json!({"method": "GET"});
    let sp = object("ServiceProfile", WEB, json!({"routes": [{"name": "get", "condition": condition}]}));
    let opaque = annotated(json!({"config.linkerd.io/opaque-ports": "http"}));
    let headless = json!({"spec": {"clusterIP": "None"}});
    let named = json!({"spec": {"hostname": "web-0", "subdomain": "web"}});
    let is = "web.ns.svc.cluster.local of Service web";
    let rows: Vec<Row> = vec![
        ("an address of a Service", behind(), profiled(&format!("{SERVICE_IP}:80")), is),
        ("its name", behind(), profiled(&format!("{WEB}:80")), is),
        (
            "a usual opaque port",
            behind(),
            profiled(&format!("{SERVICE_IP}:5432")),
            "web.ns.svc.cluster.local of Service web opaque",
        ),
        (
            "opaque by annotation",
            vec![web(opaque)],
            profiled(&format!("{SERVICE_IP}:80")),
            "web.ns.svc.cluster.local of Service web opaque",
        ),
        ("a port that is not declared", behind(), profiled(&format!("{SERVICE_IP}:99")), ""),
        ("no Service", vec![], profiled(&format!("{WEB}:80")), "not found"),
        ("no name of a Service", vec![], profiled("example.com:80"), "invalid"),
        ("an address of a pod", behind(), profiled("10.1.0.1:8080"), "10.1.0.1:8080/h2=web"),
        ("an opaque port of a pod", behind(), profiled("10.1.0.1:5432"), "opaque 10.1.0.1:5432/opaque=web"),
        ("two pods of one address", vec![a(json!({})), pod("b", "10.1.0.1")], profiled("10.1.0.1:8080"), "ambiguous"),
        ("a port of the pod's node", vec![a(on_node.clone())], profiled("10.0.0.9:9090"), "10.1.0.1:8080/h2=web"),
        ("another port of its node", vec![a(on_node)], profiled("10.0.0.9:30080"), "10.0.0.9:30080"),
        ("an address that nobody knows", vec![], profiled("10.1.9.9:80"), "10.1.9.9:80"),
        ("an opaque port there", vec![], profiled("10.1.9.9:3306"), "opaque 10.1.9.9:3306"),
        (
            "one pod of a StatefulSet",
            vec![web(headless), a(named)],
            profiled(&format!("web-0.{WEB}:8080")),
            "10.1.0.1:8080/h2=web",
        ),
        (
            "a ServiceProfile",
            with([sp]),
            profiled(&format!("{SERVICE_IP}:80")),
            "web.ns.svc.cluster.local of Service web route get",
        ),
    ];
    hold(api, rows).await;
}

#[tokio::test]
async fn how_a_port_is_served() {
    ports(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.4.
pub(crate) async fn ports(api: &impl ApiServer) {
    let in_pod = |annotations: Value| vec![a(annotated(annotations))];
    let served = |more: Vec<Value>| [vec![a(json!({})), server(json!({"proxyProtocol": "HTTP/1"}))], more].concat();
    let of_server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "s"});
    let authentication = |kind: &str, name: &str| json!({"group": "policy.linkerd.io", "kind": kind, "name": name});
    let policy = |target: Value, by: Value| {
        object("AuthorizationPolicy", "p", json!({"targetRef": target, "requiredAuthenticationRefs": by}))
    };
    let mesh_tls = object("MeshTLSAuthentication", "m", json!({"identities": ["*"]}));
    let network = object("NetworkAuthentication", "n", json!({"networks": [{"cidr": "10.0.0.0/8"}]}));
    let account = json!({"kind": "ServiceAccount", "name": "web"});
    let saz = object("ServerAuthorization", "z", json!({"server": {"name": "s"}, "client": {"unauthenticated": true}}));
    let route = object(
        "HTTPRoute",
        "r",
        json!({"parentRefs": [of_server], "rules": [{"matches": [{"path": {"value": "/a"}}]}]}),
    );
    let of_route = json!({"group": "policy.linkerd.io", "kind": "HTTPRoute", "name": "r"});
    let calls = object("GRPCRoute", "g", json!({"parentRefs": [of_server], "rules": []}));
    let limit =
        object("HTTPLocalRateLimitPolicy", "l", json!({"targetRef": of_server, "total": {"requestsPerSecond": 9}}));
    let probe = json!([{"name": "web", "image": "web", "livenessProbe": {"httpGet": {"path": "/live", "port": 8080}}}]);
    let namespace = json!({"kind": "Namespace", "name": NAMESPACE});
    let rows: Vec<Row> = vec![
        ("no pod", vec![], port(8080), "not found"),
        (
            "the default policy",
            vec![a(json!({}))],
            port(8080),
            "all-unauthenticated detect(default) from(all-unauthenticated)",
        ),
        (
            "another default",
            in_pod(json!({"config.linkerd.io/default-inbound-policy": "deny"})),
            port(8080),
            "deny detect(default) from()",
        ),
        (
            "an identity is required",
            in_pod(json!({"config.linkerd.io/proxy-require-identity-inbound-ports": "8080"})),
            port(8080),
            "all-authenticated detect(default) from(all-authenticated)",
        ),
        (
            "opaque by annotation",
            in_pod(json!({"config.linkerd.io/opaque-ports": "8080"})),
            port(8080),
            "all-unauthenticated opaque() from(all-unauthenticated)",
        ),
        (
            "probes",
            vec![a(json!({"spec": {"containers": probe}}))],
            port(8080),
            "all-unauthenticated detect(default,probe) from(all-unauthenticated)",
        ),
        ("a Server denies", served(vec![]), port(8080), "s http1(default) from()"),
        (
            "its access",
            vec![a(json!({})), server(json!({"accessPolicy": "audit", "proxyProtocol": "unknown"}))],
            port(8080),
            "s detect(default) from(audit)",
        ),
        (
            "bytes by a Server",
            vec![a(json!({})), server(json!({"proxyProtocol": "opaque"}))],
            port(8080),
            "s opaque() from()",
        ),
        ("a ServerAuthorization", served(vec![saz]), port(8080), "s http1(default) from(z)"),
        (
            "by mesh TLS",
            served(vec![policy(of_server.clone(), json!([authentication("MeshTLSAuthentication", "m")])), mesh_tls]),
            port(8080),
            "s http1(default) from(p)",
        ),
        (
            "by network",
            served(vec![policy(of_server.clone(), json!([authentication("NetworkAuthentication", "n")])), network]),
            port(8080),
            "s http1(default) from(p)",
        ),
        (
            "by account",
            served(vec![policy(of_server.clone(), json!([account]))]),
            port(8080),
            "s http1(default) from(p)",
        ),
        (
            "what is required is not there",
            served(vec![policy(of_server.clone(), json!([authentication("MeshTLSAuthentication", "m")]))]),
            port(8080),
            "s http1(default) from()",
        ),
        ("of the namespace", served(vec![policy(namespace, json!([]))]), port(8080), "s http1(default) from(p)"),
        ("a route", served(vec![route.clone()]), port(8080), "s http1(r) from()"),
        (
            "a policy of a route lets in there alone",
            served(vec![route, policy(of_route, json!([]))]),
            port(8080),
            "s http1(r) from()",
        ),
        (
            "a route of gRPC",
            vec![a(json!({})), server(json!({"proxyProtocol": "gRPC"})), calls],
            port(8080),
            "s grpc(g) from()",
        ),
        ("a limit", served(vec![limit]), port(8080), "s http1(default) from() limited"),
    ];
    hold(api, rows).await;
}

#[tokio::test]
async fn how_traffic_behaves() {
    traffic(&FakeApi::start().await.unwrap()).await;
}

/// Part 6.5.
pub(crate) async fn traffic(api: &impl ApiServer) {
    let of = |kind: &str, name: &str, parent: Value, backends: Value| {
        object(kind, name, json!({"parentRefs": [parent], "rules": [{"backendRefs": backends}]}))
    };
    let parent = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
    let known = json!([{"name": "web", "port": 80}]);
    let route = |kind: &str| of(kind, "r", parent.clone(), known.clone());
    let at = |port: u16| sent(&format!("{SERVICE_IP}:{port}"));
    let gone = json!([{"name": "web", "port": 80, "weight": 9}, {"name": "gone", "port": 80}]);
    let retried = annotated(json!({"retry.linkerd.io/http": "5xx", "retry.linkerd.io/limit": "2"}));
    let opaque = annotated(json!({"config.linkerd.io/opaque-ports": "80"}));
    let egress = |policy: &str, annotations: Value| {
        let network = json!({"trafficPolicy": policy, "networks": [{"cidr": "192.0.2.0/24"}]});
        merged(object("EgressNetwork", "out", network), annotated(annotations))
    };
    let out = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let itself = json!([{"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out"}]);
    let away = |port: u16| sent(&format!("192.0.2.1:{port}"));
    let rows: Vec<Row> = vec![
        ("no Service", vec![], sent(&format!("{WEB}:80")), "not found"),
        ("a Service by its name", behind(), sent(&format!("{WEB}:80")), "web detect http:web"),
        ("by its address", behind(), at(80), "web detect http:web"),
        ("a port that is not declared", behind(), at(99), "web opaque undefined-port:web!forbidden"),
        ("appProtocol http", behind(), at(81), "web http1 http:web"),
        ("appProtocol h2c", behind(), at(82), "web http2 http:web"),
        ("another appProtocol", behind(), at(83), "web opaque opaq:web"),
        ("a usual opaque port", behind(), at(5432), "web opaque opaq:web"),
        ("opaque by annotation", vec![web(opaque)], at(80), "web opaque opaq:web"),
        ("an HTTPRoute", with([route("HTTPRoute")]), at(80), "web detect r:web"),
        ("of one port alone", with([route("HTTPRoute")]), at(81), "web http1 http:web"),
        ("a GRPCRoute", with([route("GRPCRoute")]), at(80), "web grpc r:web"),
        (
            "which comes first",
            with([route("HTTPRoute"), of("GRPCRoute", "g", parent.clone(), known.clone())]),
            at(80),
            "web grpc g:web",
        ),
        (
            "a TLSRoute",
            with([merged(route("TLSRoute"), json!({"spec": {"hostnames": ["a.example"]}}))]),
            at(80),
            "web tls r:web",
        ),
        ("a TCPRoute", with([route("TCPRoute")]), at(80), "web opaque r:web"),
        (
            "a backend that is not there",
            with([of("HTTPRoute", "r", parent.clone(), gone)]),
            at(80),
            "web detect r:web|nobody",
        ),
        ("retries of a Service", vec![web(retried)], at(80), "web detect http:web+2"),
        ("outside of the cluster", vec![], away(443), "egress-fallback detect egress-fallback:itself"),
        ("inside of it, and nobody", vec![], sent("10.1.9.9:80"), "not found"),
        ("an EgressNetwork allows", vec![egress("Allow", json!({}))], away(443), "out detect http-egress-allow:itself"),
        ("or denies", vec![egress("Deny", json!({}))], away(443), "out detect http-egress-deny:itself!403"),
        (
            "opaque by annotation",
            vec![egress("Deny", json!({"config.linkerd.io/opaque-ports": "443"}))],
            away(443),
            "out opaque tcp-egress-deny:itself!forbidden",
        ),
        (
            "and its routes let through",
            vec![egress("Deny", json!({})), of("HTTPRoute", "r", out.clone(), itself.clone())],
            away(443),
            "out detect r:itself http-egress-deny:itself!403",
        ),
        (
            "of TLS",
            vec![
                egress("Deny", json!({})),
                merged(of("TLSRoute", "r", out.clone(), itself.clone()), json!({"spec": {"hostnames": ["a.example"]}})),
            ],
            away(443),
            "out tls r:itself tls-egress-deny:itself!forbidden",
        ),
        (
            "of bytes",
            vec![egress("Deny", json!({})), of("TCPRoute", "r", out, itself)],
            away(443),
            "out opaque r:itself",
        ),
    ];
    hold(api, rows).await;
}
