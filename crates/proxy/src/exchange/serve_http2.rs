//! Serves an accepted HTTP/2 connection: one local task per stream, from the head to the end of the exchange.

use super::{
    Carrier, Directed, Director, Edits, Endpoint, Observe, Version,
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
        tokio::task::spawn_local(serve_stream(request, respond, director.clone(), driver.clone()));
    });
    if let Err(error) = served.await {
        tracing::debug!(%error, "http/2 connection of a client ended");
    }
}

async fn serve_stream<D: Director>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    director: Rc<D>,
    driver: Rc<Driver>,
) {
    let (head, body) = request.into_parts();
    if let Err(what) = check_request(&head) {
        director.refused(&ProxyError::new(Code::BadRequest, what));
        respond.send_reset(Reason::PROTOCOL_ERROR);
        return;
    }
    let audience = Audience { grpc: is_grpc(&head.headers), informational: director.informational_headers() };
    let view = HeadView(&head);
    let Some(directed) = unless_reset(&mut respond, director.direct(&view, Version::Http2)).await else { return };
    let directed = match directed {
        Ok(directed) => directed,
        Err(error) => {
            director.refused(&error);
            reply(&mut respond, &error, audience);
            if error.code.closes() {
                driver.close();
            }
            return;
        }
    };
    let Directed { endpoint, carrier, edits, mut record } = directed;
    let exchanged = match carrier {
        Carrier::Http1 => {
            let (endpoint, edits, record, sent) = (&endpoint, &edits, &mut record, Instant::now());
            let (respond, driver) = (&mut respond, &*driver);
            let downgrade = Downgrade { respond, driver, endpoint, edits, record, audience, sent };
            downgrade.run(head, body).await
        }
        Carrier::Http2 => {
            let stream = Stream { head, body, respond: &mut respond, driver: &driver, audience };
            stream.carry_on_http2(&endpoint, &edits, &mut record).await
        }
    };
    if let Err(error) = exchanged {
        director.refused(&error);
        let (status, grpc) = reply(&mut respond, &error, audience);
        record.response_head(status);
        record.first_byte();
        record.end(grpc, Some(&error));
        if error.code.closes() {
            driver.close();
        }
    }
}

/// A request with what its answer needs.
struct Stream<'a> {
    head: request::Parts,
    body: RecvStream,
    respond: &'a mut SendResponse<Bytes>,
    driver: &'a Driver,
    audience: Audience,
}

impl Stream<'_> {
    /// Sends the request on HTTP/2 and carries the exchange to its end.
    ///
    /// # Errors
    /// There is no response; the client still waits for a reply.
    async fn carry_on_http2<E: Endpoint, R: Observe>(
        mut self,
        endpoint: &E,
        edits: &Edits,
        record: &mut R,
    ) -> Result<(), ProxyError> {
        let Some(sender) = unless_reset(self.respond, endpoint.http2()).await else { return Ok(()) };
        let mut sender = sender?;
        edit_request(&mut self.head, edits);
        let end = self.body.is_end_stream();
        let sent = Instant::now();
        let (response, upstream, open) = sender
            .send(Request::from_parts(self.head, ()), end)
            .map_err(|error| ProxyError::new(Code::ConnectFailed, format!("endpoint takes no request: {error}")))?;
        drop(sender);
        self.driver.handed_on();
        let mut request = Pump::new(self.body);
        if end {
            request.stop();
        }
        let forward = Forward {
            respond: self.respond,
            request,
            upstream,
            endpoint,
            edits,
            record,
            audience: self.audience,
            sent,
            open,
        };
        forward.run(response).await
    }
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
