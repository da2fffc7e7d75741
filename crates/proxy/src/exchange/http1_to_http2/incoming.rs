//! The response's body, from the HTTP/2 stream to the HTTP/1 client. The stream's window opens as the client takes it.

use super::{Cut, WRITE_AT_ONCE};
use crate::{
    exchange::{
        Told,
        http1_fields::{write_chunk, write_last_chunk},
        http2_head::{check_fields, grpc_status},
    },
    http1::io::Io,
    http2::trailers_fit,
};
use h2::RecvStream;
use std::task::{Context, Poll, ready};
use weft_model::decide::field::Message;

/// The response on its way to the client.
pub(super) struct Incoming {
    pub(super) body: RecvStream,
    pub(super) framing: Framing,
    /// Bytes of the body that are not yet written.
    pub(super) unwritten: usize,
    /// Content since it was last asked for.
    pub(super) content: usize,
    pub(super) moved: bool,
    pub(super) grpc_status: Option<u16>,
    /// All of it stands in the out buffer.
    pub(super) whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    UntilClose,
    NoBody,
}

impl Incoming {
    /// Writes what can be written. Ready when all of the response is. `idle` says that nobody else reads from the client.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Io,
        idle: bool,
        told: Told<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            let mut waits = false;
            while !self.whole && !waits && self.unwritten < WRITE_AT_ONCE {
                match self.take(cx, client, told) {
                    Poll::Ready(taken) => taken?,
                    Poll::Pending => waits = true,
                }
            }
            ready!(client.poll_write_out(cx)).map_err(|_| Cut::Client)?;
            client.out.clear();
            if self.unwritten > 0 {
                // Fails only for more than was received.
                let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.unwritten));
            }
            if self.whole {
                return Poll::Ready(Ok(()));
            }
            if waits {
                let gone = idle && client.poll_gone(cx, 0).is_ready();
                return if gone { Poll::Ready(Err(Cut::Client)) } else { Poll::Pending };
            }
        }
    }

    fn take(&mut self, cx: &mut Context<'_>, client: &mut Io, told: Told<'_>) -> Poll<Result<(), Cut>> {
        match ready!(self.body.poll_data(cx)) {
            Some(Err(error)) => return Poll::Ready(Err(Cut::Upstream(error))),
            Some(Ok(data)) => {
                self.moved = true;
                self.unwritten += data.len();
                self.content += data.len();
                let out = client.out.bytes();
                match self.framing {
                    Framing::Chunked if !data.is_empty() => write_chunk(out, &data),
                    Framing::Length | Framing::UntilClose => out.extend_from_slice(&data),
                    Framing::Chunked | Framing::NoBody => {}
                }
                if self.body.is_end_stream() {
                    self.end(client, None);
                }
            }
            None => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(Cut::Upstream)?;
                if let Some(trailers) = &trailers {
                    check_fields(trailers).map_err(Cut::Response)?;
                    if !trailers_fit(trailers, Message::Response) {
                        return Poll::Ready(Err(Cut::Response("trailers are too large to be carried")));
                    }
                    self.grpc_status = grpc_status(trailers);
                    told(trailers);
                }
                self.end(client, trailers.as_ref());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn end(&mut self, client: &mut Io, trailers: Option<&http::HeaderMap>) {
        self.whole = true;
        if self.framing == Framing::Chunked {
            write_last_chunk(client.out.bytes(), trailers, Message::Response);
        }
    }
}
