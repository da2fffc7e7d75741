//! What may stand at each value, for readers that do not know our types: the schema of the chart, and who makes its templates.
//!
//! What a default says by itself (a truth value, a number, a text) is not said again; only where it does not, a row stands here.

use super::Values;
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use weft_model::policy::inbound::DefaultPolicy;

/// What one value may be.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Flag,
    /// A truth value, or none.
    FlagOrNone,
    Text,
    /// One of these texts.
    Choice(Vec<&'static str>),
    /// A text that is a map in YAML.
    Yaml,
    Number,
    Port,
    /// A number of pods, or a share of them such as `25%`.
    Share,
    /// A whole number, or none.
    Count,
    /// A fraction, or none.
    Ratio,
    /// Any names, with texts.
    Texts,
    /// What a container may do, laid over what it may anyway.
    SecurityContext,
    TextList,
    /// A list of one of Kubernetes' own types, with its fields; the first is always given.
    Objects(&'static [&'static str]),
    /// A list of maps with these texts.
    Records(&'static [&'static str]),
    Resources,
    /// One of Kubernetes' own types, handed on as it is: an example of it with a text in one place, and its fields.
    Object(fn(&str) -> Value, &'static [&'static str]),
}

const PULL: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const CHOICES: &[(&str, &[&str])] = &[
    ("imagePullPolicy", &PULL),
    ("proxy.image.pullPolicy", &["Always", "IfNotPresent", "Never", ""]),
    ("debugContainer.image.pullPolicy", &["Always", "IfNotPresent", "Never", ""]),
    ("controllerLogFormat", &["plain", "json"]),
    ("webhookFailurePolicy", &["Ignore", "Fail"]),
    ("proxy.logFormat", &["plain", "json"]),
    ("proxy.logHTTPHeaders", &["off", "insecure", ""]),
    ("proxy.accessLog", &["", "apache", "json"]),
    ("identity.issuer.scheme", &["linkerd.io/tls", "kubernetes.io/tls"]),
    ("proxyInit.iptablesMode", &["nft", "legacy"]),
    ("proxyInit.logFormat", &["", "plain", "json"]),
    ("proxyInit.logLevel", &["", "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"]),
];

/// What is wanted at a path where objects of Kubernetes' own types stand, such as `tolerations` or `tolerations[0]`.
pub(super) fn wanted(path: &str) -> Option<String> {
    let list = path.strip_suffix(']').and_then(|path| path.rsplit_once('[')).map(|(list, _)| list);
    let (fields, is_list) = match told(list.unwrap_or(path))? {
        Kind::Objects(fields) | Kind::Records(fields) => (fields, true),
        Kind::Object(_, fields) => (fields, false),
        _ => return None,
    };
    let object = format!("an object with the fields {}", fields.join(", "));
    match (is_list, list) {
        (true, Some(_)) | (false, None) => Some(object),
        (true, None) => Some(format!("a list, each element {object}")),
        (false, Some(_)) => None,
    }
}

/// What a port may be.
pub(super) const PORTS: RangeInclusive<i64> = 1..=65535;

/// What a number may be: -1 is none where that is the default.
pub(super) fn bounds(path: &str, default: &Value) -> RangeInclusive<i64> {
    let most = i64::from(i32::MAX);
    match path {
        // Neither is root.
        "controllerUID" | "proxy.uid" => 1..=most,
        // So long the API server waits.
        "proxyInjector.timeoutSeconds" => 1..=30,
        _ if *default == json!(-1) => -1..=most,
        _ => 0..=most,
    }
}

/// Texts of which not every one is a value.
pub(super) fn choices() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let policies = ("proxy.defaultInboundPolicy", DefaultPolicy::ALL.map(DefaultPolicy::as_str).to_vec());
    CHOICES.iter().map(|(path, texts)| (*path, texts.to_vec())).chain([policies])
}

/// Texts that have a default, and may be empty all the same: the proxy's own default holds, or there is nothing to skip.
const MAY_BE_EMPTY: [&str; 9] = [
    "podMonitor.controller.namespaceSelector",
    "proxy.inboundConnectTimeout",
    "proxy.inboundDiscoveryCacheUnusedTimeout",
    "proxy.opaquePorts",
    "proxy.outboundConnectTimeout",
    "proxy.outboundDiscoveryCacheUnusedTimeout",
    "proxyInit.ignoreInboundPorts",
    "proxyInit.ignoreOutboundPorts",
    "proxyInit.kubeAPIServerPorts",
];

/// Whether a text may be empty.
pub(crate) fn may_be_empty(path: &str, default: &Value) -> bool {
    default == "" || MAY_BE_EMPTY.contains(&path)
}

/// Every value: its path, what it may be, and its default. In the order of the paths.
pub(crate) fn kinds() -> Vec<(String, Kind, Value)> {
    let mut found = vec![];
    walk("", &serde_json::to_value(Values::default()).unwrap_or_default(), &mut found);
    found
}

fn walk(path: &str, default: &Value, found: &mut Vec<(String, Kind, Value)>) {
    if let Some(kind) = told(path).or_else(|| seen(default)) {
        found.push((path.to_owned(), kind, default.clone()));
        return;
    }
    for (key, value) in default.as_object().into_iter().flatten() {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        walk(&below, value, found);
    }
}

/// From the default alone.
fn seen(default: &Value) -> Option<Kind> {
    match default {
        Value::Bool(_) => Some(Kind::Flag),
        Value::String(_) => Some(Kind::Text),
        Value::Number(_) => Some(Kind::Number),
        Value::Object(map) => map.is_empty().then_some(Kind::Texts),
        Value::Null | Value::Array(_) => None,
    }
}

fn told(path: &str) -> Option<Kind> {
    if let Some((_, texts)) = choices().find(|(choice, _)| *choice == path) {
        return Some(Kind::Choice(texts));
    }
    let last = path.rsplit('.').next().unwrap_or(path);
    Some(match path {
        "nodeSelector" | "proxy.tracing.labels" => Kind::Texts,
        "proxy.securityContext" => Kind::SecurityContext,
        "podMonitor.controller.namespaceSelector" => Kind::Yaml,
        "controller.podDisruptionBudget.maxUnavailable" => Kind::Share,
        "proxy.cores" | "proxy.runtime.workers.maximum" => Kind::Count,
        "proxy.runtime.workers.maximumCPURatio" => Kind::Ratio,
        "enableHttpRoutes" | "enableTcpRoutes" | "enableTlsRoutes" => Kind::FlagOrNone,
        "configReaders" => Kind::Records(&["name", "namespace"]),
        "tolerations" => Kind::Objects(&["key", "effect", "operator", "tolerationSeconds", "value"]),
        "imagePullSecrets" => Kind::Objects(&["name"]),
        "destinationController.additionalArgs" | "policyController.probeNetworks" => Kind::TextList,
        "deploymentStrategy" => Kind::Object(|text| json!({ "type": text }), &["rollingUpdate", "type"]),
        "nodeAffinity" => Kind::Object(
            |text| {
                let term = json!({ "matchExpressions": [{ "key": text, "operator": "Exists" }] });
                json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [term] } })
            },
            &["preferredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution"],
        ),
        "proxy.resources" => Kind::Resources,
        _ if path.starts_with("proxy.ports.") => Kind::Port,
        _ if last.ends_with("Resources") => Kind::Resources,
        _ if last == "additionalEnv" || last == "experimentalEnv" => Kind::Objects(&["name", "value", "valueFrom"]),
        _ if last == "namespaceSelector" || last == "objectSelector" => {
            let example = |text: &str| json!({ "matchExpressions": [{ "key": text, "operator": "Exists" }] });
            Kind::Object(example, &["matchExpressions", "matchLabels"])
        }
        _ => return None,
    })
}
