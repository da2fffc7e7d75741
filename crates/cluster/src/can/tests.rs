//! Questions about manifests, each with what would happen.

use super::*;
use crate::{
    Index, Object,
    index::{Platform, Settings},
    manifest, policy,
};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use routes::routed;
use serde_json::{Value, json};
use std::{net::IpAddr, path::Path};

mod reached;
mod read;
mod routes;
mod standing;
mod unrun;

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
        // Where proxies speak to each other, and tap to them.
        ("192.0.2.9", "deploy/web:4143", None, Unknown, "", ""),
        ("deploy/bot", "deploy/web:4190", None, Unknown, "", ""),
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
            (Verdict::Unknown, shop(&["4"]), 4),
            (Verdict::Denied, shop(&["2"]), 2),
            (Verdict::Denied, shop(&["2"]), 1),
            (Verdict::Allowed, shop(&["0", "1"]), 3),
            (Verdict::Allowed, shop(&["0", "1"]), 2),
            // Each to itself, past its proxy.
            (Verdict::Allowed, shop(&["0", "1", "2", "3", "4"]), 5),
            (Verdict::Allowed, shop(&["3"]), 4),
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
        let told = asks(&index, "sa/web", "sts/web:8080", request, None).unwrap();
        let said = told.answers[0].why.clone().unwrap_or_default();
        assert!(told.verdict == verdict && said.contains(why), "{request}: {told}");
    }
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
            let request = Request::default().with_host(host).unwrap();
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
        // By position, as serde would take them.
        (
            whole(
                "- {client: sa/a, target: 'svc/a:80', expect: deny}\n- [x, sa/a, 'svc/a:80', null, null, null, {}, null, null, allow, null]\n",
            ),
            4,
            "cases[1]: it is a list; give an object, each field by its name",
        ),
        (whole("- [sa/a, 'svc/a:80', allow]\n"), 3, "cases[0]: it is a list; give an object"),
        ("[[], shop, null, []]\n".to_owned(), 1, "it is a list; give an object"),
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
