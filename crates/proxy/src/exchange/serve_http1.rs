//! Serves one accepted HTTP/1 connection: request after request, until it closes.
//!
//! ```text
//! idle ─► head ─► direct ─► exchange (http1_to_http1 | http1_to_http2) ─► idle | close
//!           └────────┴─────────┴─► the proxy's own reply ───────────────────┘
//! ```

use super::{
    Carrier, Course, Departure, Directed, Director, ServerConnection, attempt,
    course::MAX_AGAIN,
    departure::Waiter,
    http1_outcome::{After, Failed, NoResponse, Repeatable, Request},
    http1_to_http1::Exchange,
    http1_to_http2::Upgrade,
};
use crate::{
    error::{Code, ProxyError},
    http1::{
        HeadError, body,
        buffer::ReadBuffer,
        framing::Body,
        io::Io,
        limits::{MAX_FIELDS, MAX_FRAMING, MAX_HEAD},
        request::RequestHead,
        response::{self, ResponseHead},
    },
    protocol::Version,
};
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::Sleep,
};
use weft_model::decide::retry::Outcome;
use weft_transport::{drain, stream::Stream};

/// How long a connection that closes waits for a client that is still sending: closing at once would reset it, and the reply
/// could be lost.
const LINGER: Duration = Duration::from_secs(1);
/// How much of what it is still sending is read meanwhile.
const LINGER_BYTES: usize = 1024 * 1024;
/// How long a connection on which no request has come yet waits for the first one while the process drains: who has just
/// connected is about to send it, and would lose it.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// Serves `connection` until either side closes it, or the drain lets it end between two requests.
///
/// An `async fn` would hold the connection twice: as it was given, and as it is used.
pub(crate) fn serve_http1<D: Director>(
    connection: ServerConnection,
    director: &D,
    drain: drain::Watch,
) -> impl Future<Output = ()> {
    let mut client = Io::new(connection.stream, &connection.prefix);
    async move {
        let after = {
            let mut serving = pin!(serve(&mut client, director, &drain));
            let mut shut_out = pin!(director.shut_out());
            poll_fn(|cx| match serving.as_mut().poll(cx) {
                Poll::Ready(after) => Poll::Ready(after),
                // A response that has begun must not look complete.
                Poll::Pending => shut_out.as_mut().poll(cx).map(|()| After::Reset),
            })
            .await
        };
        Box::pin(close(client, after)).await;
    }
}

async fn serve<D: Director>(client: &mut Io, director: &D, drain: &drain::Watch) -> After {
    let mut head = RequestHead::default();
    let mut response = ResponseHead::default();
    let mut draining = pin!(drain.signaled());
    let mut waiting = Waiting::default();
    loop {
        let read = poll_fn(|cx| match poll_head(cx, client, &mut head) {
            Poll::Pending if !client.read.is_empty() => poll_begun(cx, client, director, &mut waiting).map(Err),
            Poll::Pending => waiting.poll(cx, drain, draining.as_mut(), director.departure()).map(|()| Ok(false)),
            read => read,
        });
        let read = read.await;
        let after = match read {
            // Boxed: connections are idle most of the time, and the allocation is small beside the system calls.
            Ok(true) => {
                let kept = std::mem::replace(&mut waiting.used, true);
                waiting.head = None;
                Box::pin(request(client, &head, kept, &mut response, director, drain)).await
            }
            Ok(false) => return After::Close,
            Err(error) => {
                director.malformed(&error, Version::Http11);
                Box::pin(write_reply(client, &error, Version::Http11, true, director)).await;
                After::Close
            }
        };
        client.out.release();
        client.read.forget();
        if after != After::Keep {
            return after;
        }
    }
}

/// How a connection that waits for a request takes part in the drain, and learns that there is nobody left to ask.
#[derive(Default)]
struct Waiting {
    /// The task's waker, once the drain knows it.
    known: Option<Waker>,
    /// A request has come on this connection.
    used: bool,
    /// How long the first one is waited for, once the drain has begun.
    first: Option<Pin<Box<Sleep>>>,
    /// How long the rest of a head may take of which some has come. Most heads come whole, and it is never needed.
    head: Option<Pin<Box<Sleep>>>,
    /// Among those who are told when there is nobody left to ask.
    waiter: Option<Waiter>,
}

impl Waiting {
    /// Ready when the drain ends the connection, or nobody is there whom another request could reach.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        drain: &drain::Watch,
        draining: Pin<&mut impl Future<Output = ()>>,
        departure: Option<&Rc<Departure>>,
    ) -> Poll<()> {
        // What had begun was a line of its own.
        self.head = None;
        // Where only this connection shall end, or its process leaves it, it waits for one more request and says so in the answer.
        if !drain.is_draining() {
            self.register(cx, draining, departure);
        }
        if !drain.is_draining() {
            // Who has just connected has been told nothing yet, and would lose its first request.
            let ends = self.used && departure.is_some_and(|departure| departure.is_found());
            return if ends { Poll::Ready(()) } else { Poll::Pending };
        }
        if self.used {
            return Poll::Ready(());
        }
        self.first.get_or_insert_with(|| Box::pin(tokio::time::sleep(FIRST_REQUEST))).as_mut().poll(cx)
    }

    /// Registers with the drain, unless it knows this task already: once per connection instead of once per request.
    fn register(
        &mut self,
        cx: &mut Context<'_>,
        draining: Pin<&mut impl Future<Output = ()>>,
        departure: Option<&Rc<Departure>>,
    ) {
        if self.known.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) && draining.poll(cx).is_pending() {
            self.known = Some(cx.waker().clone());
            if let Some(departure) = departure {
                departure.enlist(&mut self.waiter, cx.waker());
            }
        }
    }
}

/// Reads a request's head; false if the connection has ended instead.
fn poll_head(cx: &mut Context<'_>, client: &mut Io, head: &mut RequestHead) -> Poll<Result<bool, ProxyError>> {
    loop {
        // Some clients end a body with a line of its own.
        while client.read.filled().starts_with(b"\r\n") {
            client.read.consume(2);
        }
        if client.may_hold_head() {
            match head.parse(client.read.filled()) {
                Ok(true) => return Poll::Ready(Ok(true)),
                Ok(false) => {}
                Err(HeadError::TooLarge) => return Poll::Ready(Err(too_large())),
                Err(HeadError::Malformed(what)) => return Poll::Ready(Err(ProxyError::new(Code::BadRequest, what))),
            }
        }
        match client.poll_fill(cx, MAX_HEAD) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                return Poll::Ready(Err(too_large()));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(false)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// While a head is not whole its connection holds little more than has come; ready when that has taken too long.
#[cold]
fn poll_begun<D: Director>(
    cx: &mut Context<'_>,
    client: &mut Io,
    director: &D,
    waiting: &mut Waiting,
) -> Poll<ProxyError> {
    client.read.shrink();
    let sleep = match &mut waiting.head {
        Some(sleep) => sleep,
        None => match director.head_timeout() {
            Duration::ZERO => return Poll::Pending,
            timeout => waiting.head.insert(Box::pin(tokio::time::sleep(timeout))),
        },
    };
    let late = || ProxyError::new(Code::HeadTimeout, "the head of the request did not come in time");
    sleep.as_mut().poll(cx).map(|()| late())
}

fn too_large() -> ProxyError {
    ProxyError::new(
        Code::HeadTooLarge,
        format!("the head of the request exceeds {MAX_HEAD} bytes or {MAX_FIELDS} lines"),
    )
}

/// One request whose head has come; on a connection that was `kept`, there were others before.
async fn request<D: Director>(
    client: &mut Io,
    head: &RequestHead,
    kept: bool,
    response: &mut ResponseHead,
    director: &D,
    drain: &drain::Watch,
) -> After {
    let course = Course::default();
    let mut again = MAX_AGAIN;
    let (error, keep) = loop {
        course.attempt();
        let Some(directed) = direct(client, head, director, &course).await else { return After::Close };
        let Directed { endpoint, carrier, edits, mut record } = match directed {
            Ok(directed) => directed,
            Err(error) if course.again_failed(&error, true) => {
                if pause(client, &course).await.is_err() {
                    return After::Close;
                }
                continue;
            }
            Err(error) => {
                // A client whose CONNECT succeeds leaves HTTP.
                let leaves = head.is_connect() && (200..300).contains(&error.status());
                let keep = !error.code.closes() && !leaves && skip_body(client, head);
                course.give_up(&error);
                break (error, keep);
            }
        };
        if let Some(limit) = course.keeps() {
            keep_request(client, head, limit);
        }
        let (endpoint, edits, recorded, course) = (&endpoint, &edits, &mut record, &course);
        let mut exchanged = Err(NoResponse::Unfit);
        if carrier == Carrier::Http2 && !head.is_upgrade() {
            exchanged = Upgrade { client, head, endpoint, edits, record: recorded, course, drain }.run().await;
        }
        if let Err(NoResponse::Unfit) = exchanged {
            let exchange = Exchange { client, head, response, endpoint, edits, record: recorded, course, drain };
            exchanged = exchange.run().await;
        }
        let (error, keep) = match exchanged {
            Ok(after) => {
                if let Some(error) = course.cut() {
                    director.refused(error);
                }
                return after;
            }
            // HTTP/1 has room for every target.
            Err(NoResponse::Failed(Failed::ClientGone) | NoResponse::Unfit) => return After::Close,
            Err(NoResponse::Repeatable { why, .. }) if again > 0 => {
                again = if why == Repeatable::Unanswered { 0 } else { again - 1 };
                attempt::unanswered(&mut record, course);
                continue;
            }
            Err(NoResponse::Repeatable { error, why: Repeatable::Refused })
                if course.again(Outcome::Refused, client.read.is_kept()) =>
            {
                attempt::failed_once(&mut record, &error);
                (None, false)
            }
            Err(NoResponse::Again) => (None, false),
            Err(NoResponse::Late { error, request }) => {
                attempt::failed(&mut record, &error);
                let keep = match request {
                    Request::Unread => skip_body(client, head),
                    Request::Read => true,
                    Request::Amid => false,
                };
                (Some(error), keep)
            }
            Err(NoResponse::Failed(Failed::Reply(error)) | NoResponse::Repeatable { error, .. }) => {
                if kept && director.departure().is_some() && may_ask_elsewhere(client, head, &error) {
                    attempt::untold(&mut record, &error);
                    director.refused(&error);
                    return After::Close;
                }
                attempt::failed(&mut record, &error);
                (Some(error), false)
            }
        };
        if let Some(error) = error {
            break (error, keep);
        }
        drop(record);
        client.rewind();
        if pause(client, course).await.is_err() {
            return After::Close;
        }
    };
    let keep = keep && !error.code.closes() && head.keeps_alive() && !drain.is_signaled();
    director.refused(&error);
    write_reply(client, &error, head.version, !keep, director).await;
    if keep { After::Keep } else { After::Close }
}

/// Whether a client is better left without an answer: that the server closes a kept connection between two requests is what clients
/// expect, and they send again, over another one and perhaps to another server, what does no harm (RFC 9112 9.3.1). An answer would
/// be final.
fn may_ask_elsewhere(client: &Io, head: &RequestHead, error: &ProxyError) -> bool {
    error.code.is_unreached() && head.is_idempotent(client.read.filled())
}

/// Keeps what is consumed of a request, for another attempt, if its body may be so long.
fn keep_request(client: &mut Io, head: &RequestHead, limit: usize) {
    let most = match head.body {
        Body::Length(n) if n > limit as u64 => return,
        Body::Empty | Body::Length(_) => head.len + limit,
        Body::Chunked | Body::UntilClose => head.len + limit + MAX_FRAMING,
    };
    client.read.keep(most);
}

/// Waits for the next attempt, unless the client goes away before.
async fn pause(client: &mut Io, course: &Course) -> Result<(), ()> {
    let mut pause = pin!(course.pause());
    let held = client.read.len();
    poll_fn(|cx| {
        if pause.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        client.poll_gone(cx, held).map(Err)
    })
    .await
}

/// What the direction decides; `None` if the client goes away before.
async fn direct<D: Director>(
    client: &mut Io,
    head: &RequestHead,
    director: &D,
    course: &Course,
) -> Option<Result<Directed<D::Endpoint, D::Record>, ProxyError>> {
    let Io { stream, read, ended, .. } = client;
    let mut ahead = Ahead { stream, buffer: ReadBuffer::default(), ended };
    let directed = {
        let view = head.view(read.filled());
        let mut directing = pin!(director.direct(&view, head.version, course));
        poll_fn(|cx| match directing.as_mut().poll(cx) {
            Poll::Ready(directed) => Poll::Ready(Some(directed)),
            Poll::Pending => match course.too_late(cx, 0, false) {
                Poll::Ready(error) => Poll::Ready(Some(Err(error))),
                Poll::Pending => ahead.poll_gone(cx).map(|()| None),
            },
        })
        .await
    };
    read.extend(ahead.buffer.filled());
    directed
}

/// Reads ahead of a head that is still being looked at, only to notice that the client goes away.
struct Ahead<'a> {
    stream: &'a mut Stream,
    buffer: ReadBuffer,
    ended: &'a mut bool,
}

impl Ahead<'_> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.buffer.is_empty() && !*self.ended {
            let Some(room) = self.buffer.room(MAX_HEAD) else { return Poll::Pending };
            let mut buf = ReadBuf::new(room);
            match Pin::new(&mut *self.stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let n = buf.filled().len();
                    self.buffer.advance(n);
                }
                Poll::Ready(_) => *self.ended = true,
                Poll::Pending => {
                    self.buffer.release();
                    return Poll::Pending;
                }
            }
        }
        if *self.ended && self.buffer.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Takes the head and its body off the buffer if both are there in whole: then the connection can go on.
fn skip_body(client: &mut Io, head: &RequestHead) -> bool {
    let behind = client.read.filled().get(head.len..).unwrap_or_default();
    let Some(body) = body::whole(head.body, behind) else { return false };
    client.take_head(head.len + body);
    true
}

async fn write_reply<D: Director>(client: &mut Io, error: &ProxyError, version: Version, close: bool, director: &D) {
    let informational = director.informational_headers();
    // An interim response may be half written.
    if client.out.pending().is_empty() {
        client.out.clear();
    }
    response::write_failure(client.out.bytes(), error, version, close, informational);
    // A client that is gone needs no reply.
    let _ = poll_fn(|cx| client.poll_write_out(cx)).await;
}

async fn close(mut client: Io, after: After) {
    if after == After::Reset {
        client.stream.reset_on_close();
        return;
    }
    if client.stream.shutdown().await.is_err() || client.ended {
        return;
    }
    let mut left = LINGER_BYTES;
    let drained = poll_fn(|cx| {
        loop {
            let unread = client.read.len();
            client.read.consume(unread);
            match client.poll_fill(cx, MAX_HEAD) {
                Poll::Ready(Ok(n)) if n > 0 && n < left => left -= n,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    let _ = tokio::time::timeout(LINGER, drained).await;
}
