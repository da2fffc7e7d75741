//! Behind direct for a connection whose transport header names a target: the proxy is a gateway to it (data plane 3.9, 3.10).
//!
//! ```text
//! direct ─► policy of the gateway's own port ─► loop? ─► may this proxy forward there? ─► the outbound side's route
//! ```
//! What is behind the name is found out like that of outbound traffic, for whoever is let in. It must not forward what went through
//! here already, nor keep an answer that may be another one for the next request: peers keep their connections.

use super::{
    Inbound,
    admit::{Admissions, Asked, Door, Permit},
    authorize,
    connected::Connected,
};
use crate::{
    error::{Code, ProxyError},
    exchange::{Carrier, Course, Directed, Director},
    filter,
    metrics::Metrics,
    outbound::{self, Onward},
    process::{discovery::PortPolicy, in_flight},
    protocol::Version,
    records::{Passage, Scene, Why},
};
use std::{
    cell::OnceCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use weft_model::{
    NameAddr, ServerPolicy,
    decide::{forwarded, route::RequestView},
    names::header,
};
use weft_telemetry::Labels;
use weft_transport::Stream;

/// A named target as one connection knows it.
pub(super) struct Gateway {
    inbound: Rc<Inbound>,
    name: NameAddr,
    connected: Connected,
    /// The policy of this proxy's own port.
    port: Arc<PortPolicy>,
}

/// Decides the requests of one connection.
pub(super) struct Requests {
    inbound: Rc<Inbound>,
    name: NameAddr,
    admissions: Admissions<()>,
    http2: bool,
    /// Where requests go on to, once that was found.
    onward: OnceCell<outbound::Requests>,
    scene: Rc<Scene>,
    /// What servers are told of the client.
    client_id: Rc<str>,
}

impl Gateway {
    pub(super) fn new(inbound: &Rc<Inbound>, name: NameAddr, connected: Connected, port: Arc<PortPolicy>) -> Self {
        Self { inbound: Rc::clone(inbound), name, connected, port }
    }

    pub(super) fn requests(self, http2: bool, scene: Rc<Scene>) -> Requests {
        let Self { inbound, name, connected, port } = self;
        let client_id = connected.tls.identity().map(ToString::to_string).unwrap_or_default().into();
        let admissions = Admissions::new(port, connected, inbound.now());
        Requests { inbound, name, admissions, http2, onward: OnceCell::new(), scene, client_id }
    }

    /// Forwards bytes until both sides have ended, or the policy no longer lets the client in.
    ///
    /// # Errors
    /// The policy lets the client in nowhere, the target cannot be reached, or it is the client itself.
    pub(super) async fn bytes(self, stream: Stream, passage: &mut Passage) -> Result<(), ProxyError> {
        let Self { inbound, name, connected, port } = self;
        let permitted = authorize::connection(&inbound.wiring, &connected, &port, passage)
            .and_then(|entry| not_itself(&inbound, &connected).map(|()| entry.version));
        let version = permitted.inspect_err(|_| stream.reset_on_close())?;
        let onward = onward(&inbound, &name).await.inspect_err(|_| stream.reset_on_close())?;
        onward.bytes(stream, authorize::revoked(&inbound.wiring, &connected, &port, version), passage).await
    }
}

/// What is behind `name`.
async fn onward(inbound: &Inbound, name: &NameAddr) -> Result<Onward, ProxyError> {
    if !inbound.wiring.context.config.inbound.gateway_suffixes.contains(&name.name) {
        return Err(ProxyError::new(Code::GatewayDomainInvalid, format!("this proxy is no gateway to {name}")));
    }
    inbound.outbound.onward(name.clone()).await
}

fn not_itself(inbound: &Inbound, connected: &Connected) -> Result<(), ProxyError> {
    if connected.tls.identity() == Some(inbound.wiring.context.tls.identity()) {
        return Err(ProxyError::new(Code::Loop, "gateway loop: the client is this gateway itself"));
    }
    Ok(())
}

/// Nothing but what is let in matters: the outbound side counts where it goes.
impl Door for Requests {
    type Handles = ();

    fn metrics(&self) -> &Metrics {
        &self.inbound.wiring.metrics
    }

    fn now(&self) -> Instant {
        self.inbound.now()
    }

    fn handles(&self, _: &ServerPolicy, _: &Permit<'_>, _: &Labels, _: Option<&str>) {}

    fn filters(&self, permit: &Permit<'_>, _: &Asked<'_>) -> Result<(), ProxyError> {
        filter::none(permit.filters, "a gateway carries out no filters of its own port")
    }
}

impl Requests {
    /// The header that says that the request went through here, behind what it said already.
    fn forwarded(&self, request: &dyn RequestView) -> Result<Rc<str>, ProxyError> {
        let own = self.inbound.wiring.context.tls.identity();
        not_itself(&self.inbound, self.admissions.connected())?;
        let mut all = String::new();
        let mut looped = false;
        request.header(header::FORWARDED, &mut |value| {
            looped |= forwarded::went_through(value, own);
            if let Ok(value) = std::str::from_utf8(value) {
                all.push_str(value);
                all.push_str(", ");
            }
            false
        });
        if looped {
            return Err(ProxyError::new(Code::Loop, "gateway loop: the request went through this gateway already"));
        }
        all.push_str(&forwarded::element(own, &self.client_id, request.authority().unwrap_or_default()));
        Ok(all.into())
    }

    /// Where requests go on to. What is not found is looked for again by the next one.
    async fn onward(&self) -> Result<&outbound::Requests, ProxyError> {
        if let Some(onward) = self.onward.get() {
            return Ok(onward);
        }
        let found = Box::pin(onward(&self.inbound, &self.name)).await?;
        Ok(self.onward.get_or_init(|| found.requests(self.http2, Rc::clone(&self.scene))))
    }

    /// Whether the request may go on, and what it then says of its way.
    fn admit(
        &self,
        request: &dyn RequestView,
        course: &Course,
        why: &mut dyn FnMut(&Rc<Why>),
    ) -> Result<Admitted, ProxyError> {
        let in_flight = self.inbound.wiring.context.inbound_in_flight.admit()?;
        let asked = Asked { request, first: course.is_first(), authority: None };
        self.admissions.admit(self, &asked, why)?;
        let forwarded = self.forwarded(request)?;
        Ok(Admitted { forwarded, in_flight })
    }
}

/// A request that may go on.
struct Admitted {
    /// What it says of its way.
    forwarded: Rc<str>,
    in_flight: in_flight::Permit,
}

impl Director for Requests {
    type Endpoint = <outbound::Requests as Director>::Endpoint;
    type Record = (<outbound::Requests as Director>::Record, Option<in_flight::Permit>);

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Self::Endpoint, Self::Record>, ProxyError> {
        let mut why = None;
        let found = match self.admit(request, course, &mut |by| why = Some(Rc::clone(by))) {
            Ok(admitted) => self.onward().await.map(|onward| (onward, admitted)),
            Err(error) => Err(error),
        };
        let (onward, Admitted { forwarded, in_flight }) = match found {
            Ok(found) => found,
            // What goes on is followed by the outbound side.
            Err(error) => {
                let mut follower = self.inbound.wiring.records.follow(&self.scene, request, version);
                why.iter().for_each(|why| follower.why(why));
                return Err(follower.refused(request, error));
            }
        };
        let carried = version == Version::Http2 && request.header(header::ORIG_PROTO, &mut |_| true);
        let as_version = if carried { Version::Http11 } else { version };
        let Directed { endpoint, carrier, mut edits, record } = onward.direct(request, as_version, course).await?;
        edits.set.push((header::FORWARDED, forwarded));
        edits.set.push((header::CLIENT_ID, Rc::clone(&self.client_id)));
        if edits.authority.is_none() && (carried || version != Version::Http2) {
            edits.authority = Some(self.name.to_string().into());
        }
        edits.restore_orig_proto = carried && carrier == Carrier::Http1;
        // What the next proxy says is for the client's proxy, which reads it.
        edits.strip_mesh_response = false;
        Ok(Directed { endpoint, carrier, edits, record: (record, Some(in_flight)) })
    }

    /// Who connects directly has an identity.
    fn informational_headers(&self) -> bool {
        true
    }

    fn head_timeout(&self) -> Duration {
        self.inbound.wiring.context.config.inbound.head_timeout
    }

    fn malformed(&self, error: &ProxyError, version: Version) {
        self.inbound.wiring.records.malformed(&self.scene, version, error);
        self.refused(error);
    }

    fn refused(&self, error: &ProxyError) {
        self.inbound.wiring.refused(&self.name, self.admissions.connected(), error);
    }

    async fn shut_out(&self) {
        authorize::shut_out(&self.inbound.wiring, self.admissions.connected(), self.admissions.port()).await;
    }
}
