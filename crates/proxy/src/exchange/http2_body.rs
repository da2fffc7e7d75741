//! One direction of an HTTP/2 exchange: DATA and trailers from one stream to another.
//!
//! What was read is given back to the sender's window only when the other side has accepted it, so a slow receiver stops a
//! fast sender and not more than one window is held.

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::task::{Context, Poll, ready};

pub(super) struct Pump {
    from: RecvStream,
    /// Read, and not yet accepted by the other side.
    held: Bytes,
    moved: bool,
    /// Content since it was last asked for.
    content: usize,
    done: bool,
}

/// Where a direction broke.
#[derive(Debug)]
pub(super) enum Broken {
    From(h2::Error),
    /// The receiver has reset the stream, or its connection has gone (no code).
    To(Option<Reason>),
    /// The trailers are malformed.
    Trailers(&'static str),
}

impl Pump {
    pub(super) fn new(from: RecvStream) -> Self {
        Self { from, held: Bytes::new(), moved: false, content: 0, done: false }
    }

    /// Whether anything has been passed on.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// How many bytes of content have been passed on since this was last asked.
    pub(super) fn take_content(&mut self) -> usize {
        std::mem::take(&mut self.content)
    }

    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// The stream that is read, for what reads it in another way.
    pub(super) fn stream(&mut self) -> &mut RecvStream {
        &mut self.from
    }

    /// Nothing more is to be passed on.
    pub(super) fn stop(&mut self) {
        self.done = true;
        self.held = Bytes::new();
    }

    /// Moves what can be moved. Ready at the end of the stream, with the trailers' gRPC status if they carry one.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<Option<u16>, Broken>> {
        let moved = self.poll_move(cx, to);
        match &moved {
            // Reading waits: nobody else would notice that the receiver has gone.
            Poll::Pending => match to.poll_reset(cx) {
                Poll::Ready(reset) => Poll::Ready(Err(Broken::To(reset.ok()))),
                Poll::Pending => Poll::Pending,
            },
            Poll::Ready(_) => {
                self.done = true;
                moved
            }
        }
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, to: &mut SendStream<Bytes>) -> Poll<Result<Option<u16>, Broken>> {
        loop {
            while !self.held.is_empty() {
                if self.pass_on(ready!(room(cx, to, self.held.len()))?, to)? {
                    return Poll::Ready(Ok(None));
                }
            }
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(data)) => self.held = data,
                Some(Err(error)) => return Poll::Ready(Err(Broken::From(error))),
                None => break,
            }
        }
        let trailers = ready!(self.from.poll_trailers(cx)).map_err(Broken::From)?;
        Poll::Ready(finish(trailers, to))
    }

    /// Sends the first `n` bytes of what is held; true if that was the end of the stream.
    fn pass_on(&mut self, n: usize, to: &mut SendStream<Bytes>) -> Result<bool, Broken> {
        let n = n.min(self.held.len());
        let data = self.held.split_to(n);
        let end = self.held.is_empty() && self.from.is_end_stream();
        to.send_data(data, end).map_err(|error| Broken::To(error.reason()))?;
        self.moved = true;
        self.content += n;
        // Fails only for more than was received.
        let _ = self.from.flow_control().release_capacity(n);
        Ok(end)
    }
}

fn finish(trailers: Option<HeaderMap>, to: &mut SendStream<Bytes>) -> Result<Option<u16>, Broken> {
    let (status, sent) = match trailers {
        Some(mut trailers) => {
            // A receiver may merge trailers into its headers.
            trailers.remove(weft_model::names::header::CLIENT_ID);
            super::http2_head::check_fields(&trailers).map_err(Broken::Trailers)?;
            (super::http2_head::grpc_status(&trailers), to.send_trailers(trailers))
        }
        None => (None, to.send_data(Bytes::new(), true)),
    };
    sent.map_err(|error| Broken::To(error.reason()))?;
    Ok(status)
}

/// Waits until the receiver takes at least one byte; how many of `wanted` it takes.
pub(super) fn room(cx: &mut Context<'_>, to: &mut SendStream<Bytes>, wanted: usize) -> Poll<Result<usize, Broken>> {
    to.reserve_capacity(wanted);
    loop {
        let room = to.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        match ready!(to.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(Broken::To(error.reason()))),
            None => return Poll::Ready(Err(Broken::To(None))),
        }
    }
}
