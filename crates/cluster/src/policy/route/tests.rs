//! Routes as they are written: each field kept and broken, and what comes of it.

use super::{
    super::{
        GROUP, parse, read,
        tests::{all_wrong, object, right},
    },
    backend::BackendOf,
    *,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_model::{
    decide::path::readings,
    policy::route::{
        Filter, HeaderEdits, HeaderMatch, PathReplacement, QueryMatch, Ratio, Redirect, Rewrite, ValueMatch,
    },
};

const ROUTES: [Kind; 5] = [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute];
const REQUESTS: [Kind; 3] = [Kind::MeshHttpRoute, Kind::HttpRoute, Kind::GrpcRoute];
const CONNECTIONS: [Kind; 2] = [Kind::TlsRoute, Kind::TcpRoute];

fn server() -> Value {
    json!({"group": GROUP, "kind": "Server", "name": "web"})
}

fn service() -> Value {
    json!({"group": "", "kind": "Service", "name": "web", "port": 80})
}

/// A route of a Service with one rule.
fn ruled(rule: Value) -> Value {
    json!({"parentRefs": [service()], "rules": [rule]})
}

fn checked_of(kind: Kind, spec: Value) -> Checked {
    checked(&parse(kind, object(kind, spec)).unwrap()).unwrap().unwrap()
}

fn http(kind: Kind, spec: Value) -> (HttpRoute<Asked>, Vec<String>) {
    match checked_of(kind, spec) {
        Checked { route: Route { of: RouteOf::Http(route), .. }, notes } => {
            (route, notes.into_iter().map(|n| n.field).collect())
        }
        other => panic!("{other:?}"),
    }
}

/// The one rule of a route with one.
fn rule(rule: Value) -> (Rule<HttpMatch, Asked>, Vec<String>) {
    let (mut route, notes) = http(Kind::HttpRoute, ruled(rule));
    (route.rules.remove(0), notes)
}

fn exact(value: &str) -> ValueMatch {
    ValueMatch::Exact(value.as_bytes().to_vec())
}

#[test]
fn a_route_becomes_rules_of_the_model() {
    let spec = json!({
        "parentRefs": [service()],
        "hostnames": ["Web.Example.org", "*.example.org."],
        "rules": [{
            "name": "first",
            "matches": [
                {"path": {"type": "Exact", "value": "/a"}, "method": "GET", "headers": [{"name": "X-A", "value": "b"}],
                    "queryParams": [{"name": "Q", "value": "1", "type": "Exact"}]},
                {"headers": [{"name": "x", "type": "RegularExpression", "value": "a+"}]},
            ],
            "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier":
                    {"set": [{"name": "X-Set", "value": "s"}], "add": [{"name": "x-add", "value": "a"}], "remove": ["X-Gone"]}},
                {"type": "RequestRedirect", "requestRedirect":
                    {"scheme": "https", "hostname": "other.org", "port": 8443, "path": {"type": "ReplaceFullPath", "replaceFullPath": "/b"}}},
            ],
            "backendRefs": [
                {"name": "v1", "port": 80, "weight": 9, "filters":
                    [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["server"]}}]},
                {"name": "v2", "namespace": "other", "port": 81},
                {"name": "out", "group": GROUP, "kind": "EgressNetwork"},
                {"name": "what", "group": "example.com", "kind": "Thing"},
            ],
            "timeouts": {"request": "1m", "backendRequest": "0s"},
        }, {}],
    });
    let (route, notes) = http(Kind::HttpRoute, spec);
    assert_eq!(
        (route.meta.group(), route.meta.kind(), route.meta.namespace(), route.meta.name()),
        (GATEWAY_API, "HTTPRoute", "ns", "a")
    );
    let suffix = HostMatch::Suffix(vec!["org".to_owned(), "example".to_owned()]);
    assert_eq!(route.hosts, [HostMatch::Exact("web.example.org".to_owned()), suffix]);
    let Rule { matches, filters, does } = &route.rules[0];
    let header = |name: &str, value| HeaderMatch { name: name.to_owned(), value };
    let first = HttpMatch {
        path: Some(PathMatch::Exact("/a".to_owned())),
        headers: vec![header("x-a", exact("b"))],
        query: vec![QueryMatch { name: "Q".to_owned(), value: exact("1") }],
        method: Some("GET".to_owned()),
    };
    let pattern = weft_model::policy::route::Pattern::new("a+").unwrap();
    let second = HttpMatch { headers: vec![header("x", ValueMatch::Regex(pattern))], ..every() };
    assert_eq!(matches, &[first, second]);
    let edits = HeaderEdits {
        set: vec![("x-set".to_owned(), b"s".to_vec())],
        add: vec![("x-add".to_owned(), b"a".to_vec())],
        remove: vec!["x-gone".to_owned()],
    };
    let redirect = Redirect {
        scheme: Some("https".to_owned()),
        host: Some("other.org".to_owned()),
        path: Some(PathReplacement::Full("/b".to_owned())),
        port: Some(8443),
        status: Some(302),
    };
    assert_eq!(filters, &[Filter::RequestHeaders(edits), Filter::Redirect(redirect)]);
    let minute = RuleTimeouts { request: Some(Duration::from_secs(60)), backend_request: Some(Duration::ZERO) };
    assert_eq!((does.timeouts, does.beyond.first()), (minute, None));
    let backends: Vec<_> =
        does.backends.iter().map(|b| (b.of.clone(), b.namespace.as_str(), b.port, b.weight, b.filters.len())).collect();
    let other = BackendOf::Other("\"Thing\" of \"example.com\"".to_owned());
    assert_eq!(
        backends,
        [
            (BackendOf::Service, "ns", Some(80), 9, 1),
            (BackendOf::Service, "other", Some(81), 1, 0),
            (BackendOf::EgressNetwork, "ns", None, 1, 0),
            (other, "ns", None, 1, 0),
        ]
    );
    assert_eq!(notes, ["spec.rules[0].backendRefs[3].kind"]);
    assert_eq!(route.rules[1], Rule { matches: vec![every()], filters: vec![], does: Asked::default() });
    // Of one header's several names the first counts, whatever the others want.
    let twice = json!([{"name": "X-A", "value": "1"}, {"name": "b", "value": "2"}, {"name": "x-a", "type": "RegularExpression", "value": "["}]);
    let (found, notes) = rule(json!({"matches": [{"headers": twice}]}));
    assert_eq!(
        found.matches,
        [HttpMatch { headers: vec![header("x-a", exact("1")), header("b", exact("2"))], ..every() }]
    );
    assert_eq!(notes, ["spec.rules[0].matches[0].headers[2].name"]);
    // Without rules it is for every request, in both groups.
    for kind in [Kind::HttpRoute, Kind::MeshHttpRoute] {
        let (route, _) = http(kind, json!({"parentRefs": [service()]}));
        assert_eq!(route.rules, [Rule { matches: vec![every()], filters: vec![], does: Asked::default() }]);
    }
}

#[test]
fn routes_of_grpc_and_of_connections() {
    let spec = json!({"parentRefs": [server()], "hostnames": ["a"], "rules": [{
        "matches": [{"method": {"service": "emojivoto.v1.VotingService", "method": "VoteDog"}}, {"headers": [{"name": "A", "value": "b"}]}],
        "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x"]}}],
    }]});
    let Checked { route, .. } = checked_of(Kind::GrpcRoute, spec);
    let RouteOf::Grpc(route) = route.of else { panic!() };
    assert_eq!(route.meta.kind(), "GRPCRoute");
    let Rule { matches, filters, .. } = &route.rules[0];
    assert_eq!((matches[0].service.as_str(), matches[0].method.as_str()), ("emojivoto.v1.VotingService", "VoteDog"));
    assert_eq!((matches[1].headers[0].name.as_str(), filters.len()), ("a", 1));

    let backends = json!([{"backendRefs": [{"name": "v1", "port": 80}]}]);
    let Checked { route, .. } =
        checked_of(Kind::TlsRoute, json!({"parentRefs": [service()], "hostnames": ["*.a"], "rules": backends}));
    let RouteOf::Tls(route) = route.of else { panic!() };
    assert_eq!(route.names, [HostMatch::Suffix(vec!["a".to_owned()])]);
    assert_eq!((route.backends[0].name.as_str(), route.meta.kind()), ("v1", "TLSRoute"));
    let Checked { route, .. } = checked_of(Kind::TcpRoute, json!({"parentRefs": [service()], "rules": backends}));
    assert!(matches!(route.of, RouteOf::Tcp(route) if route.backends.len() == 1));
}

#[test]
fn parents_are_kept_as_they_are_written() {
    let written = json!([
        {"group": "core", "kind": "Service", "namespace": "other", "name": "web", "sectionName": "http"},
        {"group": "Policy.Linkerd.io", "kind": "server", "namespace": "ns", "name": "s"},
        {"kind": "Gateway", "name": "gateway", "group": GATEWAY_API},
        {"group": GROUP, "kind": "EgressNetwork", "name": "all", "port": 443},
    ]);
    for kind in REQUESTS {
        let Checked { route: Route { parents, .. }, notes } = checked_of(kind, json!({"parentRefs": written}));
        let found: Vec<_> = parents.iter().map(|p| (p.of, p.namespace.as_str(), p.name.as_str(), p.port)).collect();
        assert_eq!(
            found,
            [
                (ParentOf::Service, "other", "web", None),
                (ParentOf::Server, "ns", "s", None),
                (ParentOf::EgressNetwork, "ns", "all", Some(443)),
            ]
        );
        let again: Vec<Value> = parents.iter().map(|p| serde_json::to_value(&p.written).unwrap()).collect();
        assert_eq!(again, [written[0].clone(), written[1].clone(), written[3].clone()]);
        assert_eq!(notes.len(), 1, "a section is not looked at");
    }
    // What names neither group nor kind is a Gateway.
    let gateway = json!({"parentRefs": [{"name": "web"}]});
    assert_eq!(checked_of(Kind::HttpRoute, gateway.clone()).route.parents, []);
    let Checked { route, notes } = checked_of(Kind::MeshHttpRoute, gateway);
    assert_eq!((route.parents.len(), notes[0].field.as_str()), (0, "spec.parentRefs"));

    let parent = |change: Value| {
        let mut parent = server();
        parent.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"parentRefs": [parent]})
    };
    for kind in REQUESTS {
        right(kind, vec![json!({"parentRefs": [server()]}), parent(json!({"namespace": "ns"})), json!({})]);
        all_wrong(
            kind,
            vec![
                (parent(json!({"name": ""})), &["spec.parentRefs[0].name"]),
                (parent(json!({"namespace": "other"})), &["spec.parentRefs[0].namespace"]),
                (parent(json!({"port": 80})), &["spec.parentRefs[0].port"]),
                (parent(json!({"port": 65536})), &["spec.parentRefs[0].port"]),
                (parent(json!({"sectionName": "a"})), &["spec.parentRefs[0].sectionName"]),
                (parent(json!({"kind": "Pod"})), &["spec.parentRefs[0].kind"]),
                (parent(json!({"kind": "EgressNetwork"})), &["spec.parentRefs[0].port"]),
                (parent(json!({"kind": "Service", "group": "", "port": 0})), &["spec.parentRefs[0].port"]),
                (parent(json!({"filter": 1})), &["spec.parentRefs[0].filter"]),
                (json!({"parentRefs": vec![server(); MAX_PARENTS + 1]}), &["spec.parentRefs"]),
            ],
        );
    }
    for kind in CONNECTIONS {
        let spec =
            |parent: Value| json!({"parentRefs": [parent], "rules": [{"backendRefs": [{"name": "a", "port": 1}]}]});
        right(kind, vec![spec(service())]);
        all_wrong(kind, vec![(spec(server()), &["spec.parentRefs[0].kind"])]);
    }
}

#[test]
fn a_route_of_somebody_elses_may_say_what_it_likes() {
    let odd = |parents: Value| json!({"parentRefs": parents, "rules": "what others read", "hostnames": 1, "x": {}});
    for kind in [Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute] {
        let theirs = json!([{"name": "gateway"}, {"group": "example.com", "kind": "Server", "name": "s"}]);
        right(kind, vec![odd(theirs), odd(json!("nor this")), odd(Value::Null)]);
        let field = if kind == Kind::TcpRoute { &["spec.rules"] } else { &["spec.hostnames"] };
        all_wrong(kind, vec![(odd(json!([{"name": "gateway"}, service()])), field)]);
    }
    all_wrong(Kind::MeshHttpRoute, vec![(odd(json!([{"name": "gateway"}])), &["spec.hostnames"])]);
}

#[test]
fn what_is_wrong_with_a_match_is_named() {
    let matching = |m: Value| ruled(json!({"matches": [m]}));
    let path = |kind: &str, value: &str| matching(json!({"path": {"type": kind, "value": value}}));
    let value = &["spec.rules[0].matches[0].path.value"];
    let good = ["/", "/a", "/a/", "/a.b/..c", "/a;v=1", "/caf%C3%A9", "/100%25", "/a%20b", "/~x/$&'()*+,=:@"];
    right(Kind::HttpRoute, good.iter().map(|p| path("Exact", p)).collect());
    for hostile in [
        "a", "", "*", "//", "/a//b", "/.", "/..", "/./a", "/a/..", "/a/../b", "/..;/a", "/;x/a", "/%61", "/%2f",
        "/%2F", "/%2e", "/a%5Cb", "/%00", "/%7f", "/%", "/%4", "/%zz", "/%2561", "/a b", "/a\\b", "/ä", "/a?b", "/a#b",
        "/\n",
    ] {
        for (kind, of) in [("Exact", Kind::HttpRoute), ("PathPrefix", Kind::MeshHttpRoute)] {
            all_wrong(of, vec![(path(kind, hostile), value)]);
        }
    }
    let long = format!("/{}", "a".repeat(1024));
    let header = |header: Value| matching(json!({"headers": [header]}));
    let query = |query: Value| matching(json!({"queryParams": query}));
    let at = |field: &str| format!("spec.rules[0].matches[0].{field}");
    for (spec, field) in [
        (path("Exact", &long), at("path.value")),
        (path("Glob", "/"), at("path.type")),
        (path("RegularExpression", "(a"), at("path.value")),
        (path("RegularExpression", "a)|(b"), at("path.value")),
        (path("RegularExpression", "(a{1000}){1000}"), at("path.value")),
        (header(json!({"name": ":path", "value": "a"})), at("headers[0].name")),
        (header(json!({"name": "", "value": "a"})), at("headers[0].name")),
        (header(json!({"name": "a b", "value": "a"})), at("headers[0].name")),
        (header(json!({"name": "a", "value": "[", "type": "RegularExpression"})), at("headers[0].value")),
        (header(json!({"name": "a", "value": "a", "type": "Prefix"})), at("headers[0].type")),
        (header(json!({"name": "a", "value": "a".repeat(4097)})), at("headers[0].value")),
        (header(json!({"name": "a"})), at("headers[0].value")),
        (header(json!({"name": "a", "value": 1})), at("headers[0].value")),
        (
            matching(json!({"headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]})),
            at("headers[1].name"),
        ),
        (query(json!([{"name": "", "value": "a"}])), at("queryParams[0].name")),
        (query(json!([{"name": "a", "value": "1"}, {"name": "a", "value": "1"}])), at("queryParams[1].name")),
        (query((0..17).map(|i| json!({"name": i.to_string(), "value": "1"})).collect()), at("queryParams")),
        (matching(json!({"method": "get"})), at("method")),
        (matching(json!({"method": "GET "})), at("method")),
        (matching(json!({"cookies": []})), at("cookies")),
        (matching(json!({"path": {"prefix": "/"}})), at("path.prefix")),
    ] {
        let Err(found) = read(Kind::HttpRoute, object(Kind::HttpRoute, spec.clone())) else { panic!("{spec}") };
        assert_eq!(found.into_iter().map(|m| m.field).collect::<Vec<_>>(), [field], "{spec}");
    }
    let of_method = |method: Value| ruled(json!({"matches": [{"method": method}]}));
    right(
        Kind::GrpcRoute,
        vec![of_method(json!({"service": "a.B"})), of_method(json!({"method": "C", "type": "Exact"}))],
    );
    let at = |field: &'static str| -> &'static [&'static str] {
        match field {
            "type" => &["spec.rules[0].matches[0].method.type"],
            "service" => &["spec.rules[0].matches[0].method.service"],
            _ => &["spec.rules[0].matches[0].method.method"],
        }
    };
    all_wrong(
        Kind::GrpcRoute,
        vec![
            (of_method(json!({"service": "a", "type": "RegularExpression"})), at("type")),
            (of_method(json!({"service": "a/B"})), at("service")),
            (of_method(json!({"service": "ä"})), at("service")),
            (of_method(json!({"method": "a.b"})), at("method")),
            (of_method(json!({"method": "%41"})), at("method")),
        ],
    );
    all_wrong(
        Kind::HttpRoute,
        vec![
            (json!({"parentRefs": [service()], "hostnames": ["*"]}), &["spec.hostnames[0]"]),
            (
                json!({"parentRefs": [service()], "hostnames": ["a", "a b", "a.*.b", "[::1]"]}),
                &["spec.hostnames[1]", "spec.hostnames[2]", "spec.hostnames[3]"],
            ),
            (json!({"parentRefs": [service()], "rules": vec![json!({}); 17]}), &["spec.rules"]),
            (ruled(json!({"matches": vec![json!({}); 65]})), &["spec.rules[0].matches"]),
            (ruled(json!({"match": []})), &["spec.rules[0].match"]),
        ],
    );
}

#[test]
fn what_is_wrong_with_a_filter_is_named() {
    let filter = |filter: Value| ruled(json!({"filters": [filter]}));
    let modifier =
        |modifier: Value| filter(json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier}));
    let redirect = |redirect: Value| filter(json!({"type": "RequestRedirect", "requestRedirect": redirect}));
    right(
        Kind::HttpRoute,
        vec![
            modifier(json!({})),
            redirect(json!({})),
            redirect(json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}, "statusCode": 308})),
        ],
    );
    macro_rules! at {
        ($field:literal) => {
            &[concat!("spec.rules[0].filters[0].", $field)]
        };
    }
    let prefix = |path: &str| json!({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}});
    let full = |path: &str| json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": path}});
    all_wrong(
        Kind::MeshHttpRoute,
        vec![
            (filter(json!({})), at!("type")),
            (filter(json!({"type": "RequestHeaderModifier"})), at!("requestHeaderModifier")),
            (filter(json!({"type": "CORS"})), at!("cors")),
            (
                filter(json!({"type": "RequestRedirect", "requestRedirect": {}, "requestHeaderModifier": {}})),
                at!("requestHeaderModifier"),
            ),
            (modifier(json!({"set": [{"name": "a b", "value": ""}]})), at!("requestHeaderModifier.set[0].name")),
            (
                modifier(json!({"add": [{"name": "a", "value": "a\r\nb: c"}]})),
                at!("requestHeaderModifier.add[0].value"),
            ),
            (modifier(json!({"add": [{"name": "Host", "value": "a"}]})), at!("requestHeaderModifier.add[0].name")),
            (
                modifier(json!({"set": [{"name": "L5d_Client_Id", "value": "a"}]})),
                at!("requestHeaderModifier.set[0].name"),
            ),
            (modifier(json!({"remove": ["Content-Length"]})), at!("requestHeaderModifier.remove[0]")),
            (modifier(json!({"remove": vec!["a"; 17]})), at!("requestHeaderModifier.remove")),
            (modifier(json!({"replace": []})), at!("requestHeaderModifier.replace")),
            (redirect(json!({"scheme": "ftp"})), at!("requestRedirect.scheme")),
            (redirect(json!({"hostname": "a b"})), at!("requestRedirect.hostname")),
            (redirect(json!({"port": 0})), at!("requestRedirect.port")),
            (redirect(json!({"statusCode": 200})), at!("requestRedirect.statusCode")),
            (redirect(json!({"statusCode": 304})), at!("requestRedirect.statusCode")),
            (redirect(full("b")), at!("requestRedirect.path.replaceFullPath")),
            (redirect(full("/a/../b")), at!("requestRedirect.path.replaceFullPath")),
            (redirect(prefix("b")), at!("requestRedirect.path.replacePrefixMatch")),
            (redirect(json!({"path": {"type": "ReplaceFullPath"}})), at!("requestRedirect.path")),
            (
                redirect(
                    json!({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/", "replacePrefixMatch": "/"}}),
                ),
                at!("requestRedirect.path"),
            ),
            (ruled(json!({"filters": vec![json!({"type": "X"}); 17]})), &["spec.rules[0].filters"]),
        ],
    );
    // A prefix can be replaced where there is one.
    let exact = json!([{"path": {"value": "/a"}}, {"path": {"type": "Exact", "value": "/a"}}]);
    for filters in [
        json!([{"type": "RequestRedirect", "requestRedirect": prefix("/b")}]),
        json!([{"type": "URLRewrite", "urlRewrite": prefix("/b")}]),
    ] {
        all_wrong(
            Kind::HttpRoute,
            vec![
                (ruled(json!({"matches": exact, "filters": filters})), &["spec.rules[0].matches[1].path.type"]),
                (
                    ruled(json!({"matches": exact, "backendRefs": [{"name": "a", "port": 1, "filters": filters}]})),
                    &["spec.rules[0].matches[1].path.type"],
                ),
            ],
        );
    }
    all_wrong(Kind::GrpcRoute, vec![(redirect(json!({})), at!("type"))]);
}

#[test]
fn what_the_wire_lacks_is_kept_beside_it() {
    let rewrite = json!({"type": "URLRewrite", "urlRewrite":
        {"hostname": "b", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/one"}}});
    let mirror = |more: Value| {
        let mut mirror = json!({"backendRef": {"name": "copy", "port": 80}});
        mirror.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"type": "RequestMirror", "requestMirror": mirror})
    };
    let (found, notes) = rule(json!({"filters": [rewrite, mirror(json!({})), mirror(json!({"percent": 10}))]}));
    let beyond = &found.does.beyond;
    let path = Some(PathReplacement::Prefix("/one".to_owned()));
    assert_eq!(beyond.rewrite, Some(Rewrite { host: Some("b".to_owned()), path }));
    let shares: Vec<Ratio> = beyond.mirrors.iter().map(|m| m.share).collect();
    assert_eq!(shares, [Ratio { numerator: 1, denominator: 1 }, Ratio { numerator: 10, denominator: 100 }]);
    assert_eq!((beyond.mirrors[0].to.name.as_str(), beyond.first()), ("copy", Some("URLRewrite")));
    assert_eq!((found.filters, notes), (vec![], vec![]));

    let (found, notes) =
        rule(json!({"filters": [{"type": "ExtensionRef", "extensionRef": {"name": "x"}}, {"type": "Later"}]}));
    assert_eq!(found.does.beyond.unknown, ["ExtensionRef", "Later"]);
    assert_eq!(notes, ["spec.rules[0].filters[0].type", "spec.rules[0].filters[1].type"]);

    let at = |field: &'static str| -> &'static [&'static str] {
        match field {
            "percent" => &["spec.rules[0].filters[0].requestMirror.percent"],
            "fraction" => &["spec.rules[0].filters[0].requestMirror.fraction"],
            _ => &["spec.rules[0].filters[0].requestMirror.backendRef.port"],
        }
    };
    let wrong = |filter: Value| ruled(json!({"filters": [filter]}));
    all_wrong(
        Kind::HttpRoute,
        vec![
            (wrong(mirror(json!({"percent": 101}))), at("percent")),
            (wrong(mirror(json!({"fraction": {"numerator": 1, "denominator": 0}}))), at("fraction")),
            (wrong(mirror(json!({"percent": 1, "fraction": {"numerator": 1}}))), at("percent")),
            (wrong(mirror(json!({"backendRef": {"name": "copy"}}))), at("port")),
            (
                wrong(mirror(json!({"backendRef": {"group": GROUP, "kind": "EgressNetwork", "name": "out"}}))),
                &["spec.rules[0].filters[0].requestMirror.backendRef.kind"],
            ),
        ],
    );
    // Each of the pair is right; together one of them would do nothing.
    let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"statusCode": 301}});
    let both = json!({"filters": [redirect, rewrite]});
    all_wrong(Kind::HttpRoute, vec![(ruled(both), &["spec.rules[0].filters"])]);
    let twice = json!({"filters": [rewrite, rewrite]});
    all_wrong(Kind::HttpRoute, vec![(ruled(twice), &["spec.rules[0].filters[1].type"])]);
    // The proxy of a Server carries it out no more than others carry out what is unknown.
    let rewrites = json!({"filters": [rewrite]});
    for (parents, notes) in [(json!([service()]), 0), (json!([server(), service()]), 1), (json!([server()]), 1)] {
        let (_, found) = http(Kind::HttpRoute, json!({"parentRefs": parents, "rules": [rewrites]}));
        assert_eq!(found.len(), notes, "{parents}: {found:?}");
    }
}

#[test]
fn what_a_servers_proxy_does_not_look_at_is_told() {
    let rule = json!({
        "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 1}}}],
        "backendRefs": [{"name": "a", "port": 1}], "timeouts": {"request": "1s"}, "retry": {}, "sessionPersistence": {},
    });
    let (_, notes) = http(Kind::HttpRoute, json!({"parentRefs": [server()], "rules": [rule]}));
    let fields = ["retry", "sessionPersistence", "filters[0]", "filters[1].type", "backendRefs", "timeouts"];
    assert_eq!(notes, fields.map(|field| format!("spec.rules[0].{field}")));
    let (_, notes) = http(Kind::HttpRoute, json!({"parentRefs": [server(), service()], "rules": [rule]}));
    let fields = ["retry", "sessionPersistence", "filters[1].type"];
    assert_eq!(notes, fields.map(|field| format!("spec.rules[0].{field}")), "of clients");
    let edits = json!({"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {}}]});
    let notes = checked_of(Kind::GrpcRoute, json!({"parentRefs": [service()], "rules": [edits]})).notes;
    assert_eq!(notes.iter().map(|note| note.field.as_str()).collect::<Vec<_>>(), ["spec.rules[0].filters[0].type"]);
}

#[test]
fn what_is_wrong_with_backends_and_timeouts_is_named() {
    let backend = |backend: Value| ruled(json!({"backendRefs": [backend]}));
    let timeouts =
        |request: &str, backend: &str| ruled(json!({"timeouts": {"request": request, "backendRequest": backend}}));
    right(Kind::HttpRoute, vec![timeouts("0s", "1h30m"), timeouts("10s", "10s")]);
    // In the mesh's own group it may have no port; what goes there fails.
    let portless = json!({"parentRefs": [server()], "rules": [{"backendRefs": [{"name": "a"}]}]});
    right(Kind::MeshHttpRoute, vec![portless]);
    all_wrong(
        Kind::HttpRoute,
        vec![
            (backend(json!({"name": "a"})), &["spec.rules[0].backendRefs[0].port"]),
            (backend(json!({"port": 80})), &["spec.rules[0].backendRefs[0].name"]),
            (backend(json!({"name": "a", "port": 0})), &["spec.rules[0].backendRefs[0].port"]),
            (backend(json!({"name": "a", "port": -1})), &["spec.rules[0].backendRefs[0].port"]),
            (backend(json!({"name": "a", "port": 80, "weight": 1_000_001})), &["spec.rules[0].backendRefs[0].weight"]),
            (backend(json!({"name": "a", "port": 80, "weight": -1})), &["spec.rules[0].backendRefs[0].weight"]),
            (ruled(json!({"backendRefs": vec![json!({"name": "a", "port": 1}); 17]})), &["spec.rules[0].backendRefs"]),
            (timeouts("-1s", "0s"), &["spec.rules[0].timeouts.request"]),
            (timeouts("1", "0s"), &["spec.rules[0].timeouts.request"]),
            (timeouts("1s", "soon"), &["spec.rules[0].timeouts.backendRequest"]),
            (timeouts("1s", "2s"), &["spec.rules[0].timeouts.backendRequest"]),
        ],
    );
    for kind in CONNECTIONS {
        for rules in [json!([]), json!([{}, {}])] {
            all_wrong(kind, vec![(json!({"parentRefs": [service()], "rules": rules}), &["spec.rules"])]);
        }
    }
    all_wrong(
        Kind::TcpRoute,
        vec![(json!({"parentRefs": [service()], "hostnames": ["a"], "rules": [{}]}), &["spec.hostnames"])],
    );
    // In the first version a backend's namespace has a default of its own.
    let mut first = object(Kind::MeshHttpRoute, backend(json!({"name": "a"})));
    first["apiVersion"] = json!("policy.linkerd.io/v1alpha1");
    let Checked { route, .. } = checked(&parse(Kind::MeshHttpRoute, first).unwrap()).unwrap().unwrap();
    let RouteOf::Http(route) = route.of else { panic!() };
    assert_eq!(route.rules[0].does.backends[0].namespace, "default");
}

proptest! {
    /// Whoever writes a path otherwise reaches no server that takes it for another number of segments.
    #[test]
    fn a_path_that_is_taken_is_read_by_servers_as_it_is_written(path in "/([/.%;+a-fC25\\\\]|%2|%5|/\\.|;){0,12}") {
        let mut found = Findings::default();
        if matching::is_path(&path, "path", &mut found) {
            prop_assert!(readings(&path).iter().all(|reading| !reading.other_segments), "{path}");
        } else {
            prop_assert_eq!(found.mistakes.len(), 1);
        }
    }

    #[test]
    fn no_value_makes_the_reader_fail(
        kind in prop::sample::select(&ROUTES[..]), parents in any_json(), hostnames in any_json(), rules in any_json(),
    ) {
        let spec = json!({"parentRefs": [service(), parents], "hostnames": hostnames, "rules": rules});
        let _ = read(kind, object(kind, spec));
    }
}

/// Values of the shapes that routes have, in wrong places.
fn any_json() -> impl Strategy<Value = Value> {
    let names =
        ["type", "name", "value", "path", "matches", "filters", "backendRefs", "port", "requestRedirect", "timeouts"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(|n| json!(n)),
        "[/a-zA-Z*. ]{0,8}".prop_map(|text| json!(text)),
        prop::sample::select(vec!["RequestRedirect", "URLRewrite", "Exact", "Service", "1s"])
            .prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(5, 40, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(names.to_vec()).prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| json!(map)),
        ]
    })
}

/// Each fits by itself; all that an API server takes of them would be tens of gigabytes, here and in each proxy, and minutes to make.
#[test]
fn regular_expressions_have_a_bound_together() {
    let large = r"\w{100}";
    let headers: Vec<Value> = (0..16)
        .map(|i| json!({"type": "RegularExpression", "name": format!("x-{i}"), "value": format!("{large}{i}")}))
        .collect();
    let matches = |headers: &[Value], most| -> Vec<Value> { (0..most).map(|_| json!({"headers": headers})).collect() };
    let spec = ruled(json!({"matches": matches(&headers, 64)}));
    let wrong = read(Kind::HttpRoute, object(Kind::HttpRoute, spec)).unwrap_err();
    assert!(wrong.len() > 900, "{}", wrong.len());
    for mistake in wrong {
        assert!(mistake.field.starts_with("spec.rules[0].matches[") && mistake.field.ends_with("].value"), "{mistake}");
        assert!(mistake.to_string().contains("too large together; use fewer"), "{mistake}");
    }
    let condition = |source: &str| json!({"not": {"any": [{"pathRegex": source}]}});
    let profile = |sources: &[String]| {
        let route = |source: &String| json!({"name": "a", "condition": condition(source)});
        let spec = json!({"routes": sources.iter().map(route).collect::<Vec<_>>()});
        let metadata = json!({"name": "web.ns.svc.cluster.local", "namespace": "ns"});
        read(Kind::ServiceProfile, json!({"metadata": metadata, "spec": spec}))
    };
    let wrong = profile(&(0..500).map(|i| format!("{large}{i}")).collect::<Vec<_>>()).unwrap_err();
    assert!(wrong.len() > 400, "{}", wrong.len());
    assert!(wrong[0].field.ends_with("].condition.not.any[0].pathRegex"), "{}", wrong[0]);
    assert!(wrong[0].message.ends_with("too large together"), "{}", wrong[0]);
    // As `weft profile` makes them of a large API.
    let paths: Vec<String> =
        (0..1000).map(|i| format!("/repos/[^/]*/[^/]*/things-{i}/[^/]*/comments/[^/]*/reactions")).collect();
    assert!(profile(&paths).is_ok());
    let few: Vec<Value> = (0..16)
        .map(|i| json!({"type": "RegularExpression", "name": format!("x-{i}"), "value": "[a-z]+[0-9]{3}"}))
        .collect();
    let route = ruled(json!({"matches": matches(&few, 64)}));
    assert!(read(Kind::HttpRoute, object(Kind::HttpRoute, route)).is_ok());
}
