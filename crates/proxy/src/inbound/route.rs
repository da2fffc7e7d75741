//! Fourth stage, per request: the route that it follows, whether the client may use it, and what the route's filters say.

use super::{
    Inbound,
    authorize::{self, Connected, Permit},
    forward::{App, Lease},
    profile,
};
use crate::{
    error::ProxyError,
    exchange::{Carrier, Course, Directed, Director, Edits, Version},
    filter::{self, Changes},
    metrics::{Failed, http::Series, inbound, labels},
    process::{
        discovery::{PortPolicy, Versioned},
        rate_limit::Limits,
    },
    profile::Record,
    records::{Follower, Scene, Why},
};
use smallvec::SmallVec;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};
use weft_model::{
    Meta, ServerPolicy,
    decide::{
        admit::{Admission, admit},
        route::RequestView,
    },
    names::header,
    policy::route::Filter,
};
use weft_telemetry::{Counter, Labels};

/// Decides the requests of one accepted connection.
pub(super) struct Requests {
    inbound: Rc<Inbound>,
    port: Arc<PortPolicy>,
    connected: Connected,
    scene: Rc<Scene>,
    /// What the application is told of the client.
    client_id: Option<Rc<str>>,
    app: Rc<App>,
    current: RefCell<Rc<Snapshot>>,
    last_profile: profile::Last,
}

/// What one version of the policy says, and what was counted under it.
struct Snapshot {
    policy: Arc<Versioned<ServerPolicy>>,
    refusal: Option<ProxyError>,
    /// What this client's requests are measured by.
    limits: Option<Limits>,
    permitted: RefCell<Vec<(Decided, Rc<Permitted>)>>,
    /// The same where metrics name the authority, which clients choose: few are held.
    named: RefCell<Vec<(Decided, String, Rc<Permitted>)>>,
}

/// Route, its rule's filters, and authorization, by their addresses inside the policy or the program, which do not move
/// meanwhile.
type Decided = (*const Meta, *const Filter, *const Meta);

/// What requests have in common that follow one rule by one authorization.
struct Permitted {
    allowed: Counter,
    series: Rc<Series>,
    of_route: Rc<inbound::Series>,
    why: Rc<Why>,
    changes: Changes,
}

/// Authorities of one connection whose handles are held; those of more are looked up each time.
const MAX_NAMED: usize = 16;

/// Never believed from outside.
const REMOVED: &[&str] = &[header::CLIENT_ID];
/// Nor is this without the mesh.
const REMOVED_UNMESHED: &[&str] = &[header::CLIENT_ID, header::ORIG_PROTO];

impl Requests {
    pub(super) fn new(
        inbound: Rc<Inbound>,
        port: Arc<PortPolicy>,
        connected: Connected,
        scene: Rc<Scene>,
        app: Rc<App>,
    ) -> Self {
        Self {
            client_id: connected.tls.identity().map(|id| Rc::from(id.as_str())),
            current: RefCell::new(Rc::new(Snapshot::new(&port, &connected, inbound.now()))),
            inbound,
            port,
            connected,
            scene,
            app,
            last_profile: profile::Last::default(),
        }
    }

    fn snapshot(&self) -> Rc<Snapshot> {
        let mut current = self.current.borrow_mut();
        if current.policy.version != self.port.policy.version() {
            *current = Rc::new(Snapshot::new(&self.port, &self.connected, self.inbound.now()));
        }
        Rc::clone(&current)
    }

    fn permit(&self, request: &dyn RequestView, follower: &mut Follower) -> Result<Rc<Permitted>, ProxyError> {
        let snapshot = self.snapshot();
        if let Some(refusal) = &snapshot.refusal {
            return Err(refusal.clone());
        }
        let policy = &snapshot.policy.value;
        let metrics = &self.inbound.wiring.metrics;
        let permit = authorize::request(metrics, &self.connected, policy, self.port.port, request);
        let Permit { route, matches, filters, by } = permit.inspect_err(|_| {
            let refused = admit(policy, &self.connected.client(), request);
            let route = if let Admission::Denied { route } = refused { Some(route) } else { None };
            follower.why(&Rc::new(why(policy, route, None)));
        })?;
        let decided = (std::ptr::from_ref(route), filters.as_ptr(), std::ptr::from_ref(by));
        let permitted = if self.inbound.wiring.context.config.inbound.authority_labels {
            let authority = logical(request);
            snapshot.named(decided, &authority, || self.handles(policy, route, filters, by, Some(&authority)))
        } else {
            snapshot.permitted(decided, || self.handles(policy, route, filters, by, None))
        };
        follower.why(&permitted.why);
        permitted.allowed.inc();
        filter::permit(filters, request, matches, &self.connected.target)?;
        if let Some(limits) = &snapshot.limits {
            authorize::limit(metrics, &self.connected, policy, self.port.port, limits, self.inbound.now())?;
        }
        Ok(permitted)
    }

    fn handles(
        &self,
        policy: &ServerPolicy,
        route: &Meta,
        filters: &[Filter],
        by: &Meta,
        authority: Option<&str>,
    ) -> Permitted {
        authorize::audit(&self.connected, by);
        let metrics = &self.inbound.wiring.metrics;
        let labels = self
            .connected
            .labels()
            .join(&labels::server(&policy.meta, self.port.port))
            .join(&labels::route(route))
            .join(&labels::authorization(by));
        let direction = Labels::new().with("direction", "inbound");
        let direction = authority.into_iter().fold(direction, |all, authority| all.with("authority", authority));
        Permitted {
            allowed: metrics.counter(&metrics.http_allow, &labels),
            series: metrics.http.series(metrics.shard, direction.join(&labels)),
            of_route: metrics.inbound.series(metrics.shard, policy, self.port.port, route),
            why: Rc::new(why(policy, Some(route), Some(by))),
            changes: Changes::new(filters, &[]),
        }
    }
}

/// What the client's proxy says that the request is for, or what the request itself says.
fn logical(request: &dyn RequestView) -> String {
    let mut canonical = None;
    request.header(header::DST_CANONICAL, &mut |value| {
        canonical = std::str::from_utf8(value).ok().map(str::to_owned);
        true
    });
    canonical.unwrap_or_else(|| request.authority().unwrap_or_default().to_owned())
}

fn why(policy: &ServerPolicy, route: Option<&Meta>, by: Option<&Meta>) -> Why {
    Why { parent: policy.meta.clone(), route: route.cloned(), rule: None, authorization: by.cloned() }
}

impl Snapshot {
    fn new(port: &PortPolicy, connected: &Connected, now: Instant) -> Self {
        let policy = port.policy.snapshot();
        let limiter = port.limiter().filter(|_| policy.value.protocol.rate_limit().is_some());
        let limits = limiter.map(|limiter| limiter.of(connected.tls.identity(), now));
        let refusal = authorize::unsupported(&policy.value, port.port);
        Self { policy, refusal, limits, permitted: RefCell::default(), named: RefCell::default() }
    }

    fn permitted(&self, decided: Decided, new: impl FnOnce() -> Permitted) -> Rc<Permitted> {
        let mut held = self.permitted.borrow_mut();
        if let Some((_, permitted)) = held.iter().find(|(d, _)| *d == decided) {
            return Rc::clone(permitted);
        }
        let permitted = Rc::new(new());
        held.push((decided, Rc::clone(&permitted)));
        permitted
    }

    fn named(&self, decided: Decided, authority: &str, new: impl FnOnce() -> Permitted) -> Rc<Permitted> {
        let mut held = self.named.borrow_mut();
        if let Some((.., permitted)) = held.iter().find(|(d, a, _)| *d == decided && a == authority) {
            return Rc::clone(permitted);
        }
        let permitted = Rc::new(new());
        if held.len() < MAX_NAMED {
            held.push((decided, authority.to_owned(), Rc::clone(&permitted)));
        }
        permitted
    }
}

impl Director for Requests {
    type Endpoint = Lease;
    type Record = ((Record, inbound::Recorder), Follower);

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Lease, Self::Record>, ProxyError> {
        let mut follower = self.inbound.wiring.records.follow(&self.scene, request, version);
        let decided = self.decide(request, version, course, &mut follower).await;
        follower.decided(request, decided)
    }

    /// Only peers of the mesh are told: others could learn of the workload's inside.
    fn informational_headers(&self) -> bool {
        self.client_id.is_some()
    }

    async fn shut_out(&self) {
        authorize::shut_out(&self.inbound.wiring, &self.connected, &self.port).await;
    }

    fn malformed(&self, error: &ProxyError, version: Version) {
        self.inbound.wiring.records.malformed(&self.scene, version, error);
        self.refused(error);
    }

    fn refused(&self, error: &ProxyError) {
        let wiring = &self.inbound.wiring;
        let Connected { client, tls, target } = &self.connected;
        if let Some(left_out) = wiring.context.notices.take(error, std::time::Instant::now()) {
            let identity = tls.identity().map(tracing::field::display);
            tracing::info!(server = %target, %client, identity, %error, left_out, "request failed");
        } else {
            tracing::debug!(server = %target, %client, %error, "request failed");
        }
        wiring.metrics.failed(Failed::Request, error);
    }
}

impl Requests {
    async fn decide(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
        follower: &mut Follower,
    ) -> Result<Directed<Lease, (Record, inbound::Recorder)>, ProxyError> {
        let in_flight = self.inbound.wiring.context.inbound_in_flight.admit()?;
        let permitted = self.permit(request, follower)?;
        let Inbound { wiring, profiles, .. } = &*self.inbound;
        let began = follower.began();
        let following = profile::follow(wiring, profiles, &self.last_profile, request, began, course).await;
        let meshed = self.connected.tls.is_meshed();
        let carried = meshed && version == Version::Http2 && request.header(header::ORIG_PROTO, &mut |_| true);
        let set: SmallVec<_> = self.client_id.iter().map(|id| (header::CLIENT_ID, Rc::clone(id))).collect();
        Ok(Directed {
            endpoint: Lease::new(Rc::clone(&self.app)),
            carrier: if version == Version::Http2 && !carried { Carrier::Http2 } else { Carrier::Http1 },
            edits: permitted.changes.edit(Edits {
                remove: if meshed { REMOVED } else { REMOVED_UNMESHED },
                set,
                restore_orig_proto: carried,
                ..Edits::default()
            }),
            record: (Record::new(permitted.series.begin(began, in_flight), following), permitted.of_route.begin(began)),
        })
    }
}
