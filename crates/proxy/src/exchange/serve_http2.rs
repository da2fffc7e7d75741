//! Serves an accepted HTTP/2 connection: one local task per stream, from the head to the end of the exchange.

use super::{
    Carrier, Directed, Director, Endpoint, Observe, Version,
    http2_body::Pump,
    http2_head::{HeadView, check_request, edit_request, is_grpc},
    http2_reply::{Audience, reply},
    http2_to_http1::Downgrade,
    http2_to_http2::Forward,
};
use crate::{
    error::{Code, ProxyError},
    http2::{
        ServerSettings,
        server::{self, Driver},
    },
};
use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, request};
use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves `io`, from the client's preface on, until it closes; after `drain` is ready, until the open streams have ended.
/// Must be called within a `LocalSet`.
pub async fn serve_http2<S, D>(io: S, settings: &ServerSettings, director: Rc<D>, drain: impl Future<Output = ()>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Director + 'static,
{
    let served = server::serve(io, settings, drain, |request, respond, driver| {
        tokio::task::spawn_local(stream(request, respond, director.clone(), driver.clone()));
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "http/2 connection of a client ended");
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
    async move { serve_stream(&mut head, body, &mut respond, &*director, &driver).await }
}

async fn serve_stream<D: Director>(
    head: &mut request::Parts,
    body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    director: &D,
    driver: &Driver,
) {
    if let Err(what) = check_request(head) {
        director.refused(&ProxyError::new(Code::BadRequest, what));
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    }
    let audience = Audience { grpc: is_grpc(&head.headers), informational: director.informational_headers() };
    let directed = {
        let view = HeadView(head);
        unless_reset(respond, director.direct(&view, Version::Http2)).await
    };
    let directed = match directed {
        None => return,
        Some(Ok(directed)) => directed,
        Some(Err(error)) => {
            director.refused(&error);
            reply(respond, &error, audience);
            if error.code.closes() {
                driver.close();
            }
            return;
        }
    };
    let Directed { endpoint, carrier, edits, mut record } = directed;
    let (endpoint, edits) = (&endpoint, &edits);
    let exchanged = match carrier {
        Carrier::Http1 => {
            let (respond, record, sent) = (&mut *respond, &mut record, Instant::now());
            let mut downgrade = Downgrade { respond, driver, endpoint, edits, record, audience, sent };
            downgrade.run(head, body).await
        }
        Carrier::Http2 => match unless_reset(respond, endpoint.http2()).await {
            None => return,
            Some(Err(error)) => Err(error),
            Some(Ok(mut sender)) => {
                edit_request(head, edits);
                let end = body.is_end_stream();
                let sent = Instant::now();
                match sender.send(Request::from_parts(taken(head), ()), end) {
                    Err(error) => {
                        Err(ProxyError::new(Code::ConnectFailed, format!("endpoint takes no request: {error}")))
                    }
                    Ok((response, upstream, open)) => {
                        drop(sender);
                        driver.handed_on();
                        let mut request = Pump::new(body);
                        if end {
                            request.stop();
                        }
                        let (respond, record) = (&mut *respond, &mut record);
                        let mut forward = Forward {
                            respond,
                            request,
                            upstream,
                            endpoint,
                            edits,
                            record,
                            audience,
                            sent,
                            _open: open,
                        };
                        forward.run(response).await
                    }
                }
            }
        },
    };
    if let Err(error) = exchanged {
        director.refused(&error);
        let (status, grpc) = reply(respond, &error, audience);
        record.response_head(status);
        record.first_byte();
        record.end(grpc, Some(&error));
        if error.code.closes() {
            driver.close();
        }
    }
}

/// Moves the head out of its place, which the stream's task keeps.
fn taken(head: &mut request::Parts) -> request::Parts {
    std::mem::replace(head, Request::new(()).into_parts().0)
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

/// What each open stream costs, for a test.
#[cfg(test)]
pub(super) fn size_of_stream<D: Director>(_: &Rc<D>) -> usize {
    fn of<A, B, C, D, F: Future>(_: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }
    of(stream::<D>)
}
