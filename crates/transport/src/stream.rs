//! A connection, plain or TLS, with bytes that were read for detection put back in front.
//!
//! Made from an accepted or connected socket, or by `tls`; read and written by `copy` and by the protocols. It must not
//! look into the bytes.

use crate::{
    lifetime::{Life, Lifetime},
    tls::Session,
};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A connection in both directions.
///
/// Shutting it down sends close_notify (TLS) and FIN, and leaves reading open: a half-close.
pub struct Stream {
    /// What was read from `io` and put back.
    unread: Bytes,
    meter: Option<Box<dyn Meter>>,
    lifetime: Option<Lifetime>,
    io: Io,
    /// The error (errno) by which a write learned that a plain connection was cut. The kernel tells it only once: to a read behind
    /// that write the cut would look like an end.
    broken: Option<i32>,
}

/// Counts a connection while it is open; dropped with it. Bytes that are put back and read again count once.
pub trait Meter: Send + Sync {
    fn read(&self, bytes: usize);
    fn written(&self, bytes: usize);
    /// An operation failed; the last failure says why the connection ended.
    fn failed(&self, error: &io::Error);
}

#[derive(Debug)]
enum Io {
    Tcp(TcpStream),
    /// Boxed, since a session is larger than a socket.
    Tls(Box<Session>),
}

impl Stream {
    pub fn tcp(tcp: TcpStream) -> Self {
        Self { unread: Bytes::new(), meter: None, lifetime: None, io: Io::Tcp(tcp), broken: None }
    }

    pub(crate) fn tls(session: Session) -> Self {
        Self { unread: Bytes::new(), meter: None, lifetime: None, io: Io::Tls(Box::new(session)), broken: None }
    }

    /// Puts `bytes` in front of what is read next, as if they had never been read.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.unread.is_empty() {
            self.unread = bytes;
        } else {
            let mut joined = bytes::BytesMut::with_capacity(bytes.len() + self.unread.len());
            joined.extend_from_slice(&bytes);
            joined.extend_from_slice(&self.unread);
            self.unread = joined.freeze();
        }
    }

    /// Counts what is put back, and what is read and written from now on: the bytes inside TLS.
    pub fn meter(&mut self, meter: impl Meter + 'static) {
        if !self.unread.is_empty() {
            meter.read(self.unread.len());
        }
        self.meter = Some(Box::new(meter));
    }

    /// When a certificate that the connection was opened with is over; `None` without one.
    pub fn expires(&self) -> Option<SystemTime> {
        match &self.io {
            Io::Tcp(_) => None,
            Io::Tls(session) => session.expires(),
        }
    }

    /// Ends reading and writing with that lifetime.
    pub fn bound(&mut self, lifetime: Lifetime) {
        self.lifetime = Some(lifetime);
    }

    /// How far its lifetime has come, if it is bound to one.
    pub fn life(&self) -> Option<Life> {
        self.lifetime.as_ref().map(Lifetime::life)
    }

    /// Whether nothing new may begin on it.
    pub fn is_ending(&self) -> bool {
        self.lifetime.as_ref().is_some_and(Lifetime::is_ending)
    }

    /// Whether nothing is there to be read, neither bytes nor an end, as far as the runtime knows: costs no system call. False says
    /// only that reading is worth a try.
    pub fn is_quiet(&self) -> bool {
        let held = match &self.io {
            Io::Tcp(_) => false,
            Io::Tls(session) => session.holds_received(),
        };
        // What is tried succeeds, so that the runtime goes on knowing.
        self.unread.is_empty()
            && !held
            && !self.is_cut()
            && self.socket().try_io(Interest::READABLE, || Ok(())).is_err()
    }

    #[cfg(test)]
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.io {
            Io::Tcp(_) => None,
            Io::Tls(session) => Some(session),
        }
    }

    /// The socket below, for its options; bytes must go through the stream.
    pub fn socket(&self) -> &TcpStream {
        match &self.io {
            Io::Tcp(tcp) => tcp,
            Io::Tls(session) => session.socket(),
        }
    }

    /// # Errors
    /// The socket has no peer any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// # Errors
    /// The kernel refuses.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket().local_addr()
    }

    /// Makes the close that follows a reset (RST) instead of an orderly end, so that the peer sees a failure as one.
    pub fn reset_on_close(&self) {
        // A socket that refuses is closed already.
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(std::time::Duration::ZERO));
    }
}

thread_local! {
    static RESETS: Cell<bool> = const { Cell::new(false) };
}

/// Makes every connection that this thread drops from now on end in a reset: its worker ends with them amid their work, and no
/// peer shall take that for an end.
pub fn reset_from_now_on() {
    RESETS.set(true);
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A thread that has no such value any more has dropped its connections before.
        if RESETS.try_with(Cell::get).unwrap_or_default() {
            self.reset_on_close();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("unread", &self.unread.len()).field("io", &self.io).finish_non_exhaustive()
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::tcp(tcp)
    }
}

impl Stream {
    fn read_from(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_cut() {
            return Poll::Ready(Err(Lifetime::error()));
        }
        if !self.unread.is_empty() {
            let n = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = match &mut self.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Io::Tls(session) => session.poll_read(cx, buf),
        };
        // What was received before the cut comes first.
        if let Some(errno) = self.broken
            && matches!(polled, Poll::Ready(Ok(())))
            && buf.filled().len() == before
            && buf.remaining() > 0
        {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        self.unless_cut(cx, polled)
    }

    fn is_cut(&self) -> bool {
        self.lifetime.as_ref().is_some_and(Lifetime::is_cut)
    }

    /// Who waits is woken when the connection is cut off.
    fn unless_cut<T>(&self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &self.lifetime {
            Some(lifetime) if polled.is_pending() && lifetime.poll_cut(cx) => Poll::Ready(Err(Lifetime::error())),
            _ => polled,
        }
    }

    fn written(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        // TLS knows an end of its own from a cut.
        if let (Poll::Ready(Err(error)), Io::Tcp(_)) = (&outcome, &self.io)
            && breaks(error.kind())
        {
            self.broken = error.raw_os_error();
        }
        if let Some(meter) = &self.meter {
            match &outcome {
                Poll::Ready(Ok(n)) => meter.written(*n),
                Poll::Ready(Err(error)) => meter.failed(error),
                Poll::Pending => {}
            }
        }
        outcome
    }
}

/// Whether a write that fails so says that the peer's side did not end in order. `BrokenPipe` does not: it is what a reset becomes
/// behind an end.
fn breaks(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(kind, ConnectionReset | ConnectionAborted | TimedOut | HostUnreachable | NetworkUnreachable)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let counted = !this.unread.is_empty();
        let outcome = this.read_from(cx, buf);
        if let Some(meter) = &this.meter {
            match &outcome {
                Poll::Ready(Ok(())) if counted => {}
                Poll::Ready(Ok(())) => meter.read(buf.filled().len() - before),
                Poll::Ready(Err(error)) => meter.failed(error),
                Poll::Pending => {}
            }
        }
        outcome
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut() {
            return this.written(Poll::Ready(Err(Lifetime::error())));
        }
        let outcome = match &mut this.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Io::Tls(session) => session.poll_write(cx, &[io::IoSlice::new(buf)]),
        };
        let outcome = this.unless_cut(cx, outcome);
        this.written(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_cut() {
            return this.written(Poll::Ready(Err(Lifetime::error())));
        }
        let outcome = match &mut this.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Io::Tls(session) => session.poll_write(cx, bufs),
        };
        let outcome = this.unless_cut(cx, outcome);
        this.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = match &mut this.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Io::Tls(session) => session.poll_flush(cx),
        };
        this.unless_cut(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = match &mut this.io {
            Io::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Io::Tls(session) => session.poll_shutdown(cx),
        };
        // The end may still be said, but nobody is waited for.
        this.unless_cut(cx, polled)
    }
}
