//! Routes against requests: whatever a request holds, the rule that it follows is one whose match it fits, and it follows none
//! only if it fits none. The matches are fixed and hostile to sloppy comparison; the request is the fuzzer's.

use weft_model::{
    Meta,
    decide::route::{RequestView, find},
    policy::route::{HeaderMatch, HostMatch, HttpMatch, HttpRoute, PathMatch, Pattern, QueryMatch, Rule, ValueMatch},
};

/// `METHOD authority path?query` and one header, each on a line of its own.
struct Request<'a> {
    method: &'a str,
    authority: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    header: &'a [u8],
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

pub(crate) fn run(data: &[u8]) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(method), Some(authority), Some(target)) = (text(), text(), text()) else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let header = data.splitn(4, |byte| *byte == b'\n').nth(3).unwrap_or_default();
    let request = Request { method, authority, path, query, header };
    let routes = [route(&[]), route(&[HostMatch::Exact("a.example".to_owned())])];
    let found = find(&routes, &request);
    let fits = |m: &HttpMatch| fits(m, &request);
    match found {
        Some((_, rule)) => assert!(rule.matches.iter().any(fits), "a rule is followed that does not match"),
        None => assert!(!routes.first().into_iter().flat_map(|r| &r.rules).any(|r| r.matches.iter().any(fits))),
    }
}

fn route(hosts: &[HostMatch]) -> HttpRoute<()> {
    let rules = matches().into_iter().map(|m| Rule { matches: vec![m], filters: vec![], does: () }).collect();
    HttpRoute { meta: Meta::default_named("r"), hosts: hosts.to_vec(), rules }
}

fn matches() -> Vec<HttpMatch> {
    let path = |path| HttpMatch { path: Some(path), ..HttpMatch::default() };
    let mut all = vec![
        path(PathMatch::Exact("/admin".to_owned())),
        path(PathMatch::Prefix("/a/b".to_owned())),
        HttpMatch { method: Some("POST".to_owned()), ..HttpMatch::default() },
        HttpMatch {
            headers: vec![HeaderMatch { name: "x-key".to_owned(), value: ValueMatch::Exact(b"yes".to_vec()) }],
            ..HttpMatch::default()
        },
        HttpMatch {
            query: vec![QueryMatch { name: "q".to_owned(), value: ValueMatch::Exact(b"1".to_vec()) }],
            ..HttpMatch::default()
        },
    ];
    all.extend(Pattern::new("/r/[0-9]+").ok().map(|pattern| path(PathMatch::Regex(pattern))));
    all
}

/// The same by the letter.
fn fits(m: &HttpMatch, request: &Request<'_>) -> bool {
    let path = m.path.as_ref().is_none_or(|path| match path {
        PathMatch::Exact(exact) => request.path == exact,
        PathMatch::Prefix(prefix) => {
            let rest = request.path.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(pattern) => {
            let digits = request.path.strip_prefix("/r/").unwrap_or_default();
            assert_eq!(pattern.as_str(), "/r/[0-9]+");
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
    });
    let method = m.method.as_ref().is_none_or(|method| request.method == method);
    let header = m.headers.is_empty() || request.header == b"yes";
    let query = m.query.is_empty() || request.query.is_some_and(|query| query.split('&').any(is_q1));
    path && method && header && query
}

/// `q=1` in any encoding of its letters.
fn is_q1(pair: &str) -> bool {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    matches!(name, "q" | "%71") && matches!(value, "1" | "%31")
}
