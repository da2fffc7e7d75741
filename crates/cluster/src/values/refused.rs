//! Values of Linkerd's charts that weft does not carry out, and what to use instead.

use super::layer::{Problem, problem, remove};
use serde_json::{Value, json};

/// A value that only its harmless setting is accepted of, if any.
struct Refused {
    path: &'static str,
    accepted: fn(&Value) -> bool,
    remedy: &'static str,
}

const IF_FALSE: fn(&Value) -> bool = |v| *v == Value::Bool(false);
const IF_TRUE: fn(&Value) -> bool = |v| *v == Value::Bool(true);
const IF_EMPTY: fn(&Value) -> bool = is_empty;

const fn refused(path: &'static str, accepted: fn(&Value) -> bool, remedy: &'static str) -> Refused {
    Refused { path, accepted, remedy }
}

const NO_CALL: &str = "remove it: weft never calls out, so there is no heartbeat";
const GATEWAY_API: &str =
    "remove it: weft does not install the definitions of the Gateway API, which are its own project's to install";
const CNI: &str = "remove it: weft has no CNI plugin yet, and linkerd-init makes the redirection";
const ONE_PROCESS: &str = "use the values of destinationController and destinationResources: policy and validators are part of \
                           the container destination";
const FAIRNESS: &str = "remove it: the API server's priority and fairness bounds its clients";
const NO_PSP: &str = "remove it: Kubernetes has no PodSecurityPolicy any more; label namespaces for Pod Security";
const TOKEN: &str = "remove it: a token that is valid for every audience is no proof of identity";
const SLICES: &str = "remove it: weft reads EndpointSlices only";
const NO_PROFILER: &str = "remove it: there is no profiler to switch on";
const NO_TRACES: &str = "remove it: only proxies trace, see proxy.tracing";

const REFUSED: &[Refused] = &[
    refused("installGatewayAPI", IF_FALSE, GATEWAY_API),
    refused("cniEnabled", IF_FALSE, CNI),
    refused("networkValidator", IF_EMPTY, CNI),
    refused("disableHeartBeat", IF_TRUE, NO_CALL),
    refused(
        "egress",
        |v| is_within(v, &json!({ "globalEgressNetworkNamespace": "linkerd-egress" })),
        "remove it: there are no EgressNetworks yet, so that traffic to addresses outside goes as it does without the mesh",
    ),
    refused("heartbeatSchedule", IF_EMPTY, NO_CALL),
    refused("heartbeatResources", IF_EMPTY, NO_CALL),
    refused("prometheusUrl", IF_EMPTY, NO_CALL),
    refused("enablePSP", IF_FALSE, NO_PSP),
    refused("enablePprof", IF_FALSE, NO_PROFILER),
    refused("enableEndpointSlices", IF_TRUE, SLICES),
    refused("identity.serviceAccountTokenProjection", IF_TRUE, TOKEN),
    refused("identity.kubeAPI", is_default_rate, FAIRNESS),
    refused("kubeAPI", is_default_rate, FAIRNESS),
    refused("controller.tracing", is_off, NO_TRACES),
    refused("controllerResources", IF_EMPTY, "use destinationResources, identityResources and proxyInjectorResources"),
    refused("policyController.logLevel", |v| *v == json!("info"), "use controllerLogLevel"),
    refused("policyController.resources", IF_EMPTY, ONE_PROCESS),
    refused("policyController.livenessProbe", is_default_probe, ONE_PROCESS),
    refused("policyController.readinessProbe", is_default_probe, ONE_PROCESS),
    refused("policyController.additionalArgs", IF_EMPTY, "use destinationController.additionalArgs"),
    refused("policyController.experimentalArgs", IF_EMPTY, "use destinationController.additionalArgs"),
    refused("spValidator", is_default_probes, ONE_PROCESS),
    refused("spValidatorResources", IF_EMPTY, ONE_PROCESS),
    refused(
        "destinationController.meshedHttp2ClientProtobuf",
        is_default_http2_client,
        "remove it: weft's proxies have settings of their own for the connections among each other",
    ),
    refused(
        "proxy.outboundTransportMode",
        |v| *v == json!("transport-header"),
        "remove it: connections between proxies always carry a transport header where the port is opaque",
    ),
];

/// Paths and remedies, in the order of the paths.
pub(super) fn all() -> Vec<(&'static str, &'static str)> {
    let mut all: Vec<_> = REFUSED.iter().map(|r| (r.path, r.remedy)).collect();
    all.sort_unstable();
    all
}

/// Takes what is refused out of the tree, and what is accepted because it changes nothing.
pub(super) fn take_out(given: &mut Value) -> Vec<Problem> {
    let mut problems = vec![];
    for Refused { path, accepted, remedy } in REFUSED {
        let Some(value) = remove(given, path) else { continue };
        if !value.is_null() && !accepted(&value) {
            problems.push(problem(*path, format!("weft does not carry out {}", shown(&value)), *remedy));
        }
    }
    problems
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 60 { text } else { "this value".to_owned() }
}

/// Whether nothing is asked for: `""`, `{}`, `[]`, and maps of those.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether every key has the value that it has by default in Linkerd's chart.
fn is_within(value: &Value, default: &Value) -> bool {
    match (value, default) {
        (Value::Object(value), Value::Object(default)) => {
            value.iter().all(|(k, v)| default.get(k).is_some_and(|d| is_within(v, d)))
        }
        (value, default) => value == default,
    }
}

fn is_default_rate(value: &Value) -> bool {
    is_within(value, &json!({ "clientQPS": 100, "clientBurst": 200 }))
}

fn is_default_probe(value: &Value) -> bool {
    is_within(value, &json!({ "timeoutSeconds": 1 }))
}

fn is_default_probes(value: &Value) -> bool {
    is_empty(value)
        || is_within(
            value,
            &json!({ "livenessProbe": { "timeoutSeconds": 1 }, "readinessProbe": { "timeoutSeconds": 1 } }),
        )
}

fn is_off(value: &Value) -> bool {
    is_within(value, &json!({ "enabled": false, "collector": { "endpoint": "" } }))
}

fn is_default_http2_client(value: &Value) -> bool {
    let default = json!({
        "keep_alive": { "interval": { "seconds": 10 }, "timeout": { "seconds": 3 }, "while_idle": true }
    });
    is_within(value, &default)
}
