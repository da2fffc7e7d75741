//! Pods that were to get a proxy and have none: they were made while the webhook was away, or before anybody asked.
//!
//! By the same rules as the webhook's, for what looks at pods afterwards.

use super::{
    PROXY,
    report::{Skip, asked, excused},
};
use crate::{label, object};
use k8s_openapi::api::core::v1::Pod;
use weft_model::names::annotation as names;

/// A pod without a proxy that could have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// What the pod says for itself.
    own: Option<String>,
}

impl Bare {
    /// `None` of a pod that has a proxy, can have none, or has ended.
    pub fn of(pod: &Pod) -> Option<Self> {
        excused(pod.spec.as_ref()?).next().is_none().then(|| Self::said(pod))?
    }

    /// The same of a pod that the injector takes for one with a proxy, by a container of that name which is not the mesh's.
    pub fn behind_a_namesake(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let mut containers = object::containers(spec);
        let is_meshed =
            pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(label::CONTROL_NAMESPACE));
        let is_taken_for_one = containers.any(|c| c.name == PROXY) && spec.host_network != Some(true);
        (is_taken_for_one && !is_meshed).then(|| Self::said(pod))?
    }

    fn said(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let of_the_control_plane = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(label::COMPONENT));
        let own = meta.annotations.as_ref().and_then(|a| a.get(names::INJECT)).cloned();
        (!matches!(phase, Some("Succeeded" | "Failed")) && !of_the_control_plane).then_some(Self { own })
    }

    /// Whether it was to get one, by what its namespace says.
    pub fn was_to_get_one(&self, namespace: Option<&str>) -> bool {
        asked(namespace, self.own.as_deref()).is_ok()
    }

    /// Whether its namespace says that it gets one, and the pod something that means nothing.
    pub fn is_misspelt(&self, namespace: Option<&str>) -> bool {
        let own = asked(namespace, self.own.as_deref());
        asked(namespace, None).is_ok() && own == Err(Skip::InvalidAtWorkload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn missed(pod: Value, namespace: Option<&str>) -> bool {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        Bare::of(&pod).is_some_and(|bare| bare.was_to_get_one(namespace))
    }

    #[test]
    fn who_was_to_get_a_proxy() {
        let pod = |annotations: Value, spec: Value| {
            let mut whole = json!({"containers": [{"name": "web"}]});
            whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            json!({"metadata": {"name": "a", "annotations": annotations}, "spec": whole, "status": {"phase": "Running"}})
        };
        let (enabled, disabled) = (json!({"linkerd.io/inject": "enabled"}), json!({"linkerd.io/inject": "disabled"}));
        assert!(missed(pod(json!({}), json!({})), Some("enabled")));
        assert!(missed(pod(enabled.clone(), json!({})), None));
        for (annotations, spec, namespace) in [
            (json!({}), json!({}), None),
            (disabled, json!({}), Some("enabled")),
            (json!({"linkerd.io/inject": "yes"}), json!({}), Some("enabled")),
            (enabled.clone(), json!({"hostNetwork": true}), None),
            (enabled.clone(), json!({"initContainers": [{"name": "linkerd-proxy"}]}), None),
            (enabled.clone(), json!({"containers": [{"name": "istio-proxy"}]}), None),
        ] {
            assert!(!missed(pod(annotations.clone(), spec.clone()), namespace), "{annotations} {spec} {namespace:?}");
        }
        let misspelt = |own: &str, namespace: &str| {
            let pod = serde_json::from_value(pod(json!({"linkerd.io/inject": own}), json!({}))).unwrap();
            Bare::of(&pod).is_some_and(|bare| bare.is_misspelt(Some(namespace)))
        };
        assert!(misspelt("yes", "enabled"));
        for (own, namespace) in [("enabled", "enabled"), ("disabled", "enabled"), ("yes", "disabled"), ("yes", "yes")] {
            assert!(!misspelt(own, namespace), "{own} {namespace}");
        }
        let namesake = |labels: Value, spec: Value| {
            let mut pod = pod(json!({}), spec);
            pod["metadata"]["labels"] = labels;
            Bare::behind_a_namesake(&serde_json::from_value(pod).unwrap()).is_some()
        };
        let named = json!({"containers": [{"name": "linkerd-proxy"}]});
        assert!(namesake(json!({}), named.clone()));
        assert!(!namesake(json!({"linkerd.io/control-plane-ns": "linkerd"}), named.clone()));
        assert!(!namesake(json!({"linkerd.io/control-plane-component": "identity"}), named));
        assert!(!namesake(json!({}), json!({})));
        let mut over = pod(enabled.clone(), json!({}));
        over["status"]["phase"] = json!("Succeeded");
        assert!(!missed(over, None));
        let mut own = pod(enabled, json!({}));
        own["metadata"]["labels"] = json!({"linkerd.io/control-plane-component": "identity"});
        assert!(!missed(own, None));
    }
}
