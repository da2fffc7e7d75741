//! From a document to a typed object, with every field that Kubernetes does not know.

use super::{
    Mistyped,
    document::Node,
    mistyped::{by_position, is_list, mistyped},
    path::Path,
};
use crate::{
    Kind, Object,
    workload::{Unrun, Workload},
};
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{PodTemplateSpec, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The object, and the paths of unknown fields.
pub(super) fn read(kind: Kind, node: &Node) -> Result<(Object, Vec<Path>), Mistyped> {
    let json = &node.to_json();
    Ok(match kind {
        Kind::Namespace => with(kind, json, |o| Object::Namespace(Box::new(o)))?,
        Kind::ServiceAccount => with(kind, json, |o| Object::ServiceAccount(Box::new(o)))?,
        Kind::Deployment => with(kind, json, |o| Object::Deployment(Box::new(o)))?,
        Kind::Unrun(of) => unrun(kind, of, json)?,
        Kind::Service => with(kind, json, |o| Object::Service(Box::new(o)))?,
        Kind::Pod => with(kind, json, |o| Object::Pod(Box::new(o)))?,
        Kind::EndpointSlice => with(kind, json, |o| Object::EndpointSlice(Box::new(o)))?,
        Kind::Node => with(kind, json, |o| Object::Node(Box::new(o)))?,
        Kind::Server => with(kind, json, |o| Object::Server(Box::new(o)))?,
        Kind::ServerAuthorization => with(kind, json, |o| Object::ServerAuthorization(Box::new(o)))?,
        Kind::AuthorizationPolicy => with(kind, json, |o| Object::AuthorizationPolicy(Box::new(o)))?,
        Kind::MeshTlsAuthentication => with(kind, json, |o| Object::MeshTlsAuthentication(Box::new(o)))?,
        Kind::NetworkAuthentication => with(kind, json, |o| Object::NetworkAuthentication(Box::new(o)))?,
        Kind::HttpLocalRateLimitPolicy => with(kind, json, |o| Object::HttpLocalRateLimitPolicy(Box::new(o)))?,
        Kind::MeshHttpRoute => with(kind, json, |o| Object::MeshHttpRoute(Box::new(o)))?,
        Kind::HttpRoute => with(kind, json, |o| Object::HttpRoute(Box::new(o)))?,
        Kind::GrpcRoute => with(kind, json, |o| Object::GrpcRoute(Box::new(o)))?,
        Kind::TlsRoute => with(kind, json, |o| Object::TlsRoute(Box::new(o)))?,
        Kind::TcpRoute => with(kind, json, |o| Object::TcpRoute(Box::new(o)))?,
        Kind::EgressNetwork => with(kind, json, |o| Object::EgressNetwork(Box::new(o)))?,
        Kind::ServiceProfile => with(kind, json, |o| Object::ServiceProfile(Box::new(o)))?,
        Kind::ExternalWorkload => with(kind, json, |o| Object::ExternalWorkload(Box::new(o)))?,
        Kind::Token => with(kind, json, Object::Token)?,
    })
}

/// Their specs are not of one type, and each has a template of pods.
fn unrun(kind: Kind, of: Unrun, json: &Value) -> Result<(Object, Vec<Path>), Mistyped> {
    let wrap = |metadata: ObjectMeta, template: Option<PodTemplateSpec>, replicas: Option<i32>, first: i32| {
        let template = template.unwrap_or_default();
        Object::Unrun(Box::new(Workload { kind: of, metadata, template, replicas, first }))
    };
    match of {
        Unrun::ReplicationController => with(kind, json, |o: ReplicationController| {
            let spec = o.spec.unwrap_or_default();
            wrap(o.metadata, spec.template, spec.replicas, 0)
        }),
        Unrun::ReplicaSet => with(kind, json, |o: ReplicaSet| {
            let spec = o.spec.unwrap_or_default();
            wrap(o.metadata, spec.template, spec.replicas, 0)
        }),
        Unrun::StatefulSet => with(kind, json, |o: StatefulSet| {
            let spec = o.spec.unwrap_or_default();
            let first = spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0);
            wrap(o.metadata, Some(spec.template), spec.replicas, first)
        }),
        Unrun::DaemonSet => {
            with(kind, json, |o: DaemonSet| wrap(o.metadata, o.spec.map(|spec| spec.template), None, 0))
        }
        Unrun::Job => with(kind, json, |o: Job| wrap(o.metadata, o.spec.map(|spec| spec.template), None, 0)),
        Unrun::CronJob => with(kind, json, |o: CronJob| {
            let template = o.spec.and_then(|spec| spec.job_template.spec).map(|job| job.template);
            wrap(o.metadata, template, None, 0)
        }),
    }
}

fn with<T: DeserializeOwned + Serialize>(
    kind: Kind,
    json: &Value,
    wrap: impl FnOnce(T) -> Object,
) -> Result<(Object, Vec<Path>), Mistyped> {
    of_type(kind, json).map(|(object, unknown)| (wrap(object), unknown))
}

/// An object whose fields have their types, whoever has written it, and the paths of those that its type does not have.
pub(crate) fn of_type<T: DeserializeOwned + Serialize>(kind: Kind, json: &Value) -> Result<(T, Vec<Path>), Mistyped> {
    let mut unknown = vec![];
    let mut see = |path: serde_ignored::Path<'_>| unknown.push(Path::from(&path));
    let deserializer = serde_ignored::Deserializer::new(json, &mut see);
    let object = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| mistyped(kind, Path::from(error.path()), error.inner()))?;
    match by_position(json, &object) {
        Some(path) => Err(is_list(kind, path)),
        None => Ok((object, unknown)),
    }
}
