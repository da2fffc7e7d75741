//! The trailer section of a chunked body: what of it goes on, and the one field that is counted.

use super::{limits::MAX_TRAILER_FIELDS, response::is_grpc_status};

/// The fields of a section that the body decoder has checked, without those that only a head may carry: a receiver may merge
/// trailers into its headers.
pub(crate) fn forwarded(section: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) {
    let mut headers = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(section, &mut headers) else { return };
    for header in headers {
        let name = header.name.as_bytes();
        if !only_in_heads(name) {
            each(name, header.value);
        }
    }
}

/// Appends the last chunk's trailer section.
pub(crate) fn write(section: &[u8], out: &mut Vec<u8>) {
    forwarded(section, &mut |name, value| super::request::line(out, name, value));
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn grpc_status(section: &[u8]) -> Option<u16> {
    let mut status = None;
    forwarded(section, &mut |name, value| {
        if is_grpc_status(name) {
            status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
    });
    status
}

fn only_in_heads(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 19] = [
        b"transfer-encoding",
        b"content-length",
        b"host",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        b"authorization",
        b"proxy-authorization",
        b"cookie",
        b"set-cookie",
        b"content-type",
        b"content-encoding",
        b"content-range",
        b"location",
        b"forwarded",
    ];
    let starts = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts(b"l5d-") || starts(b"x-forwarded-") || NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_trail_goes_on() {
        let section = b"X-Sum: 1\r\nContent-Length: 5\r\nl5d-client-id: me\r\nGrpc-Status: 7\r\nHost: x\r\n\r\n";
        let mut out = Vec::new();
        write(section, &mut out);
        assert_eq!(out, b"X-Sum: 1\r\nGrpc-Status: 7\r\n\r\n");
        assert_eq!(grpc_status(section), Some(7));
        assert_eq!(grpc_status(b"\r\n"), None);
    }
}
