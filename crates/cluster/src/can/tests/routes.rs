//! The way of a request by the routes of its client's proxy, and out of the cluster.

use super::*;

/// Service `web` with two pods that let in everybody, `canary` with one that lets in nobody at `/admin`, `head` that is headless, and
/// what is given.
pub(super) fn routed(more: Vec<Object>) -> Index {
    let service = |name: &str, spec: Value| {
        let value = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        Object::Service(Box::new(serde_json::from_value(value).unwrap()))
    };
    let labels = |app: &str| json!({"/metadata/labels": {"app": app, "linkerd.io/control-plane-ns": "linkerd"}});
    let port = || json!([{"name": "http", "port": 80, "targetPort": 8080}]);
    let server = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}, "port": 8080, "accessPolicy": "all-unauthenticated"});
    let all = vec![
        service("web", json!({"clusterIP": "10.96.0.1", "selector": {"app": "web"}, "ports": port()})),
        service("canary", json!({"clusterIP": "10.96.0.2", "selector": {"app": "canary"}, "ports": port()})),
        service("empty", json!({"clusterIP": "10.96.0.3", "selector": {"app": "empty"}, "ports": port()})),
        service("head", json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": port()})),
        service("named", json!({"type": "ExternalName", "externalName": "a.example", "ports": port()})),
        pod("web-0", "10.0.0.1", &json!({})),
        pod("web-1", "10.0.0.2", &json!({})),
        pod("canary-0", "10.0.0.3", &labels("canary")),
        pod("plain-0", "10.0.0.4", &json!({"/metadata/labels": {"app": "plain"}})),
        object(crate::Kind::Server, "web", &server("web")),
        object(crate::Kind::Server, "canary", &server("canary")),
        object(
            crate::Kind::MeshHttpRoute,
            "open",
            &json!({"parentRefs": [{"group": "policy.linkerd.io", "kind": "Server", "name": "canary"}],
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/open"}}]}]}),
        ),
    ];
    of_cluster([all, more].concat())
}

fn of_parent(kind: crate::Kind, name: &str, parent: Value, rules: Value) -> Object {
    object(kind, name, &json!({"parentRefs": [parent], "rules": rules}))
}

/// Who is let in where is told of the pods that the client's proxy sends the request to, and of the request as it comes there.
#[test]
fn the_routes_of_the_clients_proxy_are_followed() {
    use Verdict::{Allowed, Denied, Unknown};
    let web = || json!({"group": "core", "kind": "Service", "name": "web"});
    let rule = |prefix: &str, rest: Value| {
        let mut rule = json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}]});
        rule.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        rule
    };
    let to = |names: &[(&str, u32)]| json!({"backendRefs": names.iter().map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight})).collect::<Vec<_>>()});
    let filter = |filter: Value| json!({"filters": [filter]});
    let rewritten = |path: &str| {
        let path = json!({"type": "ReplaceFullPath", "replaceFullPath": path});
        json!({"backendRefs": [{"name": "canary", "port": 80}], "filters": [{"type": "URLRewrite", "urlRewrite": {"path": path}}]})
    };
    let rules = json!([
        rule("/", to(&[("web", 1)])),
        rule("/canary", to(&[("canary", 1)])),
        rule("/split", to(&[("web", 9), ("canary", 1), ("empty", 0)])),
        rule("/missing", to(&[("web", 9), ("nobody", 1)])),
        rule("/named", to(&[("named", 1)])),
        rule("/undeclared", json!({"backendRefs": [{"name": "canary", "port": 8081}]})),
        rule("/another", json!({"backendRefs": [{"name": "canary", "port": 9000}]})),
        rule("/empty", to(&[("empty", 1)])),
        rule("/none", to(&[("web", 0)])),
        rule("/opened", rewritten("/open/x")),
        rule("/gone", filter(json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example"}}))),
        rule(
            "/odd",
            filter(json!({"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "X", "name": "y"}}))
        ),
    ]);
    let closed = json!({"podSelector": {"matchLabels": {"app": "canary"}}, "port": 9000, "accessPolicy": "deny"});
    let index = routed(vec![
        of_parent(crate::Kind::HttpRoute, "all", web(), rules),
        object(crate::Kind::Server, "closed", &closed),
    ]);
    let via = "HTTPRoute/all";
    for (client, path, verdict, pods, by, why) in [
        ("sa/web", "/", Allowed, vec!["shop/web-0 shop/web-1"], via, ""),
        ("sa/web", "/canary", Denied, vec!["shop/canary-0"], via, "no route of the port"),
        // Wherever a part of the requests goes, it is told of.
        ("sa/web", "/split", Denied, vec!["shop/canary-0", "shop/web-0 shop/web-1"], via, "no route of the port"),
        ("sa/web", "/missing", Denied, vec!["", "shop/web-0 shop/web-1"], via, "nobody"),
        ("sa/web", "/named", Denied, vec![""], via, "only another name"),
        // A port that a Service does not declare is taken for its pods': their policy of that port holds.
        ("sa/web", "/undeclared", Allowed, vec!["shop/canary-0"], via, "Service/canary declares no port 8081, and"),
        ("sa/web", "/another", Denied, vec!["shop/canary-0"], via, "Service/canary declares no port 9000, and"),
        ("sa/web", "/empty", Unknown, vec![""], via, "nothing runs behind svc/empty"),
        ("sa/web", "/none", Denied, vec![""], via, "weight"),
        ("sa/web", "/opened", Allowed, vec!["shop/canary-0"], via, ""),
        ("sa/web", "/gone", Allowed, vec![""], via, "redirect"),
        ("sa/web", "/odd", Denied, vec![""], via, "ExtensionRef"),
        // Routes of the Service's namespace are everybody's, and only who has no proxy follows none.
        ("other/sa/bot", "/missing", Denied, vec!["", "shop/web-0 shop/web-1"], via, "nobody"),
        ("po/plain-0", "/missing", Allowed, vec!["shop/web-0 shop/web-1"], "", ""),
        ("192.0.2.1", "/odd", Allowed, vec!["shop/web-0 shop/web-1"], "", ""),
    ] {
        for target in ["svc/web:http", "10.96.0.1:80"] {
            let told = asks(&index, client, target, &format!("GET {path}"), None).unwrap();
            let found: Vec<String> = told.answers.iter().map(|answer| answer.pods.join(" ")).collect();
            let said = told.answers[0].why.clone().unwrap_or_default();
            let vias = |answer: &Answer| answer.via.as_ref().map(ToString::to_string).unwrap_or_default();
            assert_eq!((told.verdict, found), (verdict, pods.iter().map(ToString::to_string).collect()), "{told}");
            assert!(told.answers.iter().all(|answer| vias(answer) == by), "{client} {target} {path}: {told}");
            assert!(said.contains(why), "{client} {target} {path}: {told}");
        }
    }
    // By a headless Service's name clients call its pods.
    let headed =
        of_parent(crate::Kind::HttpRoute, "all", json!({"group": "", "kind": "Service", "name": "head"}), json!([{}]));
    let told = asks(&routed(vec![headed]), "sa/web", "svc/head:80", "GET /", None).unwrap();
    assert!(told.verdict == Allowed && told.answers[0].via.is_none(), "{told}");
    // And what such a client connects to there is the port as it is said, not the one that is meant by it.
    let server = |name: &str, port: u16, policy: &str| {
        let selector = json!({"matchLabels": {"app": "web"}});
        object(crate::Kind::Server, name, &json!({"podSelector": selector, "port": port, "accessPolicy": policy}))
    };
    let services = json!([{"name": "http", "port": 9000, "targetPort": 8080}, {"name": "named", "port": 9001, "targetPort": "http"}]);
    let services = [("hl", "None"), ("addressed", "10.96.0.9")].map(|(name, ip)| {
        let spec = json!({"clusterIP": ip, "selector": {"app": "web"}, "ports": services});
        let service = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        Object::Service(Box::new(serde_json::from_value(service).unwrap()))
    });
    let servers = vec![server("dialled", 9000, "deny"), server("other", 9001, "deny")];
    let index = routed([services.to_vec(), servers].concat());
    for (client, target, verdict, port) in [
        ("sa/bot", "svc/hl:9000", Denied, 9000),
        ("sa/bot", "svc/hl:http", Denied, 9000),
        ("sa/bot", "svc/hl:9001", Denied, 9001),
        ("po/plain-0", "svc/hl:9000", Denied, 9000),
        ("sa/bot", "svc/addressed:9000", Allowed, 8080),
        ("sa/bot", "svc/addressed:named", Allowed, 8080),
        ("po/plain-0", "svc/addressed:9000", Allowed, 8080),
    ] {
        let told = asks(&index, client, target, "GET /", None).unwrap();
        assert_eq!((told.verdict, told.answers[0].port), (verdict, Some(port)), "{client} {target}: {told}");
    }
    // Another namespace's routes are its own clients' alone.
    let mut consumer = of_parent(
        crate::Kind::HttpRoute,
        "mine",
        json!({"group": "", "kind": "Service", "name": "web", "namespace": "shop"}),
        json!([to(&[("no", 1)])]),
    );
    consumer.metadata_mut().unwrap().namespace = Some("other".to_owned());
    let index = routed(vec![consumer]);
    let bot = "bot.other.serviceaccount.identity.linkerd.cluster.local";
    for (client, verdict) in [("other/sa/bot", Denied), (bot, Denied), ("sa/bot", Allowed), ("spiffe://a/b", Allowed)] {
        assert_eq!(asks(&index, client, "svc/web:80", "GET /", None).unwrap().verdict, verdict, "{client}");
    }
}

#[test]
fn each_kind_of_route_and_what_comes_before_them_is_followed() {
    use Verdict::{Allowed, Denied, Unknown};
    let web = || json!({"group": "core", "kind": "Service", "name": "web"});
    let to = |name: &str| json!([{"backendRefs": [{"name": name, "port": 80}]}]);
    let told = |more: Vec<Object>, request: &str, host: Option<&str>| {
        let (method, path) = request.split_once(' ').unwrap();
        let request = Request::new(method, path).unwrap().with_host(host).unwrap();
        let (client, target) = (Client::parse("sa/bot", "shop").unwrap(), Target::parse("svc/web:80", "shop").unwrap());
        ask(&routed(more), &Asked { client: &client, target: &target, request: &request, address: None }).unwrap()
    };
    let of = |kind, rules| vec![of_parent(kind, "r", web(), rules)];
    let grpc = || {
        of(
            crate::Kind::GrpcRoute,
            json!([{"matches": [{"method": {"service": "a.B"}}], "backendRefs": [{"name": "no", "port": 80}]}]),
        )
    };
    let tls = |backend: &str| {
        let mut route = json!({"metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [web()], "hostnames": ["a.example"], "rules": to(backend)}});
        route["apiVersion"] = "gateway.networking.k8s.io/v1".into();
        vec![policy::read(crate::Kind::TlsRoute, route).unwrap()]
    };
    for (objects, request, host, verdict, why) in [
        (grpc(), "POST /a.B/C", None, Denied, "no Service shop/no"),
        (grpc(), "POST /x.Y/C", None, Denied, "follows no route of Service/web"),
        (tls("no"), "GET /", None, Unknown, "--host"),
        (
            tls("no"),
            "GET /",
            Some("a.example:443"),
            Denied,
            "if it is TLS for a.example: what is none, or names no server, is refused; ",
        ),
        (tls("no"), "GET /", Some("a.example:443"), Denied, "no Service shop/no"),
        (tls("no"), "GET /", Some("b.example"), Denied, "if it is TLS for b.example: "),
        (tls("no"), "GET /", Some("b.example"), Denied, "follows no route of Service/web"),
        (tls("web"), "GET /", Some("a.example"), Allowed, "if it is TLS for a.example: "),
    ] {
        let told = told(objects, request, host);
        assert!(told.verdict == verdict && told.summary().contains(why), "{request} {host:?}: {told}");
    }
    // A ServiceProfile comes before routes.
    let profile = |spec: Value| {
        let of = json!({"metadata": {"name": "web.shop.svc.cluster.local", "namespace": "shop"}, "spec": spec});
        policy::read(crate::Kind::ServiceProfile, of).unwrap()
    };
    let leads = |name: &str| {
        let to = format!("{name}.shop.svc.cluster.local:80");
        profile(json!({"dstOverrides": [{"authority": to, "weight": "1"}], "routes": []}))
    };
    let missing = of(crate::Kind::HttpRoute, to("no")).remove(0);
    for (more, verdict, via) in [
        (vec![missing.clone()], Denied, "HTTPRoute/r"),
        (vec![missing.clone(), leads("web")], Allowed, "ServiceProfile/web.shop.svc.cluster.local"),
        (vec![leads("no")], Denied, "ServiceProfile/web.shop.svc.cluster.local"),
    ] {
        let told = told(more, "GET /", None);
        assert_eq!(
            (told.verdict, told.answers[0].via.as_ref().unwrap().to_string().as_str()),
            (verdict, via),
            "{told}"
        );
    }
}

/// Routes may be told apart by the host: without one nothing is told that does not hold for each.
#[test]
fn a_host_that_nobody_has_said_is_every_host() {
    use crate::Kind::{AuthorizationPolicy, GrpcRoute, HttpRoute, NetworkAuthentication, Server};
    use Verdict::{Allowed, Denied, Unknown};
    let route = |kind, name: &str, parent: Value, hosts: &[&str], rules: Value| {
        object(kind, name, &json!({"parentRefs": [parent], "hostnames": hosts, "rules": rules}))
    };
    // At the server: what is let in by a route, each of it a route of its own.
    let guarded = || json!({"group": "policy.linkerd.io", "kind": "Server", "name": "guarded"});
    let open = |kind: crate::Kind, name: &str| {
        let target = json!({"group": "gateway.networking.k8s.io", "kind": kind.as_str(), "name": name});
        let everybody = json!([{"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "everybody"}]);
        object(AuthorizationPolicy, name, &json!({"targetRef": target, "requiredAuthenticationRefs": everybody}))
    };
    let served = |protocol: &str, more: Vec<Object>| {
        let server =
            json!({"podSelector": {"matchLabels": {"app": "guarded"}}, "port": 8080, "proxyProtocol": protocol});
        let labels = json!({"/metadata/labels": {"app": "guarded", "linkerd.io/control-plane-ns": "linkerd"}});
        let all = vec![
            object(Server, "guarded", &server),
            object(NetworkAuthentication, "everybody", &json!({"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]})),
            pod("guarded-0", "10.0.0.9", &labels),
        ];
        routed([all, more].concat())
    };
    let of_server = |kind, name, hosts: &[&str]| route(kind, name, guarded(), hosts, json!([{}]));
    let http = |more: Vec<Object>| {
        let any = vec![of_server(HttpRoute, "any", &[]), open(HttpRoute, "any")];
        served("HTTP/1", [any, more].concat())
    };
    let web = || of_server(HttpRoute, "web", &["web", "web.shop"]);
    let below = || of_server(HttpRoute, "below", &["*.example.com"]);
    let grpc = || {
        let all = vec![of_server(GrpcRoute, "any", &[]), of_server(GrpcRoute, "web", &["web"])];
        served("gRPC", [all, vec![open(GrpcRoute, "any")]].concat())
    };
    let (any_and_web, any_and_below) = (http(vec![web()]), http(vec![below()]));
    let both_open = http(vec![web(), open(HttpRoute, "web")]);
    let none_open = served("HTTP/1", vec![web()]);
    let grpc = grpc();
    let depends = "it depends on the host that the request asks for: ";
    let at_the_server = [
        (&any_and_web, None, Unknown, "one that no route names is allowed and web is denied; say which it is (--host)"),
        (&any_and_web, Some("web:8080"), Denied, ""),
        (&any_and_web, Some("other"), Allowed, ""),
        (&any_and_below, None, Unknown, "one that no route names is allowed and *.example.com is denied"),
        (&any_and_below, Some("a.example.com"), Denied, ""),
        (&both_open, None, Allowed, ""),
        (&none_open, None, Denied, ""),
        (&grpc, None, Unknown, depends),
        (&grpc, Some("web"), Denied, ""),
    ];
    for (index, host, verdict, why) in at_the_server {
        let (method, path) = ("POST", "/a.B/C");
        let request = Request::new(method, path).unwrap().with_host(host).unwrap();
        let (client, target) =
            (Client::parse("sa/bot", "shop").unwrap(), Target::parse("po/guarded-0:8080", "shop").unwrap());
        let told = ask(index, &Asked { client: &client, target: &target, request: &request, address: None }).unwrap();
        let said = told.answers[0].why.clone().unwrap_or_default();
        assert!(told.verdict == verdict && said.contains(why), "{host:?}: {told}");
        assert!(verdict != Unknown || told.answers.len() == 1 && said.starts_with(depends), "{host:?}: {told}");
    }
    // By which it is let in stands there for each of the hosts.
    let told = asks(&both_open, "sa/bot", "po/guarded-0:8080", "GET /", None).unwrap();
    let by: Vec<String> = told.answers.iter().map(|answer| answer.by.as_ref().unwrap().to_string()).collect();
    assert_eq!(by, ["AuthorizationPolicy/any", "AuthorizationPolicy/web"], "{told}");
    // Cases are neither as expected nor failed.
    let cases = "namespace: shop\ncases:\n- {client: sa/bot, target: 'po/guarded-0:8080', expect: allow}\n";
    let cases = Cases::read(Path::new("c.yaml"), cases, "default").unwrap();
    assert!(check(&any_and_web, &cases.cases[0]).failure.unwrap().unknown);

    // At the client.
    let service = || json!({"group": "", "kind": "Service", "name": "web"});
    let to = |name: &str| json!([{"backendRefs": [{"name": name, "port": 80}]}]);
    let two = |kind, any: &str, web: &str| {
        routed(vec![
            route(kind, "any", service(), &[], to(any)),
            route(kind, "host", service(), &["web", "*.web"], to(web)),
        ])
    };
    let (elsewhere, nowhere) = (two(HttpRoute, "web", "canary"), two(HttpRoute, "web", "no"));
    let (alike, grpc) = (two(HttpRoute, "web", "web"), two(GrpcRoute, "web", "no"));
    let denied = routed(vec![route(HttpRoute, "host", service(), &["web"], to("web"))]);
    for (index, client, path, host, verdict, why) in [
        (&nowhere, "sa/bot", "/", None, Unknown, depends),
        (&nowhere, "sa/bot", "/", Some("web.web"), Denied, "no Service shop/no"),
        (&nowhere, "sa/bot", "/", Some("other"), Allowed, ""),
        (&elsewhere, "sa/bot", "/", None, Unknown, depends),
        (&elsewhere, "sa/bot", "/open", None, Allowed, ""),
        (&alike, "sa/bot", "/", None, Allowed, ""),
        (&grpc, "sa/bot", "/a.B/C", None, Unknown, depends),
        (&denied, "sa/bot", "/", None, Unknown, "web is allowed and one that no route names is denied"),
        // Without a proxy no routes are followed.
        (&nowhere, "po/plain-0", "/", None, Allowed, ""),
    ] {
        for target in ["svc/web:80", "10.96.0.1:80"] {
            let request = Request::new("POST", path).unwrap().with_host(host).unwrap();
            let (client, target) = (Client::parse(client, "shop").unwrap(), Target::parse(target, "shop").unwrap());
            let asked = Asked { client: &client, target: &target, request: &request, address: None };
            let told = ask(index, &asked).unwrap();
            let said = told.answers[0].why.clone().unwrap_or_default();
            assert!(told.verdict == verdict && said.contains(why), "{path} {host:?}: {told}");
        }
    }
    // Both ways are told of where both are open.
    let told = asks(&elsewhere, "sa/bot", "svc/web:80", "GET /open", None).unwrap();
    let via: Vec<String> = told.answers.iter().map(|answer| answer.via.as_ref().unwrap().to_string()).collect();
    assert_eq!(via, ["HTTPRoute/host", "HTTPRoute/any"], "{told}");
    // The host that a client's route writes is known at the server, where others are not.
    let rewrite = |host: &str| {
        let filter = json!({"type": "URLRewrite", "urlRewrite": {"hostname": host}});
        let rules = json!([{"filters": [filter], "backendRefs": [{"name": "canary", "port": 80}]}]);
        let of_canary = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "canary"});
        routed(vec![
            route(HttpRoute, "written", service(), &[], rules),
            route(HttpRoute, "canary", of_canary, &["canary"], json!([{}])),
        ])
    };
    for (host, verdict) in [("canary", Allowed), ("other", Denied)] {
        let told = asks(&rewrite(host), "sa/bot", "svc/web:80", "GET /", None).unwrap();
        assert_eq!(told.verdict, verdict, "{host}: {told}");
    }
    let told = asks(&rewrite("canary"), "po/plain-0", "svc/canary:80", "GET /", None).unwrap();
    assert_eq!(told.verdict, Unknown, "{told}");
}

#[test]
fn what_leaves_the_cluster_is_let_out_or_not() {
    use Verdict::{Allowed, Denied, Unknown};
    let egress = |policy: &str| object(crate::Kind::EgressNetwork, "out", &json!({"trafficPolicy": policy}));
    let parent = json!({"group": "policy.linkerd.io", "kind": "EgressNetwork", "name": "out", "port": 443});
    let rules = json!([{"matches": [{"path": {"type": "PathPrefix", "value": "/ok"}}]}]);
    let ok = || of_parent(crate::Kind::HttpRoute, "ok", parent.clone(), rules.clone());
    let out = "192.0.2.7:443";
    for (objects, client, target, path, verdict, via, why) in [
        (
            vec![egress("Deny")],
            "sa/bot",
            out,
            "/",
            Denied,
            "default:http-egress-deny",
            "EgressNetwork/out: traffic not allowed",
        ),
        (vec![egress("Deny")], "other/sa/bot", out, "/", Allowed, "default:egress-fallback", "leaves the mesh"),
        (
            vec![egress("Allow")],
            "sa/bot",
            out,
            "/",
            Allowed,
            "default:http-egress-allow",
            "EgressNetwork/out: it leaves the mesh for 192.0.2.7:443",
        ),
        (vec![egress("Deny"), ok()], "sa/bot", out, "/ok", Allowed, "HTTPRoute/ok", "leaves the mesh"),
        (vec![egress("Deny"), ok()], "sa/bot", out, "/no", Denied, "default:http-egress-deny", "not allowed"),
        (vec![egress("Deny")], "po/plain-0", out, "/", Allowed, "", "no policy of the mesh holds"),
        (vec![], "sa/bot", "[2001:db8::1]:443", "/", Allowed, "default:egress-fallback", "leaves the mesh"),
        // What is in the cluster is no way out.
        (vec![egress("Deny")], "sa/bot", "10.0.0.1:8080", "/", Allowed, "", ""),
        (vec![], "po/plain-0", "10.96.0.1:80", "/", Allowed, "", ""),
        (vec![], "sa/bot", "10.9.9.9:80", "/", Unknown, "", "no Service has the address"),
        (vec![], "po/plain-0", "10.9.9.9:80", "/", Unknown, "", "nobody is known"),
    ] {
        let told = asks(&routed(objects), client, target, &format!("GET {path}"), None).unwrap();
        let answer = &told.answers[0];
        let by = answer.via.as_ref().map(ToString::to_string).unwrap_or_default();
        let said = answer.why.clone().unwrap_or_default();
        assert!(told.verdict == verdict && by == via && said.contains(why), "{client} {target} {path}: {told}");
    }
    let refused = asks(&routed(vec![]), "sa/bot", "192.0.2.7:https", "GET /", None).unwrap_err();
    assert!(refused.to_string().contains("192.0.2.7 has no ports with names"), "{refused}");
    // A case may expect it, by the route.
    let index = routed(vec![egress("Deny")]);
    let cases =
        "namespace: shop\ncases:\n- {client: sa/bot, target: '192.0.2.7:443', expect: deny, by: http-egress-deny}\n";
    let cases = Cases::read(Path::new("c.yaml"), cases, "default").unwrap();
    assert_eq!(check(&index, &cases.cases[0]).failure, None);
}
