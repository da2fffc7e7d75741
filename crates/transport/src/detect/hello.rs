//! Recognises a ClientHello, in one or several records.

use super::{MAX_BYTES, Tls};
use std::borrow::Cow;
use weft_model::DnsName;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// The longest record of plaintext (RFC 8446 5.1).
const MAX_RECORD: usize = 1 << 14;

/// Looks for a ClientHello at the beginning of `bytes`. What is malformed is not TLS: it is carried on as it is.
pub fn tls(bytes: &[u8]) -> Tls {
    let answer = match message(bytes) {
        Ok(hello) => server_name(&hello).map(|sni| Tls::ClientHello { sni }),
        Err(short) => Err(short),
    };
    match answer {
        Ok(hello) => hello,
        Err(Short::NeedMore) if bytes.len() < MAX_BYTES => Tls::NeedMore,
        Err(_) => Tls::No,
    }
}

/// Why there is no ClientHello.
enum Short {
    NeedMore,
    No,
}

/// The body of the ClientHello, put together from the records that carry it.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Short> {
    let mut records = Reader(bytes);
    let mut joined: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let fragment = record(&mut records)?;
        if joined.is_empty() {
            joined = Cow::Borrowed(fragment.available);
        } else {
            joined.to_mut().extend_from_slice(fragment.available);
        }
        if let Some((head, body)) = joined.split_first_chunk::<4>() {
            let [kind, length @ ..] = *head;
            let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
            if kind != CLIENT_HELLO || length > MAX_BYTES {
                return Err(Short::No);
            }
            if body.len() >= length {
                return Ok(match joined {
                    Cow::Borrowed(all) => Cow::Borrowed(all.get(4..4 + length).unwrap_or_default()),
                    Cow::Owned(mut all) => {
                        all.truncate(4 + length);
                        all.drain(..4);
                        Cow::Owned(all)
                    }
                });
            }
        } else if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(Short::No);
        }
        if !fragment.complete {
            return Err(Short::NeedMore);
        }
    }
}

struct Fragment<'a> {
    /// What has come of the record's content.
    available: &'a [u8],
    complete: bool,
}

/// The next record, which must be of handshake content. Each byte of its head is judged as soon as it is there.
fn record<'a>(bytes: &mut Reader<'a>) -> Result<Fragment<'a>, Short> {
    let need = |byte: Option<u8>| byte.ok_or(Short::NeedMore);
    if need(bytes.u8())? != HANDSHAKE || need(bytes.u8())? != 3 || !matches!(need(bytes.u8())?, 1 | 3) {
        return Err(Short::No);
    }
    let length = usize::from(bytes.u16().ok_or(Short::NeedMore)?);
    if length == 0 || length > MAX_RECORD {
        return Err(Short::No);
    }
    let available = bytes.take(length.min(bytes.0.len())).unwrap_or_default();
    Ok(Fragment { available, complete: available.len() == length })
}

/// The host name in a ClientHello's body.
fn server_name(hello: &[u8]) -> Result<Option<DnsName>, Short> {
    extensions(hello).ok_or(Short::No).and_then(|mut extensions| {
        while !extensions.0.is_empty() {
            let extension = extensions.u16().zip(extensions.vector16());
            let (kind, content) = extension.ok_or(Short::No)?;
            if kind == SERVER_NAME {
                return host_name(content).ok_or(Short::No);
            }
        }
        Ok(None)
    })
}

/// The extensions of a ClientHello's body; a hello may end before them.
fn extensions(hello: &[u8]) -> Option<Reader<'_>> {
    let mut hello = Reader(hello);
    let _version = hello.u16()?;
    let _random = hello.take(32)?;
    let session_id = hello.vector8()?;
    let suites = hello.vector16()?;
    let compression = hello.vector8()?;
    if session_id.0.len() > 32 || suites.0.len() < 2 || compression.0.is_empty() {
        return None;
    }
    if hello.0.is_empty() { Some(hello) } else { hello.vector16() }
}

/// The first host name of a server name extension; `Some(None)` where it is no DNS name.
fn host_name(mut content: Reader<'_>) -> Option<Option<DnsName>> {
    let mut names = content.vector16()?;
    while !names.0.is_empty() {
        let kind = names.u8()?;
        let name = names.vector16()?;
        if kind == HOST_NAME {
            return Some(std::str::from_utf8(name.0).ok().and_then(|name| name.parse().ok()));
        }
    }
    Some(None)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<Reader<'a>> {
        let length = self.u8()?;
        self.take(usize::from(length)).map(Reader)
    }

    fn vector16(&mut self) -> Option<Reader<'a>> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What rustls sends with the mesh's algorithms and this SNI.
    fn hello(sni: &str, alpn: bool) -> Vec<u8> {
        crate::tls::test::client_hello(sni, alpn)
    }

    fn named(sni: &str) -> Tls {
        Tls::ClientHello { sni: Some(sni.parse().unwrap()) }
    }

    /// The same hello, its handshake message cut into records of `size`.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in hello[5..].chunks(size) {
            bytes.extend_from_slice(&[22, 3, 1]);
            bytes.extend_from_slice(&u16::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes
    }

    #[test]
    fn every_split_of_a_post_quantum_hello() {
        for alpn in [false, true] {
            let hello = hello("web.emojivoto.serviceaccount.identity.linkerd.cluster.local", alpn);
            assert!(hello.len() > 1460, "it does not fit into one segment: {}", hello.len());
            for end in 0..hello.len() {
                assert_eq!(tls(&hello[..end]), Tls::NeedMore, "{end} of {}", hello.len());
            }
            let name = named("web.emojivoto.serviceaccount.identity.linkerd.cluster.local");
            assert_eq!(tls(&hello), name);
            // What follows does not matter.
            assert_eq!(tls(&[hello.as_slice(), b"more"].concat()), name);
        }
    }

    #[test]
    fn a_hello_in_several_records() {
        let hello = hello("a.b", true);
        for size in [1, 2, 3, 4, 5, 100, 1000] {
            let bytes = fragmented(&hello, size);
            assert_eq!(tls(&bytes), named("a.b"), "records of {size}");
            for end in (0..bytes.len()).step_by(7) {
                assert_eq!(tls(&bytes[..end]), Tls::NeedMore, "records of {size}, {end}");
            }
        }
    }

    #[test]
    fn without_a_usable_name() {
        // An IP address is not sent as SNI.
        assert_eq!(tls(&hello("10.0.0.1", false)), Tls::ClientHello { sni: None });
        let mut odd = hello("aaaa.bbbb", false);
        let at = odd.windows(9).position(|w| w == b"aaaa.bbbb").unwrap();
        odd[at] = b'*';
        assert_eq!(tls(&odd), Tls::ClientHello { sni: None });
    }

    #[test]
    fn old_hellos() {
        // TLS 1.0 without extensions.
        let mut body = vec![3, 1];
        body.extend_from_slice(&[7; 32]);
        body.extend_from_slice(&[0, 0, 2, 0, 47, 1, 0]);
        let mut bytes = vec![22, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
        bytes.push(u8::try_from(body.len()).unwrap());
        bytes.extend_from_slice(&body);
        assert_eq!(tls(&bytes), Tls::ClientHello { sni: None });
        // Version 3.3 in the record is as good, 3.2 and 2.0 are not.
        for (major, minor, is) in [(3, 3, true), (3, 2, false), (3, 4, false), (2, 0, false)] {
            (bytes[1], bytes[2]) = (major, minor);
            assert_eq!(tls(&bytes) != Tls::No, is);
        }
    }

    #[test]
    fn not_tls_is_known_by_the_first_byte_that_differs() {
        for (bytes, at) in [
            (&b"GET / HTTP/1.1\r\n"[..], 1),
            (b"\x16\x02", 2),
            (b"\x16\x03\x00", 3),
            (b"\x16\x03\x01\x00\x00", 5),
            (b"\x16\x03\x01\x40\x01", 5),
            (b"\x16\x03\x01\x00\x05\x02", 6),
            (b"\x16\x03\x01\x00\x05\x01\x00\x40\x01", 9),
            (b"\x15\x03\x01\x00\x02\x02\x28", 1),
        ] {
            assert_eq!(tls(&bytes[..at - 1]), Tls::NeedMore, "{bytes:?}");
            assert_eq!(tls(&bytes[..at]), Tls::No, "{bytes:?}");
        }
        assert_eq!(tls(&[]), Tls::NeedMore);
    }

    #[test]
    fn it_ends_at_the_bound() {
        // Records of one byte each, whose message never ends.
        let mut bytes = Vec::new();
        for byte in [1, 0, 0x3f, 0xff].into_iter().chain(std::iter::repeat_n(0, MAX_BYTES)) {
            bytes.extend_from_slice(&[22, 3, 1, 0, 1, byte]);
        }
        assert_eq!(tls(&bytes[..MAX_BYTES - 1]), Tls::NeedMore);
        assert_eq!(tls(&bytes[..MAX_BYTES]), Tls::No);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_answers_are_final(at in 0usize..1800, byte: u8, cut in 0usize..1800) {
            let mut bytes = hello("web.test", true);
            let at = at % bytes.len();
            bytes[at] = byte;
            let cut = cut % bytes.len();
            let early = tls(&bytes[..cut]);
            if early != Tls::NeedMore {
                prop_assert_eq!(early, tls(&bytes));
            }
        }

        #[test]
        fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = tls(&[&[22, 3, 1, 0, 150, 1, 0, 0, 140], bytes.as_slice()].concat());
            prop_assert!(bytes.first() == Some(&22) || bytes.is_empty() || tls(&bytes) == Tls::No);
        }
    }
}
