//! Whether a client may use a port or a route, as the policy says now; each answer is counted with the object behind it.

use super::Wiring;
use crate::{
    error::{Code, ProxyError},
    metrics::labels::{self, AcceptedTls},
    process::discovery::PortPolicy,
};
use std::net::SocketAddr;
use weft_model::{
    Meta,
    decide::authorize::{Client, ClientTls, authorize},
    policy::inbound::Authorization,
};
use weft_telemetry::Labels;

/// Who is connected to what.
#[derive(Clone, Debug)]
pub(super) struct Connected {
    pub(super) client: SocketAddr,
    pub(super) tls: AcceptedTls,
    pub(super) target: SocketAddr,
}

impl Connected {
    /// The object that lets the client in; `None` denies.
    pub(super) fn permit<'p>(
        &self,
        authorizations: impl IntoIterator<Item = &'p Authorization>,
        loopback: &'p Meta,
    ) -> Option<&'p Meta> {
        let addr = self.client.ip().to_canonical();
        if addr.is_loopback() {
            return Some(loopback);
        }
        let tls = match &self.tls {
            AcceptedTls::Terminated(Some(identity)) => ClientTls::Identity(identity),
            AcceptedTls::Terminated(None) => ClientTls::Unauthenticated,
            _ => ClientTls::None,
        };
        authorize(authorizations, &Client { addr, tls }).map(|a| &a.meta)
    }

    /// Target and TLS.
    pub(super) fn labels(&self) -> Labels {
        labels::target(self.target).join(&self.tls.labels())
    }
}

/// What lets in clients of the workload's own network namespace.
pub(super) fn loopback() -> Meta {
    Meta::default_named("localhost")
}

/// Decides on a connection that is forwarded as bytes. Returns the version of the policy that let it in.
///
/// # Errors
/// The policy lets this client in nowhere.
pub(super) fn connection(wiring: &Wiring, connected: &Connected, port: &PortPolicy) -> Result<u64, ProxyError> {
    let policy = port.policy.load();
    if let Some(what) = policy.value.unsupported() {
        let text = format!("the policy of port {} asks for what this proxy does not carry out: {what}", port.port);
        return Err(ProxyError::new(Code::PolicyUnsupported, text));
    }
    let metrics = &wiring.metrics;
    let server = labels::server(&policy.value.meta, port.port);
    let loopback = loopback();
    match connected.permit(&policy.value.authorizations, &loopback) {
        Some(by) => {
            let labels = server.join(&labels::authorization(by)).join(&connected.labels());
            metrics.counter(&metrics.tcp_allow, &labels).inc();
            Ok(policy.version)
        }
        None => {
            metrics.counter(&metrics.tcp_deny, &server.join(&connected.labels())).inc();
            Err(denied(connected))
        }
    }
}

/// Returns once a newer policy no longer lets the connection in. May be dropped at any time.
pub(super) async fn revoked(wiring: &Wiring, connected: &Connected, port: &PortPolicy, permitted_by: u64) {
    let loopback = loopback();
    let mut seen = permitted_by;
    loop {
        let policy = port.policy.changed(seen).await;
        seen = policy.version;
        if connected.permit(&policy.value.authorizations, &loopback).is_none() {
            let metrics = &wiring.metrics;
            let labels = labels::server(&policy.value.meta, port.port).join(&connected.labels());
            metrics.counter(&metrics.tcp_terminate, &labels).inc();
            return;
        }
    }
}

fn denied(connected: &Connected) -> ProxyError {
    ProxyError::new(Code::Unauthorized, format!("unauthorized connection on port {}", connected.target.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::policy::inbound::DefaultPolicy;

    #[test]
    fn loopback_is_always_let_in() {
        let connected = |client: &str| Connected {
            client: client.parse().unwrap(),
            tls: AcceptedTls::NotFromRemote,
            target: "10.0.0.1:80".parse().unwrap(),
        };
        let nobody = DefaultPolicy::Deny.authorizations(&[]);
        for (client, permitted) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.2:1", false)]
        {
            assert_eq!(connected(client).permit(&nobody, &loopback()).is_some(), permitted, "{client}");
        }
    }
}
