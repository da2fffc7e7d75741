//! An HTTP/2 request that goes on as HTTP/1: the inbound side of HTTP/1 carried between two proxies (data plane 3.6, 3.7).
//!
//! The request gets back the version and target form that `l5d-orig-proto` names; the response says which version the
//! application really spoke. Both bodies move at once, and nothing is read for which the other side has no room. A gateway comes
//! here as well, where an endpoint does not speak HTTP/2: a policy's retries are made by status. gRPC's statuses behind a body are
//! not waited for.

use super::{
    Course, Edits, Endpoint, Observe, Told, attempt,
    http1_fields::{headers_of, trailers_of, write_chunk, write_last_chunk},
    http1_outcome::protocol,
    http2_as_http1::write_head,
    http2_body::{Body, room},
    http2_head::{check_fields, edit_interim, edit_response, grpc_status, too_large, trailers_too_large},
    http2_reply::{Audience, break_off, unless_reset},
    http2_to_http2::NoResponse,
    orig_proto::OrigProto,
};
use crate::{
    error::{Code, NOT_HTTP, ProxyError},
    http1::{
        Connection,
        body::{self, Decoder, Step},
        buffer::OutBuffer,
        framing::Asked,
        limits::{MAX_HEAD, MAX_INTERIM},
        response::{ResponseHead, is_other},
        trailers,
    },
    http2::{fields_fit, server::Driver, trailers_fit},
    turn,
};
use bytes::Bytes;
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderValue, Method, Response, StatusCode, header, request};
use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, ready},
    time::Instant,
};
use weft_model::{
    decide::{field::Message, retry::Outcome},
    names,
};

/// How far the endpoint's connection is read ahead, in bytes.
const READ_AHEAD: usize = 64 * 1024;

pub(super) struct Downgrade<'a, E, R> {
    pub(super) respond: &'a mut SendResponse<Bytes>,
    pub(super) driver: &'a Driver,
    pub(super) endpoint: &'a E,
    pub(super) edits: &'a Edits,
    pub(super) record: &'a mut R,
    pub(super) course: &'a Course,
    pub(super) audience: Audience,
    pub(super) sent: Instant,
    /// How often the request may still be sent again because a connection closed without a word.
    pub(super) again: &'a mut usize,
}

/// The request on its way into the connection.
struct Outgoing<'a> {
    body: &'a mut Body,
    chunked: bool,
    /// Bytes of the body that were taken and are not yet written.
    unwritten: usize,
    /// Content since it was last asked for.
    content: usize,
    /// All of the request has been taken.
    whole: bool,
    /// The endpoint reads no more.
    stopped: bool,
    /// No body was taken yet, so that all can be written again.
    only_head: bool,
    idempotent: bool,
}

/// The response on its way out of the connection.
struct Incoming {
    head: ResponseHead,
    asked: Asked,
    interim: usize,
    body: Option<Sending>,
}

struct Sending {
    decoder: Decoder,
    /// Content at the front of what was read.
    data: usize,
    /// Content since it was last asked for.
    content: usize,
    to: SendStream<Bytes>,
    /// The first byte was noted.
    noted: bool,
    done: bool,
}

enum Failed {
    /// The client has reset the stream or is gone.
    Client,
    /// The client's trailers are malformed.
    Request,
    /// The client's trailers are larger than may be passed on.
    TooLarge,
    /// A response came, and another attempt is made instead.
    Again,
    /// No response, or not the end of one, came in time.
    Late(ProxyError),
    /// The connection ended without a word of response, an interim one included: a kept one may only have been closed meanwhile.
    Silent(ProxyError),
    Endpoint(ProxyError),
}

impl<E: Endpoint, R: Observe> Downgrade<'_, E, R> {
    /// Carries the exchange to its end.
    ///
    /// # Errors
    /// There is no response; the client still waits for a reply.
    pub(super) async fn run(&mut self, head: &mut request::Parts, body: &mut Body) -> Result<(), NoResponse> {
        if head.method == Method::CONNECT {
            return Err(ProxyError::new(Code::BadRequest, "connect is not carried from HTTP/2 to HTTP/1").into());
        }
        let asked = Asked { head: head.method == Method::HEAD, connect: false };
        let idempotent = head.method.is_idempotent();
        let whole = body.is_end_stream();
        let mut written = OutBuffer::default();
        let chunked = if self.course.keeps().is_some() {
            // It may be needed again.
            write_head(&mut head.clone(), self.edits, whole, written.bytes())
        } else {
            write_head(head, self.edits, whole, written.bytes())
        };
        let mut outgoing =
            Outgoing { body, chunked, unwritten: 0, content: 0, whole, stopped: false, only_head: true, idempotent };
        loop {
            let connected = {
                let connecting = pin!(self.endpoint.http1());
                unless_reset(self.respond, self.course.in_time(connecting)).await
            };
            let mut connection = match connected {
                None => return Ok(()),
                Some(Ok(connection)) => connection?,
                Some(Err(late)) => return Err(self.late(late, outgoing.body.is_whole())),
            };
            self.course.started();
            connection.io.out = std::mem::take(&mut written);
            connection.io.out.rewind();
            let mut incoming = Incoming { head: ResponseHead::default(), asked, interim: 0, body: None };
            match poll_fn(|cx| self.poll(cx, &mut connection, &mut outgoing, &mut incoming)).await {
                Ok(()) => {
                    self.keep(connection, &outgoing, &incoming.head);
                    return Ok(());
                }
                Err(Failed::Client) => return Ok(()),
                Err(Failed::Request) => {
                    self.driver.reset(self.respond, Reason::PROTOCOL_ERROR);
                    return Ok(());
                }
                Err(Failed::TooLarge) => {
                    attempt::cut(self.record, self.course, None, &trailers_too_large());
                    self.driver.reset(self.respond, Reason::ENHANCE_YOUR_CALM);
                    return Ok(());
                }
                Err(Failed::Again) => {
                    self.discard(connection, &outgoing, &incoming.head);
                    return Err(NoResponse::Again);
                }
                Err(Failed::Late(error)) if incoming.body.is_none() => {
                    return Err(self.late(error, outgoing.body.is_whole()));
                }
                Err(Failed::Silent(_)) if *self.again > 0 && outgoing.may_repeat(&connection) => {
                    // In place of a connection that was made for this request one other is tried, and no third, lest a
                    // request that ends servers ends them all.
                    *self.again = if connection.completed > 0 { *self.again - 1 } else { 0 };
                    written = std::mem::take(&mut connection.io.out);
                    outgoing.stopped = false;
                }
                Err(Failed::Silent(error) | Failed::Late(error) | Failed::Endpoint(error)) => {
                    return self.fail(error, incoming.body).map_err(NoResponse::from);
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        outgoing: &mut Outgoing<'_>,
        incoming: &mut Incoming,
    ) -> Poll<Result<(), Failed>> {
        let polled = outgoing.poll(cx, connection);
        match std::mem::take(&mut outgoing.content) {
            0 => {}
            content => self.record.request_body(content),
        }
        polled?;
        while incoming.body.is_none() {
            match self.poll_head(cx, connection, incoming, outgoing.body.is_whole()) {
                Poll::Ready(head) => head?,
                Poll::Pending if self.respond.poll_reset(cx).is_ready() => return Poll::Ready(Err(Failed::Client)),
                Poll::Pending => return self.poll_late(cx, connection, outgoing),
            }
        }
        let Some(body) = &mut incoming.body else { return Poll::Pending };
        if body.done {
            return Poll::Ready(Ok(()));
        }
        let before = connection.io.read.len();
        let moved = body.poll(cx, connection, &mut |fields| self.record.trailers(fields));
        if !body.noted && (moved.is_ready() || body.data > 0 || connection.io.read.len() != before) {
            body.noted = true;
            self.record.first_byte();
            self.endpoint.responded(turn::since(self.sent));
        }
        match std::mem::take(&mut body.content) {
            0 => {}
            content => self.record.response_body(content),
        }
        match moved {
            Poll::Ready(Ok(status)) => {
                self.record.end(status, None);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if body.to.poll_reset(cx).is_ready() => Poll::Ready(Err(Failed::Client)),
            Poll::Pending => self.poll_late(cx, connection, outgoing),
        }
    }

    fn poll_late(
        &self,
        cx: &mut Context<'_>,
        connection: &Connection,
        outgoing: &Outgoing<'_>,
    ) -> Poll<Result<(), Failed>> {
        let sent = outgoing.stopped || outgoing.whole && outgoing.unwritten == 0;
        self.course.too_late(cx, connection.io.moved(), sent).map(|error| Err(Failed::Late(error)))
    }

    /// Reads the head of a response and passes it on, unless another attempt is made. An interim one leaves `incoming` as it was.
    /// `kept` says that the request can be sent again.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        incoming: &mut Incoming,
        kept: bool,
    ) -> Poll<Result<(), Failed>> {
        let io = &mut connection.io;
        loop {
            if io.may_hold_head() {
                match incoming.head.parse(io.read.filled(), incoming.asked) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(_) if is_other(io.read.filled()) => {
                        self.record.not_http();
                        return Poll::Ready(Err(Failed::Endpoint(protocol(NOT_HTTP))));
                    }
                    Err(_) => return Poll::Ready(Err(malformed())),
                }
            }
            let read = ready!(io.poll_fill(cx, MAX_HEAD));
            if !io.read.is_empty() {
                if !matches!(read, Ok(n) if n > 0) {
                    return Poll::Ready(Err(malformed()));
                }
                continue;
            }
            let text = match read {
                Ok(_) => "endpoint closed the connection without a response".to_owned(),
                Err(error) => format!("endpoint gave no response: {error}"),
            };
            let error = protocol(&text);
            let silent = incoming.interim == 0;
            return Poll::Ready(Err(if silent { Failed::Silent(error) } else { Failed::Endpoint(error) }));
        }
        let head = &incoming.head;
        let block = Bytes::copy_from_slice(io.read.filled().get(..head.len).unwrap_or_default());
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| malformed())?;
        *response.headers_mut() = headers_of(&block, head.forwarded(&block));
        io.take_head(head.len);
        if head.is_interim() {
            incoming.interim += 1;
            if incoming.interim > MAX_INTERIM {
                return Poll::Ready(Err(malformed()));
            }
            edit_interim(response.headers_mut(), self.edits);
            if !fields_fit(response.headers()) {
                return Poll::Ready(Err(malformed()));
            }
            // Fails only if the client has gone, which is noticed later.
            let _ = self.respond.send_informational(response);
            return Poll::Ready(Ok(()));
        }
        if head.status == 101 {
            // Nobody asked for it: HTTP/2 requests carry no `upgrade`.
            return Poll::Ready(Err(malformed()));
        }
        Poll::Ready(self.start(response, incoming, kept))
    }

    fn start(&mut self, mut response: Response<()>, incoming: &mut Incoming, kept: bool) -> Result<(), Failed> {
        let head = &incoming.head;
        let headers = response.headers_mut();
        self.course.answered();
        let grpc = grpc_status(headers);
        if self.course.again(Outcome::Response { status: head.status, grpc }, kept) {
            self.record.response_fields(&*headers);
            self.record.response_head(head.status);
            self.endpoint.responded(turn::since(self.sent));
            attempt::passed_over(self.record, grpc);
            return Err(Failed::Again);
        }
        if head.status == 204 {
            // RFC 9110 8.6. The length of a 304 is that of the body which a 200 would have, and the stream ends with the head: RFC 9113
            // 8.1.1.
            headers.remove(header::CONTENT_LENGTH);
        }
        self.record.response_fields(&*headers);
        edit_response(headers, self.edits);
        if self.edits.restore_orig_proto {
            let orig = OrigProto { version: head.version, absolute: false };
            headers.insert(names::header::ORIG_PROTO, HeaderValue::from_static(orig.as_str()));
        }
        let status = grpc_status(headers);
        if !fields_fit(headers) {
            return Err(malformed());
        }
        self.record.response_head(head.status);
        let decoder = Decoder::new(head.body);
        let done = decoder.is_end();
        let to = self.respond.send_response(response, done).map_err(|_| Failed::Client)?;
        if done {
            self.record.first_byte();
            self.endpoint.responded(turn::since(self.sent));
            self.record.end(status, None);
        }
        incoming.body = Some(Sending { decoder, data: 0, content: 0, to, noted: done, done });
        Ok(())
    }

    /// A response is not passed on. Its connection is good for another request only if all of it has come.
    fn discard(&self, mut connection: Connection, outgoing: &Outgoing<'_>, head: &ResponseHead) {
        if let Some(n) = body::whole(head.body, connection.io.read.filled()) {
            connection.io.read.consume(n);
            self.keep(connection, outgoing, head);
        }
    }

    fn keep(&self, connection: Connection, outgoing: &Outgoing<'_>, head: &ResponseHead) {
        let request_done = outgoing.whole && !outgoing.stopped && outgoing.unwritten == 0;
        if request_done
            && head.keeps_alive()
            && let Some(connection) = connection.rests()
        {
            self.endpoint.keep_http1(connection);
        }
    }

    /// No response is passed on, since it did not come in time. `kept` as for [`Self::poll_head`].
    fn late(&mut self, error: ProxyError, kept: bool) -> NoResponse {
        if !self.course.again_failed(&error, kept) {
            return error.into();
        }
        attempt::failed_once(self.record, &error);
        NoResponse::Again
    }

    fn fail(&mut self, error: ProxyError, body: Option<Sending>) -> Result<(), ProxyError> {
        let Some(mut body) = body else { return Err(error) };
        let status = break_off(&mut body.to, &error, self.audience);
        attempt::cut(self.record, self.course, status, &error);
        Ok(())
    }
}

impl Outgoing<'_> {
    /// Whether sending all of it again does no more than sending it once.
    fn may_repeat(&self, connection: &Connection) -> bool {
        self.only_head && (self.idempotent || connection.io.out.nothing_written())
    }

    /// Writes what can be written. An error says that nothing more comes of the client.
    fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Result<(), Failed> {
        while !self.stopped {
            // What has come is taken though it may have to wait, at most one window: `h2` ends a connection on which too many
            // small pieces lie unread, whosever they are.
            let mut taken = false;
            while self.take(cx, connection)? {
                taken = true;
            }
            match connection.io.poll_write_out(cx) {
                Poll::Ready(Ok(())) => {}
                // The response, or that there is none, says what this means.
                Poll::Ready(Err(_)) => self.stopped = true,
                Poll::Pending => break,
            }
            if self.unwritten > 0 {
                self.body.release(std::mem::take(&mut self.unwritten));
            }
            if !taken {
                break;
            }
            if !self.only_head {
                connection.io.out.clear();
            }
        }
        Ok(())
    }

    /// Takes the next part of the body, or its end; true if there was one.
    fn take(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Result<bool, Failed> {
        if self.whole {
            return Ok(false);
        }
        let data = match self.body.poll_data(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Some(Ok(data))) => Some(data),
            Poll::Ready(Some(Err(_))) => return Err(Failed::Client),
            Poll::Ready(None) => None,
        };
        let Some(data) = data else {
            let trailers = match self.body.poll_trailers(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(trailers) => trailers.map_err(|_| Failed::Client)?,
            };
            if let Some(trailers) = &trailers {
                check_fields(trailers).map_err(|_| Failed::Request)?;
                if !trailers_fit(trailers, Message::Request) {
                    return Err(Failed::TooLarge);
                }
            }
            self.whole = true;
            self.only_head = false;
            if self.chunked {
                write_last_chunk(connection.io.out.bytes(), trailers.as_ref(), Message::Request);
            }
            return Ok(true);
        };
        if !data.is_empty() {
            self.only_head = false;
            self.unwritten += data.len();
            self.content += data.len();
            let out = connection.io.out.bytes();
            if self.chunked { write_chunk(out, &data) } else { out.extend_from_slice(&data) }
        }
        Ok(true)
    }
}

impl Sending {
    /// Moves the body. Ready at its end, with the trailers' gRPC status if they carry one.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut Connection,
        told: Told<'_>,
    ) -> Poll<Result<Option<u16>, Failed>> {
        let io = &mut connection.io;
        loop {
            while self.data > 0 {
                let n = ready!(room(cx, &mut self.to, self.data)).map_err(|_| Failed::Client)?.min(self.data);
                let data = Bytes::copy_from_slice(io.read.filled().get(..n).unwrap_or_default());
                io.read.consume(n);
                self.data -= n;
                self.content += n;
                let end = self.data == 0 && self.decoder.is_end();
                self.to.send_data(data, end).map_err(|_| Failed::Client)?;
                if end {
                    self.done = true;
                    return Poll::Ready(Ok(None));
                }
            }
            match self.decoder.next(io.read.filled()).map_err(|error| broke_off(error.0))? {
                Step::Data(n) => self.data = n,
                Step::Framing(n) => io.read.consume(n),
                Step::Trailers(n) => {
                    let section = io.read.filled().get(..n).unwrap_or_default();
                    let (fields, status) = (trailers_of(section, Message::Response), trailers::grpc_status(section));
                    io.read.consume(n);
                    told(&fields);
                    self.end(fields)?;
                    return Poll::Ready(Ok(status));
                }
                Step::End => {
                    self.end(http::HeaderMap::new())?;
                    return Poll::Ready(Ok(None));
                }
                Step::More => {
                    if self.decoder.expected() > READ_AHEAD as u64 / 8 {
                        io.read.enlarge();
                    }
                    match ready!(io.poll_fill(cx, READ_AHEAD)) {
                        Ok(0) => self.decoder.closed().map_err(|error| broke_off(error.0))?,
                        Ok(_) => {}
                        Err(error) => return Poll::Ready(Err(broke_off(&error.to_string()))),
                    }
                }
            }
        }
    }

    fn end(&mut self, fields: http::HeaderMap) -> Result<(), Failed> {
        self.done = true;
        if !trailers_fit(&fields, Message::Response) {
            return Err(Failed::Endpoint(too_large("trailers")));
        }
        let sent =
            if fields.is_empty() { self.to.send_data(Bytes::new(), true) } else { self.to.send_trailers(fields) };
        sent.map_err(|_| Failed::Client)
    }
}

fn malformed() -> Failed {
    Failed::Endpoint(protocol("endpoint's response is malformed"))
}

fn broke_off(what: &str) -> Failed {
    Failed::Endpoint(protocol(&format!("endpoint's response broke off: {what}")))
}
