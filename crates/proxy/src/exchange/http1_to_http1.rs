//! An HTTP/1 request carried on an HTTP/1 connection.
//!
//! ```text
//! head ─► connection ─► [head + body] ─► interim heads ─► head ─► bodies, both ways ─► keep both connections
//!                            └─► asked again elsewhere, if the connection closes without a word and asking twice does no harm
//! ```
//! The common request is one write and one read on the endpoint's connection, and one read and one write on the client's.

use super::{
    Course, Edits, Endpoint, Observe, attempt,
    http1_outcome::{
        After, Failed, NoResponse, Repeatable, Request, closed, connected, malformed, malformed_body, protocol,
    },
    http1_pump::{Broken, Pump},
    untold,
};
use crate::{
    error::{NOT_HTTP, ProxyError},
    http1::{
        Connection, HeadError, body,
        framing::{Asked, Body},
        io::{Io, Run},
        limits::{MAX_HEAD, MAX_INTERIM},
        request::RequestHead,
        response::{Reframe, ResponseHead, Rewrite, View, is_other},
    },
    protocol::Version,
    turn,
};
use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Instant,
};
use weft_model::decide::{field::Message, retry::Outcome};
use weft_transport::{copy, drain};

/// A request body up to this size is sent in one piece with the head, and again on another connection if need be.
const JOINED_BODY: u64 = 4096;

/// The request and what was decided for it.
pub(super) struct Exchange<'a, E, R> {
    pub(super) client: &'a mut Io,
    pub(super) head: &'a RequestHead,
    /// Scratch, reused from request to request.
    pub(super) response: &'a mut ResponseHead,
    pub(super) endpoint: &'a E,
    pub(super) edits: &'a Edits,
    pub(super) record: &'a mut R,
    pub(super) course: &'a Course,
    pub(super) drain: &'a drain::Watch,
}

impl<E: Endpoint, R: Observe> Exchange<'_, E, R> {
    pub(super) async fn run(mut self) -> Result<After, NoResponse> {
        let asked = self.head.asked(self.client.read.filled());
        let idempotent = self.head.is_idempotent(self.client.read.filled());
        let mut upstream = connected(self.client, self.course, self.endpoint.http1()).await?;
        self.course.started();
        // Another attempt may have had an answer.
        self.response.status = 0;
        let mut request = self.write_request(&mut upstream);
        let joined = request.held.saturating_sub(self.head.len);
        if joined > 0 {
            self.record.request_body(joined);
        }
        let start = turn::now();
        let mut interim = 0;
        loop {
            match poll_fn(|cx| self.poll_head(cx, &mut upstream, &mut request, asked)).await {
                Ok(()) if !self.response.is_interim() => break,
                Ok(()) if interim == MAX_INTERIM => return Err(reply(protocol("too many interim responses"))),
                Ok(()) => {
                    interim += 1;
                    match self.pass_interim(&mut upstream, &request).await {
                        Ok(()) => {}
                        Err(Ended::ClientGone) => return Err(NoResponse::Failed(Failed::ClientGone)),
                        Err(Ended::Cut(error)) => return Ok(self.unread(&error)),
                    }
                }
                Err(NoHead::Silent(error)) if request.may_repeat(&upstream, idempotent) => {
                    return Err(NoResponse::Repeatable { error, why: age(&upstream) });
                }
                Err(NoHead::Silent(error) | NoHead::Broken(error)) => return Err(reply(error)),
                Err(NoHead::Client(failed)) => return Err(NoResponse::Failed(failed)),
                Err(NoHead::Late(error)) => return Err(self.late(error, &request)),
            }
        }
        self.course.answered();
        let grpc = self.response.grpc_status(upstream.io.read.filled());
        let outcome = Outcome::Response { status: self.response.status, grpc };
        if self.course.again(outcome, self.is_whole(&request)) {
            self.discard(upstream, &request, grpc, start);
            return Err(NoResponse::Again);
        }
        self.client.take_head(std::mem::take(&mut request.held));
        let status = self.response.status;
        if status == 101 && (asked.connect || !self.head.is_upgrade()) {
            return Err(reply(protocol("the server switched protocols unasked")));
        }
        // What is left of the body would be bytes of the other protocol.
        if status == 101 && !request.pump.is_done() {
            return Err(reply(protocol("the server switched protocols amid the request")));
        }
        if status == 101 || (asked.connect && (200..300).contains(&status)) {
            return Ok(Box::pin(self.tunnel(upstream)).await);
        }
        let (mut response, close) = self.write_response(&mut upstream, &request);
        upstream.io.take_head(self.response.len);
        let mut reported = false;
        let ended = poll_fn(|cx| {
            let polled = self.poll_bodies(cx, &mut upstream.io, &mut request, &mut response);
            if !reported && (response.moved() || polled.is_ready()) {
                reported = true;
                self.record.first_byte();
                self.endpoint.responded(turn::since(start));
            }
            polled
        })
        .await;
        match ended {
            Ok(()) => {}
            // Who has ended only his own side still reads, and must not take a body that ends with the connection for whole.
            Err(Ended::ClientGone) => return Ok(After::Reset),
            Err(Ended::Cut(error)) => {
                attempt::cut(self.record, self.course, None, &error);
                return Ok(After::Reset);
            }
        }
        self.record.end(response.grpc_status.or(grpc), None);
        self.keep(upstream, &request);
        Ok(if close || !request.pump.is_read() { After::Close } else { After::Keep })
    }

    /// Gives the endpoint's connection back, if it is good for another exchange.
    fn keep(&self, upstream: Connection, request: &Sending) {
        let complete = request.pump.is_done() && request.broken.is_none();
        if complete
            && self.head.version == Version::Http11
            && self.response.keeps_alive()
            && let Some(upstream) = upstream.rests()
        {
            self.endpoint.keep_http1(upstream);
        }
    }

    /// Whether the request was read to its end and is kept whole.
    fn is_whole(&self, request: &Sending) -> bool {
        request.pump.is_read() && self.client.read.is_kept() && self.course.fits(request.pump.content())
    }

    /// No response is passed on, since it did not come in time.
    fn late(&mut self, error: ProxyError, request: &Sending) -> NoResponse {
        if self.course.again_failed(&error, self.is_whole(request)) {
            attempt::failed_once(self.record, &error);
            return NoResponse::Again;
        }
        let request = match request {
            Sending { held: 1.., .. } => Request::Unread,
            Sending { pump, .. } if pump.is_read() => Request::Read,
            Sending { .. } => Request::Amid,
        };
        NoResponse::Late { error, request }
    }

    /// Drops a response whose head has come, for another attempt is made. The connection is good for it only if the body has
    /// come as well.
    fn discard(&mut self, mut upstream: Connection, request: &Sending, grpc: Option<u16>, start: Instant) {
        self.record.response_fields(&View { head: self.response, buf: upstream.io.read.filled() });
        self.record.response_head(self.response.status);
        self.endpoint.responded(turn::since(start));
        attempt::passed_over(self.record, grpc);
        upstream.io.take_head(self.response.len);
        if let Some(n) = body::whole(self.response.body, upstream.io.read.filled()) {
            upstream.io.read.consume(n);
            self.keep(upstream, request);
        }
    }

    /// Lays out the head, with a small body. What is laid out in whole stays in the client's buffer until an answer comes.
    fn write_request(&mut self, upstream: &mut Connection) -> Sending {
        let out = upstream.io.out.bytes();
        let unread = self.client.read.filled();
        self.head.write(unread, self.edits, out);
        let joined = match self.head.body {
            Body::Empty => Some(&[][..]),
            Body::Length(n) if n <= JOINED_BODY => {
                usize::try_from(n).ok().and_then(|n| unread.get(self.head.len..self.head.len + n))
            }
            _ => None,
        };
        let copies = self.course.copies().cloned();
        if let Some(copies) = &copies {
            copies.again();
        }
        let (body, held) = match joined {
            Some(joined) => {
                out.extend_from_slice(joined);
                if let Some(copies) = &copies {
                    copies.data(joined);
                    copies.whole();
                }
                (Body::Empty, self.head.len + joined.len())
            }
            None => {
                self.client.take_head(self.head.len);
                (self.head.body, 0)
            }
        };
        let pump = Pump::new(body, Message::Request, Reframe::Keep).copied_to(copies);
        Sending { pump, broken: None, held }
    }

    /// Sends the request and reads until a head has come.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Connection,
        request: &mut Sending,
        asked: Asked,
    ) -> Poll<Result<(), NoHead>> {
        if let Poll::Ready(Err(error)) = self.poll_request(cx, &mut upstream.io, request) {
            return Poll::Ready(Err(NoHead::Client(error)));
        }
        let io = &mut upstream.io;
        loop {
            if io.may_hold_head() {
                match self.response.parse(io.read.filled(), asked) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) => {}
                    Err(_) if is_other(io.read.filled()) => {
                        self.record.not_http();
                        return Poll::Ready(Err(NoHead::Broken(protocol(NOT_HTTP))));
                    }
                    Err(error) => return Poll::Ready(Err(NoHead::Broken(malformed(error)))),
                }
            }
            match io.poll_fill(cx, MAX_HEAD) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                    return Poll::Ready(Err(NoHead::Broken(malformed(HeadError::TooLarge))));
                }
                Poll::Ready(ended) => {
                    let cause = request.broken.take().or(ended.err());
                    let error = closed(cause.as_ref());
                    let silent = io.read.is_empty() && self.response.status == 0;
                    return Poll::Ready(Err(if silent { NoHead::Silent(error) } else { NoHead::Broken(error) }));
                }
                Poll::Pending => break,
            }
        }
        if request.pump.is_read() && self.client.poll_gone(cx, request.held).is_ready() {
            return Poll::Ready(Err(NoHead::Client(Failed::ClientGone)));
        }
        self.poll_late(cx, &upstream.io, request).map(|error| Err(NoHead::Late(error)))
    }

    fn poll_late(&self, cx: &mut Context<'_>, upstream: &Io, request: &Sending) -> Poll<ProxyError> {
        let moved = self.client.moved().wrapping_add(upstream.moved());
        self.course.too_late(cx, moved, request.pump.is_done())
    }

    /// Moves the request's body.
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Io,
        request: &mut Sending,
    ) -> Poll<Result<(), Failed>> {
        let polled = request.poll(cx, self.client, upstream);
        let content = request.pump.take_content();
        if content > 0 {
            self.record.request_body(content);
        }
        polled
    }

    /// Passes an interim response on (1xx); an HTTP/1.0 client knows none. That takes of the request's time like all else.
    async fn pass_interim(&mut self, upstream: &mut Connection, request: &Sending) -> Result<(), Ended> {
        if self.head.version == Version::Http11 {
            let rewrite = self.rewrite(Reframe::Bare, false);
            self.response.write(upstream.io.read.filled(), rewrite, self.client.out.bytes());
        }
        upstream.io.take_head(self.response.len);
        poll_fn(|cx| match self.client.poll_write_out(cx) {
            Poll::Ready(written) => Poll::Ready(written.map_err(|_| Ended::ClientGone)),
            Poll::Pending => self.poll_late(cx, &upstream.io, request).map(|error| Err(Ended::Cut(error))),
        })
        .await?;
        self.client.out.clear();
        Ok(())
    }

    /// The client reads nothing, an answer of the proxy's own as little as any other: all that it can be told is the cut.
    fn unread(&mut self, error: &ProxyError) -> After {
        self.course.cut_off(error);
        attempt::failed(self.record, error);
        After::Reset
    }

    /// For an interim response; a final one has the policy's changes as well.
    fn rewrite(&self, framing: Reframe, close: bool) -> Rewrite<'static> {
        Rewrite {
            version: self.head.version,
            framing,
            close,
            keep_alive: self.head.version == Version::Http10,
            upgrade: false,
            strip_mesh: self.edits.strip_mesh_response,
            changes: None,
        }
    }

    /// Lays out the response's head; whether the client's connection closes behind the response.
    fn write_response(&mut self, upstream: &mut Connection, request: &Sending) -> (Pump, bool) {
        self.record.response_fields(&View { head: self.response, buf: upstream.io.read.filled() });
        self.record.response_head(self.response.status);
        let body = self.response.body;
        let (framing, ends_with_connection) = match (body, self.head.version) {
            (Body::UntilClose, Version::Http10) => (Reframe::Keep, true),
            (Body::UntilClose, _) => (Reframe::AddChunks, false),
            (Body::Chunked, Version::Http10) => (Reframe::RemoveChunks, true),
            _ if self.response.status == 204 => (Reframe::Bare, false),
            // The head of what would come in chunks, to HEAD or with 304.
            (Body::Empty, Version::Http10) => (Reframe::RemoveChunks, false),
            _ => (Reframe::Keep, false),
        };
        // A client that waits for 100 may now send its body or not: nobody can tell what comes next.
        let unsure = self.head.expects_continue && !request.pump.is_read();
        let told = self.edits.heed_close && self.response.asks_to_close(upstream.io.read.filled())
            || self.edits.pass_close && self.response.says_close();
        let close = ends_with_connection || unsure || told || !self.head.keeps_alive() || self.drain.is_signaled();
        let rewrite = Rewrite { changes: self.edits.response.as_deref(), ..self.rewrite(framing, close) };
        self.response.write(upstream.io.read.filled(), rewrite, self.client.out.bytes());
        (Pump::new(body, Message::Response, framing), close)
    }

    /// Moves both bodies until the response is complete.
    fn poll_bodies(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut Io,
        request: &mut Sending,
        response: &mut Pump,
    ) -> Poll<Result<(), Ended>> {
        let polled = response.poll(cx, upstream, self.client, &mut |fields| self.record.trailers(fields));
        let content = response.take_content();
        if content > 0 {
            self.record.response_body(content);
        }
        match polled {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::To(_))) => return Poll::Ready(Err(Ended::ClientGone)),
            Poll::Ready(Err(Broken::From(error))) => return Poll::Ready(Err(Ended::Cut(closed(Some(&error))))),
            Poll::Ready(Err(Broken::Framing(error))) => return Poll::Ready(Err(Ended::Cut(protocol(error.0)))),
            Poll::Pending => {}
        }
        match self.poll_request(cx, upstream, request) {
            Poll::Ready(Err(Failed::ClientGone)) => return Poll::Ready(Err(Ended::ClientGone)),
            Poll::Ready(Err(Failed::Reply(error))) => return Poll::Ready(Err(Ended::Cut(error))),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        if request.pump.is_read() && self.client.poll_gone(cx, 0).is_ready() {
            return Poll::Ready(Err(Ended::ClientGone));
        }
        self.poll_late(cx, upstream, request).map(|error| Err(Ended::Cut(error)))
    }

    /// Leaves HTTP: passes the head on, then bytes in both directions.
    async fn tunnel(self, upstream: Connection) -> After {
        let mut tunnel = Tunnel { upstream, ended: false };
        let upstream = &mut tunnel.upstream;
        let Self { client, response, record, .. } = self;
        record.response_fields(&View { head: response, buf: upstream.io.read.filled() });
        record.response_head(response.status);
        let rewrite = Rewrite {
            version: Version::Http11,
            framing: Reframe::Bare,
            close: false,
            keep_alive: false,
            upgrade: response.status == 101,
            strip_mesh: self.edits.strip_mesh_response,
            changes: self.edits.response.as_deref(),
        };
        response.write(upstream.io.read.filled(), rewrite, client.out.bytes());
        upstream.io.take_head(response.len);
        let mut down = Run { bytes: upstream.io.read.len(), chunk_end: 0 };
        let mut up = Run { bytes: client.read.len(), chunk_end: 0 };
        let begun = async {
            poll_fn(|cx| client.poll_write(cx, &mut upstream.io.read, &mut down)).await?;
            poll_fn(|cx| upstream.io.poll_write(cx, &mut client.read, &mut up)).await
        };
        if begun.await.is_err() {
            return After::Reset;
        }
        for io in [&mut *client, &mut upstream.io] {
            io.out.release();
            io.read.release();
        }
        record.first_byte();
        let outcome = copy::duplex(&mut client.stream, &mut upstream.io.stream, |_, _| {}).await;
        record.request_body(usize::try_from(outcome.a_to_b).unwrap_or(usize::MAX));
        record.response_body(usize::try_from(outcome.b_to_a).unwrap_or(usize::MAX));
        record.end(None, None);
        tunnel.ended = true;
        if outcome.result.is_ok() { After::Close } else { After::Reset }
    }
}

/// The endpoint's side of a connection that has left HTTP.
struct Tunnel {
    upstream: Connection,
    /// The bytes have come to an end of their own, or were cut by either side.
    ended: bool,
}

/// Dropped before, for its client is no longer let in or the process ends, the endpoint must see that this is no end.
impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.ended {
            self.upstream.io.stream.reset_on_close();
        }
    }
}

/// The request on its way to the endpoint.
#[derive(Debug)]
struct Sending {
    pump: Pump,
    /// The endpoint takes no more; its answer may still come.
    broken: Option<io::Error>,
    /// How much of the client's buffer is the request: all of it, which can be sent again, or nothing.
    held: usize,
}

impl Sending {
    /// Ready when there is nothing more to do, or with what ends the exchange.
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Io, upstream: &mut Io) -> Poll<Result<(), Failed>> {
        if self.pump.is_done() || self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        match self.pump.poll(cx, client, upstream, &mut untold) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::To(error))) => {
                self.broken = Some(error);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(Broken::From(_))) => Poll::Ready(Err(Failed::ClientGone)),
            Poll::Ready(Err(Broken::Framing(_))) if client.ended => Poll::Ready(Err(Failed::ClientGone)),
            Poll::Ready(Err(Broken::Framing(error))) => Poll::Ready(Err(Failed::Reply(malformed_body(error)))),
        }
    }

    /// Whether the request may be sent again: it is held whole, the connection closed without a word, and no server can have
    /// acted on the request, or acting twice is harmless (RFC 9110 9.2.2).
    fn may_repeat(&self, upstream: &Connection, idempotent: bool) -> bool {
        self.held > 0 && (idempotent || upstream.io.out.nothing_written())
    }
}

/// Why no head came.
#[derive(Debug)]
enum NoHead {
    Client(Failed),
    /// It did not come in time.
    Late(ProxyError),
    /// The endpoint closed without a byte.
    Silent(ProxyError),
    Broken(ProxyError),
}

/// Why what was to be passed on did not come to its end.
#[derive(Debug)]
enum Ended {
    ClientGone,
    /// The response broke off, or took too long.
    Cut(ProxyError),
}

fn reply(error: ProxyError) -> NoResponse {
    NoResponse::Failed(Failed::Reply(error))
}

fn age(upstream: &Connection) -> Repeatable {
    if upstream.completed > 0 { Repeatable::Stale } else { Repeatable::Unanswered }
}
