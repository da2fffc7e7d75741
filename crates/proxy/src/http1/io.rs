//! A stream with what was read ahead of it and what is to be written on it: either side's connection, without HTTP.
//!
//! Everything here is a poll function, since an exchange drives both of its connections from one task.

use super::{
    buffer::{OutBuffer, ReadBuffer, SMALL},
    limits::MAX_HEAD,
};
use bytes::Bytes;
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weft_transport::stream::Stream;

/// How much of a body is read before it is passed on.
pub(crate) const READ_AHEAD: usize = 2 * MAX_HEAD;
/// A body up to this size is copied behind its head: one piece costs the kernel, and TLS, less than two.
const JOINED: usize = 4096;
/// Ends a chunk.
const CRLF: [u8; 2] = *b"\r\n";

pub(crate) struct Io {
    pub(crate) stream: Stream,
    pub(crate) read: ReadBuffer,
    pub(crate) out: OutBuffer,
    /// The peer has ended its side.
    pub(crate) ended: bool,
    /// How much of what is unread was looked at for a head, in vain.
    scanned: usize,
    /// TLS may hold back what was written.
    unflushed: bool,
    /// Bytes that were read and written; wraps.
    moved: u64,
}

/// Bytes at the front of the *other* connection's read buffer that may be written, and whether a chunk's end follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) bytes: usize,
    /// How much of CRLF is still to be written behind the bytes.
    pub(crate) chunk_end: usize,
}

impl Run {
    pub(crate) fn is_empty(self) -> bool {
        self.bytes == 0 && self.chunk_end == 0
    }
}

impl Io {
    pub(crate) fn new(stream: Stream, prefix: &Bytes) -> Self {
        let mut read = ReadBuffer::default();
        read.extend(prefix);
        Self { stream, read, out: OutBuffer::default(), ended: false, scanned: 0, unflushed: false, moved: 0 }
    }

    /// Changes whenever bytes are read or written.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// Puts back what was consumed of a request, for it to be parsed and sent again.
    pub(crate) fn rewind(&mut self) {
        self.read.rewind();
        self.scanned = 0;
    }

    /// Whether the head is worth parsing: what comes first, which is mostly all of it, and later only if a line has been completed
    /// since the last time.
    pub(crate) fn may_hold_head(&mut self) -> bool {
        let unread = self.read.filled();
        let worth = match self.scanned {
            0 => !unread.is_empty(),
            scanned => unread.get(scanned..).unwrap_or(unread).contains(&b'\n'),
        };
        self.scanned = unread.len();
        worth
    }

    /// Takes a head of `n` bytes, which was parsed, off what is unread; and, where it is still there, the body with it.
    pub(crate) fn take_head(&mut self, n: usize) {
        self.read.consume(n);
        self.scanned = 0;
    }

    /// Reads once, behind what is unread. `Ready(0)` is the end; more than `limit` unread bytes are an error of kind
    /// `OutOfMemory`. Holds no memory while it waits with nothing unread.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let Some(room) = self.read.room(limit) else { return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())) };
        let mut buf = ReadBuf::new(room);
        let outcome = Pin::new(&mut self.stream).poll_read(cx, &mut buf);
        let n = buf.filled().len();
        match outcome {
            Poll::Ready(Ok(())) => {
                self.read.advance(n);
                self.moved = self.moved.wrapping_add(n as u64);
                self.ended = n == 0;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.read.release();
                Poll::Pending
            }
        }
    }

    /// Ready once a client that waits for an answer is gone: its connection broke, or has ended with nothing unread but the
    /// `held` bytes of its request. Who has ended only his own side looks the same and is taken for gone as well, as Linkerd
    /// does. What comes meanwhile is read ahead, into a small buffer at most.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, held: usize) -> Poll<()> {
        loop {
            match ready!(self.poll_fill(cx, held.max(SMALL))) {
                Ok(0) if self.read.len() > held => return Poll::Pending,
                // It has sent too much to be watched further.
                Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Poll::Pending,
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Writes what is pending in `out`, then `run` from the front of `source`, as few writes as possible, and flushes.
    /// What was written of `source` is consumed.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut ReadBuffer,
        run: &mut Run,
    ) -> Poll<io::Result<()>> {
        if !self.out.pending().is_empty() && (1..=JOINED).contains(&run.bytes) {
            self.join(source, run);
        }
        loop {
            let head = self.out.pending();
            let body = source.filled().get(..run.bytes).unwrap_or_default();
            let tail = CRLF.get(CRLF.len() - run.chunk_end..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let outcome = match (head.is_empty(), body.is_empty(), tail.is_empty()) {
                (true, true, true) => break,
                (false, true, true) => stream.poll_write(cx, head),
                (true, false, true) => stream.poll_write(cx, body),
                _ => stream.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(body), IoSlice::new(tail)]),
            };
            let n = ready!(outcome)?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.moved = self.moved.wrapping_add(n as u64);
            let of_head = n.min(head.len());
            let of_body = (n - of_head).min(body.len());
            let of_tail = n - of_head - of_body;
            self.out.wrote(of_head);
            source.consume(of_body);
            run.bytes -= of_body;
            run.chunk_end -= of_tail.min(run.chunk_end);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn join(&mut self, source: &mut ReadBuffer, run: &mut Run) {
        let body = source.filled().get(..run.bytes).unwrap_or_default();
        let tail = CRLF.get(CRLF.len() - run.chunk_end..).unwrap_or_default();
        let out = self.out.bytes();
        out.extend_from_slice(body);
        out.extend_from_slice(tail);
        source.consume(run.bytes);
        *run = Run::default();
    }

    /// Writes what is pending in `out`.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(cx, &mut ReadBuffer::default(), &mut Run::default())
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io").field("stream", &self.stream).field("unread", &self.read.len()).finish_non_exhaustive()
    }
}
