//! How requests are read, and how what decides is named.

use super::*;
use crate::Kind::{
    AuthorizationPolicy, EgressNetwork, GrpcRoute, HttpRoute, MeshHttpRoute, NetworkAuthentication, Server,
};
use Verdict::{Allowed, Denied, Unknown};

fn told(index: &Index, client: &str, target: &str, request: &str, host: Option<&str>) -> Told {
    let (method, path) = request.split_once(' ').unwrap();
    let request = Request::new(method, path).unwrap().with_host(host).unwrap();
    let (client, target) = (Client::parse(client, "shop").unwrap(), Target::parse(target, "shop").unwrap());
    ask(index, &Asked { client: &client, target: &target, request: &request, address: None }).unwrap()
}

fn why(told: &Told) -> &str {
    told.answers[0].why.as_deref().unwrap_or_default()
}

fn route(kind: crate::Kind, name: &str, parent: Value, rules: Value) -> Object {
    object(kind, name, &json!({"parentRefs": [parent], "rules": rules}))
}

/// A Server of port 9000, and a policy that lets everybody into a route of it.
fn closed(protocol: &str) -> Vec<Object> {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": 9000, "proxyProtocol": protocol});
    vec![
        object(Server, "closed", &spec),
        object(NetworkAuthentication, "everybody", &json!({"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]})),
    ]
}

fn of_closed() -> Value {
    json!({"group": "policy.linkerd.io", "kind": "Server", "name": "closed"})
}

fn open(group: &str, name: &str) -> Object {
    let target = json!({"group": group, "kind": "HTTPRoute", "name": name});
    let everybody = json!([{"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "everybody"}]);
    object(AuthorizationPolicy, name, &json!({"targetRef": target, "requiredAuthenticationRefs": everybody}))
}

const GATEWAY: &str = "gateway.networking.k8s.io";

/// A route may look at the host as at a header, in which HTTP/1 says it.
#[test]
fn the_header_host_is_the_host_that_is_said() {
    let of_host = |value: Value| json!([{"matches": [{"headers": [value]}]}]);
    let web = || json!({"name": "Host", "value": "web:80"});
    let pattern = || json!({"name": "host", "type": "RegularExpression", "value": "web.*"});
    let served = |header: Value| {
        let route = route(HttpRoute, "host", of_closed(), of_host(header));
        routed([closed("unknown"), vec![route, open(GATEWAY, "host")]].concat())
    };
    let sent = |header: Value| {
        let service = json!({"group": "", "kind": "Service", "name": "web"});
        routed(vec![route(HttpRoute, "host", service, of_host(header))])
    };
    for (index, target) in [(served(web()), "po/web-0:9000"), (sent(web()), "svc/web:80")] {
        for (host, verdict) in [(Some("web:80"), Allowed), (Some("web"), Denied), (None, Unknown)] {
            let told = told(&index, "sa/bot", target, "GET /", host);
            assert_eq!(told.verdict, verdict, "{target} {host:?}: {told}");
            assert!(host.is_some() || why(&told).contains("web:80 is allowed and one that no route names"), "{told}");
        }
    }
    for (index, target) in [(served(pattern()), "po/web-0:9000"), (sent(pattern()), "svc/web:80")] {
        for (host, verdict) in [(Some("web:80"), Allowed), (Some("db"), Denied), (None, Unknown)] {
            let told = told(&index, "sa/bot", target, "GET /", host);
            assert_eq!(told.verdict, verdict, "{target} {host:?}: {told}");
            assert!(host.is_some() || why(&told).contains("by a regular expression"), "{told}");
        }
    }
}

/// A client's proxy follows a route letter by letter, a server's lets in what any server would read so.
#[test]
fn dots_are_read_by_servers_and_not_on_the_way() {
    let rules = |paths: &[&str]| json!([{"matches": paths.iter().map(|path| json!({"path": {"type": "PathPrefix", "value": path}})).collect::<Vec<_>>()}]);
    let out = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let index = routed(
        [
            closed("HTTP/1"),
            vec![
                object(EgressNetwork, "out", &json!({"trafficPolicy": "Deny"})),
                route(HttpRoute, "public", out, rules(&["/public"])),
                route(HttpRoute, "open", of_closed(), rules(&["/public"])),
                open(GATEWAY, "open"),
            ],
        ]
        .concat(),
    );
    for (path, by_client, by_server) in [
        ("/public/x", Allowed, Allowed),
        ("/public//x", Allowed, Allowed),
        ("/public/../admin", Allowed, Denied),
        ("/public/..;/admin", Allowed, Denied),
        ("//public", Denied, Denied),
        ("/x/../public", Denied, Denied),
        ("/%70ublic", Denied, Denied),
    ] {
        for (target, verdict) in [("192.0.2.7:443", by_client), ("po/web-0:9000", by_server)] {
            let told = told(&index, "sa/bot", target, &format!("GET {path}"), None);
            assert_eq!(told.verdict, verdict, "{target} {path}: {told}");
        }
    }
}

/// What a probe asks for is what the kubelet makes of it, and is let in as it is written.
#[test]
fn probes_are_let_in_by_any_path() {
    for (declared, sent, others) in [
        ("/health;full", "/health;full", ["/health", "/health;x"]),
        ("/a//b", "/a//b", ["/a/b", "//a//b"]),
        ("/a%2Fb%20c", "/a%2Fb%20c", ["/a/b%20c", "/a"]),
        ("/a b", "/a%20b", ["/a", "/a%2520b"]),
        ("live?full=1", "/live", ["/live/", "/"]),
    ] {
        let probe = json!({"httpGet": {"path": declared, "port": "http"}});
        let containers =
            json!([{"name": "web", "ports": [{"name": "http", "containerPort": 8080}], "livenessProbe": probe}]);
        let closed = object(Server, "closed", &json!({"podSelector": {}, "port": 8080, "proxyProtocol": "HTTP/1"}));
        let index = of_cluster(vec![pod("web-0", "10.0.0.1", &json!({"/spec/containers": containers})), closed]);
        let of = |path: &str| told(&index, "192.0.2.1", "po/web-0:8080", &format!("GET {path}"), None);
        let told = of(sent);
        let route = told.answers[0].route.as_ref().unwrap().to_string();
        assert_eq!((told.verdict, route.as_str()), (Allowed, "default:probe"), "{declared}: {told}");
        for other in others {
            assert_eq!(of(other).verdict, Denied, "{declared}: {other}");
        }
    }
}

/// A port of gRPC serves nothing else, with routes or without, whatever an EgressNetwork says.
#[test]
fn what_is_no_call_is_told_so() {
    let out = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let method = json!([{"matches": [{"method": {"service": "a.B"}}]}]);
    let egress = |policy: &str| {
        let network = object(EgressNetwork, "out", &json!({"trafficPolicy": policy}));
        routed(vec![network, route(GrpcRoute, "calls", out.clone(), method.clone())])
    };
    let service = json!({"group": "", "kind": "Service", "name": "web"});
    let of_service = routed(vec![route(GrpcRoute, "calls", service, method.clone())]);
    let (allowed, denied, bare) = (egress("Allow"), egress("Deny"), routed(closed("gRPC")));
    let at_egress = "EgressNetwork/out has GRPCRoutes at this port: it serves calls of gRPC alone (POST /SERVICE/METHOD), and GET / is none";
    let bare_says = "the port serves calls of gRPC alone (POST /SERVICE/METHOD), and GET / is none";
    for (index, target, request, verdict, says) in [
        (&allowed, "192.0.2.7:443", "GET /", Denied, at_egress),
        (&denied, "192.0.2.7:443", "GET /", Denied, at_egress),
        (&allowed, "192.0.2.7:443", "POST /x.Y/Z", Allowed, "leaves the mesh"),
        (&denied, "192.0.2.7:443", "POST /x.Y/Z", Denied, "traffic not allowed"),
        (&denied, "192.0.2.7:443", "POST /a.B/C", Allowed, "leaves the mesh"),
        (&of_service, "svc/web:80", "GET /", Denied, "Service/web has GRPCRoutes at this port"),
        (&of_service, "svc/web:80", "POST /x.Y/Z", Denied, "follows no route of Service/web"),
        (&bare, "po/web-0:9000", "GET /", Denied, bare_says),
        (&bare, "po/web-0:9000", "POST /x.Y/Z", Denied, "nothing lets anybody in there"),
    ] {
        let told = told(index, "sa/bot", target, request, None);
        assert!(told.verdict == verdict && why(&told).contains(says), "{target} {request}: {told}");
    }
}

/// Routes of one name may be of two groups, and of several namespaces.
#[test]
fn what_decides_is_named_as_closely_as_one_likes() {
    let at = |path: &str| json!([{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}]);
    let out =
        json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "namespace": "shop", "port": 443});
    let mut theirs = route(HttpRoute, "web", out.clone(), at("/theirs"));
    theirs.metadata_mut().unwrap().namespace = Some("other".to_owned());
    let index = routed(
        [
            closed("HTTP/1"),
            vec![
                object(HttpRoute, "web", &json!({"parentRefs": [of_closed(), out], "rules": at("/")})),
                open(GATEWAY, "web"),
                object(EgressNetwork, "out", &json!({"trafficPolicy": "Deny"})),
                route(MeshHttpRoute, "web", out, at("/mesh")),
                theirs,
            ],
        ]
        .concat(),
    );
    let check_by = |target: &str, path: &str, by: &str| {
        let case = format!(
            "namespace: shop\ncases:\n- {{client: sa/bot, target: '{target}', request: GET {path}, expect: allow, by: '{by}'}}\n"
        );
        let cases = Cases::read(Path::new("c.yaml"), &case, "default").unwrap();
        check(&index, &cases.cases[0]).failure.map(|failure| failure.why)
    };
    let out = "192.0.2.7:443";
    for (path, group, other) in [("/", GATEWAY, "policy.linkerd.io"), ("/mesh", "policy.linkerd.io", GATEWAY)] {
        for by in ["web", "HTTPRoute/web", &format!("httproute.{group}/web"), &format!("shop/HTTPRoute.{group}/web")] {
            assert_eq!(check_by(out, path, by), None, "{path} {by}");
        }
        for by in ["webs", "GRPCRoute/web", &format!("HTTPRoute.{other}/web"), "other/HTTPRoute/web"] {
            let why = check_by(out, path, by).unwrap();
            let says = format!("allowed by {by} is expected, and not by shop/HTTPRoute.{group}/web; allowed from");
            assert!(why.starts_with(&says), "{path} {by}: {why}");
        }
    }
    assert_eq!(check_by("po/web-0:9000", "/", "shop/AuthorizationPolicy.policy.linkerd.io/web"), None);
    // Programs are told all of it.
    let told = told(&index, "sa/bot", "po/web-0:9000", "GET /", None);
    let told = serde_json::to_value(&told).unwrap();
    let object =
        |group: &str, kind: &str, name: &str| json!({"group": group, "kind": kind, "namespace": "shop", "name": name});
    let answer = &told["answers"][0];
    assert_eq!(answer["by"], object("policy.linkerd.io", "AuthorizationPolicy", "web"));
    assert_eq!(answer["route"], object(GATEWAY, "HTTPRoute", "web"));
    assert_eq!(answer["server"], object("policy.linkerd.io", "Server", "closed"));
}
