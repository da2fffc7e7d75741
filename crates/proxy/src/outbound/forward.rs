//! The other fourth stage, for what is not HTTP: the route of the connection, an endpoint for all of it, then bytes both ways.

use super::{
    Outbound, Tcp,
    backends::Spread,
    balance::{Connections, Member, Pending},
    connect::{Connector, endpoint_labels},
    discover::{Snapshot, Target},
};
use crate::{
    carry,
    error::{Code, ProxyError},
    metrics::tcp_route::{Ended, Family, Open},
    records::{Passage, Why},
    server_first,
};
use std::{
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use weft_model::{
    DnsName, Endpoint,
    decide::route::find_tls,
    policy::{
        outbound::{ClientProtocol, TcpRoute},
        route::Filter,
    },
};
use weft_transport::Stream;

/// A connection to an endpoint, opened for bytes.
pub(super) struct Session {
    // Dropped in this order: when the connection counts as closed, so does that of its route.
    route: Open,
    _pending: Pending<Tcp>,
    member: Rc<Member<Tcp>>,
    why: Rc<Why>,
    pub(super) stream: Stream,
}

impl Tcp {
    pub(super) fn new(wiring: &Rc<super::Wiring>, endpoint: &Endpoint, authority: Option<&str>) -> Self {
        let labels = endpoint_labels(endpoint, authority, wiring.is_local(endpoint));
        Self(Connector::new(wiring, endpoint, &labels))
    }
}

impl Connections for Tcp {
    /// Connecting ahead would be seen by the application, so an endpoint is tried by the next connection.
    async fn revive(&self) -> Result<bool, ProxyError> {
        Ok(false)
    }

    fn retire(&self) {}
}

/// Opens a session for a connection that is not HTTP; `sni` is the server name by which TLS is routed.
///
/// # Errors
/// No route takes the connection, the route refuses it, or no endpoint could be connected.
pub(super) async fn open(outbound: &Outbound, target: &Target, sni: Option<&DnsName>) -> Result<Session, ProxyError> {
    let snapshot = target.snapshot();
    // TLS that is routed by name follows the policy alone.
    let split = snapshot.split(sni.is_some())?;
    let by_policy = route(outbound, &snapshot, sni);
    let by_profile = split.map(|route| (&outbound.wiring.tcp_routes.tcp, route));
    let (family, route) = by_profile.or(by_policy).ok_or_else(|| {
        let what = sni.map_or("what is not HTTP", DnsName::as_str);
        ProxyError::new(Code::RouteNotFound, format!("no route of {} takes {what}", target.found.key))
    })?;
    let (series, spread) = snapshot.bytes(route, family, outbound);
    let route_open = series.open(sni);
    // A profile that leads elsewhere does not let in whom the policy keeps out.
    if let Err((ended, refusal)) = by_policy.map_or(Ok(()), |(_, route)| permit(route)) {
        route_open.ended(ended);
        return Err(refusal);
    }
    match endpoint(&spread, outbound.wiring.context.config.outbound.tcp_queue.failfast).await {
        Ok((stream, pending, member)) => {
            let why = Why { route: Some(route.meta.clone()), ..(*snapshot.parent).clone() };
            Ok(Session { route: route_open, _pending: pending, member, why: Rc::new(why), stream })
        }
        Err(error) => {
            // What is wrong with the route was found out above.
            let invalid = error.code == Code::BackendInvalid;
            route_open.ended(if invalid { Ended::InvalidBackend } else { Ended::Unexpected });
            Err(error)
        }
    }
}

fn route<'s>(
    outbound: &'s Outbound,
    snapshot: &'s Snapshot,
    sni: Option<&DnsName>,
) -> Option<(&'s Family, &'s TcpRoute)> {
    let families = &outbound.wiring.tcp_routes;
    match (&snapshot.policy.value.protocol, sni) {
        (ClientProtocol::Tls(routes), Some(sni)) => Some((&families.tls, &find_tls(routes, sni.as_str())?.route)),
        (ClientProtocol::Detect { opaque, .. } | ClientProtocol::Opaque(opaque), _) => {
            Some((&families.tcp, opaque.as_ref()?))
        }
        _ => None,
    }
}

impl Session {
    /// Forwards until both sides have ended, or until `cut` is ready.
    pub(super) async fn forward(
        mut self,
        mut client: Stream,
        target: &Target,
        cut: impl Future<Output = ()>,
        passage: &mut Passage,
    ) {
        let since = passage.elapsed();
        let forwarded = passage.forwarded();
        forwarded.opened(Rc::clone(&self.why), Some(&self.member.endpoint), since);
        if let Err(error) = carry::bytes(&mut client, &mut self.stream, forwarded, cut).await {
            self.route.ended(Ended::Unexpected);
            tracing::debug!(%error, target = %target.found.key, "forwarding ended");
        }
    }

    /// Ends a session on which nothing was said.
    pub(super) fn close_unused(self) {
        server_first::close(self.stream);
    }
}

/// Tries endpoints, each at most once, until one is connected, a fixed one fails, or the failfast timeout is over. Those that
/// could not be connected lately come last, but are tried: nothing else finds out that they are back.
async fn endpoint(
    spread: &Spread<Tcp>,
    failfast: Duration,
) -> Result<(Stream, Pending<Tcp>, Rc<Member<Tcp>>), ProxyError> {
    let begun = Instant::now();
    let mut tried: Vec<SocketAddr> = vec![];
    let mut last = None;
    loop {
        let chosen = spread.choose(tried.is_empty())?;
        let member = match spread.untried(chosen, &tried).await? {
            Some(member) => member,
            None => return Err(last.unwrap_or_else(none_left)),
        };
        let pending = member.begin();
        let start = Instant::now();
        match member.connections.0.connect(None).await {
            Ok(stream) => {
                member.connected();
                member.responded(Instant::now(), start.elapsed());
                return Ok((stream, pending, member));
            }
            Err(error) if spread.failed(chosen, &member, &error) && begun.elapsed() < failfast => {
                tracing::debug!(endpoint = %member.endpoint.addr, %error, "another endpoint is tried");
                tried.push(member.endpoint.addr);
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
}

fn none_left() -> ProxyError {
    ProxyError::new(Code::ConnectFailed, "no endpoint is left to be tried")
}

fn permit(route: &TcpRoute) -> Result<(), (Ended, ProxyError)> {
    let invalid = |text: String| (Ended::InvalidPolicy, ProxyError::new(Code::PolicyUnsupported, text));
    match route.filters.first() {
        None => Ok(()),
        Some(Filter::Forbidden) => {
            Err((Ended::Forbidden, ProxyError::new(Code::Unauthorized, "the route forbids the connection")))
        }
        Some(Filter::Invalid(why)) => Err(invalid(format!("the route is invalid: {why}"))),
        Some(_) => Err(invalid("the route has a filter that is for requests".into())),
    }
}
