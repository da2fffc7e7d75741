//! Heads of HTTP/2 messages: what `h2` lets through and we must not, how routing sees a request, and the edits of a hop.
//!
//! `h2` refuses upper-case names, connection-specific headers and wrong pseudo-headers. It takes what RFC 9113 8.2.1 and
//! 8.3.1 call malformed all the same: blanks around values, CONNECT without authority, Host that contradicts `:authority`, and
//! hosts that are none. A request that could be read in two ways must not reach policy.

use super::{Edits, Fields};
use crate::{
    error::{Code, ProxyError, StreamEnd},
    http2::{MAX_HEADER_LIST_SIZE, request_fits},
};
use h2::Reason;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request,
    uri::{Authority, PathAndQuery},
};
use weft_model::{
    decide::{
        field::{Message, is_disguised, may_trail, reads_as},
        host::host_port,
        route::RequestView,
    },
    names,
};

/// What is wrong with a 101: `h2` takes it for an interim response, and HTTP/2 has none (RFC 9113 8.6). Whoever is sent it has not
/// asked for it, and would leave HTTP.
pub(super) const SWITCHES: &str = "it switches protocols, which nobody asked for";

/// The status of gRPC.
const RESOURCE_EXHAUSTED: u16 = 8;

/// What makes a request malformed.
pub(super) fn check_request(head: &request::Parts) -> Result<(), &'static str> {
    check_fields(&head.headers)?;
    check_length(&head.headers)?;
    let authority = head.uri.authority();
    if head.method == Method::CONNECT && authority.is_none() {
        return Err("connect request has no authority");
    }
    let names =
        |authority: &Authority| host_port(authority.as_str().as_bytes()).is_some_and(|(host, _)| !host.is_empty());
    if authority.is_some_and(|authority| !names(authority)) {
        return Err("invalid authority");
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    if let Some(host) = hosts.next() {
        if hosts.next().is_some() {
            return Err("request has several host headers");
        }
        match authority {
            Some(authority) if authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {}
            Some(_) => return Err("host header contradicts the authority"),
            None if host_port(host.as_bytes()).is_none() => return Err("invalid host header"),
            None => {}
        }
    }
    Ok(())
}

/// What makes the length of a message malformed, apart from its value. Equal ones may be one (RFC 9110 8.6), and yet somebody may
/// take the first and somebody else none.
pub(super) fn check_length(fields: &HeaderMap) -> Result<(), &'static str> {
    match fields.get_all(header::CONTENT_LENGTH).iter().nth(1) {
        Some(_) => Err("message has several content-length headers"),
        None => Ok(()),
    }
}

/// What makes header fields or trailers malformed.
pub(super) fn check_fields(fields: &HeaderMap) -> Result<(), &'static str> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if fields.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last())) {
        return Err("header value begins or ends with a blank");
    }
    Ok(())
}

/// What makes the fields of a response, or trailers, malformed.
pub(super) fn check_response(fields: &HeaderMap) -> Result<(), &'static str> {
    check_fields(fields)?;
    check_length(fields)
}

/// Fields of an endpoint that are larger than may be passed on. Calls of gRPC are told that a limit was reached, not that the server
/// is not there.
pub(super) fn too_large(what: &str) -> ProxyError {
    let text = format!("endpoint's {what} are larger than the {MAX_HEADER_LIST_SIZE} bytes that are carried");
    ProxyError::new(Code::UpstreamProtocol, text).answered(Code::UpstreamProtocol.status(), RESOURCE_EXHAUSTED)
}

/// # Errors
/// The head of a request is larger than proxies of the mesh take.
pub(super) fn check_size(request: &Request<()>) -> Result<(), ProxyError> {
    if request_fits(request) {
        return Ok(());
    }
    Err(ProxyError::new(Code::HeadTooLarge, "the head of the request is too large to be carried"))
}

/// Trailers of a client that are larger than may be passed on. Its stream ends with `ENHANCE_YOUR_CALM`, which clients of gRPC read as
/// RESOURCE_EXHAUSTED.
pub(super) fn trailers_too_large() -> ProxyError {
    ProxyError::new(Code::HeadTooLarge, "the trailers of the request are too large to be carried")
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

pub(crate) fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// How an endpoint ended a stream, by what `h2` says of it.
pub(super) fn stream_end(error: &h2::Error) -> StreamEnd {
    match error.reason() {
        _ if error.is_io() => StreamEnd::Io,
        Some(Reason::ENHANCE_YOUR_CALM) => StreamEnd::EnhanceYourCalm,
        _ if error.is_go_away() => StreamEnd::GoAway,
        Some(Reason::CANCEL) => StreamEnd::Cancel,
        Some(Reason::REFUSED_STREAM) => StreamEnd::Refused,
        _ => StreamEnd::Reset,
    }
}

impl Fields for HeaderMap {
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.iter().for_each(|(name, value)| visit(name.as_str().as_bytes(), value.as_bytes()));
    }
}

/// How routing sees the head of a request that is held as fields of its own, as those of HTTP/2 are.
pub(crate) struct HeadView<'a>(pub(crate) &'a request::Parts);

impl RequestView for HeadView<'_> {
    fn method(&self) -> &str {
        self.0.method.as_str()
    }

    fn authority(&self) -> Option<&str> {
        match self.0.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => self.0.headers.get(header::HOST)?.to_str().ok().filter(|host| !host.is_empty()),
        }
    }

    fn path(&self) -> &str {
        // Of CONNECT, as in HTTP/1.
        match self.0.uri.path() {
            "" => "/",
            path => path,
        }
    }

    fn query(&self) -> Option<&str> {
        self.0.uri.query()
    }

    fn header(&self, name: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.0.headers.get_all(name).iter().any(|value| wanted(value.as_bytes()))
    }

    fn fields(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.headers.each(visit);
    }
}

/// Applies the edits of a direction to a request that goes on as HTTP/2.
pub(super) fn edit_request(head: &mut request::Parts, edits: &Edits) {
    edit_fields(&mut head.headers, edits);
    if let Some(target) = &edits.target {
        replace_target(head, target.clone());
    }
    if let Some(authority) = edits.authority.as_deref() {
        replace_authority(head, authority);
    } else if head.uri.authority().is_none() {
        // `h2` sends a request whose authority stands in Host, or nowhere, only as one that was HTTP/1.
        head.version = Version::HTTP_11;
    }
}

pub(super) fn edit_fields(headers: &mut HeaderMap, edits: &Edits) {
    if let Some(changes) = &edits.request {
        changes.apply(headers);
    }
    for name in edits.remove.iter().chain(edits.remove_asked) {
        headers.remove(*name);
    }
    if headers.keys().any(|name| is_disguised(name.as_str().as_bytes())) {
        unmask(headers, edits);
    }
    for (name, value) in &edits.set {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
}

/// Removes what the server could take for a header that is removed or replaced.
#[cold]
fn unmask(headers: &mut HeaderMap, edits: &Edits) {
    let set = edits.set.iter().map(|(name, _)| name);
    let ours: Vec<_> = edits.remove.iter().chain(edits.remove_asked).chain(set).collect();
    remove_if(headers, |name| ours.iter().any(|own| reads_as(name, own)));
}

fn remove_if(headers: &mut HeaderMap, mut matches: impl FnMut(&[u8]) -> bool) {
    let matching: Vec<_> = headers.keys().filter(|name| matches(name.as_str().as_bytes())).cloned().collect();
    for name in matching {
        headers.remove(name);
    }
}

/// Leaves of trailers what may be passed on.
pub(super) fn edit_trailers(trailers: &mut HeaderMap, of: Message) {
    if !trailers.keys().all(|name| may_trail(name.as_str().as_bytes(), of)) {
        remove_if(trailers, |name| !may_trail(name, of));
    }
}

pub(crate) fn replace_authority(head: &mut request::Parts, authority: &str) {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    if let Ok(authority) = authority.parse() {
        parts.authority = Some(authority);
        parts.scheme.get_or_insert(http::uri::Scheme::HTTP);
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        head.headers.remove(header::HOST);
    }
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

fn replace_target(head: &mut request::Parts, target: PathAndQuery) {
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(target);
    // What has an authority has a scheme, and now a path.
    head.uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Whether the application's connection is to end behind this response.
pub(super) fn asks_to_close(headers: &HeaderMap, edits: &Edits) -> bool {
    let asked = || headers.get(names::header::PROXY_CONNECTION);
    edits.heed_close && asked().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Applies the edits of a direction to the head of a response.
pub(super) fn edit_response(headers: &mut HeaderMap, edits: &Edits) {
    edit_interim(headers, edits);
    if let Some(changes) = &edits.response {
        changes.apply(headers);
    }
}

/// The same for an interim response (1xx).
pub(super) fn edit_interim(headers: &mut HeaderMap, edits: &Edits) {
    if edits.strip_mesh_response {
        headers.remove(names::header::PROXY_ERROR);
        headers.remove(names::header::PROXY_CONNECTION);
        headers.remove(names::header::ORIG_PROTO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::request::RequestHead;
    use std::rc::Rc;

    fn head(uri: &str, headers: &[(&'static str, &str)]) -> request::Parts {
        let mut request = Request::builder().uri(uri).version(Version::HTTP_2);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_malformed() {
        type Case = (&'static str, &'static [(&'static str, &'static str)], bool);
        let cases: &[Case] = &[
            ("http://web/", &[], true),
            ("http://web/", &[("host", "WEB")], true),
            ("http://web/", &[("host", "other")], false),
            ("http://web:80/", &[("host", "web")], false),
            ("/", &[("host", "web")], true),
            ("/", &[("host", "web"), ("host", "web")], false),
            ("http://user@web/", &[], false),
            ("http://web,admin/", &[], false),
            ("http://web,admin/", &[("host", "web,admin")], false),
            ("http://:80/", &[], false),
            ("http://web:65536/", &[], false),
            ("http://[::1]:80/", &[("host", "[::1]:80")], true),
            ("/", &[("host", "user@web")], false),
            ("/", &[("host", "web/")], false),
            ("/", &[("host", "web,admin")], false),
            ("/", &[("host", "web:80")], true),
            ("/", &[("host", "")], true),
            ("http://web/", &[("x", " a")], false),
            ("http://web/", &[("x", "a\t")], false),
            ("http://web/", &[("x", "")], true),
            ("http://web/", &[("content-length", "5")], true),
            ("http://web/", &[("content-length", "5"), ("content-length", "5")], false),
        ];
        for (uri, headers, good) in cases {
            assert_eq!(check_request(&head(uri, headers)).is_ok(), *good, "{uri} {headers:?}");
        }
        let mut connect = head("/", &[]);
        connect.method = Method::CONNECT;
        assert!(check_request(&connect).is_err());
    }

    #[test]
    fn connect_has_the_same_path_as_in_http1() {
        let mut connect = head("web:80", &[]);
        connect.method = Method::CONNECT;
        let mut of_http1 = RequestHead::default();
        let bytes = b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n";
        assert_eq!(of_http1.parse(bytes), Ok(true));
        assert_eq!((HeadView(&connect).path(), of_http1.view(bytes).path()), ("/", "/"));
        let server = HeadView(&connect).authority().map(str::to_owned);
        assert_eq!(server.as_deref(), of_http1.view(bytes).authority());
    }

    #[test]
    fn an_authority_override_replaces_host_too() {
        let forged = [("l5d-client-id", "forged"), ("l5d_client_id", "forged"), ("l5d-require.id", "forged")];
        let mut head = head("/a?b", &[&[("host", "web"), ("x", "1"), ("x_l5d", "1")], &forged[..]].concat());
        let edits = Edits {
            remove: &["x", "l5d-require-id"],
            set: [("l5d-client-id", Rc::from("real"))].into_iter().collect(),
            authority: Some("other:81".into()),
            ..Edits::default()
        };
        edit_request(&mut head, &edits);
        assert_eq!(head.uri, "http://other:81/a?b");
        assert_eq!(head.headers.len(), 2);
        assert_eq!(head.headers["l5d-client-id"], "real");
    }

    #[test]
    fn a_target_is_replaced_with_or_without_an_authority() {
        let edits = || Edits { target: Some(PathAndQuery::from_static("/x?b")), ..Edits::default() };
        for (uri, expected) in [("http://web:80/a?b", "http://web:80/x?b"), ("/a", "/x?b")] {
            let mut head = head(uri, &[]);
            edit_request(&mut head, &edits());
            assert_eq!(head.uri, expected);
        }
        let mut head = head("/a", &[("host", "web")]);
        edit_request(&mut head, &Edits { authority: Some("other".into()), ..edits() });
        assert_eq!((head.uri.to_string(), head.headers.len()), ("http://other/x?b".to_owned(), 0));
    }
}
