//! Between tls and route for a connection to this proxy's own port: the transport header names the target (data plane 3.9).

use super::{
    Inbound, Known,
    connected::Connected,
    server_first,
    tls::{self, Arrived, Patience},
};
use crate::{
    error::{Code, ProxyError},
    metrics::Metrics,
    prefix::{self, Seen},
    protocol::{self, Protocol},
};
use bytes::{Buf, BytesMut};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;
use weft_model::{DnsName, Identity, NameAddr};
use weft_telemetry::Labels;
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

/// Where such a connection goes, and what it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    to: To,
    protocol: Protocol,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    /// A port of the application.
    Port(SocketAddr),
    /// A target to which this proxy is to be a gateway.
    Name(NameAddr),
}

impl Inbound {
    /// A connection to this proxy's own port: the client says what it is.
    pub(super) async fn direct(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        local: IpAddr,
    ) -> Result<Option<Known>, ProxyError> {
        let context = &self.wiring.context;
        let timeout = context.config.inbound.detect_timeout;
        let patience = Patience { first: timeout, whole: timeout };
        let Some(mut arrived) = tls::terminate(&context.tls, &context.lifetimes, tcp, true, patience).await? else {
            return Ok(None);
        };
        let own = context.inbound_port;
        let Named { to, mut protocol } = named(&self.wiring.metrics, &mut arrived, local, own, timeout).await?;
        // A gateway serves under the policy of its own port.
        let (target, gateway) = match to {
            To::Port(target) => (target, None),
            To::Name(name) => (SocketAddr::new(local, own), Some(name)),
        };
        let port = context.discovery.inbound(target.port());
        let connected = Connected { client, tls: arrived.tls, target };
        let mut stream = self.metered(arrived.stream, &connected, &port);
        let of_http = gateway.is_none() && server_first::is_http(&port.policy.load().value.protocol);
        if protocol == Protocol::Opaque && of_http {
            match Box::pin(server_first::of_http(&self.wiring, &mut stream)).await? {
                Some(spoken) => protocol = spoken,
                None => return Ok(None),
            }
        }
        Ok(Some(Known { stream, connected, port, protocol, gateway, session: None }))
    }
}

/// Reads the header; what follows it is put back.
///
/// # Errors
/// The client has not proved an identity, or the header is missing, invalid, or asks for this proxy itself.
async fn named(
    metrics: &Metrics,
    arrived: &mut Arrived,
    local: IpAddr,
    own_port: u16,
    timeout: Duration,
) -> Result<Named, ProxyError> {
    let refused = |text: String| ProxyError::new(Code::Unauthorized, text);
    let Some(client) = arrived.tls.identity().cloned() else {
        return Err(refused("a direct connection needs a mesh identity".into()));
    };
    if !arrived.transport {
        return Err(refused("a direct connection needs a transport header".into()));
    }
    let mut bytes = BytesMut::new();
    let ask = |bytes: &[u8]| TransportHeader::decode(bytes).transpose();
    let seen = prefix::read(&mut arrived.stream, &mut bytes, timeout, ask)
        .await
        .map_err(|error| protocol::broken("client", &error))?;
    let (header, length) = match seen {
        Seen::Answer(decoded) => decoded.map_err(|error| ProxyError::new(Code::BadRequest, error.to_string()))?,
        Seen::Eof => return Err(ProxyError::new(Code::BadRequest, "the transport header is incomplete")),
        Seen::Timeout => {
            return Err(ProxyError::new(Code::DetectTimeout, "the client did not send its transport header in time"));
        }
    };
    bytes.advance(length);
    arrived.stream.unread(bytes.freeze());
    metrics.counter(&metrics.transport_headers, &asked(&header, &client)).inc();
    target(&header, local, own_port)
}

fn asked(header: &TransportHeader, client: &Identity) -> Labels {
    let protocol = match header.protocol {
        Some(SessionProtocol::Http1) => "http/1",
        Some(SessionProtocol::Http2) => "http/2",
        None => "",
    };
    Labels::new()
        .with("session_protocol", protocol)
        .with("target_port", header.port)
        .with("target_name", header.name.as_ref().map(DnsName::as_str).unwrap_or_default())
        .with("client_id", client)
}

fn target(header: &TransportHeader, local: IpAddr, own_port: u16) -> Result<Named, ProxyError> {
    let to = match &header.name {
        Some(name) => To::Name(NameAddr { name: name.clone(), port: header.port }),
        None if header.port == own_port => {
            return Err(ProxyError::new(Code::Loop, "the transport header names this proxy itself"));
        }
        None => To::Port(SocketAddr::new(local, header.port)),
    };
    let protocol = match header.protocol {
        Some(SessionProtocol::Http1) => Protocol::Http1,
        Some(SessionProtocol::Http2) => Protocol::Http2,
        None => Protocol::Opaque,
    };
    Ok(Named { to, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_names_and_loops() {
        let local: IpAddr = "10.0.0.1".parse().unwrap();
        let header = |port, name: Option<&str>| TransportHeader {
            port,
            name: name.map(|n| n.parse().unwrap()),
            protocol: Some(SessionProtocol::Http2),
        };
        let code = |h: &TransportHeader| target(h, local, 4143).map_err(|e| e.code);
        assert_eq!(
            code(&header(80, None)),
            Ok(Named { to: To::Port("10.0.0.1:80".parse().unwrap()), protocol: Protocol::Http2 })
        );
        assert_eq!(code(&header(4143, None)), Err(Code::Loop));
        let named = To::Name("web.ns.svc.cluster.local:4143".parse().unwrap());
        let of_gateway = header(4143, Some("web.ns.svc.cluster.local"));
        assert_eq!(code(&of_gateway), Ok(Named { to: named, protocol: Protocol::Http2 }));
    }
}
