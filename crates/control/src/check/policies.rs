//! Whether what people say of who may call whom, and of how traffic behaves, can be carried out.

use super::{Run, none, table, text};
use serde_json::Value;
use std::ops::ControlFlow;
use weft_cluster::{
    Object,
    kubernetes::Cluster,
    policy::{self, KINDS},
};

/// Objects that a message names.
const TOLD: usize = 5;

pub(super) async fn carried_out(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    run.line(&table::QUARANTINED, async || quarantined(cluster).await).await
}

async fn quarantined(cluster: &Cluster) -> Result<(), String> {
    let mut wrong = vec![];
    for kind in KINDS {
        for object in cluster.policies(kind).await.map_err(text)? {
            let name = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            let of = format!("{} {}/{}", kind.as_str(), name(&object, "namespace"), name(&object, "name"));
            let mistakes = match policy::read(kind, object) {
                Ok(object) => policy::said_in_vain(&object),
                Err(mistakes) => mistakes,
            };
            if !mistakes.is_empty() {
                wrong.push(format!("{of}: {}", policy::told(&mistakes)));
            }
        }
    }
    for service in cluster.services().await.map_err(text)? {
        let object = Object::Service(Box::new(service));
        let mistakes = policy::said_in_vain(&object);
        if !mistakes.is_empty() {
            wrong.push(format!("{}: {}", object.key(), policy::told(&mistakes)));
        }
    }
    let more = wrong.len().saturating_sub(TOLD);
    wrong.truncate(TOLD);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    none(wrong)
}
