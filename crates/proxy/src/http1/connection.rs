//! A connection to an endpoint: one exchange at a time, kept in a pool between two.

use super::io::Io;
use bytes::Bytes;
use std::task::{Context, Poll, Waker};
use weft_transport::stream::Stream;

/// A connection to an endpoint. Where it goes and how long it is kept is the pool's affair.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Boxed: between pool, lease and exchange a connection is moved a dozen times per request.
    pub(crate) io: Box<Io>,
    /// Exchanges that it has completed: one that breaks after the first may only have been closed meanwhile.
    pub(crate) completed: u64,
}

impl Connection {
    /// A connected stream on which nothing was said yet.
    pub(crate) fn new(stream: Stream) -> Self {
        Self { io: Box::new(Io::new(stream, &Bytes::new())), completed: 0 }
    }

    /// Between two exchanges, the last of which is complete; `None` if the peer has ended it, or has said more.
    pub(crate) fn rests(mut self) -> Option<Self> {
        self.completed += 1;
        self.io.out.release();
        if !self.io.read.is_empty() || self.io.ended {
            return None;
        }
        self.io.read.release();
        Some(self)
    }

    /// Whether another exchange may begin: the peer has neither closed it nor said anything unasked, and its certificate is
    /// not about to be over. Asked when it is taken from the pool; costs no system call unless something came.
    pub(crate) fn is_reusable(&mut self) -> bool {
        if !self.io.read.is_empty() || self.io.stream.is_ending() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.io.stream.is_quiet() || self.poll_disturbed(&mut cx).is_pending()
    }

    /// Ready when the peer has closed the idle connection, which costs no system call unless something came. What it said unasked is
    /// for [`Self::is_reusable`] to find.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.io.stream.socket().poll_read_ready(cx).is_pending() || !self.io.read.is_empty() {
            return Poll::Pending;
        }
        match self.io.poll_fill(cx, usize::MAX) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Resolves when the idle connection can no longer be used: closed by the peer, or bytes came unasked.
    pub(crate) fn poll_disturbed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.io.read.is_empty() {
            return Poll::Ready(());
        }
        self.io.poll_fill(cx, usize::MAX).map(|_| ())
    }
}
