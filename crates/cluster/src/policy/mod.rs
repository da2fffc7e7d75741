//! The mesh's own kinds of objects, and routes: what they say, and whether it can be carried out.
//!
//! ```text
//! JSON ─► read ─► Object (fields have their types) ─► checked ─► what the index holds
//! ```
//!
//! The same functions decide what the API server is told at admission, what a watch quarantines and what a manifest on disk may
//! say. An object is carried out whole or not at all. Nothing here knows of other objects.

mod admit;
mod authentication;
mod authorization;
pub(crate) mod client;
mod definition;
mod egress;
mod rate_limit;
mod reference;
pub(crate) mod route;
mod selector;
mod server;
pub mod status;

pub use admit::{Review, review};
pub(crate) use authentication::{Identities, IdentityMatch, Networks};
pub use authentication::{MeshTlsAuthenticationSpec, NetworkAuthenticationSpec, NetworkSpec};
pub use authorization::{
    AccountSpec, AuthorizationPolicySpec, ClientSpec, MeshTlsSpec, ServerAuthorizationSpec, ServerRefSpec,
};
pub(crate) use authorization::{PolicyGrant, Proof, Required, ServerGrant, Target};
pub(crate) use definition::{Definition, GROUP, PROFILES, WORKLOADS, definition};
pub use definition::{KINDS, resource};
pub(crate) use egress::Egress;
pub use egress::EgressNetworkSpec;
pub(crate) use rate_limit::Limit;
pub use rate_limit::{OverrideSpec, RateLimitSpec, RateSpec};
pub use reference::ReferenceSpec;
pub use route::{
    BackendSpec, ConnectionRuleSpec, FilterSpec, FractionSpec, GrpcMatchSpec, GrpcMethodSpec, GrpcRouteSpec,
    GrpcRuleSpec, HeaderSpec, HttpMatchSpec, HttpRouteSpec, HttpRuleSpec, MirrorSpec, ModifierSpec, NamedSpec,
    ParentSpec, PathModifierSpec, PathSpec, RedirectSpec, RewriteSpec, TcpRouteSpec, TimeoutsSpec, TlsRouteSpec,
};
pub(crate) use selector::Selector;
pub(crate) use server::{Port, Spoken};
pub use server::{ServerSpec, WorkloadKind};

use crate::{
    Kind, Object,
    annotation::{self, PortList},
    external_workload::{self, ExternalWorkloadSpec},
    manifest::{FieldPath, Mistyped, of_type},
    service_profile::ServiceProfileSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt;
use weft_model::names::annotation::OPAQUE_PORTS;

/// An object of one of these kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Custom<S> {
    #[serde(default)]
    pub api_version: String,
    #[serde(default)]
    pub kind: String,
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: S,
    /// What somebody says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Value>,
}

pub type Server = Custom<ServerSpec>;
pub type ServerAuthorization = Custom<ServerAuthorizationSpec>;
pub type AuthorizationPolicy = Custom<AuthorizationPolicySpec>;
pub type MeshTlsAuthentication = Custom<MeshTlsAuthenticationSpec>;
pub type NetworkAuthentication = Custom<NetworkAuthenticationSpec>;
pub type HttpLocalRateLimitPolicy = Custom<RateLimitSpec>;
/// Of either group.
pub type HttpRoute = Custom<HttpRouteSpec>;
pub type GrpcRoute = Custom<GrpcRouteSpec>;
pub type TlsRoute = Custom<TlsRouteSpec>;
pub type TcpRoute = Custom<TcpRouteSpec>;
pub type EgressNetwork = Custom<EgressNetworkSpec>;
pub type ServiceProfile = Custom<ServiceProfileSpec>;
pub type ExternalWorkload = Custom<ExternalWorkloadSpec>;

/// Something that an object says and that cannot be, or is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Its path, such as `spec.client.networks[0].cidr`.
    pub field: String,
    pub message: String,
    /// What may stand there.
    pub remedy: String,
}

/// Something that an object says, and that is accepted without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub field: String,
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Mistake {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.message, self.remedy)
    }
}

/// All mistakes of an object in one text.
pub fn told(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

/// The object, if it is one of `kind` and can be carried out.
///
/// # Errors
/// Everything that is wrong with it; `kind` is none of these kinds.
pub fn read(kind: Kind, object: Value) -> Result<Object, Vec<Mistake>> {
    let object = parse(kind, object)?;
    match check(&object) {
        mistakes if mistakes.is_empty() => Ok(object),
        mistakes => Err(mistakes),
    }
}

/// Its fields have their types.
fn parse(kind: Kind, object: Value) -> Result<Object, Vec<Mistake>> {
    Ok(match kind {
        Kind::Server => Object::Server(typed(kind, object)?),
        Kind::ServerAuthorization => Object::ServerAuthorization(typed(kind, object)?),
        Kind::AuthorizationPolicy => Object::AuthorizationPolicy(typed(kind, object)?),
        Kind::MeshTlsAuthentication => Object::MeshTlsAuthentication(typed(kind, object)?),
        Kind::NetworkAuthentication => Object::NetworkAuthentication(typed(kind, object)?),
        Kind::HttpLocalRateLimitPolicy => Object::HttpLocalRateLimitPolicy(typed(kind, object)?),
        Kind::MeshHttpRoute => Object::MeshHttpRoute(whole(kind, object)?),
        Kind::HttpRoute => Object::HttpRoute(whole(kind, object)?),
        Kind::GrpcRoute => Object::GrpcRoute(whole(kind, object)?),
        Kind::TlsRoute => Object::TlsRoute(whole(kind, object)?),
        Kind::TcpRoute => Object::TcpRoute(whole(kind, object)?),
        Kind::EgressNetwork => Object::EgressNetwork(typed(kind, object)?),
        Kind::ServiceProfile => Object::ServiceProfile(typed(kind, object)?),
        Kind::ExternalWorkload => Object::ExternalWorkload(typed(kind, object)?),
        other => {
            let message = format!("{} is no kind of the mesh", other.as_str());
            return Err(vec![Mistake::new("kind", message, "use another kind")]);
        }
    })
}

fn typed<S: DeserializeOwned + Serialize>(kind: Kind, object: Value) -> Result<Box<Custom<S>>, Vec<Mistake>> {
    custom(kind, &object).map(|(object, _)| object)
}

/// An object, and the paths of fields that its type does not have.
type WithUnknown<S> = (Box<Custom<S>>, Vec<FieldPath>);

pub(crate) fn custom<S: DeserializeOwned + Serialize>(
    kind: Kind,
    object: &Value,
) -> Result<WithUnknown<S>, Vec<Mistake>> {
    of_type(kind, object)
        .map_err(|Mistyped { path, message, remedy }| vec![Mistake::new(path.to_string(), message, remedy)])
}

/// A route: what is not known of one may be what keeps somebody out, so that it is read whole or not at all.
fn whole<S: DeserializeOwned + Serialize>(kind: Kind, object: Value) -> Result<Box<Custom<S>>, Vec<Mistake>> {
    let (route, unknown) = custom(kind, &route::ours(kind, object))?;
    let mut unknown: Vec<String> = unknown.iter().map(ToString::to_string).collect();
    unknown.retain(|path| path.starts_with("spec."));
    let mistake = |path| Mistake::new(path, "weft knows no such field", "remove it");
    if unknown.is_empty() { Ok(route) } else { Err(unknown.into_iter().map(mistake).collect()) }
}

/// Everything that is wrong with an object; of other kinds nothing is known here.
pub(crate) fn check(object: &Object) -> Vec<Mistake> {
    let namespace = object.key().namespace;
    match object {
        Object::Server(o) => o.spec.checked().err(),
        Object::ServerAuthorization(o) => o.spec.checked(&namespace).err(),
        Object::AuthorizationPolicy(o) => o.spec.checked(&namespace).err(),
        Object::MeshTlsAuthentication(o) => o.spec.checked(&namespace).err(),
        Object::NetworkAuthentication(o) => o.spec.checked().err(),
        Object::HttpLocalRateLimitPolicy(o) => o.spec.checked(&namespace).err(),
        Object::EgressNetwork(o) => o.spec.checked().err(),
        Object::ServiceProfile(o) => o.spec.checked().err(),
        Object::ExternalWorkload(o) => external_workload::checked(o).err(),
        object => route::checked(object).and_then(Result::err),
    }
    .unwrap_or_default()
}

/// What an object says in its annotations in vain, whatever else of it has an effect.
pub fn said_in_vain(object: &Object) -> Vec<Mistake> {
    match object {
        Object::Service(o) => {
            let elsewhere = client::elsewhere(&o.metadata).map(|by| Mistake::new(by, ELSEWHERE, "remove it"));
            let told = elsewhere.into_iter().chain(opaque_mistake(&o.metadata));
            told.chain(client_mistakes(&o.metadata, client::On::Service)).collect()
        }
        Object::EgressNetwork(o) => {
            let ports = opaque_mistake(&o.metadata).into_iter();
            ports.chain(client_mistakes(&o.metadata, client::On::EgressNetwork)).collect()
        }
        Object::ExternalWorkload(o) => external_workload::said_in_vain(&o.metadata),
        object => match (route::checked(object), object.metadata()) {
            (Some(Ok(checked)), Some(metadata)) if checked.route.is_for_clients() => {
                let connections = matches!(object.kind(), Kind::TlsRoute | Kind::TcpRoute);
                client_mistakes(metadata, if connections { client::On::ConnectionRoute } else { client::On::Route })
            }
            _ => vec![],
        },
    }
}

const ELSEWHERE: &str =
    "this version of weft looks up nothing in other clusters, and what is sent to the Service fails";

fn opaque_mistake(metadata: &ObjectMeta) -> Option<Mistake> {
    let error = annotation::read::<PortList>(metadata.annotations.as_ref()?.get(OPAQUE_PORTS)?).err()?;
    let field = format!("metadata.annotations[{OPAQUE_PORTS}]");
    Some(Mistake::new(field, error.to_string(), "use ports and ranges, such as 25,4000-4100"))
}

fn client_mistakes(metadata: &ObjectMeta, on: client::On) -> Vec<Mistake> {
    metadata.annotations.as_ref().map(|said| client::mistakes(said, on)).unwrap_or_default()
}

/// What came of an object's fields, unless something is wrong.
fn all_right<T>(checked: Option<T>, mistakes: Vec<Mistake>) -> Result<T, Vec<Mistake>> {
    match checked {
        Some(checked) if mistakes.is_empty() => Ok(checked),
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests;
