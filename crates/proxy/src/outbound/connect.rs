//! Last stage: a connection to an endpoint, by one of the three ways of data plane 4.7.
//!
//! ```text
//! local, or no identity ───────────► endpoint                    plaintext
//! identity ────────────────────────► endpoint                    mTLS
//! identity and transport port ─────► endpoint's IP : that port   mTLS, ALPN, transport header
//! ```
//! When a connection is handed out its server has proved its identity; no byte of a request goes out before.

use super::Wiring;
use crate::{
    error::{Code, ProxyError},
    metrics::{labels, tcp},
};
use std::{io, net::SocketAddr, rc::Rc, sync::Arc};
use tokio::io::AsyncWriteExt;
use weft_model::{Endpoint, ProtocolHint, endpoint::ServerTls};
use weft_telemetry::Labels;
use weft_transport::{
    Stream,
    socket::{self, ConnectOptions},
    tls::TlsError,
};
use weft_wire::transport_header::{SessionProtocol, TransportHeader};

/// Makes connections to one endpoint.
pub(crate) struct Connector {
    wiring: Rc<Wiring>,
    dial: Dial,
    /// It is one that the outbound side does not dial.
    refused: bool,
    options: ConnectOptions,
    series: Arc<tcp::Series>,
}

/// The label of an endpoint that says whether it is in this workload's zone.
const ZONE_LOCALITY: &str = "zone_locality";

/// How an endpoint is reached.
#[derive(Clone, Debug, PartialEq)]
struct Dial {
    addr: SocketAddr,
    tls: Option<ServerTls>,
    /// Without session protocol; `None` where none is announced.
    header: Option<TransportHeader>,
    /// The server's proxy detects nothing: no session protocol is named.
    opaque: bool,
}

impl Dial {
    fn new(endpoint: &Endpoint, local: bool) -> Self {
        let opaque = endpoint.hint == ProtocolHint::Opaque;
        let Some(tls) = endpoint.tls.clone().filter(|_| !local) else {
            return Self { addr: endpoint.addr, tls: None, header: None, opaque };
        };
        let direct = endpoint.transport_port.is_some() || endpoint.authority_override.is_some();
        let port = endpoint.transport_port.unwrap_or(endpoint.addr.port());
        Self {
            addr: if direct { SocketAddr::new(endpoint.addr.ip(), port) } else { endpoint.addr },
            tls: Some(tls),
            header: direct.then(|| header(endpoint)),
            opaque,
        }
    }

    fn header(&self, session: Option<SessionProtocol>) -> Option<TransportHeader> {
        let protocol = session.filter(|_| !self.opaque);
        self.header.clone().map(|header| TransportHeader { protocol, ..header })
    }
}

/// The target is named only by an override with a port, which is for a gateway.
fn header(endpoint: &Endpoint) -> TransportHeader {
    let named = endpoint.authority_override.as_deref().and_then(|authority| {
        let (host, port) = authority.rsplit_once(':')?;
        Some((host.parse().ok()?, port.parse().ok().filter(|port| *port > 0)?))
    });
    match named {
        Some((name, port)) => TransportHeader { port, name: Some(name), protocol: None },
        None => TransportHeader { port: endpoint.addr.port(), name: None, protocol: None },
    }
}

impl Connector {
    pub(super) fn new(wiring: &Rc<Wiring>, endpoint: &Endpoint, labels: &Labels) -> Self {
        let connect = &wiring.context.config.outbound.connect;
        let labels = Labels::new().with("direction", "outbound").with("peer", "dst").join(labels);
        let shard = wiring.metrics.shard;
        let transfer = wiring.outbound.transfer(shard, endpoint.labels.get(ZONE_LOCALITY).map(String::as_str));
        Self {
            wiring: Rc::clone(wiring),
            dial: Dial::new(endpoint, wiring.is_local(endpoint)),
            refused: !wiring.may_dial(endpoint),
            options: ConnectOptions {
                timeout: connect.timeout,
                keepalive: connect.socket.keepalive,
                user_timeout: connect.socket.user_timeout,
                mark: connect.mark,
            },
            series: wiring.metrics.tcp.costing(shard, labels, transfer),
        }
    }

    /// Whether the server proves an identity.
    pub(super) fn is_meshed(&self) -> bool {
        self.dial.tls.is_some()
    }

    /// Connects; handshake and transport header are within the connect timeout.
    pub(super) async fn connect(&self, session: Option<SessionProtocol>) -> Result<Stream, ProxyError> {
        let addr = self.dial.addr;
        let connected = tokio::time::timeout(self.options.timeout, self.dial(session));
        let mut stream = connected.await.unwrap_or_else(|_| {
            Err(ProxyError::new(Code::ConnectTimeout, format!("connecting to {addr} took too long")))
        })?;
        stream.meter(self.series.open());
        Ok(stream)
    }

    async fn dial(&self, session: Option<SessionProtocol>) -> Result<Stream, ProxyError> {
        let Dial { addr, tls, .. } = &self.dial;
        let failed =
            |error: io::Error| ProxyError::new(Code::of_connect(&error), format!("cannot connect to {addr}: {error}"));
        if self.refused {
            return Err(failed(io::Error::other("the outbound side does not dial this workload's own loopback")));
        }
        let tcp = socket::connect(*addr, &self.options).await.map_err(failed)?;
        let Some(tls) = tls else { return Ok(Stream::tcp(tcp)) };
        let header = self.dial.header(session);
        let shaken = self.wiring.context.tls.connect(tcp, tls, header.is_some()).await;
        let (mut stream, takes_header) = shaken.map_err(|error| tls_error(*addr, &error))?;
        self.wiring.context.lifetimes.dialled(&mut stream);
        // A server that does not announce it would take the header for the application's bytes.
        if let Some(header) = header.filter(|_| takes_header) {
            stream.write_all(&header.encode()).await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
        }
        Ok(stream)
    }
}

fn tls_error(addr: SocketAddr, error: &TlsError) -> ProxyError {
    let code = match error {
        TlsError::Identity { .. } => Code::IdentityMismatch,
        TlsError::Io(_) => Code::ConnectFailed,
        _ => Code::TlsFailed,
    };
    ProxyError::new(code, format!("no TLS with {addr}: {error}"))
}

/// The labels of an endpoint without direction.
pub(super) fn endpoint_labels(endpoint: &Endpoint, authority: Option<&str>, local: bool) -> Labels {
    let labels = authority.map(|a| Labels::new().with("authority", a)).unwrap_or_default();
    labels
        .join(&labels::target(endpoint.addr))
        .join(&labels::dialled_tls(endpoint.tls.as_ref(), local))
        .join(&labels::endpoint(&endpoint.labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(transport_port: Option<u16>, authority_override: Option<&str>) -> Endpoint {
        let identity = "web.ns.serviceaccount.identity.linkerd.cluster.local";
        Endpoint {
            tls: Some(ServerTls { identity: identity.parse().unwrap(), server_name: identity.parse().unwrap() }),
            transport_port,
            authority_override: authority_override.map(str::to_owned),
            ..Endpoint::plain("10.0.0.1:80".parse().unwrap())
        }
    }

    fn row(endpoint: &Endpoint, local: bool) -> (String, bool, Option<(u16, Option<String>)>) {
        let dial = Dial::new(endpoint, local);
        let header = dial.header.map(|h| (h.port, h.name.map(|n| n.to_string())));
        (dial.addr.to_string(), dial.tls.is_some(), header)
    }

    #[test]
    fn the_three_ways() {
        let plain = Endpoint::plain("10.0.0.1:80".parse().unwrap());
        assert_eq!(row(&plain, false), ("10.0.0.1:80".into(), false, None));
        assert_eq!(row(&endpoint(None, None), false), ("10.0.0.1:80".into(), true, None));
        let direct = endpoint(Some(4143), None);
        assert_eq!(row(&direct, false), ("10.0.0.1:4143".into(), true, Some((80, None))));
        assert_eq!(row(&direct, true), ("10.0.0.1:80".into(), false, None), "local");
        let gateway = endpoint(Some(4143), Some("web.ns.svc.east.local:8080"));
        let named = Some((8080, Some("web.ns.svc.east.local".into())));
        assert_eq!(row(&gateway, false), ("10.0.0.1:4143".into(), true, named.clone()));
        let gateway = endpoint(None, Some("web.ns.svc.east.local:8080"));
        assert_eq!(row(&gateway, false), ("10.0.0.1:80".into(), true, named));
        let unnamed = endpoint(Some(4143), Some("web.ns.svc.east.local"));
        assert_eq!(row(&unnamed, false), ("10.0.0.1:4143".into(), true, Some((80, None))));
    }

    #[test]
    fn an_opaque_endpoint_is_told_no_session_protocol() {
        let mut direct = endpoint(Some(4143), None);
        let session = |e: &Endpoint| Dial::new(e, false).header(Some(SessionProtocol::Http2)).unwrap().protocol;
        assert_eq!(session(&direct), Some(SessionProtocol::Http2));
        direct.hint = ProtocolHint::Opaque;
        assert_eq!(session(&direct), None);
    }
}
