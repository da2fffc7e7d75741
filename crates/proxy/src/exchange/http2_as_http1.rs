//! The head of an HTTP/2 request as one of HTTP/1, with the version and target form that `l5d-orig-proto` names (data plane 3.6).

use super::{Edits, http1_fields::write_fields, http2_head::edit_fields, orig_proto::OrigProto};
use crate::{http1::fields::write_line, protocol::Version};
use http::{header, request};

/// Appends the head, which is used up thereby; whether its body is chunked. `whole` says that it has none.
pub(super) fn write_head(head: &mut request::Parts, edits: &Edits, whole: bool, out: &mut Vec<u8>) -> bool {
    let orig = OrigProto::take(&mut head.headers);
    edit_fields(&mut head.headers, edits);
    let chunked = !whole && !head.headers.contains_key(header::CONTENT_LENGTH);
    let authority = edits.authority.as_deref().or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let path = edits.target.as_ref().or(head.uri.path_and_query()).map_or("/", |path| path.as_str());
    // `OPTIONS *` has no absolute form: the asterisk would become a part of the host.
    if orig.absolute
        && path.starts_with('/')
        && let Some(authority) = authority
    {
        out.extend_from_slice(b"http://");
        out.extend_from_slice(authority.as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    // A body of unknown length cannot be told to HTTP/1.0, whose clients cannot have sent one.
    let old = orig.version == Version::Http10 && !chunked;
    out.extend_from_slice(if old { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" });
    match authority {
        Some(authority) => write_line(out, b"host", authority.as_bytes()),
        None if !old && !head.headers.contains_key(header::HOST) => write_line(out, b"host", b""),
        None => {}
    }
    write_fields(&head.headers, out, |name| *name == header::COOKIE || (*name == header::HOST && authority.is_some()));
    write_cookies(head, out);
    if chunked {
        write_line(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    head.headers.clear();
    chunked
}

/// HTTP/2 may cut cookies into several fields; HTTP/1 has one line (RFC 9113 8.2.3).
fn write_cookies(head: &request::Parts, out: &mut Vec<u8>) {
    let mut crumbs = head.headers.get_all(header::COOKIE).iter();
    let Some(first) = crumbs.next() else { return };
    out.extend_from_slice(b"cookie: ");
    out.extend_from_slice(first.as_bytes());
    for crumb in crumbs {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}
