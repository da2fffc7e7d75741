//! Fourth stage, per request: the rule that it follows, a backend of the rule, and a connected endpoint of the backend.
//!
//! ```text
//! head ─► snapshot ─► rule ─► filters ─► backend ─► its filters ─► endpoint ─► connect ─┬─► Lease, Record
//!                                           ▲                                           │
//!                                           └─────────────── another one ◄──────────────┘ failed: no byte of the request
//!                                                                                         has gone out
//! ```

use super::{
    Http, Outbound,
    backends::Branch,
    balance::{Member, Picked, Ticket},
    detect,
    discover::{Found, Ruled, Snapshot, Target},
    endpoint::Lease,
    ingress,
    mirror::{self, Changed},
    profile::Tried,
    record::Record,
    retry::Asked,
};
use crate::{
    answers::{Answer, Answers},
    error::{Code, ProxyError},
    exchange::{self, Carrier, Course, Directed, Director, Edits},
    filter::{self, Rewritten},
    metrics::{
        Failed,
        route::{Backend, Kind, Route, Status},
    },
    profile,
    protocol::Protocol,
    protocol::Version,
    records::{Follower, Scene},
};
use std::{
    cell::Cell,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};
use weft_model::{
    decide::route::{RequestView, find, find_grpc},
    names::header,
    policy::{
        outbound::ClientProtocol,
        route::{Filter, HttpMatch, Rule},
    },
};

/// Decides the requests of one accepted connection.
pub(crate) struct Requests {
    outbound: Rc<Outbound>,
    target: Rc<Target>,
    protocol: Protocol,
    scene: Rc<Scene>,
    /// The newest snapshot that has routes for this connection's protocol: it was chosen when the connection began, and a
    /// policy that changes its kind changes only later connections.
    routed: Cell<Option<Rc<Snapshot>>>,
    /// A request may name another target, in ingress mode.
    names: bool,
    answers: Option<Rc<Answers>>,
}

/// What a request follows.
struct Followed<'s> {
    ruled: Rc<Ruled>,
    /// Empty where they are of gRPC, or of a profile.
    matches: &'s [HttpMatch],
    filters: &'s [Filter],
    /// The profile's route, and the name that it has for the target.
    profile: Option<(&'s profile::Route, &'s Rc<str>)>,
}

/// A branch that is open to a request.
struct Open<'s> {
    branch: &'s Branch<Http>,
    lease: Lease,
    member: Rc<Member<Http>>,
    carrier: Carrier,
    backend: Option<Rc<Backend>>,
    ticket: Option<Ticket>,
}

/// A request of a route that is not on its way yet. If this attempt never is, and no other follows, the route counts the request
/// by what the client is told.
struct Waiting<'c> {
    course: &'c Course,
    began: Instant,
    series: Option<Rc<Route>>,
}

/// A request of a route none of whose attempts was ever on its way.
struct Unsent {
    began: Instant,
    series: Rc<Route>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(series) = self.series.take() {
            self.course.follow(|| Unsent { began: self.began, series });
        }
    }
}

impl exchange::Followed for Unsent {
    fn given_up(&self, error: &ProxyError) {
        self.series.ended(Status::failed(error), self.began.elapsed());
    }
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
        let routed = Cell::new(Some(target.snapshot()));
        let answers = detect::learning(&outbound, &target);
        Self { outbound, target, protocol, scene, routed, names: true, answers }
    }

    /// Those of a peer for which this proxy is a gateway to `target`: they never name another one.
    pub(super) fn forwarded(outbound: Rc<Outbound>, target: Rc<Target>, protocol: Protocol, scene: Rc<Scene>) -> Self {
        Self { names: false, ..Self::new(outbound, target, protocol, scene) }
    }

    fn snapshot(&self) -> Rc<Snapshot> {
        let newest = self.target.snapshot();
        let routed = match self.routed.take() {
            Some(routed) if !newest.is_http() => routed,
            _ => newest,
        };
        self.routed.set(Some(Rc::clone(&routed)));
        routed
    }

    /// What a `request` to `target` follows: the profile, or a rule of the policy.
    fn follow<'s>(
        &self,
        target: &Target,
        snapshot: &'s Snapshot,
        request: &dyn RequestView,
        follower: &mut Follower,
    ) -> Result<Followed<'s>, ProxyError> {
        follower.why(&snapshot.parent);
        let Outbound { wiring, http, .. } = &*self.outbound;
        if let Some(profiled) = snapshot.profiled()? {
            let route = profiled.routes.find(request, &wiring.metrics);
            let profile = route.map(|route| (route, &profiled.canonical));
            let ruled = snapshot.http_profiled(profiled, http);
            return Ok(Followed { ruled, matches: &[], filters: &[], profile });
        }
        let found = snapshot
            .rule(self.protocol, request)
            .ok_or_else(|| ProxyError::new(Code::RouteNotFound, format!("no route of {} matches", target.found.key)))?;
        let ruled = snapshot.http(found, wiring, http);
        follower.why(&ruled.why);
        Ok(Followed { ruled, matches: found.matches, filters: found.filters, profile: None })
    }
}

impl Snapshot {
    fn is_http(&self) -> bool {
        !matches!(self.policy.value.protocol, ClientProtocol::Opaque(_) | ClientProtocol::Tls(_))
    }

    fn rule(&self, protocol: Protocol, request: &dyn RequestView) -> Option<Found<'_>> {
        let routes = match &self.policy.value.protocol {
            ClientProtocol::Detect { http1, .. } if protocol == Protocol::Http1 => http1,
            ClientProtocol::Detect { http2, .. } => http2,
            ClientProtocol::Http1(routes) | ClientProtocol::Http2(routes) => routes,
            ClientProtocol::Grpc { routes, breaker } => {
                let (route, Rule { matches: _, filters, does: rule }) = find_grpc(routes, request)?;
                let (route, breaker) = (&route.meta, breaker.as_ref());
                return Some(Found { route, matches: &[], filters, rule, kind: Kind::Grpc, breaker });
            }
            ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => return None,
        };
        let (route, Rule { matches, filters, does: rule }) = find(&routes.routes, request)?;
        let (route, breaker) = (&route.meta, routes.breaker.as_ref());
        Some(Found { route, matches, filters, rule, kind: Kind::Http, breaker })
    }
}

impl Director for Requests {
    type Endpoint = Lease;
    type Record = ((Record, Answer), Follower);

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Lease, Self::Record>, ProxyError> {
        let mut follower = self.outbound.wiring.records.follow(&self.scene, request, version);
        // Here, and not left to who asks: the record says what it was too late with.
        let decided = course.in_time(pin!(self.decide(request, version, course, &mut follower))).await.flatten();
        follower.decided(request, decided)
    }

    fn informational_headers(&self) -> bool {
        self.outbound.wiring.context.config.outbound.informational_headers
    }

    fn head_timeout(&self) -> Duration {
        self.outbound.wiring.context.config.outbound.head_timeout
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
    ) -> Result<Directed<Lease, (Record, Answer)>, ProxyError> {
        let permit = self.outbound.wiring.context.outbound_in_flight.admit()?;
        let ingress = self.outbound.wiring.context.config.outbound.ingress;
        // Boxed: hardly any proxy is an ingress's. A gateway's peers name no target but the one that was checked.
        let named =
            if ingress && self.names { Box::pin(ingress::target(&self.outbound, request)).await? } else { None };
        let target = named.as_deref().unwrap_or(&self.target);
        let snapshot = named.as_deref().map_or_else(|| self.snapshot(), Target::snapshot);
        let Followed { ruled, matches, filters, profile } = self.follow(target, &snapshot, request, follower)?;
        let began = follower.began();
        // Until the request is on its way, whatever ends it counts here.
        let series = ruled.series.as_ref().map(|series| series.of(|| request.authority()));
        let mut waiting = Waiting { course, began, series };
        let to = &target.found.key;
        filter::permit(filters, request, matches, to, course.is_first())?;
        if let Some(asked) = &ruled.asked {
            asked.agree(request, began, course);
        }
        let following = profile.map(|(route, _)| {
            let spread = &ruled.spread;
            route.agree(began, course, |retries| Rc::new(Tried { spread: Rc::clone(spread), retries }));
            route.follow(began, course)
        });
        let required = required_identity(request);
        let admit = |branch: &Branch<Http>, drawn: bool| {
            let permitted = filter::permit(&branch.filters, request, matches, to, course.is_first() && !drawn);
            // By a filter Linkerd's control plane says why there is no such backend.
            permitted.map_err(|error| if branch.is_missing() { error.because(Code::BackendInvalid) } else { error })?;
            // Before a connection is taken, which would be given up with the request.
            branch.changes.rewrite(request, matches).map(drop)
        };
        let opened = connect(&ruled, course.is_first(), admit, |member| {
            follower.endpoint(&member.endpoint);
            required.as_deref().map_or(Ok(()), |id| require(member, id))?;
            Ok(member.connections.carrier(version, request.is_upgrade()))
        })
        .await;
        let Open { branch, lease, member, carrier, backend, ticket } = match opened {
            Ok(open) => open,
            Err(error) => {
                following.into_iter().for_each(|following| following.failed(&error));
                return Err(error);
            }
        };
        let rewritten = branch.changes.rewrite(request, matches)?;
        let changed = Changed { headers: &branch.changes, rewritten: &rewritten };
        mirror::take(&branch.mirrors, request, version, changed, course);
        let Rewritten { authority: host, target } = rewritten;
        // An endpoint that is found by an authority of its own needs that one.
        let overridden = member.connections.authority_override();
        let is_overridden = overridden.is_some();
        let authority = overridden.or(host);
        let canonical = profile.filter(|_| !is_overridden).map(|(_, name)| (header::DST_CANONICAL, Rc::clone(name)));
        Ok(Directed {
            endpoint: lease,
            carrier,
            edits: branch.changes.edit(Edits {
                remove: removed(ingress, is_overridden),
                remove_asked: ruled.asked.as_ref().map_or(&[], Asked::removed),
                set: canonical.into_iter().collect(),
                authority,
                target,
                strip_mesh_response: member.endpoint.tls.is_some(),
                heed_close: member.connections.heeds_close(),
                ..Edits::default()
            }),
            record: (
                Record::new(
                    profile::Record::new(
                        member.connections.series().begin(began, permit, course.is_counted()),
                        following,
                    ),
                    Rc::clone(&member),
                    began,
                    waiting.series.take(),
                    backend,
                    ticket,
                ),
                // Another target's answer says nothing of this one's port.
                Answer(self.answers.clone().filter(|_| named.is_none())),
            ),
        })
    }
}

/// Tries endpoints until one is connected, a fixed one fails, or none has been ready for the failfast timeout. `first` says that
/// the request was not attempted before; `admit` is also told whether the branch was chosen before.
async fn connect<'s>(
    ruled: &'s Ruled,
    first: bool,
    admit: impl Fn(&Branch<Http>, bool) -> Result<(), ProxyError>,
    mut carrier: impl FnMut(&Member<Http>) -> Result<Carrier, ProxyError>,
) -> Result<Open<'s>, ProxyError> {
    // What is drawn for a branch is drawn once, however many of its endpoints are tried.
    let mut tried = Vec::new();
    loop {
        let chosen = ruled.spread.choose(first && tried.is_empty())?;
        let branch = ruled.spread.branch(chosen)?;
        admit(branch, tried.contains(&chosen))?;
        let Picked { member, ticket } = ruled.spread.next(chosen).await?;
        let carrier = carrier(&member)?;
        match Lease::new(Rc::clone(&member), carrier).await {
            Ok(lease) => {
                let backend = ruled.backends.get(chosen).cloned();
                return Ok(Open { branch, lease, member, carrier, backend, ticket });
            }
            Err(error) if ruled.spread.failed(chosen, &member, &error) => {
                tracing::debug!(endpoint = %member.endpoint.addr, %error, "another endpoint is tried");
                if !tried.contains(&chosen) {
                    tried.push(chosen);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::route::{Families, Hosts};
    use weft_model::Meta;
    use weft_telemetry::{Registry, Shard};

    #[test]
    fn a_request_whose_attempts_all_fail_counts_once_and_one_that_succeeds_not_here() {
        let registry = Registry::new(1, 100);
        let (parent, route) = (Meta::default_named("p"), Meta::default_named("r"));
        let hosts = Families::new(&registry, Kind::Http).route(Shard::worker(0), &parent, &route, false);
        fn attempt<'c>(course: &'c Course, hosts: &Hosts) -> Waiting<'c> {
            Waiting { course, began: Instant::now(), series: Some(hosts.of(|| None)) }
        }
        let counted = || registry.encode().lines().filter(|l| l.contains("request_statuses_total{")).count();
        let course = Course::default();
        drop(attempt(&course, &hosts));
        attempt(&course, &hosts).series.take();
        drop(course);
        assert_eq!(counted(), 0);
        let course = Course::default();
        drop(attempt(&course, &hosts));
        drop(attempt(&course, &hosts));
        course.give_up(&ProxyError::new(Code::Failfast, ""));
        let text = registry.encode();
        let lines: Vec<_> = text.lines().filter(|l| l.contains("request_statuses_total{")).collect();
        assert!(lines.len() == 1 && lines[0].ends_with("error=\"FAIL_FAST\"} 1"), "{lines:?}");
    }
}
