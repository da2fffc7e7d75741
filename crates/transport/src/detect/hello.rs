//! Recognises a ClientHello.

use super::Tls;

/// Looks for a ClientHello at the beginning of `bytes`.
pub fn tls(bytes: &[u8]) -> Tls {
    if bytes.first().is_some_and(|b| *b != 22) { Tls::No } else { Tls::NeedMore }
}
