//! The page about values, from the tree that is read and the list of what is refused.

use super::{Values, refused};
use serde_json::Value;
use std::fmt::Write;

/// Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "# Values\n\n\
         Generated from `crates/cluster/src/values`: do not edit.\n\n\
         The values of an installation bear the names that Linkerd's charts give them. Maps are joined with the defaults, anything\n\
         else replaces them, and `null` is the default. What is not listed is refused with its path.\n\n\
         `installGatewayAPI` is of the definitions of kinds (`weft install --crds`, `weft upgrade --crds`, the chart `linkerd-crds`), which\n\
         then bring those of HTTPRoute, GRPCRoute, TLSRoute and TCPRoute of the Gateway API as well, in its channel standard.\n\
         `enableHttpRoutes` (GRPCRoutes too), `enableTcpRoutes` and `enableTlsRoutes` beat it for their own. Where the cluster has one that\n\
         weft has not brought, it is refused by name and nothing is replaced. The chart `linkerd-control-plane` takes these four and has\n\
         no use for them.\n\n\
         | value | default |\n|---|---|\n",
    );
    let mut tree = serde_json::to_value(Values::default()).unwrap_or_default();
    // Another one in every release.
    tree["linkerdVersion"] = Value::from("this release");
    rows(&tree, "", &mut out);
    out += "\n## Values that weft does not carry out\n\n\
            Their harmless settings are accepted, and Linkerd's defaults; any other is refused, by `weft install` and by Helm alike.\n\n\
            Helm makes no certificates of identity, and so wants `identityTrustAnchorsPEM` and, unless `identity.issuer.scheme` is\n\
            `kubernetes.io/tls`, `identity.issuer.tls.crtPEM` and `.keyPEM`. With `identity.externalCA` as well it wants neither: the\n\
            ConfigMap `linkerd-identity-trust-roots` is made by somebody else. It takes a default away by `null`, and the charts\n\
            refuse that, where for `weft install` it is the default. The charts look at types, bounds of numbers, choices, times,\n\
            filters of logs, images, names of classes and what does not go together; what another text has to say (networks, ports,\n\
            quantities, domains, labels, annotations, variables) is looked at by `weft install` alone.\n\n\
            | value of Linkerd's charts | instead |\n|---|---|\n";
    for (path, remedy) in refused::all() {
        let _ = writeln!(out, "| `{path}` | {remedy} |");
    }
    out
}

pub(crate) fn rows(value: &Value, path: &str, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                // Names with dots are quoted, so that each step can be told.
                let key = if key.contains(['.', '/']) { format!("\"{key}\"") } else { key.clone() };
                rows(value, &format!("{path}{}{key}", if path.is_empty() { "" } else { "." }), out);
            }
        }
        Value::Null => {
            let _ = writeln!(out, "| `{path}` | |");
        }
        other => {
            let _ = writeln!(out, "| `{path}` | `{}` |", other.to_string().replace('|', "\\|"));
        }
    }
}
