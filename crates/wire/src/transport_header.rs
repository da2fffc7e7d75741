//! What a client's proxy says before the first byte of a connection to a server's proxy (data plane 3.9).
//!
//! A fixed preface, the length of a message, the message; the application's bytes follow at once.

use bytes::Buf;
use prost::Message;
use weft_model::DnsName;

/// Where a connection goes and what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Not 0.
    pub port: u16,
    /// The target of a gateway.
    pub name: Option<DnsName>,
    /// `None` is bytes.
    pub protocol: Option<SessionProtocol>,
}

/// What the application's bytes are; the server's proxy does not detect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionProtocol {
    Http1,
    Http2,
}

/// Bytes that are no transport header, on a connection that must begin with one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the connection does not begin with a transport header")]
    Preface,
    #[error("a transport header of {0} bytes is longer than {MAX_BYTES}")]
    TooLong(u64),
    #[error("the transport header is no valid message")]
    Message,
    #[error("{0} is no port: it is 1 to 65535")]
    Port(i32),
    #[error("the target's name is no DNS name")]
    Name,
}

/// What a connection with a transport header begins with.
pub const PREFACE: &[u8; 23] = b"transport.l5d.io/v1\r\n\r\n";

/// The longest header, preface and length included.
pub const MAX_BYTES: usize = 64 * 1024;

/// Preface and length.
const HEAD_BYTES: usize = PREFACE.len() + 4;

impl TransportHeader {
    pub fn encode(&self) -> Vec<u8> {
        let Self { port, name, protocol } = self;
        let kind = protocol.map(|protocol| match protocol {
            SessionProtocol::Http1 => wire::session_protocol::Kind::Http1(wire::Empty {}),
            SessionProtocol::Http2 => wire::session_protocol::Kind::Http2(wire::Empty {}),
        });
        let message = wire::Header {
            port: (*port).into(),
            name: name.as_ref().map(ToString::to_string).unwrap_or_default(),
            session_protocol: kind.map(|kind| wire::SessionProtocol { kind: Some(kind) }),
        };
        let mut out = Vec::with_capacity(HEAD_BYTES + message.encoded_len());
        out.extend_from_slice(PREFACE);
        // A name has at most 253 bytes.
        out.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&message.encode_to_vec());
        out
    }

    /// The header at the beginning of `bytes` and its length there; `None` while bytes are missing.
    ///
    /// # Errors
    /// What is there is no header, whatever follows.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, Error> {
        let seen = bytes.len().min(PREFACE.len());
        if bytes.get(..seen) != PREFACE.get(..seen) {
            return Err(Error::Preface);
        }
        let Some(mut rest) = bytes.get(PREFACE.len()..) else { return Ok(None) };
        let Ok(length) = rest.try_get_u32() else { return Ok(None) };
        let total = u64::from(length) + HEAD_BYTES as u64;
        if total > MAX_BYTES as u64 {
            return Err(Error::TooLong(total));
        }
        let Some(message) = rest.get(..length as usize) else { return Ok(None) };
        let wire::Header { port, name, session_protocol } =
            wire::Header::decode(message).map_err(|_| Error::Message)?;
        let header = Self {
            port: u16::try_from(port).ok().filter(|port| *port > 0).ok_or(Error::Port(port))?,
            name: if name.is_empty() { None } else { Some(name.parse().map_err(|_| Error::Name)?) },
            protocol: session_protocol.and_then(|protocol| protocol.kind).map(|kind| match kind {
                wire::session_protocol::Kind::Http1(_) => SessionProtocol::Http1,
                wire::session_protocol::Kind::Http2(_) => SessionProtocol::Http2,
            }),
        };
        Ok(Some((header, HEAD_BYTES + message.len())))
    }
}

/// The message, whose definition is in no published crate.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(int32, tag = "1")]
        pub(super) port: i32,
        #[prost(string, tag = "2")]
        pub(super) name: String,
        #[prost(message, optional, tag = "3")]
        pub(super) session_protocol: Option<SessionProtocol>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SessionProtocol {
        #[prost(oneof = "session_protocol::Kind", tags = "1, 2")]
        pub(super) kind: Option<session_protocol::Kind>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(super) struct Empty {}

    pub(super) mod session_protocol {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub(in super::super) enum Kind {
            #[prost(message, tag = "1")]
            Http1(super::Empty),
            #[prost(message, tag = "2")]
            Http2(super::Empty),
        }
    }
}
