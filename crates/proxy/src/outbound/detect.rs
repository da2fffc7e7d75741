//! Third stage: what the connection speaks, by policy or by its first bytes.

use super::discover::Snapshot;
use crate::prefix::{self, Seen};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use weft_model::policy::outbound::ClientProtocol;
use weft_transport::{
    Stream,
    detect::{self, Http},
};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Opaque,
}

/// The protocol, and the bytes that had to be read to know; `None` if the application closed without having sent any.
///
/// The proxy's own timeout counts, not the policy's (data plane 4.2). After it, and for what is not HTTP, bytes are forwarded.
pub(super) async fn protocol(
    stream: &mut Stream,
    snapshot: &Snapshot,
    timeout: Duration,
) -> std::io::Result<Option<(Protocol, Bytes)>> {
    if let Some(known) = configured(snapshot) {
        return Ok(Some((known, Bytes::new())));
    }
    let mut bytes = BytesMut::new();
    let seen = prefix::read(stream, &mut bytes, timeout, |bytes| match detect::http(bytes) {
        Http::NeedMore => None,
        Http::Http1 => Some(Protocol::Http1),
        Http::Http2 => Some(Protocol::Http2),
        Http::NotHttp => Some(Protocol::Opaque),
    })
    .await?;
    Ok(match seen {
        Seen::Answer(protocol) => Some((protocol, bytes.freeze())),
        Seen::Eof if bytes.is_empty() => None,
        Seen::Eof | Seen::Timeout => Some((Protocol::Opaque, bytes.freeze())),
    })
}

/// What policy and profile say; `None` is to look at the bytes.
fn configured(snapshot: &Snapshot) -> Option<Protocol> {
    match &snapshot.policy.value.protocol {
        _ if snapshot.opaque => Some(Protocol::Opaque),
        ClientProtocol::Detect { .. } => None,
        ClientProtocol::Http1(_) => Some(Protocol::Http1),
        ClientProtocol::Http2(_) | ClientProtocol::Grpc { .. } => Some(Protocol::Http2),
        ClientProtocol::Opaque(_) | ClientProtocol::Tls(_) => Some(Protocol::Opaque),
    }
}
