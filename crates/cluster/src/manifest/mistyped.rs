//! What a field wants that is missing or holds something else, in Kubernetes' words: serde speaks of Rust's types.

use super::{
    fields::{Field, Table},
    path::{Path, Step},
    read::table,
};
use crate::{Kind, install::crd, policy};
use serde::Serialize;
use serde_json::Value as Json;

/// A field that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistyped {
    pub(crate) path: Path,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// What `error` says of an object of a kind; `path` is where it came up.
pub(super) fn mistyped(kind: Kind, path: Path, error: &serde_json::Error) -> Mistyped {
    let told = error.to_string();
    if let Some(field) = told.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let path = path.key(field);
        let remedy = defined(kind, &path).map_or_else(|| "give it".to_owned(), |wanted| format!("give {wanted}"));
        return Mistyped { path, message: "it is missing".to_owned(), remedy };
    }
    if takes_list(&told) {
        return is_list(kind, path);
    }
    let Some((found, expected)) = split(&told) else {
        return Mistyped { path, message: told, remedy: "give a value of the right type".to_owned() };
    };
    let wanted = defined(kind, &path).unwrap_or_else(|| in_words(expected));
    let is_plain = ["integer", "floating point", "boolean"].iter().any(|plain| found.starts_with(plain));
    let remedy = match wanted == TEXT && is_plain {
        true => "put the value in quotes".to_owned(),
        false => format!("give {wanted}"),
    };
    Mistyped { path, message: format!("it is {}", as_written(found)), remedy }
}

/// Whether serde says that it has taken a list for an object, which has not as many fields.
pub(super) fn takes_list(told: &str) -> bool {
    told.starts_with("invalid length ")
}

/// What serde has found, and what it wants.
fn split(told: &str) -> Option<(&str, &str)> {
    let said = told.strip_prefix("invalid type: ").or_else(|| told.strip_prefix("invalid value: "))?;
    said.rsplit_once(", expected ")
}

/// What is wrong with what is of another type, and what mends it, with an example.
pub(crate) fn of_another_type(error: &serde_json::Error) -> Option<(String, String)> {
    let told = error.to_string();
    if takes_list(&told) {
        return Some(list_for_value());
    }
    let (found, expected) = split(&told)?;
    let wanted = in_words(expected);
    // Kubernetes' types say their names.
    let is_name = expected.starts_with(char::is_uppercase) && !expected.contains(' ');
    let is_object = expected == "a map" || expected.starts_with("struct ") || is_name;
    let example = match wanted.as_str() {
        TEXT => r#", such as "text""#,
        "true or false" => ", without quotes",
        "a list" => r#", such as ["one", "two"]"#,
        "an object" if is_object => ", such as {key: value}",
        // A type that says itself what it wants.
        "an object" => return Some((format!("it is {}", as_written(found)), format!("give {expected}"))),
        "a number or a text" => "",
        _ => ", such as 100, without quotes",
    };
    Some((format!("it is {}", as_written(found)), format!("give {wanted}{example}")))
}

/// Of a value that is an object.
pub(crate) fn list_for_value() -> (String, String) {
    ("it is a list".to_owned(), "give an object, such as {key: value}".to_owned())
}

/// Where serde has taken a list for an object, its elements for the fields in their order: `read`, written again, is an object there.
pub(crate) fn by_position(written: &Json, read: &impl Serialize) -> Option<Path> {
    list_for_object(written, &serde_json::to_value(read).ok()?, &Path::default())
}

fn list_for_object(written: &Json, read: &Json, at: &Path) -> Option<Path> {
    match (written, read) {
        (Json::Array(_), Json::Object(_)) => Some(at.clone()),
        (Json::Object(written), Json::Object(read)) => {
            written.iter().find_map(|(key, value)| list_for_object(value, read.get(key)?, &at.key(key)))
        }
        (Json::Array(written), Json::Array(read)) => {
            let mut elements = written.iter().zip(read).enumerate();
            elements.find_map(|(i, (written, read))| list_for_object(written, read, &at.index(i)))
        }
        _ => None,
    }
}

pub(super) fn is_list(kind: Kind, path: Path) -> Mistyped {
    let wanted = defined(kind, &path).unwrap_or_else(|| in_words("an object of a type"));
    Mistyped { path, message: "it is a list".to_owned(), remedy: format!("give {wanted}") }
}

const TEXT: &str = "a text";

/// By the definitions that are installed by us, and else by the fields that are decided.
fn defined(kind: Kind, path: &Path) -> Option<String> {
    schema(kind, path).map(wanted).or_else(|| {
        let fields = decided(table(kind), path.steps())?;
        let known = fields.iter().filter(|(_, field)| !matches!(field, Field::Refused(_)));
        Some(with_fields(known.map(|(name, _)| *name)))
    })
}

fn schema(kind: Kind, path: &Path) -> Option<&'static Json> {
    let (spec, path) = path.steps().split_first()?;
    let of = policy::definition(kind).filter(|_| *spec == Step::Key("spec".to_owned()))?;
    let (_, newest) = crd::specs(of.group, of.kind).next()?;
    path.iter().try_fold(newest, |schema, step| match step {
        Step::Key(key) => schema.get("properties").map_or_else(|| schema.get("additionalProperties"), |p| p.get(key)),
        Step::Index(_) => schema.get("items"),
    })
}

fn wanted(schema: &Json) -> String {
    if let Some(texts) = schema["enum"].as_array() {
        let texts: Vec<&str> = texts.iter().filter_map(Json::as_str).collect();
        return format!("one of {}", texts.join(", "));
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" => TEXT.to_owned(),
        "boolean" => "true or false".to_owned(),
        "number" => "a number".to_owned(),
        "integer" => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
            (Some(least), Some(most)) => format!("a whole number from {least} to {most}"),
            (Some(least), None) => format!("a whole number, at least {least}"),
            _ => "a whole number".to_owned(),
        },
        "array" => format!("a list, each element {}", wanted(&schema["items"])),
        "object" => match schema["properties"].as_object() {
            Some(properties) => with_fields(properties.keys().map(String::as_str)),
            None => "an object".to_owned(),
        },
        _ => "a number or a text".to_owned(),
    }
}

fn with_fields<'n>(names: impl Iterator<Item = &'n str>) -> String {
    format!("an object with the fields {}", names.collect::<Vec<_>>().join(", "))
}

/// The fields of the object at `path`.
fn decided(table: Table, path: &[Step]) -> Option<Table> {
    let (Step::Key(key), rest) = path.split_first()? else { return None };
    let (_, field) = table.iter().find(|(name, _)| name == key)?;
    match (field, rest) {
        (Field::Of(fields), []) | (Field::Each(fields), [Step::Index(_)]) => Some(fields),
        (Field::Of(fields), rest) | (Field::Each(fields), [Step::Index(_), rest @ ..]) => decided(fields, rest),
        _ => None,
    }
}

/// What serde expects.
fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" => TEXT,
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "IntOrString" | "enum IntOrString" => "a number or a text",
        // A type by its name.
        _ => "an object",
    };
    words.to_owned()
}

/// What serde has found.
fn as_written(found: &str) -> String {
    let short = |text: &str| text.chars().take(64).collect::<String>();
    let number = found.strip_prefix("integer ").or_else(|| found.strip_prefix("floating point "));
    match (number, found.split_once(' ')) {
        (Some(number), _) => format!("the number {}", number.trim_matches('`')),
        (None, Some(("string", text))) => format!("the text {}", short(text)),
        (None, Some(("boolean", flag))) => flag.trim_matches('`').to_owned(),
        _ if found == "map" => "an object".to_owned(),
        _ if found == "sequence" => "a list".to_owned(),
        _ => "nothing".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{manifest, policy};
    use serde_json::{Value, json};
    use std::path::Path;

    /// What is said on disk, and for the mesh's own kinds at admission too.
    fn told(version: &str, kind: &str, spec: Value) -> String {
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let problems = manifest::load_text(Path::new("m.yaml"), &object.to_string()).problems;
        let told = problems.iter().map(|p| format!("{}: {}; {}", p.field, p.message, p.remedy)).collect::<Vec<_>>();
        let of =
            |of: &crate::Kind| policy::definition(*of).is_some_and(|d| d.kind == kind && version.starts_with(d.group));
        if let Some(kind) = policy::KINDS.into_iter().find(of) {
            let refused = policy::read(kind, object).unwrap_err();
            assert_eq!(refused.iter().map(ToString::to_string).collect::<Vec<_>>(), told);
        }
        told.join(" | ")
    }

    /// Serde reads a list as an object by the order of its fields.
    #[test]
    fn a_list_is_no_object() {
        let server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "a"});
        let service = json!([{"group": "", "kind": "Service", "name": "a"}]);
        let backends = json!([{"name": "a", "port": 1, "filters": [{"type": "URLRewrite",
            "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}]}]);
        let modifier = json!({"set": [{"name": "a", "value": "b"}]});
        let condition = json!({"not": {"any": [{"method": "GET"}, {"all": [{"pathRegex": "/a"}]}]}});
        let class = json!({"condition": {"not": {"any": [{"status": {"min": 500, "max": 599}}]}}, "isFailure": true});
        let policy = "policy.linkerd.io/v1alpha1";
        let gateway_api = "gateway.networking.k8s.io/v1";
        for (version, kind, spec) in [
            (
                policy,
                "Server",
                json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}, "port": 1}),
            ),
            (
                policy,
                "ServerAuthorization",
                json!({"server": {"name": "a"}, "client": {"networks": [{"cidr": "10.0.0.0/8"}],
                "meshTLS": {"serviceAccounts": [{"name": "a"}]}}}),
            ),
            (
                policy,
                "AuthorizationPolicy",
                json!({"targetRef": server, "requiredAuthenticationRefs": [
                {"group": "policy.linkerd.io", "kind": "NetworkAuthentication", "name": "a"}]}),
            ),
            (policy, "MeshTLSAuthentication", json!({"identityRefs": [{"kind": "ServiceAccount", "name": "a"}]})),
            (policy, "NetworkAuthentication", json!({"networks": [{"cidr": "10.0.0.0/8"}]})),
            (policy, "EgressNetwork", json!({"trafficPolicy": "Deny", "networks": [{"cidr": "192.0.2.0/24"}]})),
            (
                policy,
                "HTTPLocalRateLimitPolicy",
                json!({"targetRef": server, "total": {"requestsPerSecond": 9},
                "identity": {"requestsPerSecond": 5}, "overrides": [{"requestsPerSecond": 6,
                    "clientRefs": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}]}]}),
            ),
            (
                "policy.linkerd.io/v1beta3",
                "HTTPRoute",
                json!({"parentRefs": [server], "rules": [{"matches": [{"path": {"value": "/"}}]}]}),
            ),
            (
                gateway_api,
                "HTTPRoute",
                json!({"parentRefs": service, "rules": [
                {"matches": [{"path": {"value": "/"}, "headers": [{"name": "a", "value": "b"}], "queryParams": [{"name": "a", "value": "b"}]}],
                 "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": modifier},
                    {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "a", "port": 1}, "fraction": {"numerator": 1}}}],
                 "timeouts": {"request": "1s"}, "backendRefs": backends},
                {"filters": [{"type": "RequestRedirect", "requestRedirect": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/"}}}]}]}),
            ),
            (
                gateway_api,
                "GRPCRoute",
                json!({"parentRefs": service, "rules": [{"matches": [{"method": {"service": "a"}}]}]}),
            ),
            (
                gateway_api,
                "TLSRoute",
                json!({"parentRefs": service, "hostnames": ["a.b"], "rules": [{"backendRefs": [{"name": "a", "port": 1}]}]}),
            ),
            (
                gateway_api,
                "TCPRoute",
                json!({"parentRefs": service, "rules": [{"backendRefs": [{"name": "a", "port": 1}]}]}),
            ),
            (
                "linkerd.io/v1alpha2",
                "ServiceProfile",
                json!({"routes": [{"name": "a", "condition": condition, "responseClasses": [class]}],
                "retryBudget": {"retryRatio": 0.1, "minRetriesPerSecond": 1, "ttl": "10s"},
                "dstOverrides": [{"authority": "a.default.svc.cluster.local", "weight": 1}]}),
            ),
            (
                "workload.linkerd.io/v1beta1",
                "ExternalWorkload",
                json!({"meshTLS": {"identity": "spiffe://a.b/c", "serverName": "a.b"},
                "ports": [{"port": 1}], "workloadIPs": [{"ip": "192.0.2.1"}]}),
            ),
        ] {
            let (group, _) = version.split_once('/').unwrap();
            let is = |of: &crate::Kind| policy::definition(*of).is_some_and(|d| (d.group, d.kind) == (group, kind));
            let of = policy::KINDS.into_iter().find(is).unwrap();
            let name = if kind == "ServiceProfile" { "a.default.svc.cluster.local" } else { "a" };
            let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec});
            policy::read(of, object.clone()).unwrap_or_else(|wrong| panic!("{object}: {wrong:?}"));
            let mut objects = vec![];
            objects_in(&spec, "/spec", &mut objects);
            for at in objects {
                let field = at.split('/').skip(1).fold(String::new(), |path, step| match step.parse::<usize>() {
                    Ok(index) => format!("{path}[{index}]"),
                    Err(_) if path.is_empty() => step.to_owned(),
                    Err(_) => format!("{path}.{step}"),
                });
                let mut list = object.clone();
                let place = list.pointer_mut(&at).unwrap();
                let values: Vec<Value> = place.as_object().unwrap().values().cloned().collect();
                for written in [json!([]), json!(values)] {
                    *list.pointer_mut(&at).unwrap() = written;
                    // A route without parents is somebody else's.
                    if at.starts_with("/spec/parentRefs")
                        || at == "/spec" && kind.ends_with("Route") && version == gateway_api
                    {
                        continue;
                    }
                    let wrong = policy::read(of, list.clone()).expect_err(&list.to_string());
                    let [wrong] = wrong.as_slice() else { panic!("{list}: {wrong:?}") };
                    assert!(wrong.field.starts_with(&field), "{list}: {wrong}");
                    if list.pointer(&at) == Some(&json!([])) {
                        assert!(
                            wrong.to_string().starts_with(&format!("{field}: it is a list; give an object")),
                            "{wrong}"
                        );
                    }
                    if of != crate::Kind::ExternalWorkload {
                        let loaded = manifest::load_text(Path::new("m.yaml"), &list.to_string());
                        assert!(
                            loaded.objects.is_empty() && loaded.problems.iter().any(|p| p.field == wrong.field),
                            "{list}"
                        );
                    }
                }
            }
        }
    }

    /// Where objects are in `value`, which is at `at`.
    fn objects_in(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.push(at.to_owned());
                fields.iter().for_each(|(name, value)| objects_in(value, &format!("{at}/{name}"), found));
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(i, value)| objects_in(value, &format!("{at}/{i}"), found));
            }
            _ => {}
        }
    }

    #[test]
    fn what_is_wanted_is_said_in_kubernetes_words() {
        let policy = "policy.linkerd.io/v1alpha1";
        for (kind, spec, says) in [
            ("EgressNetwork", json!({}), "spec.trafficPolicy: it is missing; give one of Allow, Deny"),
            (
                "EgressNetwork",
                json!({"trafficPolicy": 1}),
                "spec.trafficPolicy: it is the number 1; give one of Allow, Deny",
            ),
            (
                "EgressNetwork",
                json!({"trafficPolicy": "Deny", "networks": ["10.0.0.0/8"]}),
                "spec.networks[0]: it is the text \"10.0.0.0/8\"; give an object with the fields cidr, except",
            ),
            (
                "AuthorizationPolicy",
                json!({"targetRef": {"kind": "Namespace", "name": "default"}}),
                "spec.requiredAuthenticationRefs: it is missing; give a list, each element an object with the fields group, kind, name, namespace",
            ),
            (
                "HTTPLocalRateLimitPolicy",
                json!({"targetRef": {"kind": "Server", "name": "a"}, "total": {"requestsPerSecond": "5"}}),
                "spec.total.requestsPerSecond: it is the text \"5\"; give a whole number, at least 0",
            ),
            (
                "NetworkAuthentication",
                json!({"networks": {}}),
                "spec.networks: it is an object; give a list, each element an object with the fields cidr, except",
            ),
        ] {
            assert_eq!(told(policy, kind, spec), says);
        }
        let parent = json!([{"group": "", "kind": "Service", "name": "a"}]);
        let route = |rule: Value| json!({"parentRefs": parent, "rules": [rule]});
        for (spec, says) in [
            (route(json!({"timeouts": "1s"})), "spec.rules[0].timeouts: it is the text \"1s\"; give an object"),
            (route(json!({"matches": {}})), "spec.rules[0].matches: it is an object; give a list"),
            (
                route(json!({"matches": [{"method": 1}]})),
                "spec.rules[0].matches[0].method: it is the number 1; put the value in quotes",
            ),
            (
                route(json!({"backendRefs": [{"name": "a", "port": 70_000}]})),
                "spec.rules[0].backendRefs[0].port: it is the number 70000; give a whole number from 0 to 65535",
            ),
            (
                route(json!({"matches": [{"headers": [{"name": "a"}]}]})),
                "spec.rules[0].matches[0].headers[0].value: it is missing; give it",
            ),
        ] {
            assert_eq!(told("gateway.networking.k8s.io/v1", "HTTPRoute", spec), says);
        }
        let ports = |ports: Value| told("v1", "Service", json!({"ports": ports}));
        assert_eq!(
            ports(json!([{"port": "eighty"}])),
            "spec.ports[0].port: it is the text \"eighty\"; give a whole number"
        );
        assert!(
            ports(json!(["80"])).starts_with("spec.ports[0]: it is the text \"80\"; give an object with the fields ")
        );
        assert_eq!(
            told("v1", "Service", json!({"selector": {"app": true}})),
            "spec.selector.app: it is true; put the value in quotes"
        );
    }
}
