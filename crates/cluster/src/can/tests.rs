//! Questions about manifests, each with what would happen.

use super::*;
use crate::{
    Index, Object,
    index::{Platform, Settings},
    manifest, policy,
};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{net::IpAddr, path::Path};

const SHOP: &str = include_str!("testdata/shop.yaml");

fn of_text(text: &str) -> Index {
    let loaded = manifest::load_text(Path::new("shop.yaml"), text);
    assert_eq!(loaded.problems, []);
    of_manifests(loaded.objects.into_iter().map(|located| located.object), Settings::default())
}

fn asks(index: &Index, client: &str, target: &str, request: &str, address: Option<&str>) -> Result<Told, Untold> {
    let (method, path) = request.split_once(' ').unwrap();
    let request = Request::new(method, path)?;
    let (client, target) = (Client::parse(client, "shop")?, Target::parse(target, "shop")?);
    let address = address.map(|a| a.parse().unwrap());
    ask(index, &Asked { client: &client, target: &target, request: &request, address })
}

/// The verdict, what decides, and what is missing at the nearest.
fn told(told: &Told) -> (Verdict, String, String) {
    let [answer] = told.answers.as_slice() else { panic!("{told:?}") };
    assert_eq!(answer.verdict, told.verdict);
    let decides = answer.by.as_ref().or(answer.server.as_ref()).map(ToString::to_string);
    let nearest = answer.nearest.as_ref().map(|n| format!("{} {}", n.object, n.missing.join("+")));
    (told.verdict, decides.unwrap_or_default(), nearest.unwrap_or_default())
}

#[test]
fn who_would_be_let_in_and_by_what() {
    use Verdict::{Allowed, Denied, Unknown};
    let index = of_text(SHOP);
    let bot = "bot.shop.serviceaccount.identity.linkerd.cluster.local";
    for (client, target, address, verdict, decides, nearest) in [
        // By its identity, however it is named.
        ("deploy/bot", "svc/web:80", None, Allowed, "AuthorizationPolicy/bots", ""),
        ("deploy/bot", "svc/web:http", None, Allowed, "AuthorizationPolicy/bots", ""),
        ("shop/deployment/bot", "deploy/web:8080", None, Allowed, "AuthorizationPolicy/bots", ""),
        ("sa/bot", "deploy/web:http", None, Allowed, "AuthorizationPolicy/bots", ""),
        (bot, "po/web:8080", None, Allowed, "AuthorizationPolicy/bots", ""),
        // Another's, one of another namespace, and none.
        ("deploy/web", "svc/web:80", None, Denied, "Server/web", "AuthorizationPolicy/bots identity"),
        ("other/sa/bot", "svc/web:80", None, Denied, "Server/web", "AuthorizationPolicy/bots identity"),
        ("deploy/plain", "svc/web:80", None, Denied, "Server/web", "AuthorizationPolicy/office network"),
        // Its proxy is gone past for this port of the Service, and the identity with it.
        ("deploy/skips", "svc/web:80", None, Denied, "Server/web", "AuthorizationPolicy/office network"),
        ("deploy/skips", "deploy/web:8080", None, Allowed, "AuthorizationPolicy/bots", ""),
        // By its network.
        ("192.0.2.7", "svc/web:80", None, Allowed, "AuthorizationPolicy/office", ""),
        ("192.0.2.9", "svc/web:80", None, Denied, "Server/web", "AuthorizationPolicy/office network"),
        ("deploy/plain", "svc/web:80", Some("192.0.2.7"), Allowed, "AuthorizationPolicy/office", ""),
        // A part of the cluster's networks is let in: without an address nobody knows.
        ("deploy/plain", "svc/db:5432", None, Unknown, "Server/db", ""),
        ("deploy/plain", "svc/db:5432", Some("10.7.0.1"), Allowed, "ServerAuthorization/db", ""),
        ("deploy/plain", "svc/db:5432", Some("10.7.9.1"), Denied, "Server/db", "ServerAuthorization/db network"),
        ("deploy/plain", "svc/db:5432", Some("10.8.0.1"), Denied, "Server/db", "ServerAuthorization/db network"),
        // No Server: the namespace's default, and the usual one.
        ("deploy/bot", "deploy/web:9000", None, Allowed, "default:all-authenticated", ""),
        ("deploy/plain", "deploy/web:9000", None, Denied, "default:all-authenticated", "default:all-authenticated tls"),
        ("192.0.2.9", "other/svc/web:80", None, Allowed, "default:all-unauthenticated", ""),
        // Where no proxy asks, no policy holds.
        ("192.0.2.9", "deploy/plain:8080", None, Allowed, "", ""),
        ("192.0.2.9", "deploy/skips:9999", None, Allowed, "", ""),
        ("deploy/bot", "deploy/skips:8080", None, Allowed, "default:all-authenticated", ""),
        // Nobody is let in by what requires an object that is missing.
        ("deploy/bot", "deploy/admin:8080", None, Denied, "Server/admin", ""),
        // A port that this pod has not.
        ("deploy/bot", "deploy/bot:http", None, Unknown, "", ""),
    ] {
        let answer = asks(&index, client, target, "GET /", address).unwrap();
        let expected = (verdict, decides.to_owned(), nearest.to_owned());
        assert_eq!(told(&answer), expected, "{client} {target} {address:?}: {answer}");
    }
    // A probe is let in whatever the policy is, and nothing else of its path.
    for (request, verdict) in [("GET /ready", Allowed), ("POST /ready", Denied), ("GET /ready/x", Denied)] {
        let answer = asks(&index, "192.0.2.9", "svc/web:80", request, None).unwrap();
        assert_eq!(answer.verdict, verdict, "{request}: {answer}");
        let route = if verdict == Allowed { "default:probe" } else { "default:default" };
        assert_eq!(answer.answers[0].route.as_ref().unwrap().to_string(), route);
    }
}

#[test]
fn what_is_no_question_is_refused_with_a_remedy() {
    let index = of_text(SHOP);
    for (client, target, request, message, remedy) in [
        ("web", "svc/web:80", "GET /", "\"web\" is no client", "use [NAMESPACE/]KIND/NAME"),
        ("cm/web", "svc/web:80", "GET /", "\"cm/web\" is no client", "deploy, sts"),
        ("a/b/c/d", "svc/web:80", "GET /", "is no client", "IP address"),
        ("svc/web", "svc/web:80", "GET /", "\"svc/web\" is no client", "deploy"),
        ("deploy/Web", "svc/web:80", "GET /", "is no client", "deploy"),
        ("deploy/no", "svc/web:80", "GET /", "no pod of deployment/no in the namespace shop runs", "by -n"),
        ("po/no", "svc/web:80", "GET /", "there is no pod/no in the namespace shop that runs", "by -n"),
        ("deploy/bot", "svc/web", "GET /", "\"svc/web\" is no target", "NAME:PORT"),
        ("deploy/bot", "sa/web:80", "GET /", "is no target", "with svc"),
        ("deploy/bot", "svc/web:0", "GET /", "\"0\" is no port", "1 to 65535"),
        ("deploy/bot", "svc/web:65536", "GET /", "\"65536\" is no port", "1 to 65535"),
        ("deploy/bot", "svc/no:80", "GET /", "there is no svc/no in the namespace shop", "by -n"),
        ("deploy/bot", "svc/web:81", "GET /", "svc/web in the namespace shop has no port 81", "it has 80 (http)"),
        ("deploy/bot", "svc/nobody:80", "GET /", "nothing runs behind svc/nobody", "selector"),
        ("deploy/bot", "svc/web:80", "G\u{e9}T /", "is no method", "GET"),
        ("deploy/bot", "svc/web:80", "GET x", "\"x\" is no path", "/api"),
        ("deploy/bot", "svc/web:80", "GET /a b", "is no path", "/api"),
        ("deploy/bot", "svc/web:80", "GET /a#b", "is no path", "/api"),
    ] {
        let refused = asks(&index, client, target, request, None).unwrap_err();
        let is_told = refused.message.contains(message) && refused.remedy.contains(remedy);
        assert!(is_told, "{client} {target} {request}: {refused}");
    }
    let request = Request::default();
    for (name, value) in [("", "x"), ("a b", "x"), ("host", "x"), ("a", "x\r\ny")] {
        assert!(request.clone().with_header(name, value).is_err(), "{name:?} {value:?}");
    }
    let many = (0..=request::MAX_HEADERS).try_fold(request, |r, i| r.with_header(&format!("h{i}"), "x"));
    assert!(many.unwrap_err().message.contains("more than 100 headers"));
}

fn pod(name: &str, ip: &str, patch: &Value) -> Object {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", "linkerd.io/control-plane-ns": "linkerd"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true, "uid": ""}]},
        "spec": {"serviceAccountName": "web", "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": "Running", "podIP": ip},
    });
    for (field, value) in patch.as_object().unwrap() {
        *pod.pointer_mut(field).unwrap_or_else(|| panic!("{field}")) = value.clone();
    }
    Object::Pod(Box::new(serde_json::from_value::<Pod>(pod).unwrap()))
}

fn object(kind: crate::Kind, name: &str, spec: &Value) -> Object {
    policy::read(kind, json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec})).unwrap()
}

fn of_cluster(objects: Vec<Object>) -> Index {
    of_objects(objects, Settings { platform: Platform::Kubernetes, ..Settings::default() })
}

#[test]
fn each_pod_of_a_target_is_told_of_and_those_alike_together() {
    let server = |selector: Value| object(crate::Kind::Server, "web", &json!({"podSelector": selector, "port": 8080}));
    let index = of_cluster(vec![
        pod("web-0", "10.0.0.1", &json!({})),
        pod("web-1", "10.0.0.2", &json!({})),
        pod(
            "web-2",
            "10.0.0.3",
            &json!({"/metadata/labels": {"app": "web", "guarded": "yes", "linkerd.io/control-plane-ns": "linkerd"}}),
        ),
        pod("web-3", "10.0.0.4", &json!({"/metadata/labels": {"app": "web"}})),
        pod(
            "web-4",
            "10.0.0.5",
            &json!({"/metadata/labels": {"app": "web", "linkerd.io/control-plane-ns": "elsewhere"}}),
        ),
        pod("web-5", "10.0.0.6", &json!({"/status/phase": "Succeeded"})),
        server(json!({"matchLabels": {"guarded": "yes"}})),
    ]);
    let told = asks(&index, "sts/web", "sts/web:8080", "GET /", None).unwrap();
    assert_eq!(told.verdict, Verdict::Unknown, "{told}");
    let pods: Vec<(Verdict, Vec<String>, usize)> =
        told.answers.iter().map(|a| (a.verdict, a.pods.clone(), a.clients.len())).collect();
    let shop = |names: &[&str]| names.iter().map(|n| format!("shop/web-{n}")).collect::<Vec<_>>();
    assert_eq!(
        pods,
        [
            // What the one of the other mesh proves is not known.
            (Verdict::Unknown, shop(&["2"]), 1),
            (Verdict::Unknown, shop(&["4"]), 5),
            (Verdict::Denied, shop(&["2"]), 3),
            (Verdict::Denied, shop(&["2"]), 1),
            (Verdict::Allowed, shop(&["0", "1"]), 3),
            (Verdict::Allowed, shop(&["0", "1"]), 2),
            (Verdict::Allowed, shop(&["3"]), 5),
        ]
    );
    let bare = json!({"metadata": {"name": "bare", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]}});
    let bare = Object::Service(Box::new(serde_json::from_value(bare).unwrap()));
    let refused = asks(&of_cluster(vec![bare]), "sa/a", "svc/bare:80", "GET /", None).unwrap_err();
    assert!(refused.to_string().contains("selects no pods; name the workload"), "{refused}");
    // A pod is known by its address.
    let told = asks(&index, "10.0.0.2", "po/web-0:http", "GET /", None).unwrap();
    assert_eq!(told.answers[0].clients, ["shop/web-1"]);
    assert_eq!(told.answers[0].identity.as_deref(), Some("web.shop.serviceaccount.identity.linkerd.cluster.local"));
    let told = asks(&index, "10.9.9.9", "po/web-0:http", "GET /", None).unwrap();
    assert_eq!((told.answers[0].clients[0].as_str(), &told.answers[0].identity), ("somebody at 10.9.9.9", &None));
}

/// Whoever is let in is answered by the filters of the rule.
#[test]
fn what_a_rule_answers_instead_of_its_server_is_told() {
    let rule = |prefix: &str, filter: Value| json!({"matches": [{"path": {"type": "PathPrefix", "value": prefix}}], "filters": [filter]});
    let rewrite =
        json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}});
    let redirect =
        json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301, "hostname": "other.example"}});
    let parent = json!([{"group": "policy.linkerd.io", "kind": "Server", "name": "web"}]);
    let index = of_cluster(vec![
        pod("web-0", "10.0.0.1", &json!({})),
        object(
            crate::Kind::Server,
            "web",
            &json!({"podSelector": {}, "port": 8080, "accessPolicy": "all-unauthenticated"}),
        ),
        object(
            crate::Kind::MeshHttpRoute,
            "route",
            &json!({"parentRefs": parent, "rules": [rule("/old", rewrite), rule("/gone", redirect)]}),
        ),
    ]);
    for (request, verdict, why) in [
        ("GET /old", Verdict::Denied, "URLRewrite"),
        ("GET /gone", Verdict::Allowed, "redirect"),
        ("GET /other", Verdict::Denied, "no route"),
    ] {
        let told = asks(&index, "sts/web", "sts/web:8080", request, None).unwrap();
        let said = told.answers[0].why.clone().unwrap_or_default();
        assert!(told.verdict == verdict && said.contains(why), "{request}: {told}");
    }
}

/// Service `web` with two pods that let in everybody, `canary` with one that lets in nobody at `/admin`, `head` that is headless, and
/// what is given.
fn routed(more: Vec<Object>) -> Index {
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
        rule("/empty", to(&[("empty", 1)])),
        rule("/none", to(&[("web", 0)])),
        rule("/opened", rewritten("/open/x")),
        rule("/gone", filter(json!({"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example"}}))),
        rule(
            "/odd",
            filter(json!({"type": "ExtensionRef", "extensionRef": {"group": "a.b", "kind": "X", "name": "y"}}))
        ),
    ]);
    let index = routed(vec![of_parent(crate::Kind::HttpRoute, "all", web(), rules)]);
    let via = "HTTPRoute/all";
    for (client, path, verdict, pods, by, why) in [
        ("po/web-0", "/", Allowed, vec!["shop/web-0 shop/web-1"], via, ""),
        ("po/web-0", "/canary", Denied, vec!["shop/canary-0"], via, "no route of the port"),
        // Wherever a part of the requests goes, it is told of.
        ("po/web-0", "/split", Denied, vec!["shop/canary-0", "shop/web-0 shop/web-1"], via, "no route of the port"),
        ("po/web-0", "/missing", Denied, vec!["", "shop/web-0 shop/web-1"], via, "nobody"),
        ("po/web-0", "/named", Denied, vec![""], via, "only another name"),
        ("po/web-0", "/empty", Unknown, vec![""], via, "nothing runs behind svc/empty"),
        ("po/web-0", "/none", Denied, vec![""], via, "weight"),
        ("po/web-0", "/opened", Allowed, vec!["shop/canary-0"], via, ""),
        ("po/web-0", "/gone", Allowed, vec![""], via, "redirect"),
        ("po/web-0", "/odd", Denied, vec![""], via, "ExtensionRef"),
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
    let told = asks(&routed(vec![headed]), "po/web-0", "svc/head:80", "GET /", None).unwrap();
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
        let request = Request::new(method, path).unwrap().with_host(host.map(str::to_owned));
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
    let tls = || {
        let mut route = json!({"metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [web()], "hostnames": ["a.example"], "rules": to("no")}});
        route["apiVersion"] = "gateway.networking.k8s.io/v1".into();
        vec![policy::read(crate::Kind::TlsRoute, route).unwrap()]
    };
    for (objects, request, host, verdict, why) in [
        (grpc(), "POST /a.B/C", None, Denied, "no Service shop/no"),
        (grpc(), "POST /x.Y/C", None, Denied, "follows no route of Service/web"),
        (tls(), "GET /", None, Unknown, "--host"),
        (tls(), "GET /", Some("a.example:443"), Denied, "no Service shop/no"),
        (tls(), "GET /", Some("b.example"), Denied, "follows no route of Service/web"),
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
        let request = Request::new(method, path).unwrap().with_host(host.map(str::to_owned));
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
            let request = Request::new("POST", path).unwrap().with_host(host.map(str::to_owned));
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

#[test]
fn the_values_of_an_installation_hold() {
    let values = json!({"clusterNetworks": "10.0.0.0/8, fd00::/8", "proxy": {"defaultInboundPolicy": "deny", "opaquePorts": "25,9000-9002"},
        "policyController": {"probeNetworks": ["10.1.0.0/16"]}, "identityTrustDomain": "td.example", "clusterDomain": "c.example"});
    let settings = settings_of(&values, "mesh");
    assert_eq!(settings.trust_domain, "td.example");
    assert_eq!((settings.cluster_domain.as_str(), settings.control_namespace.as_str()), ("c.example", "mesh"));
    assert_eq!(settings.cluster_networks.len(), 2);
    assert_eq!(settings.probe_networks, ["10.1.0.0/16".parse().unwrap()]);
    assert_eq!(String::from(settings.default_policy), "deny");
    assert_eq!(settings.opaque_ports, [25, 9000, 9001, 9002]);
    assert!(settings_of(&json!({"proxy": {"opaquePorts": ""}}), "mesh").opaque_ports.is_empty());
    assert_eq!(
        settings_of(&json!({}), "linkerd"),
        Settings { platform: Platform::Kubernetes, ipv6: false, ..Settings::default() }
    );
}

proptest! {
    /// What is said of a client without an address holds wherever in the cluster's networks it is.
    #[test]
    fn what_is_said_of_any_address_holds_for_each(
        networks in proptest::collection::vec((0u32..4096, 18u8..=32, proptest::option::of((0u32..4096, 20u8..=32))), 1..6),
        addresses in proptest::collection::vec(0u32..4096, 1..40),
    ) {
        let ip = |low: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + low));
        let cidr = |(low, len): (u32, u8)| weft_model::decide::cidr::Cidr::new(ip(low), len).unwrap();
        let networks: Vec<Value> = networks
            .into_iter()
            .map(|(low, len, except)| {
                let net = cidr((low, len));
                let except = except.map(cidr).filter(|e| e.prefix_len() > net.prefix_len() && net.contains(e.addr()));
                json!({"cidr": net.to_string(), "except": except.map(|e| e.to_string()).into_iter().collect::<Vec<_>>()})
            })
            .collect();
        let grant = json!({"server": {"name": "web"}, "client": {"networks": networks, "unauthenticated": true}});
        let objects = vec![
            pod("web-0", "10.0.0.1", &json!({})),
            object(crate::Kind::Server, "web", &json!({"podSelector": {}, "port": 8080})),
            object(crate::Kind::ServerAuthorization, "some", &grant),
        ];
        let cluster_networks = vec!["10.0.0.0/20".parse().unwrap()];
        let index = of_objects(objects, Settings { platform: Platform::Kubernetes, cluster_networks, ..Settings::default() });
        let of = |address: Option<&str>| asks(&index, "sa/bot", "po/web-0:8080", "GET /", address).unwrap().verdict;
        let anywhere = of(None);
        let each: Vec<Verdict> = addresses.iter().map(|low| of(Some(&ip(*low).to_string()))).collect();
        prop_assert!(each.iter().all(|verdict| *verdict != Verdict::Unknown));
        if anywhere != Verdict::Unknown {
            prop_assert!(each.iter().all(|verdict| *verdict == anywhere), "{anywhere:?} {each:?}");
        }
    }

    /// What is said of a request without a host holds for each, and else some hosts are allowed and others denied: at the client, where
    /// the routes send to one Service or another, as at the server, where they let in or not.
    #[test]
    fn what_is_said_of_any_host_holds_for_each(
        at_server in any::<bool>(),
        routes in proptest::collection::vec((proptest::sample::subsequence(vec!["a", "b.a", "*.a", "*.b.a", "c"], 0..=2), any::<bool>()), 1..5),
    ) {
        let parent = if at_server { json!({"group": "policy.linkerd.io", "kind": "Server", "name": "closed"}) } else { json!({"group": "", "kind": "Service", "name": "web"}) };
        let everybody = json!([{"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "everybody"}]);
        let mut objects = vec![
            object(crate::Kind::Server, "closed", &json!({"podSelector": {"matchLabels": {"app": "web"}}, "port": 9000, "proxyProtocol": "HTTP/1"})),
            object(crate::Kind::NetworkAuthentication, "everybody", &json!({"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]})),
        ];
        for (i, (hosts, open)) in routes.into_iter().enumerate() {
            let name = format!("r{i}");
            let to = if open { "web" } else { "canary" };
            let rule = if at_server { json!({}) } else { json!({"backendRefs": [{"name": to, "port": 80}]}) };
            objects.push(object(crate::Kind::HttpRoute, &name, &json!({"parentRefs": [parent], "hostnames": hosts, "rules": [rule]})));
            if at_server && open {
                let target = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": name});
                let spec = json!({"targetRef": target, "requiredAuthenticationRefs": everybody});
                objects.push(object(crate::Kind::AuthorizationPolicy, &name, &spec));
            }
        }
        let index = routed(objects);
        let (client, target) = (Client::parse("sa/bot", "shop").unwrap(), if at_server { "po/web-0:9000" } else { "svc/web:80" });
        let target = Target::parse(target, "shop").unwrap();
        let of = |host: Option<&str>| {
            let request = Request::default().with_host(host.map(str::to_owned));
            ask(&index, &Asked { client: &client, target: &target, request: &request, address: None }).unwrap().verdict
        };
        let each: Vec<Verdict> = ["a", "A.:80", "b.a", "x.a", "x.b.a:80", "c", "x.c", "x"].map(|host| of(Some(host))).to_vec();
        let all_are = |verdict: Verdict| each.iter().all(|of| *of == verdict);
        let expected = [Verdict::Allowed, Verdict::Denied].into_iter().find(|verdict| all_are(*verdict));
        prop_assert_eq!(of(None), expected.unwrap_or(Verdict::Unknown), "{:?}", each);
    }
}

const CASES: &str = "
manifests: [shop.yaml, more]
namespace: shop
cases:
- name: bots may
  client: deploy/bot
  target: svc/web:80
  expect: allow
  by: AuthorizationPolicy/bots
- client: deploy/plain
  target: svc/web
  port: http
  request: GET /x?y
  headers: {a: b}
  host: web.shop
  expect: deny
  by: web
- {name: wrong <verdict>, client: deploy/plain, target: 'svc/web:80', expect: allow}
- {name: by another, client: deploy/bot, target: 'svc/web:80', expect: allow, by: office}
- {name: nowhere, client: deploy/no, target: 'svc/web:80', expect: deny}
- {name: somewhere, client: deploy/plain, target: svc/db, port: 5432, expect: allow}
- {name: there, client: deploy/plain, target: svc/db, port: 5432, address: 10.7.0.1, expect: allow}
";

#[test]
fn cases_are_checked_and_told_for_machines() {
    let index = of_text(SHOP);
    let cases = Cases::read(Path::new("dir/cases.yaml"), CASES, "elsewhere").unwrap();
    assert_eq!(cases.manifests, [Path::new("dir/shop.yaml"), Path::new("dir/more")]);
    let checked: Vec<Checked> = cases.cases.iter().map(|case| check(&index, case)).collect();
    let lines: Vec<(u32, Option<bool>)> =
        checked.iter().map(|c| (c.line, c.failure.as_ref().map(|f| f.unknown))).collect();
    assert_eq!(
        lines,
        [(5, None), (10, None), (18, Some(false)), (19, Some(false)), (20, Some(true)), (21, Some(true)), (22, None)]
    );
    insta::assert_snapshot!(junit([(cases.file.as_path(), checked.as_slice())]));
}

#[test]
fn mistakes_in_cases_are_told_with_their_lines() {
    let whole = |cases: &str| format!("namespace: shop\ncases:\n{cases}");
    let case =
        |more: &str| whole(&format!("- {{client: deploy/a, target: 'svc/a:80', expect: allow}}\n- {{{more}}}\n"));
    for (text, line, says) in [
        (case("client: deploy/a, target: 'svc/a:80'"), 4, "missing field `expect`"),
        (
            case("client: deploy/a, target: 'svc/a:80', expect: maybe"),
            4,
            "unknown variant `maybe`, expected `allow` or `deny`",
        ),
        (case("client: deploy/a, target: 'svc/a:80', expect: deny, form: x"), 4, "unknown field `form`"),
        (case("client: a, target: 'svc/a:80', expect: deny"), 4, "cases[1].client: \"a\" is no client; use "),
        (case("client: deploy/a, target: svc/a, expect: deny"), 4, "cases[1].target: \"svc/a\" is no target; use "),
        (
            case("client: deploy/a, target: svc/a, port: 99999, expect: deny"),
            4,
            "cases[1].port: \"99999\" is no port; use ",
        ),
        (
            case("client: deploy/a, target: svc/a, port: [1], expect: deny"),
            4,
            "cases[1].port: \"[1]\" is no port; use ",
        ),
        (
            case("client: deploy/a, target: 'svc/a:80', request: /x, expect: deny"),
            4,
            "cases[1].request: \"/x\" is no method; use ",
        ),
        (
            case("client: deploy/a, target: 'svc/a:80', headers: {'a b': c}, expect: deny"),
            4,
            "cases[1].headers: \"a b\" is no header",
        ),
        (case("client: deploy/a, target: 'svc/a:80', address: 10.0.0, expect: deny"), 4, "invalid IP address syntax"),
        ("cases: []\n".to_owned(), 1, "there are no cases"),
        ("kind: Server\n".to_owned(), 1, "unknown field `kind`"),
        ("cases:\n- a\n---\ncases: []\n".to_owned(), 1, "there are 2 documents in it"),
        ("cases: [\n".to_owned(), 0, ""),
        (String::new(), 1, "there are 0 documents in it"),
    ] {
        let problems = Cases::read(Path::new("c.yaml"), &text, "default").unwrap_err();
        let told = problems[0].to_string();
        assert!(told.contains(says) && (line == 0 || problems[0].line == line), "{text}: {told}");
    }
    // All at once.
    let two =
        whole("- {client: a, target: 'svc/a:80', expect: deny}\n- {client: b, target: 'svc/a:80', expect: deny}\n");
    assert_eq!(Cases::read(Path::new("c.yaml"), &two, "default").unwrap_err().len(), 2);
    let many = whole(&"- {client: sa/a, target: 'svc/a:80', expect: deny}\n".repeat(10_001));
    assert!(
        Cases::read(Path::new("c.yaml"), &many, "default").unwrap_err()[0]
            .to_string()
            .contains("more than 10000 cases")
    );
}

#[test]
fn answers_are_shown() {
    let index = of_text(SHOP);
    let shown =
        |client: &str, target: &str| asks(&index, client, target, "POST /vote?for=x", None).unwrap().to_string();
    insta::assert_snapshot!(
        [
            shown("deploy/bot", "svc/web:80"),
            shown("deploy/plain", "svc/web:80"),
            shown("deploy/plain", "svc/db:5432"),
            shown("192.0.2.9", "deploy/plain:8080"),
        ]
        .join("\n\n")
    );
    let told = asks(&index, "deploy/plain", "svc/web:80", "GET /", None).unwrap();
    insta::assert_json_snapshot!(told);
}
