//! The labels that Linkerd's dashboards and CLI select by.

use crate::{direction::Direction, error::Code};
use std::{collections::BTreeMap, net::SocketAddr};
use weft_model::{DnsName, Identity, Meta, NameAddr, decide::rate_limit::Scope, endpoint::ServerTls};
use weft_telemetry::Labels;

/// What is known of the TLS of an accepted connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AcceptedTls {
    /// Mesh TLS that this proxy ended.
    Terminated(Option<Identity>),
    /// TLS for somebody else, forwarded as bytes.
    Passthrough(Option<DnsName>),
    /// The application's own connection.
    Loopback,
    /// The port is opaque: not looked at.
    PortSkipped,
    /// Looked at, and plaintext.
    NotFromRemote,
}

impl AcceptedTls {
    /// The identity that the peer has proved.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Terminated(identity) => identity.as_ref(),
            _ => None,
        }
    }

    /// Mesh TLS, with or without a certificate.
    pub(crate) fn is_meshed(&self) -> bool {
        matches!(self, Self::Terminated(_))
    }

    /// In one word: `true`, or why there is no mesh TLS.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Terminated(_) => "true",
            Self::Passthrough(_) => "opaque",
            Self::Loopback => "loopback",
            Self::PortSkipped => "port_skipped",
            Self::NotFromRemote => "no_tls_from_remote",
        }
    }

    pub(crate) fn labels(&self) -> Labels {
        let none = |reason| Labels::new().with("tls", "no_identity").with("no_tls_reason", reason);
        match self {
            Self::Terminated(identity) => Labels::new()
                .with("tls", "true")
                .with("client_id", identity.as_ref().map(Identity::as_str).unwrap_or_default()),
            Self::Passthrough(sni) => {
                Labels::new().with("tls", "opaque").with("sni", sni.as_ref().map(DnsName::as_str).unwrap_or_default())
            }
            Self::Loopback | Self::PortSkipped | Self::NotFromRemote => none(self.word()),
        }
    }
}

/// Where a connection goes.
pub(crate) fn target(addr: SocketAddr) -> Labels {
    Labels::new().with("target_addr", addr).with("target_ip", addr.ip()).with("target_port", addr.port())
}

/// The TLS of a connection that this proxy makes.
pub(crate) fn dialled_tls(tls: Option<&ServerTls>, local: bool) -> Labels {
    match tls {
        _ if local => Labels::new().with("tls", "no_identity").with("no_tls_reason", "loopback"),
        Some(tls) => Labels::new().with("tls", "true").with("server_id", &tls.identity),
        None => Labels::new().with("tls", "no_identity").with("no_tls_reason", "not_provided_by_service_discovery"),
    }
}

/// The Server behind a port.
pub(crate) fn server(meta: &Meta, port: u16) -> Labels {
    object("srv", meta).with("srv_port", port)
}

pub(crate) fn route(meta: &Meta) -> Labels {
    object("route", meta)
}

/// A failure that the proxy made.
pub(crate) fn code(direction: Direction, code: Code) -> Labels {
    Labels::new().with("direction", direction.as_str()).with("code", code.as_str())
}

pub(crate) fn authorization(meta: &Meta) -> Labels {
    object("authz", meta)
}

/// The Server of a route, in families that name it as a parent.
pub(crate) fn inbound_parent(meta: &Meta, port: u16) -> Labels {
    object("parent", meta).with("parent_port", port)
}

pub(crate) fn rate_limit(meta: &Meta, scope: Scope) -> Labels {
    object("ratelimit", meta).with("ratelimit_scope", scope.as_str())
}

/// The target of outbound traffic, as its policy names it.
pub(crate) fn parent(meta: &Meta) -> Labels {
    service("parent", meta)
}

/// Where a route sends traffic.
pub(crate) fn backend(meta: &Meta) -> Labels {
    service("backend", meta)
}

/// A route of outbound traffic, which may be in another namespace than its target.
pub(crate) fn outbound_route(meta: &Meta) -> Labels {
    namespaced("route", meta)
}

/// Labels that discovery gives an endpoint.
pub(crate) fn endpoint(labels: &BTreeMap<String, String>) -> Labels {
    prefixed("dst_", labels)
}

/// A route of the ServiceProfile of `name`.
pub(crate) fn profile_route(name: &NameAddr, labels: &BTreeMap<String, String>) -> Labels {
    Labels::new().with("dst", name).join(&prefixed("rt_", labels))
}

fn prefixed(prefix: &str, labels: &BTreeMap<String, String>) -> Labels {
    let named = labels.iter().filter(|(name, _)| is_label_name(name));
    named.fold(Labels::new(), |labels, (name, value)| labels.with(&format!("{prefix}{name}"), value))
}

fn object(prefix: &str, meta: &Meta) -> Labels {
    Labels::new()
        .with(&format!("{prefix}_group"), meta.group())
        .with(&format!("{prefix}_kind"), meta.kind())
        .with(&format!("{prefix}_name"), meta.name())
}

fn namespaced(prefix: &str, meta: &Meta) -> Labels {
    Labels::new()
        .with(&format!("{prefix}_group"), meta.group())
        .with(&format!("{prefix}_kind"), meta.kind())
        .with(&format!("{prefix}_namespace"), meta.namespace())
        .with(&format!("{prefix}_name"), meta.name())
}

fn service(prefix: &str, meta: &Meta) -> Labels {
    let labels = namespaced(prefix, meta);
    let port = format!("{prefix}_port");
    let labels = if meta.port() == 0 { labels.with(&port, "") } else { labels.with(&port, meta.port()) };
    labels.with(&format!("{prefix}_section_name"), meta.section())
}

/// A name from the control plane must not break the text of a scrape.
fn is_label_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_linkerds() {
        let id: Identity = "web.ns.serviceaccount.identity.linkerd.cluster.local".parse().unwrap();
        let cases = [
            (AcceptedTls::Terminated(Some(id.clone())).labels(), format!(r#"tls="true",client_id="{id}""#)),
            (AcceptedTls::Terminated(None).labels(), r#"tls="true",client_id="""#.into()),
            (AcceptedTls::Passthrough("a.b".parse().ok()).labels(), r#"tls="opaque",sni="a.b""#.into()),
            (AcceptedTls::PortSkipped.labels(), r#"tls="no_identity",no_tls_reason="port_skipped""#.into()),
            (
                target("[fd00::1]:80".parse().unwrap()),
                r#"target_addr="[fd00::1]:80",target_ip="fd00::1",target_port="80""#.into(),
            ),
            (
                server(&Meta::default_named("all-unauthenticated"), 8080),
                r#"srv_group="",srv_kind="default",srv_name="all-unauthenticated",srv_port="8080""#.into(),
            ),
            (
                endpoint(&BTreeMap::from([("pod".into(), "web-1".into()), ("b\"d".into(), "x".into())])),
                r#"dst_pod="web-1""#.into(),
            ),
            (
                profile_route(&"web.ns:80".parse().unwrap(), &BTreeMap::from([("route".into(), "GET /".into())])),
                r#"dst="web.ns:80",rt_route="GET /""#.into(),
            ),
        ];
        for (labels, expected) in cases {
            assert_eq!(labels.as_str(), expected);
        }
    }
}
