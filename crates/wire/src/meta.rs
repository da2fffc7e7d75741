//! Which object something comes from.

use crate::error::{Invalid, here, require};
use linkerd2_proxy_api::meta as proto;
use weft_model::{Meta, meta::Resource};

pub(crate) fn decode(meta: proto::Metadata) -> Result<Meta, Invalid> {
    match require("kind", meta.kind)? {
        proto::metadata::Kind::Default(name) => Ok(Meta::Default(name)),
        proto::metadata::Kind::Resource(resource) => {
            let proto::Resource { group, kind, name, namespace, section, port } = resource;
            let port = u16::try_from(port).map_err(|_| Invalid::new("resource.port", "is above 65535"))?;
            Ok(Meta::Resource(Resource { group, kind, namespace, name, section, port }))
        }
    }
}

/// The outbound side's labels need every part of a reference (data plane 10.2).
pub(crate) fn decode_complete(meta: proto::Metadata) -> Result<Meta, Invalid> {
    let meta = decode(meta)?;
    if let Meta::Resource(Resource { group, kind, namespace, name, section: _, port: _ }) = &meta {
        let parts = [("group", group), ("kind", kind), ("name", name), ("namespace", namespace)];
        if let Some((part, _)) = parts.into_iter().find(|(_, value)| value.is_empty()) {
            return Err(Invalid::missing(&format!("resource.{part}")));
        }
    }
    Ok(meta)
}

pub(crate) fn encode(meta: &Meta) -> proto::Metadata {
    let kind = match meta {
        Meta::Default(name) => proto::metadata::Kind::Default(name.clone()),
        Meta::Resource(Resource { group, kind, namespace, name, section, port }) => {
            proto::metadata::Kind::Resource(proto::Resource {
                group: group.clone(),
                kind: kind.clone(),
                name: name.clone(),
                namespace: namespace.clone(),
                section: section.clone(),
                port: (*port).into(),
            })
        }
    };
    proto::Metadata { kind: Some(kind) }
}

pub(crate) fn encode_complete(meta: &Meta) -> Result<proto::Metadata, Invalid> {
    decode_complete(encode(meta)).map_err(|Invalid { field, reason }| here(format_args!("{field} {reason}")))?;
    Ok(encode(meta))
}
