//! Behind accept for a connection to a port of the application: what it is must be found out, first whether it is of the mesh, then
//! what it speaks. One that stays silent may be waiting for the application's first word.

use super::{
    Inbound, Known,
    connected::Connected,
    detect,
    server_first::{self, Broken, Silent},
    tls::{self, Arrived, Patience},
};
use crate::{
    error::ProxyError,
    metrics::labels::AcceptedTls,
    process::discovery::PortPolicy,
    protocol::{self, Protocol},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::Instant};
use weft_model::policy::inbound::ServerProtocol;
use weft_transport::Stream;

impl Inbound {
    /// A connection to a port of the application: what it is must be found out.
    pub(super) async fn redirected(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        target: SocketAddr,
    ) -> Result<Option<Known>, ProxyError> {
        let context = &self.wiring.context;
        let port = context.discovery.inbound(target.port());
        if matches!(port.policy.load().value.protocol, ServerProtocol::Opaque) {
            let connected = Connected { client, tls: AcceptedTls::PortSkipped, target };
            let stream = self.metered(Stream::tcp(tcp), &connected, &port);
            let protocol = Protocol::Opaque;
            return Ok(Some(Known { stream, connected, port, protocol, gateway: None, session: None }));
        }
        let timeout = context.config.inbound.detect_timeout;
        let started = Instant::now();
        let unmeshed = Connected { client, tls: AcceptedTls::NotFromRemote, target };
        let mut session = match self.silence(Silent::Tcp(&tcp), None, &unmeshed, &port, timeout).await {
            Broken::Never => return Ok(None),
            Broken::ByClient(session) => session,
            Broken::ByApplication(session) => {
                let stream = self.metered(Stream::tcp(tcp), &unmeshed, &port);
                let protocol = Protocol::Opaque;
                return Ok(Some(Known { stream, connected: unmeshed, port, protocol, gateway: None, session }));
            }
        };
        let left = timeout.saturating_sub(started.elapsed());
        let patience = Patience { first: left, whole: left };
        let arrived = tls::terminate(&context.tls, &context.lifetimes, tcp, false, patience).await;
        let Ok(Some(Arrived { stream, tls, .. })) = arrived else {
            server_first::unused(&self.wiring, session);
            return arrived.map(|_| None);
        };
        let connected = Connected { client, tls, target };
        let mut stream = self.metered(stream, &connected, &port);
        if connected.tls.is_meshed() {
            match self.silence(Silent::Stream(&mut stream), session, &connected, &port, timeout).await {
                Broken::Never => return Ok(None),
                Broken::ByClient(opened) => session = opened,
                Broken::ByApplication(session) => {
                    let protocol = Protocol::Opaque;
                    return Ok(Some(Known { stream, connected, port, protocol, gateway: None, session }));
                }
            }
        }
        let protocol = if matches!(connected.tls, AcceptedTls::Passthrough(_)) {
            Some(Protocol::Opaque)
        } else {
            let policy = port.policy.snapshot();
            let meshed = connected.tls.is_meshed();
            let metrics = &self.wiring.metrics;
            match detect::protocol(&mut stream, &policy.value, meshed, timeout, metrics, port.port).await {
                Ok(protocol) => protocol,
                Err(error) => {
                    server_first::unused(&self.wiring, session);
                    return Err(protocol::broken("client", &error));
                }
            }
        };
        let session = server_first::judged(&self.wiring, session, protocol, &connected, &port);
        Ok(protocol.map(|protocol| Known { stream, connected, port, protocol, gateway: None, session }))
    }

    /// Waits for the first word of a connection whose protocol is looked for.
    async fn silence(
        &self,
        client: Silent<'_>,
        session: Option<Stream>,
        connected: &Connected,
        port: &PortPolicy,
        timeout: Duration,
    ) -> Broken {
        if !matches!(port.policy.load().value.protocol, ServerProtocol::Detect { .. }) {
            return Broken::ByClient(session);
        }
        Box::pin(server_first::wait(&self.wiring, client, session, connected, port, timeout)).await
    }
}
