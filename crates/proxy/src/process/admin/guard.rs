//! Who may ask the admin server: TLS for this workload is ended as on every port, and the policy of the admin port holds.

use crate::{
    direction::Direction,
    error::{Code, ProxyError, notice::Notices},
    exchange::HeadView,
    filter,
    inbound::{
        admit::{Admissions, Asked, Door, Permit},
        connected::Connected,
        tls::{self, Arrived},
    },
    metrics::{Failed, Metrics, labels::AcceptedTls},
    process::{discovery::PortPolicy, identity::Lifetimes, rate_limit::Clock, served::PATIENCE},
    protocol::Version,
    records::{Readers, Refused, Scene, Why},
};
use http::request;
use std::{net::SocketAddr, sync::Arc, time::Instant};
use tokio::net::TcpStream;
use weft_model::{DnsName, ServerPolicy, names::header};
use weft_telemetry::{Labels, Registry, Shard};
use weft_transport::{Stream, tls::Store};

/// Guards one admin server.
pub(in crate::process) struct Guard {
    tls: Store,
    lifetimes: Lifetimes,
    port: Arc<PortPolicy>,
    metrics: Metrics,
    /// By which rate limits are measured.
    clock: Clock,
    /// Which refusals are logged.
    notices: Arc<Notices>,
    /// Where they are recorded.
    readers: Readers,
}

impl Guard {
    pub(in crate::process) fn new(
        tls: Store,
        lifetimes: Lifetimes,
        port: Arc<PortPolicy>,
        registry: &Registry,
        clock: Clock,
        notices: Arc<Notices>,
        readers: Readers,
    ) -> Self {
        let metrics = Metrics::new(registry, Shard::ADMIN, Direction::Inbound);
        Self { tls, lifetimes, port, metrics, clock, notices, readers }
    }

    /// Who the client is, and its stream without TLS. `None` if it closed without having sent anything.
    ///
    /// # Errors
    /// It was too slow, its handshake failed, or it asks for another server.
    pub(super) async fn arrive(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
    ) -> Result<Option<(Stream, Connected)>, ProxyError> {
        let target = tcp.local_addr().ok().map(canonical);
        let arrived = self.terminate(tcp, client).await;
        arrived.inspect_err(|error| {
            self.metrics.failed(Failed::Connection, error);
            self.readers.keep(Refused::connection(Scene { target, ..Scene::client(client) }, error.clone()));
        })
    }

    async fn terminate(&self, tcp: TcpStream, client: SocketAddr) -> Result<Option<(Stream, Connected)>, ProxyError> {
        let gone = |error| ProxyError::new(Code::BadRequest, format!("the connection ended at once: {error}"));
        let target = tcp.local_addr().map_err(gone)?;
        let arrived = Box::pin(tls::terminate(&self.tls, &self.lifetimes, tcp, false, PATIENCE)).await?;
        let Some(Arrived { stream, tls, .. }) = arrived else { return Ok(None) };
        if let AcceptedTls::Passthrough(sni) = &tls {
            let name = sni.as_ref().map_or("nobody", DnsName::as_str);
            return Err(ProxyError::new(Code::TlsFailed, format!("the client's TLS is for {name}")));
        }
        Ok(Some((stream, Connected { client, tls, target: canonical(target) })))
    }

    /// Whether the policy lets the request in; it is asked anew for each.
    ///
    /// # Errors
    /// It does not, or it asks for more than an answer.
    pub(super) fn admit(&self, connected: &Connected, head: &request::Parts) -> Result<(), ProxyError> {
        let request = &HeadView(head);
        let asked = Asked { request, first: true, authority: None };
        let admissions = Admissions::new(Arc::clone(&self.port), connected.clone(), self.now());
        let mut why = None;
        let admitted = admissions.admit(self, &asked, &mut |by| why = Some(Why::clone(by)));
        if let Err(error) = &admitted {
            let scene = Scene {
                target: Some(connected.target),
                client_id: connected.tls.identity().cloned(),
                tls: connected.tls.word(),
                ..Scene::client(connected.client)
            };
            self.readers.keep(Refused::request(scene, request, version(head), why, error.clone()));
            let (client, path) = (connected.client, head.uri.path());
            if let Some(left_out) = self.notices.take(Direction::Inbound, error, Instant::now()) {
                tracing::info!(%client, path, %error, left_out, "admin request refused");
            } else {
                tracing::debug!(%client, path, %error, "admin request refused");
            }
            self.metrics.failed(Failed::Request, error);
        }
        admitted.map(drop)
    }
}

impl Door for Guard {
    type Handles = ();

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn now(&self) -> Instant {
        (self.clock)()
    }

    fn handles(&self, _: &ServerPolicy, _: &Permit<'_>, _: &Labels, _: Option<&str>) {}

    fn filters(&self, permit: &Permit<'_>, _: &Asked<'_>) -> Result<(), ProxyError> {
        filter::none(permit.filters, "the admin server carries out no filters")
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn version(head: &request::Parts) -> Version {
    match head.version {
        http::Version::HTTP_2 => Version::Http2,
        http::Version::HTTP_10 => Version::Http10,
        _ => Version::Http11,
    }
}

/// The name and value of the header by which peers of the mesh are told why.
pub(super) fn reason(connected: &Connected, error: &ProxyError) -> Option<(&'static str, http::HeaderValue)> {
    connected.tls.identity()?;
    Some((header::PROXY_ERROR, error.header().try_into().ok()?))
}

#[cfg(test)]
pub(super) mod test {
    use super::*;
    use crate::{config::PortSet, process::discovery::InboundSettings};
    use std::time::Duration;
    use weft_model::policy::inbound::DefaultPolicy;

    /// Lets everybody in.
    pub(in super::super) fn guard(registry: &Registry) -> Guard {
        let default_policy = DefaultPolicy::AllUnauthenticated;
        let settings = InboundSettings {
            idle: Duration::from_secs(1),
            default_policy,
            authorizations: default_policy.authorizations(&[]),
            opaque_ports: PortSet::default(),
            detect_timeout: Duration::from_secs(1),
            eager: std::collections::BTreeSet::new(),
            admin_port: 4191,
            clock: crate::process::rate_limit::clock(),
        };
        let name = "web.ns.serviceaccount.identity.linkerd.cluster.local";
        let ca = weft_testkit::ca::Ca::new().unwrap();
        let tls = Store::new(ca.anchors_pem(), name.parse().unwrap(), name.parse().unwrap()).unwrap();
        let lifetimes = Lifetimes::new(Arc::new(std::time::SystemTime::now), Duration::from_secs(1), registry);
        let notices = Arc::new(Notices::new(Instant::now()));
        let clock = settings.clock.clone();
        Guard::new(
            tls,
            lifetimes,
            Arc::new(PortPolicy::new(4191, &settings)),
            registry,
            clock,
            notices,
            Readers::default(),
        )
    }
}
