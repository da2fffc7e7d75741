//! Tables for each rule of the specification, and a naive evaluator that tries everything.

use super::*;
use crate::{Meta, policy::route::Pattern};
use proptest::{collection::vec, option, prelude::*, sample::select};
use std::cmp::Reverse;

#[derive(Clone, Debug)]
struct Req {
    method: &'static str,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
}

impl RequestView for Req {
    fn method(&self) -> &str {
        self.method
    }
    fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.headers.iter().filter(|(n, _)| n == name).any(|(_, value)| wanted(value))
    }
    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.headers.iter().for_each(|(name, value)| visit(name.as_bytes(), value));
    }
}

fn get(authority: &str, target: &str) -> Req {
    let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
    let authority = (!authority.is_empty()).then(|| authority.to_owned());
    Req { method: "GET", authority, path: path.to_owned(), query: query.map(str::to_owned), headers: vec![] }
}

/// Routes whose rules carry their position.
fn routes(list: Vec<(Vec<HostMatch>, Vec<Vec<HttpMatch>>)>) -> Vec<HttpRoute<(usize, usize)>> {
    list.into_iter()
        .enumerate()
        .map(|(r, (hosts, rules))| HttpRoute {
            meta: Meta::default_named(r.to_string()),
            hosts,
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(i, matches)| Rule { matches, filters: vec![], does: (r, i) })
                .collect(),
        })
        .collect()
}

fn chosen(routes: &[HttpRoute<(usize, usize)>], request: &Req) -> Option<(usize, usize)> {
    find(routes, request).map(|(route, rule)| {
        assert_eq!(route.meta.name(), rule.does.0.to_string());
        rule.does
    })
}

fn exact(host: &str) -> HostMatch {
    HostMatch::Exact(host.to_owned())
}

fn suffix(host: &str) -> HostMatch {
    HostMatch::Suffix(host.rsplit('.').map(str::to_owned).collect())
}

fn on_path(path: PathMatch) -> HttpMatch {
    HttpMatch { path: Some(path), ..HttpMatch::default() }
}

fn prefix(path: &str) -> HttpMatch {
    on_path(PathMatch::Prefix(path.to_owned()))
}

#[test]
fn hosts_before_rules() {
    let any_rule = || vec![vec![]];
    let routes = routes(vec![
        (vec![], vec![vec![on_path(PathMatch::Exact("/very/special".to_owned()))]]),
        (vec![suffix("example.com")], any_rule()),
        (vec![suffix("a.example.com")], any_rule()),
        (vec![exact("b.a.example.com"), suffix("test")], any_rule()),
    ]);
    for (host, expected) in [
        ("b.a.example.com", Some(3)),
        ("B.A.Example.Com:8080", Some(3)),
        ("b.a.example.com.", Some(3)),
        ("c.a.example.com", Some(2)),
        ("c.example.com:80", Some(1)),
        ("example.com", Some(0)),
        ("xexample.com", Some(0)),
        ("x.test", Some(3)),
        ("", Some(0)),
    ] {
        assert_eq!(chosen(&routes, &get(host, "/very/special")).map(|(r, _)| r), expected, "{host}");
    }
    assert_eq!(chosen(&routes, &get("other", "/")), None);
}

#[test]
fn an_ipv6_authority_has_a_host() {
    let routes = routes(vec![(vec![exact("[fd00::1]")], vec![vec![]])]);
    for (host, expected) in [("[fd00::1]", true), ("[fd00::1]:80", true), ("[fd00::2]:80", false)] {
        assert_eq!(chosen(&routes, &get(host, "/")).is_some(), expected, "{host}");
    }
}

#[test]
fn prefixes_are_whole_segments() {
    for (wanted, path, fits) in [
        ("/a", "/a", true),
        ("/a", "/a/", true),
        ("/a", "/a/b", true),
        ("/a", "/ab", false),
        ("/a/", "/a", true),
        ("/a/", "/a/b", true),
        ("/", "/", true),
        ("/", "/x", true),
        ("/", "*", false),
        ("/a", "", false),
    ] {
        let routes = routes(vec![(vec![], vec![vec![prefix(wanted)]])]);
        assert_eq!(chosen(&routes, &get("", path)).is_some(), fits, "{wanted} on {path}");
    }
}

#[test]
fn the_kind_of_path_match_does_not_count() {
    let kinds = [
        on_path(PathMatch::Regex(Pattern::new("/a.*").unwrap())),
        on_path(PathMatch::Exact("/abc".to_owned())),
        prefix("/abc"),
    ];
    for first in 0..kinds.len() {
        let mut rules: Vec<_> = kinds.iter().cloned().map(|m| vec![m]).collect();
        rules.rotate_left(first);
        assert_eq!(chosen(&routes(vec![(vec![], rules)]), &get("", "/abc")), Some((0, 0)));
    }
}

#[test]
fn parameters_are_decoded() {
    let wants = |name: &str, value: ValueMatch| HttpMatch {
        query: vec![QueryMatch { name: name.to_owned(), value }],
        ..HttpMatch::default()
    };
    let text = |t: &str| ValueMatch::Exact(t.as_bytes().to_vec());
    for (m, query, fits) in [
        (wants("a", text("b c")), "/?x=y&a=b+c", true),
        (wants("a", text("b c")), "/?a=b%20c", true),
        (wants("a b", text("")), "/?a%20b", true),
        (wants("a", text("%2")), "/?a=%2", true),
        (wants("a", text("%zz")), "/?a=%zz", true),
        (wants("a", text("b")), "/?A=b", false),
        (wants("a", text("b")), "/", false),
        (wants("a", ValueMatch::Regex(Pattern::new("[0-9]+").unwrap())), "/?a=x&a=12", true),
        (wants("a", ValueMatch::Regex(Pattern::new("[0-9]+").unwrap())), "/?a=12x", false),
        (wants("", text("")), "/?", false),
    ] {
        assert_eq!(
            chosen(&routes(vec![(vec![], vec![vec![m.clone()]])]), &get("", query)).is_some(),
            fits,
            "{m:?} {query}"
        );
    }
}

#[test]
fn one_of_the_values_of_a_header_is_enough() {
    let m = HttpMatch {
        headers: vec![HeaderMatch { name: "x".to_owned(), value: ValueMatch::Exact(b"two".to_vec()) }],
        ..HttpMatch::default()
    };
    let routes = routes(vec![(vec![], vec![vec![m]])]);
    let mut request = get("", "/");
    request.headers = vec![("x".to_owned(), b"one".to_vec())];
    assert_eq!(chosen(&routes, &request), None);
    request.headers.push(("x".to_owned(), b"two".to_vec()));
    assert!(chosen(&routes, &request).is_some());
}

#[test]
fn grpc_goes_by_service_and_method() {
    let m = |service: &str, method: &str| GrpcMatch {
        service: service.to_owned(),
        method: method.to_owned(),
        headers: vec![],
    };
    let lists = [vec![], vec![m("", "Get")], vec![m("p.S", "")], vec![m("p.S", "Get"), m("p.T", "Get")]];
    let rules = lists.into_iter().enumerate().map(|(i, matches)| Rule { matches, filters: vec![], does: i }).collect();
    let routes = [GrpcRoute { meta: Meta::default_named("r"), hosts: vec![], rules }];
    for (method, path, expected) in [
        ("POST", "/p.S/Get", 3),
        ("POST", "/p.T/Get", 3),
        ("POST", "/p.S/Put", 2),
        ("POST", "/p.U/Get", 1),
        ("POST", "/p.U/Put", 0),
        ("POST", "/nothing", 0),
        ("GET", "/p.S/Get", 0),
    ] {
        let request = Req { method, ..get("x", path) };
        assert_eq!(find_grpc(&routes, &request).map(|(_, rule)| rule.does), Some(expected), "{method} {path}");
    }
}

/// All fits of all matches, worst ones included, sorted: what is first wins.
fn naive(routes: &[HttpRoute<(usize, usize)>], request: &Req) -> Option<(usize, usize)> {
    let labels = |host: &str| -> Vec<String> { host.to_lowercase().split('.').map(str::to_owned).collect() };
    let segments = |path: &str| -> Vec<String> { path.trim_end_matches('/').split('/').map(str::to_owned).collect() };
    let value_fits = |wanted: &ValueMatch, value: &[u8]| match wanted {
        ValueMatch::Exact(exact) => exact == value,
        ValueMatch::Regex(pattern) => pattern.is_match(&String::from_utf8_lossy(value)),
    };
    let mut found = vec![];
    for route in routes {
        let mut hosts = vec![];
        if route.hosts.is_empty() {
            hosts.push((0, 0));
        }
        if let Some(authority) = &request.authority {
            let host = labels(authority.split(':').next().unwrap());
            for wanted in &route.hosts {
                match wanted {
                    HostMatch::Exact(name) if labels(name) == host => hosts.push((2, 0)),
                    HostMatch::Suffix(reversed) => {
                        let end: Vec<_> = reversed.iter().rev().cloned().collect();
                        if host.len() > end.len() && host.ends_with(&end) {
                            hosts.push((1, end.len()));
                        }
                    }
                    HostMatch::Exact(_) => {}
                }
            }
        }
        for host in hosts {
            for rule in &route.rules {
                if rule.matches.is_empty() {
                    found.push((Reverse((host, (1, 0, 0, 0))), rule.does));
                }
                for m in &rule.matches {
                    let path = match &m.path {
                        None => Some(1),
                        Some(PathMatch::Exact(p)) => (*p == request.path).then_some(p.len()),
                        Some(PathMatch::Regex(p)) => p.is_match(&request.path).then_some(request.path.len()),
                        Some(PathMatch::Prefix(p)) => segments(&request.path)
                            .starts_with(&segments(p))
                            .then(|| p.trim_end_matches('/').len().max(1)),
                    };
                    let headers = m.headers.iter().all(|wanted| {
                        request.headers.iter().any(|(n, v)| *n == wanted.name && value_fits(&wanted.value, v))
                    });
                    let query = m.query.iter().all(|wanted| {
                        request.query.iter().flat_map(|q| q.split('&')).any(|pair| {
                            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                            name == wanted.name && value_fits(&wanted.value, value.as_bytes())
                        })
                    });
                    let method = m.method.as_ref().is_none_or(|method| method == request.method);
                    if let (Some(path), true, true, true) = (path, headers, query, method) {
                        let fit = (path, m.headers.len(), m.query.len(), usize::from(m.method.is_some()));
                        found.push((Reverse((host, fit)), rule.does));
                    }
                }
            }
        }
    }
    found.sort();
    found.first().map(|(_, does)| *does)
}

fn host_text() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b"]), 1..4).prop_map(|labels| labels.join("."))
}

fn path_text() -> impl Strategy<Value = String> {
    (vec(select(vec!["a", "ab", "b"]), 0..3), any::<bool>()).prop_map(|(segments, slash)| {
        let path = format!("/{}", segments.join("/"));
        if slash && path.len() > 1 { path + "/" } else { path }
    })
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(vec!["1", "2"]).prop_map(|v| ValueMatch::Exact(v.as_bytes().to_vec())),
        select(vec!["1", ".", "[12]+"]).prop_map(|r| ValueMatch::Regex(Pattern::new(r).unwrap())),
    ]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        path_text().prop_map(PathMatch::Exact),
        path_text().prop_map(PathMatch::Prefix),
        select(vec!["/a.*", "/", "/(a|b)"]).prop_map(|r| PathMatch::Regex(Pattern::new(r).unwrap())),
    ];
    let named = || (select(vec!["x", "y"]), value());
    (
        option::of(path),
        vec(named().prop_map(|(name, value)| HeaderMatch { name: name.to_owned(), value }), 0..2),
        vec(named().prop_map(|(name, value)| QueryMatch { name: name.to_owned(), value }), 0..2),
        option::of(select(vec!["GET", "POST"]).prop_map(str::to_owned)),
    )
        .prop_map(|(path, headers, query, method)| HttpMatch { path, headers, query, method })
}

fn host_match() -> impl Strategy<Value = HostMatch> {
    prop_oneof![host_text().prop_map(|h| exact(&h)), host_text().prop_map(|h| suffix(&h))]
}

fn request() -> impl Strategy<Value = Req> {
    let pairs = || vec((select(vec!["x", "y"]), select(vec!["1", "2", "3"])), 0..3);
    (
        select(vec!["GET", "POST", "PUT"]),
        option::weighted(0.9, (host_text(), any::<bool>())),
        path_text(),
        option::of(pairs()),
        pairs(),
    )
        .prop_map(|(method, authority, path, query, headers)| Req {
            method,
            authority: authority.map(|(host, port)| if port { host + ":80" } else { host }),
            path,
            query: query.map(|q| q.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn finds_what_a_naive_evaluator_finds(
        list in vec((vec(host_match(), 0..3), vec(vec(http_match(), 0..3), 0..4)), 0..4),
        requests in vec(request(), 1..6),
    ) {
        let routes = routes(list);
        for request in requests {
            prop_assert_eq!(chosen(&routes, &request), naive(&routes, &request), "{:?}", request);
        }
    }
}

#[test]
fn the_prefix_is_that_of_the_closest_match() {
    let by = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let prefix = |p: &str| by(PathMatch::Prefix(p.into()));
    let exact = |p: &str| by(PathMatch::Exact(p.into()));
    let found = |matches: &[HttpMatch], path| matched_prefix(matches, &get("web", path)).map(str::to_owned);
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(found(&[], "/a"), of("/"));
    assert_eq!(found(&[HttpMatch::default()], "/a"), of("/"));
    assert_eq!(found(&[prefix("/"), prefix("/a/")], "/a/b"), of("/a/"));
    assert_eq!(found(&[prefix("/"), exact("/a")], "/a"), None);
    assert_eq!(found(&[exact("/a"), prefix("/a")], "/a"), of("/a"), "both fit, and only one can be replaced");
    assert_eq!(found(&[prefix("/b")], "/a"), None);
}
