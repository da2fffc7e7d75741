//! Workloads outside the cluster.

use super::{Kind, Version, schema::Schema};

pub(super) fn kinds() -> Vec<Kind> {
    vec![external_workload()]
}

fn external_workload() -> Kind {
    const COLUMNS: &[(&str, &str, &str)] =
        &[("Identity", "string", ".spec.meshTLS.identity"), ("Age", "date", ".metadata.creationTimestamp")];
    const FIRST_COLUMNS: &[(&str, &str, &str)] =
        &[("Identity", "string", ".spec.meshTls.identity"), ("Age", "date", ".metadata.creationTimestamp")];
    Kind {
        group: "workload.linkerd.io",
        kind: "ExternalWorkload",
        plural: "externalworkloads",
        short: &[],
        versions: vec![
            Version::new("v1alpha1", spec("meshTls", 1)).columns(FIRST_COLUMNS).status(status()),
            Version::new("v1beta1", spec("meshTLS", 2)).storage().columns(COLUMNS).status(status()),
        ],
    }
}

fn spec(mesh_tls: &'static str, addresses: usize) -> Schema {
    let tls =
        Schema::object([("identity", Schema::text().length(1, 253)), ("serverName", Schema::text().length(1, 253))]);
    let port = Schema::object([
        ("name", Schema::text()),
        ("port", Schema::port()),
        ("protocol", Schema::text().default("TCP")),
    ]);
    let ip = Schema::object([("ip", Schema::text())]);
    Schema::object([
        (mesh_tls, tls.required(&["identity", "serverName"])),
        ("ports", Schema::list(port.required(&["port"]))),
        ("workloadIPs", Schema::list(ip).items(0, Some(addresses))),
    ])
    .required(&[mesh_tls])
}

fn status() -> Schema {
    let condition = Schema::object([
        ("type", Schema::text()),
        ("status", Schema::one_of(&["True", "False", "Unknown"])),
        ("reason", Schema::text()),
        ("message", Schema::text()),
        ("lastProbeTime", Schema::time()),
        ("lastTransitionTime", Schema::time()),
    ]);
    Schema::object([("conditions", Schema::list(condition.required(&["type", "status"])))])
}
