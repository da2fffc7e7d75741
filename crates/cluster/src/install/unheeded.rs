//! What this version does not carry out of the mesh's own kinds. Such an object would look as if it held, and a policy that does nothing
//! lets everybody in: commands refuse a cluster that has some already.

use crate::{
    kubernetes::{Cluster, Error},
    policy,
};
use serde_json::Value;

/// Objects in a cluster that would not hold: kind, namespace and name.
///
/// # Errors
/// The API server does not tell all.
pub async fn unheeded(cluster: &Cluster) -> Result<Vec<String>, Error> {
    let mut found = vec![];
    let named = |kind: &str, object: &Value| {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        format!("{kind} {}/{}", text("namespace"), text("name"))
    };
    for kind in policy::KINDS {
        for object in cluster.policies(kind).await? {
            let name = named(kind.as_str(), &object);
            found.extend(policy::read(kind, object).is_err().then_some(name));
        }
    }
    Ok(found)
}
