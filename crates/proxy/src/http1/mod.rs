//! HTTP/1: heads as offsets into what was read, strict framing, and connections.
//!
//! ```text
//! stream ─► Io (read buffer, out buffer) ─► head ─► framing ─► body decoder ─► what may be forwarded
//! ```
//! Knows RFC 9112 and nothing of routes, endpoints or metrics; what moves between two connections is `exchange`'s.

pub(crate) mod body;
pub(crate) mod buffer;
mod connection;
pub(crate) mod fields;
pub(crate) mod framing;
pub(crate) mod io;
pub(crate) mod limits;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;
pub(crate) mod trailers;

pub(crate) use connection::Connection;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It exceeds [`limits::MAX_HEAD`] or [`limits::MAX_FIELDS`].
    TooLarge,
    Malformed(&'static str),
}
