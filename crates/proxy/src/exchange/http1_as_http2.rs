//! The head of an HTTP/1 request as one of HTTP/2 (data plane 4.8).
//!
//! Values share the copy of the head that the request was taken off with; nothing else is copied.

use super::{Edits, http1_fields::headers_of, http2_head::edit_fields, orig_proto::OrigProto};
use crate::http1::{framing::Body, request::RequestHead, target::Form};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Uri, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use weft_model::{decide::route::RequestView, names};

/// The request as HTTP/2; `None` if its target has bytes that a target of HTTP/2 cannot have here. `block` is the head's bytes.
pub(super) fn request(head: &RequestHead, block: &Bytes, edits: &Edits) -> Option<Request<()>> {
    let view = head.view(block);
    let mut uri = http::uri::Parts::default();
    let target = &head.target;
    let to = target.query.map_or(target.path.end(), |query| query.end());
    let path = match (&edits.target, block.get(target.path.start()..to).unwrap_or_default()) {
        (Some(target), _) => Ok(target.clone()),
        (None, path @ ([b'/', ..] | b"*")) => PathAndQuery::from_maybe_shared(block.slice_ref(path)),
        (None, path) => PathAndQuery::from_maybe_shared(Bytes::from([b"/", path].concat())),
    };
    uri.path_and_query = Some(path.ok()?);
    let authority = match (edits.authority.as_deref(), view.authority()) {
        (Some(authority), _) => Some(Bytes::copy_from_slice(authority.as_bytes())),
        (None, Some(authority)) => Some(block.slice_ref(authority.as_bytes())),
        (None, None) => None,
    };
    let named = authority.is_some();
    if let Some(authority) = authority {
        uri.authority = Some(Authority::from_maybe_shared(authority).ok()?);
        uri.scheme = Some(Scheme::HTTP);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method(block)).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    // The version stays HTTP/1.1: `h2` sends a request without authority only if it was HTTP/1.
    let headers = request.headers_mut();
    *headers = headers_of(block, head.forwarded(block));
    if named {
        headers.remove(header::HOST);
    }
    match head.body {
        Body::Length(length) => drop(headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length))),
        Body::Empty if view.header("content-length", &mut |_| true) => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        _ => {}
    }
    if head.expects_continue {
        headers.remove(header::EXPECT);
    }
    edit_fields(headers, edits);
    let orig = OrigProto { version: head.version, absolute: target.form == Form::Absolute };
    headers.insert(HeaderName::from_static(names::header::ORIG_PROTO), HeaderValue::from_static(orig.as_str()));
    Some(request)
}
