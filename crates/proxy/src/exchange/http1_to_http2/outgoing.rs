//! The request's body, from the HTTP/1 client to the HTTP/2 stream. What was read is consumed when the stream has taken it.

use super::Cut;
use crate::{
    exchange::{Copies, Observe, http1_fields::trailers_of, http2_body::room},
    http1::{
        body::{Decoder, Step},
        io::{Io, READ_AHEAD},
        trailers::TOO_LARGE,
    },
    http2::trailers_fit,
};
use bytes::Bytes;
use h2::SendStream;
use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};
use weft_model::decide::field::Message;

/// The request's body on its way to the endpoint.
pub(super) struct Outgoing {
    pub(super) decoder: Decoder,
    /// Content at the front of what was read.
    pub(super) data: usize,
    /// Content since it was last asked for.
    pub(super) content: usize,
    /// Length of the request's head, while it stands in the buffer. Once it is gone the request cannot be sent again.
    pub(super) head: usize,
    pub(super) whole: bool,
    /// The endpoint reads no more.
    pub(super) stopped: bool,
    /// The client waits for `100 Continue`.
    pub(super) asks: bool,
    /// The method is HEAD.
    pub(super) only_head: bool,
    pub(super) idempotent: bool,
    /// Who is shown the content.
    pub(super) copies: Option<Rc<Copies>>,
}

impl Outgoing {
    /// Nothing more of the request is sent.
    pub(super) fn sent(&self) -> bool {
        self.whole || self.stopped
    }

    pub(super) fn take_head(&mut self, client: &mut Io) {
        if self.head > 0 {
            client.take_head(std::mem::take(&mut self.head));
        }
    }

    pub(super) fn tell(&mut self, record: &mut impl Observe) {
        match std::mem::take(&mut self.content) {
            0 => {}
            content => record.request_body(content),
        }
    }

    /// Sends what of the body can be sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Io,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), Cut>> {
        if self.whole || self.stopped {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_move(cx, client, to)) {
            // What this means the response says.
            Ok(false) => self.stopped = true,
            Ok(true) => {
                self.whole = true;
                if let Some(copies) = &self.copies {
                    copies.whole();
                }
            }
            Err(failed) => return Poll::Ready(Err(failed)),
        }
        Poll::Ready(Ok(()))
    }

    /// Ready with whether the body has ended, or the endpoint reads no more.
    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Io,
        to: &mut SendStream<Bytes>,
    ) -> Poll<Result<bool, Cut>> {
        loop {
            while self.data > 0 {
                let Ok(room) = ready!(room(cx, to, self.data)) else { return Poll::Ready(Ok(false)) };
                let n = room.min(self.data);
                let data = Bytes::copy_from_slice(client.read.filled().get(..n).unwrap_or_default());
                client.read.consume(n);
                if let Some(copies) = &self.copies {
                    copies.data(&data);
                }
                self.data -= n;
                self.content += n;
                let end = self.data == 0 && self.decoder.is_end();
                if to.send_data(data, end).is_err() || end {
                    return Poll::Ready(Ok(end));
                }
            }
            let unread = client.read.filled().get(self.head..).unwrap_or_default();
            let step = self.decoder.next(unread).map_err(Cut::Body)?;
            if !matches!(step, Step::More) {
                self.take_head(client);
            }
            match step {
                Step::Data(n) => {
                    self.data = n;
                }
                Step::Framing(n) => {
                    client.read.consume(n);
                }
                Step::Trailers(n) => {
                    let section = client.read.filled().get(..n).unwrap_or_default();
                    let fields = trailers_of(section, Message::Request);
                    client.read.consume(n);
                    if !trailers_fit(&fields, Message::Request) {
                        return Poll::Ready(Err(Cut::Body(TOO_LARGE)));
                    }
                    let sent =
                        if fields.is_empty() { to.send_data(Bytes::new(), true) } else { to.send_trailers(fields) };
                    return Poll::Ready(Ok(sent.is_ok()));
                }
                Step::End => return Poll::Ready(Ok(to.send_data(Bytes::new(), true).is_ok())),
                Step::More => {
                    if std::mem::take(&mut self.asks) {
                        client.out.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                        // Waits for the client only in what follows; an error shows there.
                        let _ = client.poll_write_out(cx);
                    }
                    if self.decoder.expected() > READ_AHEAD as u64 / 16 {
                        client.read.enlarge();
                    }
                    match ready!(client.poll_fill(cx, READ_AHEAD)) {
                        Ok(n) if n > 0 => {}
                        _ => return Poll::Ready(Err(Cut::Client)),
                    }
                }
            }
        }
    }
}
