//! Tables for each rule of the specification, and a naive evaluator that tries everything.

use super::*;
use crate::{
    Meta,
    policy::route::{NoPattern, Pattern},
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
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
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).any(|(_, value)| wanted(value))
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
    let (hosts, rules): (Vec<_>, Vec<_>) = list.into_iter().unzip();
    let route = |(r, (hosts, rules)): (usize, _)| HttpRoute { meta: Meta::default_named(r.to_string()), hosts, rules };
    hosts.into_iter().zip(placed(rules)).enumerate().map(route).collect()
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

/// HTTP/2 has no such header, and HTTP/1 becomes HTTP/2 between proxies.
#[test]
fn the_header_host_is_whom_a_request_asks_for() {
    let of = |value: ValueMatch| HttpMatch {
        headers: vec![HeaderMatch { name: "host".to_owned(), value }],
        ..HttpMatch::default()
    };
    let exactly = |host: &str| of(ValueMatch::Exact(host.into()));
    let routes = routes(vec![(
        vec![],
        vec![vec![exactly("web")], vec![exactly("web:80"), of(ValueMatch::Regex(Pattern::new("db.*").unwrap()))]],
    )]);
    for (host, expected) in [("web", Some(0)), ("web:80", Some(1)), ("db.shop", Some(1)), ("web:81", None), ("", None)]
    {
        let forged = Req { headers: vec![("host".to_owned(), b"web".to_vec())], ..get(host, "/") };
        assert_eq!(chosen(&routes, &forged).map(|(_, rule)| rule), expected, "{host}");
    }
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
        ("/", "*", true),
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

/// Of two matches that fit, the one that wants more headers fits closer, then the one that wants more parameters.
#[test]
fn what_wants_more_fits_closer() {
    /// Headers and parameters.
    type Wanted<'a> = (&'a [&'a str], &'a [&'a str]);
    let one = || ValueMatch::Exact(b"1".to_vec());
    let headers = |names: &[&str]| -> Vec<HeaderMatch> {
        names.iter().map(|name| HeaderMatch { name: (*name).to_owned(), value: one() }).collect()
    };
    let query = |names: &[&str]| -> Vec<QueryMatch> {
        names.iter().map(|name| QueryMatch { name: (*name).to_owned(), value: one() }).collect()
    };
    // What a rule wants, what the next one does, what the request has, and which of the two it follows.
    let table: [(Wanted<'_>, Wanted<'_>, Wanted<'_>, usize); 7] = [
        ((&["x"], &[]), (&["x", "y"], &[]), (&["x", "y"], &[]), 1),
        ((&["x", "y"], &[]), (&["x"], &[]), (&["Y", "X"], &[]), 0),
        ((&["x"], &[]), (&["x", "y"], &[]), (&["x"], &[]), 0),
        ((&[], &["x"]), (&[], &["x", "y"]), (&[], &["y", "x"]), 1),
        ((&[], &["x"]), (&[], &["x", "y"]), (&[], &["x", "Y"]), 0),
        ((&["x", "y"], &[]), (&["x"], &["x", "y"]), (&["x", "y"], &["x", "y"]), 0),
        ((&["x"], &["x"]), (&["x"], &["x", "y"]), (&["x"], &["x", "y"]), 1),
    ];
    for row @ (first, second, sent, expected) in table {
        let of = |wanted: Wanted<'_>| {
            vec![HttpMatch { headers: headers(wanted.0), query: query(wanted.1), ..HttpMatch::default() }]
        };
        let parameters: Vec<String> = sent.1.iter().map(|name| format!("{name}=1")).collect();
        let sent_headers = sent.0.iter().map(|name| ((*name).to_owned(), b"1".to_vec())).collect();
        let request =
            Req { method: "POST", headers: sent_headers, ..get("", &format!("/p.S/Get?{}", parameters.join("&"))) };
        let of_http = routes(vec![(vec![], vec![of(first), of(second)])]);
        assert_eq!(chosen(&of_http, &request), Some((0, expected)), "{row:?}");
        if [first, second, sent].iter().all(|(_, query)| query.is_empty()) {
            let of = |(names, _): Wanted<'_>| {
                vec![GrpcMatch { service: String::new(), method: String::new(), headers: headers(names) }]
            };
            let rules = placed(vec![vec![of(first), of(second)]]).remove(0);
            let routes = [GrpcRoute { meta: Meta::default_named("r"), hosts: vec![], rules }];
            assert_eq!(find_grpc(&routes, &request).map(|(_, rule)| rule.does.1), Some(expected), "{row:?}");
        }
    }
}

/// The host of an authority, in small letters: no port, and no dot at its end.
fn naive_host(authority: &str) -> String {
    let small = authority.to_ascii_lowercase();
    let host = match small.find(']') {
        Some(end) if small.starts_with('[') => small[..=end].to_owned(),
        _ => small.split(':').next().unwrap().to_owned(),
    };
    host.strip_suffix('.').map_or(host.clone(), str::to_owned)
}

/// How well hosts fit, each that does: exact names are best, then the longest suffix.
fn naive_hosts(hosts: &[HostMatch], authority: Option<&str>) -> Vec<(u8, usize)> {
    let mut found = vec![];
    if hosts.is_empty() {
        found.push((0, 0));
    }
    let Some(host) = authority.map(naive_host) else { return found };
    let have: Vec<&str> = host.split('.').collect();
    for wanted in hosts {
        match wanted {
            HostMatch::Exact(name) if naive_host(name) == host => found.push((2, 0)),
            HostMatch::Suffix(reversed) => {
                let end: Vec<String> = reversed.iter().rev().map(|label| label.to_ascii_lowercase()).collect();
                let before = have.len().checked_sub(end.len() + 1).map(|before| have[before]);
                if have.ends_with(&end.iter().map(String::as_str).collect::<Vec<_>>())
                    && before.is_some_and(|label| !label.is_empty())
                {
                    found.push((1, end.len()));
                }
            }
            HostMatch::Exact(_) => {}
        }
    }
    found
}

fn naive_value(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Exact(exact) => exact == value,
        ValueMatch::Regex(pattern) => String::from_utf8(value.to_vec()).is_ok_and(|text| pattern.is_match(&text)),
    }
}

/// What a form's encoding stands for.
fn naive_decoded(text: &str) -> Vec<u8> {
    let mut out = vec![];
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|d| d.iter().all(u8::is_ascii_hexdigit));
        match (bytes[at], digits) {
            (b'%', Some(digits)) => {
                out.push(u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap());
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    out
}

fn naive_path(wanted: &PathMatch, path: &str) -> Option<usize> {
    match wanted {
        PathMatch::Exact(exact) => (exact == path).then_some(exact.len()),
        PathMatch::Regex(pattern) => pattern.is_match(path).then_some(path.len()),
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let (have, want): (Vec<_>, Vec<_>) = (path.split('/').collect(), prefix.split('/').collect());
            let whole = have.starts_with(&want);
            // Below the root is what begins with a slash, and the server as a whole.
            let below = if prefix.is_empty() { path.starts_with('/') || path == "*" } else { whole };
            below.then_some(prefix.len().max(1))
        }
    }
}

fn naive_headers(headers: &[HeaderMatch], request: &Req) -> bool {
    headers.iter().all(|wanted| {
        request.headers.iter().any(|(n, v)| n.to_lowercase() == wanted.name && naive_value(&wanted.value, v))
    })
}

/// All fits of all matches, worst ones included, sorted: what is first wins.
fn naive(routes: &[HttpRoute<(usize, usize)>], request: &Req) -> Option<(usize, usize)> {
    let mut found = vec![];
    for route in routes {
        for host in naive_hosts(&route.hosts, request.authority.as_deref()) {
            for rule in &route.rules {
                if rule.matches.is_empty() {
                    found.push((Reverse((host, (1, 0, 0, 0))), rule.does));
                }
                for m in &rule.matches {
                    let path = m.path.as_ref().map_or(Some(1), |wanted| naive_path(wanted, &request.path));
                    let headers = naive_headers(&m.headers, request);
                    let query = m.query.iter().all(|wanted| {
                        request.query.iter().flat_map(|q| q.split('&')).any(|pair| {
                            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                            !pair.is_empty()
                                && naive_decoded(name) == wanted.name.as_bytes()
                                && naive_value(&wanted.value, &naive_decoded(value))
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

fn naive_grpc(routes: &[GrpcRoute<(usize, usize)>], request: &Req) -> Option<(usize, usize)> {
    let mut found = vec![];
    for route in routes {
        for host in naive_hosts(&route.hosts, request.authority.as_deref()) {
            for rule in &route.rules {
                if rule.matches.is_empty() {
                    found.push((Reverse((host, (0, 0, 0))), rule.does));
                }
                for GrpcMatch { service, method, headers } in &rule.matches {
                    let mut parts = request.path.splitn(3, '/');
                    let (Some(""), Some(called), Some(what)) = (parts.next(), parts.next(), parts.next()) else {
                        continue;
                    };
                    let of_service = service.is_empty() || service == called;
                    let of_method = method.is_empty() || method == what;
                    if request.method == "POST" && of_service && of_method && naive_headers(headers, request) {
                        found.push((Reverse((host, (service.len(), method.len(), headers.len()))), rule.does));
                    }
                }
            }
        }
    }
    found.sort();
    found.first().map(|(_, does)| *does)
}

/// Some are no names that anybody could have.
fn host_text() -> impl Strategy<Value = String> {
    let label = prop_oneof![12 => select(vec!["a", "b"]), 3 => select(vec!["A", "B", "", "*", "%61", "a-b"])];
    vec(label, 1..4).prop_map(|labels| labels.join("."))
}

fn authority() -> impl Strategy<Value = String> {
    let end = prop_oneof![4 => Just(""), 1 => select(vec![".", ":80", ".:80", ":", ".."])];
    prop_oneof![
        8 => (host_text(), end).prop_map(|(host, end)| host + end),
        1 => select(vec!["[fd00::1]", "[FD00::1]", "[fd00::1]:80"]).prop_map(str::to_owned),
    ]
}

fn path_text() -> impl Strategy<Value = String> {
    let plain = select(vec!["a", "ab", "b"]);
    let odd = select(vec!["", ".", "..", "A", "%61", "%2561", "a;x", "a%2fb", "a\\b", "%", "%2e%2E", "a?", "ä"]);
    let segment = prop_oneof![6 => plain, 2 => odd];
    (vec(segment, 0..4), any::<bool>()).prop_map(|(segments, slash)| {
        let path = format!("/{}", segments.join("/"));
        if slash && path.len() > 1 { path + "/" } else { path }
    })
}

/// As clients send it.
fn sent_path() -> impl Strategy<Value = String> {
    prop_oneof![12 => path_text(), 1 => select(vec!["*", "a", "a/b"]).prop_map(str::to_owned)]
}

/// Each is made once, which costs more than all the rest of a case.
fn patterns(texts: &[&str]) -> impl Strategy<Value = Pattern> + use<> {
    select(texts.iter().map(|text| Pattern::new(text).unwrap()).collect::<Vec<_>>())
}

fn value() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        select(vec!["1", "2", "1 2", "%31"]).prop_map(|v| ValueMatch::Exact(v.as_bytes().to_vec())),
        patterns(&["1", ".", "[12]+", ".*"]).prop_map(ValueMatch::Regex),
    ]
}

/// One value each for some of these names.
fn named(names: &[&'static str]) -> impl Strategy<Value = Vec<(String, ValueMatch)>> + use<> {
    let values = btree_map(select(names.to_vec()), value(), 0..4);
    values.prop_map(|values| values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Vec<_>>())
}

fn wanted_headers() -> impl Strategy<Value = Vec<HeaderMatch>> {
    named(&["x", "y", "z"])
        .prop_map(|headers| headers.into_iter().map(|(name, value)| HeaderMatch { name, value }).collect::<Vec<_>>())
}

fn wanted_parameters() -> impl Strategy<Value = Vec<QueryMatch>> {
    named(&["x", "y", "X", "x y", "%78"])
        .prop_map(|query| query.into_iter().map(|(name, value)| QueryMatch { name, value }).collect::<Vec<_>>())
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        path_text().prop_map(PathMatch::Exact),
        path_text().prop_map(PathMatch::Prefix),
        patterns(&["/a.*", "/", "/(a|b)", "/a/?", "(?i)/A"]).prop_map(PathMatch::Regex),
    ];
    (
        option::of(path),
        wanted_headers(),
        wanted_parameters(),
        option::of(select(vec!["GET", "POST", "get"]).prop_map(str::to_owned)),
    )
        .prop_map(|(path, headers, query, method)| HttpMatch { path, headers, query, method })
}

fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    let part = || select(vec!["", "a", "ab", "b"]);
    (part(), part(), wanted_headers()).prop_map(|(service, method, headers)| GrpcMatch {
        service: service.to_owned(),
        method: method.to_owned(),
        headers,
    })
}

fn hosts() -> impl Strategy<Value = Vec<HostMatch>> {
    let named = select(vec!["[fd00::1]", "a."]).prop_map(exact);
    vec(
        prop_oneof![4 => host_text().prop_map(|h| exact(&h)), 4 => host_text().prop_map(|h| suffix(&h)), 1 => named],
        0..3,
    )
}

fn request() -> impl Strategy<Value = Req> {
    let values = || {
        prop_oneof![
            5 => select(vec!["1", "2", "3", "1 2"]).prop_map(|v| v.as_bytes().to_vec()),
            1 => select(vec![b"\xff".to_vec(), b"".to_vec(), b"1,2".to_vec()]),
        ]
    };
    let pairs = select(vec![
        "x=1", "x=2", "y=1", "x=3", "X=1", "x", "=", "", "x=1+2", "x=1%202", "%78=%31", "x=%2531", "x=%zz", "x+y=1",
        "x=%", "x=%ff", "y=1=2", "%2578=1",
    ]);
    (
        select(vec!["GET", "POST", "POST", "PUT", "get"]),
        option::weighted(0.9, authority()),
        sent_path(),
        option::of(vec(pairs, 0..6)),
        // The case of a name does not count.
        vec((select(vec!["x", "y", "z", "X", "Y"]), values()), 0..6),
    )
        .prop_map(|(method, authority, path, query, headers)| Req {
            method,
            authority,
            path,
            query: query.map(|q| q.join("&")),
            headers: headers.into_iter().map(|(n, v)| (n.to_owned(), v)).collect(),
        })
}

/// One that has most of what may be wanted of it.
fn full_request() -> impl Strategy<Value = Req> {
    let values = || prop_oneof![3 => Just("1"), 1 => Just("2")];
    let headers = vec((select(vec!["x", "Y", "z"]), values()), 2..6);
    let parameters = vec((select(vec!["x", "y", "X", "x+y", "%2578"]), values()), 2..8);
    (headers, parameters).prop_map(|(headers, parameters)| {
        let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
        Req { method: "POST", headers, ..get("", &format!("/p.S/Get?{}", query.join("&"))) }
    })
}

/// Rules in routes, each of which knows its place.
fn placed<M>(rules: Vec<Vec<Vec<M>>>) -> Vec<Vec<Rule<M, (usize, usize)>>> {
    let of_route = |(r, rules): (usize, Vec<Vec<M>>)| {
        let rules = rules.into_iter().enumerate();
        rules.map(|(i, matches)| Rule { matches, filters: vec![], does: (r, i) }).collect()
    };
    rules.into_iter().enumerate().map(of_route).collect()
}

/// Sixteen times as many policies as other properties have cases, each asked of a few times.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(16 * ProptestConfig::default().cases)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn finds_what_a_naive_evaluator_finds(
        list in vec((hosts(), vec(vec(http_match(), 0..3), 0..4)), 0..4),
        requests in vec(request(), 1..6),
    ) {
        let routes = routes(list);
        for request in requests {
            prop_assert_eq!(chosen(&routes, &request), naive(&routes, &request), "{:?}", request);
        }
    }

    #[test]
    fn finds_the_grpc_route_that_a_naive_evaluator_finds(
        list in vec((hosts(), vec(vec(grpc_match(), 0..3), 0..4)), 0..4),
        requests in vec(request(), 1..6),
    ) {
        let (hosts, rules): (Vec<_>, Vec<_>) = list.into_iter().unzip();
        let route = |(hosts, rules)| GrpcRoute { meta: Meta::default_named("r"), hosts, rules };
        let routes: Vec<_> = hosts.into_iter().zip(placed(rules)).map(route).collect();
        for request in requests {
            let found = find_grpc(&routes, &request).map(|(_, rule)| rule.does);
            prop_assert_eq!(found, naive_grpc(&routes, &request), "{:?}", request);
        }
    }

    /// Where neither hosts nor paths decide, so that several matches often fit.
    #[test]
    fn headers_and_parameters_decide_as_a_naive_evaluator_says(
        wanted in vec((wanted_headers(), wanted_parameters()), 2..5),
        requests in vec(full_request(), 1..4),
    ) {
        let by = |(headers, query): &(Vec<HeaderMatch>, Vec<QueryMatch>)| {
            vec![HttpMatch { headers: headers.clone(), query: query.clone(), ..HttpMatch::default() }]
        };
        let routes = routes(vec![(vec![], wanted.iter().map(by).collect())]);
        let by = |(headers, _): &(Vec<HeaderMatch>, _)| {
            vec![GrpcMatch { service: String::new(), method: String::new(), headers: headers.clone() }]
        };
        let rules = placed(vec![wanted.iter().map(by).collect()]).remove(0);
        let grpc = [GrpcRoute { meta: Meta::default_named("r"), hosts: vec![], rules }];
        for request in requests {
            prop_assert_eq!(chosen(&routes, &request), naive(&routes, &request), "{:?}", request);
            let found = find_grpc(&grpc, &request).map(|(_, rule)| rule.does);
            prop_assert_eq!(found, naive_grpc(&grpc, &request), "{:?}", request);
        }
    }
}

#[test]
fn the_server_as_a_whole_is_below_its_root() {
    let by = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let finds = |path, asked| {
        let routes = routes(vec![(vec![], vec![vec![by(path)]])]);
        chosen(&routes, &Req { method: "OPTIONS", ..get("web", asked) }).is_some()
    };
    let prefix = |p: &str| PathMatch::Prefix(p.into());
    assert!(finds(prefix("/"), "*") && finds(PathMatch::Exact("*".into()), "*"));
    assert!(!finds(prefix("/a"), "*") && !finds(prefix("/"), "*/a") && !finds(PathMatch::Exact("/".into()), "*"));
}

/// What is written otherwise and means the same finds the same (field notes 21).
#[test]
fn how_a_host_is_written_does_not_count() {
    let routes = routes(vec![
        (vec![exact("web.example.com")], vec![vec![]]),
        (vec![suffix("example.com")], vec![vec![]]),
        (vec![], vec![vec![]]),
    ]);
    for (host, expected) in [("web.example.com", 0), ("api.example.com", 1), ("example.com", 2)] {
        for written in
            [host.to_owned(), host.to_uppercase(), format!("{host}."), format!("{host}:80"), format!("{host}.:8080")]
        {
            assert_eq!(chosen(&routes, &get(&written, "/")).map(|(r, _)| r), Some(expected), "{written}");
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

/// Whoever comes from Linkerd has them.
#[test]
fn patterns_may_be_as_large_as_linkerds() {
    for (source, path) in [
        (r"/v1/[\w-]{36}", format!("/v1/{}", "a1-".repeat(12))),
        (r"/users/\w{24}", format!("/users/{}", "a_".repeat(12))),
        (r"/users/\w{128}", format!("/users/{}", "é".repeat(128))),
    ] {
        let pattern = Pattern::new(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert!(pattern.is_match(&path), "{source} {path}");
        assert!(!pattern.is_match(&path[..path.len() - 2]), "{source}");
    }
    assert_eq!(Pattern::new(r"\w{1000}"), Err(NoPattern::TooLarge), "what no proxy would take");
}
