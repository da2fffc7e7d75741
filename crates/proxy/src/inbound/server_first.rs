//! Beside tls and detect, for a client that is silent: the application is connected, and whoever speaks first decides.
//!
//! ```text
//! silence ─► may it? ─► connect ─┬─ application: greeting ──────► bytes
//!                                ├─ client: its end ────────────► bytes: it may still want to hear
//!                                ├─ client: anything ───────────► tls or detect; HTTP closes the session unused
//!                                ├─ application: HTTP unasked ──► the session is closed; the client's first byte
//!                                └─ failed, or ended ───────────► the client's first byte
//! ```
//! Only where the policy would let this client's bytes in as it stands, and has no routes of HTTP. No byte of the client goes out.

use super::{Inbound, Wiring, connected::Connected, detect, forward::Connector};
use crate::{
    answers::{Answers, Said},
    direction::Direction,
    error::{Code, ProxyError},
    metrics::server_first::Outcome,
    prefix::{self, Seen},
    process::discovery::PortPolicy,
    protocol::{self, Protocol},
    server_first::{self, Heard, listen},
};
use bytes::BytesMut;
use std::{
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use weft_model::{
    Meta,
    decide::{
        authorize::permit,
        server_first::{Spoken, silence},
    },
    policy::inbound::ServerProtocol,
};
use weft_transport::Stream;

/// A connection on which nothing has been said.
pub(super) enum Silent<'s> {
    /// Before it is known whether it is TLS.
    Tcp(&'s TcpStream),
    /// Inside TLS.
    Stream(&'s mut Stream),
}

/// What came of the silence.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client has begun, or nobody may speak before it; with the session that was opened meanwhile.
    ByClient(Option<Stream>),
    /// Only the application may still speak, over this session if there is one: it greets, or the client has ended without a word.
    ByApplication(Option<Stream>),
    /// Nobody has spoken, and the process ends.
    Never,
}

/// What the client did first.
enum First {
    Word,
    /// It has ended in order: it says nothing, and may still want to hear.
    End,
}

impl First {
    /// What comes of it, with the session that was opened meanwhile.
    fn breaks(self, session: Option<Stream>) -> Broken {
        match self {
            Self::Word => Broken::ByClient(session),
            Self::End => Broken::ByApplication(session),
        }
    }
}

impl Silent<'_> {
    /// Waits until the client says anything, which stays to be read, or ends.
    async fn begins(&mut self) -> First {
        match self {
            // An error is met again by whoever reads.
            Self::Tcp(tcp) => match tcp.peek(&mut [0]).await {
                Ok(0) => First::End,
                Ok(_) | Err(_) => First::Word,
            },
            Self::Stream(stream) => {
                let mut bytes = BytesMut::new();
                match prefix::read(stream, &mut bytes, Duration::MAX, |_| Some(())).await {
                    Ok(Seen::Eof) => return First::End,
                    Ok(Seen::Answer(())) => stream.unread(bytes.freeze()),
                    Ok(Seen::Timeout) | Err(_) => {}
                }
                First::Word
            }
        }
    }
}

/// Waits for the client to begin; where it is silent, and that is allowed, for the application too, over `session` if there is one
/// already: inside TLS for as long as both are silent and the policy allows it, before it at most for `timeout`.
pub(super) async fn wait(
    wiring: &Wiring,
    mut client: Silent<'_>,
    session: Option<Stream>,
    connected: &Connected,
    port: &PortPolicy,
    timeout: Duration,
) -> Broken {
    let mut seen = port.policy.version();
    let Some(allowed) = allowed(wiring, connected, port) else { return Broken::ByClient(session) };
    let patience = match client {
        Silent::Tcp(_) => timeout,
        Silent::Stream(_) => Duration::MAX,
    };
    let count = |outcome| wiring.server_first.count(outcome);
    let opened = match session {
        Some(session) => Ok(session),
        None => match tokio::time::timeout(allowed.min(timeout), client.begins()).await {
            Ok(first) => return first.breaks(None),
            // A session that is there is looked at first: it is counted, whatever the client does in the same moment.
            Err(_) => tokio::select! {
                biased;
                opened = Connector::new(wiring, connected.target).connect() => opened,
                first = client.begins() => return first.breaks(None),
            },
        },
    };
    let mut session = match opened {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(target = %connected.target, %error, "no session for a silent client");
            count(Outcome::Failed);
            return Broken::ByClient(None);
        }
    };
    let mut said = BytesMut::new();
    let mut patience = pin!(tokio::time::sleep(patience));
    let mut end = pin!(server_first::idle_at_the_end(&wiring.context.drain));
    let heard = loop {
        tokio::select! {
            biased;
            first = client.begins() => {
                session.unread(said.freeze());
                if let First::End = first {
                    count(Outcome::Client);
                }
                return first.breaks(Some(session));
            }
            policy = port.policy.changed(seen) => {
                seen = policy.version;
                if self::allowed(wiring, connected, port).is_none() {
                    unused(wiring, Some(session));
                    return Broken::ByClient(None);
                }
            }
            heard = listen(&mut session, &mut said) => break heard,
            // Both are silent: that is judged by whoever waits for the client alone.
            () = &mut patience => return Broken::ByClient(Some(session)),
            () = &mut end => {
                unused(wiring, Some(session));
                return Broken::Never;
            }
        }
    };
    match heard {
        Heard::Greeting => {
            count(Outcome::Server);
            saw(wiring, connected.target, port, Spoken::ServerFirst);
            session.unread(said.freeze());
            return Broken::ByApplication(Some(session));
        }
        Heard::Http => {
            count(Outcome::HttpServer);
            saw(wiring, connected.target, port, Spoken::Http);
            server_first::close(session);
        }
        Heard::End(_) => count(Outcome::Ended),
    }
    Broken::ByClient(None)
}

/// How long this client may be silent until the application is connected; `None` is for ever.
fn allowed(wiring: &Wiring, connected: &Connected, port: &PortPolicy) -> Option<Duration> {
    let policy = port.policy.snapshot();
    let wait = silence(
        known(wiring, connected, &policy.value.meta),
        is_http(&policy.value.protocol),
        wiring.context.config.inbound.server_first_wait,
    )?;
    let let_in =
        policy.value.unsupported().is_none() && permit(&policy.value.authorizations, &connected.client()).is_some();
    let_in.then_some(wait)
}

/// What is done with the session once the client's protocol is known; `None` for that is the client's end.
pub(super) fn judged(
    wiring: &Wiring,
    session: Option<Stream>,
    protocol: Option<Protocol>,
    connected: &Connected,
    port: &PortPolicy,
) -> Option<Stream> {
    if protocol == Some(Protocol::Opaque) && detects(port) {
        saw(wiring, connected.target, port, Spoken::ClientFirst);
    }
    let session = session?;
    let outcome = match protocol {
        Some(Protocol::Opaque) => Outcome::Client,
        Some(Protocol::Http1 | Protocol::Http2) => Outcome::Http,
        None => Outcome::Idle,
    };
    wiring.server_first.count(outcome);
    if outcome == Outcome::Client {
        return Some(session);
    }
    server_first::close(session);
    None
}

/// Ends a session whose client has gone before it was known what it speaks.
pub(super) fn unused(wiring: &Wiring, session: Option<Stream>) {
    if let Some(session) = session {
        wiring.server_first.count(Outcome::Idle);
        server_first::close(session);
    }
}

/// What a session speaks that a client's proxy has opened for bytes, on a port of HTTP: nothing goes around its routes. `None` if it
/// has ended.
///
/// # Errors
/// Nothing was said: it was opened for a server that speaks first, which one of HTTP does not.
pub(super) async fn of_http(wiring: &Wiring, stream: &mut Stream) -> Result<Option<Protocol>, ProxyError> {
    let config = &wiring.context.config.inbound;
    let wait = config.server_first_wait;
    // Without a wait nobody is refused for silence; what is said is held to the routes all the same.
    if !wait.is_zero() && tokio::time::timeout(wait, Silent::Stream(stream).begins()).await.is_err() {
        wiring.server_first.count(Outcome::Refused);
        stream.reset_on_close();
        let text = "the port's policy has HTTP routes: its server does not speak first";
        return Err(ProxyError::new(Code::ServerFirstRefused, text));
    }
    detect::begun(stream, config.detect_timeout).await.map_err(|error| protocol::broken("client", &error))
}

/// The policy is about HTTP: it says so, or has a limit for its requests or routes that somebody wrote.
pub(super) fn is_http(protocol: &ServerProtocol) -> bool {
    match protocol {
        ServerProtocol::Detect { routes, rate_limit, .. } => {
            rate_limit.is_some() || routes.iter().any(|route| matches!(route.meta, Meta::Resource(_)))
        }
        ServerProtocol::Http1 { .. } | ServerProtocol::Http2 { .. } | ServerProtocol::Grpc { .. } => true,
        ServerProtocol::Opaque | ServerProtocol::Tls => false,
    }
}

fn known(wiring: &Wiring, connected: &Connected, object: &Meta) -> Option<Spoken> {
    wiring.context.spoken.known(Direction::Inbound, connected.target, object, Instant::now())
}

/// Remembers what was seen on the port.
fn saw(wiring: &Wiring, target: SocketAddr, port: &PortPolicy, spoken: Spoken) {
    let policy = port.policy.load();
    wiring.context.spoken.saw(Direction::Inbound, target, &policy.value.meta, spoken, Instant::now());
}

/// What learns from the application's answers to a connection's requests; `None` where the policy leaves nothing to be learned.
pub(super) fn learning(inbound: &Rc<Inbound>, target: SocketAddr, port: &Arc<PortPolicy>) -> Option<Rc<Answers>> {
    let (inbound, port) = detects(port).then(|| (Rc::clone(inbound), Arc::clone(port)))?;
    Some(Answers::new(move |said| match said {
        Said::Http => saw(&inbound.wiring, target, &port, Spoken::Http),
        Said::Other => {
            let policy = port.policy.load();
            let ports = &inbound.wiring.context.spoken;
            ports.not_http(Direction::Inbound, target, &policy.value.meta, Instant::now());
        }
    }))
}

/// The policy leaves it to detection what the port speaks.
fn detects(port: &PortPolicy) -> bool {
    matches!(port.policy.load().value.protocol, ServerProtocol::Detect { .. })
}
