//! A stream behind the frame gate: what `h2` reads has passed it, what `h2` writes is counted by it.
//!
//! On a violation it sends GOAWAY with the right code where a frame ends, closes its side, and fails the next read. It never
//! waits for a peer that it is about to leave. It copies and keeps no bytes but one time: what follows a server's GOAWAY waits
//! until the requests that were begun have been sent. Otherwise `h2` would answer the PING behind it first, from which the
//! server concludes that no more requests are on their way, and does not look at those that are. A client's GOAWAY is not shown
//! to `h2`, which would close an idle connection at once, under whatever the client sends behind it; the driver sees to it.

use super::{
    frame::kind,
    gate::{FrameGate, Goaway, Limits, Side, Violation, provoked},
};
use bytes::{BufMut, Bytes, BytesMut};
use h2::Reason;
use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Small DATA frames that are read without a pause.
const SMALL_AT_ONCE: u32 = 256;

/// Bytes that are thrown away after a violation, so that closing does not turn into a reset that overtakes the GOAWAY.
const DISCARDED: usize = 256 * 1024;

/// What the gate of a connection, its driver and its streams tell each other.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Counts reads that brought bytes, wrapping: a sign of life.
    reads: Cell<u32>,
    /// Bytes.
    received: Cell<u64>,
    /// Streams whose requests were begun, and ended, since the gate last looked.
    begun: Cell<u32>,
    ended: Cell<u32>,
    /// Resets of ours, still to be sent, that are not the peer's fault.
    excused: Cell<u32>,
    violation: Cell<Option<Violation>>,
    /// The peer has said GOAWAY.
    leaving: Cell<bool>,
}

/// A request that is worked on.
#[derive(Debug)]
pub(crate) struct Begun(Rc<Link>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.ended.set(self.0.ended.get().saturating_add(1));
    }
}

pub(crate) struct Guarded<S> {
    io: S,
    gate: FrameGate,
    link: Rc<Link>,
    /// The time that the gate counts from.
    start: Instant,
    side: Side,
    /// What came behind a GOAWAY.
    held: Bytes,
    /// The next read waits, once.
    waits: bool,
}

impl Link {
    /// A stream's request is worked on as long as the value lives: that the client resets it meanwhile is no abuse.
    pub(crate) fn begin(self: &Rc<Self>) -> Begun {
        self.begun.set(self.begun.get().saturating_add(1));
        Begun(Rc::clone(self))
    }

    /// A stream is about to be reset on somebody else's behalf.
    pub(crate) fn excuse(&self, reason: Reason) {
        if provoked(reason.into()) {
            self.excused.set(self.excused.get().saturating_add(1));
        }
    }

    pub(crate) fn reads(&self) -> u32 {
        self.reads.get()
    }

    /// Bytes that came in.
    pub(crate) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Whether the peer has said that it will leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.violation.get()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    pub(crate) fn new(io: S, side: Side, limits: Limits) -> (Self, Rc<Link>) {
        let link = Rc::new(Link::default());
        let gate = FrameGate::new(side, limits, std::time::Duration::ZERO);
        let guarded =
            Self { io, gate, link: link.clone(), start: Instant::now(), side, held: Bytes::new(), waits: false };
        (guarded, link)
    }

    /// Says goodbye as far as that is possible without waiting.
    fn leave(&mut self, cx: &mut Context<'_>, violation: Violation) -> io::Error {
        if self.gate.at_boundary() {
            let frame = goaway(self.gate.highest_stream(), violation);
            let mut rest = &frame[..];
            while !rest.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, rest) {
                    Poll::Ready(Ok(n)) if n > 0 => rest = rest.get(n..).unwrap_or_default(),
                    _ => break,
                }
            }
        }
        if let Poll::Ready(Ok(())) = Pin::new(&mut self.io).poll_flush(cx)
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.io).poll_shutdown(cx)
        {
            self.discard(cx);
        }
        io::Error::new(io::ErrorKind::InvalidData, violation.what)
    }

    fn discard(&mut self, cx: &mut Context<'_>) {
        let mut scratch = [0; 4096];
        let mut discarded = 0;
        while discarded < DISCARDED {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => discarded += buf.filled().len(),
                _ => break,
            }
        }
    }

    fn violated(&mut self, violation: Violation) {
        if self.link.violation.get().is_none() {
            self.link.violation.set(Some(violation));
        }
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let start = self.start;
        self.gate.excuse(self.link.excused.take());
        if let Err(violation) = self.gate.send(bytes, || start.elapsed()) {
            self.violated(violation);
        }
    }
}

/// The last stream that may have been worked on, the code, and in words what it was.
fn goaway(last_stream: u32, violation: Violation) -> BytesMut {
    let text = violation.what.as_bytes();
    let mut frame = BytesMut::with_capacity(17 + text.len());
    let length = u32::try_from(8 + text.len()).unwrap_or(8).to_be_bytes();
    frame.put_slice(&length[1..]);
    frame.put_slice(&[7, 0, 0, 0, 0, 0]);
    frame.put_u32(last_stream);
    frame.put_u32(violation.code.into());
    frame.put_slice(text);
    frame
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(violation) = this.link.violation.get() {
            return Poll::Ready(Err(this.leave(cx, violation)));
        }
        if std::mem::take(&mut this.waits) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !this.held.is_empty() {
            // It has passed the gate.
            let n = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            return Poll::Ready(Ok(()));
        }
        this.link.reads.set(this.link.reads.get().wrapping_add(1));
        this.link.received.set(this.link.received.get() + new.len() as u64);
        this.gate.worked(this.link.begun.take(), this.link.ended.take());
        let start = this.start;
        if let Err((passed, violation)) = this.gate.receive(new, || start.elapsed()) {
            this.violated(violation);
            buf.set_filled(before + passed);
            if passed == 0 {
                return Poll::Ready(Err(this.leave(cx, violation)));
            }
            return Poll::Ready(Ok(()));
        }
        // Who reads them comes next: else they would pile up behind each other, and `h2` ends the connection for that.
        this.waits |= this.gate.take_small() > SMALL_AT_ONCE;
        match (this.gate.take_goaway(), this.side) {
            (Some(Goaway { end, .. }), Side::Client) => {
                this.link.leaving.set(true);
                this.waits = true;
                this.held = Bytes::copy_from_slice(new.get(end..).unwrap_or_default());
                buf.set_filled((before + end).min(buf.filled().len()));
            }
            (Some(Goaway { kind: Some(at), .. }), Side::Server) => {
                if let Some(byte) = buf.filled_mut().get_mut(before + at) {
                    *byte = kind::NONE;
                    this.link.leaving.set(true);
                }
            }
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = std::task::ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.wrote(buf.get(..n).unwrap_or(buf));
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let n = std::task::ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = n;
        for buf in bufs {
            let part = left.min(buf.len());
            this.wrote(buf.get(..part).unwrap_or(buf));
            left -= part;
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

    fn read(guarded: &mut Guarded<tokio::io::DuplexStream>) -> Poll<Vec<u8>> {
        let mut bytes = [0; 20];
        let mut buf = ReadBuf::new(&mut bytes);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let read = Pin::new(guarded).poll_read(&mut cx, &mut buf);
        read.map(|read| {
            read.unwrap();
            buf.filled().to_vec()
        })
    }

    #[tokio::test]
    async fn what_follows_a_goaway_waits_until_the_client_has_sent_what_it_began() {
        let limits = Limits { frame_size: 16_384, header_block: 1000 };
        let (mut server, io) = tokio::io::duplex(1000);
        let (mut guarded, _link) = Guarded::new(io, Side::Client, limits);
        server.write_all(SETTINGS).await.unwrap();
        assert_eq!(read(&mut guarded), Poll::Ready(SETTINGS.to_vec()));
        server.write_all(&[GOAWAY, PING, PING].concat()).await.unwrap();
        // Twenty bytes: the GOAWAY and three of what follows.
        assert_eq!(read(&mut guarded), Poll::Ready(GOAWAY.to_vec()));
        assert_eq!(read(&mut guarded), Poll::Pending);
        let mut rest = vec![];
        while let Poll::Ready(bytes) = read(&mut guarded) {
            rest.extend(bytes);
        }
        assert_eq!(rest, [PING, PING].concat());
    }
}
