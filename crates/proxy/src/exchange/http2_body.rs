//! One direction of an HTTP/2 exchange: DATA and trailers from one stream to another.
//!
//! What was read is given back to the sender's window only when the other side has accepted it, so a slow receiver stops a
//! fast sender and not more than one window is held.

use super::{
    Copies,
    http2_head::{check_response, edit_trailers, grpc_status},
};
use crate::http2::trailers_fit;
use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};
use weft_model::decide::field::Message;

/// A body as it comes from the network, or once more as it was kept.
pub(super) struct Body {
    stream: RecvStream,
    kept: Option<Box<Kept>>,
    /// Who is shown what comes.
    copies: Option<Rc<Copies>>,
}

/// What was read of a body and may be wanted again.
struct Kept {
    limit: usize,
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// Read again from here; the stream has ended.
    again: Option<Again>,
}

struct Again {
    data: Bytes,
    trailers: bool,
}

pub(super) struct Pump {
    from: Body,
    of: Message,
    /// Read, and not yet accepted by the other side.
    held: Bytes,
    /// Bytes that were passed on.
    passed: u64,
    /// Trailers were taken off what is read.
    trailed: bool,
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
    /// The trailers are larger than may be passed on.
    TooLarge,
}

impl Body {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, kept: None, copies: None }
    }

    /// From now on keeps what is read, up to `limit` bytes; of a longer body nothing.
    pub(super) fn keep(&mut self, limit: usize) {
        let kept = Kept { limit, data: BytesMut::new(), trailers: None, again: None };
        self.kept.get_or_insert_with(|| Box::new(kept));
    }

    /// Shows what comes of it from now on, if it is not shown yet.
    pub(super) fn copy(&mut self, copies: &Rc<Copies>) {
        if self.copies.is_none() {
            // An earlier attempt, of which there was no copy, may have read some or all of it.
            if let Some(kept) = &self.kept {
                copies.data(&kept.data);
            }
            self.copies = Some(Rc::clone(copies));
            self.tell_end();
        }
    }

    fn tell_end(&self) {
        if let Some(copies) = self.copies.as_ref().filter(|_| self.stream.is_end_stream()) {
            copies.whole();
        }
    }

    /// Whether the body was read to its end and is kept whole.
    pub(super) fn is_whole(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.again.is_some() || self.stream.is_end_stream())
    }

    /// A body that is kept whole is read again from its beginning.
    fn rewind(&mut self) {
        if self.is_whole()
            && let Some(kept) = &mut self.kept
        {
            kept.again = Some(Again { data: Bytes::copy_from_slice(&kept.data), trailers: kept.trailers.is_some() });
        }
    }

    /// Nothing more follows, trailers included.
    pub(super) fn is_end_stream(&self) -> bool {
        match self.again() {
            Some(again) => again.data.is_empty() && !again.trailers,
            None => self.stream.is_end_stream(),
        }
    }

    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        if let Some(Kept { again: Some(again), .. }) = self.kept.as_deref_mut() {
            let data = std::mem::take(&mut again.data);
            return Poll::Ready((!data.is_empty()).then_some(Ok(data)));
        }
        let data = ready!(self.stream.poll_data(cx));
        if let (Some(copies), Some(Ok(data))) = (&self.copies, &data) {
            copies.data(data);
            self.tell_end();
        }
        if let (Some(kept), Some(Ok(data))) = (&mut self.kept, &data) {
            if kept.data.len() + data.len() <= kept.limit {
                kept.data.extend_from_slice(data);
            } else {
                self.kept = None;
            }
        }
        Poll::Ready(data)
    }

    pub(super) fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        if let Some(Kept { again: Some(again), trailers, .. }) = self.kept.as_deref_mut() {
            again.trailers = false;
            return Poll::Ready(Ok(trailers.clone()));
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        // An end that came by itself, or with them, is known here at the latest.
        if let (Some(copies), Ok(_)) = (&self.copies, &trailers) {
            copies.whole();
        }
        if let (Some(kept), Ok(trailers)) = (&mut self.kept, &trailers) {
            kept.trailers.clone_from(trailers);
        }
        Poll::Ready(trailers)
    }

    /// Lets the sender send `n` bytes more: they were accepted by the other side.
    pub(super) fn release(&mut self, n: usize) {
        if self.again().is_none() {
            // Fails only for more than was received.
            let _ = self.stream.flow_control().release_capacity(n);
        }
    }

    fn again(&self) -> Option<&Again> {
        self.kept.as_ref()?.again.as_ref()
    }
}

impl Pump {
    pub(super) fn new(from: RecvStream, of: Message) -> Self {
        Self {
            from: Body::new(from),
            of,
            held: Bytes::new(),
            passed: 0,
            trailed: false,
            moved: false,
            content: 0,
            done: false,
        }
    }

    /// Bytes that were passed on, since the first attempt.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Begins again at the beginning, if all of it is kept.
    pub(super) fn rewind(&mut self) {
        self.from.rewind();
        self.held = Bytes::new();
        self.done = self.from.is_end_stream();
    }

    /// What came of the body while nothing of it may be passed on yet: ready with the gRPC status of the trailers that follow
    /// an empty body, if it is one.
    pub(super) fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u16>, h2::Error>> {
        // Trailers that were taken are needed once more.
        self.from.keep(0);
        if self.held.is_empty()
            && let Some(data) = ready!(self.from.poll_data(cx))
        {
            self.held = data?;
            return Poll::Ready(Ok(None));
        }
        let trailers = ready!(self.from.poll_trailers(cx))?;
        self.from.rewind();
        Poll::Ready(Ok(trailers.as_ref().and_then(grpc_status)))
    }

    /// Whether nothing of the body is gone, so that it can still be sent whole.
    pub(super) fn is_untouched(&self) -> bool {
        self.passed == 0 && !self.trailed
    }

    /// Begins to pass on a body that is untouched, though another receiver was given up; true if it has none.
    pub(super) fn resume(&mut self) -> bool {
        self.done = self.ends();
        self.done
    }

    /// Whether anything has been passed on.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// How many bytes of content have been passed on since this was last asked.
    pub(super) fn take_content(&mut self) -> usize {
        std::mem::take(&mut self.content)
    }

    /// Nothing more comes, trailers included.
    pub(super) fn ends(&self) -> bool {
        self.held.is_empty() && self.from.is_end_stream()
    }

    pub(super) fn done(&self) -> bool {
        self.done
    }

    /// What is read, for what reads it in another way.
    pub(super) fn body(&mut self) -> &mut Body {
        &mut self.from
    }

    /// Nothing more is to be passed on. What is untouched stays: another receiver may want it.
    pub(super) fn stop(&mut self) {
        self.done = true;
        if !self.is_untouched() {
            self.held = Bytes::new();
        }
    }

    /// Moves what can be moved. Ready at the end of the stream, with the trailers' gRPC status if they carry one; `told` is
    /// shown them.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Bytes>,
        told: super::Told<'_>,
    ) -> Poll<Result<Option<u16>, Broken>> {
        let moved = self.poll_move(cx, to, told);
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

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut SendStream<Bytes>,
        told: super::Told<'_>,
    ) -> Poll<Result<Option<u16>, Broken>> {
        loop {
            while !self.held.is_empty() {
                let Poll::Ready(room) = room(cx, to, self.held.len()) else { return self.gather(cx) };
                if self.pass_on(room?, to)? {
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
        self.trailed |= trailers.is_some();
        Poll::Ready(finish(trailers, self.of, to, told))
    }

    /// Reads what has come though the receiver takes nothing, at most one window: `h2` ends a connection on which too many small
    /// pieces lie unread, whosever they are.
    #[cold]
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u16>, Broken>> {
        let mut gathered: Option<BytesMut> = None;
        let ended = loop {
            match self.from.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    let held = || BytesMut::from(&*self.held);
                    gathered.get_or_insert_with(held).extend_from_slice(&data);
                }
                Poll::Ready(Some(Err(error))) => break Poll::Ready(Err(Broken::From(error))),
                Poll::Ready(None) | Poll::Pending => break Poll::Pending,
            }
        };
        if let Some(gathered) = gathered {
            self.held = gathered.freeze();
        }
        ended
    }

    /// Sends the first `n` bytes of what is held; true if that was the end of the stream.
    fn pass_on(&mut self, n: usize, to: &mut SendStream<Bytes>) -> Result<bool, Broken> {
        let n = n.min(self.held.len());
        let data = self.held.split_to(n);
        let end = self.held.is_empty() && self.from.is_end_stream();
        to.send_data(data, end).map_err(|error| Broken::To(error.reason()))?;
        self.moved = true;
        self.content += n;
        self.passed += n as u64;
        self.from.release(n);
        Ok(end)
    }
}

fn finish(
    trailers: Option<HeaderMap>,
    of: Message,
    to: &mut SendStream<Bytes>,
    told: super::Told<'_>,
) -> Result<Option<u16>, Broken> {
    let mut trailers = trailers.unwrap_or_default();
    edit_trailers(&mut trailers, of);
    let (status, sent) = if trailers.is_empty() {
        (None, to.send_data(Bytes::new(), true))
    } else {
        check_response(&trailers).map_err(Broken::Trailers)?;
        if !trailers_fit(&trailers, of) {
            return Err(Broken::TooLarge);
        }
        told(&trailers);
        (grpc_status(&trailers), to.send_trailers(trailers))
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
