//! What a connection speaks, from its first bytes: TLS and the name it asks for, HTTP/1, HTTP/2, or neither.
//!
//! Pure functions on the bytes received so far. The caller reads more while they answer `NeedMore`, up to
//! [`MAX_BYTES`], under its own timeout. They must not be asked twice about different beginnings: the bytes are always all
//! that came since the connection began.

mod hello;
mod http;
mod server;

pub use hello::tls;
pub use http::http;
pub use server::server;

use weft_model::DnsName;

/// No answer needs more bytes than this; at that length `NeedMore` is not answered any more. A ClientHello with a
/// post-quantum key share has 1.5 to 2 KiB, so a first read of 4 KiB decides almost always.
pub const MAX_BYTES: usize = 16 * 1024;

/// Whether a connection begins with a TLS ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    NeedMore,
    No,
    ClientHello {
        /// The first host name of the SNI extension. `None` when there is none, or when it is no DNS name.
        sni: Option<DnsName>,
    },
}

/// Whether a connection begins with an HTTP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    NeedMore,
    Http1,
    Http2,
    NotHttp,
}

/// Whether a server that speaks first speaks HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    NeedMore,
    Http,
    Other,
}
