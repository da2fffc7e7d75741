//! Replies that the proxy makes itself on an HTTP/2 stream (data plane 3.8, 4.12), ends of streams that broke, and the end of
//! waiting for who has reset one.

use crate::error::ProxyError;
use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use std::{future::poll_fn, pin::pin, task::Poll};
use weft_model::names;

/// To whom the reply goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audience {
    pub(super) grpc: bool,
    /// May see `l5d-proxy-error` and `l5d-proxy-connection`.
    pub(super) informational: bool,
}

/// Answers with the error's status, or its gRPC status to a gRPC client. Returns the HTTP and the gRPC status.
pub(super) fn reply(respond: &mut SendResponse<Bytes>, error: &ProxyError, audience: Audience) -> (u16, Option<u16>) {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    let headers = response.headers_mut();
    if !matches!(error.status(), 204 | 304) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let grpc = audience.grpc.then(|| error.grpc_status());
    if let Some(code) = grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.extend(grpc_trailers(code, error, audience));
    } else if audience.informational {
        headers.insert(names::header::PROXY_ERROR, text(error));
    }
    // A gRPC client knows no redirects: its status says that there is nothing here.
    if grpc.is_none()
        && let Some(Ok(location)) = error.location().map(HeaderValue::from_str)
    {
        headers.insert(header::LOCATION, location);
    }
    if audience.informational && error.code.closes() {
        headers.insert(names::header::PROXY_CONNECTION, HeaderValue::from_static("close"));
    }
    let status = if grpc.is_some() { 200 } else { error.status() };
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Fails only if the client has gone.
    let _ = respond.send_response(response, true);
    (status, grpc)
}

/// Ends a response whose body broke: a gRPC client is told by trailers, others by a reset.
pub(super) fn break_off(body: &mut SendStream<Bytes>, error: &ProxyError, audience: Audience) -> Option<u16> {
    if audience.grpc {
        let code = error.grpc_status();
        if body.send_trailers(grpc_trailers(code, error, audience)).is_ok() {
            return Some(code);
        }
    }
    body.send_reset(Reason::INTERNAL_ERROR);
    None
}

/// Waits for `future`; `None` if the client resets the stream or goes before.
pub(super) async fn unless_reset<T>(respond: &mut SendResponse<Bytes>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

fn grpc_trailers(code: u16, error: &ProxyError, audience: Audience) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(4);
    trailers.insert("grpc-status", HeaderValue::from(code));
    if audience.informational {
        trailers.insert("grpc-message", grpc_message(error));
        trailers.insert(names::header::PROXY_ERROR, text(error));
    }
    trailers
}

fn text(error: &ProxyError) -> HeaderValue {
    HeaderValue::from_str(&error.header()).unwrap_or(HeaderValue::from_static(error.code.as_str()))
}

/// gRPC messages are percent-encoded, the percent sign included.
fn grpc_message(error: &ProxyError) -> HeaderValue {
    let mut encoded = String::new();
    for byte in error.to_string().bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or(HeaderValue::from_static(error.code.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn texts_are_header_values() {
        let error = ProxyError::new(Code::Failfast, "50%\r\nä");
        assert_eq!(text(&error), "50%??? [FAILFAST]");
        assert_eq!(grpc_message(&error), "50%25%0D%0A%C3%A4 [FAILFAST]");
    }
}
