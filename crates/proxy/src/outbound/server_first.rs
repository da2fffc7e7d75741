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
    server_first::{Heard, idle_at_the_end, listen},
};
use bytes::BytesMut;
use std::{pin::pin, time::Duration};
use weft_model::decide::server_first::{self, Client, Spoken, Way};
use weft_transport::Stream;

/// The session as far as it has come.
struct Held {
    state: server_first::Session,
    /// While it is of use.
    session: Option<Session>,
    /// What a client is told that stays silent though the session has gone.
    told: Result<(), ProxyError>,
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
    let mut bytes = BytesMut::new();
    let mut opening = pin!(forward::open(outbound, target, None));
    let mut held = Held::of(server_first::Session::Opening);
    let mut first = tokio::select! {
        biased;
        first = detect::first_byte(stream, &mut bytes, Duration::MAX) => Some(first?),
        opened = &mut opening => {
            held = Held::opened(opened, outbound, target);
            None
        }
        () = idle_at_the_end(&outbound.wiring.context.drain) => return Ok(None),
    };
    if first.is_none() && held.state == server_first::Session::Standing {
        first = race(outbound, stream, &mut bytes, &mut held, port).await?;
    }
    if let Some(patience) = held.patience(timeout) {
        first = tokio::select! {
            first = detect::first_byte(stream, &mut bytes, patience) => Some(first?),
            () = idle_at_the_end(&outbound.wiring.context.drain) => return Ok(None),
        };
    }
    let mut detected = None;
    if let Some(Seen::Answer(())) = first {
        let mut rest = pin!(detect::rest(stream, std::mem::take(&mut bytes), port, timeout));
        detected = loop {
            tokio::select! {
                biased;
                rest = &mut rest => break rest?,
                // Connecting has a time of its own, which the client's slowness must not use up.
                opened = &mut opening, if held.state == server_first::Session::Opening => {
                    held = Held::opened(opened, outbound, target);
                }
            }
        };
    }
    let client = match (&first, &detected) {
        (_, Some(Detected { protocol: Protocol::Opaque, .. })) => Client::Bytes,
        (_, Some(_)) => Client::Http,
        (None | Some(Seen::Timeout), None) => Client::Nothing,
        (Some(Seen::Answer(()) | Seen::Eof), None) => Client::End,
    };
    let way = server_first::way(held.state, client);
    if let Some(outcome) = held.outcome(way) {
        outbound.wiring.server_first.count(outcome);
    }
    if way != Way::Session
        && let Some(unused) = held.session.take()
    {
        unused.close_unused();
    }
    match way {
        Way::Session => {
            let session = match held.session {
                Some(session) => session,
                None => opening.await?,
            };
            let detected = detected.unwrap_or_else(|| Detected::new(Protocol::Opaque, bytes));
            Ok(Some(Detected { session: Some(session), ..detected }))
        }
        Way::Anew | Way::Http => Ok(detected),
        Way::End => Ok(None),
        Way::Told => held.told.map(|()| None),
    }
}

impl Held {
    fn of(state: server_first::Session) -> Self {
        Self { state, session: None, told: Ok(()) }
    }

    fn opened(opened: Result<Session, ProxyError>, outbound: &Outbound, target: &Target) -> Self {
        match opened {
            Ok(session) => Self { session: Some(session), ..Self::of(server_first::Session::Standing) },
            Err(error) => {
                outbound.wiring.server_first.count(Outcome::Failed);
                tracing::debug!(target = %target.found.key, %error, "no session for a silent client");
                Self { told: Err(error), ..Self::of(server_first::Session::Failed) }
            }
        }
    }

    /// How long the client may still be silent; `None` where it does not matter any more what it says first.
    fn patience(&self, timeout: Duration) -> Option<Duration> {
        match self.state {
            server_first::Session::SpokeHttp => Some(Duration::MAX),
            server_first::Session::Failed | server_first::Session::Ended => Some(timeout),
            _ => None,
        }
    }

    /// What is counted at the end; a session that has gone was counted when it went.
    fn outcome(&self, way: Way) -> Option<Outcome> {
        match (self.state, way) {
            (server_first::Session::Greeted, _) => Some(Outcome::Server),
            (server_first::Session::Opening | server_first::Session::Standing, way) => Some(match way {
                Way::Session | Way::Anew => Outcome::Client,
                Way::Http => Outcome::Http,
                Way::End | Way::Told => Outcome::Idle,
            }),
            _ => None,
        }
    }
}

/// Waits for the first word of either side, and returns the client's: `None` if it was the server's, or the process ends.
async fn race(
    outbound: &Outbound,
    stream: &mut Stream,
    bytes: &mut BytesMut,
    held: &mut Held,
    port: &Port<'_>,
) -> Result<Option<Seen<()>>, ProxyError> {
    let Some(session) = &mut held.session else { return Ok(None) };
    let mut said = BytesMut::new();
    let heard = tokio::select! {
        biased;
        first = detect::first_byte(stream, bytes, Duration::MAX) => {
            session.stream.unread(said.freeze());
            return Ok(Some(first?));
        }
        heard = listen(&mut session.stream, &mut said) => heard,
        () = idle_at_the_end(&outbound.wiring.context.drain) => return Ok(None),
    };
    let count = |outcome| outbound.wiring.server_first.count(outcome);
    match heard {
        Heard::Greeting => {
            port.saw(Spoken::ServerFirst);
            session.stream.unread(said.freeze());
            held.state = server_first::Session::Greeted;
        }
        Heard::Http => {
            count(Outcome::HttpServer);
            port.saw(Spoken::Http);
            held.state = server_first::Session::SpokeHttp;
            held.session.take().into_iter().for_each(Session::close_unused);
        }
        Heard::End(how) => {
            count(Outcome::Ended);
            let cut = |error| ProxyError::new(Code::UpstreamProtocol, format!("the server cut a session: {error}"));
            *held = Held { told: how.map_err(cut), ..Held::of(server_first::Session::Ended) };
        }
    }
    Ok(None)
}
