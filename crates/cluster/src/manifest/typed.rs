//! From a document to a typed object, with every field that Kubernetes does not know.

use super::{document::Node, path::Path};
use crate::{Kind, Object};
use serde::de::DeserializeOwned;

/// A value that has another type than the field.
#[derive(Debug)]
pub(super) struct WrongType {
    pub(super) path: Path,
    pub(super) message: String,
}

/// The object, and the paths of unknown fields.
pub(super) fn read(kind: Kind, node: &Node) -> Result<(Object, Vec<Path>), WrongType> {
    let json = node.to_json();
    Ok(match kind {
        Kind::Namespace => with(json, |o| Object::Namespace(Box::new(o)))?,
        Kind::ServiceAccount => with(json, |o| Object::ServiceAccount(Box::new(o)))?,
        Kind::Deployment => with(json, |o| Object::Deployment(Box::new(o)))?,
        Kind::Service => with(json, |o| Object::Service(Box::new(o)))?,
        Kind::Pod => with(json, |o| Object::Pod(Box::new(o)))?,
        Kind::EndpointSlice => with(json, |o| Object::EndpointSlice(Box::new(o)))?,
        Kind::Node => with(json, |o| Object::Node(Box::new(o)))?,
        Kind::Server => with(json, |o| Object::Server(Box::new(o)))?,
        Kind::ServerAuthorization => with(json, |o| Object::ServerAuthorization(Box::new(o)))?,
        Kind::AuthorizationPolicy => with(json, |o| Object::AuthorizationPolicy(Box::new(o)))?,
        Kind::MeshTlsAuthentication => with(json, |o| Object::MeshTlsAuthentication(Box::new(o)))?,
        Kind::NetworkAuthentication => with(json, |o| Object::NetworkAuthentication(Box::new(o)))?,
        Kind::HttpLocalRateLimitPolicy => with(json, |o| Object::HttpLocalRateLimitPolicy(Box::new(o)))?,
        Kind::MeshHttpRoute => with(json, |o| Object::MeshHttpRoute(Box::new(o)))?,
        Kind::HttpRoute => with(json, |o| Object::HttpRoute(Box::new(o)))?,
        Kind::GrpcRoute => with(json, |o| Object::GrpcRoute(Box::new(o)))?,
        Kind::TlsRoute => with(json, |o| Object::TlsRoute(Box::new(o)))?,
        Kind::TcpRoute => with(json, |o| Object::TcpRoute(Box::new(o)))?,
        Kind::EgressNetwork => with(json, |o| Object::EgressNetwork(Box::new(o)))?,
        Kind::ServiceProfile => with(json, |o| Object::ServiceProfile(Box::new(o)))?,
        Kind::ExternalWorkload => with(json, |o| Object::ExternalWorkload(Box::new(o)))?,
        Kind::Token => with(json, Object::Token)?,
    })
}

fn with<T: DeserializeOwned>(
    json: serde_json::Value,
    wrap: impl FnOnce(T) -> Object,
) -> Result<(Object, Vec<Path>), WrongType> {
    let mut unknown = vec![];
    let mut see = |path: serde_ignored::Path<'_>| unknown.push(Path::from(&path));
    let deserializer = serde_ignored::Deserializer::new(json, &mut see);
    let object = serde_path_to_error::deserialize(deserializer)
        .map_err(|error| WrongType { path: Path::from(error.path()), message: error.into_inner().to_string() })?;
    Ok((wrap(object), unknown))
}
