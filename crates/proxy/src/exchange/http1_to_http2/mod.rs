//! An HTTP/1 request that is carried on HTTP/2 to another proxy (data plane 4.8).
//!
//! The head is copied once and its values share that copy; `l5d-orig-proto` says what it was. The response is written as the
//! client's version of HTTP. Upgrades are not carried: they need a connection of their own.

mod incoming;
mod outgoing;

use super::{
    Course, Edits, Endpoint, Observe, Told, attempt,
    http1_as_http2::request,
    http1_fields::{write_fields, write_last_chunk},
    http1_outcome::{After, Failed, NoResponse, Repeatable, Request, connected, malformed_body, protocol},
    http2_head::{
        SWITCHES, asks_to_close, check_length, check_size, edit_interim, edit_response, grpc_status, stream_end,
    },
};
use crate::{
    error::ProxyError,
    http1::{
        body::{BodyError, Decoder},
        fields::write_line,
        io::Io,
        limits::MAX_INTERIM,
        request::RequestHead,
        response::write_status,
    },
    http2::{client::OpenStream, fields_fit},
    protocol::Version,
    turn,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{HeaderValue, Response, header};
use incoming::{Framing, Incoming};
use outgoing::Outgoing;
use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};
use weft_model::{
    decide::{field::Message, retry::Outcome},
    names,
};
use weft_transport::drain;

/// Bytes of a response that are gathered for one write.
const WRITE_AT_ONCE: usize = 64 * 1024;

pub(super) struct Upgrade<'a, E, R> {
    /// Begins with the head.
    pub(super) client: &'a mut Io,
    pub(super) head: &'a RequestHead,
    pub(super) endpoint: &'a E,
    pub(super) edits: &'a Edits,
    pub(super) record: &'a mut R,
    pub(super) course: &'a Course,
    pub(super) drain: &'a drain::Watch,
}

enum Cut {
    Client,
    /// The client's body is malformed.
    Body(BodyError),
    Upstream(h2::Error),
    /// The response cannot be passed on.
    Response(&'static str),
    Late(ProxyError),
}

impl<E: Endpoint, R: Observe> Upgrade<'_, E, R> {
    /// Carries the exchange to its end.
    pub(super) async fn run(mut self) -> Result<After, NoResponse> {
        let block = Bytes::copy_from_slice(self.client.read.filled().get(..self.head.len).unwrap_or_default());
        let decoder = Decoder::new(self.head.body);
        let whole = decoder.is_end();
        let asks = self.head.expects_continue && self.head.version == Version::Http11;
        let only_head = self.head.asked(&block).head;
        let idempotent = self.head.is_idempotent(&block);
        let copies = self.course.copies().cloned();
        if let Some(copies) = &copies {
            copies.again();
            if whole {
                copies.whole();
            }
        }
        let mut outgoing = Outgoing {
            copies,
            decoder,
            data: 0,
            content: 0,
            head: self.head.len,
            whole,
            stopped: false,
            asks,
            only_head,
            idempotent,
        };
        let mut sender = connected(self.client, self.course, self.endpoint.http2()).await?;
        let request = request(self.head, &block, self.edits).ok_or(NoResponse::Unfit)?;
        self.course.started();
        drop(block);
        check_size(&request).map_err(reply)?;
        let sent = turn::now();
        let stream = sender.send(request, whole).map_err(|error| repeatable(&error, Repeatable::Stale))?;
        drop(sender);
        let (mut response, mut upstream, mut open) = stream;
        let mut interim = 0;
        let head = poll_fn(|cx| {
            let stream = (&mut response, &mut upstream, &mut open);
            self.poll_head(cx, &mut outgoing, stream, &mut interim)
        })
        .await;
        match head {
            Ok(response) => {
                outgoing.take_head(self.client);
                self.respond(response, &mut outgoing, &mut upstream, sent).await
            }
            Err(failed) => {
                if let Cut::Client = failed {
                    open.matures().await;
                }
                Err(self.no_head(failed, &outgoing, &mut upstream))
            }
        }
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
        (response, upstream, open): (&mut ResponseFuture, &mut SendStream<Bytes>, &mut OpenStream),
        interim: &mut usize,
    ) -> Poll<Result<Response<RecvStream>, Cut>> {
        let sent = outgoing.poll(cx, self.client, upstream);
        outgoing.tell(self.record);
        if let Poll::Ready(Err(failed)) = sent {
            return Poll::Ready(Err(failed));
        }
        while let Poll::Ready(Some(Ok(early))) = response.poll_informational(cx) {
            *interim += 1;
            if *interim > MAX_INTERIM {
                return Poll::Ready(Err(Cut::Response("it has too many interim responses")));
            }
            if early.status() == 101 {
                return Poll::Ready(Err(Cut::Response(SWITCHES)));
            }
            self.write_interim(early);
        }
        let head = Pin::new(response).poll(cx).map_err(Cut::Upstream);
        if let Poll::Ready(Ok(response)) = &head
            && let Err(what) = check_length(response.headers())
        {
            return Poll::Ready(Err(Cut::Response(what)));
        }
        if let Poll::Ready(Ok(response)) = &head
            && !fields_fit(response.headers())
        {
            return Poll::Ready(Err(Cut::Response("its header fields are too large to be carried")));
        }
        if head.is_ready() {
            open.answered();
        } else {
            // Interim responses, `100 Continue` among them. An error shows when the response is written.
            let _ = self.client.poll_write_out(cx);
            if outgoing.whole && self.client.poll_gone(cx, outgoing.head).is_ready() {
                return Poll::Ready(Err(Cut::Client));
            }
            return self.course.too_late(cx, self.client.moved(), outgoing.sent()).map(|error| Err(Cut::Late(error)));
        }
        head
    }

    fn write_interim(&mut self, early: Response<()>) {
        // 100 was answered where the body was asked for.
        if self.head.version != Version::Http11 || early.status() == 100 {
            return;
        }
        let (mut head, ()) = early.into_parts();
        edit_interim(&mut head.headers, self.edits);
        let out = self.client.out.bytes();
        write_status(out, self.head.version, head.status.as_u16());
        write_fields(&head.headers, out, |name| *name == header::CONTENT_LENGTH);
        out.extend_from_slice(b"\r\n");
    }

    fn no_head(&mut self, failed: Cut, outgoing: &Outgoing, upstream: &mut SendStream<Bytes>) -> NoResponse {
        let error = match failed {
            Cut::Client => {
                upstream.send_reset(Reason::CANCEL);
                return NoResponse::Failed(Failed::ClientGone);
            }
            Cut::Body(error) => {
                upstream.send_reset(Reason::CANCEL);
                malformed_body(error)
            }
            Cut::Upstream(error) if outgoing.head > 0 && unprocessed(&error) => {
                return repeatable(&error, Repeatable::Refused);
            }
            Cut::Upstream(error) if outgoing.head > 0 && outgoing.idempotent && error.is_io() => {
                return repeatable(&error, Repeatable::Unanswered);
            }
            Cut::Upstream(error)
                if unprocessed(&error) && self.course.again(Outcome::Refused, self.is_whole(outgoing)) =>
            {
                return self.again(&no_answer(&error));
            }
            Cut::Late(error) => {
                upstream.send_reset(Reason::CANCEL);
                if self.course.again_failed(&error, self.is_whole(outgoing)) {
                    return self.again(&error);
                }
                let request = match outgoing {
                    Outgoing { head: 1.., .. } => Request::Unread,
                    Outgoing { whole: true, .. } => Request::Read,
                    Outgoing { .. } => Request::Amid,
                };
                return NoResponse::Late { error, request };
            }
            Cut::Upstream(error) => no_answer(&error),
            Cut::Response(what) => {
                upstream.send_reset(Reason::CANCEL);
                protocol(&format!("endpoint's response is malformed: {what}"))
            }
        };
        reply(error)
    }

    /// Whether the request was read to its end and is kept whole.
    fn is_whole(&self, outgoing: &Outgoing) -> bool {
        outgoing.whole && self.client.read.is_kept() && self.course.fits(outgoing.decoder.content())
    }

    /// The attempt failed, and another is made.
    fn again(&mut self, error: &ProxyError) -> NoResponse {
        attempt::failed_once(self.record, error);
        NoResponse::Again
    }

    async fn respond(
        &mut self,
        response: Response<RecvStream>,
        outgoing: &mut Outgoing,
        upstream: &mut SendStream<Bytes>,
        begun: Instant,
    ) -> Result<After, NoResponse> {
        let (head, body) = response.into_parts();
        let (status, grpc) = (head.status.as_u16(), grpc_status(&head.headers));
        self.course.answered();
        self.record.response_fields(&head.headers);
        self.record.response_head(status);
        if self.course.again(Outcome::Response { status, grpc }, self.is_whole(outgoing)) {
            self.endpoint.responded(turn::since(begun));
            attempt::passed_over(self.record, grpc);
            return Err(NoResponse::Again);
        }
        // A request that is not read yet may never be.
        let read = outgoing.whole && !outgoing.stopped;
        let told = asks_to_close(&head.headers, self.edits);
        let may_keep = read && !told && self.head.keeps_alive() && !self.drain.is_signaled();
        let framing = self.write_head(head, body.is_end_stream(), outgoing.only_head, may_keep);
        let whole = framing == Framing::NoBody || body.is_end_stream();
        let mut incoming = Incoming { body, framing, unwritten: 0, content: 0, moved: false, grpc_status: grpc, whole };
        if whole && framing == Framing::Chunked {
            write_last_chunk(self.client.out.bytes(), None, Message::Response);
        }
        let mut noted = false;
        let ended = poll_fn(|cx| {
            let sent = outgoing.poll(cx, self.client, upstream);
            outgoing.tell(self.record);
            if let Poll::Ready(Err(failed)) = sent {
                return Poll::Ready(Err(failed));
            }
            let told: Told<'_> = &mut |fields| self.record.trailers(fields);
            let moved = incoming.poll(cx, self.client, outgoing.whole, told);
            if !noted && (incoming.moved || incoming.whole || moved.is_ready()) {
                noted = true;
                self.record.first_byte();
                self.endpoint.responded(turn::since(begun));
            }
            match std::mem::take(&mut incoming.content) {
                0 => {}
                content => self.record.response_body(content),
            }
            if moved.is_pending() {
                let bytes = self.client.moved();
                return self.course.too_late(cx, bytes, outgoing.sent()).map(|error| Err(Cut::Late(error)));
            }
            moved
        })
        .await;
        let keep = may_keep && framing != Framing::UntilClose;
        Ok(match ended {
            Ok(()) => {
                self.record.end(incoming.grpc_status, None);
                if keep { After::Keep } else { After::Close }
            }
            Err(Cut::Client) => {
                upstream.send_reset(Reason::CANCEL);
                After::Reset
            }
            Err(Cut::Upstream(error)) => {
                self.cut(&protocol(&format!("endpoint's response broke off: {error}")).by(stream_end(&error)))
            }
            Err(Cut::Body(error)) => {
                upstream.send_reset(Reason::CANCEL);
                self.cut(&malformed_body(error))
            }
            Err(Cut::Response(what)) => {
                upstream.send_reset(Reason::CANCEL);
                self.cut(&protocol(what))
            }
            Err(Cut::Late(error)) => {
                upstream.send_reset(Reason::CANCEL);
                self.cut(&error)
            }
        })
    }

    /// A response that has begun cannot be taken back: the client sees that it is incomplete.
    fn cut(&mut self, error: &ProxyError) -> After {
        attempt::cut(self.record, self.course, None, error);
        After::Reset
    }

    /// Appends the response's head; how its body is framed.
    fn write_head(&mut self, mut head: http::response::Parts, empty: bool, only_head: bool, keep: bool) -> Framing {
        edit_response(&mut head.headers, self.edits);
        head.headers.remove(names::header::ORIG_PROTO);
        if head.status == 204 {
            // RFC 9110 8.6
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let version = self.head.version;
        let no_body = only_head || matches!(head.status.as_u16(), 204 | 304);
        let framing = if no_body {
            Framing::NoBody
        } else if head.headers.contains_key(header::CONTENT_LENGTH) {
            Framing::Length
        } else if empty {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            Framing::Length
        } else if version == Version::Http11 {
            Framing::Chunked
        } else {
            Framing::UntilClose
        };
        let out = self.client.out.bytes();
        write_status(out, version, head.status.as_u16());
        write_fields(&head.headers, out, |_| false);
        if framing == Framing::Chunked {
            write_line(out, b"transfer-encoding", b"chunked");
        }
        if !keep || framing == Framing::UntilClose {
            write_line(out, b"connection", b"close");
        } else if version == Version::Http10 {
            write_line(out, b"connection", b"keep-alive");
        }
        out.extend_from_slice(b"\r\n");
        framing
    }
}

/// Whether the endpoint says that it has not looked at the request.
fn unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

fn reply(error: ProxyError) -> NoResponse {
    NoResponse::Failed(Failed::Reply(error))
}

fn repeatable(error: &h2::Error, why: Repeatable) -> NoResponse {
    NoResponse::Repeatable { error: no_answer(error), why }
}

fn no_answer(error: &h2::Error) -> ProxyError {
    protocol(&format!("endpoint gave no response: {error}")).by(stream_end(error))
}
