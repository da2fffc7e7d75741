//! The other fourth stage, for what is not HTTP: an endpoint for the whole connection, then bytes both ways.

use super::{
    Outbound, Tcp,
    backends::Spread,
    balance::{Connections, Pending},
    connect::{Connector, endpoint_labels},
    discover::Target,
};
use crate::error::{Code, ProxyError};
use std::{rc::Rc, time::Instant};
use weft_model::{
    Endpoint,
    policy::{
        outbound::{ClientProtocol, TcpRoute},
        route::Filter,
    },
};
use weft_transport::{Stream, copy, drain};

impl Tcp {
    pub(super) fn new(wiring: &Rc<super::Wiring>, endpoint: &Endpoint, authority: Option<&str>) -> Self {
        let labels = endpoint_labels(endpoint, authority, wiring.is_local(endpoint));
        Self(Connector::new(wiring, endpoint, &labels))
    }
}

impl Connections for Tcp {
    /// Connecting ahead would be seen by the application, so an endpoint is tried by the next connection.
    async fn revive(&self) -> Result<(), ProxyError> {
        Ok(())
    }

    fn retire(&self) {}
}

/// Forwards until both sides have ended, or the drain's deadline has passed.
///
/// # Errors
/// The policy refuses the connection, or no endpoint could be connected.
pub(super) async fn forward(
    outbound: &Outbound,
    target: &Target,
    mut stream: Stream,
    drain: &drain::Watch,
) -> Result<(), ProxyError> {
    let (mut server, _pending) = match Box::pin(connect(outbound, target)).await {
        Ok(connected) => connected,
        Err(error) => {
            stream.reset_on_close();
            return Err(error);
        }
    };
    tokio::select! {
        outcome = copy::duplex(&mut stream, &mut server, |_, _| {}) => {
            if let Err(error) = outcome.result {
                tracing::debug!(%error, target = %target.found.addr, "forwarding ended");
            }
        }
        // The process ends: what is still open is cut off.
        () = drain.closing() => stream.reset_on_close(),
    }
    Ok(())
}

async fn connect(outbound: &Outbound, target: &Target) -> Result<(Stream, Pending<Tcp>), ProxyError> {
    let snapshot = target.snapshot();
    if let Some(refusal) = &snapshot.refusal {
        return Err(refusal.clone());
    }
    let route = match &snapshot.policy.value.protocol {
        ClientProtocol::Detect { opaque, .. } | ClientProtocol::Opaque(opaque) => opaque.as_ref(),
        _ => None,
    };
    let route = route.ok_or_else(|| {
        ProxyError::new(Code::RouteNotFound, format!("no route of {} takes what is not HTTP", target.found.addr))
    })?;
    permit(route)?;
    endpoint(&snapshot.tcp(route, &outbound.tcp)).await
}

/// Tries endpoints until one is connected, a fixed one fails, or none has been ready for the failfast timeout.
async fn endpoint(spread: &Spread<Tcp>) -> Result<(Stream, Pending<Tcp>), ProxyError> {
    loop {
        let choice = spread.choose()?;
        let member = choice.next().await?;
        let pending = member.begin();
        let start = Instant::now();
        match member.connections.0.connect(None).await {
            Ok(stream) => {
                member.connected();
                member.responded(Instant::now(), start.elapsed());
                return Ok((stream, pending));
            }
            Err(error) if choice.failed(&member, &error) => {
                tracing::debug!(endpoint = %member.endpoint.addr, %error, "another endpoint is tried");
            }
            Err(error) => return Err(error),
        }
    }
}

fn permit(route: &TcpRoute) -> Result<(), ProxyError> {
    match route.filters.first() {
        None => Ok(()),
        Some(Filter::Forbidden) => Err(ProxyError::new(Code::Unauthorized, "the route forbids the connection")),
        Some(Filter::Invalid(why)) => {
            Err(ProxyError::new(Code::PolicyUnsupported, format!("the route is invalid: {why}")))
        }
        Some(_) => Err(ProxyError::new(Code::PolicyUnsupported, "the route has a filter that is for requests")),
    }
}
