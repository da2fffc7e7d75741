//! Everything between a socket and a protocol: sockets and their options, the original destination of a redirected
//! connection, the rules that redirect it, network namespaces, detection of what a connection speaks, mutual TLS,
//! copying between two connections, and draining.
//!
//! The order of a connection: `socket` accepts it, `detect` looks at its first bytes, `tls` terminates it, a protocol
//! (in `weft-proxy`) or `copy` reads and writes the `stream`, `drain` or its `lifetime` ends it. `redirect` and `netns` prepare the ground.
//! It knows nothing of HTTP beyond recognising it. It is the only crate that names rustls.

#![forbid(unsafe_code)]

mod buffer;

pub mod copy;
pub mod detect;
pub mod drain;
pub mod fdpass;
pub mod lifetime;
pub mod netns;
pub mod redirect;
pub mod socket;
pub mod stream;
pub mod tls;

pub use stream::Stream;
