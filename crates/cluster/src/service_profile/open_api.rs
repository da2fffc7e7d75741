//! From Swagger 2 to routes: one for each path and method.

use super::{NoProfile, Subject, quoted};
use crate::manifest;
use serde_json::{Map, Value, json};

/// In the order in which routes of a path stand.
const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// # Errors
/// The text is no Swagger 2, or says what a profile cannot.
pub fn open_api(text: &str, of: Subject<'_>) -> Result<Value, NoProfile> {
    let document = manifest::one_document(text).map_err(|unread| NoProfile::Unreadable {
        line: unread.line,
        message: unread.message,
        remedy: unread.remedy,
    })?;
    let invalid = |at: &str, message: &str| NoProfile::Invalid { at: at.to_owned(), message: message.to_owned() };
    if document.get("openapi").is_some() {
        return Err(invalid("openapi", "this is version 3, which is not read: convert it to Swagger 2 first"));
    }
    if document.get("swagger").is_none() {
        return Err(invalid("swagger", "it is missing: this is no Swagger 2"));
    }
    let base = document.get("basePath").and_then(Value::as_str).unwrap_or_default();
    let none = Map::new();
    let paths = match document.get("paths") {
        Some(Value::Object(paths)) => paths,
        None | Some(Value::Null) => &none,
        Some(_) => return Err(invalid("paths", "it is no map")),
    };
    let mut sorted: Vec<(&String, &Value)> = paths.iter().filter(|(path, _)| path.starts_with('/')).collect();
    sorted.sort_by_key(|(path, _)| *path);
    let mut routes = vec![];
    for (path, item) in sorted {
        let path = joined(base, path);
        for method in METHODS {
            if let Some(operation) = item.get(method).filter(|operation| operation.is_object()) {
                routes.push(route(&path, &method.to_uppercase(), operation)?);
            }
        }
    }
    Ok(of.object(routes))
}

fn joined(base: &str, path: &str) -> String {
    let base = base.trim_matches('/');
    if base.is_empty() { path.to_owned() } else { format!("/{base}{path}") }
}

fn route(path: &str, method: &str, operation: &Value) -> Result<Value, NoProfile> {
    let name = format!("{method} {path}");
    let invalid =
        |field: &str, message: &str| NoProfile::Invalid { at: format!("{name}: {field}"), message: message.to_owned() };
    let mut route = json!({ "name": name, "condition": { "method": method, "pathRegex": pattern(path) } });
    let mut statuses = vec![];
    for status in operation.get("responses").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        // `default` and extensions are no status.
        if let Ok(status) = status.parse::<u16>() {
            if !(100..=599).contains(&status) {
                return Err(invalid("responses", &format!("{status} is no status of HTTP")));
            }
            statuses.push(status);
        }
    }
    statuses.sort_unstable();
    let class = |status: u16| {
        let mut class = json!({ "condition": { "status": { "min": status, "max": status } } });
        if status >= 500 {
            class["isFailure"] = json!(true);
        }
        class
    };
    if !statuses.is_empty() {
        route["responseClasses"] = statuses.into_iter().map(class).collect();
    }
    match operation.get("x-linkerd-retryable") {
        None | Some(Value::Null | Value::Bool(false)) => {}
        Some(Value::Bool(true)) => route["isRetryable"] = json!(true),
        Some(_) => return Err(invalid("x-linkerd-retryable", "it is neither true nor false")),
    }
    match operation.get("x-linkerd-timeout") {
        None | Some(Value::Null) => {}
        Some(Value::String(timeout)) => route["timeout"] = json!(timeout),
        Some(_) => return Err(invalid("x-linkerd-timeout", "it is no duration such as 300ms")),
    }
    Ok(route)
}

/// A parameter is whatever stands between two slashes.
fn pattern(path: &str) -> String {
    let mut pattern = String::new();
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((_, behind)) = behind.split_once('}') else { break };
        pattern += &quoted(before);
        pattern += "[^/]*";
        rest = behind;
    }
    pattern + &quoted(rest)
}

#[cfg(test)]
mod tests {
    use super::super::tests::WEB;
    use super::*;

    #[test]
    fn each_path_and_method_becomes_a_route() {
        let text = "swagger: '2.0'\nbasePath: /v1/\npaths:\n  /books/{id}/x.{kind}:\n    put: {responses: {default: {}}}\n    get:\n      x-linkerd-retryable: true\n      \
                    x-linkerd-timeout: 300ms\n      responses: {'503': {}, '200': {}}\n  /a: {post: {}, parameters: []}\n  x-note: {get: {}}\n";
        let profile = open_api(text, WEB).unwrap();
        assert_eq!(profile["metadata"], json!({"name": "web.shop.svc.cluster.local", "namespace": "shop"}));
        let expected = json!([
            {"name": "POST /v1/a", "condition": {"method": "POST", "pathRegex": "/v1/a"}},
            {"name": "GET /v1/books/{id}/x.{kind}", "condition": {"method": "GET", "pathRegex": r"/v1/books/[^/]*/x\.[^/]*"},
                "responseClasses": [
                    {"condition": {"status": {"min": 200, "max": 200}}},
                    {"condition": {"status": {"min": 503, "max": 503}}, "isFailure": true},
                ],
                "isRetryable": true, "timeout": "300ms"},
            {"name": "PUT /v1/books/{id}/x.{kind}", "condition": {"method": "PUT", "pathRegex": r"/v1/books/[^/]*/x\.[^/]*"}},
        ]);
        assert_eq!(profile["spec"]["routes"], expected);
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        for (text, says) in [
            ("openapi: 3.0.0\npaths: {}\n", "openapi: this is version 3"),
            ("paths: {}\n", "swagger: it is missing"),
            ("swagger: '2.0'\npaths: []\n", "paths: it is no map"),
            ("swagger: '2.0'\npaths: {/a: {get: {responses: {'700': {}}}}}\n", "GET /a: responses: 700 is no status"),
            ("swagger: '2.0'\npaths: {/a: {get: {x-linkerd-retryable: 'yes'}}}\n", "GET /a: x-linkerd-retryable"),
            ("swagger: '2.0'\npaths: {/a: {get: {x-linkerd-timeout: 3}}}\n", "GET /a: x-linkerd-timeout"),
            ("swagger: [\n", "line "),
        ] {
            let told = open_api(text, WEB).unwrap_err().to_string();
            assert!(told.starts_with(says), "{told}");
        }
        assert_eq!(open_api("swagger: '2.0'\n", WEB).unwrap()["spec"]["routes"], json!([]));
        assert_eq!(pattern("/a{b"), r"/a\{b");
    }
}
