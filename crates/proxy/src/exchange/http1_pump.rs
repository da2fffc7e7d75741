//! One direction of an HTTP/1 body: from what one connection reads to what the other writes.
//!
//! Nothing is read before what was read last is written, so a slow receiver holds back its sender.

use super::{Copies, Fields, Told};
use crate::http1::{
    body::{BodyError, Decoder, Step},
    framing::Body,
    io::{Io, Run},
    limits::MAX_HEAD,
    response::Reframe,
    trailers,
};
use std::{
    io::{self, Write as _},
    rc::Rc,
    task::{Context, Poll, ready},
};
use weft_model::decide::field::Message;

/// Where a direction broke.
#[derive(Debug)]
pub(super) enum Broken {
    /// The sender went away or failed.
    From(io::Error),
    /// The sender does not keep to its framing.
    Framing(BodyError),
    /// The receiver went away or failed.
    To(io::Error),
}

/// What follows the run in the sender's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// Framing that is not passed on.
    Skip(usize),
    Trailers(usize),
}

/// The progress of one direction.
#[derive(Debug)]
pub(super) struct Pump {
    decoder: Decoder,
    of: Message,
    framing: Reframe,
    run: Run,
    behind: Behind,
    /// The last read filled its buffer.
    filled: bool,
    moved: bool,
    /// Content since it was last asked for.
    content: usize,
    done: bool,
    pub(super) grpc_status: Option<u16>,
    /// Who is shown the content.
    copies: Option<Rc<Copies>>,
}

impl Pump {
    pub(super) fn new(body: Body, of: Message, framing: Reframe) -> Self {
        Self {
            decoder: Decoder::new(body),
            of,
            framing,
            run: Run::default(),
            behind: Behind::Nothing,
            filled: false,
            moved: false,
            content: 0,
            done: false,
            grpc_status: None,
            copies: None,
        }
    }

    /// Shows its content.
    pub(super) fn copied_to(self, copies: Option<Rc<Copies>>) -> Self {
        Self { copies, ..self }
    }

    /// The body is complete: read, and written with all that was to be written before it.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The body was read to its end.
    pub(super) fn is_read(&self) -> bool {
        self.decoder.is_end() && self.run.is_empty() && self.behind == Behind::Nothing
    }

    /// Bytes of content that were found so far.
    pub(super) fn content(&self) -> u64 {
        self.decoder.content()
    }

    /// Whether some of the body has come.
    pub(super) fn moved(&self) -> bool {
        self.moved
    }

    /// How many bytes of content have been taken since this was last asked.
    pub(super) fn take_content(&mut self) -> usize {
        std::mem::take(&mut self.content)
    }

    /// Writes what is pending on `to`, then the body. Ready when all is written.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Io,
        to: &mut Io,
        told: Told<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.run.is_empty() && self.behind == Behind::Nothing && !self.decoder.is_end() {
                self.gather(from, to).map_err(Broken::Framing)?;
                if self.run.is_empty() && self.behind == Behind::Nothing && !self.decoder.is_end() {
                    match self.poll_read(cx, from, to)? {
                        Poll::Ready(()) => continue,
                        Poll::Pending => {
                            // The head does not wait for the body.
                            if let Poll::Ready(Err(error)) = to.poll_write(cx, &mut from.read, &mut self.run) {
                                return Poll::Ready(Err(Broken::To(error)));
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
            ready!(to.poll_write(cx, &mut from.read, &mut self.run)).map_err(Broken::To)?;
            match std::mem::replace(&mut self.behind, Behind::Nothing) {
                Behind::Nothing if self.decoder.is_end() => {
                    self.done = true;
                    return Poll::Ready(Ok(()));
                }
                Behind::Nothing => {}
                Behind::Skip(n) => from.read.consume(n),
                Behind::Trailers(n) => self.trailers(n, from, to, told),
            }
        }
    }

    /// Reads more of the body, or learns that it ended with the connection.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Io, to: &mut Io) -> Result<Poll<()>, Broken> {
        if self.filled && self.decoder.expected() > from.read.len() as u64 {
            from.read.enlarge();
        }
        match from.poll_fill(cx, MAX_HEAD) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(error)) => Err(Broken::From(error)),
            Poll::Ready(Ok(0)) => {
                self.decoder.closed().map_err(Broken::Framing)?;
                self.moved = true;
                if self.framing == Reframe::AddChunks {
                    fresh(to).extend_from_slice(b"0\r\n\r\n");
                }
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Ok(_)) => {
                self.filled = from.read.is_full();
                Ok(Poll::Ready(()))
            }
        }
    }

    /// Finds out how much of what was read may be written in one go.
    fn gather(&mut self, from: &Io, to: &mut Io) -> Result<(), BodyError> {
        let buf = from.read.filled();
        loop {
            let unread = buf.get(self.run.bytes..).unwrap_or_default();
            let step = self.decoder.next(unread)?;
            if let (Some(copies), Step::Data(n)) = (&self.copies, step) {
                copies.data(unread.get(..n).unwrap_or_default());
            }
            match (step, self.framing) {
                (Step::More | Step::End, _) => break,
                (Step::Data(n), Reframe::AddChunks) => {
                    self.content += n;
                    self.run = Run { bytes: n, chunk_end: 2 };
                    // Writing to a vector does not fail.
                    let _ = write!(fresh(to), "{n:x}\r\n");
                    break;
                }
                (Step::Data(n), _) => {
                    self.content += n;
                    self.run.bytes += n;
                }
                (Step::Framing(n) | Step::Trailers(n), Reframe::RemoveChunks) => {
                    self.behind = Behind::Skip(n);
                    break;
                }
                (Step::Framing(n) | Step::Trailers(n @ 2), _) => self.run.bytes += n,
                (Step::Trailers(n), _) => {
                    self.behind = Behind::Trailers(n);
                    break;
                }
            }
        }
        self.moved |= self.run.bytes > 0 || self.decoder.is_end();
        if let Some(copies) = self.copies.as_ref().filter(|_| self.decoder.is_end()) {
            copies.whole();
        }
        Ok(())
    }

    fn trailers(&mut self, n: usize, from: &mut Io, to: &mut Io, told: Told<'_>) {
        let section = from.read.filled().get(..n).unwrap_or_default();
        self.grpc_status = trailers::grpc_status(section);
        told(&Section(section, self.of));
        trailers::write(section, self.of, fresh(to));
        from.read.consume(n);
    }
}

/// A trailer section as it is passed on.
struct Section<'a>(&'a [u8], Message);

impl Fields for Section<'_> {
    fn each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        trailers::forwarded(self.0, self.1, visit);
    }
}

/// The out buffer, emptied if all of it was written.
fn fresh(to: &mut Io) -> &mut Vec<u8> {
    if to.out.pending().is_empty() {
        to.out.clear();
    }
    to.out.bytes()
}
