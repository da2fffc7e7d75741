//! What the Gateway API's own definitions refuse of the fields that are acted on, beyond what cannot be carried out. On a cluster the API
//! server has refused it before anybody is asked; a manifest on disk has nobody else to say so.
//!
//! The definitions are those of the standard channel, v1.6. What one of its older versions or the other channel takes is taken.

use super::{GATEWAY_API, matching::is_token, shown};
use crate::{
    Kind, Object,
    object::{is_label, is_subdomain},
    policy::Mistake,
};
use serde_json::Value;
use std::{collections::HashSet, net::IpAddr};

/// Of all rules of a route together.
const MAX_ALL_MATCHES: usize = 128;
/// Filters that a list may have several of.
const REPEATED: [&str; 3] = ["RequestMirror", "ExtensionRef", "ExternalAuth"];
const OF_HTTP: [&str; 8] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "ExtensionRef",
    "CORS",
    "ExternalAuth",
];
const OF_GRPC: [&str; 4] = ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"];

/// What a text must be: the most letters, whether it fits, and what does.
struct Form(usize, fn(&str) -> bool, &'static str);

const HOST: Form = Form(253, is_host, "use lower-case letters, digits, '-' and '.', or *. and the end of a name");
const NAME: Form = Form(253, is_subdomain, "use lower-case letters, digits, '-' and '.', not at the ends");
const GROUP: Form = Form(253, |text| text.is_empty() || is_subdomain(text), NAME.2);
const KIND: Form = Form(63, is_kind, "use letters, digits and '-', beginning with a letter");
const NAMESPACE: Form = Form(63, is_label, "use lower-case letters, digits and '-', not at the ends, or leave it out");
const REFERRED: Form = Form(253, is_something, "give a name");
const TOKEN: Form = Form(256, is_token, "use letters, digits and '-'");
const VALUE: Form = Form(4096, is_something, "give a value");
const PARAMETER: Form = Form(1024, is_something, "give a value");
const DURATION: Form =
    Form(24, is_duration, "use whole numbers of up to 5 digits with h, m, s or ms, such as 300ms or 1h30m");
const SERVICE: Form = Form(1024, is_service, "use names of letters, digits and '_', joined by '.'");
const METHOD: Form = Form(1024, is_method, "use letters, digits and '_', beginning with no digit");

const REFERENCE: [(&str, Form); 4] = [("group", GROUP), ("kind", KIND), ("namespace", NAMESPACE), ("name", REFERRED)];
const OF_RULES: [(&str, Form); 8] = [
    ("matches[].headers[].name", TOKEN),
    ("matches[].headers[].value", VALUE),
    ("matches[].queryParams[].name", TOKEN),
    ("matches[].queryParams[].value", PARAMETER),
    ("matches[].method.service", SERVICE),
    ("matches[].method.method", METHOD),
    ("timeouts.request", DURATION),
    ("timeouts.backendRequest", DURATION),
];
const OF_MODIFIERS: [(&str, Form); 4] =
    [("set[].name", TOKEN), ("set[].value", VALUE), ("add[].name", TOKEN), ("add[].value", VALUE)];

/// What the definition of its kind refuses of a route of the Gateway API.
pub(crate) fn refused(object: &Object) -> Vec<Mistake> {
    let (version, spec) = match object {
        Object::HttpRoute(o) => (&o.api_version, serde_json::to_value(&o.spec)),
        Object::GrpcRoute(o) => (&o.api_version, serde_json::to_value(&o.spec)),
        Object::TlsRoute(o) => (&o.api_version, serde_json::to_value(&o.spec)),
        Object::TcpRoute(o) => (&o.api_version, serde_json::to_value(&o.spec)),
        _ => return vec![],
    };
    let (kind, spec) = (object.key().kind, spec.unwrap_or_default());
    let mut wrong = Wrong(vec![]);
    wrong.forms(&spec, "spec", &[("hostnames[]", HOST), ("parentRefs[].sectionName", NAME)]);
    for (at, parent) in each(&spec, "spec", "parentRefs[]") {
        wrong.forms(parent, &at, &REFERENCE);
    }
    wrong.parents(&each(&spec, "spec", "parentRefs[]"));
    let rules = each(&spec, "spec", "rules[]");
    for (at, rule) in &rules {
        wrong.forms(rule, at, &OF_RULES);
        let backends = each(rule, at, "backendRefs[]");
        for (at, backend) in &backends {
            wrong.forms(backend, at, &REFERENCE);
            wrong.filters(kind, backend, at);
        }
        wrong.filters(kind, rule, at);
        match kind {
            Kind::HttpRoute => wrong.http_rule(rule, at, &backends),
            Kind::GrpcRoute => wrong.methods(rule, at),
            _ if backends.is_empty() => {
                wrong.add(format!("{at}.backendRefs"), "the rule leads nowhere", "give a backend")
            }
            _ => {}
        }
    }
    if kind == Kind::HttpRoute && spec["rules"].is_array() && rules.is_empty() {
        wrong.add(
            "spec.rules",
            "it is empty",
            "give a rule, or leave the field out: then there is one for all requests",
        );
    }
    let matches = rules.iter().map(|(at, rule)| each(rule, at, "matches[]").len()).sum::<usize>();
    if matches > MAX_ALL_MATCHES {
        let remedy = format!("give at most {MAX_ALL_MATCHES}");
        wrong.add("spec.rules", format!("they have {matches} matches together"), remedy);
    }
    if kind == Kind::TlsRoute {
        wrong.names(&spec, version == &format!("{GATEWAY_API}/v1alpha2"));
    }
    wrong.0
}

struct Wrong(Vec<Mistake>);

impl Wrong {
    fn add(&mut self, at: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Mistake::new(at, message, remedy));
    }

    fn forms(&mut self, value: &Value, at: &str, forms: &[(&str, Form)]) {
        for (path, Form(most, fits, remedy)) in forms {
            for (at, value) in each(value, at, path) {
                let Some(text) = value.as_str() else { continue };
                if text.chars().count() > *most {
                    self.add(at, format!("it has more than {most} letters"), "shorten it");
                } else if !fits(text) {
                    self.add(at, format!("the Gateway API does not take {} here", shown(text)), *remedy);
                }
            }
        }
    }

    /// Values of which each may stand there once.
    fn twice(&mut self, values: Vec<(String, &Value)>, what: &str) {
        let mut seen = HashSet::new();
        for (at, _) in values.into_iter().filter(|(_, value)| !seen.insert(value.to_string())) {
            self.add(at, format!("{what} stands before it"), "remove one of them");
        }
    }

    /// Of references to one parent each has a section of its own, as the standard channel wants it, or a port, as the other one does.
    fn parents(&mut self, parents: &[(String, &Value)]) {
        let text = |parent: &Value, field: &str, other: &str| parent[field].as_str().unwrap_or(other).to_owned();
        let named = |parent: &Value| {
            let (group, kind) = (text(parent, "group", GATEWAY_API), text(parent, "kind", "Gateway"));
            (group, kind, text(parent, "namespace", ""), text(parent, "name", ""))
        };
        for (i, (at, parent)) in parents.iter().enumerate() {
            let alike = |(_, before): &&(String, &Value)| {
                let both = |field: &str| (&parent[field], &before[field]);
                let (sections, ports) = (both("sectionName"), both("port"));
                let own = |(one, other): (&Value, &Value)| !one.is_null() && !other.is_null() && one != other;
                let as_much = |(one, other): (&Value, &Value)| one.is_null() == other.is_null();
                let told_apart = own(sections) || as_much(sections) && own(ports);
                named(parent) == named(before) && !told_apart
            };
            if let Some((before, _)) = parents.iter().take(i).find(alike) {
                let message = format!("it is the parent of {before} again");
                self.add(at, message, "give each of them a port, or a sectionName, of its own, or remove one");
            }
        }
    }

    /// Those of a rule or of a backend, at `at`.
    fn filters(&mut self, kind: Kind, of: &Value, at: &str) {
        let types: &[_] = if kind == Kind::GrpcRoute { &OF_GRPC } else { &OF_HTTP };
        let filters = each(of, at, "filters[]");
        let once = filters.iter().map(|(at, filter)| (format!("{at}.type"), &filter["type"]));
        let once = once.filter(|(_, of)| !REPEATED.iter().any(|repeated| *of == repeated)).collect();
        self.twice(once, "a filter of this type");
        for (at, filter) in filters {
            if !types.iter().any(|of| filter["type"] == *of) {
                let message = format!("the kind has no filter of the type {}", filter["type"]);
                self.add(format!("{at}.type"), message, format!("use one of {}", types.join(", ")));
            }
            self.forms(filter, &at, &[("requestRedirect.hostname", NAME), ("urlRewrite.hostname", NAME)]);
            for (at, backend) in each(filter, &at, "requestMirror.backendRef") {
                self.forms(backend, &at, &REFERENCE);
            }
            for modifier in ["requestHeaderModifier", "responseHeaderModifier"] {
                for (at, modifier) in each(filter, &at, modifier) {
                    self.forms(modifier, &at, &OF_MODIFIERS);
                    for list in ["set[].name", "add[].name", "remove[]"] {
                        self.twice(each(modifier, &at, list), "the same name");
                    }
                }
            }
        }
    }

    fn http_rule(&mut self, rule: &Value, at: &str, backends: &[(String, &Value)]) {
        let filters = each(rule, at, "filters[]");
        if let Some((at, _)) = filters.iter().find(|(_, f)| !f["requestRedirect"].is_null() && !backends.is_empty()) {
            self.add(at, "what is answered with a redirect goes to no backend", "remove it, or backendRefs");
        }
        let of_backends = backends.iter().flat_map(|(at, backend)| each(backend, at, "filters[]"));
        let replaces = |filter: &Value| {
            ["requestRedirect", "urlRewrite"].iter().any(|of| !filter[of]["path"]["replacePrefixMatch"].is_null())
        };
        if filters.into_iter().chain(of_backends).any(|(_, filter)| replaces(filter))
            && let Some(matches) = rule["matches"].as_array().filter(|matches| matches.len() != 1)
        {
            let message = format!("the rule replaces the prefix of a path, and has {} matches", matches.len());
            self.add(format!("{at}.matches"), message, "give one, and each other a rule of its own");
        }
    }

    fn methods(&mut self, rule: &Value, at: &str) {
        for (at, method) in each(rule, at, "matches[].method") {
            if method["service"].is_null() && method["method"].is_null() {
                self.add(at, "it names no method", "give service, method or both, or remove it");
            }
        }
    }

    /// Names that clients ask for.
    fn names(&mut self, spec: &Value, may_be_none: bool) {
        let names = each(spec, "spec", "hostnames[]");
        if names.is_empty() && !may_be_none {
            self.add("spec.hostnames", "the route is for no name", "give at least one");
        }
        for (at, name) in names {
            if name.as_str().is_some_and(|name| name.parse::<IpAddr>().is_ok()) {
                self.add(at, "no client asks for an address by this way", "give a name");
            }
        }
    }
}

/// What stands at `path` below the value at `at`, with where; `[]` is each element of a list.
fn each<'v>(value: &'v Value, at: &str, path: &str) -> Vec<(String, &'v Value)> {
    let mut found = vec![(at.to_owned(), value)];
    for step in path.split('.') {
        let name = step.trim_end_matches("[]");
        let next = found.into_iter().filter_map(|(at, value)| Some((format!("{at}.{name}"), value.get(name)?)));
        let elements = |(at, list): (String, &'v Value)| {
            let list = list.as_array().into_iter().flatten().enumerate();
            list.map(move |(i, element)| (format!("{at}[{i}]"), element))
        };
        found = if step.ends_with("[]") { next.flat_map(elements).collect() } else { next.collect() };
    }
    found
}

fn is_something(text: &str) -> bool {
    !text.is_empty()
}

fn is_host(text: &str) -> bool {
    is_subdomain(text.strip_prefix("*.").unwrap_or(text))
}

fn is_kind(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_label(&text.to_ascii_lowercase())
}

fn is_service(text: &str) -> bool {
    text.strip_prefix('.').unwrap_or(text).split('.').all(is_method)
}

fn is_method(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| fits(c) && !c.is_ascii_digit()) && text.chars().all(fits)
}

/// Up to four numbers with their units.
fn is_duration(text: &str) -> bool {
    let (mut rest, mut parts) = (text, 0);
    while !rest.is_empty() {
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        let unit = ["ms", "h", "m", "s"].iter().find_map(|unit| behind.strip_prefix(unit));
        let (1..=5, Some(next)) = (rest.len() - behind.len(), unit) else { return false };
        (rest, parts) = (next, parts + 1);
    }
    (1..=4).contains(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manifest, policy::read};
    use serde_json::json;
    use std::path::Path;

    /// What is wrong on disk; on a cluster its API server has said so, and nobody says it again.
    fn told(kind: Kind, version: &str, mut spec: Value) -> Vec<String> {
        spec["parentRefs"] = match spec["parentRefs"].take() {
            Value::Null => json!([{"group": "", "kind": "Service", "name": "web"}]),
            parents => parents,
        };
        let object = json!({"apiVersion": format!("{GATEWAY_API}/{version}"), "kind": kind.as_str(),
            "metadata": {"name": "a", "namespace": "ns"}, "spec": spec});
        assert!(read(kind, object.clone()).is_ok(), "{object}");
        let loaded = manifest::load_text(Path::new("m.yaml"), &object.to_string());
        assert_eq!(loaded.objects.is_empty(), !loaded.problems.is_empty(), "{object}");
        loaded.problems.into_iter().map(|problem| problem.field).collect()
    }

    fn wrong(kind: Kind, field: &str, spec: Value) {
        assert_eq!(told(kind, "v1", spec.clone()), [field], "{spec}");
    }

    fn right(kind: Kind, spec: Value) {
        assert_eq!(told(kind, "v1", spec.clone()), [""; 0], "{spec}");
    }

    #[test]
    fn texts_on_disk_have_the_forms_of_the_definitions() {
        for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
            for host in ["A.com", "a.com.", "-a.com", "a_b.com", "*.A.com"] {
                wrong(kind, "spec.hostnames[0]", json!({"hostnames": [host]}));
            }
            right(kind, json!({"hostnames": ["a.com", "*.a.com", "10.0.0.1"]}));
            let parent = |field: &str, text: &str| {
                let mut parent = json!({"group": "", "kind": "Service", "name": "web"});
                parent[field] = json!(text);
                json!({"parentRefs": [parent]})
            };
            for (field, text) in
                [("namespace", "A"), ("sectionName", "A"), ("sectionName", ""), ("name", &"a".repeat(254))]
            {
                wrong(kind, &format!("spec.parentRefs[0].{field}"), parent(field, text));
            }
            right(kind, parent("name", &"a".repeat(253)));
        }
        let rule = |rule: Value| json!({"rules": [rule]});
        for text in ["1.5s", "100000s", "1us", "1h1m1s1ms1h", "1h 1m", "0", "µs"] {
            let Some(_) = weft_model::duration::parse_go(text) else { continue };
            wrong(Kind::HttpRoute, "spec.rules[0].timeouts.request", rule(json!({"timeouts": {"request": text}})));
            let backend = rule(json!({"timeouts": {"backendRequest": text}}));
            wrong(Kind::HttpRoute, "spec.rules[0].timeouts.backendRequest", backend);
        }
        for text in ["0s", "99999s", "1h1m1s1ms", "500ms"] {
            right(Kind::HttpRoute, rule(json!({"timeouts": {"request": text}})));
        }
        for (fields, field) in [
            (json!({"headers": [{"name": "a", "value": ""}]}), "headers[0].value"),
            (json!({"headers": [{"name": "a".repeat(257), "value": "a"}]}), "headers[0].name"),
            (json!({"queryParams": [{"name": "a b", "value": "a"}]}), "queryParams[0].name"),
            (json!({"queryParams": [{"name": "a", "value": "a".repeat(1025)}]}), "queryParams[0].value"),
        ] {
            wrong(Kind::HttpRoute, &format!("spec.rules[0].matches[0].{field}"), rule(json!({"matches": [fields]})));
        }
        for (backend, field) in [
            (json!({"name": "a", "port": 1, "namespace": "A"}), "namespace"),
            (json!({"name": "a", "group": "a b", "kind": "X"}), "group"),
            (json!({"name": "a", "group": "a", "kind": "1"}), "kind"),
        ] {
            wrong(
                Kind::TcpRoute,
                &format!("spec.rules[0].backendRefs[0].{field}"),
                rule(json!({"backendRefs": [backend]})),
            );
        }
    }

    #[test]
    fn methods_on_disk_are_those_of_the_definition() {
        let method = |method: Value| json!({"rules": [{"matches": [{"method": method}]}]});
        let at = "spec.rules[0].matches[0].method";
        for (written, field) in [
            (json!({}), ""),
            (json!({"type": "Exact"}), ""),
            (json!({"service": "a..b"}), ".service"),
            (json!({"service": "1a"}), ".service"),
            (json!({"service": ""}), ".service"),
            (json!({"method": "1a"}), ".method"),
        ] {
            wrong(Kind::GrpcRoute, &format!("{at}{field}"), method(written));
        }
        for written in [json!({"service": ".a.B_2"}), json!({"method": "_a1"}), json!({"service": "a", "method": "b"})]
        {
            right(Kind::GrpcRoute, method(written));
        }
    }

    #[test]
    fn lists_on_disk_are_those_of_the_definitions() {
        let backend = json!({"name": "a", "port": 1});
        let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}});
        let header =
            |field: &str, list: Value| json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {field: list}});
        let (set, a) = (header("set", json!([])), json!({"name": "a", "value": "a"}));
        let prefix = json!({"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}}});
        let path = |path: &str| json!({"path": {"value": path}});
        let many: Vec<Value> = (0..43).map(|i| path(&format!("/{i}"))).collect();
        for (rules, field) in [
            (json!([]), "spec.rules"),
            (json!([{"matches": many}, {"matches": many}, {"matches": many}]), "spec.rules"),
            (json!([{"filters": [redirect], "backendRefs": [backend]}]), "spec.rules[0].filters[0]"),
            (json!([{"filters": [set, set]}]), "spec.rules[0].filters[1].type"),
            (json!([{"filters": [redirect, redirect]}]), "spec.rules[0].filters[1].type"),
            (
                json!([{"filters": [header("add", json!([a, a]))]}]),
                "spec.rules[0].filters[0].requestHeaderModifier.add[1].name",
            ),
            (
                json!([{"filters": [header("remove", json!(["a", "a"]))]}]),
                "spec.rules[0].filters[0].requestHeaderModifier.remove[1]",
            ),
            (
                json!([{"filters": [header("set", json!([{"name": "a", "value": ""}]))]}]),
                "spec.rules[0].filters[0].requestHeaderModifier.set[0].value",
            ),
            (json!([{"filters": [{"type": "Later"}]}]), "spec.rules[0].filters[0].type"),
            (json!([{"filters": [prefix], "matches": [path("/a"), path("/b")]}]), "spec.rules[0].matches"),
        ] {
            wrong(Kind::HttpRoute, field, json!({"rules": rules}));
        }
        let hostname = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "A.com"}});
        wrong(
            Kind::HttpRoute,
            "spec.rules[0].filters[0].urlRewrite.hostname",
            json!({"rules": [{"filters": [hostname]}]}),
        );
        wrong(
            Kind::GrpcRoute,
            "spec.rules[0].filters[0].type",
            json!({"rules": [{"filters": [{"type": "CORS", "cors": {}}]}]}),
        );
        for rule in [
            json!({"filters": [redirect, set]}),
            json!({"filters": [prefix]}),
            json!({"filters": [prefix], "matches": [path("/a")]}),
            json!({"filters": [header("set", json!([a])), {"type": "CORS", "cors": {}}], "backendRefs": [backend]}),
        ] {
            right(Kind::HttpRoute, json!({"rules": [rule]}));
        }
        let parent = json!({"group": "", "kind": "Service", "name": "web"});
        let with = |more: Value| {
            let mut parent = parent.clone();
            more.as_object().unwrap().iter().for_each(|(field, value)| parent[field] = value.clone());
            parent
        };
        let port = |port: u16| with(json!({"port": port}));
        let section = |name: &str, port: u16| with(json!({"sectionName": name, "port": port}));
        for (one, other) in [
            (parent.clone(), parent.clone()),
            (parent.clone(), port(80)),
            (port(80), port(80)),
            (port(80), with(json!({"sectionName": "a"}))),
            (section("a", 80), section("a", 80)),
            (section("a", 80), port(81)),
        ] {
            wrong(Kind::HttpRoute, "spec.parentRefs[1]", json!({"parentRefs": [one, other]}));
        }
        for (one, other) in [
            (port(80), port(81)),
            (section("a", 80), section("b", 80)),
            (section("a", 80), section("a", 81)),
            (with(json!({"sectionName": "a"})), section("b", 80)),
            (parent.clone(), with(json!({"namespace": "other"}))),
            (parent.clone(), with(json!({"name": "other", "port": 80}))),
        ] {
            right(Kind::HttpRoute, json!({"parentRefs": [one, other]}));
        }
        // A connection goes somewhere, and by a name.
        let (rule, names) = (json!([{"backendRefs": [backend]}]), json!(["a.com"]));
        wrong(Kind::TcpRoute, "spec.rules[0].backendRefs", json!({"rules": [{}]}));
        right(Kind::TcpRoute, json!({"rules": rule}));
        wrong(Kind::TlsRoute, "spec.hostnames", json!({"rules": rule}));
        wrong(Kind::TlsRoute, "spec.hostnames[0]", json!({"hostnames": ["10.0.0.1"], "rules": rule}));
        wrong(Kind::TlsRoute, "spec.rules[0].backendRefs", json!({"hostnames": names, "rules": [{"backendRefs": []}]}));
        right(Kind::TlsRoute, json!({"hostnames": vec!["a.com"; 1024], "rules": rule}));
        assert_eq!(told(Kind::TlsRoute, "v1alpha2", json!({"rules": rule})), [""; 0]);
    }
}
