//! Fourth stage, per request: the route that it follows, whether the client may use it, and what the route's filters say.

use super::{
    Inbound,
    admit::{Admissions, Asked, Door, LetIn, Permit},
    authorize,
    connected::Connected,
    forward::{App, Lease},
    profile, server_first,
};
use crate::{
    answers::{Answer, Answers},
    error::ProxyError,
    exchange::{Carrier, Course, Departure, Directed, Director, Edits},
    filter::{self, Changes},
    metrics::{Metrics, http::Series, inbound},
    process::discovery::PortPolicy,
    profile::Record,
    protocol::Version,
    records::{Follower, Scene},
};
use smallvec::SmallVec;
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_model::{ServerPolicy, decide::route::RequestView, names::header};
use weft_telemetry::Labels;

/// Decides the requests of one accepted connection.
pub(super) struct Requests {
    inbound: Rc<Inbound>,
    admissions: Admissions<Handles>,
    scene: Rc<Scene>,
    /// What the application is told of the client.
    client_id: Option<Rc<str>>,
    app: Rc<App>,
    /// For a client without a proxy.
    departure: Option<Rc<Departure>>,
    answers: Option<Rc<Answers>>,
    last_profile: profile::Last,
}

/// What requests have in common that follow one rule by one authorization.
pub(super) struct Handles {
    series: Rc<Series>,
    of_route: Rc<inbound::Series>,
    changes: Changes,
}

/// Who is told of a request.
type Recorded = ((Record, inbound::Recorder), Answer);

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
        let departure = (!connected.tls.is_meshed()).then(|| Rc::clone(app.departure()));
        Self {
            departure,
            client_id: connected.tls.identity().map(|id| Rc::from(id.as_str())),
            answers: server_first::learning(&inbound, connected.target, &port),
            admissions: Admissions::new(port, connected, inbound.now()),
            inbound,
            scene,
            app,
            last_profile: profile::Last::default(),
        }
    }

    fn admit(
        &self,
        request: &dyn RequestView,
        course: &Course,
        follower: &mut Follower,
    ) -> Result<Rc<LetIn<Handles>>, ProxyError> {
        let named = self.inbound.wiring.context.config.inbound.authority_labels.then(|| logical(request));
        let asked = Asked { request, first: course.is_first(), authority: named.as_deref() };
        self.admissions.admit(self, &asked, &mut |why| follower.why(why))
    }
}

impl Door for Requests {
    type Handles = Handles;

    fn metrics(&self) -> &Metrics {
        &self.inbound.wiring.metrics
    }

    fn now(&self) -> Instant {
        self.inbound.now()
    }

    fn handles(&self, policy: &ServerPolicy, permit: &Permit<'_>, labels: &Labels, authority: Option<&str>) -> Handles {
        let metrics = self.metrics();
        let direction = Labels::new().with("direction", "inbound");
        let direction = authority.into_iter().fold(direction, |all, authority| all.with("authority", authority));
        Handles {
            series: metrics.http.series(metrics.shard, direction.join(labels)),
            of_route: metrics.inbound.series(metrics.shard, policy, self.admissions.port().port, permit.route),
            changes: Changes::new(permit.filters, &[]),
        }
    }

    fn filters(&self, permit: &Permit<'_>, asked: &Asked<'_>) -> Result<(), ProxyError> {
        let target = &self.admissions.connected().target;
        filter::permit(permit.filters, asked.request, permit.matches, target, asked.first)
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

impl Director for Requests {
    type Endpoint = Lease;
    type Record = (Recorded, Follower);

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
        authorize::shut_out(&self.inbound.wiring, self.admissions.connected(), self.admissions.port()).await;
    }

    fn head_timeout(&self) -> Duration {
        self.inbound.wiring.context.config.inbound.head_timeout
    }

    fn malformed(&self, error: &ProxyError, version: Version) {
        self.inbound.wiring.records.malformed(&self.scene, version, error);
        self.refused(error);
    }

    fn departure(&self) -> Option<&Rc<Departure>> {
        self.departure.as_ref()
    }

    fn refused(&self, error: &ProxyError) {
        let connected = self.admissions.connected();
        self.inbound.wiring.refused(&connected.target, connected, error);
    }
}

impl Requests {
    async fn decide(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
        follower: &mut Follower,
    ) -> Result<Directed<Lease, Recorded>, ProxyError> {
        let in_flight = self.inbound.wiring.context.inbound_in_flight.admit()?;
        let Handles { series, of_route, changes } = &self.admit(request, course, follower)?.handles;
        let Inbound { wiring, profiles, .. } = &*self.inbound;
        let (began, counted) = (follower.began(), course.is_counted());
        let following = profile::follow(wiring, profiles, &self.last_profile, request, began, course).await;
        let meshed = self.admissions.connected().tls.is_meshed();
        let carried = meshed && version == Version::Http2 && request.header(header::ORIG_PROTO, &mut |_| true);
        let set: SmallVec<_> = self.client_id.iter().map(|id| (header::CLIENT_ID, Rc::clone(id))).collect();
        Ok(Directed {
            endpoint: Lease::new(Rc::clone(&self.app)),
            carrier: if version == Version::Http2 && !carried { Carrier::Http2 } else { Carrier::Http1 },
            edits: changes.edit(Edits {
                remove: if meshed { REMOVED } else { REMOVED_UNMESHED },
                set,
                restore_orig_proto: carried,
                pass_close: !meshed,
                ..Edits::default()
            }),
            record: (
                (Record::new(series.begin(began, in_flight, counted), following), of_route.begin(began, counted)),
                Answer(self.answers.clone()),
            ),
        })
    }
}
