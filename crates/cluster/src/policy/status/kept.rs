//! What an API server keeps of an object beside what people write, for a mesh that has none: the generation, and the status.

use super::Patch;
use crate::Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Of an object of a kind whose status is written.
fn parts(object: &mut Object) -> Option<(&mut ObjectMeta, &mut Option<Value>)> {
    match object {
        Object::HttpLocalRateLimitPolicy(o) => Some((&mut o.metadata, &mut o.status)),
        Object::EgressNetwork(o) => Some((&mut o.metadata, &mut o.status)),
        Object::MeshHttpRoute(o) | Object::HttpRoute(o) => Some((&mut o.metadata, &mut o.status)),
        Object::GrpcRoute(o) => Some((&mut o.metadata, &mut o.status)),
        Object::TlsRoute(o) => Some((&mut o.metadata, &mut o.status)),
        Object::TcpRoute(o) => Some((&mut o.metadata, &mut o.status)),
        _ => None,
    }
}

/// `new` in place of `old`, if that was there: another generation where it says something else, and the status that was written.
pub fn replacing(old: Option<&Object>, mut new: Object) -> Object {
    let Some((metadata, status)) = parts(&mut new) else { return new };
    *status = None;
    let metadata = metadata.clone();
    let mut old = old.cloned();
    let kept = old.as_mut().and_then(parts).map(|(old, status)| {
        let generation = old.generation.unwrap_or_default();
        *old = metadata;
        (generation, status.take())
    });
    let is_same = old.as_ref() == Some(&new);
    let (generation, said) = kept.unwrap_or_default();
    if let Some((metadata, status)) = parts(&mut new) {
        metadata.generation = Some(if is_same { generation } else { generation.saturating_add(1) });
        *status = said;
    }
    new
}

/// The object with the status that is to be written there.
pub fn written(mut object: Object, patch: &Patch) -> Object {
    if let Some((_, status)) = parts(&mut object) {
        *status = Some(patch.body["status"].clone());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Event, Kind,
        index::Settings,
        policy::{self, status::Statuses},
    };
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    #[test]
    fn of_each_kind_that_has_a_status_it_is_kept() {
        for kind in policy::status::KINDS {
            let server = json!({"group": "policy.linkerd.io", "kind": "Server", "name": "a"});
            let service = json!({"group": "", "kind": "Service", "name": "a", "port": 80});
            let spec = match kind {
                Kind::EgressNetwork => json!({"trafficPolicy": "Deny"}),
                Kind::HttpLocalRateLimitPolicy => json!({"targetRef": server, "total": {"requestsPerSecond": 9}}),
                _ => json!({"parentRefs": [service], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}),
            };
            let object = json!({"metadata": {"name": "a", "namespace": "ns"}, "spec": spec});
            let mut object = policy::read(kind, object).unwrap_or_else(|wrong| panic!("{kind:?}: {wrong:?}"));
            assert!(parts(&mut object).is_some(), "{kind:?}");
        }
    }

    #[test]
    fn a_generation_is_counted_and_a_status_kept() {
        let route = |label: &str, server: &str| {
            let parent = json!({"group": "policy.linkerd.io", "kind": "Server", "name": server});
            let metadata = json!({"name": "a", "namespace": "ns", "labels": {"a": label}, "generation": 7});
            let route = json!({"metadata": metadata, "spec": {"parentRefs": [parent]}, "status": {"parents": []}});
            policy::read(Kind::MeshHttpRoute, route).unwrap()
        };
        let said = |object: &mut Object| {
            let (metadata, status) = parts(object).unwrap();
            let condition = status.as_ref().map(|status| status["parents"][0]["conditions"][0].clone());
            (metadata.generation, condition.map(|c| (c["observedGeneration"].clone(), c["lastTransitionTime"].clone())))
        };
        let mut first = replacing(None, route("a", "web"));
        assert_eq!(said(&mut first), (Some(1), None));
        let mut statuses = Statuses::new(Settings::default());
        let mut status = |object: Object| {
            statuses.apply(&Event::Apply(object.clone()));
            let patches = statuses.wanted(Timestamp::now());
            let object = written(object, &patches[0]);
            statuses.apply(&Event::Apply(object.clone()));
            assert_eq!(statuses.wanted(Timestamp::UNIX_EPOCH), [], "nothing is written again");
            object
        };
        let mut first = status(first);
        let (generation, condition) = said(&mut first);
        let (observed, since) = condition.unwrap();
        assert_eq!((generation, &observed, since.is_string()), (Some(1), &json!(1), true));
        let mut labelled = replacing(Some(&first), route("b", "web"));
        assert_eq!(said(&mut labelled), (Some(1), Some((json!(1), since.clone()))));
        let mut other = replacing(Some(&labelled), route("b", "other"));
        assert_eq!(said(&mut other), (Some(2), Some((json!(1), since))), "until it is looked at");
        let (_, condition) = said(&mut status(other));
        assert_eq!(condition.unwrap().0, json!(2));
    }
}
