//! The trailer section of a chunked body: where it ends, what of it goes on, and the one field that is counted.

use super::{
    body::BodyError,
    fields::{Span, write_line},
    limits::MAX_TRAILERS,
    response::is_grpc_status,
};
use httparse::{EMPTY_HEADER, Header, Status, parse_headers};
use weft_model::decide::field::{Message, may_trail};

pub(crate) const TOO_LARGE: BodyError = BodyError("the trailers are too large");
/// Fields for which there is always room.
const FEW: usize = 16;

/// How long the section at the front of `buf` is, the empty line included, once all of it is there. Of `seen` bytes it is known
/// that they do not end it.
pub(super) fn whole(buf: &[u8], seen: usize) -> Result<Option<usize>, BodyError> {
    match end(buf, seen) {
        Some(end) if end <= MAX_TRAILERS => {
            let section = buf.get(..end).unwrap_or_default();
            parse(section, &mut |headers| check(section, headers))?.map(|()| Some(end))
        }
        None if buf.len() <= MAX_TRAILERS => Ok(None),
        _ => Err(TOO_LARGE),
    }
}

/// Behind the first empty line, in whatever way that is written.
fn end(buf: &[u8], seen: usize) -> Option<usize> {
    if buf.starts_with(b"\n") {
        return Some(1);
    }
    // What was seen may end amid it.
    let from = seen.saturating_sub(2);
    let unseen = buf.get(from..)?;
    let behind = |at: usize| match unseen.get(at + 1..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    };
    unseen.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| behind(at))
}

fn check(section: &[u8], headers: &[Header<'_>]) -> Result<(), BodyError> {
    // The parser takes a bare LF for a line's end; other servers do not.
    let crlf = headers.iter().all(|header| {
        let start = Span::within(section, header.name.as_bytes()).start();
        start == 0 || start.checked_sub(2).and_then(|from| section.get(from..start)) == Some(b"\r\n")
    });
    if crlf && section.ends_with(b"\r\n\r\n") {
        Ok(())
    } else {
        Err(BodyError("a trailer line does not end with CR LF"))
    }
}

/// What `then` makes of a section's fields.
fn parse<T>(section: &[u8], then: &mut dyn FnMut(&[Header<'_>]) -> T) -> Result<T, BodyError> {
    let mut few = [EMPTY_HEADER; FEW];
    match parse_headers(section, &mut few) {
        Ok(Status::Complete((_, headers))) => return Ok(then(headers)),
        Err(httparse::Error::TooManyHeaders) => {}
        _ => return Err(BodyError("malformed trailers")),
    }
    // A field has a line.
    let lines = section.iter().filter(|byte| **byte == b'\n').count();
    match parse_headers(section, &mut vec![EMPTY_HEADER; lines]) {
        Ok(Status::Complete((_, headers))) => Ok(then(headers)),
        _ => Err(BodyError("malformed trailers")),
    }
}

/// The fields of a section that the body decoder has checked, without those that only a head may carry.
pub(crate) fn forwarded(section: &[u8], of: Message, each: &mut dyn FnMut(&[u8], &[u8])) {
    let shown = parse(section, &mut |headers| {
        for header in headers {
            if may_trail(header.name.as_bytes(), of) {
                each(header.name.as_bytes(), header.value);
            }
        }
    });
    debug_assert!(shown.is_ok(), "the section was checked");
}

/// Appends the last chunk's trailer section.
pub(crate) fn write(section: &[u8], of: Message, out: &mut Vec<u8>) {
    forwarded(section, of, &mut |name, value| write_line(out, name, value));
    out.extend_from_slice(b"\r\n");
}

/// The same of trailers that came on HTTP/2.
pub(crate) fn write_map(fields: &http::HeaderMap, of: Message, out: &mut Vec<u8>) {
    for (name, value) in fields {
        if may_trail(name.as_str().as_bytes(), of) {
            write_line(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn grpc_status(section: &[u8]) -> Option<u16> {
    let mut status = None;
    forwarded(section, Message::Response, &mut |name, value| {
        if is_grpc_status(name) {
            status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        }
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_trail_goes_on() {
        let section = b"X-Sum: 1\r\nContent-Length: 5\r\nl5d-client-id: me\r\nGrpc-Status: 7\r\nHost: x\r\n\r\n";
        let mut out = Vec::new();
        write(section, Message::Response, &mut out);
        assert_eq!(out, b"X-Sum: 1\r\nGrpc-Status: 7\r\n\r\n");
        assert_eq!(grpc_status(section), Some(7));
        assert_eq!(grpc_status(b"\r\n"), None);
    }
}
