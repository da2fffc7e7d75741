//! What would become of a pod that nobody has applied yet: whether the webhook would be asked, and what it would say.

use super::{Annotations, Around, Mesh, Owner, admit, names};
use crate::{object::namespace_of, policy::Selector, values::Values};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use serde_json::{Value, json};

/// The label of a namespace that every cluster gives it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Foretold {
    Injected(Box<Pod>),
    /// Neither the pod nor its namespace says whether it gets a proxy; this is what it would be with one.
    Unsaid(Box<Pod>),
    /// It stays as it is.
    Left,
    /// No such pod can be made.
    Refused,
}

/// `namespace`: the pod's, if that is known.
pub(crate) fn foretell(
    pod: &Pod,
    namespace: Option<&Namespace>,
    owner: Option<Owner<'_>>,
    values: &Values,
    control_namespace: &str,
) -> Foretold {
    let nothing = Annotations::new();
    let above = namespace.and_then(|namespace| namespace.metadata.annotations.as_ref()).unwrap_or(&nothing);
    let own = pod.metadata.annotations.as_ref().unwrap_or(&nothing);
    if !is_asked(&pod.metadata, namespace, values) {
        return Foretold::Left;
    }
    let mut object = json!(pod);
    let is_said = [own, above].iter().any(|of| of.get(names::INJECT).is_some_and(|mode| !mode.is_empty()));
    if !is_said && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        annotations[names::INJECT] = json!("enabled");
    }
    let around = Around { namespace: namespace_of(&pod.metadata), namespace_annotations: above, owner };
    let mesh = Mesh { values, namespace: control_namespace, anchors_pem: "", anchors_sha256: "" };
    match admit(&object, around, mesh) {
        Ok(outcome) if !outcome.report.is_injected() => Foretold::Left,
        Ok(outcome) => match serde_json::from_value(outcome.object) {
            Ok(pod) if is_said => Foretold::Injected(pod),
            Ok(pod) => Foretold::Unsaid(pod),
            Err(_) => Foretold::Refused,
        },
        Err(_) => Foretold::Refused,
    }
}

/// Whether the API server asks the webhook.
fn is_asked(pod: &ObjectMeta, namespace: Option<&Namespace>, values: &Values) -> bool {
    let selects = |selector: &LabelSelector, labels: &Annotations| {
        Selector::checked(selector, "").is_ok_and(|selector| selector.selects(labels))
    };
    let mut around = namespace.and_then(|namespace| namespace.metadata.labels.clone()).unwrap_or_default();
    around.insert(NAME_LABEL.to_owned(), namespace_of(pod).to_owned());
    let own = pod.labels.clone().unwrap_or_default();
    let of = &values.proxy_injector;
    selects(&of.namespace_selector, &around) && selects(&of.object_selector, &own)
}
