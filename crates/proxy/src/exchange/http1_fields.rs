//! Header fields between HTTP/1 lines and HTTP/2 maps.

use crate::http1::{fields::write_line, trailers};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use weft_model::decide::field::Message;

/// The fields as a map. `fields` must be slices of `block`, so that the values share it instead of being copied one by one.
/// The codec has checked them; what the map does not take all the same is left out.
pub(super) fn headers_of<'a>(block: &Bytes, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.size_hint().1.unwrap_or(0).min(32));
    for (name, value) in fields {
        if let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_maybe_shared(block.slice_ref(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// A trailer section of HTTP/1 as a map, without what only heads may carry.
pub(super) fn trailers_of(section: &[u8], of: Message) -> HeaderMap {
    let mut map = HeaderMap::new();
    trailers::forwarded(section, of, &mut |name, value| {
        if let Ok(name) = HeaderName::from_bytes(name)
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            map.append(name, value);
        }
    });
    map
}

/// Appends header lines, without the names for which `left_out` is true.
pub(super) fn write_fields(fields: &HeaderMap, out: &mut Vec<u8>, left_out: impl Fn(&HeaderName) -> bool) {
    for (name, value) in fields {
        if !left_out(name) {
            write_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
}

/// Appends one chunk of a body. An empty one would end it.
pub(super) fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (data.len().max(1).ilog2() / 4) as usize;
    for digit in (0..=digits).rev() {
        out.extend(DIGITS.get(data.len() >> (4 * digit) & 0xf));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body.
pub(super) fn write_last_chunk(out: &mut Vec<u8>, fields: Option<&HeaderMap>, of: Message) {
    out.extend_from_slice(b"0\r\n");
    match fields {
        Some(fields) => trailers::write_map(fields, of, out),
        None => out.extend_from_slice(b"\r\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_carry_their_length() {
        for length in [1, 9, 10, 15, 16, 255, 256, 16_384] {
            let mut out = Vec::new();
            write_chunk(&mut out, &vec![b'x'; length]);
            assert!(out.starts_with(format!("{length:x}\r\nx").as_bytes()), "{length}");
        }
    }

    #[test]
    fn trailers_cannot_smuggle_what_belongs_in_heads() {
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", HeaderValue::from_static("1"));
        fields.insert("content-length", HeaderValue::from_static("9"));
        let mut out = Vec::new();
        write_last_chunk(&mut out, Some(&fields), Message::Request);
        assert_eq!(out, b"0\r\nx-sum: 1\r\n\r\n");
        assert_eq!(trailers_of(b"X-Sum: 1\r\nHost: x\r\n\r\n", Message::Response).len(), 1);
    }
}
