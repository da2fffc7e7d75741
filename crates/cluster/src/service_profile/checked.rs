//! What a ServiceProfile asks of clients, and what is wrong with one (control plane 3.6.3, 6.3).

use super::spec::{
    OverrideSpec, RequestConditionSpec, ResponseClassSpec, ResponseConditionSpec, RetryBudgetSpec, RouteSpec,
    ServiceProfileSpec, StatusRangeSpec,
};
use crate::{policy::Mistake, values::Quantity};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use weft_model::{
    DnsName, NameAddr, duration,
    policy::route::{NoPattern, PatternRoom},
    profile::{ProfileRoute, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, WeightedTarget},
};

/// Conditions within conditions.
const MAX_DEPTH: usize = 16;
/// What proxies take (data plane 4.10).
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const MAX_RATIO: f64 = 1000.0;

/// What a ServiceProfile says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) routes: Vec<ProfileRoute>,
    pub(crate) budget: RetryBudget,
    overrides: Vec<Override>,
}

#[derive(Clone, Debug, PartialEq)]
struct Override {
    name: DnsName,
    /// `None` is the one that was asked for.
    port: Option<u16>,
    weight: u32,
}

/// What has come up so far.
#[derive(Default)]
struct Found {
    mistakes: Vec<Mistake>,
    patterns: PatternRoom,
}

impl Found {
    fn push(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }
}

impl Asked {
    /// Where requests to `port` go instead.
    pub(crate) fn targets(&self, port: u16) -> Vec<WeightedTarget> {
        let target = |Override { name, port: own, weight }: &Override| WeightedTarget {
            target: NameAddr { name: name.clone(), port: own.unwrap_or(port) },
            weight: *weight,
        };
        self.overrides.iter().map(target).collect()
    }
}

impl ServiceProfileSpec {
    pub(crate) fn checked(&self) -> Result<Asked, Vec<Mistake>> {
        let Self { routes, retry_budget, dst_overrides, opaque_ports: _ } = self;
        let mut found = Found::default();
        let mut read = vec![];
        for (i, route) in routes.iter().flatten().enumerate() {
            let at = format!("spec.routes[{i}]");
            match route {
                Some(route) => read.extend(route.checked(&at, &mut found)),
                None => found.push(null(at)),
            }
        }
        let budget = retry_budget.as_ref().map_or(RetryBudget::LINKERD, |budget| budget.checked(&mut found));
        let mut overrides = vec![];
        for (i, spec) in dst_overrides.iter().flatten().enumerate() {
            overrides.extend(spec.checked(&format!("spec.dstOverrides[{i}]"), &mut found));
        }
        // What gets nothing is nothing.
        overrides.retain(|o| o.weight > 0);
        let Found { mistakes, patterns: _ } = found;
        if mistakes.is_empty() { Ok(Asked { routes: read, budget, overrides }) } else { Err(mistakes) }
    }
}

fn null(at: String) -> Mistake {
    Mistake::new(at, "it is null", "remove it")
}

impl RouteSpec {
    fn checked(&self, at: &str, found: &mut Found) -> Option<ProfileRoute> {
        let Self { name, condition, response_classes, is_retryable, timeout } = self;
        let name = name.as_deref().unwrap_or_default();
        if name.is_empty() {
            found.push(Mistake::new(format!("{at}.name"), "the route has no name", "give it one"));
        }
        let timeout = match timeout.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => signed(text).or_else(|| {
                found.push(no_duration(format!("{at}.timeout"), text));
                None
            }),
            None => None,
        };
        let matches = match condition {
            Some(condition) => condition.checked(&format!("{at}.condition"), 1, found),
            None => {
                let remedy = "give condition.pathRegex or condition.method";
                found.push(Mistake::new(format!("{at}.condition"), "the route is for no requests", remedy));
                None
            }
        };
        let mut classes = vec![];
        for (i, class) in response_classes.iter().flatten().enumerate() {
            let at = format!("{at}.responseClasses[{i}]");
            match class {
                None => found.push(null(at)),
                Some(ResponseClassSpec { condition: None, .. }) => {
                    let remedy = "give condition.status";
                    found.push(Mistake::new(format!("{at}.condition"), "the class is of no responses", remedy));
                }
                Some(ResponseClassSpec { condition: Some(condition), is_failure }) => {
                    let matches = condition.checked(&format!("{at}.condition"), 1, found);
                    let failure = is_failure.unwrap_or(false);
                    classes.extend(matches.map(|matches| ResponseClass { matches, failure }));
                }
            }
        }
        Some(ProfileRoute {
            matches: matches?,
            response_classes: classes,
            labels: BTreeMap::from([("route".to_owned(), name.to_owned())]),
            retryable: is_retryable.unwrap_or(false),
            // No time at all, or less, is no timeout.
            timeout: timeout.filter(|timeout| !timeout.is_zero()),
        })
    }
}

impl RequestConditionSpec {
    fn checked(&self, at: &str, depth: usize, found: &mut Found) -> Option<RequestMatch> {
        let Self { path_regex, method, all, any, not } = self;
        let within = |spec: &Self, at: &str, found: &mut Found| spec.checked(at, depth + 1, found);
        let mut parts = vec![];
        if depth > MAX_DEPTH {
            found.push(too_deep(at));
            return None;
        }
        if let Some(source) = path_regex {
            match found.patterns.pattern(source) {
                Ok(pattern) => parts.push(RequestMatch::Path(pattern)),
                Err(NoPattern::NoRoom) => {
                    let message = "the regular expressions of the profile are too large together";
                    found.push(Mistake::new(format!("{at}.pathRegex"), message, "use fewer, or simpler ones"));
                }
                Err(NoPattern::Wrong(_) | NoPattern::TooLarge) => {
                    let text: String = source.chars().take(64).collect();
                    let message = format!("{text:?} is no regular expression, or a too large one");
                    found.push(Mistake::new(format!("{at}.pathRegex"), message, "use the syntax of RE2"));
                }
            }
        }
        parts.extend(method.clone().map(RequestMatch::Method));
        parts.extend(each(all.as_deref(), &format!("{at}.all"), found, within).map(RequestMatch::All));
        parts.extend(each(any.as_deref(), &format!("{at}.any"), found, within).map(RequestMatch::Any));
        let not_that = not.as_ref().and_then(|not| within(not, &format!("{at}.not"), found));
        parts.extend(not_that.map(|that| RequestMatch::Not(Box::new(that))));
        if path_regex.is_none() && method.is_none() && all.is_none() && any.is_none() && not.is_none() {
            let remedy = "give all, any, not, method or pathRegex";
            found.push(Mistake::new(at, "the condition is empty", remedy));
        }
        one_or(parts, RequestMatch::All)
    }
}

impl ResponseConditionSpec {
    fn checked(&self, at: &str, depth: usize, found: &mut Found) -> Option<ResponseMatch> {
        let Self { status, all, any, not } = self;
        let within = |spec: &Self, at: &str, found: &mut Found| spec.checked(at, depth + 1, found);
        let mut parts = vec![];
        if depth > MAX_DEPTH {
            found.push(too_deep(at));
            return None;
        }
        if let Some(StatusRangeSpec { min, max }) = status {
            let end = |number: i64, open: u16| match number {
                0 => Some(open),
                number => u16::try_from(number).ok().filter(|n| (100..600).contains(n)),
            };
            match (end(*min, 100), end(*max, 599)) {
                (Some(min), Some(max)) if min <= max => parts.push(ResponseMatch::Status(min..=max)),
                _ => {
                    let message = format!("{min} to {max} is no range of statuses");
                    found.push(Mistake::new(format!("{at}.status"), message, "use min and max from 100 to 599"));
                }
            }
        }
        parts.extend(each(all.as_deref(), &format!("{at}.all"), found, within).map(ResponseMatch::All));
        parts.extend(each(any.as_deref(), &format!("{at}.any"), found, within).map(ResponseMatch::Any));
        let not_that = not.as_ref().and_then(|not| within(not, &format!("{at}.not"), found));
        parts.extend(not_that.map(|that| ResponseMatch::Not(Box::new(that))));
        if status.is_none() && all.is_none() && any.is_none() && not.is_none() {
            found.push(Mistake::new(at, "the condition is empty", "give all, any, not or status"));
        }
        one_or(parts, ResponseMatch::All)
    }
}

/// Conditions of a list, if there is one.
fn each<C, M>(
    list: Option<&[Option<C>]>,
    at: &str,
    found: &mut Found,
    read: impl Fn(&C, &str, &mut Found) -> Option<M>,
) -> Option<Vec<M>> {
    let mut wanted = vec![];
    for (i, condition) in list?.iter().enumerate() {
        let at = format!("{at}[{i}]");
        match condition {
            Some(condition) => wanted.extend(read(condition, &at, found)),
            None => found.push(null(at)),
        }
    }
    Some(wanted)
}

/// What is said beside each other must all hold.
fn one_or<M>(mut parts: Vec<M>, all: impl Fn(Vec<M>) -> M) -> Option<M> {
    if parts.len() > 1 { Some(all(parts)) } else { parts.pop() }
}

fn too_deep(at: &str) -> Mistake {
    Mistake::new(at, format!("conditions are nested more than {MAX_DEPTH} deep"), "write it with fewer levels")
}

impl RetryBudgetSpec {
    fn checked(&self, found: &mut Found) -> RetryBudget {
        const AT: &str = "spec.retryBudget";
        let Self { retry_ratio, min_retries_per_second, ttl } = self;
        if retry_ratio.is_nan() || *retry_ratio < 0.0 {
            let message = format!("{retry_ratio} is negative");
            found.push(Mistake::new(format!("{AT}.retryRatio"), message, "use 0 or more"));
        }
        let ttl = signed(ttl).unwrap_or_else(|| {
            found.push(no_duration(format!("{AT}.ttl"), ttl));
            RetryBudget::LINKERD.ttl
        });
        RetryBudget {
            ratio: retry_ratio.clamp(0.0, MAX_RATIO) as f32,
            min_retries_per_second: *min_retries_per_second,
            ttl: ttl.clamp(TTL.0, TTL.1),
        }
    }
}

impl OverrideSpec {
    fn checked(&self, at: &str, found: &mut Found) -> Option<Override> {
        let Self { authority, weight } = self;
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) => (name, port.parse::<u16>().ok().filter(|port| *port > 0).map(Some)),
            None => (authority.as_str(), Some(None)),
        };
        let named = name.parse::<DnsName>().ok().zip(port);
        if named.is_none() {
            let text: String = authority.chars().take(64).collect();
            let remedy = "use the full name of a Service, such as web.ns.svc.cluster.local, with a port or without";
            found.push(Mistake::new(format!("{at}.authority"), format!("{text:?} is no target"), remedy));
        }
        let text = match weight {
            Value::String(text) => text.clone(),
            Value::Null => "0".to_owned(),
            other => other.to_string(),
        };
        let quantity = text.parse::<Quantity>();
        if let Err(error) = &quantity {
            found.push(Mistake::new(format!("{at}.weight"), error.to_string(), "use a number, such as 500m or 1"));
        }
        let (name, port) = named?;
        // The protocol counts in ten-thousandths.
        let weight = quantity.ok()?.thousandths().saturating_mul(10);
        Some(Override { name, port, weight })
    }
}

fn no_duration(field: String, text: &str) -> Mistake {
    let text: String = text.chars().take(64).collect();
    Mistake::new(field, format!("{text:?} is no duration"), "use one such as 300ms, 10s or 1h30m")
}

/// Go's durations may be negative; such a one is none.
fn signed(text: &str) -> Option<Duration> {
    match text.strip_prefix('-') {
        Some(text) => duration::parse_go(text).map(|_| Duration::ZERO),
        None => duration::parse_go(text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(spec: Value) -> Asked {
        serde_json::from_value::<ServiceProfileSpec>(spec).unwrap().checked().unwrap()
    }

    #[test]
    fn routes_become_what_proxies_follow() {
        let condition = json!({"pathRegex": "/a.*", "method": "GET", "not": {"any": [{"method": "POST"}]}});
        let classes = json!([{"condition": {"status": {"min": 500}}, "isFailure": true}, {"condition": {"not": {"status": {"max": 299}}}}]);
        let route = json!({"name": "GET /a", "condition": condition, "responseClasses": classes, "isRetryable": true, "timeout": "1.5s"});
        let plain = json!({"name": "all", "condition": {"method": "PUT"}, "timeout": "-1s"});
        let asked = asked(json!({"routes": [route, plain]}));
        insta::assert_debug_snapshot!(asked);
    }

    #[test]
    fn targets_have_the_port_that_was_asked_for() {
        let overrides = json!([
            {"authority": "web-2.ns.svc.cluster.local", "weight": "500m"}, {"authority": "web.ns.svc.cluster.local:81", "weight": 1},
            {"authority": "none.ns.svc.cluster.local", "weight": "0"}]);
        let targets = asked(json!({"dstOverrides": overrides})).targets(80);
        let shown: Vec<String> = targets.iter().map(|t| format!("{} {}", t.target, t.weight)).collect();
        assert_eq!(shown, ["web-2.ns.svc.cluster.local:80 5000", "web.ns.svc.cluster.local:81 10000"]);
    }

    #[test]
    fn budgets_are_what_proxies_take() {
        let budget = |ratio: Value, ttl: &str| {
            asked(json!({"retryBudget": {"retryRatio": ratio, "minRetriesPerSecond": 3, "ttl": ttl}})).budget
        };
        assert_eq!(asked(json!({})).budget, RetryBudget::LINKERD);
        let of = |ratio, secs| RetryBudget { ratio, min_retries_per_second: 3, ttl: Duration::from_secs(secs) };
        assert_eq!(budget(json!(0.5), "20s"), of(0.5, 20));
        assert_eq!(budget(json!(5000), "1h"), of(1000.0, 60));
        assert_eq!(budget(json!(1), "0"), of(1.0, 1));
    }
}
