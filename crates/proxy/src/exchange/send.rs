//! A request that is held whole, sent for its own sake: what the endpoint answers is read to its end and thrown away, so that the
//! connection can be kept. An answer that is larger than that is worth ends it, or its stream.
//!
//! Who sends it bounds the time; dropping it on the way gives up the connection, or resets the stream.

use super::{
    Edits, Endpoint,
    http1_outcome::{closed, malformed, protocol},
    http2_as_http1::write_head,
    http2_body::room,
    http2_head::check_size,
    orig_proto::OrigProto,
};
use crate::{
    error::{Code, ProxyError},
    http1::{
        Connection, HeadError,
        body::{BodyError, Decoder, Step},
        framing::Asked,
        io::READ_AHEAD,
        limits::{MAX_HEAD, MAX_INTERIM},
        response::ResponseHead,
    },
    protocol::Version,
};
use bytes::Bytes;
use h2::Reason;
use http::{HeaderName, HeaderValue, Method, Request, header, request};
use std::{future::poll_fn, io};
use weft_model::names;

/// Bytes of an answer that are read: to make another connection costs more than these.
const MAX_ANSWER: usize = 256 * 1024;

/// Over a connection of HTTP/1, which is good for another request afterwards if the answer says so.
pub(crate) async fn send_http1(
    endpoint: &impl Endpoint,
    mut head: request::Parts,
    body: &[u8],
) -> Result<(), ProxyError> {
    let mut connection = endpoint.http1().await?;
    let asked = Asked { head: head.method == Method::HEAD, connect: false };
    if !body.is_empty() || matches!(head.method, Method::POST | Method::PUT | Method::PATCH) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    let out = connection.io.out.bytes();
    write_head(&mut head, &Edits::default(), body.is_empty(), out);
    out.extend_from_slice(body);
    poll_fn(|cx| connection.io.poll_write_out(cx)).await.map_err(|error| closed(Some(&error)))?;
    let answer = final_head(&mut connection, asked).await?;
    let mut body = Decoder::new(answer.body);
    let io = &mut connection.io;
    let mut left = MAX_ANSWER;
    loop {
        match body.next(io.read.filled()).map_err(|BodyError(what)| protocol(what))? {
            Step::Data(n) | Step::Framing(n) | Step::Trailers(n) => {
                io.read.consume(n);
                match left.checked_sub(n) {
                    Some(less) => left = less,
                    None => return Ok(()),
                }
            }
            Step::End => break,
            Step::More => {
                let read = poll_fn(|cx| io.poll_fill(cx, READ_AHEAD)).await.map_err(|error| closed(Some(&error)))?;
                if read == 0 {
                    return body.closed().map_err(|BodyError(what)| protocol(what));
                }
            }
        }
    }
    if answer.keeps_alive()
        && let Some(connection) = connection.rests()
    {
        endpoint.keep_http1(connection);
    }
    Ok(())
}

/// The head behind the interim ones.
async fn final_head(connection: &mut Connection, asked: Asked) -> Result<ResponseHead, ProxyError> {
    let io = &mut connection.io;
    let mut interim = 0;
    loop {
        let mut head = ResponseHead::default();
        let parsed = io.may_hold_head() && head.parse(io.read.filled(), asked).map_err(malformed)?;
        if parsed {
            io.take_head(head.len);
            match head.status {
                101 => return Err(protocol("the server switched protocols unasked")),
                _ if !head.is_interim() => return Ok(head),
                _ if interim == MAX_INTERIM => return Err(protocol("too many interim responses")),
                _ => interim += 1,
            }
            continue;
        }
        match poll_fn(|cx| io.poll_fill(cx, MAX_HEAD)).await {
            Ok(0) => return Err(closed(None)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Err(malformed(HeadError::TooLarge)),
            Err(error) => return Err(closed(Some(&error))),
        }
    }
}

/// Over a stream of HTTP/2. `version` is what the request came as.
pub(crate) async fn send_http2(
    endpoint: &impl Endpoint,
    mut head: request::Parts,
    mut body: Bytes,
    version: Version,
) -> Result<(), ProxyError> {
    let mut sender = endpoint.http2().await?;
    if !body.is_empty() {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    if version != Version::Http2 {
        let orig = OrigProto { version, absolute: false };
        let name = HeaderName::from_static(names::header::ORIG_PROTO);
        head.headers.insert(name, HeaderValue::from_static(orig.as_str()));
    }
    // `h2` sends a request without authority only as one that was HTTP/1.
    head.version = if head.uri.authority().is_some() { http::Version::HTTP_2 } else { http::Version::HTTP_11 };
    let request = Request::from_parts(head, ());
    check_size(&request)?;
    let refused = |error: h2::Error| ProxyError::new(Code::UpstreamProtocol, format!("the server refused it: {error}"));
    let (response, mut to, mut open) = sender.send(request, body.is_empty()).map_err(refused)?;
    drop(sender);
    while !body.is_empty() {
        // The answer says what it means that the server reads no more.
        let Ok(room) = poll_fn(|cx| room(cx, &mut to, body.len())).await else { break };
        let data = body.split_to(room.min(body.len()));
        if to.send_data(data, body.is_empty()).is_err() {
            break;
        }
    }
    let response = response.await.map_err(refused)?;
    open.answered();
    let mut answer = response.into_body();
    let mut left = MAX_ANSWER;
    while let Some(data) = answer.data().await {
        let data = data.map_err(refused)?;
        // Fails only for more than was received.
        let _ = answer.flow_control().release_capacity(data.len());
        match left.checked_sub(data.len()) {
            Some(less) => left = less,
            None => {
                open.reset(&mut to, Reason::CANCEL);
                break;
            }
        }
    }
    Ok(())
}
