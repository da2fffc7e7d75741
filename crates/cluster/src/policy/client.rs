//! What Services, EgressNetworks and routes ask of their clients by annotations: retries, timeouts, circuit breakers, and how load
//! is told (control plane 3.3).
//!
//! Annotations come in groups, and a group counts whole or not at all: one value that cannot be read leaves it as if nothing was
//! said, and is told.

use super::Mistake;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::{collections::BTreeMap, time::Duration};
use weft_model::{
    decide::terms::{grpc_code, status_range},
    duration,
    policy::outbound::{Backoff, Breaker, Load, Penalty, Retry, RetryOn, Timeouts},
};

type Annotations = BTreeMap<String, String>;

const RETRY_HTTP: &str = "retry.linkerd.io/http";
const RETRY_GRPC: &str = "retry.linkerd.io/grpc";
const RETRY_LIMIT: &str = "retry.linkerd.io/limit";
const RETRY_TIMEOUT: &str = "retry.linkerd.io/timeout";
const TIMEOUT_REQUEST: &str = "timeout.linkerd.io/request";
const TIMEOUT_RESPONSE: &str = "timeout.linkerd.io/response";
const TIMEOUT_IDLE: &str = "timeout.linkerd.io/idle";
const ACCRUAL: &str = "balancer.linkerd.io/failure-accrual";
const MAX_FAILURES: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-failures";
const MIN_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-min-penalty";
const MAX_PENALTY: &str = "balancer.linkerd.io/failure-accrual-consecutive-max-penalty";
const JITTER: &str = "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio";
const THRESHOLD: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold";
const WINDOW: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-window";
const MIN_REQUESTS: &str = "balancer.alpha.linkerd.io/failure-accrual-success-rate-min-requests";
/// Proxies are told, and none acts on it.
pub(crate) const HONOR_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/failure-accrual-honor-retry-after";
const PENALIZE: &str = "balancer.alpha.linkerd.io/penalize-failures";
const PENALTY: &str = "balancer.alpha.linkerd.io/load-biaser-penalty";
const MAX_RETRY_AFTER: &str = "balancer.alpha.linkerd.io/load-biaser-max-retry-after";

const OF_TERMS: [&str; 7] =
    [RETRY_HTTP, RETRY_GRPC, RETRY_LIMIT, RETRY_TIMEOUT, TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE];
const OF_ACCRUAL: [&str; 9] =
    [ACCRUAL, MAX_FAILURES, MIN_PENALTY, MAX_PENALTY, JITTER, THRESHOLD, WINDOW, MIN_REQUESTS, HONOR_RETRY_AFTER];
const OF_LOAD: [&str; 3] = [PENALIZE, PENALTY, MAX_RETRY_AFTER];
/// What the names of all of these begin with.
const PREFIXES: [&str; 4] =
    ["retry.linkerd.io/", "timeout.linkerd.io/", "balancer.linkerd.io/", "balancer.alpha.linkerd.io/"];

/// What Linkerd's proxies accept (data plane 4.9).
const MIN_WINDOW: Duration = Duration::from_millis(10);
const MOST_MIN_REQUESTS: u32 = 1_000_000;

const REMOTE_DISCOVERY: &str = "multicluster.linkerd.io/remote-discovery";
const LOCAL_DISCOVERY: &str = "multicluster.linkerd.io/local-discovery";

/// More conditions than there are statuses say nothing new.
const MAX_CONDITIONS: usize = 64;

const A_DURATION: &str = "use a whole number and ms, s, m, h or d, such as 500ms";
const A_NUMBER: &str = "use a whole number";
const A_BOOLEAN: &str = "use true or false";

/// What may be said of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Service,
    EgressNetwork,
    Route,
    /// A route of connections, of which nothing is said.
    ConnectionRoute,
}

/// The retries and timeouts that an object asks for: of each group what is said, or that nothing is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    pub(crate) timeouts: Option<Timeouts>,
    /// Of HTTP; within, none are wanted.
    pub(crate) http: Option<Option<Retry>>,
    pub(crate) grpc: Option<Option<Retry>>,
}

/// How an object's endpoints are chosen and left out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Balancing {
    pub(crate) breaker: Option<Breaker>,
    pub(crate) load: Load,
}

impl Default for Balancing {
    fn default() -> Self {
        Self { breaker: None, load: Load::LINKERD }
    }
}

/// A value cannot be read, and the group does not count.
struct Unread;

struct Reader<'a> {
    annotations: &'a Annotations,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn value<T>(&mut self, key: &str, read: impl Fn(&str) -> Option<T>, remedy: &str) -> Result<Option<T>, Unread> {
        let Some(text) = self.annotations.get(key) else { return Ok(None) };
        match read(text.trim()) {
            Some(value) => Ok(Some(value)),
            None => {
                let text: String = text.chars().take(64).collect();
                self.mistake(key, format!("{text:?} cannot be read, and what is said with it does not count"), remedy);
                Err(Unread)
            }
        }
    }

    fn duration(&mut self, key: &str) -> Result<Option<Duration>, Unread> {
        self.value(key, duration::parse, A_DURATION)
    }

    fn mistake(&mut self, key: &str, message: impl Into<String>, remedy: &str) {
        self.mistakes.push(Mistake::new(of_annotation(key), message, remedy));
    }

    fn timeouts(&mut self) -> Result<Option<Timeouts>, Unread> {
        let [request, response, idle] = [TIMEOUT_REQUEST, TIMEOUT_RESPONSE, TIMEOUT_IDLE].map(|key| self.duration(key));
        let (request, response, idle) = (request?, response?, idle?);
        let some = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
        let said = request.is_some() || response.is_some() || idle.is_some();
        Ok(said.then_some(Timeouts { request: some(request), response: some(response), idle: some(idle) }))
    }

    /// Of HTTP and of gRPC, which share all but their conditions.
    fn retries(&mut self) -> [Option<Option<Retry>>; 2] {
        let limit = self.value(RETRY_LIMIT, |text| text.parse::<u16>().ok(), "use a number up to 65535");
        let timeout = self.duration(RETRY_TIMEOUT);
        let http = self.value(RETRY_HTTP, |text| list(text, status_range), HTTP);
        let grpc = self.value(RETRY_GRPC, |text| list(text, grpc_code), GRPC);
        let (Ok(limit), Ok(timeout)) = (limit, timeout) else { return [None, None] };
        let retry = |on: Option<RetryOn>, empty: RetryOn| {
            let said = limit.is_some() || timeout.is_some() || on.is_some();
            let retry = Retry {
                max_retries: limit.unwrap_or(1).into(),
                on: on.unwrap_or(empty),
                timeout: timeout.filter(|timeout| !timeout.is_zero()),
                ..Retry::LINKERD
            };
            said.then_some((retry.max_retries > 0).then_some(retry))
        };
        [
            http.ok().and_then(|http| retry(http.map(RetryOn::Statuses), RetryOn::Statuses(vec![]))),
            grpc.ok().and_then(|grpc| retry(grpc.map(RetryOn::GrpcCodes), RetryOn::GrpcCodes(vec![]))),
        ]
    }

    fn breaker(&mut self) -> Result<Option<Breaker>, Unread> {
        let kind = self.value(ACCRUAL, Accrual::read, "use consecutive or unified")?;
        let max_failures = self.value(MAX_FAILURES, |text| text.parse().ok(), A_NUMBER);
        let (min, max) = (self.duration(MIN_PENALTY), self.duration(MAX_PENALTY));
        let jitter = self.value(JITTER, |text| number(text, 0.0..=100.0), "use a number from 0 to 100");
        let threshold = self.value(THRESHOLD, |text| number(text, 0.0..=1.0), "use a number from 0 to 1");
        let least = |text: &str| duration::parse(text).filter(|window| *window >= MIN_WINDOW);
        let window = self.value(WINDOW, least, "use 10ms or longer");
        let most = |text: &str| text.parse().ok().filter(|n| *n <= MOST_MIN_REQUESTS);
        let min_requests = self.value(MIN_REQUESTS, most, "use a number up to 1000000");
        let honor_retry_after = self.value(HONOR_RETRY_AFTER, boolean, A_BOOLEAN);
        let Some(kind) = kind else { return Ok(None) };
        let (max_failures, min, max) = (max_failures?.unwrap_or(7), min?, max?);
        let min = min.unwrap_or(Duration::from_secs(1));
        let max = max.unwrap_or(Duration::from_secs(60));
        if min.is_zero() || min > max {
            self.mistake(
                MIN_PENALTY,
                "the shortest wait is 0, or longer than the longest",
                "use 1s to 60s, for example",
            );
            return Err(Unread);
        }
        let backoff = Backoff { min, max, jitter: jitter?.unwrap_or(0.5) as f32 };
        Ok(Some(match kind {
            Accrual::Consecutive => Breaker::Consecutive { max_failures, backoff },
            Accrual::Unified => Breaker::Unified {
                success_rate_threshold: threshold?.unwrap_or(0.8),
                window: window?.unwrap_or(Duration::from_secs(10)),
                min_requests: min_requests?.unwrap_or(5),
                max_consecutive_failures: max_failures,
                backoff,
                honor_retry_after: honor_retry_after?.unwrap_or(false),
            },
        }))
    }

    fn load(&mut self) -> Result<Load, Unread> {
        let penalize = self.value(PENALIZE, boolean, A_BOOLEAN);
        let (rtt, max_retry_after) = (self.duration(PENALTY), self.duration(MAX_RETRY_AFTER));
        let (penalize, rtt, max_retry_after) = (penalize?.unwrap_or(false), rtt?, max_retry_after?);
        let penalty = penalize.then(|| Penalty {
            rtt: rtt.unwrap_or(Duration::from_secs(5)),
            max_retry_after: max_retry_after.unwrap_or(Duration::from_secs(300)),
        });
        Ok(Load { penalty, ..Load::LINKERD })
    }
}

const HTTP: &str = "use 5xx, gateway-error, statuses such as 503 and ranges such as 500-504, with commas between";
const GRPC: &str =
    "use cancelled, deadline-exceeded, internal, resource-exhausted and unavailable, with commas between";

#[derive(Clone, Copy)]
enum Accrual {
    Consecutive,
    Unified,
}

impl Accrual {
    fn read(text: &str) -> Option<Self> {
        match text {
            "consecutive" => Some(Self::Consecutive),
            "unified" => Some(Self::Unified),
            _ => None,
        }
    }
}

/// What stands behind commas, if each of it can be read.
fn list<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    let all: Option<Vec<T>> = text.split(',').take(MAX_CONDITIONS + 1).map(|part| read(part.trim())).collect();
    all.filter(|all| all.len() <= MAX_CONDITIONS)
}

/// Go's words for it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn number(text: &str, within: std::ops::RangeInclusive<f64>) -> Option<f64> {
    text.parse().ok().filter(|number| within.contains(number))
}

/// The retries and timeouts that are asked for, as far as they can be read.
pub(crate) fn terms(annotations: &Annotations) -> Terms {
    let mut reader = Reader { annotations, mistakes: vec![] };
    let [http, grpc] = reader.retries();
    Terms { timeouts: reader.timeouts().ok().flatten(), http, grpc }
}

/// How a Service's or an EgressNetwork's clients choose among endpoints, as far as it can be read.
pub(crate) fn balancing(annotations: &Annotations, on: On) -> Balancing {
    let mut reader = Reader { annotations, mistakes: vec![] };
    let breaker = reader.breaker().ok().flatten();
    let load = if on == On::Service { reader.load().unwrap_or(Load::LINKERD) } else { Load::LINKERD };
    Balancing { breaker, load }
}

/// What says that a Service's endpoints are in other clusters, or some of them: multicluster's label of a mirror, or its annotations of
/// a Service that several clusters have together.
pub(crate) fn elsewhere(meta: &ObjectMeta) -> Option<&'static str> {
    let has = |map: &Option<Annotations>, key: &str| map.as_ref().is_some_and(|map| map.contains_key(key));
    if has(&meta.labels, REMOTE_DISCOVERY) {
        return Some("metadata.labels[multicluster.linkerd.io/remote-discovery]");
    }
    if has(&meta.annotations, REMOTE_DISCOVERY) {
        return Some("metadata.annotations[multicluster.linkerd.io/remote-discovery]");
    }
    has(&meta.annotations, LOCAL_DISCOVERY).then_some("metadata.annotations[multicluster.linkerd.io/local-discovery]")
}

/// Whether an annotation is one of these by the first part of its name.
pub(crate) fn is_of_clients(key: &str) -> bool {
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Whether a mistake is in a retry or a timeout, rather than in what has no effect at all.
pub(crate) fn is_of_terms(mistake: &Mistake) -> bool {
    OF_TERMS.iter().any(|key| mistake.field == of_annotation(key))
}

fn of_annotation(key: &str) -> String {
    format!("{OF_ANNOTATION}{key}]")
}

const OF_ANNOTATION: &str = "metadata.annotations[";

/// The annotation that a mistake is in.
pub(crate) fn annotation_of(mistake: &Mistake) -> &str {
    let key = mistake.field.strip_prefix(OF_ANNOTATION).and_then(|rest| rest.strip_suffix(']'));
    key.unwrap_or(&mistake.field)
}

/// What is wrong with an object's annotations for its clients: values, names, and what has no effect on such an object.
pub(crate) fn mistakes(annotations: &Annotations, on: On) -> Vec<Mistake> {
    let mut reader = Reader { annotations, mistakes: vec![] };
    reader.retries();
    // Each tells what is wrong with it by itself.
    let (_, _, _) = (reader.timeouts(), reader.breaker(), reader.load());
    for key in annotations.keys().filter(|key| is_of_clients(key)) {
        let key = key.as_str();
        let is_of_parents = OF_ACCRUAL.contains(&key) || OF_LOAD.contains(&key);
        if !OF_TERMS.contains(&key) && !is_of_parents {
            reader.mistake(key, format!("there is no annotation {key}"), "correct the spelling, or remove it");
        } else if !is_of_parents && on == On::ConnectionRoute {
            reader.mistake(key, "it has no effect on a route of connections", "remove it");
        } else if is_of_parents && matches!(on, On::Route | On::ConnectionRoute) {
            reader.mistake(key, "it has no effect on a route", "write it on the Service that is the route's parent");
        } else if OF_LOAD.contains(&key) && on == On::EgressNetwork {
            reader.mistake(key, "it has no effect on an EgressNetwork, which has one endpoint", "remove it");
        }
    }
    reader.mistakes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Object, policy::said_in_vain};
    use weft_model::names::annotation::OPAQUE_PORTS;

    fn said(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn told(pairs: &[(&str, &str)], on: On) -> Vec<String> {
        mistakes(&said(pairs), on).iter().map(|mistake| annotation_of(mistake).to_owned()).collect()
    }

    const fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn every_annotation_stands_in_the_page() {
        let page = include_str!("../../../../docs/reference/kinds/service.md");
        let all = OF_TERMS.iter().chain(&OF_ACCRUAL).chain(&OF_LOAD);
        let missing: Vec<_> = all.filter(|key| !page.contains(&format!("| `{key}` |"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
        let first = page.split("## ").find(|part| part.starts_with("Circuit breaking")).unwrap();
        let named: Vec<_> = first.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next()).collect();
        assert_eq!(named[..OF_ACCRUAL.len()], OF_ACCRUAL, "the first nine are of EgressNetworks too");
    }

    #[test]
    fn retries_are_asked_for_by_any_of_their_annotations() {
        let http = |pairs: &[(&str, &str)]| terms(&said(pairs)).http;
        let retry = |max_retries, on: Vec<_>, timeout| {
            Some(Some(Retry { max_retries, on: RetryOn::Statuses(on), timeout, ..Retry::LINKERD }))
        };
        assert_eq!(http(&[]), None);
        assert_eq!(http(&[(RETRY_HTTP, "5xx")]), retry(1, vec![500..=599], None));
        let several = http(&[(RETRY_HTTP, "gateway-error, 429,500-501"), (RETRY_LIMIT, "3"), (RETRY_TIMEOUT, "400ms")]);
        assert_eq!(several, retry(3, vec![502..=504, 429..=429, 500..=501], Some(Duration::from_millis(400))));
        assert_eq!(http(&[(RETRY_LIMIT, "2")]), retry(2, vec![], None));
        assert_eq!(http(&[(RETRY_TIMEOUT, "0")]), retry(1, vec![], None), "0 is no time-out");
        assert_eq!(http(&[(RETRY_HTTP, "5xx"), (RETRY_LIMIT, "0")]), Some(None), "0 is none at all");
        let of = terms(&said(&[(RETRY_GRPC, "unavailable,cancelled")]));
        let codes = RetryOn::GrpcCodes(vec![14, 1]);
        assert_eq!((of.http, of.grpc), (None, Some(Some(Retry { on: codes, ..Retry::LINKERD }))));
    }

    #[test]
    fn one_value_that_cannot_be_read_leaves_out_its_group() {
        for (key, bad) in [
            (RETRY_HTTP, "6xx"),
            (RETRY_HTTP, "504-500"),
            (RETRY_HTTP, ""),
            (RETRY_LIMIT, "-1"),
            (RETRY_LIMIT, "65536"),
            (RETRY_TIMEOUT, "1"),
            (RETRY_TIMEOUT, "1.5s"),
            (RETRY_TIMEOUT, "1m30s"),
            (RETRY_TIMEOUT, "-1s"),
        ] {
            let mut pairs = vec![(RETRY_HTTP, "5xx"), (RETRY_LIMIT, "2"), (RETRY_TIMEOUT, "1s"), (TIMEOUT_IDLE, "3s")];
            pairs.push((key, bad));
            let terms = terms(&said(&pairs));
            assert_eq!(terms.http, None, "{key}: {bad}");
            assert_eq!(terms.timeouts.unwrap().idle, Some(s(3)), "another group");
            assert_eq!(told(&pairs, On::Service), [key], "{bad}");
        }
        // What is said of gRPC alone does not spoil HTTP.
        let pairs = [(RETRY_HTTP, "5xx"), (RETRY_GRPC, "ok")];
        let terms = terms(&said(&pairs));
        assert!(terms.http.is_some() && terms.grpc.is_none());
        assert_eq!(told(&pairs, On::Route), [RETRY_GRPC]);
        let timeouts = |pairs: &[(&str, &str)]| super::terms(&said(pairs)).timeouts;
        assert_eq!(timeouts(&[(TIMEOUT_REQUEST, "1s"), (TIMEOUT_RESPONSE, "soon")]), None);
        let all = timeouts(&[(TIMEOUT_REQUEST, "1s"), (TIMEOUT_RESPONSE, "2s"), (TIMEOUT_IDLE, "0")]);
        assert_eq!(all, Some(Timeouts { request: Some(s(1)), response: Some(s(2)), idle: None }));
    }

    #[test]
    fn breakers_have_linkerds_defaults() {
        let breaker = |pairs: &[(&str, &str)]| balancing(&said(pairs), On::Service).breaker;
        let backoff = Backoff { min: s(1), max: s(60), jitter: 0.5 };
        assert_eq!(breaker(&[]), None);
        assert_eq!(breaker(&[(MAX_FAILURES, "3")]), None, "the kind turns it on");
        assert_eq!(breaker(&[(ACCRUAL, "consecutive")]), Some(Breaker::Consecutive { max_failures: 7, backoff }));
        let unified = |threshold, window, min_requests, max_consecutive_failures, backoff, honor_retry_after| {
            Some(Breaker::Unified {
                success_rate_threshold: threshold,
                window: s(window),
                min_requests,
                max_consecutive_failures,
                backoff,
                honor_retry_after,
            })
        };
        assert_eq!(breaker(&[(ACCRUAL, "unified")]), unified(0.8, 10, 5, 7, backoff, false));
        let all = [
            (ACCRUAL, "unified"),
            (MAX_FAILURES, "3"),
            (MIN_PENALTY, "2s"),
            (MAX_PENALTY, "2s"),
            (JITTER, "0"),
            (THRESHOLD, "0.5"),
            (WINDOW, "1m"),
            (MIN_REQUESTS, "9"),
            (HONOR_RETRY_AFTER, "T"),
        ];
        let others = Backoff { min: s(2), max: s(2), jitter: 0.0 };
        assert_eq!(breaker(&all), unified(0.5, 60, 9, 3, others, true));
        assert_eq!(told(&all, On::Service), Vec::<String>::new());
        for (key, bad) in [
            (ACCRUAL, "sometimes"),
            (MAX_FAILURES, "-1"),
            (MIN_PENALTY, "0s"),
            (MIN_PENALTY, "61s"),
            (MAX_PENALTY, "long"),
            (JITTER, "100.5"),
            (JITTER, "NaN"),
            (THRESHOLD, "1.1"),
            (WINDOW, "9ms"),
            (MIN_REQUESTS, "1000001"),
            (HONOR_RETRY_AFTER, "yes"),
        ] {
            let pairs = [(ACCRUAL, "unified"), (key, bad)];
            assert_eq!(breaker(&pairs), None, "{key}: {bad}");
            assert_eq!(told(&pairs, On::Service), [key], "{bad}");
        }
    }

    #[test]
    fn failures_count_as_slow_where_a_service_asks_for_it() {
        let load = |pairs: &[(&str, &str)], on| balancing(&said(pairs), on).load.penalty;
        let both = [(PENALIZE, "true"), (PENALTY, "1s"), (MAX_RETRY_AFTER, "9s")];
        assert_eq!(load(&both, On::Service), Some(Penalty { rtt: s(1), max_retry_after: s(9) }));
        assert_eq!(load(&both[..1], On::Service), Some(Penalty { rtt: s(5), max_retry_after: s(300) }));
        assert_eq!(load(&both[1..], On::Service), None);
        assert_eq!(load(&both, On::EgressNetwork), None);
        assert_eq!(told(&both, On::EgressNetwork).len(), 3);
        assert_eq!(load(&[(PENALIZE, "true"), (PENALTY, "x")], On::Service), None);
    }

    #[test]
    fn what_has_no_effect_is_told() {
        assert_eq!(told(&[("retry.linkerd.io/limits", "1"), ("example.com/limits", "1")], On::Route).len(), 1);
        assert_eq!(told(&[(ACCRUAL, "consecutive")], On::Route), [ACCRUAL]);
        assert_eq!(told(&[(ACCRUAL, "consecutive")], On::EgressNetwork), Vec::<String>::new());
        for (ports, is_told) in [("8080,db\n", false), ("", false), ("8080 9090", true), ("80-70", true)] {
            let service = serde_json::json!({"metadata": {"name": "a", "annotations": {OPAQUE_PORTS: ports}}});
            let told = said_in_vain(&Object::Service(serde_json::from_value(service).unwrap()));
            let fields: Vec<&str> = told.iter().map(|mistake| mistake.field.as_str()).collect();
            let field = "metadata.annotations[config.linkerd.io/opaque-ports]";
            assert_eq!(fields, if is_told { vec![field] } else { vec![] }, "{ports:?}");
        }
    }
}
