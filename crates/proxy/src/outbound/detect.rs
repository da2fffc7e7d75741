//! Third stage: what the connection speaks, by policy, by its first bytes, or by the server's.
//!
//! ```text
//! policy ─┬─ HTTP or opaque ──────────────────────────────────────────────────────► known
//!         ├─ TLS ────► ClientHello ───────────────────────────────────────────────► server name
//!         └─ detect ─► first bytes ─┬─ some ────────────────────────────────────► HTTP or bytes
//!                                   ├─ their end ───────────────────────────────► bytes, where a server may speak first
//!                                   └─ none for a while ─► server_first: a session ─► whoever speaks first decides
//! ```

use super::{
    Outbound,
    discover::{Snapshot, Target},
    forward::Session,
    server_first,
};
use crate::{
    answers::{Answers, Said},
    direction::Direction,
    error::{Code, ProxyError},
    metrics::detect::Detection,
    prefix::{self, Seen},
    protocol::{self, Protocol, broken},
};
use bytes::{Bytes, BytesMut};
use std::{
    rc::Rc,
    time::{Duration, Instant},
};
use weft_model::{
    DnsName, Meta,
    decide::server_first::{Spoken, silence},
    policy::outbound::{ClientProtocol, HttpRoutes},
};
use weft_transport::{
    Stream,
    detect::{self, Tls},
};

/// A connection whose protocol is known.
pub(super) struct Detected {
    pub(super) protocol: Protocol,
    /// What had to be read to know.
    pub(super) prefix: Bytes,
    /// By which TLS is routed.
    pub(super) sni: Option<DnsName>,
    /// What had to be opened to know.
    pub(super) session: Option<Session>,
}

impl Detected {
    pub(super) fn new(protocol: Protocol, prefix: impl Into<Bytes>) -> Self {
        Self { protocol, prefix: prefix.into(), sni: None, session: None }
    }
}

/// What the connection speaks; `None` if the application closed without having sent anything, and no server speaks before it.
///
/// The proxy's own timeout counts, not the policy's (data plane 4.2). Bytes are forwarded for what is not HTTP, and where the server
/// speaks first; time alone never makes bytes of a connection.
///
/// # Errors
/// The connection broke, or the policy asks for a server name and there is none.
pub(super) async fn protocol(
    outbound: &Outbound,
    stream: &mut Stream,
    target: &Target,
) -> Result<Option<Detected>, ProxyError> {
    let snapshot = target.snapshot();
    let config = &outbound.wiring.context.config.outbound;
    match &snapshot.policy.value.protocol {
        ClientProtocol::Tls(_) if !config.ingress => server_name(stream, config.detect_timeout).await,
        _ if config.ingress => noted(outbound, stream, target, &snapshot).await,
        _ if snapshot.opaque => Ok(Some(Detected::new(Protocol::Opaque, Bytes::new()))),
        ClientProtocol::Detect { .. } => noted(outbound, stream, target, &snapshot).await,
        ClientProtocol::Http1(_) => Ok(Some(Detected::new(Protocol::Http1, Bytes::new()))),
        ClientProtocol::Http2(_) | ClientProtocol::Grpc { .. } => {
            Ok(Some(Detected::new(Protocol::Http2, Bytes::new())))
        }
        ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => Ok(Some(Detected::new(Protocol::Opaque, Bytes::new()))),
    }
}

/// The server name that a TLS connection asks for.
async fn server_name(stream: &mut Stream, timeout: Duration) -> Result<Option<Detected>, ProxyError> {
    let mut bytes = BytesMut::new();
    let seen = prefix::read(stream, &mut bytes, timeout, |bytes| match detect::tls(bytes) {
        Tls::NeedMore => None,
        known => Some(known),
    })
    .await
    .map_err(|error| broken("application", &error))?;
    let refused = |code, text: &str| Err(ProxyError::new(code, text));
    match seen {
        Seen::Answer(Tls::ClientHello { sni: Some(name) }) => {
            Ok(Some(Detected { sni: Some(name), ..Detected::new(Protocol::Opaque, bytes) }))
        }
        Seen::Answer(Tls::ClientHello { sni: None }) => {
            refused(Code::NoServerName, "the ClientHello names no server by which it could be routed")
        }
        Seen::Eof if bytes.is_empty() => Ok(None),
        Seen::Answer(_) | Seen::Eof => refused(Code::NoServerName, "the connection does not begin with a ClientHello"),
        Seen::Timeout => refused(Code::DetectTimeout, "the application did not send its ClientHello in time"),
    }
}

/// [`look`], with what it found out counted.
async fn noted(
    outbound: &Outbound,
    stream: &mut Stream,
    target: &Target,
    snapshot: &Snapshot,
) -> Result<Option<Detected>, ProxyError> {
    let start = Instant::now();
    let found = look(outbound, stream, target, snapshot).await;
    let detection = match &found {
        Ok(Some(Detected { protocol: Protocol::Http1, .. })) => Detection::Http1,
        Ok(Some(Detected { protocol: Protocol::Http2, .. })) => Detection::Http2,
        Ok(Some(Detected { protocol: Protocol::Opaque, prefix, .. })) if !prefix.is_empty() => Detection::NotHttp,
        // The application was silent.
        Ok(Some(Detected { session: Some(_), .. })) => Detection::ReadTimeout,
        // It sent nothing at all.
        Ok(_) | Err(_) => Detection::Error,
    };
    if let Some(detected) = &snapshot.detected {
        detected.note(detection, start.elapsed());
    }
    found
}

/// Looks at the first bytes, of the client's or, where it is silent and that is allowed, of whoever speaks.
async fn look(
    outbound: &Outbound,
    stream: &mut Stream,
    target: &Target,
    snapshot: &Snapshot,
) -> Result<Option<Detected>, ProxyError> {
    let context = &outbound.wiring.context;
    let config = &context.config.outbound;
    let port = Port::of(outbound, target, snapshot);
    let known = port.known();
    let http = is_http(&snapshot.policy.value.protocol);
    let allowed = silence(known, http, config.server_first_wait);
    let mut bytes = BytesMut::new();
    let stays_http = http || known == Some(Spoken::Http);
    let wait = allowed.unwrap_or(if stays_http { Duration::MAX } else { config.detect_timeout });
    let first = tokio::select! {
        first = first_byte(stream, &mut bytes, wait) => first?,
        () = crate::server_first::idle_at_the_end(&context.drain) => return Ok(None),
    };
    match first {
        Seen::Timeout => Box::pin(server_first::decide(outbound, stream, target, &port)).await,
        // Who sends nothing may still want to hear the server's greeting.
        Seen::Eof if allowed.is_some() => Ok(Some(Detected::new(Protocol::Opaque, bytes))),
        Seen::Eof | Seen::Answer(()) => rest(stream, bytes, &port, config.detect_timeout).await,
    }
}

/// Waits until the client says anything.
pub(super) async fn first_byte(
    stream: &mut Stream,
    bytes: &mut BytesMut,
    wait: Duration,
) -> Result<Seen<()>, ProxyError> {
    prefix::read(stream, bytes, wait, |_| Some(())).await.map_err(|error| broken("application", &error))
}

/// What the client speaks that has begun to, or has ended.
pub(super) async fn rest(
    stream: &mut Stream,
    mut bytes: BytesMut,
    port: &Port<'_>,
    timeout: Duration,
) -> Result<Option<Detected>, ProxyError> {
    let seen = protocol::read(stream, &mut bytes, timeout).await.map_err(|error| broken("application", &error))?;
    Ok(judge(port, &seen, bytes))
}

/// What is made of the client's first bytes.
fn judge(port: &Port<'_>, seen: &Seen<Protocol>, bytes: BytesMut) -> Option<Detected> {
    let protocol = match seen {
        Seen::Answer(protocol) => {
            // Whether it is HTTP, the server says.
            if *protocol == Protocol::Opaque {
                port.saw(Spoken::ClientFirst);
            }
            *protocol
        }
        Seen::Eof if bytes.is_empty() => return None,
        // What could still become a request is one; its codec knows how long the rest may take.
        Seen::Timeout => Protocol::Http1,
        Seen::Eof => Protocol::Opaque,
    };
    Some(Detected::new(protocol, bytes))
}

/// The policy has routes that somebody wrote for HTTP.
fn is_http(protocol: &ClientProtocol) -> bool {
    let written = |routes: &HttpRoutes| routes.routes.iter().any(|route| matches!(route.meta, Meta::Resource(_)));
    match protocol {
        ClientProtocol::Detect { http1, http2, .. } => written(http1) || written(http2),
        ClientProtocol::Http1(_) | ClientProtocol::Http2(_) | ClientProtocol::Grpc { .. } => true,
        ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => false,
    }
}

/// The port of a target in the memory of what ports spoke. A target by name has none: nothing is detected for it.
pub(super) struct Port<'c> {
    outbound: &'c Outbound,
    addr: Option<std::net::SocketAddr>,
    object: &'c Meta,
}

impl<'c> Port<'c> {
    fn of(outbound: &'c Outbound, target: &Target, snapshot: &'c Snapshot) -> Self {
        Self { outbound, addr: target.found.key.addr(), object: &snapshot.policy.value.meta }
    }

    /// What the answers to requests were.
    fn answered(&self, said: Said) {
        match said {
            Said::Http => self.saw(Spoken::Http),
            Said::Other => {
                let ports = &self.outbound.wiring.context.spoken;
                let not_http = |addr| ports.not_http(Direction::Outbound, addr, self.object, Instant::now());
                self.addr.into_iter().for_each(not_http);
            }
        }
    }

    fn known(&self) -> Option<Spoken> {
        let ports = &self.outbound.wiring.context.spoken;
        ports.known(Direction::Outbound, self.addr?, self.object, Instant::now())
    }

    pub(super) fn saw(&self, spoken: Spoken) {
        if let Some(addr) = self.addr {
            self.outbound.wiring.context.spoken.saw(Direction::Outbound, addr, self.object, spoken, Instant::now());
        }
    }
}

/// What learns from the answers to a connection's requests; `None` where the policy, or the target, leaves nothing to be learned.
pub(super) fn learning(outbound: &Rc<Outbound>, target: &Rc<Target>) -> Option<Rc<Answers>> {
    let detects = outbound.wiring.context.config.outbound.ingress
        || matches!(target.snapshot().policy.value.protocol, ClientProtocol::Detect { .. });
    target.found.key.addr().filter(|_| detects)?;
    let (outbound, target) = (Rc::clone(outbound), Rc::clone(target));
    Some(Answers::new(move |said| Port::of(&outbound, &target, &target.snapshot()).answered(said)))
}
