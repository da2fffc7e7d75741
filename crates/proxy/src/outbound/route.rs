//! Fourth stage, per request: the rule that it follows, a backend of the rule, and a connected endpoint of the backend.
//!
//! ```text
//! head ─► snapshot ─► rule ─► backend ─► endpoint ─► connect ─┬─► Lease
//!                                ▲                            │
//!                                └────── another one ◄────────┘ failed: no byte of the request has gone out
//! ```

use super::{
    Http, Outbound,
    backends::Spread,
    balance::Member,
    detect::Protocol,
    discover::{Found, Ruled, Snapshot, Target},
    endpoint::Lease,
    ingress,
};
use crate::{
    error::{Code, ProxyError},
    exchange::{Carrier, Course, Directed, Director, Edits, Version},
    metrics::{Failed, http::Recorder},
    records::{Follower, Scene},
};
use std::{cell::RefCell, rc::Rc};
use weft_model::{
    decide::route::{RequestView, find, find_grpc},
    names::header,
    policy::outbound::ClientProtocol,
};

/// Decides the requests of one accepted connection.
pub(crate) struct Requests {
    outbound: Rc<Outbound>,
    target: Rc<Target>,
    protocol: Protocol,
    scene: Rc<Scene>,
    /// The newest snapshot that has routes for this connection's protocol: it was chosen when the connection began, and a
    /// policy that changes its kind changes only later connections.
    routed: RefCell<Rc<Snapshot>>,
}

/// What the application says for this proxy alone.
const REMOVED: &[&str] = &[header::REQUIRE_ID];
/// In ingress mode this too.
const REMOVED_INGRESS: &[&str] = &[header::REQUIRE_ID, header::DST_OVERRIDE];
/// Where another authority is put in, this would contradict it (data plane 4.7).
const REMOVED_OVERRIDDEN: &[&str] = &[header::REQUIRE_ID, header::DST_CANONICAL];
const REMOVED_BOTH: &[&str] = &[header::REQUIRE_ID, header::DST_OVERRIDE, header::DST_CANONICAL];

fn removed(ingress: bool, overridden: bool) -> &'static [&'static str] {
    match (ingress, overridden) {
        (false, false) => REMOVED,
        (true, false) => REMOVED_INGRESS,
        (false, true) => REMOVED_OVERRIDDEN,
        (true, true) => REMOVED_BOTH,
    }
}

impl Requests {
    pub(super) fn new(outbound: Rc<Outbound>, target: Rc<Target>, protocol: Protocol, scene: Rc<Scene>) -> Self {
        let routed = RefCell::new(target.snapshot());
        Self { outbound, target, protocol, scene, routed }
    }

    fn snapshot(&self) -> Rc<Snapshot> {
        let newest = self.target.snapshot();
        if newest.is_http() {
            *self.routed.borrow_mut() = Rc::clone(&newest);
            return newest;
        }
        Rc::clone(&self.routed.borrow())
    }

    /// The rule that `request` follows; `named` is the target that it names itself.
    fn route(
        &self,
        request: &dyn RequestView,
        named: Option<&Target>,
        follower: &mut Follower,
    ) -> Result<Rc<Ruled>, ProxyError> {
        let target = named.unwrap_or(&self.target);
        let snapshot = named.map_or_else(|| self.snapshot(), Target::snapshot);
        follower.why(&snapshot.parent);
        if let Some(refusal) = &snapshot.refusal {
            return Err(refusal.clone());
        }
        let rule = snapshot
            .rule(self.protocol, request)
            .ok_or_else(|| ProxyError::new(Code::RouteNotFound, format!("no route of {} matches", target.found.key)))?;
        let ruled = snapshot.http(rule, &self.outbound.wiring, &self.outbound.http);
        follower.why(&ruled.why);
        Ok(ruled)
    }
}

impl Snapshot {
    fn is_http(&self) -> bool {
        !matches!(self.policy.value.protocol, ClientProtocol::Opaque(_) | ClientProtocol::Tls(_))
    }

    fn rule(&self, protocol: Protocol, request: &dyn RequestView) -> Option<Found<'_>> {
        let routes = match &self.policy.value.protocol {
            ClientProtocol::Detect { http1, .. } if protocol == Protocol::Http1 => &http1.routes,
            ClientProtocol::Detect { http2, .. } => &http2.routes,
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => &routes.routes,
            ClientProtocol::Grpc { routes, .. } => {
                let (route, rule) = find_grpc(routes, request)?;
                return Some(Found { route: &route.meta, rule: &rule.does, grpc: true });
            }
            ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => return None,
        };
        let (route, rule) = find(routes, request)?;
        Some(Found { route: &route.meta, rule: &rule.does, grpc: false })
    }
}

impl Director for Requests {
    type Endpoint = Lease;
    type Record = (Recorder, Follower);

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Lease, Self::Record>, ProxyError> {
        let mut follower = self.outbound.wiring.records.follow(&self.scene, request, version);
        let decided = self.decide(request, version, course, &mut follower).await;
        follower.decided(request, decided)
    }

    fn informational_headers(&self) -> bool {
        self.outbound.wiring.context.config.outbound.informational_headers
    }

    fn malformed(&self, error: &ProxyError, version: Version) {
        self.outbound.wiring.records.malformed(&self.scene, version, error);
        self.refused(error);
    }

    fn refused(&self, error: &ProxyError) {
        tracing::debug!(target = %self.target.found.key, %error, "request failed");
        self.outbound.wiring.metrics.failed(Failed::Request, error);
    }
}

impl Requests {
    async fn decide(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
        follower: &mut Follower,
    ) -> Result<Directed<Lease, Recorder>, ProxyError> {
        let permit = self.outbound.wiring.context.outbound_in_flight.admit()?;
        let ingress = self.outbound.wiring.context.config.outbound.ingress;
        // Boxed: hardly any proxy is an ingress's.
        let named = if ingress { Box::pin(ingress::target(&self.outbound, request)).await? } else { None };
        let ruled = self.route(request, named.as_deref(), follower)?;
        ruled.asked.agree(request, follower.began(), course);
        let upgrades =
            version != Version::Http2 && (request.method() == "CONNECT" || request.header("upgrade", &mut |_| true));
        let required = required_identity(request);
        let (endpoint, member, carrier) = connect(&ruled.spread, |member| {
            follower.endpoint(&member.endpoint);
            required.as_deref().map_or(Ok(()), |id| require(member, id))?;
            Ok(member.connections.carrier(version, upgrades))
        })
        .await?;
        let authority = member.connections.authority_override();
        Ok(Directed {
            endpoint,
            carrier,
            edits: Edits {
                remove: removed(ingress, authority.is_some()),
                remove_asked: ruled.asked.removed(),
                authority,
                strip_mesh_response: member.endpoint.tls.is_some(),
                heed_close: member.connections.heeds_close(),
                ..Edits::default()
            },
            record: member.connections.series().begin(follower.began(), permit),
        })
    }
}

/// Tries endpoints until one is connected, a fixed one fails, or none has been ready for the failfast timeout.
async fn connect(
    spread: &Spread<Http>,
    mut carrier: impl FnMut(&Member<Http>) -> Result<Carrier, ProxyError>,
) -> Result<(Lease, Rc<Member<Http>>, Carrier), ProxyError> {
    loop {
        let choice = spread.choose()?;
        let member = choice.next().await?;
        let carrier = carrier(&member)?;
        match Lease::new(Rc::clone(&member), carrier).await {
            Ok(lease) => return Ok((lease, member, carrier)),
            Err(error) if choice.failed(&member, &error) => {
                tracing::debug!(endpoint = %member.endpoint.addr, %error, "another endpoint is tried");
            }
            Err(error) => return Err(error),
        }
    }
}

/// The identity that the application asks the server to have.
fn required_identity(request: &dyn RequestView) -> Option<String> {
    let mut required = None;
    request.header(header::REQUIRE_ID, &mut |value| {
        required = Some(String::from_utf8_lossy(value).into_owned());
        true
    });
    required
}

fn require(member: &Member<Http>, id: &str) -> Result<(), ProxyError> {
    match &member.endpoint.tls {
        Some(tls) if tls.identity.as_str() == id => Ok(()),
        Some(tls) => Err(ProxyError::new(
            Code::IdentityMismatch,
            format!("the request requires the identity {id}, the endpoint has {}", tls.identity),
        )),
        None => Err(ProxyError::new(
            Code::IdentityMismatch,
            format!("the request requires the identity {id}, the endpoint has none"),
        )),
    }
}
