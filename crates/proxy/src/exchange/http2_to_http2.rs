//! An HTTP/2 request that goes on as HTTP/2: heads are moved, bodies are pumped both ways at once, resets keep their codes.

use super::{
    Course, Edits, Endpoint, Observe, attempt,
    http2_body::{Broken, Pump},
    http2_head::{
        SWITCHES, asks_to_close, check_response, edit_interim, edit_response, grpc_status, stream_end, too_large,
        trailers_too_large,
    },
    http2_reply::{Audience, break_off},
    untold,
};
use crate::{
    error::{Code, ProxyError},
    http1::limits::MAX_INTERIM,
    http2::{client::OpenStream, fields_fit, server::Driver},
    turn,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{Response, Version, response};
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};
use weft_model::decide::{field::Message, retry::Outcome};

/// An exchange whose request head has been sent.
pub(super) struct Forward<'a, E, R> {
    pub(super) respond: &'a mut SendResponse<Bytes>,
    pub(super) driver: &'a Driver,
    pub(super) request: &'a mut Pump,
    pub(super) upstream: SendStream<Bytes>,
    pub(super) open: OpenStream,
    pub(super) endpoint: &'a E,
    pub(super) edits: &'a Edits,
    pub(super) record: &'a mut R,
    pub(super) course: &'a Course,
    pub(super) audience: Audience,
    pub(super) sent: Instant,
}

/// Nothing of a response was passed on.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// The endpoint failed before: the client still waits for a reply.
    Failed {
        error: ProxyError,
        /// The client gets this instead of a reply.
        reset: Option<Reason>,
        repeat: Repeat,
    },
    /// The request is sent once more, as was agreed; the record knows of this attempt.
    Again,
}

/// Whether the same may be asked once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Nobody has looked at the request.
    Unseen,
    /// Somebody may have acted on it: one other is asked, and no third, lest a request that ends servers ends them all. A server
    /// that only leaves would have said so.
    IfHarmless,
    Never,
}

/// How waiting for the head of a response ends, if not with the head.
enum NoHead {
    /// The client has gone, with its code if it gave one.
    Client(Option<Reason>),
    Upstream(h2::Error),
    /// What came is not passed on.
    Refused(&'static str),
    /// It did not come in time.
    Late(ProxyError),
    /// It came, and another attempt is made instead.
    Again,
}

/// The head of a response and what follows it.
struct Answer {
    head: response::Parts,
    body: Pump,
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
    /// The endpoint has reset its stream, which is passed on.
    Reset(ProxyError, Reason),
}

impl Repeat {
    /// `untouched` says that nothing of the request's body is gone that would be missed, `harmless` that asking twice does no harm.
    pub(super) fn is_allowed(self, untouched: bool, harmless: bool) -> bool {
        match self {
            Self::Unseen => untouched,
            Self::IfHarmless => harmless,
            Self::Never => false,
        }
    }
}

impl From<Response<RecvStream>> for Answer {
    fn from(response: Response<RecvStream>) -> Self {
        let (head, body) = response.into_parts();
        Self { head, body: Pump::new(body, Message::Response) }
    }
}

impl NoResponse {
    /// A reset is passed on; one that says that the request was not looked at too, which the client may send again. Those of a
    /// GOAWAY are above the last stream that it names: of the others `h2` says that their connection ended.
    fn of(error: &h2::Error) -> Self {
        let unprocessed = error.is_go_away() && error.is_remote();
        let reset = if unprocessed {
            Some(Reason::REFUSED_STREAM)
        } else {
            error.reason().filter(|_| error.is_reset() && error.is_remote())
        };
        Self::Failed {
            error: ProxyError::new(Code::UpstreamProtocol, format!("endpoint gave no response: {error}"))
                .by(stream_end(error)),
            reset,
            repeat: match reset {
                Some(Reason::REFUSED_STREAM) => Repeat::Unseen,
                _ if error.is_io() => Repeat::IfHarmless,
                _ => Repeat::Never,
            },
        }
    }
}

impl From<ProxyError> for NoResponse {
    fn from(error: ProxyError) -> Self {
        Self::Failed { error, reset: None, repeat: Repeat::Never }
    }
}

impl<E: Endpoint, R: Observe> Forward<'_, E, R> {
    /// Carries the exchange to its end.
    ///
    /// # Errors
    /// The endpoint failed before its response began: the client still waits for a reply.
    pub(super) async fn run(&mut self, mut response: ResponseFuture) -> Result<(), NoResponse> {
        let mut interim = 0;
        let answer = match poll_fn(|cx| self.poll_head(cx, &mut response, &mut interim)).await {
            // Boxed: most requests have one attempt.
            Ok(response) if self.course.is_agreed() => Box::pin(self.consider(response)).await,
            Ok(response) => Ok(response.into()),
            Err(none) => Err(none),
        };
        if let Err(NoHead::Client(_)) = &answer {
            self.open.matures().await;
        }
        let Some(mut body) = self.take_head(answer)? else { return Ok(()) };
        let cut = poll_fn(|cx| self.poll_bodies(cx, &mut body)).await;
        if let Err(cut) = cut {
            self.cut_off(cut, &mut body.to);
        }
        Ok(())
    }

    /// What to do with the head, or that there is none.
    fn take_head(&mut self, head: Result<Answer, NoHead>) -> Result<Option<Sending>, NoResponse> {
        match head {
            Ok(answer) if !fields_fit(&answer.head.headers) => {
                self.open.reset(&mut self.upstream, Reason::CANCEL);
                Err(too_large("header fields").into())
            }
            Ok(answer) => Ok(self.begin(answer)),
            Err(NoHead::Client(reason)) => {
                self.open.reset(&mut self.upstream, reason.unwrap_or(Reason::CANCEL));
                Ok(None)
            }
            Err(NoHead::Upstream(error)) => Err(NoResponse::of(&error)),
            Err(NoHead::Refused(what)) => {
                self.upstream.send_reset(Reason::CANCEL);
                Err(ProxyError::new(Code::UpstreamProtocol, format!("endpoint's response is malformed: {what}")).into())
            }
            Err(NoHead::Late(error)) => {
                self.upstream.send_reset(Reason::CANCEL);
                if !self.course.again_failed(&error, self.request.body().is_whole()) {
                    return Err(error.into());
                }
                attempt::failed_once(self.record, &error);
                Err(NoResponse::Again)
            }
            Err(NoHead::Again) => {
                self.upstream.send_reset(Reason::CANCEL);
                Err(NoResponse::Again)
            }
        }
    }

    /// Whether a response is the answer, or another attempt is made.
    async fn consider(&mut self, response: Response<RecvStream>) -> Result<Answer, NoHead> {
        self.course.answered();
        let Answer { head, mut body } = response.into();
        let whole = self.request.body().is_whole();
        let (status, mut grpc) = (head.status.as_u16(), grpc_status(&head.headers));
        if grpc.is_none() && !body.ends() && self.course.peeks(whole) {
            grpc = poll_fn(|cx| {
                if let Poll::Ready(peeked) = body.poll_peek(cx) {
                    return Poll::Ready(peeked.map_err(NoHead::Upstream));
                }
                self.poll_gone(cx).map(Err)
            })
            .await?;
        }
        if !self.course.again(Outcome::Response { status, grpc }, whole) {
            return Ok(Answer { head, body });
        }
        self.record.response_fields(&head.headers);
        self.record.response_head(status);
        self.endpoint.responded(turn::since(self.sent));
        attempt::passed_over(self.record, grpc);
        Err(NoHead::Again)
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut ResponseFuture,
        interim: &mut usize,
    ) -> Poll<Result<Response<RecvStream>, NoHead>> {
        if let Err(gone) = self.poll_request(cx) {
            return Poll::Ready(Err(NoHead::Client(gone)));
        }
        while let Poll::Ready(Some(Ok(mut early))) = response.poll_informational(cx) {
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Poll::Ready(Err(NoHead::Refused("it has too many interim responses")));
            }
            if early.status() == 101 {
                return Poll::Ready(Err(NoHead::Refused(SWITCHES)));
            }
            edit_interim(early.headers_mut(), self.edits);
            if check_response(early.headers()).is_ok() && fields_fit(early.headers()) {
                // Fails only if the client has gone, which is noticed below.
                let _ = self.respond.send_informational(early);
            }
        }
        if let Poll::Ready(response) = Pin::new(response).poll(cx) {
            self.open.answered();
            return Poll::Ready(response.map_err(NoHead::Upstream));
        }
        self.poll_gone(cx).map(Err)
    }

    /// Ready when nobody waits for a response any more.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<NoHead> {
        match self.respond.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(NoHead::Client(reset.ok())),
            Poll::Pending => self.course.too_late(cx, self.request.passed(), self.request.done()).map(NoHead::Late),
        }
    }

    /// Moves the request's body. An error says that the client has gone.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), Option<Reason>> {
        if self.request.done() {
            return Ok(());
        }
        let polled = self.request.poll(cx, &mut self.upstream, &mut untold);
        let content = self.request.take_content();
        if content > 0 {
            self.record.request_body(content);
        }
        match polled {
            Poll::Ready(Err(Broken::From(error))) => Err(error.reason()),
            Poll::Ready(Err(Broken::Trailers(_))) => {
                self.driver.reset(self.respond, Reason::PROTOCOL_ERROR);
                Err(Some(Reason::CANCEL))
            }
            Poll::Ready(Err(Broken::TooLarge)) => {
                attempt::cut(self.record, self.course, None, &trailers_too_large());
                self.driver.reset(self.respond, Reason::ENHANCE_YOUR_CALM);
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
    fn begin(&mut self, answer: Answer) -> Option<Sending> {
        let Answer { mut head, body: mut response } = answer;
        if let Err(what) = check_response(&head.headers) {
            let failure = ProxyError::new(Code::UpstreamProtocol, format!("endpoint's response is malformed: {what}"));
            self.open.reset(&mut self.upstream, Reason::PROTOCOL_ERROR);
            self.respond.send_reset(Reason::INTERNAL_ERROR);
            attempt::cut(self.record, self.course, None, &failure);
            return None;
        }
        self.record.response_fields(&head.headers);
        if asks_to_close(&head.headers, self.edits) {
            self.driver.close();
        }
        edit_response(&mut head.headers, self.edits);
        head.version = Version::HTTP_2;
        self.record.response_head(head.status.as_u16());
        let whole = response.ends();
        let status = grpc_status(&head.headers);
        let Ok(to) = self.respond.send_response(Response::from_parts(head, ()), whole) else {
            self.upstream.send_reset(Reason::CANCEL);
            return None;
        };
        if whole {
            response.stop();
            self.first_byte();
            self.record.end(status, None);
        }
        Some(Sending { response, to, noted: whole })
    }

    fn cut_off(&mut self, cut: Cut, to: &mut SendStream<Bytes>) {
        match cut {
            Cut::Client(reason) => self.open.reset(&mut self.upstream, reason.unwrap_or(Reason::CANCEL)),
            Cut::Reset(failure, reason) => {
                self.driver.cut(to, reason);
                self.record.end(None, Some(&failure));
            }
            Cut::Upstream(failure, Some(reason)) => {
                self.driver.cut(to, reason);
                attempt::cut(self.record, self.course, None, &failure);
            }
            Cut::Upstream(failure, None) => {
                // Where the endpoint itself has ended it, this says nothing more.
                self.upstream.send_reset(Reason::CANCEL);
                let status = break_off(to, &failure, self.audience);
                attempt::cut(self.record, self.course, status, &failure);
            }
        }
    }

    fn poll_bodies(&mut self, cx: &mut Context<'_>, body: &mut Sending) -> Poll<Result<(), Cut>> {
        let Sending { response, to, noted } = body;
        if let Err(gone) = self.poll_request(cx) {
            return Poll::Ready(Err(Cut::Client(gone)));
        }
        if !response.done() {
            let moved = response.poll(cx, to, &mut |fields| self.record.trailers(fields));
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
                Poll::Ready(Err(Broken::TooLarge)) => {
                    return Poll::Ready(Err(Cut::Upstream(too_large("trailers"), None)));
                }
                Poll::Pending => {}
            }
        }
        if !response.done() {
            let passed = self.request.passed().wrapping_add(response.passed());
            let late = self.course.too_late(cx, passed, self.request.done());
            return late.map(|error| Err(Cut::Upstream(error, None)));
        }
        if self.request.done() {
            return Poll::Ready(Ok(()));
        }
        // The response has ended before the request. The rest is carried on until the endpoint does not want it.
        match to.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(Cut::Client(reset.ok()))),
            Poll::Pending => self.course.too_late(cx, self.request.passed(), false).map(|_| Err(Cut::Client(None))),
        }
    }

    fn first_byte(&mut self) {
        self.record.first_byte();
        self.endpoint.responded(turn::since(self.sent));
    }
}

fn cut(error: &h2::Error) -> Cut {
    let failure = ProxyError::new(Code::UpstreamProtocol, format!("endpoint's response broke off: {error}"))
        .by(stream_end(error));
    match error.reason().filter(|_| error.is_reset() && error.is_remote()) {
        Some(reason) => Cut::Reset(failure, reason),
        None => Cut::Upstream(failure, None),
    }
}
