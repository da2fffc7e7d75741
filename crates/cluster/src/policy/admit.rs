//! What the validating webhook says of an object of the mesh's own kinds, or of a route.

use super::{
    GROUP, KINDS, Mistake, WORKLOADS, client, definition, read,
    route::{self, GATEWAY_API, ParentOf},
    said_in_vain,
};
use crate::Kind;
use serde_json::{Value, json};

/// What is said to a review.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Review {
    /// Why the object is refused, if it is.
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<String>,
}

/// Of the request of an AdmissionReview. An object of a kind that is nothing to us is let through.
pub fn review(request: &Value) -> Review {
    let text = |name: &str| request["kind"][name].as_str().unwrap_or_default();
    let (group, kind) = (text("group"), text("kind"));
    let mut object = request["object"].clone();
    if !(object.is_object() || object.is_null()) {
        let mistake =
            Mistake::new("", "it is no object", "send what the API server sends: an object with metadata and spec");
        return Review { mistakes: vec![mistake], warnings: vec![] };
    }
    if object["metadata"].is_object() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = request["namespace"].clone();
    }
    match group {
        GROUP => {
            let Some(kind) = carried_out(GROUP, kind) else {
                let message = format!("this version of weft does not carry out objects of the kind {kind}");
                let mistake = Mistake::new("kind", message, "remove it: nothing that it says would hold");
                return Review { mistakes: vec![mistake], warnings: vec![] };
            };
            of(kind, object)
        }
        GATEWAY_API => match carried_out(GATEWAY_API, kind) {
            Some(carried) => of(carried, object),
            None => foreign(kind, &object),
        },
        WORKLOADS => match carried_out(WORKLOADS, kind) {
            // It is kept in the newest version, which has no field of that name: what its proxy proves would be lost.
            Some(_) if request["kind"]["version"] == "v1alpha1" => {
                let message = "the API server keeps nothing of spec.meshTls in this version";
                let mistake = Mistake::new("apiVersion", message, "use workload.linkerd.io/v1beta1 with spec.meshTLS");
                Review { mistakes: vec![mistake], warnings: vec![] }
            }
            Some(carried) => of(carried, object),
            None => Review::default(),
        },
        _ => Review::default(),
    }
}

fn carried_out(group: &str, kind: &str) -> Option<Kind> {
    KINDS.into_iter().find(|of| definition(*of).is_some_and(|d| d.group == group && d.kind == kind))
}

/// Of an object of a kind that is carried out.
fn of(kind: Kind, object: Value) -> Review {
    let object = match read(kind, object) {
        Ok(object) => object,
        Err(mistakes) => return Review { mistakes, warnings: vec![] },
    };
    let in_vain = said_in_vain(&object);
    let Some(Ok(checked)) = route::checked(&object) else {
        return Review { mistakes: vec![], warnings: in_vain.iter().map(ToString::to_string).collect() };
    };
    let (mistakes, in_vain): (Vec<_>, Vec<_>) = in_vain.into_iter().partition(client::is_of_terms);
    let mut warnings: Vec<String> = checked.notes.iter().map(ToString::to_string).collect();
    warnings.extend(in_vain.iter().map(ToString::to_string));
    let parents = checked.route.parents.iter().enumerate();
    if let Some((i, server)) = parents.into_iter().find(|(_, parent)| parent.of == ParentOf::Server) {
        warnings.push(format!(
            "spec.parentRefs[{i}]: with a route the Server {} lets in HTTP probes no longer by itself; give them a route and an \
             AuthorizationPolicy of their own",
            server.name
        ));
    }
    Review { mistakes, warnings }
}

/// A route of the Gateway API may be another implementation's to carry out, unless its parent can only be ours.
fn foreign(kind: &str, object: &Value) -> Review {
    let mut review = Review::default();
    let parents = object["spec"]["parentRefs"].as_array().into_iter().flatten();
    for (i, parent) in parents.enumerate() {
        let parent_kind = parent["kind"].as_str().unwrap_or("Gateway");
        let at = format!("spec.parentRefs[{i}]");
        if parent["group"] == GROUP {
            let message =
                format!("this version of weft does not carry out a {kind} of a parent of the kind {parent_kind}");
            review.mistakes.push(Mistake::new(at, message, "remove it: nothing that the route says would hold there"));
        } else if parent_kind == "Service" && [json!(""), json!("core")].contains(&parent["group"]) {
            let warning = format!("{at}: this version of weft does not carry out a {kind} of a Service");
            review.warnings.push(warning);
        }
    }
    review
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviewed(group: &str, kind: &str, spec: Value) -> (Vec<String>, usize) {
        let object = json!({"kind": kind, "metadata": {"name": "a"}, "spec": spec});
        let request =
            json!({"kind": {"group": group, "version": "v1", "kind": kind}, "namespace": "ns", "object": object});
        let Review { mistakes, warnings } = review(&request);
        (mistakes.into_iter().map(|m| m.field).collect(), warnings.len())
    }

    /// Whoever reaches the port may send it.
    #[test]
    fn what_is_no_object_is_refused() {
        for group in [GROUP, GATEWAY_API, WORKLOADS] {
            for kind in KINDS.into_iter().filter_map(definition).map(|definition| definition.kind) {
                for object in [json!("x"), json!(1), json!(true), json!([{}])] {
                    let request = json!({"kind": {"group": group, "version": "v1", "kind": kind}, "object": object});
                    assert_eq!(review(&request).mistakes.len(), 1, "{request}");
                }
                for object in [json!(null), json!({"spec": "x"}), json!({"metadata": [], "spec": [1], "status": 2})] {
                    review(&json!({"kind": {"group": group, "version": "v1", "kind": kind}, "object": object}));
                }
            }
        }
    }

    #[test]
    fn what_is_not_carried_out_is_refused() {
        let fine = (vec![], 0);
        assert_eq!(reviewed(GROUP, "Server", json!({"podSelector": {}, "port": 80})), fine);
        assert_eq!(reviewed(GROUP, "Server", json!({"podSelector": {}})).0, ["spec.port"]);
        let target =
            |name: &str| json!({"targetRef": {"kind": "Namespace", "name": name}, "requiredAuthenticationRefs": []});
        assert_eq!(reviewed(GROUP, "AuthorizationPolicy", target("ns")), fine, "the namespace of the request");
        assert_eq!(reviewed(GROUP, "AuthorizationPolicy", target("other")).0, ["spec.targetRef.name"]);
        assert_eq!(reviewed(GROUP, "EgressNetwork", json!({"trafficPolicy": "Deny"})), fine);
        assert_eq!(reviewed(GROUP, "EgressNetwork", json!({"trafficPolicy": "no"})).0, ["spec.trafficPolicy"]);
        assert_eq!(reviewed("example.com", "Server", json!({})), fine);
        let route = |parents: Value| reviewed(GATEWAY_API, "HTTPRoute", json!({"parentRefs": parents}));
        assert_eq!(route(json!([{"name": "gateway"}, {"group": GATEWAY_API, "kind": "Gateway", "name": "g"}])), fine);
        let server = json!({"group": GROUP, "kind": "Server", "name": "s"});
        assert_eq!(route(json!([{"name": "gateway"}, server])), (vec![], 1), "probes");
        let of_mesh = |parents: Value| reviewed(GROUP, "HTTPRoute", json!({"parentRefs": parents}));
        assert_eq!(of_mesh(json!([server])), (vec![], 1));
        let service = json!({"group": "", "kind": "Service", "name": "s"});
        assert_eq!((of_mesh(json!([service])), route(json!([service]))), (fine.clone(), fine.clone()));
        assert_eq!(route(json!([{"group": GROUP, "kind": "EgressNetwork", "name": "e", "port": 1}])), fine);
        let udp = json!({"parentRefs": [{"name": "gateway"}, server]});
        assert_eq!(reviewed(GATEWAY_API, "UDPRoute", udp), (vec!["spec.parentRefs[1]".to_owned()], 0));
        let tcp = |parent: &Value| reviewed(GATEWAY_API, "TCPRoute", json!({"parentRefs": [parent], "rules": [{}]}));
        assert_eq!(tcp(&service), fine);
        assert_eq!(tcp(&server).0, ["spec.parentRefs[0].kind"]);
        let filtered =
            json!({"parentRefs": [service], "rules": [{"backendRefs": [{"name": "a", "port": 1, "filters": []}]}]});
        assert_eq!(reviewed(GATEWAY_API, "TLSRoute", filtered).0, ["spec.rules[0].backendRefs[0].filters"]);
    }

    #[test]
    fn an_annotation_of_an_egress_network_that_is_in_vain_is_told() {
        let object = json!({"kind": "EgressNetwork", "spec": {"trafficPolicy": "Deny"},
            "metadata": {"name": "a", "annotations": {"timeout.linkerd.io/request": "soon"}}});
        let of = json!({"group": GROUP, "version": "v1alpha1", "kind": "EgressNetwork"});
        let Review { mistakes, warnings } = review(&json!({"kind": of, "namespace": "ns", "object": object}));
        assert!(mistakes.is_empty() && warnings.len() == 1, "{mistakes:?} {warnings:?}");
        assert!(warnings[0].starts_with("metadata.annotations[timeout.linkerd.io/request]: \"soon\" cannot be read"));
    }

    #[test]
    fn an_annotation_that_could_open_an_external_workload_is_refused() {
        let reviewed = |key: &str, value: &str| {
            let tls = json!({"identity": "spiffe://root.local/db", "serverName": "db.local"});
            let metadata = json!({"name": "db", "annotations": {key: value}});
            let object = json!({"kind": "ExternalWorkload", "metadata": metadata, "spec": {"meshTLS": tls}});
            let of = json!({"group": WORKLOADS, "version": "v1beta1", "kind": "ExternalWorkload"});
            let Review { mistakes, warnings } = review(&json!({"kind": of, "namespace": "ns", "object": object}));
            (mistakes.len(), warnings.len())
        };
        for key in
            ["config.linkerd.io/default-inbound-policy", "config.linkerd.io/proxy-require-identity-inbound-ports"]
        {
            assert_eq!(reviewed(key, "denyy"), (1, 0), "{key}");
        }
        assert_eq!(reviewed("config.linkerd.io/default-inbound-policy", "deny"), (0, 0));
        assert_eq!(reviewed("config.linkerd.io/opaque-ports", "8080 9090"), (0, 1));
    }

    /// Where it would have an effect.
    #[test]
    fn an_annotation_of_a_route_that_cannot_be_read_is_refused() {
        let annotated = |kind: &str, parent: Value| {
            let object = json!({"kind": kind, "spec": {"parentRefs": [parent]},
                "metadata": {"name": "a", "annotations": {"timeout.linkerd.io/request": "soon"}}});
            let of = json!({"group": GATEWAY_API, "version": "v1", "kind": kind});
            let review = review(&json!({"kind": of, "namespace": "ns", "object": object}));
            review.mistakes.into_iter().map(|m| m.field).collect::<Vec<_>>()
        };
        let wrong = ["metadata.annotations[timeout.linkerd.io/request]"];
        for kind in ["HTTPRoute", "GRPCRoute"] {
            assert_eq!(annotated(kind, json!({"group": "", "kind": "Service", "name": "s"})), wrong);
            let egress = json!({"group": GROUP, "kind": "EgressNetwork", "name": "e", "port": 443});
            assert_eq!(annotated(kind, egress), wrong);
            assert_eq!(annotated(kind, json!({"group": GROUP, "kind": "Server", "name": "s"})), [""; 0]);
            assert_eq!(annotated(kind, json!({"name": "gateway"})), [""; 0]);
        }
    }
}
