//! Serves an accepted HTTP/2 connection: one local task per stream, from the head to the end of the exchange.

use super::{
    Carrier, Course, Directed, Director, Edits, Endpoint, Observe, attempt,
    course::MAX_AGAIN,
    http2_body::Pump,
    http2_head::{HeadView, check_request, check_size, edit_request, is_grpc},
    http2_reply::{Audience, reply, unless_reset},
    http2_to_http1::Downgrade,
    http2_to_http2::{Forward, NoResponse, Repeat},
};
use crate::{
    error::{Code, ProxyError},
    http2::{
        Sender, ServerSettings,
        client::OpenStream,
        server::{self, Driver, Ended},
    },
    protocol::Version,
    turn,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture, server::SendResponse};
use http::{Request, request};
use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use weft_model::decide::{field::Message, retry::Outcome};

/// Serves `io`, from the client's preface on, until it closes; after `drain` is ready, until the open streams have ended.
/// Must be called within a `LocalSet`.
pub(crate) async fn serve_http2<S, D>(
    io: S,
    settings: &ServerSettings,
    director: Rc<D>,
    drain: impl Future<Output = ()>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Director + 'static,
{
    let served = server::serve(io, settings, drain, |request, respond, driver| {
        tokio::task::spawn_local(stream(request, respond, director.clone(), driver.clone()));
    });
    match served.await {
        Ok(()) => {}
        Err(Ended::Violation(what)) => director.malformed(&ProxyError::new(Code::Http2Violation, what), Version::Http2),
        Err(Ended::Broken(error)) => tracing::debug!(%error, "http/2 connection of a client ended"),
    }
}

/// The task of one stream. It owns what [`serve_stream`] borrows: an `async fn` would hold its arguments twice.
fn stream<D: Director>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    director: Rc<D>,
    driver: Rc<Driver>,
) -> impl Future<Output = ()> {
    let (mut head, body) = request.into_parts();
    async move {
        let mut serving = pin!(serve_stream(&mut head, body, &mut respond, &*director, &driver));
        poll_fn(|cx| turn::poll(serving.as_mut(), cx)).await;
    }
}

async fn serve_stream<D: Director>(
    head: &mut request::Parts,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    director: &D,
    driver: &Driver,
) {
    // Who takes a request back at once costs no endpoint anything, and pays for it at its own connection's frame gate.
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return;
    }
    let _begun = driver.begin();
    if let Err(what) = check_request(head) {
        director.malformed(&ProxyError::new(Code::BadRequest, what), Version::Http2);
        driver.reset(respond, Reason::PROTOCOL_ERROR);
        return;
    }
    let audience = Audience { grpc: is_grpc(&head.headers), informational: director.informational_headers() };
    let mut whole = body.is_end_stream();
    let mut body = Pump::new(body, Message::Request);
    if whole {
        body.stop();
    }
    let course = Course::default();
    let harmless = whole && head.method.is_idempotent();
    let mut again = MAX_AGAIN;
    loop {
        course.attempt();
        let directed = {
            let view = HeadView(head);
            let directing = pin!(director.direct(&view, Version::Http2, &course));
            unless_reset(respond, course.in_time(directing)).await
        };
        let Some(directed) = directed else { return };
        let Directed { endpoint, carrier, edits, mut record } = match directed.flatten() {
            Ok(directed) => directed,
            Err(error) if course.again_failed(&error, true) => {
                if unless_reset(respond, course.pause()).await.is_none() {
                    return;
                }
                continue;
            }
            Err(error) => {
                course.give_up(&error);
                director.refused(&error);
                reply(respond, &error, audience);
                if error.code.closes() {
                    driver.close();
                }
                return;
            }
        };
        if let Some(limit) = course.keeps() {
            body.body().keep(limit);
        }
        if let Some(copies) = course.copies() {
            body.body().copy(copies);
        }
        let (endpoint, edits, recorded, course) = (&endpoint, &edits, &mut record, &course);
        let carried = match carrier {
            Carrier::Http1 => {
                let (respond, sent, again) = (&mut *respond, turn::now(), &mut again);
                let mut downgrade =
                    Downgrade { respond, driver, endpoint, edits, record: recorded, course, audience, sent, again };
                downgrade.run(head, body.body()).await
            }
            Carrier::Http2 => {
                let connected = {
                    let connecting = pin!(endpoint.http2());
                    unless_reset(respond, course.in_time(connecting)).await
                };
                let Some(connected) = connected else { return };
                let (sent, keep) = (turn::now(), again > 0 || course.keeps().is_some());
                match connected
                    .flatten()
                    .map_err(NoResponse::from)
                    .and_then(|sender| send(sender, head, edits, whole, keep))
                {
                    Err(failed) => Err(failed),
                    Ok((response, upstream, open)) => {
                        course.started();
                        let (respond, request) = (&mut *respond, &mut body);
                        let record = recorded;
                        let mut forward = Forward {
                            respond,
                            driver,
                            request,
                            upstream,
                            open,
                            endpoint,
                            edits,
                            record,
                            course,
                            audience,
                            sent,
                        };
                        forward.run(response).await
                    }
                }
            }
        };
        match carried {
            Ok(()) => {
                if let Some(error) = course.cut() {
                    director.refused(error);
                }
                return;
            }
            Err(NoResponse::Failed { repeat, .. }) if again > 0 && repeat.is_allowed(body.is_untouched(), harmless) => {
                again = if repeat == Repeat::IfHarmless { 0 } else { again - 1 };
                attempt::unanswered(&mut record, course);
                whole = body.resume();
                continue;
            }
            Err(NoResponse::Again) => {}
            Err(NoResponse::Failed { error, reset: Some(Reason::REFUSED_STREAM), .. })
                if course.again(Outcome::Refused, body.body().is_whole()) =>
            {
                attempt::failed_once(&mut record, &error);
            }
            Err(NoResponse::Failed { error, reset, .. }) => {
                fail(&error, reset, (respond, audience, driver), director, &mut record);
                return;
            }
        }
        drop(record);
        body.rewind();
        whole = body.done();
        if unless_reset(respond, course.pause()).await.is_none() {
            return;
        }
    }
}

/// The request has failed for good: its client is told so, or has its stream reset.
fn fail<D: Director>(
    error: &ProxyError,
    reset: Option<Reason>,
    (respond, audience, driver): (&mut SendResponse<Bytes>, Audience, &Driver),
    director: &D,
    record: &mut D::Record,
) {
    let reset = match reset {
        None => {
            director.refused(error);
            let elsewhere = director.departure().is_some() && error.code.is_unreached() && !is_first(respond);
            elsewhere.then_some(Reason::REFUSED_STREAM)
        }
        reset => reset,
    };
    if let Some(reason) = reset {
        driver.reset(respond, reason);
        record.end(None, Some(error));
        return;
    }
    attempt::replied(record, reply(respond, error, audience), error);
    if error.code.closes() {
        driver.close();
    }
}

/// Who has just connected is told that nobody is there. Whose connection was good before is told that nobody has seen the request,
/// for it to be sent again over another one and perhaps to another server.
fn is_first(respond: &SendResponse<Bytes>) -> bool {
    u32::from(respond.stream_id()) == 1
}

/// Opens a stream with the edited head, or with a copy of it if it may be needed again.
fn send(
    mut sender: Sender,
    head: &mut request::Parts,
    edits: &Edits,
    end: bool,
    again: bool,
) -> Result<(ResponseFuture, SendStream<Bytes>, OpenStream), NoResponse> {
    let mut edited = if again { head.clone() } else { std::mem::replace(head, Request::new(()).into_parts().0) };
    edit_request(&mut edited, edits);
    let request = Request::from_parts(edited, ());
    check_size(&request)?;
    sender.send(request, end).map_err(|error| NoResponse::Failed {
        error: ProxyError::new(Code::ConnectFailed, format!("endpoint takes no request: {error}")),
        reset: None,
        repeat: Repeat::Unseen,
    })
}

/// What each open stream costs, for a test.
#[cfg(test)]
pub(super) fn size_of_stream<D: Director>(_: &Rc<D>) -> usize {
    fn of<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    of(stream::<D>)
}
