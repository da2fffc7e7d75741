//! What the API server sends to webhooks, or whoever reaches their ports: any JSON is answered, and a pod that is let in is patched so
//! that the patch leads to what is said to come of it.

use serde_json::{Value, json};
use std::{path::Path, sync::LazyLock};
use weft_cluster::{
    inject::{self, Annotations, Around, Mesh},
    manifest, policy, service_profile,
    values::Values,
};

/// Groups whose kinds are looked at.
const GROUPS: [&str; 4] = ["policy.linkerd.io", "gateway.networking.k8s.io", "workload.linkerd.io", ""];

pub(crate) fn run(data: &[u8]) {
    let Ok(object) = serde_json::from_slice::<Value>(data) else { return };
    policy::review(&object);
    let kind = &object["kind"];
    for group in GROUPS {
        policy::review(
            &json!({"kind": {"group": group, "version": "v1", "kind": kind}, "namespace": "ns", "object": object}),
        );
    }
    service_profile::mistakes(&object);
    static VALUES: LazyLock<Values> = LazyLock::new(Values::default);
    let mesh = Mesh { values: &VALUES, namespace: "linkerd", anchors_pem: "anchors", anchors_sha256: "5a" };
    let none = Annotations::new();
    let all = Annotations::from([("linkerd.io/inject".to_owned(), "enabled".to_owned())]);
    for namespace_annotations in [&none, &all] {
        if let Ok(outcome) =
            inject::admit(&object, Around { namespace: "ns", namespace_annotations, owner: None }, mesh)
        {
            assert_eq!(inject::apply(&object, &outcome.patch), outcome.object);
        }
    }
}

/// Manifests on disk: each place that something is said of is one of the text.
pub(crate) fn manifests(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let loaded = manifest::load_text(Path::new("a.yaml"), text);
    // To YAML a carriage return alone ends a line, too.
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();
    for problem in &loaded.problems {
        assert!(usize::try_from(problem.line).is_ok_and(|line| line <= lines + 1), "{problem:?}");
    }
}
