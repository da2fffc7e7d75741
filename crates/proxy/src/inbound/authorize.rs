//! Whether a client may use a port or a route, as the policy says now; each answer is counted with the object behind it.

use super::Wiring;
use crate::{
    error::{Code, ProxyError},
    metrics::{
        Metrics,
        labels::{self, AcceptedTls},
    },
    process::{
        discovery::{PortPolicy, Versioned, Watched},
        rate_limit::Limits,
    },
};
use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Instant,
};
use weft_model::{
    Meta, ServerPolicy,
    decide::{
        admit::{Admission, admit},
        authorize::{Client, ClientTls, may_enter, permit},
        route::RequestView,
    },
    policy::{
        inbound::DefaultPolicy,
        route::{Filter, HttpMatch},
    },
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

/// Why a request is let in, and what is to be done with it.
pub(crate) struct Permit<'p> {
    pub(crate) route: &'p Meta,
    pub(crate) matches: &'p [HttpMatch],
    pub(crate) filters: &'p [Filter],
    pub(crate) by: &'p Meta,
}

/// Decides on a request. Refusals are counted here; the caller counts what it lets in.
///
/// # Errors
/// The request fits no route, or its route lets this client in nowhere.
pub(crate) fn request<'p>(
    metrics: &Metrics,
    connected: &Connected,
    policy: &'p ServerPolicy,
    port: u16,
    request: &dyn RequestView,
) -> Result<Permit<'p>, ProxyError> {
    let labels = || connected.labels().join(&labels::server(&policy.meta, port));
    match admit(policy, &connected.client(), request) {
        Admission::Permitted { route, matches, filters, by } => Ok(Permit { route, matches, filters, by }),
        Admission::Denied { route } => {
            metrics.counter(&metrics.http_deny, &labels().join(&labels::route(route))).inc();
            Err(ProxyError::new(Code::Unauthorized, "unauthorized request on route"))
        }
        Admission::NoRoute => {
            metrics.counter(&metrics.route_not_found, &labels()).inc();
            Err(ProxyError::new(Code::RouteNotFound, "no route found for request"))
        }
    }
}

/// Decides whether the port's rate limit has room for a request that was let in; if not, that is counted.
///
/// # Errors
/// It has none.
pub(crate) fn limit(
    metrics: &Metrics,
    connected: &Connected,
    policy: &ServerPolicy,
    port: u16,
    limits: &Limits,
    now: Instant,
) -> Result<(), ProxyError> {
    limits.admit(now).map_err(|exceeded| {
        let labels = connected
            .labels()
            .join(&labels::server(&policy.meta, port))
            .join(&labels::rate_limit(&limits.limit().meta, exceeded.scope));
        metrics.counter(&metrics.rate_limited, &labels).inc();
        ProxyError::new(Code::RateLimited, exceeded.to_string())
    })
}

/// Why nothing that `policy` is about can be let in: it asks for what this proxy does not do.
pub(crate) fn unsupported(policy: &ServerPolicy, port: u16) -> Option<ProxyError> {
    policy.unsupported().map(|what| {
        let text = format!("the policy of port {port} asks for what this proxy does not carry out: {what}");
        ProxyError::new(Code::PolicyUnsupported, text)
    })
}

/// Decides on a connection that is forwarded as bytes. Returns the version of the policy that let it in.
///
/// # Errors
/// The policy lets this client in nowhere.
pub(super) fn connection(wiring: &Wiring, connected: &Connected, port: &PortPolicy) -> Result<u64, ProxyError> {
    let policy = port.policy.load();
    if let Some(refusal) = unsupported(&policy.value, port.port) {
        return Err(refusal);
    }
    let metrics = &wiring.metrics;
    let server = labels::server(&policy.value.meta, port.port);
    match permit(&policy.value.authorizations, &connected.client()) {
        Some(by) => {
            audit(connected, by);
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
    let mut seen = permitted_by;
    loop {
        let policy = changed(&port.policy, seen).await;
        seen = policy.version;
        if permit(&policy.value.authorizations, &connected.client()).is_none() {
            let metrics = &wiring.metrics;
            let labels = labels::server(&policy.value.meta, port.port).join(&connected.labels());
            metrics.counter(&metrics.tcp_terminate, &labels).inc();
            return;
        }
    }
}

/// Returns once a newer policy lets the client in nowhere, neither by the server nor by a route. May be dropped at any time.
///
/// A route that is closed to a client that may still use others is asked anew for each request, and ends none that is open.
pub(super) async fn shut_out(wiring: &Wiring, connected: &Connected, port: &PortPolicy) {
    let mut seen = port.policy.version();
    loop {
        let policy = changed(&port.policy, seen).await;
        seen = policy.version;
        if !may_enter(&policy.value, &connected.client()) {
            let metrics = &wiring.metrics;
            let labels = labels::server(&policy.value.meta, port.port).join(&connected.labels());
            metrics.counter(&metrics.tcp_terminate, &labels).inc();
            return;
        }
    }
}

/// Waits for another version than `seen`. It is polled whenever anything happens on the connection, so that it takes the lock of
/// those who wait once and compares versions after that.
async fn changed<T>(watched: &Watched<T>, seen: u64) -> Arc<Versioned<T>> {
    let mut changed = pin!(watched.changed(seen));
    let mut known: Option<Waker> = None;
    poll_fn(|cx| {
        if known.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) && watched.version() == seen {
            return Poll::Pending;
        }
        known = Some(cx.waker().clone());
        changed.as_mut().poll(cx)
    })
    .await
}

/// Says whom only the audit policy lets in: `deny` would not.
pub(super) fn audit(connected: &Connected, by: &Meta) {
    if *by == Meta::default_named(DefaultPolicy::Audit.as_str()) {
        let id = connected.tls.identity().map(ToString::to_string).unwrap_or_default();
        tracing::info!(client = %connected.client, id, target = %connected.target, "Let in by the audit policy alone");
    }
}

fn denied(connected: &Connected) -> ProxyError {
    ProxyError::new(Code::Unauthorized, format!("unauthorized connection on port {}", connected.target.port()))
}
