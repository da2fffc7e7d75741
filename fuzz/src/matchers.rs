//! Routes against requests: whatever a request holds, the rule that it follows is the first of those that fit closest, and it
//! follows none only if none fits. The matches are fixed and hostile to sloppy comparison; the request is the fuzzer's.

use weft_model::{
    Meta,
    decide::{
        host::host_port,
        route::{RequestView, find, find_grpc},
    },
    policy::route::{
        GrpcMatch, GrpcRoute, HeaderMatch, HostMatch, HttpMatch, HttpRoute, PathMatch, Pattern, QueryMatch, Rule,
        ValueMatch,
    },
};

/// `METHOD authority path?query` and one header, each on a line of its own.
struct Request<'a> {
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    header: &'a [u8],
}

impl<'a> Request<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut lines = data.splitn(4, |byte| *byte == b'\n');
        let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
        let (method, authority, target) = (text()?, text()?, text()?);
        // What is none is refused before a route is looked for.
        host_port(authority.as_bytes())?;
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Some(Self { method, authority, path, query, header: lines.next().unwrap_or_default() })
    }
}

impl RequestView for Request<'_> {
    fn method(&self) -> &str {
        self.method
    }

    fn authority(&self) -> Option<&str> {
        (!self.authority.is_empty()).then_some(self.authority)
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        name == "x-key" && wanted(self.header)
    }

    fn fields(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        each(b"x-key", self.header);
    }
}

/// How closely something fits: the larger the closer, in this order.
type Fit = (usize, usize, usize, usize, usize);

pub(crate) fn run(data: &[u8]) {
    let Some(request) = Request::read(data) else { return };
    let route = |(host, hosts): (usize, Vec<HostMatch>)| {
        let rules = matches().into_iter().map(|m| Rule { matches: vec![m], filters: vec![], does: () });
        HttpRoute { meta: Meta::default_named(host.to_string()), hosts, rules: rules.collect() }
    };
    let routes: Vec<_> = hosts().into_iter().enumerate().map(route).collect();
    let mut wanted: Option<(Fit, usize, usize)> = None;
    for (place, route) in routes.iter().enumerate() {
        for (number, rule) in route.rules.iter().enumerate() {
            let Some((host, m)) = host_fits(place, &request).zip(rule.matches.first()) else { continue };
            let Some((path, headers, query, method)) = fits(m, &request) else { continue };
            closer(&mut wanted, ((host, path, headers, query, method), place, number));
        }
    }
    let found = find(&routes, &request).map(|(route, rule)| {
        let place = routes.iter().position(|known| std::ptr::eq(known, route));
        (place, route.rules.iter().position(|known| std::ptr::eq(known, rule)))
    });
    assert_eq!(found, wanted.map(|(_, place, number)| (Some(place), Some(number))));
}

/// The same of calls.
pub(crate) fn grpc(data: &[u8]) {
    let Some(request) = Request::read(data) else { return };
    let route = |(host, hosts): (usize, Vec<HostMatch>)| {
        let rules = calls().into_iter().map(|m| Rule { matches: vec![m], filters: vec![], does: () });
        GrpcRoute { meta: Meta::default_named(host.to_string()), hosts, rules: rules.collect() }
    };
    let routes: Vec<_> = hosts().into_iter().enumerate().map(route).collect();
    let mut wanted: Option<(Fit, usize, usize)> = None;
    for (place, route) in routes.iter().enumerate() {
        for (number, rule) in route.rules.iter().enumerate() {
            let Some((host, m)) = host_fits(place, &request).zip(rule.matches.first()) else { continue };
            let Some((service, method, headers)) = calls_fit(m, &request) else { continue };
            closer(&mut wanted, ((host, service, method, headers, 0), place, number));
        }
    }
    let found = find_grpc(&routes, &request).map(|(route, rule)| {
        let place = routes.iter().position(|known| std::ptr::eq(known, route));
        (place, route.rules.iter().position(|known| std::ptr::eq(known, rule)))
    });
    assert_eq!(found, wanted.map(|(_, place, number)| (Some(place), Some(number))));
}

/// Of those that fit as closely the first counts.
fn closer(best: &mut Option<(Fit, usize, usize)>, next: (Fit, usize, usize)) {
    if best.is_none_or(|(fit, _, _)| next.0 > fit) {
        *best = Some(next);
    }
}

/// Any, a suffix, a longer one, and one name.
fn hosts() -> [Vec<HostMatch>; 4] {
    let suffix = |labels: &[&str]| vec![HostMatch::Suffix(labels.iter().map(|label| (*label).to_owned()).collect())];
    [vec![], suffix(&["example"]), suffix(&["example", "sub"]), vec![HostMatch::Exact("a.example".to_owned())]]
}

/// The same by the letter.
fn host_fits(place: usize, request: &Request<'_>) -> Option<usize> {
    if place == 0 {
        return Some(0);
    }
    let authority = request.authority()?.to_ascii_lowercase();
    let host = match authority.rfind(':') {
        Some(colon) if !authority.get(colon..)?.contains(']') => authority.get(..colon)?,
        _ => &authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let below = |suffix: &str| host.strip_suffix(suffix).is_some_and(|rest| !rest.is_empty() && !rest.ends_with('.'));
    let is = match place {
        1 => below(".example"),
        2 => below(".sub.example"),
        _ => host == "a.example",
    };
    // Longer suffixes fit closer, and a name closest.
    is.then_some(place)
}

fn header(value: ValueMatch) -> Vec<HeaderMatch> {
    vec![HeaderMatch { name: "x-key".to_owned(), value }]
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap_or_else(|error| panic!("{error}"))
}

fn matches() -> Vec<HttpMatch> {
    let any = HttpMatch::default;
    let path = |path| HttpMatch { path: Some(path), ..any() };
    let yes = || header(ValueMatch::Exact(b"yes".to_vec()));
    let q1 = || vec![QueryMatch { name: "q".to_owned(), value: ValueMatch::Exact(b"1".to_vec()) }];
    vec![
        path(PathMatch::Exact("/admin".to_owned())),
        path(PathMatch::Prefix("/a/b".to_owned())),
        HttpMatch { method: Some("POST".to_owned()), ..any() },
        HttpMatch { headers: yes(), ..any() },
        HttpMatch { query: q1(), ..any() },
        path(PathMatch::Regex(pattern("/r/[0-9]+"))),
        HttpMatch { headers: header(ValueMatch::Regex(pattern("gr[ae]y"))), ..any() },
        HttpMatch {
            path: Some(PathMatch::Prefix("/a".to_owned())),
            headers: yes(),
            query: q1(),
            method: Some("POST".to_owned()),
        },
    ]
}

/// How long what matched of the path is, how many headers and parameters are wanted, and whether a method is.
fn fits(m: &HttpMatch, request: &Request<'_>) -> Option<(usize, usize, usize, usize)> {
    let path = match &m.path {
        None => 1,
        Some(PathMatch::Exact(exact)) => (request.path == exact).then_some(exact.len())?,
        Some(PathMatch::Prefix(prefix)) => {
            let rest = request.path.strip_prefix(prefix.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())?
        }
        Some(PathMatch::Regex(_)) => {
            let digits = request.path.strip_prefix("/r/")?;
            (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(request.path.len())?
        }
    };
    let method = m.method.as_ref().is_none_or(|method| request.method == method);
    let query = m.query.is_empty() || request.query.is_some_and(|query| query.split('&').any(is_q1));
    let all = method && query && has(&m.headers, request);
    all.then_some((path, m.headers.len(), m.query.len(), m.method.iter().len()))
}

fn has(headers: &[HeaderMatch], request: &Request<'_>) -> bool {
    headers.iter().all(|wanted| match &wanted.value {
        ValueMatch::Exact(exact) => request.header == exact,
        ValueMatch::Regex(_) => matches!(request.header, b"grey" | b"gray"),
    })
}

/// `q=1` in any encoding of its letters.
fn is_q1(pair: &str) -> bool {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    matches!(name, "q" | "%71") && matches!(value, "1" | "%31")
}

fn calls() -> Vec<GrpcMatch> {
    let call = |service: &str, method: &str, headers| GrpcMatch {
        service: service.to_owned(),
        method: method.to_owned(),
        headers,
    };
    vec![
        call("a.B", "C", vec![]),
        call("a.B", "", vec![]),
        call("", "C", vec![]),
        call("a.B", "", header(ValueMatch::Exact(b"yes".to_vec()))),
        call("a.B", "D", header(ValueMatch::Regex(pattern("gr[ae]y")))),
    ]
}

/// How long service and method are, and how many headers are wanted.
fn calls_fit(m: &GrpcMatch, request: &Request<'_>) -> Option<(usize, usize, usize)> {
    let path = request.path.strip_prefix('/')?;
    let slash = path.find('/')?;
    let (service, method) = (path.get(..slash)?, path.get(slash + 1..)?);
    let is = |wanted: &str, called: &str| wanted.is_empty() || wanted == called;
    let all = request.method == "POST" && is(&m.service, service) && is(&m.method, method) && has(&m.headers, request);
    all.then_some((m.service.len(), m.method.len(), m.headers.len()))
}
