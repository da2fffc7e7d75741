//! One direction: fill the buffer while there is something to read, empty it, pass the end on.

use super::Operation;
use crate::buffer::{Buffer, Size};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug, Default)]
pub(super) struct Direction {
    buffer: Buffer,
    size: Size,
    state: State,
    bytes: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    /// The end has been read: what is held goes out, then the half-close.
    Ending,
    Done,
}

impl Direction {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_released()
    }

    /// Makes all progress that is possible. Ready once the direction is done, for whatever reason, and from then on.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        count: impl FnMut(usize),
    ) -> Poll<Result<(), (Operation, io::Error)>> {
        let polled = self.progress(cx, from, to, count);
        if polled.is_ready() {
            self.state = State::Done;
            self.buffer = Buffer::default();
        }
        polled
    }

    fn progress(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        mut count: impl FnMut(usize),
    ) -> Poll<Result<(), (Operation, io::Error)>> {
        if self.state == State::Done {
            return Poll::Ready(Ok(()));
        }
        loop {
            let read = if self.state == State::Copying {
                self.fill(cx, from).map_err(|e| (Operation::Read, e))?
            } else {
                Poll::Ready(())
            };
            let filled = self.buffer.filled();
            while !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, self.buffer.bytes()));
                let written = written.and_then(nonzero).map_err(|e| (Operation::Write, e))?;
                self.buffer.taken(written);
                self.bytes += written as u64;
                count(written);
            }
            self.buffer.release();
            if self.state == State::Ending {
                return Pin::new(to).poll_shutdown(cx).map_err(|e| (Operation::Write, e));
            }
            self.size.adapt(filled);
            if read.is_pending() {
                // Nothing more for now: what a TLS session still holds must not wait.
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(|e| (Operation::Write, e))?;
                return Poll::Pending;
            }
        }
    }

    /// Reads until the buffer is full (ready), the end has come (ready), or there is nothing more (pending).
    fn fill(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Poll<()>> {
        loop {
            let mut room = ReadBuf::new(self.buffer.content_room(self.size));
            if room.remaining() == 0 {
                return Ok(Poll::Ready(()));
            }
            if Pin::new(&mut *from).poll_read(cx, &mut room)?.is_pending() {
                return Ok(Poll::Pending);
            }
            let n = room.filled().len();
            if n == 0 {
                self.state = State::Ending;
                return Ok(Poll::Ready(()));
            }
            self.buffer.added(n);
        }
    }
}

fn nonzero(n: usize) -> io::Result<usize> {
    if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) }
}
