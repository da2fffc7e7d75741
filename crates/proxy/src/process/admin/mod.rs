//! The admin server: probes, metrics, log level, environment, shutdown (data plane 1.7). Runs on the admin thread.
//!
//! ```text
//! client ─► guard (TLS, then the port's policy for each request) ─► answer
//! ```
//! It answers HTTP/1 and HTTP/2, in plaintext and to the mesh. It decides nothing about the workload's traffic.

mod answer;
mod env;
mod explain;
mod guard;

use super::{
    places::{Place, Places},
    served,
    shutdown::Trigger,
    upgrade::Elder,
};
use crate::{
    inbound::connected::Connected,
    prefix::{self, Seen},
    records::Readers,
};
use answer::{answer, refusal};
use bytes::{Bytes, BytesMut};
pub(super) use guard::Guard;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpStream, sync::watch};
use weft_telemetry::{LogHandle, Readiness, Registry};
use weft_transport::{
    detect::{self, Http},
    lifetime::Life,
    socket::{self, AcceptOptions},
};

/// The most connections at once. Nobody who asks waits for those who do not: for the last place the longest idle one gives way.
const MAX_CONNECTIONS: usize = 512;
/// Of one client, of which there are few: the kubelet, Prometheus, whoever debugs. For more its own give way.
const MAX_OF_ONE: usize = 128;
/// The first bytes of an HTTP/2 connection, all of which must have come before it is served.
const PREFACE: usize = 24;
/// How long the head of a request may take, how long an idle connection is kept, and how long one may take to end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the answers are made from.
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) readiness: Readiness,
    pub(super) logs: LogHandle,
    pub(super) shutdown: Trigger,
    /// Whether POST /shutdown is allowed.
    pub(super) shutdown_enabled: bool,
    pub(super) readers: Readers,
    /// The process that this one replaces, while it lives.
    pub(super) elder: Option<Arc<Elder>>,
}

/// The answers and who may have them.
struct Server {
    state: State,
    guard: Guard,
}

/// Serves until the runtime ends, or `over` says that another process does. One that replaces another begins when it is ready.
pub(super) async fn serve(
    listener: TcpListener,
    state: State,
    guard: Guard,
    mut over: watch::Receiver<bool>,
) -> io::Result<()> {
    if let Some(elder) = &state.elder {
        elder.replaced(&state.readiness).await;
    }
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (server, places) = (Arc::new(Server { state, guard }), Places::giving_way(MAX_CONNECTIONS, MAX_OF_ONE));
    loop {
        // Dropping either is safe: a connection that was not taken stays in the kernel's queue, for the other process.
        let next = tokio::select! {
            next = served::next("admin", &listener, &places) => next,
            () = handed(&mut over) => {
                drop(listener);
                return std::future::pending().await;
            }
        };
        let Some((tcp, client, place)) = next else { return Ok(()) };
        let (server, over) = (server.clone(), over.clone());
        tokio::spawn(async move {
            let place = Arc::new(place);
            // Dropped as a whole by who gives way: nothing of it is under way, or everybody's is.
            let served = tokio::select! {
                served = connection(tcp, client, &server, &place, over) => served,
                () = place.lost() => Ok(()),
            };
            if let Err(error) = served {
                tracing::debug!(%client, error, "An admin connection failed");
            }
        });
    }
}

/// Serves one connection. Who says nothing by which the version is known gives its place back in time.
async fn connection(
    tcp: TcpStream,
    client: SocketAddr,
    server: &Arc<Server>,
    place: &Arc<Place>,
    mut over: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    socket::accepted(&tcp, &AcceptOptions::default())?;
    let Some((mut stream, connected)) = Box::pin(server.guard.arrive(tcp, client)).await? else { return Ok(()) };
    let mut bytes = BytesMut::new();
    let seen = prefix::read(&mut stream, &mut bytes, HEAD_TIMEOUT, |bytes| match detect::http(bytes) {
        Http::NeedMore => None,
        Http::Http2 if bytes.len() < PREFACE => None,
        known => Some(known),
    });
    let Seen::Answer(version) = seen.await? else { return Ok(()) };
    stream.unread(bytes.freeze());
    let life = stream.life();
    let (io, timer) = (TokioIo::new(stream), TokioTimer::new());
    let (connected, busy) = (Arc::new(connected), Arc::new(Busy::of(place)));
    let service = service_fn(|request| {
        let (server, connected, begun) = (server.clone(), connected.clone(), busy.begin());
        async move {
            let _begun = begun;
            Ok::<_, Infallible>(server.respond(&connected, request).await)
        }
    });
    let over = async {
        tokio::select! {
            () = ending(&mut over, life) => {}
            () = busy.idle() => {}
        }
    };
    if version == Http::Http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(timer).keep_alive_interval(HEAD_TIMEOUT).max_concurrent_streams(64);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            served = serving.as_mut() => return Ok(served?),
            () = over => serving.as_mut().graceful_shutdown(),
        }
        tokio::time::timeout(HEAD_TIMEOUT, serving).await??;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(timer).header_read_timeout(HEAD_TIMEOUT);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            served = serving.as_mut() => return Ok(served?),
            () = over => serving.as_mut().graceful_shutdown(),
        }
        tokio::time::timeout(HEAD_TIMEOUT, serving).await??;
    }
    Ok(())
}

/// The requests of one connection, by which it is known to be idle.
struct Busy {
    begun: AtomicU64,
    open: AtomicU64,
    place: Arc<Place>,
}

/// A request that is not answered yet.
struct Begun(Arc<Busy>);

impl Busy {
    fn of(place: &Arc<Place>) -> Self {
        Self { begun: AtomicU64::new(0), open: AtomicU64::new(0), place: place.clone() }
    }

    fn begin(self: &Arc<Self>) -> Begun {
        self.place.begin();
        self.begun.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Begun(self.clone())
    }

    /// Resolves when for [`HEAD_TIMEOUT`] no request has come and none is open. Cancel-safe.
    async fn idle(&self) {
        loop {
            let before = self.begun.load(Relaxed);
            tokio::time::sleep(HEAD_TIMEOUT).await;
            if self.open.load(Relaxed) == 0 && self.begun.load(Relaxed) == before {
                return;
            }
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.place.end();
    }
}

impl Server {
    /// Whether the client may ask, then the answer.
    async fn respond(&self, connected: &Connected, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        match self.guard.admit(connected, &head) {
            Ok(()) => answer(&self.state, connected.client, Request::from_parts(head, body)).await,
            Err(error) => refusal(connected, &error),
        }
    }
}

/// Resolves when a connection shall end: another process has the port, or the client's certificate is over. Cancel-safe.
async fn ending(over: &mut watch::Receiver<bool>, life: Option<Life>) {
    tokio::select! {
        () = handed(over) => {}
        () = served::ending(life) => {}
    }
}

/// Resolves when another process has the port. Cancel-safe.
async fn handed(over: &mut watch::Receiver<bool>) {
    // Without anybody who could hand it over it stays here.
    if over.wait_for(|over| *over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::shutdown, *};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn server() -> Arc<Server> {
        let (trigger, _pulled) = shutdown::channel();
        let (registry, readiness, logs) = (Registry::new(1, 10), Readiness::new(), LogHandle::off());
        let guard = guard::test::guard(&registry);
        let readers = Readers::default();
        let state =
            State { registry, readiness, logs, shutdown: trigger, shutdown_enabled: false, readers, elder: None };
        Arc::new(Server { state, guard })
    }

    async fn place(client: SocketAddr) -> Arc<Place> {
        let places = Places::giving_way(MAX_CONNECTIONS, MAX_OF_ONE);
        Arc::new(places.take(places.room().await.unwrap(), client.ip()).unwrap())
    }

    /// Neither does a connection on which nothing is asked any more, though its client answers pings.
    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_holds_no_place_for_ever() {
        let (_handed, over) = watch::channel(false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (tcp, addr) = listener.accept().await.unwrap();
        let server = server();
        let asked = async {
            let (mut sender, connection) = h2::client::handshake(client).await.unwrap();
            let asking = async {
                let request = Request::get("http://app/live").body(()).unwrap();
                let (response, _) = sender.send_request(request, true).unwrap();
                assert_eq!(response.await.unwrap().status(), 200);
                // It stays as long as it may.
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = connection => ended,
                () = asking => unreachable!(),
            }
        };
        let place = place(addr).await;
        let (served, ended) = tokio::join!(connection(tcp, addr, &server, &place, over), asked);
        assert!(served.is_ok() && ended.is_ok(), "{served:?} {ended:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_holds_no_place_for_ever() {
        let server = server();
        let (_handed, over) = watch::channel(false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for (said, answered) in [
            ("", false),
            ("P", false),
            ("\x16\x03\x01", false),
            ("PRI * HTTP/2.0\r\n\r\n", false),
            ("GET /live HTTP/1.1\r\n\r\n", true),
        ] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let (tcp, addr) = listener.accept().await.unwrap();
            let place = place(addr).await;
            let served = connection(tcp, addr, &server, &place, over.clone());
            let mut text = String::new();
            let (_, read) = tokio::join!(served, client.read_to_string(&mut text));
            assert!(read.is_ok() || !answered, "{said:?}: {read:?}");
            assert_eq!(text.contains("200 OK"), answered, "{said:?}: {text}");
        }
    }
}
