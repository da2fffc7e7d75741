//! The mesh's own kinds of objects, as Kubernetes is told of them: groups, names and versions are Linkerd's.
//!
//! Those of the Gateway API ([`gateway_api`]) come with them where values ask for them. Schemas are as lenient as Linkerd's: what a field may say is checked by admission and by the index, object by object.

mod gateway_api;
mod route;
mod schema;
mod server;
mod workload;

pub(crate) use gateway_api::{ROUTES, is_ours};

use crate::install::Meta;
use schema::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// One kind.
struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    versions: Vec<Version>,
}

struct Version {
    name: &'static str,
    /// The one in which objects are kept.
    storage: bool,
    deprecated: bool,
    /// Name, type, path.
    columns: &'static [(&'static str, &'static str, &'static str)],
    spec: Schema,
    /// `None` if nobody writes one.
    status: Option<Schema>,
}

impl Version {
    fn new(name: &'static str, spec: Schema) -> Self {
        Self { name, storage: false, deprecated: false, columns: &[], spec, status: None }
    }

    fn storage(mut self) -> Self {
        self.storage = true;
        self
    }

    fn deprecated(mut self) -> Self {
        self.deprecated = true;
        self
    }

    fn columns(mut self, columns: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        self.columns = columns;
        self
    }

    fn status(mut self, status: Schema) -> Self {
        self.status = Some(status);
        self
    }
}

const POLICY: &str = "policy.linkerd.io";

/// In the order of their names.
static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| {
    let mut kinds = server::kinds();
    kinds.extend(route::kinds());
    kinds.extend(workload::kinds());
    kinds.sort_by_key(|k| (k.plural, k.group));
    kinds
});

pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let own = KINDS.iter().map(|kind| definition(kind, meta));
    own.chain(gateway_api::all(meta)).collect()
}

/// What may stand in `spec`, by the versions of a kind, the newest first. Empty for a kind that is not installed by us.
pub(crate) fn specs(group: &str, kind: &str) -> impl Iterator<Item = (&'static str, &'static Value)> {
    let of = KINDS.iter().find(|k| k.group == group && k.kind == kind);
    of.into_iter().flat_map(|of| of.versions.iter().rev()).map(|version| (version.name, version.spec.value()))
}

/// What a kind is called besides; nothing for one that is not installed by us.
pub(crate) fn short_names(group: &str, kind: &str) -> &'static [&'static str] {
    KINDS.iter().find(|k| k.group == group && k.kind == kind).map_or(&[], |of| of.short)
}

fn definition(kind: &Kind, meta: &Meta<'_>) -> Value {
    let Kind { group, kind, plural, short, versions } = kind;
    let mut names = json!({ "kind": kind, "plural": plural, "singular": kind.to_lowercase() });
    if !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": meta.of_the_cluster(&format!("{plural}.{group}"), None),
        "spec": {
            "group": group,
            "names": names,
            "scope": "Namespaced",
            "versions": versions.iter().map(version).collect::<Vec<_>>(),
        },
    });
    definition["metadata"]["labels"] = labels(meta);
    definition
}

/// What stands in the cluster for good is not of one release.
fn labels(meta: &Meta<'_>) -> Value {
    json!({ crate::label::CONTROL_NAMESPACE: meta.namespace })
}

fn version(version: &Version) -> Value {
    let Version { name, storage, deprecated, columns, spec, status } = version;
    let mut properties = vec![
        ("apiVersion", Schema::text()),
        ("kind", Schema::text()),
        ("metadata", Schema::object([])),
        ("spec", spec.clone()),
    ];
    properties.extend(status.clone().map(|status| ("status", status)));
    let mut out = json!({
        "name": name,
        "served": true,
        "storage": storage,
        "schema": { "openAPIV3Schema": Schema::object(properties).required(&["spec"]) },
    });
    if *deprecated {
        out["deprecated"] = json!(true);
        out["deprecationWarning"] = json!(format!("{name} is deprecated: use the newest version"));
    }
    if status.is_some() {
        out["subresources"] = json!({ "status": {} });
    }
    if !columns.is_empty() {
        let columns = columns.iter().map(|(name, kind, path)| json!({ "name": name, "type": kind, "jsonPath": path }));
        out["additionalPrinterColumns"] = columns.collect();
    }
    out
}
