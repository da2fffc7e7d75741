//! What admission asks of a ServiceProfile (control plane 3.6.3).

use super::ServiceProfileSpec;
use crate::{
    Kind,
    manifest::FieldPath,
    object::is_subdomain,
    policy::{Custom, Mistake, custom},
};
use serde_json::Value;

/// Everything that is wrong with a ServiceProfile.
pub fn mistakes(object: &Value) -> Vec<Mistake> {
    let (profile, unknown_fields): (Box<Custom<ServiceProfileSpec>>, _) = match custom(Kind::ServiceProfile, object) {
        Ok(read) => read,
        Err(mistakes) => return mistakes,
    };
    let mut mistakes: Vec<Mistake> = unknown_fields.iter().map(unknown).collect();
    // Of the rest the API server knows more.
    mistakes.retain(|mistake| mistake.field.starts_with("spec"));
    let name = profile.metadata.name.as_deref().unwrap_or_default();
    if !is_subdomain(name) {
        let message = format!("{name:?} is no name of a host");
        let remedy = "use the full name of a Service, such as web.ns.svc.cluster.local";
        mistakes.push(Mistake::new("metadata.name", message, remedy));
    }
    mistakes.extend(profile.spec.checked().err().into_iter().flatten());
    mistakes
}

fn unknown(path: &FieldPath) -> Mistake {
    Mistake::new(path.to_string(), "there is no such field", "correct the spelling, or remove it")
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
            (route(json!({"condition": {"pathRegex": "("}})), "spec.routes[0].condition.pathRegex"),
            (json!({"dstOverrides": [{"authority": "a b", "weight": 1}]}), "spec.dstOverrides[0].authority"),
            (json!({"dstOverrides": [{"authority": "a.b", "weight": "much"}]}), "spec.dstOverrides[0].weight"),
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
