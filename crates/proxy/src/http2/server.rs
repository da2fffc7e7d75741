//! The server side: drives one accepted connection, hands out its streams, pings, and drains.
//!
//! It does not know what a stream is for: each is given to a function that starts a local task.

use super::{
    gate::{Limits, Side, Violation},
    guarded::{Begun, Guarded, Link},
    pings::Pings,
    settings::{RESET_MEMORY, RESET_STREAMS, SMALL_FRAMES, ServerSettings},
    window::Window,
};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::Request;
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Sleep,
};

/// From the first byte to the end of the client's preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// From a client's GOAWAY until its connection is closed, once it is idle: by then it has said what it had to say.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the streams of a connection share with its driver.
#[derive(Debug)]
pub(crate) struct Driver {
    link: Rc<Link>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Why a connection ended before its time.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The gate has ended it, or `h2`.
    Violation(String),
    Broken(h2::Error),
}

impl Ended {
    fn of(link: &Link, error: h2::Error) -> Self {
        match link.violation() {
            Some(Violation { code, what }) => Self::Violation(format!("connection ended with {code:?}: {what}")),
            None if error.is_go_away() && error.is_library() => Self::Violation(error.to_string()),
            None => Self::Broken(error),
        }
    }
}

impl Driver {
    /// A stream's request is worked on as long as the value lives.
    pub(crate) fn begin(&self) -> Begun {
        self.link.begin()
    }

    /// Resets a stream for a reason that is not the connection's, so that it does not count against the client.
    pub(crate) fn reset(&self, respond: &mut SendResponse<Bytes>, reason: Reason) {
        self.link.excuse(reason);
        respond.send_reset(reason);
    }

    /// The same once a response has begun.
    pub(crate) fn cut(&self, body: &mut SendStream<Bytes>, reason: Reason) {
        self.link.excuse(reason);
        body.send_reset(reason);
    }

    fn wake_with(&self, waker: &Waker) {
        let mut held = self.waker.borrow_mut();
        if !held.as_ref().is_some_and(|held| held.will_wake(waker)) {
            *held = Some(waker.clone());
        }
    }

    /// Ends the connection after the streams that are open.
    pub(crate) fn close(&self) {
        if !self.closing.replace(true)
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }
}

/// Serves `io` until the client is done, the connection breaks, or `drain` is ready and the open streams have ended.
pub(crate) async fn serve<S>(
    io: S,
    settings: &ServerSettings,
    drain: impl Future<Output = ()>,
    mut start: impl FnMut(Request<RecvStream>, SendResponse<Bytes>, &Rc<Driver>),
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = Limits { frame_size: settings.max_frame_size, header_block: settings.max_header_list_size };
    let (io, link) = Guarded::new(io, Side::Server, limits);
    let handshake = h2::server::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.max_concurrent_streams)
        .max_frame_size(settings.max_frame_size)
        .max_header_list_size(settings.max_header_list_size)
        .max_pending_accept_reset_streams(settings.max_pending_accept_reset_streams as usize)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .reset_stream_duration(RESET_MEMORY)
        .data_frame_budget(SMALL_FRAMES)
        // It counts as long as a connection lives. The gate bounds what a client may provoke by its rate.
        .max_local_error_reset_streams(None)
        .max_send_buffer_size(settings.max_send_buffer as usize)
        .handshake::<_, Bytes>(io);
    // Boxed: it is over after the first round trip, while the connection's future may live for days.
    let Ok(connected) = tokio::time::timeout(PREFACE_TIMEOUT, Box::pin(handshake)).await else {
        tracing::debug!("client sent no http/2 preface in time");
        return Ok(());
    };
    let mut connection = connected.map_err(|error| Ended::of(&link, error))?;
    let adaptive = settings.adaptive.then_some(settings.stream_window);
    let mut window = Window::new(settings.stream_window, settings.connection_window);
    let mut pings = Pings::new(settings.keep_alive, adaptive, || connection.ping_pong(), &link);
    let driver = Rc::new(Driver { link, closing: Cell::new(false), waker: RefCell::default() });
    let mut drain = pin!(drain);
    let mut draining = false;
    let mut goodbye: Option<Pin<Box<Sleep>>> = None;
    let mut left = false;
    poll_fn(|cx| {
        driver.wake_with(cx.waker());
        if !draining && (driver.closing.get() || drain.as_mut().poll(cx).is_ready()) {
            draining = true;
            connection.graceful_shutdown();
        }
        loop {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    start(request, respond, &driver);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Ended::of(&driver.link, error))),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {}
            }
            if !driver.link.is_leaving() || connection.has_streams() {
                break;
            }
            let goodbye = goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(GOODBYE)));
            if left || goodbye.as_mut().poll(cx).is_pending() {
                break;
            }
            left = true;
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
        // Each stream's task holds the driver.
        if let Some(larger) = window.cover(Rc::strong_count(&driver) - 1) {
            connection.set_target_window_size(larger);
            cx.waker().wake_by_ref();
        }
        if let Some(pings) = &mut pings {
            if pings.poll(cx, !connection.has_streams()).is_ready() {
                tracing::debug!("client is silent");
                return Poll::Ready(Ok(()));
            }
            if let Some(grown) = pings.grown() {
                connection.set_target_window_size(window.grow(grown));
                // Another change of settings may be on its way: then the streams' windows grow with the next one.
                let _ = connection.set_initial_window_size(grown);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    })
    .await
}
