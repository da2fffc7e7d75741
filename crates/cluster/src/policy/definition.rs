//! How the API server knows these kinds.

use super::route::GATEWAY_API;
use crate::Kind;

/// The mesh's own kinds, and routes, that are carried out.
pub const KINDS: [Kind; 14] = [
    Kind::Server,
    Kind::ServerAuthorization,
    Kind::AuthorizationPolicy,
    Kind::MeshTlsAuthentication,
    Kind::NetworkAuthentication,
    Kind::HttpLocalRateLimitPolicy,
    Kind::MeshHttpRoute,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::EgressNetwork,
    Kind::ServiceProfile,
    Kind::ExternalWorkload,
];

pub(crate) const GROUP: &str = "policy.linkerd.io";

/// The group of ServiceProfiles.
pub(crate) const PROFILES: &str = "linkerd.io";

/// The group of ExternalWorkloads.
pub(crate) const WORKLOADS: &str = "workload.linkerd.io";

/// Where objects of a kind are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) group: &'static str,
    /// By the name that the group has for it.
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    /// The newest first.
    pub(crate) versions: &'static [&'static str],
}

/// How kubectl names a kind, which several groups may have.
pub fn resource(kind: Kind) -> String {
    definition(kind).map_or_else(|| kind.as_str().to_lowercase(), |of| format!("{}.{}", of.plural, of.group))
}

/// `None` for a kind that Kubernetes itself brings.
pub(crate) fn definition(kind: Kind) -> Option<Definition> {
    let (group, name) = match kind {
        Kind::MeshHttpRoute => (GROUP, Kind::HttpRoute.as_str()),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute => (GATEWAY_API, kind.as_str()),
        Kind::ServiceProfile => (PROFILES, kind.as_str()),
        Kind::ExternalWorkload => (WORKLOADS, kind.as_str()),
        _ => (GROUP, kind.as_str()),
    };
    let (plural, versions): (_, &[&str]) = match kind {
        Kind::Server => ("servers", &["v1beta3", "v1beta2", "v1beta1", "v1alpha1"]),
        Kind::ServerAuthorization => ("serverauthorizations", &["v1beta1", "v1alpha1"]),
        Kind::AuthorizationPolicy => ("authorizationpolicies", &["v1alpha1"]),
        Kind::MeshTlsAuthentication => ("meshtlsauthentications", &["v1alpha1"]),
        Kind::NetworkAuthentication => ("networkauthentications", &["v1alpha1"]),
        Kind::HttpLocalRateLimitPolicy => ("httplocalratelimitpolicies", &["v1alpha1"]),
        Kind::MeshHttpRoute => ("httproutes", &["v1beta3", "v1beta2", "v1beta1", "v1alpha1"]),
        Kind::HttpRoute => ("httproutes", &["v1", "v1beta1"]),
        Kind::GrpcRoute => ("grpcroutes", &["v1", "v1alpha2"]),
        Kind::TlsRoute => ("tlsroutes", &["v1", "v1alpha3", "v1alpha2"]),
        Kind::TcpRoute => ("tcproutes", &["v1", "v1alpha2"]),
        Kind::EgressNetwork => ("egressnetworks", &["v1alpha1"]),
        Kind::ServiceProfile => ("serviceprofiles", &["v1alpha2", "v1alpha1"]),
        Kind::ExternalWorkload => ("externalworkloads", &["v1beta1", "v1alpha1"]),
        Kind::Namespace
        | Kind::ServiceAccount
        | Kind::Deployment
        | Kind::Unrun(_)
        | Kind::Service
        | Kind::Pod
        | Kind::EndpointSlice
        | Kind::Node
        | Kind::Token => return None,
    };
    Some(Definition { group, kind: name, plural, versions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        install::{By, crds},
        values::Values,
    };
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_versions_that_are_read_are_those_that_are_installed() {
        let installed = crds(&Values::default(), "linkerd", By::Cli);
        for kind in KINDS {
            let Definition { group, kind, plural, versions } = definition(kind).unwrap();
            if group == GATEWAY_API {
                continue;
            }
            let name = format!("{plural}.{group}");
            let of = |crd: &&Value| crd["metadata"]["name"] == name.as_str() && crd["spec"]["names"]["kind"] == kind;
            let crd = installed.iter().find(of).unwrap_or_else(|| panic!("{name} is not installed"));
            let served =
                crd["spec"]["versions"].as_array().unwrap().iter().map(|version| version["name"].as_str().unwrap());
            assert_eq!(served.collect::<BTreeSet<_>>(), versions.iter().copied().collect(), "{name}");
        }
    }
}
