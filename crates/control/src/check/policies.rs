//! Whether what people say of who may call whom, and of how traffic behaves, can be carried out.

use super::{Failed, Run, remedy::mended, table};
use serde_json::Value;
use std::ops::ControlFlow;
use weft_cluster::{
    Kind, Object, can,
    index::Settings,
    kubernetes::Cluster,
    policy::{self, KINDS},
};

pub(super) async fn carried_out(run: &mut Run<'_>, cluster: &Cluster) -> ControlFlow<()> {
    run.line(&table::QUARANTINED, async || quarantined(cluster).await).await
}

async fn quarantined(cluster: &Cluster) -> Result<(), Failed> {
    let (mut wrong, mut read) = (vec![], vec![]);
    for kind in KINDS {
        for object in cluster.policies(kind).await? {
            let name = |object: &Value, key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
            let (namespace, name) = (name(&object, "namespace"), name(&object, "name"));
            let of = format!("{} {namespace}/{name}", kind.as_str());
            let mistakes = match policy::read(kind, object) {
                Ok(object) => {
                    let mistakes = policy::said_in_vain(&object);
                    read.push(object);
                    mistakes
                }
                Err(mistakes) => mistakes,
            };
            if !mistakes.is_empty() {
                let edit = edit(&policy::resource(kind), &namespace, &name);
                wrong.push((format!("{of}: {}", policy::told(&mistakes)), edit));
            }
        }
    }
    for ((namespace, name), absent) in can::of_objects(read, Settings::default()).in_vain() {
        let of = format!("{} {namespace}/{name}", Kind::AuthorizationPolicy.as_str());
        let edit = edit(&policy::resource(Kind::AuthorizationPolicy), namespace, name);
        wrong.push((format!("{of}: {absent}, which it names, is not there or cannot be carried out"), edit));
    }
    for service in cluster.services().await? {
        let object = Object::Service(Box::new(service));
        let mistakes = policy::said_in_vain(&object);
        if !mistakes.is_empty() {
            let key = object.key();
            wrong.push((format!("{key}: {}", policy::told(&mistakes)), edit("services", &key.namespace, &key.name)));
        }
    }
    mended(wrong)
}

/// What has no effect is corrected, or deleted.
fn edit(resource: &str, namespace: &str, name: &str) -> String {
    format!("kubectl -n {namespace} edit {resource}/{name}")
}
