//! What must hold of an object beyond the types of its fields: Kubernetes' own rules, and what this mesh can do.

mod deployment;
mod meta;
mod service;

use super::{path::Path, read::Reading};
use crate::{
    Object,
    policy::{self, Mistake},
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
        Object::Deployment(o) => deployment::check(o, reading),
        Object::Service(o) => service::check(o, reading),
        Object::Server(_)
        | Object::ServerAuthorization(_)
        | Object::AuthorizationPolicy(_)
        | Object::MeshTlsAuthentication(_)
        | Object::NetworkAuthentication(_) => policy(object, reading),
        Object::Pod(_) | Object::EndpointSlice(_) | Object::Node(_) | Object::Token(_) => {}
    }
}

/// One of the mesh's own kinds.
fn policy(object: &Object, reading: &mut Reading<'_>) {
    let top = Path::default();
    if let Some(metadata) = object.metadata() {
        meta::name(metadata, meta::SUBDOMAIN, reading);
        meta::maps(metadata, &top, reading);
    }
    for Mistake { field, message, remedy } in policy::check(object) {
        reading.problem(&Path::of_text(&field), message, remedy);
    }
}
