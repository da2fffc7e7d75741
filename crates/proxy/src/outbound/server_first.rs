//! Third stage, for a client that is silent: a session is opened, and whoever speaks first decides.
//!
//! ```text
//! silence ─► open ─┬─ server: greeting ─────────────────► bytes, over the session
//!                  ├─ client: not HTTP, or its end ─────► bytes, over the session
//!                  ├─ client: HTTP ─────────────────────► HTTP; the session is closed unused
//!                  ├─ server: HTTP unasked ─────────────► the session is closed unused ─► the client's first byte
//!                  └─ failed, or ended without a word ──► the client's first byte, for as long as detection may take
//! ```
//! No byte of the client goes out before it is known not to be HTTP.

use super::{
    Outbound,
    detect::{self, Detected, Port},
    discover::Target,
    forward::{self, Session},
};
use crate::{
    error::{Code, ProxyError},
    metrics::server_first::Outcome,
    prefix::Seen,
    protocol::Protocol,
    server_first::{Heard, listen},
};
use bytes::BytesMut;
use std::{pin::pin, time::Duration};
use weft_model::decide::server_first::Spoken;
use weft_transport::Stream;

/// What a session came to before the client said anything.
enum Opened {
    /// It stands.
    Session(Session),
    /// The server greets.
    Greeted(Session),
    /// It is of no use: how long the client may still be silent, and what it is told then.
    Gone(Duration, Result<(), ProxyError>),
}

/// Decides what a connection speaks whose client has been silent; `None` if it ended so.
///
/// # Errors
/// The client's connection broke, or nobody said anything and the session failed.
pub(super) async fn decide(
    outbound: &Outbound,
    stream: &mut Stream,
    target: &Target,
    port: &Port<'_>,
) -> Result<Option<Detected>, ProxyError> {
    let timeout = outbound.wiring.context.config.outbound.detect_timeout;
    let count = |outcome| outbound.wiring.server_first.count(outcome);
    let mut bytes = BytesMut::new();
    let mut opening = pin!(forward::open(outbound, target, None));
    let opened = tokio::select! {
        biased;
        first = detect::first_byte(stream, &mut bytes, Duration::MAX) => {
            let detected = began(stream, bytes, first?, port, timeout, false).await?;
            return Ok(match detected {
                Some(detected) if detected.protocol == Protocol::Opaque => {
                    count(Outcome::Client);
                    Some(Detected { session: Some(opening.await?), ..detected })
                }
                // What was being opened is given up.
                detected => {
                    count(if detected.is_some() { Outcome::Http } else { Outcome::Idle });
                    detected
                }
            });
        }
        opened = &mut opening => opened,
        () = detect::idle_at_the_end(outbound) => return Ok(None),
    };
    let session = match opened {
        Ok(session) => Opened::Session(session),
        Err(error) => {
            count(Outcome::Failed);
            tracing::debug!(target = %target.found.key, %error, "no session for a silent client");
            Opened::Gone(timeout, Err(error))
        }
    };
    let (first, session) = match session {
        Opened::Session(session) => race(outbound, stream, &mut bytes, session, port).await?,
        gone => (None, gone),
    };
    let (first, session, stays_http) = match (first, session) {
        (_, Opened::Greeted(session)) => {
            count(Outcome::Server);
            let greeted = Detected { session: Some(session), ..Detected::new(Protocol::Opaque, bytes) };
            return Ok(Some(greeted));
        }
        (Some(first), Opened::Session(session)) => (first, Some(session), false),
        (_, Opened::Gone(wait, outcome)) => {
            let first = tokio::select! {
                first = detect::first_byte(stream, &mut bytes, wait) => first?,
                () = detect::idle_at_the_end(outbound) => return Ok(None),
            };
            if let Seen::Timeout = first {
                return outcome.map(|()| None);
            }
            (first, None, wait == Duration::MAX)
        }
        (None, Opened::Session(session)) => {
            count(Outcome::Idle);
            session.close_unused();
            return Ok(None);
        }
    };
    let ended = matches!(first, Seen::Eof);
    match (began(stream, bytes, first, port, timeout, stays_http).await?, session) {
        (Some(detected), Some(session)) if detected.protocol == Protocol::Opaque => {
            count(Outcome::Client);
            Ok(Some(Detected { session: Some(session), ..detected }))
        }
        // It sends nothing, and may still want to hear.
        (None, Some(session)) if ended => {
            count(Outcome::Client);
            Ok(Some(Detected { session: Some(session), ..Detected::new(Protocol::Opaque, BytesMut::new()) }))
        }
        (detected, Some(session)) => {
            count(Outcome::Http);
            session.close_unused();
            Ok(detected)
        }
        (detected, None) => Ok(detected),
    }
}

/// Waits for the first word of either side; `None` for the client's if the process ends, or the session does.
async fn race(
    outbound: &Outbound,
    stream: &mut Stream,
    bytes: &mut BytesMut,
    mut session: Session,
    port: &Port<'_>,
) -> Result<(Option<Seen<()>>, Opened), ProxyError> {
    let timeout = outbound.wiring.context.config.outbound.detect_timeout;
    let mut said = BytesMut::new();
    let heard = tokio::select! {
        biased;
        first = detect::first_byte(stream, bytes, Duration::MAX) => {
            let first = first?;
            session.stream.unread(said.freeze());
            return Ok((Some(first), Opened::Session(session)));
        }
        heard = listen(&mut session.stream, &mut said) => heard,
        () = detect::idle_at_the_end(outbound) => return Ok((None, Opened::Session(session))),
    };
    let count = |outcome| outbound.wiring.server_first.count(outcome);
    Ok((
        None,
        match heard {
            Heard::Greeting => {
                port.saw(Spoken::ServerFirst);
                session.stream.unread(said.freeze());
                Opened::Greeted(session)
            }
            Heard::Http => {
                count(Outcome::HttpServer);
                port.saw(Spoken::Http);
                session.close_unused();
                Opened::Gone(Duration::MAX, Ok(()))
            }
            Heard::End(how) => {
                count(Outcome::Ended);
                let cut = |error| ProxyError::new(Code::UpstreamProtocol, format!("the server cut a session: {error}"));
                Opened::Gone(timeout, how.map_err(cut))
            }
        },
    ))
}

/// What the client speaks that said `first`; `None` if it ended.
async fn began(
    stream: &mut Stream,
    bytes: BytesMut,
    first: Seen<()>,
    port: &Port<'_>,
    timeout: Duration,
    stays_http: bool,
) -> Result<Option<Detected>, ProxyError> {
    match first {
        Seen::Answer(()) => detect::rest(stream, bytes, port, timeout, stays_http).await,
        Seen::Eof | Seen::Timeout => Ok(None),
    }
}
