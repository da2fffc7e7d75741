//! Who is connected to what, and how it is said why he is let in or not: what [`super::authorize`] and [`super::admit`] share. It decides
//! nothing.

use crate::{
    error::{Code, ProxyError},
    metrics::labels::{self, AcceptedTls},
    records::Why,
};
use std::net::SocketAddr;
use weft_model::{
    Meta, ServerPolicy,
    decide::authorize::{Client, ClientTls},
    policy::inbound::DefaultPolicy,
};
use weft_telemetry::Labels;

/// Who is connected to what.
#[derive(Clone, Debug)]
pub(crate) struct Connected {
    pub(crate) client: SocketAddr,
    pub(crate) tls: AcceptedTls,
    pub(crate) target: SocketAddr,
}

impl Connected {
    /// What policies are asked about.
    pub(crate) fn client(&self) -> Client<'_> {
        let tls = match &self.tls {
            AcceptedTls::Terminated(Some(identity)) => ClientTls::Identity(identity),
            AcceptedTls::Terminated(None) => ClientTls::Unauthenticated,
            _ => ClientTls::None,
        };
        Client { addr: self.client.ip(), tls }
    }

    /// Target and TLS.
    pub(crate) fn labels(&self) -> Labels {
        labels::target(self.target).join(&self.tls.labels())
    }
}

/// Why nothing that `policy` is about can be let in: it asks for what this proxy does not do.
pub(super) fn unsupported(policy: &ServerPolicy, port: u16) -> Option<ProxyError> {
    policy.unsupported().map(|what| {
        let text = format!("the policy of port {port} asks for what this proxy does not carry out: {what}");
        ProxyError::new(Code::PolicyUnsupported, text)
    })
}

/// Why bytes, or anything at all, are not let in.
pub(super) fn denied(connected: &Connected) -> ProxyError {
    ProxyError::new(Code::Unauthorized, format!("unauthorized connection on port {}", connected.target.port()))
}

/// Says whom only the audit policy lets in: `deny` would not.
pub(super) fn audit(connected: &Connected, by: &Meta) {
    if *by == Meta::default_named(DefaultPolicy::Audit.as_str()) {
        let id = connected.tls.identity().map(ToString::to_string).unwrap_or_default();
        tracing::info!(client = %connected.client, id, target = %connected.target, "Let in by the audit policy alone");
    }
}

/// By which objects a request, or a connection, was let in or not.
pub(super) fn reason(policy: &ServerPolicy, route: Option<&Meta>, by: Option<&Meta>) -> Why {
    Why { parent: policy.meta.clone(), route: route.cloned(), rule: None, authorization: by.cloned() }
}
