//! HTTP/1: heads as offsets into what was read, strict framing, and connections.
//!
//! ```text
//! stream ─► Io (read buffer, out buffer) ─► head ─► framing ─► body decoder ─► what may be forwarded
//! ```
//! Knows RFC 9112 and nothing of routes, endpoints or metrics; what moves between two connections is `exchange`'s.

pub(crate) mod buffer;
mod connection;
pub(crate) mod io;

pub use connection::Connection;
