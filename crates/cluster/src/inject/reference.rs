//! The page about annotations, from the table that is read.

use super::table::{Mistake, TABLE, TRACE_ATTRIBUTE_PREFIX};
use std::fmt::Write;

/// Markdown.
pub fn reference() -> String {
    let mut out = String::from(
        "# Annotations\n\n\
         Generated from `crates/cluster/src/inject/table.rs`: do not edit.\n\n\
         `linkerd.io/inject` on a Namespace or a pod template says whether pods join the mesh: `enabled`, `ingress` (requests may\n\
         name their target) or `disabled`; a pod's own word beats its Namespace's.\n\n\
         The others configure the proxy. They stand on pod templates, and, where the table says so, on Namespaces, for all pods\n\
         that have not the same annotation themselves. A value that cannot be read is *refused*: the pod is not made; or\n\
         *ignored*: the default holds, and a warning and an Event say so. A key that is not listed is told in the same way.\n\n\
         | annotation | value | effect | on Namespaces | another value is | without Kubernetes |\n|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} | {} |",
            row.key,
            row.value,
            row.about,
            if row.inherited { "yes" } else { "no" },
            if row.mistake == Mistake::Refused { "refused" } else { "ignored" },
            if row.local { "yes" } else { "no effect" },
        );
    }
    let _ = writeln!(
        out,
        "\n`{TRACE_ATTRIBUTE_PREFIX}NAME: VALUE` on a pod template adds a resource attribute to its proxy's traces."
    );
    out
}
