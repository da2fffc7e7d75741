//! Values of Linkerd's charts that weft does not carry out, and what to use instead.

use super::layer::{Problem, problem, remove};
use serde_json::Value;

/// A value that only its harmless setting is accepted of.
#[derive(Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) path: &'static str,
    /// JSON, of a list each of its values, of a map each entry by itself; where nothing is asked for (`""`, `[]`, `{}`) it is accepted
    /// anyway.
    pub(crate) accepted: &'static str,
    pub(crate) remedy: &'static str,
}

const IF_FALSE: &str = "false";
const IF_TRUE: &str = "true";
/// Linkerd's default asks for something, and is no wish of whoever carries all defaults over.
const EITHER: &str = "[true,false]";
const IF_EMPTY: &str = "null";
const IF_DEFAULT_RATE: &str = r#"{"clientQPS":100,"clientBurst":200}"#;
const IF_DEFAULT_PROBE: &str = r#"{"timeoutSeconds":1}"#;
/// Of Linkerd's `values-ha.yaml`.
const IF_AVAILABLE: &str = r#"{"cpu":{"request":"100m"},"memory":{"limit":"250Mi","request":"50Mi"}}"#;
const IF_DEFAULT_VALIDATOR: &str = r#"{
    "logLevel":"debug","logFormat":"plain","timeout":"10s","enableSecurityContext":true,
    "securityContext":{
        "allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,
        "runAsGroup":65534,"runAsNonRoot":true,"runAsUser":65534,"seccompProfile":{"type":"RuntimeDefault"}
    }
}"#;

const fn refused(path: &'static str, accepted: &'static str, remedy: &'static str) -> Refused {
    Refused { path, accepted, remedy }
}

const NO_CALL: &str = "remove it: weft never calls out, so there is no heartbeat";
const CNI: &str = "remove it: weft has no CNI plugin yet, and linkerd-init makes the redirection";
const ONE_PROCESS: &str = "use the values of destinationController and destinationResources: policy and validators are part of \
                           the container destination";
const FAIRNESS: &str = "remove it: the API server's priority and fairness bounds its clients";
const NO_PSP: &str = "remove it: Kubernetes has no PodSecurityPolicy any more; label namespaces for Pod Security";
const TOKEN: &str = "remove it: a token that is valid for every audience is no proof of identity";
const SLICES: &str = "remove it: weft reads EndpointSlices only";
const NO_PROFILER: &str = "remove it: there is no profiler to switch on";
const NO_TRACES: &str = "remove it: only proxies trace, see proxy.tracing";

pub(crate) const REFUSED: &[Refused] = &[
    refused("cniEnabled", IF_FALSE, CNI),
    refused("networkValidator", IF_DEFAULT_VALIDATOR, CNI),
    refused("disableHeartBeat", EITHER, NO_CALL),
    refused(
        "egress",
        r#"{"globalEgressNetworkNamespace":"linkerd-egress"}"#,
        "remove it: EgressNetworks that hold for every namespace stand in linkerd-egress, which cannot be another",
    ),
    refused("heartbeatSchedule", IF_EMPTY, NO_CALL),
    refused("heartbeatResources", IF_AVAILABLE, NO_CALL),
    refused("prometheusUrl", IF_EMPTY, NO_CALL),
    refused("enablePSP", IF_FALSE, NO_PSP),
    refused("enablePprof", IF_FALSE, NO_PROFILER),
    refused("enableEndpointSlices", IF_TRUE, SLICES),
    refused("identity.serviceAccountTokenProjection", IF_TRUE, TOKEN),
    refused("identity.kubeAPI", IF_DEFAULT_RATE, FAIRNESS),
    refused("kubeAPI", IF_DEFAULT_RATE, FAIRNESS),
    refused("controller.tracing", r#"{"enabled":false}"#, NO_TRACES),
    refused(
        "controllerResources",
        IF_AVAILABLE,
        "use destinationResources, identityResources and proxyInjectorResources",
    ),
    refused("policyController.logLevel", r#""info""#, "use controllerLogLevel"),
    refused("policyController.resources", IF_EMPTY, ONE_PROCESS),
    refused("policyController.livenessProbe", IF_DEFAULT_PROBE, ONE_PROCESS),
    refused("policyController.readinessProbe", IF_DEFAULT_PROBE, ONE_PROCESS),
    refused("policyController.additionalArgs", IF_EMPTY, "use destinationController.additionalArgs"),
    refused("policyController.experimentalArgs", IF_EMPTY, "use destinationController.additionalArgs"),
    refused(
        "spValidator",
        r#"{"livenessProbe":{"timeoutSeconds":1},"readinessProbe":{"timeoutSeconds":1}}"#,
        ONE_PROCESS,
    ),
    refused("spValidatorResources", IF_AVAILABLE, ONE_PROCESS),
    refused(
        "destinationController.meshedHttp2ClientProtobuf",
        r#"{"keep_alive":{"interval":{"seconds":10},"timeout":{"seconds":3},"while_idle":true}}"#,
        "remove it: weft's proxies have settings of their own for the connections among each other",
    ),
    refused(
        "proxy.outboundTransportMode",
        r#""transport-header""#,
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
        if asks(&value, &serde_json::from_str(accepted).unwrap_or_default()) {
            problems.push(problem(*path, format!("weft does not carry out {}", shown(&value)), *remedy));
        }
    }
    problems
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 60 { text } else { "this value".to_owned() }
}

/// Whether anything is asked for besides what is accepted.
fn asks(value: &Value, accepted: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) if text.is_empty() => false,
        Value::Array(items) if items.is_empty() => false,
        Value::Object(map) => map.iter().any(|(key, value)| asks(value, &accepted[key])),
        value => value != accepted && !accepted.as_array().is_some_and(|each| each.contains(value)),
    }
}
