//! Whether a header block is one that the other side of the mesh takes: what its h2 refuses, or its frame gate, would end a
//! connection that others share.
//!
//! A block grows on its way: `h2` writes every string in Huffman's code, also where that is longer than the string.

use super::settings::{MAX_HEADER_LIST_SIZE, MAX_REQUEST_TRAILERS, unexpanded};
use http::{HeaderMap, Request, Uri};
use weft_model::decide::field::Message;

/// Bytes that a field counts besides its name and value (RFC 9113 6.5.2).
const FIELD: usize = 32;
/// Bytes of lengths and of the kind of a field in a block, at most.
const FRAMING: usize = 16;
/// A field's code is hardly ever, and never more than four times, as long as the field.
const GROWTH: usize = 4;

/// Whether a request's head does not exceed what proxies of the mesh take.
pub(crate) fn request_fits(request: &Request<()>) -> bool {
    let uri = request.uri();
    let pseudo = [
        request.method().as_str(),
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |authority| authority.as_str()),
        target(uri),
    ];
    fits(pseudo.into_iter().map(str::as_bytes), request.headers(), MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_SIZE)
}

/// The same for the head of a response.
pub(crate) fn fields_fit(fields: &HeaderMap) -> bool {
    fits([&b"200"[..]].into_iter(), fields, MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_SIZE)
}

/// The same for trailers.
pub(crate) fn trailers_fit(fields: &HeaderMap, of: Message) -> bool {
    match of {
        Message::Request => fits([].into_iter(), fields, MAX_REQUEST_TRAILERS, unexpanded(MAX_HEADER_LIST_SIZE)),
        Message::Response => fits([].into_iter(), fields, MAX_HEADER_LIST_SIZE, MAX_HEADER_LIST_SIZE),
    }
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |path| path.as_str())
}

/// Whether the list has at most `most` bytes, and is at most `block` bytes long as it is sent.
fn fits<'a>(pseudo: impl Iterator<Item = &'a [u8]> + Clone, fields: &'a HeaderMap, most: u32, block: u32) -> bool {
    let (most, longest) = (most as usize, block as usize);
    let all = || {
        let fields = fields.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        pseudo.clone().map(|value| (&b":authority"[..], value)).chain(fields)
    };
    let list: usize = all().map(|(name, value)| name.len() + value.len() + FIELD).sum();
    if list * GROWTH <= most {
        return true;
    }
    let block = || all().map(|(name, value)| coded(name) + coded(value) + FRAMING).sum::<usize>();
    list <= most && block() <= longest
}

/// How long a string is in Huffman's code.
fn coded(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| usize::from(BITS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Bits of each byte's code (RFC 7541, appendix B).
#[rustfmt::skip]
const BITS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(byte: u8, length: usize) -> HeaderMap {
        [(http::header::COOKIE, HeaderValue::from_bytes(&vec![byte; length]).unwrap())].into_iter().collect()
    }

    #[test]
    fn what_grows_by_its_code_is_measured_by_it() {
        let max = MAX_HEADER_LIST_SIZE as usize;
        assert!(fields_fit(&HeaderMap::new()));
        assert!(fields_fit(&with(b'a', max - 1000)), "five bits each");
        assert!(!fields_fit(&with(b'a', max)));
        assert!(fields_fit(&with(0xff, max / 4)), "26 bits each");
        assert!(!fields_fit(&with(0xff, max / 2)));
    }

    #[test]
    fn a_requests_target_counts() {
        let request = |length: usize| Request::get(format!("http://a/{}", "x".repeat(length))).body(()).unwrap();
        assert!(request_fits(&request(1000)));
        // As long as a URI can be.
        let mut large = request(60_000);
        *large.headers_mut() = with(b'a', 20_000);
        assert!(!request_fits(&large));
    }
}
