//! What a connection speaks, by its first bytes: the same for both directions.
//!
//! When they look, for how long, and what they make of silence is theirs.

use crate::{
    error::{Code, ProxyError},
    prefix::{self, Seen},
};
use bytes::BytesMut;
use std::{io, time::Duration};
use tokio::io::AsyncRead;
use weft_transport::detect::{self, Http};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Opaque,
}

impl Protocol {
    /// As records show it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Opaque => "opaque",
        }
    }
}

/// The version of HTTP that a message is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
    Http2,
}

/// Reads into `bytes` until they tell the protocol.
pub(crate) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut BytesMut,
    timeout: Duration,
) -> io::Result<Seen<Protocol>> {
    let ask = |bytes: &[u8]| match detect::http(bytes) {
        Http::NeedMore => None,
        Http::Http1 => Some(Protocol::Http1),
        Http::Http2 => Some(Protocol::Http2),
        Http::NotHttp => Some(Protocol::Opaque),
    };
    prefix::read(stream, bytes, timeout, ask).await
}

/// The connection of `whom` broke while it was looked at.
pub(crate) fn broken(whom: &str, error: &io::Error) -> ProxyError {
    ProxyError::new(Code::BadRequest, format!("the {whom}'s connection broke: {error}"))
}
