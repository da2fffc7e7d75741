//! What must hold of an object beyond the types of its fields: Kubernetes' own rules, and what this mesh can do.

mod asked;
mod deployment;
mod meta;
mod service;

use super::{path::Path, read::Reading};
use crate::{
    Object,
    policy::{
        self, Mistake, Note,
        route::{self, Checked},
    },
};

pub(super) fn object(object: &Object, reading: &mut Reading<'_>) {
    let top = Path::default();
    match object {
        Object::Namespace(o) => {
            meta::name(&o.metadata, meta::LABEL, reading);
            meta::maps(&o.metadata, &top, reading);
            meta::annotations(&o.metadata, &top, meta::On::Namespace, reading);
        }
        Object::ServiceAccount(o) => {
            meta::name(&o.metadata, meta::SUBDOMAIN, reading);
            meta::maps(&o.metadata, &top, reading);
        }
        Object::Deployment(o) if reading.is_run() => deployment::check(o, reading),
        Object::Deployment(_) | Object::Unrun(_) | Object::Pod(_) => asked::check(object, reading),
        Object::Service(o) => {
            service::check(o, reading);
            mistakes(policy::said_in_vain(object), reading);
        }
        Object::Server(server) => {
            policy(object, reading);
            let of_externals = server.spec.pod_selector.is_none() && server.spec.external_workload_selector.is_some();
            if of_externals && reading.is_run() {
                let message = "on one machine there are no ExternalWorkloads";
                mistakes(vec![Mistake::new("spec.externalWorkloadSelector", message, "use podSelector")], reading);
            }
        }
        Object::ServerAuthorization(_)
        | Object::AuthorizationPolicy(_)
        | Object::MeshTlsAuthentication(_)
        | Object::NetworkAuthentication(_)
        | Object::HttpLocalRateLimitPolicy(_)
        | Object::ServiceProfile(_) => policy(object, reading),
        Object::EgressNetwork(_) => {
            policy(object, reading);
            mistakes(policy::said_in_vain(object), reading);
        }
        Object::MeshHttpRoute(_)
        | Object::HttpRoute(_)
        | Object::GrpcRoute(_)
        | Object::TlsRoute(_)
        | Object::TcpRoute(_) => route(object, reading),
        Object::EndpointSlice(_) | Object::Node(_) | Object::ExternalWorkload(_) | Object::Token(_) => {}
    }
}

/// One of the mesh's own kinds.
fn policy(object: &Object, reading: &mut Reading<'_>) {
    let top = Path::default();
    if let Some(metadata) = object.metadata() {
        meta::name(metadata, meta::SUBDOMAIN, reading);
        meta::maps(metadata, &top, reading);
    }
    mistakes(policy::check(object), reading);
}

/// Nobody on one machine carries out what is not the mesh's; of a cluster's routes it is somebody else's.
fn route(object: &Object, reading: &mut Reading<'_>) {
    let top = Path::default();
    if let Some(metadata) = object.metadata() {
        meta::name(metadata, meta::SUBDOMAIN, reading);
        meta::maps(metadata, &top, reading);
    }
    let mut refused = route::refused(object);
    match route::checked(object) {
        Some(Ok(checked)) => {
            mistakes(refused, reading);
            mistakes(policy::said_in_vain(object), reading);
            let Checked { route, notes } = checked;
            if route.parents.is_empty() && reading.is_run() {
                let remedy = "name a Server or an EgressNetwork of policy.linkerd.io, or a Service with an empty group";
                reading.problem(
                    &top.keys(&["spec", "parentRefs"]),
                    "no parent of the route is one that is carried out",
                    remedy,
                );
            }
            for Note { field, message } in notes {
                reading.ignored(&Path::of_text(&field), &message);
            }
        }
        Some(Err(wrong)) => {
            refused.retain(|mistake| !wrong.iter().any(|wrong| wrong.field == mistake.field));
            mistakes(wrong.into_iter().chain(refused).collect(), reading);
        }
        None => {}
    }
}

fn mistakes(mistakes: Vec<Mistake>, reading: &mut Reading<'_>) {
    for Mistake { field, message, remedy } in mistakes {
        reading.problem(&Path::of_text(&field), message, remedy);
    }
}
