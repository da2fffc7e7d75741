//! Which rule a request follows: hosts first, then the most specific match, then the order (data plane 4.4).

use super::{
    host::split,
    path::{undone, unescaped},
};
use crate::policy::route::{
    GrpcMatch, GrpcRoute, HeaderMatch, HostMatch, HttpMatch, HttpRoute, PathMatch, QueryMatch, Rule, ValueMatch,
};
use std::{borrow::Cow, cell::LazyCell};

mod sni;

pub use sni::find_tls;

/// A request as far as routing sees it. Whoever frames requests implements it on its own representation.
pub trait RequestView {
    fn method(&self) -> &str;

    /// Host and port, without user information.
    fn authority(&self) -> Option<&str>;

    /// Without the query; `/` where there is none, as of CONNECT.
    fn path(&self) -> &str;

    /// Behind the `?`, still encoded.
    fn query(&self) -> Option<&str>;

    /// Whether `wanted` is true for one of the values of the header `name`, which is lower-case. Once it is, no further value
    /// is asked.
    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool;

    /// Shows each header field, name and value, in order; for those who only look.
    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8]));

    /// Whether it asks to leave HTTP, on a connection of its own: CONNECT and upgrades of HTTP/1. No header says so that a route
    /// could see, for those concern one hop only.
    fn is_upgrade(&self) -> bool {
        false
    }
}

/// How closely a route's hosts fit: any host, then a suffix by its length, then an exact name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum HostFit {
    Any,
    /// Labels.
    Suffix(usize),
    Exact,
}

/// How closely a match of HTTP fits; fields compare in this order. The kind of path match does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct HttpFit {
    path_len: usize,
    headers: usize,
    query: usize,
    method: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct GrpcFit {
    service_len: usize,
    method_len: usize,
    headers: usize,
}

/// The header by which routes see whom a request asks for, with its port if it names one.
pub const HOST: &str = "host";

/// A rule without matches fits as a match on the path prefix `/` does.
const ANY_HTTP: HttpFit = HttpFit { path_len: 1, headers: 0, query: 0, method: false };

/// The route and rule that `request` follows; `None` if it fits none.
pub fn find<'r, D>(
    routes: &'r [HttpRoute<D>],
    request: &dyn RequestView,
) -> Option<(&'r HttpRoute<D>, &'r Rule<HttpMatch, D>)> {
    found(routes, request, path_fit)
}

/// The same of a request whose path is as a server reads it, escapes undone or not: so are the paths of the routes.
pub fn find_read<'r, D>(
    routes: &'r [HttpRoute<D>],
    request: &dyn RequestView,
) -> Option<(&'r HttpRoute<D>, &'r Rule<HttpMatch, D>)> {
    found(routes, request, read_path_fit)
}

fn found<'r, D>(
    routes: &'r [HttpRoute<D>],
    request: &dyn RequestView,
    path_fit: impl Fn(&PathMatch, &str) -> Option<usize>,
) -> Option<(&'r HttpRoute<D>, &'r Rule<HttpMatch, D>)> {
    let candidates = routes.iter().map(|route| (route, route.hosts.as_slice(), route.rules.as_slice()));
    best(candidates, request, ANY_HTTP, |m| fit_by(m, request, &path_fit))
}

/// The gRPC route and rule that `request` follows; `None` if it fits none.
pub fn find_grpc<'r, D>(
    routes: &'r [GrpcRoute<D>],
    request: &dyn RequestView,
) -> Option<(&'r GrpcRoute<D>, &'r Rule<GrpcMatch, D>)> {
    let candidates = routes.iter().map(|route| (route, route.hosts.as_slice(), route.rules.as_slice()));
    best(candidates, request, GrpcFit::default(), |m| grpc_fit(m, request))
}

/// The first of the candidates that fit closest. `any` is the fit of a rule without matches.
fn best<'r, R, M: 'r, D: 'r, F: Copy + Ord>(
    candidates: impl Iterator<Item = (&'r R, &'r [HostMatch], &'r [Rule<M, D>])>,
    request: &dyn RequestView,
    any: F,
    fit: impl Fn(&M) -> Option<F>,
) -> Option<(&'r R, &'r Rule<M, D>)> {
    // Asked for once, and only where a route has hosts.
    let host = LazyCell::new(|| request.authority().map(host_of));
    let (fit, host) = (&fit, &host);
    candidates
        .filter_map(|(route, hosts, rules)| Some((hosts_fit(hosts, || **host)?, route, rules)))
        .flat_map(|(host_fit, route, rules)| {
            rules.iter().filter_map(move |rule| {
                let rule_fit =
                    if rule.matches.is_empty() { Some(any) } else { rule.matches.iter().filter_map(fit).max() };
                Some(((host_fit, rule_fit?), route, rule))
            })
        })
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, route, rule)| (route, rule))
}

/// The path prefix by which one of `matches` fits `request` closest; `None` if it fits closest by something else.
pub fn matched_prefix<'m>(matches: &'m [HttpMatch], request: &dyn RequestView) -> Option<&'m str> {
    if matches.is_empty() {
        return Some("/");
    }
    let closest = matches.iter().filter_map(|m| http_fit(m, request)).max()?;
    matches.iter().filter(|m| http_fit(m, request) == Some(closest)).find_map(|m| match &m.path {
        None => Some("/"),
        Some(PathMatch::Prefix(prefix)) => Some(prefix.as_str()),
        Some(PathMatch::Exact(_) | PathMatch::Regex(_)) => None,
    })
}

/// Whether a rule with these matches names the path of `request`, which fits it, letter by letter.
pub fn names_the_path(matches: &[HttpMatch], request: &dyn RequestView) -> bool {
    matches.iter().any(|m| matches!(m.path, Some(PathMatch::Exact(_))) && http_fit(m, request).is_some())
}

/// An authority's host: without port and trailing dot.
fn host_of(authority: &str) -> &str {
    let (host, _) = split(authority);
    host.strip_suffix('.').unwrap_or(host)
}

fn hosts_fit<'h>(hosts: &[HostMatch], host: impl FnOnce() -> Option<&'h str>) -> Option<HostFit> {
    if hosts.is_empty() {
        return Some(HostFit::Any);
    }
    let host = host()?;
    hosts.iter().filter_map(|m| host_fit(m, host)).max()
}

fn host_fit(wanted: &HostMatch, host: &str) -> Option<HostFit> {
    match wanted {
        HostMatch::Exact(name) => {
            name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(host).then_some(HostFit::Exact)
        }
        HostMatch::Suffix(labels) => {
            let mut have = host.rsplit('.');
            let ends = labels.iter().all(|label| have.next().is_some_and(|l| l.eq_ignore_ascii_case(label)));
            // `*` stands for at least one label.
            (ends && have.next().is_some_and(|l| !l.is_empty())).then_some(HostFit::Suffix(labels.len()))
        }
    }
}

fn http_fit(m: &HttpMatch, request: &dyn RequestView) -> Option<HttpFit> {
    fit_by(m, request, path_fit)
}

fn fit_by(
    m: &HttpMatch,
    request: &dyn RequestView,
    path_fit: impl Fn(&PathMatch, &str) -> Option<usize>,
) -> Option<HttpFit> {
    let HttpMatch { path, headers, query, method } = m;
    if method.as_deref().is_some_and(|m| m != request.method()) {
        return None;
    }
    let path_len = match path {
        Some(path) => path_fit(path, request.path())?,
        None => ANY_HTTP.path_len,
    };
    if !has_headers(headers, request) || !query.iter().all(|wanted| has_parameter(wanted, request.query())) {
        return None;
    }
    Some(HttpFit { path_len, headers: headers.len(), query: query.len(), method: method.is_some() })
}

/// The length of what matched.
fn path_fit(wanted: &PathMatch, path: &str) -> Option<usize> {
    match wanted {
        PathMatch::Exact(exact) => (path == exact).then_some(path.len()),
        PathMatch::Regex(pattern) => pattern.is_match(path).then_some(path.len()),
        PathMatch::Prefix(prefix) => {
            let segments = prefix.strip_suffix('/').unwrap_or(prefix);
            // What is asked of the server as a whole (`OPTIONS *`) is below its root.
            if path == "*" {
                return segments.is_empty().then_some(1);
            }
            let rest = path.strip_prefix(segments)?;
            (rest.starts_with('/') || (rest.is_empty() && !segments.is_empty())).then_some(segments.len().max(1))
        }
    }
}

fn read_path_fit(wanted: &PathMatch, path: &str) -> Option<usize> {
    let read = || match wanted {
        PathMatch::Exact(exact) => path_fit(&PathMatch::Exact(undone(exact)), path),
        PathMatch::Prefix(prefix) => path_fit(&PathMatch::Prefix(undone(prefix)), path),
        PathMatch::Regex(_) => None,
    };
    path_fit(wanted, path).or_else(read)
}

/// The service and the method that a request calls by gRPC; `None` if it is no call.
pub fn call(request: &dyn RequestView) -> Option<(&str, &str)> {
    if request.method() != "POST" {
        return None;
    }
    request.path().strip_prefix('/')?.split_once('/')
}

fn grpc_fit(m: &GrpcMatch, request: &dyn RequestView) -> Option<GrpcFit> {
    let GrpcMatch { service, method, headers } = m;
    let (called_service, called_method) = call(request)?;
    let fits = |wanted: &str, called: &str| wanted.is_empty() || wanted == called;
    if !fits(service, called_service) || !fits(method, called_method) || !has_headers(headers, request) {
        return None;
    }
    Some(GrpcFit { service_len: service.len(), method_len: method.len(), headers: headers.len() })
}

/// What HTTP/1 says in `host` HTTP/2 says as its authority, and on its way a request may be either: routes see it in both.
fn has_headers(headers: &[HeaderMatch], request: &dyn RequestView) -> bool {
    headers.iter().all(|HeaderMatch { name, value }| match name.as_str() {
        HOST => request.authority().is_some_and(|host| value_fits(value, host.as_bytes())),
        name => request.header(name, &mut |found| value_fits(value, found)),
    })
}

fn has_parameter(wanted: &QueryMatch, query: Option<&str>) -> bool {
    query.unwrap_or("").split('&').filter(|pair| !pair.is_empty()).any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        *decoded(name) == *wanted.name.as_bytes() && value_fits(&wanted.value, &decoded(value))
    })
}

fn value_fits(wanted: &ValueMatch, value: &[u8]) -> bool {
    match wanted {
        ValueMatch::Exact(exact) => value == exact,
        ValueMatch::Regex(pattern) => std::str::from_utf8(value).is_ok_and(|text| pattern.is_match(text)),
    }
}

/// Undoes the encoding of forms: `+` is a space, `%41` a byte.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    let bytes = text.as_bytes();
    if !bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    Cow::Owned(unescaped(text, b' '))
}

#[cfg(test)]
mod tests;
