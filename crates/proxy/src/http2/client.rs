//! The client side: one connection to an endpoint, shared by all requests that go there.
//!
//! [`connect`] starts the connection's driver as a local task; [`Sender`]s open streams on it. When the last sender and stream
//! are gone the connection closes. Which endpoint, and whether to try again, is decided above.

use super::{
    budget::{Bucket, CANCELS},
    gate::{Limits, Side},
    guarded::{Guarded, Link},
    pings::Pings,
    room::Room,
    settings::{COLD_STREAMS, ClientSettings, RESET_MEMORY, RESET_STREAMS, SMALL_FRAMES},
    window::Window,
};
use crate::{
    error::{Code, ProxyError},
    parting::{Parting, Partings},
    turn,
};
use bytes::Bytes;
use h2::{
    Reason, SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::Request;
use std::{
    cell::{Cell, OnceCell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{Instant, sleep_until},
};
use weft_transport::lifetime::Life;

/// Opens streams on a connection. Cheap to clone; each clone waits for a free stream on its own.
#[derive(Clone)]
pub(crate) struct Sender {
    requests: SendRequest<Bytes>,
    connection: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Cell<usize>,
    closed: Cell<bool>,
    life: OnceCell<Life>,
    link: Rc<Link>,
    /// What may still be cancelled here; counted from the start.
    cancels: RefCell<Bucket>,
    start: Instant,
    /// It drains, or too much was cancelled: what is new goes elsewhere.
    left: Cell<bool>,
    /// The server has said how many streams it allows.
    settled: Cell<bool>,
    /// Those who wait for that, or for the end of the connection.
    settles: Notify,
    /// Who is told when there may be room for a request that has found none, here or on a connection in this one's stead.
    room: OnceCell<Rc<Room>>,
    /// Who is told when the server leaves.
    partings: OnceCell<Rc<Partings>>,
    /// How many streams the server allowed when room was last looked for.
    allowed: Cell<usize>,
}

/// Counts a stream as open until dropped. Dropped before it was answered, it was cancelled.
#[derive(Debug)]
pub(crate) struct OpenStream {
    connection: Rc<Shared>,
    since: Instant,
    answered: bool,
}

/// How long a request that its client takes back stands all the same. A server that hears of a request and of its end at once takes
/// many of them for an attack by whoever holds the connection, on which other clients' requests are.
const YOUNG: Duration = Duration::from_millis(100);

/// How long who finds no room on a fresh connection waits for the server's settings.
const SETTLE: Duration = Duration::from_secs(1);

impl Shared {
    fn new(link: &Rc<Link>) -> Self {
        Self {
            streams: Cell::default(),
            closed: Cell::default(),
            life: OnceCell::new(),
            link: Rc::clone(link),
            cancels: RefCell::new(Bucket::full(CANCELS, Duration::ZERO)),
            start: Instant::now(),
            left: Cell::default(),
            settled: Cell::default(),
            settles: Notify::new(),
            room: OnceCell::new(),
            partings: OnceCell::new(),
            allowed: Cell::default(),
        }
    }

    fn settle(&self) {
        if !self.settled.replace(true) {
            self.settles.notify_waiters();
        }
    }

    fn part(&self, parting: Parting) {
        if let Some(partings) = self.partings.get() {
            partings.tell(parting);
        }
    }

    fn tell_room(&self) {
        if let Some(room) = self.room.get() {
            room.tell();
        }
    }

    /// Whether somebody waits for room who is to be told if so many streams are allowed.
    fn waits_for(&self, allowed: impl FnOnce() -> usize) -> bool {
        self.room.get().is_some_and(|room| room.is_awaited()) && self.allowed.get() < allowed()
    }
}

/// Starts HTTP/2 with prior knowledge on `io`, which is connected and, where that is due, behind TLS and transport header.
/// Must be called within a `LocalSet`.
///
/// # Errors
/// The connection broke at once.
pub(crate) async fn connect<S>(io: S, settings: &ClientSettings) -> Result<Sender, ProxyError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = Limits { frame_size: settings.max_frame_size, header_block: settings.header_block };
    let (io, link) = Guarded::new(io, Side::Client, limits);
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.max_frame_size)
        .max_header_list_size(settings.max_header_list_size)
        .max_send_buffer_size(settings.max_send_buffer as usize)
        .initial_max_send_streams(COLD_STREAMS)
        .max_concurrent_reset_streams(settings.max_concurrent_reset_streams.map_or(RESET_STREAMS, |max| max as usize))
        .reset_stream_duration(RESET_MEMORY)
        .data_frame_budget(SMALL_FRAMES)
        // The gate bounds what a server may provoke; without it, streams that the application cancels would count here.
        .max_local_error_reset_streams(None);
    // Boxed: whoever may connect holds this future's room, and hardly anybody does connect.
    let (requests, mut connection) =
        Box::pin(builder.handshake::<_, Bytes>(io)).await.map_err(|error| broken("could not start", &error))?;
    let shared = Rc::new(Shared::new(&link));
    let adaptive = settings.adaptive.then_some(settings.stream_window);
    let pings = Pings::new(settings.keep_alive, adaptive, || connection.ping_pong(), &link);
    let window = Window::new(settings.stream_window, settings.connection_window);
    tokio::task::spawn_local(drive(connection, pings, window, link, shared.clone()));
    Ok(Sender { requests, connection: shared })
}

async fn drive<S>(
    mut connection: Connection<Guarded<S>, Bytes>,
    mut pings: Option<Pings>,
    mut window: Window,
    link: Rc<Link>,
    shared: Rc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closed = CloseOnDrop(shared.clone());
    let mut said = false;
    poll_fn(|cx| {
        let ended = std::pin::Pin::new(&mut connection).poll(cx);
        if link.is_leaving() && !std::mem::replace(&mut said, true) {
            shared.part(Parting::Said);
        }
        if let Poll::Ready(result) = ended {
            if let Err(error) = result {
                tracing::debug!(%error, violation = ?link.violation(), "http/2 connection to an endpoint ended");
            }
            return Poll::Ready(());
        }
        // A server's settings are the first that it says.
        if link.reads() > 0 {
            shared.settle();
        }
        if shared.waits_for(|| connection.max_concurrent_send_streams()) {
            shared.tell_room();
        }
        if let Some(larger) = window.cover(shared.streams.get()) {
            connection.set_target_window_size(larger);
            cx.waker().wake_by_ref();
        }
        if let Some(pings) = &mut pings {
            if pings.poll(cx, shared.streams.get() == 0).is_ready() {
                tracing::debug!("http/2 connection to an endpoint is silent");
                return Poll::Ready(());
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
    .await;
    drop(closed);
}

struct CloseOnDrop(Rc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.closed.set(true);
        self.0.settle();
        self.0.tell_room();
        self.0.part(Parting::Closed);
    }
}

impl Sender {
    /// Whether the connection has ended. One that only drains (GOAWAY) is found out by [`Self::ready`].
    pub(crate) fn is_closed(&self) -> bool {
        self.connection.closed.get()
    }

    /// Opens no more streams than that life allows.
    pub(crate) fn until(self, life: Option<Life>) -> Self {
        if let Some(life) = life {
            // Said once, when the connection is made.
            let _ = self.connection.life.set(life);
        }
        self
    }

    /// Says in `room` when there may be some, and in `partings` when the server leaves.
    pub(crate) fn telling(self, room: &Rc<Room>, partings: &Rc<Partings>) -> Self {
        // Said once, as well.
        let _ = self.connection.room.set(Rc::clone(room));
        let _ = self.connection.partings.set(Rc::clone(partings));
        self
    }

    /// Whether the connection is worth keeping for another request.
    pub(crate) fn is_good(&self) -> bool {
        let Shared { life, left, .. } = &*self.connection;
        !self.is_closed() && !left.get() && !life.get().is_some_and(Life::is_ending)
    }

    /// Waits until the server has said how many streams it allows, or the connection has ended. A server that says nothing for
    /// too long allows no more than those that were opened.
    pub(crate) async fn settled(&self) {
        let Shared { settled, settles, .. } = &*self.connection;
        let settling = settles.notified();
        if !settled.get() && tokio::time::timeout(SETTLE, settling).await.is_err() {
            self.connection.settle();
        }
    }

    /// Whether the server has not said yet how many streams it allows.
    pub(crate) fn is_cold(&self) -> bool {
        !self.connection.settled.get()
    }

    /// Whether the peer allows another stream now.
    pub(crate) fn has_room(&self) -> bool {
        let allowed = self.requests.current_max_send_streams();
        self.connection.allowed.set(allowed);
        self.connection.streams.get() < allowed
    }

    /// Whether the peer allows no streams at all.
    pub(crate) fn allows_none(&self) -> bool {
        self.requests.current_max_send_streams() == 0
    }

    /// Whether no stream is open.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.streams.get() == 0
    }

    /// New requests go elsewhere.
    pub(crate) fn leave(&self) {
        self.connection.left.set(true);
        self.connection.tell_room();
    }

    /// Waits until the peer allows another stream.
    ///
    /// # Errors
    /// The connection takes no more streams: another one may.
    pub(crate) async fn ready(&mut self) -> Result<(), ProxyError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// # Errors
    /// The connection takes no more streams: another one may.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        if self.is_closed() {
            return Poll::Ready(Err(ProxyError::new(Code::ConnectFailed, "connection has closed")));
        }
        self.requests.poll_ready(cx).map_err(|error| broken("takes no more requests", &error))
    }

    /// Opens a stream. `end` says that no body follows.
    pub(crate) fn send(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>, OpenStream), h2::Error> {
        let (response, body) = self.requests.send_request(request, end)?;
        self.connection.streams.set(self.connection.streams.get() + 1);
        Ok((
            response,
            body,
            OpenStream { connection: self.connection.clone(), since: turn::now().into(), answered: false },
        ))
    }
}

impl OpenStream {
    /// The server has said something of it: what follows costs no server more than it has agreed to.
    pub(crate) fn answered(&mut self) {
        self.answered = true;
    }

    /// Waits until the stream may be reset, which its client has given up.
    pub(crate) async fn matures(&self) {
        if !self.answered && !self.connection.closed.get() {
            // Boxed: most requests are answered.
            Box::pin(sleep_until(self.since + YOUNG)).await;
        }
    }

    /// Resets the stream for a reason of the client's, which is not the server's fault.
    pub(crate) fn reset(&self, body: &mut SendStream<Bytes>, reason: Reason) {
        self.connection.link.excuse(reason);
        body.send_reset(reason);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Shared { streams, cancels, start, left, closed, .. } = &*self.connection;
        streams.set(streams.get().saturating_sub(1));
        if !self.answered && !closed.get() && !cancels.borrow_mut().take(1, &mut || start.elapsed()) {
            left.set(true);
        }
        self.connection.tell_room();
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("connection", &self.connection).finish_non_exhaustive()
    }
}

fn broken(what: &str, error: &h2::Error) -> ProxyError {
    ProxyError::new(Code::ConnectFailed, format!("http/2 connection {what}: {error}"))
}
