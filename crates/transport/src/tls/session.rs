//! A TLS connection after its handshake: reading and writing.
//!
//! ```text
//! socket ─► incoming ─► open ─┬─► the reader's buffer        writer's bytes ─► seal ─► outgoing ─► socket
//!                             └─► control (alerts, keys)
//! ```
//! Buffers are leased only while bytes are in them. What is sealed and not yet written is bounded by one buffer; the
//! writer waits for it.

use super::{
    control::{Control, Event},
    record::{HEADER, Kind, MAX_CONTENT, OVERHEAD, Record},
};
use crate::buffer::{Buffer, Size};
use rustls::{AlertDescription, Error};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::SystemTime,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub(crate) struct Session {
    tcp: TcpStream,
    control: Control,
    /// Records as they were received, behind content that was opened in place.
    incoming: Buffer,
    /// How much at the front of `incoming` is content that waits for a reader.
    opened: usize,
    /// What comes between that content and the next record: kind, padding and tag.
    skip: usize,
    size: Size,
    outgoing: Buffer,
    reading: Reading,
    writing: Writing,
    /// When a certificate that the session was made with is over.
    expires: Option<SystemTime>,
}

#[derive(Debug)]
enum Reading {
    Open,
    /// The peer has sent close_notify.
    Ended,
    /// What cannot be undone: every later read fails alike.
    Failed(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Open,
    /// close_notify, or a fatal alert, is the last record.
    Ended,
}

/// What became of one record.
enum Step {
    /// This much content has been put into the reader's buffer.
    Read(usize),
    /// Nothing for the reader: look again.
    Again,
    NeedMore,
}

impl Session {
    /// `received` are the bytes behind the handshake that have been read already.
    pub(super) fn new(
        tcp: TcpStream,
        control: Control,
        received: &[u8],
        ended: bool,
        expires: Option<SystemTime>,
    ) -> Result<Self, Error> {
        let mut incoming = Buffer::default();
        if !received.is_empty() {
            let room = incoming.room(Size::of(received.len()));
            room.get_mut(..received.len()).ok_or(Error::PeerSentOversizedRecord)?.copy_from_slice(received);
            incoming.added(received.len());
        }
        Ok(Self {
            tcp,
            control,
            incoming,
            opened: 0,
            skip: 0,
            size: Size::default(),
            outgoing: Buffer::default(),
            reading: if ended { Reading::Ended } else { Reading::Open },
            writing: Writing::Open,
            expires,
        })
    }

    pub(crate) fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether something was received that no reader has seen, an end included.
    pub(crate) fn holds_received(&self) -> bool {
        self.opened > 0 || !self.incoming.is_empty() || !matches!(self.reading, Reading::Open)
    }

    #[cfg(test)]
    pub(super) fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    #[cfg(test)]
    pub(super) fn is_released(&self) -> bool {
        self.incoming.is_released() && self.outgoing.is_released()
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut any = false;
        loop {
            if self.opened > 0 {
                self.take_opened(buf);
                return Poll::Ready(Ok(()));
            }
            match &self.reading {
                Reading::Open => {}
                Reading::Ended => return Poll::Ready(Ok(())),
                // What was read before the failure comes first.
                Reading::Failed(_) if any => return Poll::Ready(Ok(())),
                Reading::Failed(error) => return Poll::Ready(Err(of(error.clone()))),
            }
            match self.step(buf) {
                Ok(Step::Read(n)) => {
                    buf.advance(n);
                    any |= n > 0;
                    if buf.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Ok(Step::Again) => {}
                Ok(Step::NeedMore) if any => return Poll::Ready(Ok(())),
                Ok(Step::NeedMore) => ready!(self.poll_fill(cx))?,
                Err(error) => {
                    self.refuse(cx, &error);
                    self.reading = Reading::Failed(error);
                }
            }
        }
    }

    fn take_opened(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.opened.min(buf.remaining());
        buf.put_slice(self.incoming.bytes().get(..n).unwrap_or_default());
        self.consume(n);
        self.opened -= n;
        if self.opened == 0 {
            let skip = std::mem::take(&mut self.skip);
            self.consume(skip);
        }
    }

    /// An empty buffer is given back at once: the reader may not come back for long.
    fn consume(&mut self, n: usize) {
        self.incoming.taken(n);
        if self.incoming.is_empty() {
            self.incoming.release();
        }
    }

    /// Opens the next record, if it is there in full.
    fn step(&mut self, buf: &mut ReadBuf<'_>) -> Result<Step, Error> {
        let bytes = self.incoming.bytes_mut();
        let Some(record) = Record::parse(bytes)? else { return Ok(Step::NeedMore) };
        let Some(ciphertext) = bytes.get_mut(HEADER..record.total()) else { return Ok(Step::NeedMore) };
        let direct = buf.remaining() >= record.plain_len();
        let (kind, content) = if direct {
            let out = buf.initialize_unfilled_to(record.plain_len());
            self.control.opener().open(&record, ciphertext, out)?
        } else {
            self.control.opener().open_in_place(&record, ciphertext)?
        };
        if kind == Kind::Data as u8 {
            self.control.data_received(content)?;
            if direct {
                self.consume(record.total());
                return Ok(Step::Read(content));
            }
            self.consume(HEADER);
            self.opened = content;
            self.skip = record.total() - HEADER - content;
            if content == 0 {
                let skip = std::mem::take(&mut self.skip);
                self.consume(skip);
            }
            return Ok(Step::Again);
        }
        let plain: &[u8] = if direct { buf.initialize_unfilled_to(record.plain_len()) } else { ciphertext };
        let event = self.control.received(kind, plain.get(..content).unwrap_or_default())?;
        self.consume(record.total());
        if event == Event::Ended {
            self.reading = Reading::Ended;
        }
        Ok(Step::Again)
    }

    /// Reads from the socket, at least once.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let needed = match Record::parse(self.incoming.bytes()) {
            Ok(Some(record)) => Size::of(record.total()),
            _ => Size::default(),
        };
        if !self.incoming.is_empty() {
            self.incoming.make_room(self.size.max(needed));
        }
        let held = self.incoming.filled();
        let mut room = ReadBuf::new(self.incoming.room(self.size));
        let size = room.remaining();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut room);
        let n = room.filled().len();
        self.incoming.added(n);
        if self.incoming.is_empty() {
            self.incoming.release();
        }
        ready!(polled)?;
        if n == 0 {
            // Without close_notify this is a cut, not an end.
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.size.adapt(if n == size { self.size.bytes() } else { held + n });
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.writing != Writing::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_send(cx))?;
        let sealed = self.seal(bufs).map_err(of)?;
        // What does not go out now is held, and goes out before anything else.
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(sealed))
    }

    /// Seals as much as one buffer holds, and says how much that was.
    fn seal(&mut self, mut bufs: &[IoSlice<'_>]) -> Result<usize, Error> {
        let total: usize = bufs.iter().map(|buf| buf.len()).fold(0, usize::saturating_add);
        if total == 0 {
            return Ok(0);
        }
        let records = total.div_ceil(MAX_CONTENT);
        let size = Size::of(total.saturating_add(records.saturating_mul(OVERHEAD))).min(Size::RECORDS);
        let room = self.outgoing.room(size);
        let mut used = self.control.before_data(room)?;
        let (mut done, mut offset) = (0, 0);
        while let Some((first, behind)) = bufs.split_first() {
            let first = first.get(offset..).unwrap_or_default();
            if first.is_empty() {
                offset -= bufs.first().map_or(0, |first| first.len());
                bufs = behind;
                continue;
            }
            let out = room.get_mut(used..).unwrap_or_default();
            let most = MAX_CONTENT.min(out.len().saturating_sub(OVERHEAD));
            let content = most.min(total - done);
            // Only the last record may be a short one.
            if content < MAX_CONTENT.min(total - done) && done > 0 {
                break;
            }
            let sealer = self.control.sealer();
            used += match first.get(..content) {
                Some(content) => sealer.seal(Kind::Data, content, out)?,
                // Small pieces, as the head and the body of a message, share a record.
                None => sealer.seal_slices(first, behind, content, out)?,
            };
            done += content;
            offset += content;
            while let Some((first, behind)) = bufs.split_first()
                && offset > first.len()
            {
                offset -= first.len();
                bufs = behind;
            }
        }
        self.outgoing.added(used);
        Ok(done)
    }

    /// Writes what is sealed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, self.outgoing.bytes()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.taken(written);
        }
        self.outgoing.release();
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing == Writing::Open {
            ready!(self.poll_send(cx))?;
            self.seal_alert(AlertDescription::CloseNotify);
        }
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    /// Ends writing, and tells the peer why as far as that is possible without waiting. An alert is not answered.
    fn refuse(&mut self, cx: &mut Context<'_>, error: &Error) {
        if self.writing == Writing::Open && self.outgoing.is_empty() && !matches!(error, Error::AlertReceived(_)) {
            self.seal_alert(alert(error));
            let _ = self.poll_send(cx);
        }
        self.writing = Writing::Ended;
    }

    /// The last record. Nothing may be sealed after it, so a failure is as good.
    fn seal_alert(&mut self, description: AlertDescription) {
        self.writing = Writing::Ended;
        let room = self.outgoing.room(Size::default());
        if let Ok(used) = self.control.alert(description, room) {
            self.outgoing.added(used);
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("tcp", &self.tcp)
            .field("reading", &self.reading)
            .field("writing", &self.writing)
            .finish_non_exhaustive()
    }
}

fn of(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn alert(error: &Error) -> AlertDescription {
    match error {
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        _ => AlertDescription::UnexpectedMessage,
    }
}
