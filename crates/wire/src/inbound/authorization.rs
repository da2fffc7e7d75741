//! Who may use a port or a route.

use crate::{
    error::{Invalid, Within, each, require, required},
    meta, net,
};
use linkerd2_proxy_api::inbound as proto;
use proto::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
use std::collections::HashMap;
use weft_model::{
    DnsName, Identity, Meta,
    meta::Resource,
    policy::inbound::{Authentication, Authorization, IdentitySuffix, NetworkMatch},
};

const POLICY_GROUP: &str = "policy.linkerd.io";

pub(super) fn decode(authz: proto::Authz) -> Result<Authorization, Invalid> {
    let proto::Authz { networks, authentication, labels, metadata } = authz;
    let meta = match metadata {
        Some(metadata) => meta::decode(metadata).within("metadata")?,
        None => decode_labels(labels, "serverauthorization")?,
    };
    if networks.is_empty() {
        return Err(Invalid::missing("networks"));
    }
    Ok(Authorization {
        meta,
        networks: each("networks", networks, decode_network)?,
        authentication: required("authentication", authentication, decode_authentication)?,
    })
}

pub(super) fn encode(authorization: &Authorization) -> Result<proto::Authz, Invalid> {
    let Authorization { meta, networks, authentication } = authorization;
    if networks.is_empty() {
        return Err(Invalid::missing("networks"));
    }
    Ok(proto::Authz {
        networks: networks.iter().map(encode_network).collect(),
        authentication: Some(encode_authentication(authentication)),
        labels: encode_labels(meta),
        metadata: Some(meta::encode(meta)),
    })
}

/// An object by labels: `name` is required, and the legacy name `default:x` is a default.
pub(super) fn decode_labels(mut labels: HashMap<String, String>, implied_kind: &str) -> Result<Meta, Invalid> {
    let name = labels.remove("name").filter(|name| !name.is_empty());
    let name = require("labels[name]", name)?;
    let kind = labels.remove("kind").unwrap_or_else(|| implied_kind.to_owned());
    if kind == "default" {
        return Ok(Meta::Default(name));
    }
    if let Some(default) = name.strip_prefix("default:") {
        return Ok(Meta::Default(default.to_owned()));
    }
    let group = labels.remove("group").unwrap_or_else(|| POLICY_GROUP.to_owned());
    Ok(Meta::Resource(Resource { group, kind, name, ..Resource::default() }))
}

/// Labels have no place for namespace, section and port.
pub(super) fn encode_labels(meta: &Meta) -> HashMap<String, String> {
    [("group", meta.group()), ("kind", meta.kind()), ("name", meta.name())]
        .into_iter()
        .map(|(label, value)| (label.to_owned(), value.to_owned()))
        .collect()
}

fn decode_network(network: proto::Network) -> Result<NetworkMatch, Invalid> {
    let proto::Network { net, except } = network;
    Ok(NetworkMatch {
        net: required("net", net, net::decode_network)?,
        except: each("except", except, net::decode_network)?,
    })
}

fn encode_network(network: &NetworkMatch) -> proto::Network {
    let NetworkMatch { net, except } = network;
    proto::Network {
        net: Some(net::encode_network(*net)),
        except: except.iter().copied().map(net::encode_network).collect(),
    }
}

fn decode_authentication(authn: proto::Authn) -> Result<Authentication, Invalid> {
    match require("permit", authn.permit)? {
        proto::authn::Permit::Unauthenticated(_) => Ok(Authentication::Unauthenticated),
        proto::authn::Permit::MeshTls(proto::authn::PermitMeshTls { clients }) => {
            match require("clients", clients).within("mesh_tls")? {
                Clients::Unauthenticated(_) => Ok(Authentication::TlsUnauthenticated),
                Clients::Identities(PermitClientIdentities { identities, suffixes }) => {
                    Ok(Authentication::TlsAuthenticated {
                        identities: decode_identities(identities).within("mesh_tls.identities")?,
                        suffixes: each("mesh_tls.identities.suffixes", suffixes, decode_suffix)?,
                    })
                }
            }
        }
    }
}

fn encode_authentication(authentication: &Authentication) -> proto::Authn {
    use proto::authn::{Permit, PermitMeshTls, PermitUnauthenticated};
    let mesh_tls = |clients| Permit::MeshTls(PermitMeshTls { clients: Some(clients) });
    let permit = match authentication {
        Authentication::Unauthenticated => Permit::Unauthenticated(PermitUnauthenticated {}),
        Authentication::TlsUnauthenticated => mesh_tls(Clients::Unauthenticated(PermitUnauthenticated {})),
        Authentication::TlsAuthenticated { identities, suffixes } => {
            mesh_tls(Clients::Identities(PermitClientIdentities {
                identities: encode_identities(identities),
                suffixes: suffixes.iter().map(encode_suffix).collect(),
            }))
        }
    };
    proto::Authn { permit: Some(permit) }
}

pub(super) fn decode_identities(identities: Vec<proto::Identity>) -> Result<Vec<Identity>, Invalid> {
    each("identities", identities, |id| id.name.parse().map_err(|e| Invalid::new("name", e)))
}

pub(super) fn encode_identities(identities: &[Identity]) -> Vec<proto::Identity> {
    identities.iter().map(|id| proto::Identity { name: id.to_string() }).collect()
}

/// No parts match every identity.
fn decode_suffix(suffix: proto::IdentitySuffix) -> Result<IdentitySuffix, Invalid> {
    if suffix.parts.is_empty() {
        return Ok(IdentitySuffix(String::new()));
    }
    let name: DnsName = suffix.parts.join(".").parse().map_err(|e| Invalid::new("parts", e))?;
    Ok(IdentitySuffix(name.to_string()))
}

fn encode_suffix(suffix: &IdentitySuffix) -> proto::IdentitySuffix {
    proto::IdentitySuffix { parts: suffix.0.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect() }
}

pub(super) fn decode_list(authorizations: Vec<proto::Authz>) -> Result<Vec<Authorization>, Invalid> {
    each("authorizations", authorizations, decode)
}

pub(super) fn encode_list(authorizations: &[Authorization]) -> Result<Vec<proto::Authz>, Invalid> {
    each("authorizations", authorizations, encode)
}
