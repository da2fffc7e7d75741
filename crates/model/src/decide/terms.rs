//! What a rule asks for besides a backend, and what the request itself asks for where the rule lets it (data plane 4.10,
//! 4.11).

use super::{retry::RetryTerms, route::RequestView};
use crate::{
    duration,
    names::header,
    policy::outbound::{OutboundRule, Retry, Timeouts},
};
use std::ops::RangeInclusive;

/// The timeouts and retries of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Terms {
    pub timeouts: Timeouts,
    pub retry: Option<RetryTerms>,
}

/// What an application may ask for; removed before the request goes on, where it may.
pub const HEADERS: &[&str] = &[
    header::TIMEOUT,
    header::REQUEST_TIMEOUT,
    header::RESPONSE_TIMEOUT,
    header::RETRY_HTTP,
    header::RETRY_GRPC,
    header::RETRY_LIMIT,
    header::RETRY_TIMEOUT,
];

/// More conditions than there are statuses say nothing new.
const MAX_CONDITIONS: usize = 64;

impl Terms {
    /// What the rule alone asks for.
    pub fn of(rule: &OutboundRule) -> Self {
        Self { timeouts: rule.timeouts, retry: rule.retry.as_ref().map(RetryTerms::of) }
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        let Self { timeouts, retry } = self;
        *timeouts == Timeouts::default() && retry.is_none()
    }

    /// The same with what the headers of `request` ask for instead; `None` if they ask for nothing. What cannot be understood
    /// is ignored.
    pub fn asked_by(&self, request: &dyn RequestView) -> Option<Self> {
        let limited = asked(request, header::REQUEST_TIMEOUT, duration::parse).or(asked(
            request,
            header::TIMEOUT,
            duration::parse,
        ));
        let response = asked(request, header::RESPONSE_TIMEOUT, duration::parse);
        let statuses = asked(request, header::RETRY_HTTP, |text| Some(statuses(text)));
        let codes = asked(request, header::RETRY_GRPC, |text| Some(codes(text)));
        let limit = asked(request, header::RETRY_LIMIT, |text| text.parse().ok());
        let timeout = asked(request, header::RETRY_TIMEOUT, duration::parse);
        let retries = statuses.is_some() || codes.is_some() || limit.is_some() || timeout.is_some();
        if limited.is_none() && response.is_none() && !retries {
            return None;
        }
        let mut terms = self.clone();
        terms.timeouts.request = limited.or(terms.timeouts.request);
        terms.timeouts.response = response.or(terms.timeouts.response);
        if retries {
            let retry = terms.retry.get_or_insert_with(|| RetryTerms::of(&Retry::LINKERD));
            retry.limit = limit.unwrap_or(retry.limit);
            retry.timeout = timeout.or(retry.timeout);
            if let Some(statuses) = statuses {
                retry.statuses = statuses;
            }
            if let Some(codes) = codes {
                retry.codes = codes;
            }
        }
        Some(terms)
    }
}

/// The first value of a header, if it can be read.
fn asked<T>(request: &dyn RequestView, name: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut found = None;
    request.header(name, &mut |value| {
        found = std::str::from_utf8(value).ok().filter(|text| text.is_ascii()).and_then(&read);
        true
    });
    found
}

/// Conditions behind commas. What is none is left out.
fn statuses(text: &str) -> Vec<RangeInclusive<u16>> {
    text.split(',').take(MAX_CONDITIONS).filter_map(status_range).collect()
}

/// Names of codes behind commas. What is none is left out.
fn codes(text: &str) -> Vec<u16> {
    text.split(',').take(MAX_CONDITIONS).filter_map(grpc_code).collect()
}

/// What is sent again: `5xx`, `gateway-error`, `503` or `500-504`.
pub fn status_range(condition: &str) -> Option<RangeInclusive<u16>> {
    if condition.eq_ignore_ascii_case("5xx") {
        return Some(500..=599);
    }
    if condition.eq_ignore_ascii_case("gateway-error") {
        return Some(502..=504);
    }
    let status = |text: &str| text.parse().ok().filter(|status| (100..600).contains(status));
    let (from, to) = condition.split_once('-').unwrap_or((condition, condition));
    let range = status(from)?..=status(to)?;
    (!range.is_empty()).then_some(range)
}

/// A gRPC code by the name that Linkerd knows.
pub fn grpc_code(name: &str) -> Option<u16> {
    const NAMES: [(&str, u16); 5] =
        [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)];
    NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::outbound::{Backoff, Distribution, RetryOn};
    use std::time::Duration;

    struct Headers(&'static [(&'static str, &'static str)]);

    impl RequestView for Headers {
        fn method(&self) -> &str {
            "GET"
        }
        fn authority(&self) -> Option<&str> {
            None
        }
        fn path(&self) -> &str {
            "/"
        }
        fn query(&self) -> Option<&str> {
            None
        }
        fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.iter().filter(|(n, _)| *n == name).any(|(_, value)| wanted(value.as_bytes()))
        }
        fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
            self.0.iter().for_each(|(name, value)| visit(name.as_bytes(), value.as_bytes()));
        }
    }

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn by(headers: &'static [(&'static str, &'static str)]) -> Option<Terms> {
        Terms::default().asked_by(&Headers(headers))
    }

    #[test]
    fn conditions_that_are_none_are_left_out() {
        assert_eq!(statuses("5xx,GATEWAY-error,429,500-502"), [500..=599, 502..=504, 429..=429, 500..=502]);
        assert_eq!(statuses("600,99,503-500,x,, 503"), []);
        assert_eq!(codes("Cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"), [1, 4, 13, 8, 14]);
        assert_eq!(codes("unknown,14"), [] as [u16; 0]);
    }

    #[test]
    fn headers_alone_ask_with_linkerds_defaults() {
        assert_eq!(by(&[("accept", "*/*")]), None);
        assert_eq!(by(&[("l5d-timeout", "soon"), ("l5d-retry-limit", "-1")]), None, "malformed is as good as missing");
        let terms = by(&[("l5d-retry-http", "5xx")]).unwrap();
        let retry = terms.retry.unwrap();
        assert_eq!((retry.limit, retry.body, retry.timeout), (1, 64 * 1024, None));
        assert_eq!((retry.statuses, retry.codes), (vec![500..=599], vec![]));
        assert_eq!(retry.backoff, Some(Backoff { min: ms(25), max: ms(250), jitter: 1.0 }));
        assert_eq!(terms.timeouts, Timeouts::default());
        let terms = by(&[("l5d-retry-limit", "3"), ("l5d-retry-timeout", "1s"), ("l5d-retry-grpc", "internal")]);
        let retry = terms.unwrap().retry.unwrap();
        assert_eq!((retry.limit, retry.timeout, retry.codes, retry.statuses), (3, Some(ms(1_000)), vec![13], vec![]));
    }

    #[test]
    fn the_longer_name_beats_the_shorter() {
        let of = |headers| by(headers).map(|terms| (terms.timeouts.request, terms.timeouts.response));
        assert_eq!(of(&[("l5d-timeout", "1s")]), Some((Some(ms(1_000)), None)));
        let both = &[("l5d-timeout", "1s"), ("l5d-request-timeout", "2s"), ("l5d-response-timeout", "3s")];
        assert_eq!(of(both), Some((Some(ms(2_000)), Some(ms(3_000)))));
        assert_eq!(of(&[("l5d-timeout", "1s"), ("l5d-request-timeout", "?")]), Some((Some(ms(1_000)), None)));
    }

    #[test]
    fn headers_change_what_the_rule_asks_for_and_leave_the_rest() {
        let retry = Retry {
            max_retries: 5,
            max_request_bytes: 10,
            on: RetryOn::Statuses(vec![503..=503]),
            timeout: Some(ms(7)),
            backoff: None,
        };
        let rule = OutboundRule {
            backends: Distribution::Empty,
            timeouts: Timeouts { response: Some(ms(1)), request: Some(ms(2)), idle: Some(ms(3)) },
            retry: Some(retry),
            allow_l5d_headers: true,
        };
        let terms = Terms::of(&rule);
        assert!(!terms.is_empty() && Terms::default().is_empty());
        let asked = terms.asked_by(&Headers(&[("l5d-retry-grpc", "unavailable"), ("l5d-timeout", "9ms")])).unwrap();
        let timeouts = Timeouts { request: Some(ms(9)), ..rule.timeouts };
        let retry = RetryTerms { codes: vec![14], ..terms.retry.clone().unwrap() };
        assert_eq!(asked, Terms { timeouts, retry: Some(retry) });
        assert_eq!(terms.asked_by(&Headers(&[])), None);
    }
}
