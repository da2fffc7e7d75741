//! Recognises an HTTP request.

use super::Http;

/// Looks for an HTTP/2 preface or an HTTP/1 request line at the beginning of `bytes`.
pub fn http(bytes: &[u8]) -> Http {
    if bytes.starts_with(b"PRI * HTTP/2.0") { Http::Http2 } else { Http::Http1 }
}
