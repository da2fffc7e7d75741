//! What this version does not carry out of the mesh's own kinds, as a whole or in some of its fields. An object of such a kind would look as if it held, and a policy that
//! does nothing lets everybody in: the API server refuses whole kinds, by a rule that it evaluates itself, and commands refuse a cluster
//! that has some already.

use super::Meta;
use crate::{
    kubernetes::{Cluster, Error, Resource},
    policy,
};
use serde_json::{Value, json};

const NAME: &str = "linkerd-not-carried-out";
const KINDS: [Resource; 1] = [Resource::new("workload.linkerd.io", "v1beta1", "ExternalWorkload", "externalworkloads")];

/// The rule, and that it holds everywhere.
pub(super) fn all(meta: &Meta<'_>) -> Vec<Value> {
    let mut rules: Vec<Value> = vec![];
    for kind in KINDS {
        match rules.iter_mut().find(|rule| rule["apiGroups"] == json!([kind.group])) {
            Some(rule) => rule["resources"].as_array_mut().into_iter().for_each(|all| all.push(json!(kind.plural))),
            None => rules.push(json!({
                "apiGroups": [kind.group],
                "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"],
                "resources": [kind.plural],
            })),
        }
    }
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": meta.of_the_cluster(NAME, None),
            "spec": spec,
        })
    };
    let validation = json!({
        "expression": "false",
        "message": "this version of weft does not carry out objects of this kind: nothing that it says would hold",
    });
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": rules },
        "validations": [validation],
    });
    vec![
        object("ValidatingAdmissionPolicy", spec),
        object("ValidatingAdmissionPolicyBinding", json!({ "policyName": NAME, "validationActions": ["Deny"] })),
    ]
}

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
    for kind in KINDS {
        found.extend(cluster.objects(kind, "").await?.iter().map(|object| named(kind.kind, object)));
    }
    for kind in policy::KINDS {
        for object in cluster.policies(kind).await? {
            let name = named(kind.as_str(), &object);
            found.extend(policy::read(kind, object).is_err().then_some(name));
        }
    }
    Ok(found)
}
