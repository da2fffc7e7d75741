//! Whether the API server asks each webhook what the installation has it ask, and where.

use super::{none, remedy::Failed};
use serde_json::Value;
use std::collections::BTreeSet;
use weft_cluster::{install::Webhook, kubernetes::Cluster};

/// `objects` are the installation's. Of selectors those are told of that have lost something: some clouds add to them.
pub(super) async fn as_installed(cluster: &Cluster, objects: &[Value]) -> Result<(), Failed> {
    let mut wrong = vec![];
    for webhook in Webhook::ALL {
        let (kind, name) = (webhook.configured(), webhook.configuration());
        let is_meant = |object: &&Value| object["kind"] == kind.kind && object["metadata"]["name"] == *name;
        let (Some(wanted), Some(found)) = (objects.iter().find(is_meant), cluster.object(kind, None, &name).await?)
        else {
            continue;
        };
        let told = |why: String| format!("the {} {name} {why}", kind.kind);
        wrong.extend(otherwise(&wanted["webhooks"][0], &found["webhooks"]).into_iter().map(told));
    }
    none(wrong)
}

/// What of a webhook stands otherwise among those of a cluster's configuration.
fn otherwise(wanted: &Value, found: &Value) -> Vec<String> {
    let Some(found) = found.as_array().into_iter().flatten().find(|one| one["name"] == wanted["name"]) else {
        return vec![format!("has no webhook {}", wanted["name"].as_str().unwrap_or_default())];
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Where nothing is said of a port or a path, it is one of these.
    let place = |hook: &Value| {
        let service = &hook["clientConfig"]["service"];
        let port = service["port"].as_u64().unwrap_or(443);
        let path = service["path"].as_str().unwrap_or("/");
        (text(&service["namespace"]), text(&service["name"]), port, path.to_owned())
    };
    let shown = |(namespace, name, port, path): (String, String, u64, String)| match name.as_str() {
        "" => "no Service".to_owned(),
        _ => format!("the Service {namespace}/{name} at port {port} for {path}"),
    };
    let mut wrong = vec![];
    let places = (place(found), place(wanted));
    if places.0 != places.1 {
        wrong.push(format!("asks {}, not {}", shown(places.0), shown(places.1)));
    }
    let rules = |hook: &Value| hook["rules"].as_array().into_iter().flatten().map(Rule::of).collect::<BTreeSet<_>>();
    let (there, meant) = (rules(found), rules(wanted));
    wrong.extend(meant.difference(&there).map(|rule| format!("has no rule for {}", rule.shown())));
    wrong.extend(there.difference(&meant).map(|rule| format!("has a rule for {}", rule.shown())));
    for selector in ["namespaceSelector", "objectSelector"] {
        let lost =
            requirements(&wanted[selector]).into_iter().find(|one| !requirements(&found[selector]).contains(one));
        wrong.extend(lost.map(|one| format!("has a {selector} without {one}")));
    }
    wrong
}

/// What a selector asks for.
fn requirements(selector: &Value) -> Vec<String> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    labels.chain(expressions.map(Value::to_string)).collect()
}

/// A rule by which a webhook is asked; of its lists the order says nothing.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    operations: BTreeSet<String>,
    resources: BTreeSet<String>,
    groups: BTreeSet<String>,
    versions: BTreeSet<String>,
    scope: String,
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let list = |key: &str| {
            let all = rule[key].as_array().into_iter().flatten().filter_map(Value::as_str);
            all.map(str::to_owned).collect()
        };
        Self {
            operations: list("operations"),
            resources: list("resources"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    fn shown(&self) -> String {
        let Self { operations, resources, groups, versions, scope } = self;
        let list = |all: &BTreeSet<String>| all.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let groups = list(groups);
        let group = if groups.is_empty() { "core" } else { &groups };
        format!("{} of {} ({group}/{}, scope {scope})", list(operations), list(resources), list(versions))
    }
}
