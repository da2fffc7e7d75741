//! Whether a client may use a port, as the policy says now; each answer is counted with the object behind it. For requests
//! [`super::admit`] asks more.

use super::{
    Wiring,
    connected::{Connected, audit, denied, reason, unsupported},
};
use crate::{
    error::ProxyError,
    metrics::labels,
    process::discovery::{PortPolicy, Versioned, Watched},
    records::{Passage, Why},
};
use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
};
use weft_model::decide::authorize::{may_enter, permit};

/// By which version of the policy a connection was let in, and why.
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) why: Rc<Why>,
}

/// Decides on a connection that is forwarded as bytes. Its record is told why, also if it is refused.
///
/// # Errors
/// The policy lets this client in nowhere.
pub(super) fn connection(
    wiring: &Wiring,
    connected: &Connected,
    port: &PortPolicy,
    passage: &mut Passage,
) -> Result<Entry, ProxyError> {
    let policy = port.policy.snapshot();
    let by = permit(&policy.value.authorizations, &connected.client());
    let why = Rc::new(reason(&policy.value, None, by));
    passage.forwarded().why = Some(Rc::clone(&why));
    if let Some(refusal) = unsupported(&policy.value, port.port) {
        return Err(refusal);
    }
    let metrics = &wiring.metrics;
    let server = labels::server(&policy.value.meta, port.port);
    match by {
        Some(by) => {
            audit(connected, by);
            let labels = server.join(&labels::authorization(by)).join(&connected.labels());
            metrics.counter(&metrics.tcp_allow, &labels).inc();
            Ok(Entry { version: policy.version, why })
        }
        None => {
            metrics.counter(&metrics.tcp_deny, &server.join(&connected.labels())).inc();
            Err(denied(connected))
        }
    }
}

/// Whether the policy may let requests of this client in, as it stands: what they ask for is not looked at.
pub(super) fn enters(connected: &Connected, port: &PortPolicy) -> bool {
    let policy = port.policy.snapshot();
    policy.value.unsupported().is_none() && may_enter(&policy.value, &connected.client())
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
