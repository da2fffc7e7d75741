//! An HTTP/2 request that goes on as HTTP/2: heads are moved, bodies are pumped both ways at once, resets keep their codes.

use super::{
    Edits, Endpoint, Observe,
    http2_body::{Broken, Pump},
    http2_head::{check_fields, edit_response, grpc_status},
    http2_reply::{Audience, break_off},
};
use crate::error::{Code, ProxyError};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{Response, Version};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

/// An exchange whose request head has been sent.
pub(super) struct Forward<'a, E, R> {
    pub(super) respond: &'a mut SendResponse<Bytes>,
    pub(super) request: &'a mut Pump,
    pub(super) upstream: SendStream<Bytes>,
    pub(super) endpoint: &'a E,
    pub(super) edits: &'a Edits,
    pub(super) record: &'a mut R,
    pub(super) audience: Audience,
    pub(super) sent: Instant,
}

/// The endpoint failed before its response began: the client still waits for a reply.
#[derive(Debug)]
pub(super) struct NoResponse {
    pub(super) error: ProxyError,
    /// The client gets this instead of a reply.
    pub(super) reset: Option<Reason>,
    /// Asking again does no harm if the request may be repeated at all.
    pub(super) repeatable: bool,
}

/// How waiting for the head of a response ends, if not with the head.
enum NoHead {
    /// The client has gone, with its code if it gave one.
    Client(Option<Reason>),
    Upstream(h2::Error),
}

/// A response that has begun.
struct Sending {
    response: Pump,
    to: SendStream<Bytes>,
    /// The first byte was noted.
    noted: bool,
}

/// How a response that began ends early.
enum Cut {
    Client(Option<Reason>),
    Upstream(ProxyError, Option<Reason>),
}

impl NoResponse {
    /// A reset is passed on; one that says that the request was not looked at too, which the client may send again.
    fn of(error: &h2::Error) -> Self {
        let unprocessed = error.is_go_away() && error.is_remote();
        let reset = if unprocessed {
            Some(Reason::REFUSED_STREAM)
        } else {
            error.reason().filter(|_| error.is_reset() && error.is_remote())
        };
        Self {
            error: ProxyError::new(Code::UpstreamProtocol, format!("endpoint gave no response: {error}")),
            reset,
            repeatable: reset == Some(Reason::REFUSED_STREAM) || error.is_io(),
        }
    }
}

impl From<ProxyError> for NoResponse {
    fn from(error: ProxyError) -> Self {
        Self { error, reset: None, repeatable: false }
    }
}

impl<E: Endpoint, R: Observe> Forward<'_, E, R> {
    /// Carries the exchange to its end.
    ///
    /// # Errors
    /// The endpoint failed before its response began: the client still waits for a reply.
    pub(super) async fn run(&mut self, mut response: ResponseFuture) -> Result<(), NoResponse> {
        let head = poll_fn(|cx| self.poll_head(cx, &mut response)).await;
        let Some(mut body) = self.take_head(head)? else { return Ok(()) };
        let cut = poll_fn(|cx| self.poll_bodies(cx, &mut body)).await;
        if let Err(cut) = cut {
            self.cut_off(cut, &mut body.to);
        }
        Ok(())
    }

    /// What to do with the head, or that there is none.
    fn take_head(&mut self, head: Result<Response<RecvStream>, NoHead>) -> Result<Option<Sending>, NoResponse> {
        match head {
            Ok(response) => Ok(self.begin(response)),
            Err(NoHead::Client(reason)) => {
                self.upstream.send_reset(reason.unwrap_or(Reason::CANCEL));
                Ok(None)
            }
            Err(NoHead::Upstream(error)) => Err(NoResponse::of(&error)),
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseFuture,
    ) -> Poll<Result<Response<RecvStream>, NoHead>> {
        if let Err(gone) = self.poll_request(cx) {
            return Poll::Ready(Err(NoHead::Client(gone)));
        }
        while let Poll::Ready(Some(Ok(mut early))) = response.poll_informational(cx) {
            edit_response(early.headers_mut(), self.edits);
            // Fails only if the client has gone, which is noticed below.
            let _ = self.respond.send_informational(early);
        }
        if let Poll::Ready(response) = Pin::new(response).poll(cx) {
            return Poll::Ready(response.map_err(NoHead::Upstream));
        }
        match self.respond.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(NoHead::Client(reset.ok()))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Moves the request's body. An error says that the client has gone.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), Option<Reason>> {
        if self.request.done() {
            return Ok(());
        }
        let polled = self.request.poll(cx, &mut self.upstream);
        let content = self.request.take_content();
        if content > 0 {
            self.record.request_body(content);
        }
        match polled {
            Poll::Ready(Err(Broken::From(error))) => Err(error.reason()),
            Poll::Ready(Err(Broken::Trailers(_))) => {
                self.respond.send_reset(Reason::PROTOCOL_ERROR);
                Err(Some(Reason::CANCEL))
            }
            // What this means the response says.
            Poll::Ready(Err(Broken::To(_))) => {
                self.request.stop();
                Ok(())
            }
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Passes the head on; `None` if the exchange is over thereby.
    fn begin(&mut self, response: Response<RecvStream>) -> Option<Sending> {
        let (mut head, body) = response.into_parts();
        if let Err(what) = check_fields(&head.headers) {
            let failure = ProxyError::new(Code::UpstreamProtocol, format!("endpoint's response is malformed: {what}"));
            self.upstream.send_reset(Reason::PROTOCOL_ERROR);
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            self.record.end(None, Some(&failure));
            return None;
        }
        self.record.response_fields(&head.headers);
        edit_response(&mut head.headers, self.edits);
        head.version = Version::HTTP_2;
        self.record.response_head(head.status.as_u16());
        let whole = body.is_end_stream();
        let status = grpc_status(&head.headers);
        let Ok(to) = self.respond.send_response(Response::from_parts(head, ()), whole) else {
            self.upstream.send_reset(Reason::CANCEL);
            return None;
        };
        let mut response = Pump::new(body);
        if whole {
            response.stop();
            self.first_byte();
            self.record.end(status, None);
        }
        Some(Sending { response, to, noted: whole })
    }

    fn cut_off(&mut self, cut: Cut, to: &mut SendStream<Bytes>) {
        match cut {
            Cut::Client(reason) => self.upstream.send_reset(reason.unwrap_or(Reason::CANCEL)),
            Cut::Upstream(failure, Some(reason)) => {
                to.send_reset(reason);
                self.record.end(None, Some(&failure));
            }
            Cut::Upstream(failure, None) => {
                let status = break_off(to, &failure, self.audience);
                self.record.end(status, Some(&failure));
            }
        }
    }

    fn poll_bodies(&mut self, cx: &mut Context<'_>, body: &mut Sending) -> Poll<Result<(), Cut>> {
        let Sending { response, to, noted } = body;
        if let Err(gone) = self.poll_request(cx) {
            return Poll::Ready(Err(Cut::Client(gone)));
        }
        if !response.done() {
            let moved = response.poll(cx, to);
            let content = response.take_content();
            if !*noted && (response.moved() || moved.is_ready()) {
                *noted = true;
                self.first_byte();
            }
            if content > 0 {
                self.record.response_body(content);
            }
            match moved {
                Poll::Ready(Ok(status)) => self.record.end(status, None),
                Poll::Ready(Err(Broken::To(reason))) => return Poll::Ready(Err(Cut::Client(reason))),
                Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Err(cut(&error))),
                Poll::Ready(Err(Broken::Trailers(what))) => {
                    let failure =
                        ProxyError::new(Code::UpstreamProtocol, format!("endpoint's trailers are malformed: {what}"));
                    return Poll::Ready(Err(Cut::Upstream(failure, Some(Reason::INTERNAL_ERROR))));
                }
                Poll::Pending => {}
            }
        }
        if !response.done() {
            return Poll::Pending;
        }
        if self.request.done() {
            return Poll::Ready(Ok(()));
        }
        // The response has ended before the request. The rest is carried on until the endpoint does not want it.
        match to.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(Cut::Client(reset.ok()))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn first_byte(&mut self) {
        self.record.first_byte();
        self.endpoint.responded(self.sent.elapsed());
    }
}

fn cut(error: &h2::Error) -> Cut {
    let failure = ProxyError::new(Code::UpstreamProtocol, format!("endpoint's response broke off: {error}"));
    Cut::Upstream(failure, error.reason().filter(|_| error.is_reset() && error.is_remote()))
}
