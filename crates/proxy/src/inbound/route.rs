//! Fourth stage, per request: the route that it follows, and whether the client may use it.

use super::{
    Inbound,
    authorize::{self, Connected, Permit},
    forward::{App, Lease},
};
use crate::{
    error::ProxyError,
    exchange::{Carrier, Course, Directed, Director, Edits, Version},
    metrics::{
        Failed,
        http::{Recorder, Series},
        labels,
    },
    process::{
        discovery::{PortPolicy, Versioned},
        rate_limit::Limits,
    },
};
use smallvec::SmallVec;
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};
use weft_model::{Meta, ServerPolicy, decide::route::RequestView, names::header};
use weft_telemetry::{Counter, Labels};

/// Decides the requests of one accepted connection.
pub(super) struct Requests {
    inbound: Rc<Inbound>,
    port: Arc<PortPolicy>,
    connected: Connected,
    /// What the application is told of the client.
    client_id: Option<Rc<str>>,
    app: Rc<App>,
    current: RefCell<Rc<Snapshot>>,
}

/// What one version of the policy says, and what was counted under it.
struct Snapshot {
    policy: Arc<Versioned<ServerPolicy>>,
    refusal: Option<ProxyError>,
    /// What this client's requests are measured by.
    limits: Option<Limits>,
    permitted: RefCell<Vec<(Decided, Rc<Permitted>)>>,
}

/// Route and authorization, by their addresses inside the policy or the program, which do not move meanwhile.
type Decided = (*const Meta, *const Meta);

/// Handles of requests that follow one route by one authorization.
struct Permitted {
    allowed: Counter,
    series: Rc<Series>,
}

/// Never believed from outside.
const REMOVED: &[&str] = &[header::CLIENT_ID];
/// Nor is this without the mesh.
const REMOVED_UNMESHED: &[&str] = &[header::CLIENT_ID, header::ORIG_PROTO];

impl Requests {
    pub(super) fn new(inbound: Rc<Inbound>, port: Arc<PortPolicy>, connected: Connected, app: Rc<App>) -> Self {
        Self {
            client_id: connected.tls.identity().map(|id| Rc::from(id.as_str())),
            current: RefCell::new(Rc::new(Snapshot::new(&port, &connected, inbound.now()))),
            inbound,
            port,
            connected,
            app,
        }
    }

    fn snapshot(&self) -> Rc<Snapshot> {
        let mut current = self.current.borrow_mut();
        if current.policy.version != self.port.policy.version() {
            *current = Rc::new(Snapshot::new(&self.port, &self.connected, self.inbound.now()));
        }
        Rc::clone(&current)
    }

    fn permit(&self, request: &dyn RequestView) -> Result<Rc<Permitted>, ProxyError> {
        let snapshot = self.snapshot();
        if let Some(refusal) = &snapshot.refusal {
            return Err(refusal.clone());
        }
        let policy = &snapshot.policy.value;
        let metrics = &self.inbound.wiring.metrics;
        let Permit { route, by, filters: _ } =
            authorize::request(metrics, &self.connected, policy, self.port.port, request)?;
        if let Some(limits) = &snapshot.limits {
            authorize::limit(metrics, &self.connected, policy, self.port.port, limits, self.inbound.now())?;
        }
        let decided = (std::ptr::from_ref(route), std::ptr::from_ref(by));
        let known = snapshot.permitted.borrow().iter().find(|(d, _)| *d == decided).map(|(_, p)| Rc::clone(p));
        let permitted = known.unwrap_or_else(|| {
            let permitted = Rc::new(self.handles(policy, route, by));
            snapshot.permitted.borrow_mut().push((decided, Rc::clone(&permitted)));
            permitted
        });
        permitted.allowed.inc();
        Ok(permitted)
    }

    fn handles(&self, policy: &ServerPolicy, route: &Meta, by: &Meta) -> Permitted {
        authorize::audit(&self.connected, by);
        let metrics = &self.inbound.wiring.metrics;
        let labels = self
            .connected
            .labels()
            .join(&labels::server(&policy.meta, self.port.port))
            .join(&labels::route(route))
            .join(&labels::authorization(by));
        Permitted {
            allowed: metrics.counter(&metrics.http_allow, &labels),
            series: metrics.http.series(metrics.shard, Labels::new().with("direction", "inbound").join(&labels)),
        }
    }
}

impl Snapshot {
    fn new(port: &PortPolicy, connected: &Connected, now: Instant) -> Self {
        let policy = port.policy.snapshot();
        let limiter = port.limiter().filter(|_| policy.value.protocol.rate_limit().is_some());
        let limits = limiter.map(|limiter| limiter.of(connected.tls.identity(), now));
        let refusal = authorize::unsupported(&policy.value, port.port);
        Self { policy, refusal, limits, permitted: RefCell::default() }
    }
}

impl Director for Requests {
    type Endpoint = Lease;
    type Record = Recorder;

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        _: &Course,
    ) -> Result<Directed<Lease, Recorder>, ProxyError> {
        let start = Instant::now();
        let in_flight = self.inbound.wiring.context.inbound_in_flight.admit()?;
        let permitted = self.permit(request)?;
        let meshed = self.connected.tls.is_meshed();
        let carried = meshed && version == Version::Http2 && request.header(header::ORIG_PROTO, &mut |_| true);
        let set: SmallVec<_> = self.client_id.iter().map(|id| (header::CLIENT_ID, Rc::clone(id))).collect();
        Ok(Directed {
            endpoint: Lease::new(Rc::clone(&self.app)),
            carrier: if version == Version::Http2 && !carried { Carrier::Http2 } else { Carrier::Http1 },
            edits: Edits {
                remove: if meshed { REMOVED } else { REMOVED_UNMESHED },
                set,
                restore_orig_proto: carried,
                ..Edits::default()
            },
            record: permitted.series.begin(start, in_flight),
        })
    }

    /// Only peers of the mesh are told: others could learn of the workload's inside.
    fn informational_headers(&self) -> bool {
        self.client_id.is_some()
    }

    async fn shut_out(&self) {
        authorize::shut_out(&self.inbound.wiring, &self.connected, &self.port).await;
    }

    fn refused(&self, error: &ProxyError) {
        tracing::debug!(target = %self.connected.target, %error, "request failed");
        self.inbound.wiring.metrics.failed(Failed::Request, error);
    }
}
