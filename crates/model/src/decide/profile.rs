//! What a ServiceProfile says of a request and of its response (data plane 4.1, 4.10, 6.1).

use super::{breaker::GRPC_FAILURES, retry::RetryTerms, route::RequestView};
use crate::profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch};
use std::ops::RangeInclusive;

/// A request with a longer body is sent once.
const MAX_BODY: usize = 64 * 1024;
const STATUSES: RangeInclusive<u16> = 100..=599;
/// Of a gRPC response that says how it went.
const OK: u16 = 200;

/// The place of the first route that `request` matches; `None` is the default route, which asks for nothing.
pub fn find(routes: &[ProfileRoute], request: &dyn RequestView) -> Option<usize> {
    routes.iter().position(|route| is_match(&route.matches, request))
}

fn is_match(wanted: &RequestMatch, request: &dyn RequestView) -> bool {
    match wanted {
        RequestMatch::All(all) => all.iter().all(|m| is_match(m, request)),
        RequestMatch::Any(any) => any.iter().any(|m| is_match(m, request)),
        RequestMatch::Not(inner) => !is_match(inner, request),
        RequestMatch::Path(pattern) => pattern.is_match(request.path()),
        RequestMatch::Method(method) => method == request.method(),
    }
}

/// Whether the first class that fits says that a response with this status is a failure; `None` if none fits.
pub fn is_failure(classes: &[ResponseClass], status: u16) -> Option<bool> {
    classes.iter().find(|class| fits(&class.matches, status)).map(|class| class.failure)
}

/// When a request of a retryable route is sent again: after every failure, as long as the budget lasts.
pub fn retry_terms(route: &ProfileRoute) -> RetryTerms {
    let classes = &route.response_classes;
    let mut statuses: Vec<RangeInclusive<u16>> = vec![];
    for status in STATUSES.filter(|status| is_failure(classes, *status).unwrap_or(*status >= 500)) {
        match statuses.last_mut() {
            Some(last) if last.end() + 1 == status => *last = *last.start()..=status,
            _ => statuses.push(status..=status),
        }
    }
    let codes = if is_failure(classes, OK).is_none() { GRPC_FAILURES.to_vec() } else { vec![] };
    RetryTerms { limit: u32::MAX, body: MAX_BODY, statuses, codes, timeout: None, backoff: None }
}

fn fits(wanted: &ResponseMatch, status: u16) -> bool {
    match wanted {
        ResponseMatch::All(all) => all.iter().all(|m| fits(m, status)),
        ResponseMatch::Any(any) => any.iter().any(|m| fits(m, status)),
        ResponseMatch::Not(inner) => !fits(inner, status),
        ResponseMatch::Status(range) => range.contains(&status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::route::Pattern;
    use std::collections::BTreeMap;

    struct Asked(&'static str, &'static str);

    impl RequestView for Asked {
        fn method(&self) -> &str {
            self.0
        }

        fn authority(&self) -> Option<&str> {
            None
        }

        fn path(&self) -> &str {
            self.1
        }

        fn query(&self) -> Option<&str> {
            None
        }

        fn fields(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}

        fn header(&self, _: &str, _: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            false
        }
    }

    fn path(pattern: &str) -> RequestMatch {
        RequestMatch::Path(Pattern::new(pattern).unwrap())
    }

    fn method(method: &str) -> RequestMatch {
        RequestMatch::Method(method.to_owned())
    }

    #[test]
    fn the_first_route_that_matches_is_followed() {
        let route = |matches| ProfileRoute {
            matches,
            response_classes: vec![],
            labels: BTreeMap::new(),
            retryable: false,
            timeout: None,
        };
        let routes = [
            route(RequestMatch::All(vec![path("/books"), method("POST")])),
            route(RequestMatch::All(vec![path("/books(/.*)?"), RequestMatch::Not(Box::new(method("DELETE")))])),
            route(RequestMatch::Any(vec![path("/a"), path("/b")])),
            route(RequestMatch::Any(vec![])),
            route(RequestMatch::Not(Box::new(RequestMatch::All(vec![])))),
        ];
        let cases = [
            ("POST", "/books", Some(0)),
            ("GET", "/books", Some(1)),
            ("GET", "/books/1", Some(1)),
            ("DELETE", "/books/1", None),
            ("GET", "/b", Some(2)),
            ("GET", "/bb", None),
        ];
        for (method, path, expected) in cases {
            assert_eq!(find(&routes, &Asked(method, path)), expected, "{method} {path}");
        }
        assert_eq!(find(&[route(RequestMatch::All(vec![]))], &Asked("GET", "/")), Some(0));
    }

    #[test]
    fn what_is_a_failure_is_sent_again() {
        let class = |range, failure| ResponseClass { matches: ResponseMatch::Status(range), failure };
        let route = |response_classes| ProfileRoute {
            matches: RequestMatch::All(vec![]),
            response_classes,
            labels: BTreeMap::new(),
            retryable: true,
            timeout: None,
        };
        let plain = retry_terms(&route(vec![]));
        assert_eq!((plain.statuses, plain.codes), (vec![500..=599], GRPC_FAILURES.to_vec()));
        let classed =
            retry_terms(&route(vec![class(503..=503, false), class(429..=429, true), class(200..=299, false)]));
        assert_eq!((classed.statuses, classed.codes), (vec![429..=429, 500..=502, 504..=599], vec![]));
    }

    #[test]
    fn the_first_class_that_fits_is_followed() {
        let class = |matches, failure| ResponseClass { matches, failure };
        let classes = [
            class(ResponseMatch::Status(503..=503), false),
            class(ResponseMatch::Any(vec![ResponseMatch::Status(404..=404), ResponseMatch::Status(500..=599)]), true),
            class(
                ResponseMatch::All(vec![
                    ResponseMatch::Status(200..=299),
                    ResponseMatch::Not(Box::new(ResponseMatch::Status(204..=204))),
                ]),
                false,
            ),
        ];
        let cases =
            [(503, Some(false)), (500, Some(true)), (404, Some(true)), (200, Some(false)), (204, None), (302, None)];
        for (status, expected) in cases {
            assert_eq!(is_failure(&classes, status), expected, "{status}");
        }
    }
}
