//! Behind direct for a connection whose transport header names a target: the proxy is a gateway to it (data plane 3.9, 3.10).
//!
//! ```text
//! direct ─► may this proxy forward there? ─► policy of the gateway's own port ─► loop? ─► the outbound side's route
//! ```
//! What is behind the name is found out like that of outbound traffic. It must not forward what went through here already.

use super::{
    Inbound,
    authorize::{self, Connected, Permit},
};
use crate::{
    error::{Code, ProxyError},
    exchange::{Carrier, Course, Directed, Director, Version},
    filter,
    metrics::{Failed, labels},
    outbound::{self, Onward},
    process::discovery::PortPolicy,
    records::{Passage, Scene},
};
use std::{rc::Rc, sync::Arc};
use weft_model::{
    NameAddr,
    decide::{forwarded, route::RequestView},
    names::header,
};
use weft_transport::{Stream, drain};

/// A named target as one connection knows it.
pub(super) struct Gateway {
    inbound: Rc<Inbound>,
    name: NameAddr,
    connected: Connected,
    /// The policy of this proxy's own port.
    port: Arc<PortPolicy>,
    onward: Result<Onward, ProxyError>,
}

/// Decides the requests of one connection.
pub(super) struct Requests {
    gateway: Gateway,
    onward: Option<outbound::Requests>,
    scene: Rc<Scene>,
    /// What servers are told of the client.
    client_id: Rc<str>,
}

impl Gateway {
    /// Finds out what is behind `name`. If there is nothing, requests are told so.
    pub(super) async fn new(
        inbound: &Rc<Inbound>,
        name: NameAddr,
        connected: Connected,
        port: Arc<PortPolicy>,
    ) -> Self {
        let suffixes = &inbound.wiring.context.config.inbound.gateway_suffixes;
        let onward = if suffixes.contains(&name.name) {
            inbound.outbound.onward(name.clone()).await
        } else {
            Err(ProxyError::new(Code::GatewayDomainInvalid, format!("this proxy is no gateway to {name}")))
        };
        Self { inbound: Rc::clone(inbound), name, connected, port, onward }
    }

    pub(super) fn requests(self, http2: bool, scene: Rc<Scene>) -> Requests {
        let client_id = self.connected.tls.identity().map(ToString::to_string).unwrap_or_default();
        let onward = self.onward.as_ref().ok().map(|onward| onward.requests(http2, Rc::clone(&scene)));
        Requests { gateway: self, onward, scene, client_id: client_id.into() }
    }

    /// Forwards bytes until both sides have ended, the policy no longer lets the client in, or the drain's deadline has passed.
    ///
    /// # Errors
    /// The policy lets the client in nowhere, the target cannot be reached, or it is the client itself.
    pub(super) async fn bytes(
        self,
        stream: Stream,
        drain: &drain::Watch,
        passage: &mut Passage,
    ) -> Result<(), ProxyError> {
        let wiring = &self.inbound.wiring;
        let permitted = authorize::connection(wiring, &self.connected, &self.port).and_then(|version| {
            self.not_itself()?;
            Ok((version, self.onward.as_ref().map_err(Clone::clone)?))
        });
        let (version, onward) = permitted.inspect_err(|_| stream.reset_on_close())?;
        tokio::select! {
            ended = onward.bytes(stream, drain, passage) => ended,
            // Both connections are closed: their futures hold nothing that must be finished.
            () = authorize::revoked(wiring, &self.connected, &self.port, version) => Ok(()),
        }
    }

    fn not_itself(&self) -> Result<(), ProxyError> {
        let own = self.inbound.wiring.context.tls.identity();
        if self.connected.tls.identity() == Some(own) {
            return Err(ProxyError::new(Code::Loop, "gateway loop: the client is this gateway itself"));
        }
        Ok(())
    }

    /// Whether the port's policy lets the request in.
    fn permit(&self, request: &dyn RequestView) -> Result<(), ProxyError> {
        let metrics = &self.inbound.wiring.metrics;
        let policy = self.port.policy.snapshot();
        let (policy, port) = (&policy.value, self.port.port);
        if let Some(refusal) = authorize::unsupported(policy, port) {
            return Err(refusal);
        }
        let Permit { route, by, filters, matches: _ } =
            authorize::request(metrics, &self.connected, policy, port, request)?;
        filter::none(filters, "a gateway carries out no filters of its own port")?;
        if let Some(limiter) = self.port.limiter().filter(|_| policy.protocol.rate_limit().is_some()) {
            let now = self.inbound.now();
            let limits = limiter.of(self.connected.tls.identity(), now);
            authorize::limit(metrics, &self.connected, policy, port, &limits, now)?;
        }
        let labels = self
            .connected
            .labels()
            .join(&labels::server(&policy.meta, port))
            .join(&labels::route(route))
            .join(&labels::authorization(by));
        metrics.counter(&metrics.http_allow, &labels).inc();
        Ok(())
    }
}

impl Requests {
    /// The header that says that the request went through here, behind what it said already.
    fn forwarded(&self, request: &dyn RequestView) -> Result<Rc<str>, ProxyError> {
        let own = self.gateway.inbound.wiring.context.tls.identity();
        self.gateway.not_itself()?;
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
}

impl Requests {
    /// Where the request goes on to, and what it says of its way.
    fn admit(&self, request: &dyn RequestView) -> Result<(&outbound::Requests, Rc<str>), ProxyError> {
        self.gateway.permit(request)?;
        let forwarded = self.forwarded(request)?;
        match (&self.onward, &self.gateway.onward) {
            (Some(onward), _) => Ok((onward, forwarded)),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(_)) => Err(ProxyError::new(Code::GatewayDomainInvalid, "the target is not known")),
        }
    }
}

impl Director for Requests {
    type Endpoint = <outbound::Requests as Director>::Endpoint;
    type Record = <outbound::Requests as Director>::Record;

    async fn direct(
        &self,
        request: &dyn RequestView,
        version: Version,
        course: &Course,
    ) -> Result<Directed<Self::Endpoint, Self::Record>, ProxyError> {
        let (onward, forwarded) = match self.admit(request) {
            Ok(admitted) => admitted,
            Err(error) => {
                let records = &self.gateway.inbound.wiring.records;
                return records.follow(&self.scene, request, version).decided(request, Err(error));
            }
        };
        let carried = version == Version::Http2 && request.header(header::ORIG_PROTO, &mut |_| true);
        let mut directed = onward.direct(request, if carried { Version::Http11 } else { version }, course).await?;
        let edits = &mut directed.edits;
        edits.set.push((header::FORWARDED, forwarded));
        edits.set.push((header::CLIENT_ID, Rc::clone(&self.client_id)));
        if edits.authority.is_none() && (carried || version != Version::Http2) {
            edits.authority = Some(self.gateway.name.to_string().into());
        }
        edits.restore_orig_proto = carried && directed.carrier == Carrier::Http1;
        // What the next proxy says is for the client's proxy, which reads it.
        edits.strip_mesh_response = false;
        Ok(directed)
    }

    /// Who connects directly has an identity.
    fn informational_headers(&self) -> bool {
        true
    }

    fn refused(&self, error: &ProxyError) {
        let Gateway { inbound, name, connected, .. } = &self.gateway;
        let client = connected.client;
        if let Some(left_out) = inbound.wiring.context.notices.take(error, std::time::Instant::now()) {
            tracing::info!(server = %name, %client, %error, left_out, "request to the gateway failed");
        } else {
            tracing::debug!(server = %name, %client, %error, "request to the gateway failed");
        }
        inbound.wiring.metrics.failed(Failed::Request, error);
    }

    async fn shut_out(&self) {
        let Gateway { inbound, connected, port, .. } = &self.gateway;
        authorize::shut_out(&inbound.wiring, connected, port).await;
    }
}
