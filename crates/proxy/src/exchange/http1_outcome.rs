//! How the exchange of an HTTP/1 client ends, whatever carries it to the endpoint; and what is said of an endpoint that does not
//! answer as HTTP asks, whoever the client is.

use super::Course;
use crate::{
    error::{Code, ProxyError},
    http1::{HeadError, body::BodyError, io::Io, trailers},
};
use std::{future::poll_fn, io, pin::pin, task::Poll};

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Keep,
    Close,
    /// What was announced did not come to its end, and the client must be able to tell.
    Reset,
}

/// Why an exchange ended without an answer from the endpoint.
#[derive(Debug)]
pub(super) enum Failed {
    /// To be answered by the proxy.
    Reply(ProxyError),
    /// Nobody is left to answer.
    ClientGone,
}

/// Why nothing of a response was passed on.
pub(super) enum NoResponse {
    Failed(Failed),
    /// The request stands unread in the buffer, and the endpoint has not looked at it, or looking at it twice does no harm:
    /// another may be asked.
    Repeatable {
        error: ProxyError,
        why: Repeatable,
    },
    /// Its target cannot be written in HTTP/2; nothing of the request was sent.
    Unfit,
    /// It is sent once more, as was agreed; the record knows of this attempt.
    Again,
    /// It took too long.
    Late {
        error: ProxyError,
        request: Request,
    },
}

/// Why a request may be sent again without leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// A connection that was kept has closed, or one that is shared takes no more.
    Stale,
    /// A server that may have seen it has closed a connection that was made for it, or one on HTTP/2, where servers say so before
    /// they leave: one other is asked, and no third, lest a request that ends servers ends them all.
    Unanswered,
    /// The server says that it did not look at it.
    Refused,
}

/// Where a request was when it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// It stands at the front of the client's buffer, perhaps not in whole.
    Unread,
    Read,
    /// Some of its body is still to come.
    Amid,
}

/// A connection to the endpoint, unless the client goes away, or its request is too late, before there is one.
pub(super) async fn connected<T>(
    client: &mut Io,
    course: &Course,
    connecting: impl Future<Output = Result<T, ProxyError>>,
) -> Result<T, NoResponse> {
    let mut connecting = pin!(connecting);
    let held = client.read.len();
    poll_fn(|cx| {
        if let Poll::Ready(connected) = connecting.as_mut().poll(cx) {
            return Poll::Ready(connected.map_err(|error| NoResponse::Failed(Failed::Reply(error))));
        }
        if client.poll_gone(cx, held).is_ready() {
            return Poll::Ready(Err(NoResponse::Failed(Failed::ClientGone)));
        }
        let late = course.too_late(cx, client.moved(), false);
        late.map(|error| Err(NoResponse::Late { error, request: Request::Unread }))
    })
    .await
}

/// The client's body cannot be passed on.
pub(super) fn malformed_body(error: BodyError) -> ProxyError {
    let code = if error == trailers::TOO_LARGE { Code::HeadTooLarge } else { Code::BadRequest };
    ProxyError::new(code, error.0)
}

/// The endpoint does not keep to its protocol.
pub(super) fn protocol(what: &str) -> ProxyError {
    ProxyError::new(Code::UpstreamProtocol, what)
}

/// The head of its response is refused.
pub(super) fn malformed(error: HeadError) -> ProxyError {
    match error {
        HeadError::TooLarge => protocol("the head of the response is too large"),
        HeadError::Malformed(what) => protocol(what),
    }
}

/// Its connection has ended, or broken for a `cause`.
pub(super) fn closed(cause: Option<&io::Error>) -> ProxyError {
    match cause {
        Some(error) => ProxyError::new(Code::UpstreamProtocol, format!("the server's connection failed: {error}")),
        None => protocol("the server closed the connection without an answer"),
    }
}
