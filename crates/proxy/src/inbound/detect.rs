//! Third stage: HTTP/1, HTTP/2 or bytes, by the port's policy or by what came first (data plane 3.4).

use super::server_first;
use crate::{
    metrics::{Metrics, labels},
    prefix::Seen,
    protocol::{self, Protocol},
};
use bytes::BytesMut;
use std::time::{Duration, Instant};
use weft_model::policy::inbound::{ServerPolicy, ServerProtocol};
use weft_telemetry::Labels;
use weft_transport::Stream;

/// What the policy says: known, or to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Known(Protocol),
    /// For so long at most.
    For(Duration),
}

/// The protocol; what was read is put back. `None` if the client has closed, or the time has passed, without a byte: silence makes
/// nothing of a connection, or what is said late would go around what holds for requests.
///
/// `configured` is the proxy's own timeout, for policies that name none. What was looked at is counted.
pub(super) async fn protocol(
    stream: &mut Stream,
    policy: &ServerPolicy,
    meshed: bool,
    configured: Duration,
    metrics: &Metrics,
    port: u16,
) -> std::io::Result<Option<Protocol>> {
    let timeout = match look(&policy.protocol, meshed, configured) {
        Look::Known(protocol) => return Ok(Some(protocol)),
        Look::For(timeout) => timeout,
    };
    let start = Instant::now();
    let mut bytes = BytesMut::new();
    let seen = protocol::read(stream, &mut bytes, timeout).await;
    let result = match &seen {
        Ok(Seen::Answer(Protocol::Http1)) => "http/1",
        Ok(Seen::Answer(Protocol::Http2)) => "http/2",
        Ok(Seen::Answer(Protocol::Opaque)) => "not_http",
        Ok(Seen::Timeout) => "read_timeout",
        Ok(Seen::Eof) | Err(_) => "error",
    };
    let labels = labels::server(&policy.meta, port);
    metrics.counter(&metrics.detected, &Labels::new().with("result", result).join(&labels)).inc();
    metrics.detect_seconds.with(metrics.shard, &labels).observe(start.elapsed().as_secs_f64());
    let seen = seen?;
    let empty = bytes.is_empty();
    stream.unread(bytes.freeze());
    Ok(match seen {
        Seen::Answer(protocol) => Some(protocol),
        Seen::Eof | Seen::Timeout if empty => None,
        // A server may take for a request what ends where it could still become one: nothing goes around the policy's routes.
        Seen::Eof if server_first::is_http(&policy.protocol) => Some(Protocol::Http1),
        Seen::Eof => Some(Protocol::Opaque),
        // What could still become a request is held to what holds for requests, or a slow client would go around limits and say who it
        // is; its codec knows how long the rest may take.
        Seen::Timeout => Some(Protocol::Http1),
    })
}

/// What a client speaks that has begun to; `None` if it has ended. What was read is put back.
pub(super) async fn begun(stream: &mut Stream, timeout: Duration) -> std::io::Result<Option<Protocol>> {
    let mut bytes = BytesMut::new();
    let seen = protocol::read(stream, &mut bytes, timeout).await?;
    let empty = bytes.is_empty();
    stream.unread(bytes.freeze());
    Ok(match seen {
        Seen::Answer(protocol) => Some(protocol),
        Seen::Eof if empty => None,
        // In doubt it is HTTP: what it says next is held to the routes.
        Seen::Eof | Seen::Timeout => Some(Protocol::Http1),
    })
}

fn look(policy: &ServerProtocol, meshed: bool, configured: Duration) -> Look {
    match policy {
        // The peer's proxy may carry HTTP/1 on HTTP/2.
        ServerProtocol::Http1 { .. } if meshed => Look::For(configured),
        ServerProtocol::Http1 { .. } => Look::Known(Protocol::Http1),
        ServerProtocol::Http2 { .. } | ServerProtocol::Grpc { .. } => Look::Known(Protocol::Http2),
        ServerProtocol::Detect { timeout, .. } => Look::For(*timeout),
        ServerProtocol::Opaque | ServerProtocol::Tls => Look::Known(Protocol::Opaque),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let (http1, http2) = (
            ServerProtocol::Http1 { routes: vec![], rate_limit: None },
            ServerProtocol::Http2 { routes: vec![], rate_limit: None },
        );
        let (own, policy) = (Duration::from_secs(10), Duration::from_secs(1));
        let detect = ServerProtocol::Detect { timeout: policy, routes: vec![], rate_limit: None };
        for (protocol, unmeshed, meshed) in [
            (&http1, Look::Known(Protocol::Http1), Look::For(own)),
            (&http2, Look::Known(Protocol::Http2), Look::Known(Protocol::Http2)),
            (&ServerProtocol::Grpc { routes: vec![] }, Look::Known(Protocol::Http2), Look::Known(Protocol::Http2)),
            (&detect, Look::For(policy), Look::For(policy)),
            (&ServerProtocol::Tls, Look::Known(Protocol::Opaque), Look::Known(Protocol::Opaque)),
        ] {
            assert_eq!(look(protocol, false, own), unmeshed, "{protocol:?}");
            assert_eq!(look(protocol, true, own), meshed, "{protocol:?}");
        }
    }
}
