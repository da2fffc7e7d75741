//! What admission asks of a ServiceProfile (control plane 3.6.3).

use crate::{object::is_subdomain, policy::Mistake};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    #[serde(default, rename = "apiVersion")]
    _api_version: String,
    #[serde(default, rename = "kind")]
    _kind: String,
    metadata: Named,
    #[serde(default)]
    spec: Spec,
    #[serde(default, rename = "status")]
    _status: Value,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    routes: Option<Vec<Option<Route>>>,
    retry_budget: Option<RetryBudget>,
    #[serde(rename = "dstOverrides")]
    _overrides: Option<Vec<Override>>,
    #[serde(rename = "opaquePorts")]
    _opaque_ports: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Route {
    name: Option<String>,
    condition: Option<RequestCondition>,
    response_classes: Option<Vec<Option<ResponseClass>>>,
    #[serde(rename = "isRetryable")]
    _is_retryable: Option<bool>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RequestCondition {
    path_regex: Option<String>,
    method: Option<String>,
    all: Option<Vec<Option<RequestCondition>>>,
    any: Option<Vec<Option<RequestCondition>>>,
    not: Option<Box<RequestCondition>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResponseClass {
    condition: Option<ResponseCondition>,
    #[serde(rename = "isFailure")]
    _is_failure: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResponseCondition {
    status: Option<Range>,
    all: Option<Vec<Option<ResponseCondition>>>,
    any: Option<Vec<Option<ResponseCondition>>>,
    not: Option<Box<ResponseCondition>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    #[serde(default)]
    min: i64,
    #[serde(default)]
    max: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryBudget {
    #[serde(default)]
    retry_ratio: f64,
    #[serde(default, rename = "minRetriesPerSecond")]
    _min_retries_per_second: u32,
    #[serde(default)]
    ttl: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Override {
    #[serde(default, rename = "authority")]
    _authority: String,
    /// A quantity.
    #[serde(default, rename = "weight")]
    _weight: Value,
}

/// Everything that is wrong with a ServiceProfile.
pub fn mistakes(object: &Value) -> Vec<Mistake> {
    let profile: Profile = match serde_path_to_error::deserialize(object) {
        Ok(profile) => profile,
        Err(error) => {
            let field = error.path().to_string();
            return vec![Mistake::new(field, error.into_inner().to_string(), "correct the spelling, or remove it")];
        }
    };
    let mut mistakes = vec![];
    if !is_subdomain(&profile.metadata.name) {
        let message = format!("{:?} is no name of a host", profile.metadata.name);
        let remedy = "use the full name of a Service, such as web.ns.svc.cluster.local";
        mistakes.push(Mistake::new("metadata.name", message, remedy));
    }
    for (i, route) in profile.spec.routes.iter().flatten().enumerate() {
        let at = format!("spec.routes[{i}]");
        match route {
            Some(route) => route.check(&at, &mut mistakes),
            None => mistakes.push(null(at)),
        }
    }
    if let Some(budget) = &profile.spec.retry_budget {
        budget.check(&mut mistakes);
    }
    mistakes
}

fn null(at: String) -> Mistake {
    Mistake::new(at, "it is null", "remove it")
}

impl Route {
    fn check(&self, at: &str, mistakes: &mut Vec<Mistake>) {
        if self.name.as_deref().unwrap_or_default().is_empty() {
            mistakes.push(Mistake::new(format!("{at}.name"), "the route has no name", "give it one"));
        }
        if let Some(timeout) = self.timeout.as_deref().filter(|t| !t.is_empty() && !is_duration(t)) {
            mistakes.push(no_duration(format!("{at}.timeout"), timeout));
        }
        match &self.condition {
            Some(condition) => condition.check(&format!("{at}.condition"), mistakes),
            None => {
                let remedy = "give condition.pathRegex or condition.method";
                mistakes.push(Mistake::new(format!("{at}.condition"), "the route is for no requests", remedy));
            }
        }
        for (i, class) in self.response_classes.iter().flatten().enumerate() {
            let at = format!("{at}.responseClasses[{i}]");
            match class {
                None => mistakes.push(null(at)),
                Some(ResponseClass { condition: None, .. }) => {
                    let remedy = "give condition.status";
                    mistakes.push(Mistake::new(format!("{at}.condition"), "the class is of no responses", remedy));
                }
                Some(ResponseClass { condition: Some(condition), .. }) => {
                    condition.check(&format!("{at}.condition"), mistakes);
                }
            }
        }
    }
}

impl RequestCondition {
    fn check(&self, at: &str, mistakes: &mut Vec<Mistake>) {
        let Self { path_regex, method, all, any, not } = self;
        if path_regex.is_none() && method.is_none() && all.is_none() && any.is_none() && not.is_none() {
            let remedy = "give all, any, not, method or pathRegex";
            mistakes.push(Mistake::new(at, "the condition is empty", remedy));
        }
        each_within(at, [all, any], not.as_deref(), |inner, at| match inner {
            Some(inner) => inner.check(&at, mistakes),
            None => mistakes.push(null(at)),
        });
    }
}

impl ResponseCondition {
    fn check(&self, at: &str, mistakes: &mut Vec<Mistake>) {
        let Self { status, all, any, not } = self;
        if status.is_none() && all.is_none() && any.is_none() && not.is_none() {
            mistakes.push(Mistake::new(at, "the condition is empty", "give all, any, not or status"));
        }
        if let Some(Range { min, max }) = status {
            let is_status = |number: i64| number == 0 || (100..600).contains(&number);
            if !is_status(*min) || !is_status(*max) || (*max != 0 && max < min) {
                let message = format!("{min} to {max} is no range of statuses");
                mistakes.push(Mistake::new(format!("{at}.status"), message, "use min and max from 100 to 599"));
            }
        }
        each_within(at, [all, any], not.as_deref(), |inner, at| match inner {
            Some(inner) => inner.check(&at, mistakes),
            None => mistakes.push(null(at)),
        });
    }
}

/// Shows the conditions of which one is made, each with its place: those of `all` and `any`, and the one that must not hold.
fn each_within<C>(
    at: &str,
    [all, any]: [&Option<Vec<Option<C>>>; 2],
    not: Option<&C>,
    mut check: impl FnMut(Option<&C>, String),
) {
    for (name, list) in [("all", all), ("any", any)] {
        for (i, inner) in list.iter().flatten().enumerate() {
            check(inner.as_ref(), format!("{at}.{name}[{i}]"));
        }
    }
    if not.is_some() {
        check(not, format!("{at}.not"));
    }
}

impl RetryBudget {
    fn check(&self, mistakes: &mut Vec<Mistake>) {
        const AT: &str = "spec.retryBudget";
        if self.retry_ratio < 0.0 {
            let message = format!("{} is negative", self.retry_ratio);
            mistakes.push(Mistake::new(format!("{AT}.retryRatio"), message, "use 0 or more"));
        }
        if !is_duration(&self.ttl) {
            mistakes.push(no_duration(format!("{AT}.ttl"), &self.ttl));
        }
    }
}

fn no_duration(field: String, text: &str) -> Mistake {
    Mistake::new(field, format!("{text:?} is no duration"), "use one such as 300ms, 10s or 1h30m")
}

/// Go's: numbers with units, one after the other, and a sign before them.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (number, _) = rest.split_at(rest.len() - unit.len());
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        let Some(after) = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find_map(|u| unit.strip_prefix(u))
        else {
            return false;
        };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(spec: Value) -> Vec<String> {
        let object = json!({"apiVersion": "linkerd.io/v1alpha2", "kind": "ServiceProfile",
            "metadata": {"name": "web.ns.svc.cluster.local", "namespace": "ns"}, "spec": spec});
        mistakes(&object).into_iter().map(|m| m.field).collect()
    }

    #[test]
    fn each_rule_of_admission() {
        let condition = || json!({"method": "GET", "pathRegex": "/a"});
        let route = |patch: Value| {
            let mut route = json!({"name": "a", "condition": condition()});
            for (key, value) in patch.as_object().unwrap() {
                route[key] = value.clone();
            }
            json!({"routes": [route]})
        };
        let class = |condition: Value| route(json!({"responseClasses": [{"condition": condition, "isFailure": true}]}));
        let budget = |ratio: Value, ttl: &str| json!({"retryBudget": {"retryRatio": ratio, "minRetriesPerSecond": 1, "ttl": ttl}});
        for good in [
            json!({}),
            route(json!({})),
            route(json!({"timeout": "1h30m", "isRetryable": true})),
            route(json!({"condition": {"all": [condition(), {"not": condition()}], "any": [condition()]}})),
            class(json!({"status": {"min": 500, "max": 599}})),
            class(json!({"status": {"min": 500}})),
            budget(json!(0.2), "10s"),
            json!({"dstOverrides": [{"authority": "a.b", "weight": "500m"}], "opaquePorts": ["1"]}),
        ] {
            assert_eq!(wrong(good.clone()), Vec::<String>::new(), "{good}");
        }
        for (bad, field) in [
            (json!({"rout": []}), "spec.rout"),
            (json!({"routes": [null]}), "spec.routes[0]"),
            (route(json!({"name": ""})), "spec.routes[0].name"),
            (route(json!({"name": null})), "spec.routes[0].name"),
            (route(json!({"timeout": "1"})), "spec.routes[0].timeout"),
            (route(json!({"timeout": "1.1.1s"})), "spec.routes[0].timeout"),
            (route(json!({"condition": null})), "spec.routes[0].condition"),
            (route(json!({"condition": {}})), "spec.routes[0].condition"),
            (route(json!({"condition": {"all": [null]}})), "spec.routes[0].condition.all[0]"),
            (route(json!({"condition": {"not": {}}})), "spec.routes[0].condition.not"),
            (route(json!({"responseClasses": [null]})), "spec.routes[0].responseClasses[0]"),
            (route(json!({"responseClasses": [{}]})), "spec.routes[0].responseClasses[0].condition"),
            (class(json!({})), "spec.routes[0].responseClasses[0].condition"),
            (class(json!({"status": {"min": 99}})), "spec.routes[0].responseClasses[0].condition.status"),
            (class(json!({"status": {"max": 600}})), "spec.routes[0].responseClasses[0].condition.status"),
            (class(json!({"status": {"min": 500, "max": 400}})), "spec.routes[0].responseClasses[0].condition.status"),
            (class(json!({"any": [{}]})), "spec.routes[0].responseClasses[0].condition.any[0]"),
            (budget(json!(-0.1), "10s"), "spec.retryBudget.retryRatio"),
            (budget(json!(0.1), ""), "spec.retryBudget.ttl"),
            (budget(json!(0.1), "10"), "spec.retryBudget.ttl"),
        ] {
            assert_eq!(wrong(bad.clone()), [field], "{bad}");
        }
        let named = |name: &str| mistakes(&json!({"metadata": {"name": name}, "spec": {}})).len();
        assert_eq!((named("web.ns.svc.cluster.local"), named("Web"), named("a_b"), named("")), (0, 1, 1, 1));
    }
}
